"""Encoders as ONNX files: ONNX Runtime computes what the encoder computes."""

import sys
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, get_args

import numpy as np
import onnx
import pytest
from builders.fdes import CONFIGS, SIDES, Side, clear_of_planes, encoded, fitted
from builders.onnx_files import largest_error, run, session, session_of
from builders.token_collections import ragged
from hypothesis import given, settings
from hypothesis import strategies as st

import muvera
from muvera import FDEConfig, FDEEncoder, MultiVectors, SimHash
from muvera.data.demo_sample import load_demo_sample
from muvera.fde.config import PRESETS
from muvera.fde.encoder import _STEPS, onnx_model
from muvera.fde.steps import Dialect, DocumentCells, InnerProjection
from muvera.fde.tasks import ArrayClasses, Step

#: The largest error, in shares of a vector's largest entry.
BOUND = 1e-4

#: Configurations that the others lack, by name.
MORE = {
    "no hyperplanes": FDEConfig.preset("simhash", 17, num_repetitions=2, num_simhash_projections=0),
    "directions of cells": FDEConfig.preset("simhash", 8, num_repetitions=3, document_cells="unit"),
    "whole cells": FDEConfig.preset("simhash", 6, num_repetitions=3, projection="identity", moments=None),
    "filled unit cells": FDEConfig.preset("paper", 12, num_repetitions=3, document_cells="unit"),
    "sketches of cells": FDEConfig.preset("paper", 12, num_repetitions=2, projection="count_sketch"),
}


@cache
def fitted_to(name: str) -> FDEEncoder:
    if name in CONFIGS:
        return fitted(name)
    return FDEEncoder(MORE[name]).fit(ragged(MORE[name].dimension))


@cache
def cached_session(name: str, side: Side) -> Any:
    return session_of(fitted_to(name), side)


@cache
def sample_encoder(preset: str) -> FDEEncoder:
    documents = load_demo_sample().documents
    return FDEEncoder.preset(preset, documents.dimension).fit(documents)


@st.composite
def texts_at_the_edges(draw: st.DrawFn, encoder: FDEEncoder) -> MultiVectors:
    """Up to four texts: some empty, some of equal tokens or zeros, some huge or tiny.

    A token is left out if float32 does not determine its SimHash cells.
    """
    dimension, random = encoder.config.dimension, np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    texts = []
    for kind in draw(st.lists(st.sampled_from(["any", "any", "equal", "zeros"]), min_size=1, max_size=4)):
        tokens = (random.normal(size=(draw(st.integers(0, 12)), dimension)) + 0.5) / np.sqrt(dimension)
        tokens = tokens.astype(np.float32)
        if isinstance(encoder.config.cells, SimHash):
            # A document of equal tokens has no deviations, but rounding errors.
            if encoder.config.cells.document_cells == "unit" and encoder.config.moments is not None:
                kind = "any"
            tokens = clear_of_planes(tokens, encoder)
        if kind == "equal":
            tokens = np.repeat(tokens[:1], len(tokens), axis=0)
        size = 0.0 if kind == "zeros" else draw(st.sampled_from([1.0, 1.0, 1e-9, 1e-3, 1e3, 1e6]))
        if isinstance(encoder.config.cells, SimHash) and encoder.center.any():
            size = 1.0  # only planes through zero have the same cells for all sizes
        texts.append(tokens * np.float32(size))
    return MultiVectors.from_arrays(texts, dimension=dimension)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", [*CONFIGS, *MORE])
@settings(max_examples=12)
@given(data=st.data())
def test_a_file_encodes_as_the_encoder(name: str, side: Side, data: st.DataObject) -> None:
    """Also if other rows contain anything, and for each text alone."""
    encoder, runs = fitted_to(name), cached_session(name, side)
    texts = data.draw(texts_at_the_edges(encoder))
    wanted = encoded(encoder, side, texts)
    found = run(runs, texts, data.draw(st.integers(0, 3)), data.draw(st.sampled_from([0, 7e7, np.nan])))
    assert largest_error(found, wanted) <= BOUND
    for i in range(len(texts)):
        alone = run(runs, texts[i : i + 1])
        assert largest_error(alone, wanted[i : i + 1]) <= BOUND


@pytest.mark.parametrize("preset", PRESETS)
def test_real_queries_find_the_same_best_hundred(preset: str) -> None:
    sample, encoder = load_demo_sample(), sample_encoder(preset)
    documents, queries = encoder.encode_documents(sample.documents), encoder.encode_queries(sample.queries)
    found = run(session_of(encoder, "documents"), sample.documents[:100])
    assert largest_error(found, documents[:100]) <= BOUND
    found = run(session_of(encoder, "queries"), sample.queries)
    assert largest_error(found, queries) <= BOUND
    best, ours = (np.sort(np.argsort(-(side @ documents.T))[:, :100]) for side in (found, queries))
    np.testing.assert_array_equal(best, ours)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("preset", PRESETS)
def test_long_texts(preset: str, side: Side) -> None:
    encoder = sample_encoder(preset)
    tokens = load_demo_sample().documents.tokens
    texts = MultiVectors.from_flat(tokens[:1025], [512, 1, 512])
    assert largest_error(run(session_of(encoder, side), texts), encoded(encoder, side, texts)) <= BOUND


@pytest.mark.parametrize("cells", [8, 500])
def test_of_equal_landmarks_the_first_are_nearest(cells: int) -> None:
    """Products of tokens and landmarks are whole numbers, so that ties are exact."""
    encoder = FDEEncoder.preset("fde", 16, num_landmarks=cells, moments="mean", final_projection=None)
    corners = np.random.default_rng(0).choice([-1.0, 1.0], (500, 16)).astype(np.float32)
    texts = MultiVectors.from_flat(np.repeat(corners, 2, axis=0), np.full(100, 10))
    encoder.fit(texts)
    for side in SIDES:
        wanted = encoded(encoder, side, texts)
        assert largest_error(run(session_of(encoder, side), texts), wanted) <= BOUND, side


def test_bytes_are_rounded_as_in_the_kernel() -> None:
    """One different byte would change weights of single tokens by more than 1e-4."""
    encoder, random = fitted_to("landmarks"), np.random.default_rng(0)
    texts = MultiVectors.from_flat(random.normal(size=(20_000, 20)).astype(np.float32), np.full(5000, 4))
    found = run(cached_session("landmarks", "queries"), texts)
    assert largest_error(found, encoder.encode_queries(texts)) < 3e-6


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("opset", [13, 17, 18, 21])
@pytest.mark.parametrize("name", ["fde", "simhash", "simhash, sketched", "paper"])
def test_models_are_valid_in_every_opset(name: str, opset: int, side: Side) -> None:
    encoder = fitted_to(name)
    model = onnx_model(encoder, side, opset=opset)
    onnx.checker.check_model(model, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    shapes = {value.name: value.type.tensor_type.shape.dim for value in inferred.graph.value_info}
    assert all(node.output[0] in shapes or node.output[0] == "fde" for node in model.graph.node)
    texts = ragged(encoder.config.dimension)
    found = run(session(model.SerializeToString()), texts)
    assert largest_error(found, encoded(encoder, side, texts)) <= BOUND


def test_a_file_describes_itself(tmp_path: Path) -> None:
    encoder = sample_encoder("fde")
    encoder.to_onnx(tmp_path / "documents.onnx", "documents")
    model = onnx.load(tmp_path / "documents.onnx")
    assert {entry.key: entry.value for entry in model.metadata_props} == {
        "muvera.version": muvera.__version__,
        "muvera.side": "documents",
        "muvera.preset": "fde",
        "muvera.hash": encoder.config.hash,
        "muvera.dimension": "128",
    }
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 13)]
    assert model.ir_version == 7
    inputs = {
        each.name: (each.type, each.shape) for each in session(str(tmp_path / "documents.onnx")).get_inputs()
    }
    assert inputs == {
        "tokens": ("tensor(float)", ["batch", "tokens", 128]),
        "mask": ("tensor(int64)", ["batch", "tokens"]),
    }


@pytest.mark.parametrize(
    ("config", "name"),
    [
        *((FDEConfig.preset(name, 48, seed=7), name) for name in PRESETS),
        (FDEConfig(128).sized(10**6, 10**8), "fde"),
        (FDEConfig.preset("paper", 128, num_repetitions=3), "none"),
    ],
)
def test_a_file_names_its_preset(config: FDEConfig, name: str) -> None:
    encoder = FDEEncoder(config)
    if config.needs_fit:
        encoder.fit(ragged(config.dimension, 3))
    properties = {entry.key: entry.value for entry in onnx_model(encoder, "queries").metadata_props}
    assert properties["muvera.preset"] == name


@pytest.mark.parametrize("side", SIDES)
def test_maps_stay_bytes(side: Side) -> None:
    """Floats of a map would take four times as much."""
    encoder = sample_encoder("fde")
    arrays = encoder.to_arrays()
    stored = [
        array.dims for array in onnx_model(encoder, side).graph.initializer if array.data_type in (2, 3)
    ]
    maps = (
        ("learned_documents",)
        if side == "documents"
        else ("learned_cells", "learned_triangles", "learned_sums")
    )
    for name in (*maps, "landmarks_landmarks"):
        assert any(sorted(dims) == sorted(arrays[name].shape) for dims in stored), name
    floats = sum(
        np.prod(each.dims) for each in onnx_model(encoder, side).graph.initializer if each.data_type == 1
    )
    assert floats < 50_000


def test_every_step_and_choice_is_tried() -> None:
    """A new step must have nodes, and a configuration here."""
    configs = [*CONFIGS.values(), *MORE.values()]
    tried = {type(step) for config in configs for step in (config.cells, config.moments, config.projection)}
    assert tried - {type(None)} == set(_STEPS)
    cells = [config.cells for config in configs if isinstance(config.cells, SimHash)]
    for field, choices in (
        ("projection", InnerProjection),
        ("document_cells", DocumentCells),
        ("dialect", Dialect),
    ):
        assert {getattr(each, field) for each in cells} == set(get_args(choices))


def test_a_step_without_nodes_cannot_be_made() -> None:
    class WithoutNodes(Step):
        array_classes: ClassVar[ArrayClasses] = {}

        def write(self, *_: Any) -> None: ...

    with pytest.raises(TypeError, match=r"abstract method '?onnx"):
        WithoutNodes(None, FDEConfig(16), {}, None)  # type: ignore[abstract]


def test_bad_input_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, path = FDEEncoder.preset("paper", 16), tmp_path / "queries.onnx"
    with pytest.raises(ValueError, match=r"This encoder is not fitted\. Call fit\(documents\) first\."):
        FDEEncoder(FDEConfig(16)).to_onnx(path)
    with pytest.raises(ValueError, match="side must be one of documents, queries, got 'query'"):
        encoder.to_onnx(path, "query")  # type: ignore[arg-type]
    encoder.to_onnx(path)
    before = path.read_bytes()
    with pytest.raises(
        FileExistsError, match=r"exists\. Give another name, or overwrite=True to replace it\."
    ):
        encoder.to_onnx(path, "documents")
    assert path.read_bytes() == before
    encoder.to_onnx(path, "documents", overwrite=True)
    assert path.read_bytes() != before
    monkeypatch.setitem(sys.modules, "onnx", None)
    command = r"pip install '.*\[onnx\]'"
    with pytest.raises(ImportError, match=f"Writing ONNX files needs onnx, .* Install it with: {command}"):
        encoder.to_onnx(path, overwrite=True)
    assert [each.name for each in tmp_path.iterdir()] == ["queries.onnx"]
