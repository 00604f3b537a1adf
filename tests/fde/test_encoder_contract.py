"""What every encoder promises: exact bits, one fit, files, refused input."""

import dataclasses
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.fdes import CONFIGS, SIDES, encoded, fitted
from builders.token_collections import assert_close, ragged

import muvera.fde.encoder as encoder_module
from muvera import FDEConfig, FDEEncoder, Landmarks, MultiVectors, MuveraIndex, load_encoder
from muvera.fde import learned_projection
from muvera.fde.files import as_encoder, read_encoder
from muvera.utils.atomic_files import content_checksum


@pytest.fixture(scope="module", params=CONFIGS)
def encoder(request: pytest.FixtureRequest) -> FDEEncoder:
    return fitted(request.param)


def test_batches_tasks_threads_and_dtypes_do_not_matter(
    encoder: FDEEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder_module, "TASK_TOKENS", 16)
    monkeypatch.setattr(encoder.steps[-1], "most_texts", 4)
    documents = ragged(encoder.config.dimension)
    halves = MultiVectors.from_flat(documents.tokens.astype(np.float16), documents.lengths)
    floats = MultiVectors.from_flat(halves.tokens.astype(np.float32), documents.lengths)
    for side in SIDES:
        together = encoded(encoder, side, documents, threads=2)
        single = [encoded(encoder, side, documents[i : i + 1], threads=1) for i in range(len(documents))]
        np.testing.assert_array_equal(together, np.concatenate(single), err_msg=side)
        exact = encoded(encoder, side, floats)
        np.testing.assert_array_equal(encoded(encoder, side, halves), exact, err_msg=side)
        filled = documents.lengths > 0
        assert not together[~filled].any() and together[filled].any(axis=1).all(), side


def test_neighbors_in_memory_are_neither_read_nor_written(encoder: FDEEncoder) -> None:
    dimension, size = encoder.config.dimension, encoder.config.vector_dimension
    texts = ragged(dimension, 5)
    around = np.full((texts.num_tokens + 40, dimension), np.nan, np.float32)
    around[20:-20] = texts.tokens
    inside = MultiVectors.from_flat(around[20:-20], texts.lengths)
    for side in SIDES:
        out = np.full((len(texts) + 2, size), np.nan, np.float32)
        assert np.shares_memory(encoded(encoder, side, inside, out=out[1:-1]), out)
        np.testing.assert_array_equal(out[1:-1], encoded(encoder, side, texts), err_msg=side)
        assert np.isnan(out[[0, -1]]).all() and np.isfinite(out[1:-1]).all(), side


def test_fits_repeat_in_any_batches_and_on_any_threads(encoder: FDEEncoder) -> None:
    documents = ragged(encoder.config.dimension)
    batches = [documents[start : start + 7] for start in range(0, 40, 7)]
    for source in (iter(batches), list(documents)):
        again = FDEEncoder(encoder.config).fit(source, threads=1).to_arrays()
        assert list(again) == list(encoder.to_arrays())
        for name, array in encoder.to_arrays().items():
            np.testing.assert_array_equal(again[name], array, err_msg=name)


@pytest.mark.parametrize("texts", [1, 2])
def test_a_fit_to_few_documents(encoder: FDEEncoder, texts: int) -> None:
    documents = ragged(encoder.config.dimension)
    few = FDEEncoder(encoder.config).fit(documents[:texts])
    for side in SIDES:
        assert np.isfinite(encoded(few, side, documents)).all(), side
    cells = encoder.config.cells
    if isinstance(cells, Landmarks):
        assert few.arrays["landmarks"].count == min(cells.num_landmarks, documents[:texts].num_tokens)


@pytest.mark.parametrize("scale", [2.0**-46, 2.0**37])
def test_tokens_of_extreme_sizes(encoder: FDEEncoder, scale: float, tmp_path: Path) -> None:
    """Vectors are those of tokens whose largest entry is 1 to 2, times the scale."""
    documents = ragged(encoder.config.dimension)
    _, exponent = np.frexp(np.abs(documents.tokens).max())
    usual = MultiVectors.from_flat(documents.tokens * np.float32(2.0 ** (1 - exponent)), documents.lengths)
    scaled = MultiVectors.from_flat(usual.tokens * np.float32(scale), documents.lengths)
    FDEEncoder(encoder.config).fit(scaled).save(tmp_path / "encoder")
    loaded, wanted = load_encoder(tmp_path / "encoder"), FDEEncoder(encoder.config).fit(usual)
    for side in SIDES:
        vectors = encoded(loaded, side, scaled) / np.float32(scale)
        assert_close(vectors, encoded(wanted, side, usual))


def test_a_saved_encoder_encodes_the_same(encoder: FDEEncoder, tmp_path: Path) -> None:
    documents = ragged(encoder.config.dimension)
    encoder.save(tmp_path / "encoder")
    loaded = load_encoder(tmp_path / "encoder")
    assert loaded.config == encoder.config
    for side in SIDES:
        expected = encoded(encoder, side, documents)
        np.testing.assert_array_equal(encoded(loaded, side, documents), expected, err_msg=side)
    with pytest.raises(FileExistsError):
        encoder.save(tmp_path / "encoder")
    encoder.save(str(tmp_path / "encoder"), overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["encoder"]


def test_arrays_of_another_configuration_are_refused(encoder: FDEEncoder) -> None:
    """Compiled code reads them without bounds checks."""
    for name, arrays in encoder.arrays.items():
        for field in dataclasses.fields(arrays):
            array = getattr(arrays, field.name)
            for wrong in (array[..., :-1], array.astype(np.int16), array[np.newaxis]):
                if wrong.shape != array.shape or wrong.dtype != array.dtype:
                    with pytest.raises(ValueError, match="The encoder's array"):
                        changed = dataclasses.replace(arrays, **{field.name: wrong})
                        FDEEncoder(encoder.config, **{name: changed})
    with pytest.raises(ValueError, match="others were given"):
        FDEEncoder(encoder.config, others=arrays)


def test_maps_of_fewer_landmarks_are_refused() -> None:
    """Each array alone could belong to a smaller sample."""
    whole, config = fitted("fde, all tokens are landmarks"), CONFIGS["fde, all tokens are landmarks"]
    few = FDEEncoder(config).fit(ragged(8)[:10])
    with pytest.raises(ValueError, match=r"map has \d+ rows of cells, but there are \d+ landmarks"):
        FDEEncoder(config, **{**whole.arrays, "landmarks": few.arrays["landmarks"]})


def test_units_must_be_positive() -> None:
    """Queries are divided by them."""
    encoder = fitted("mean")
    wrong = dataclasses.replace(encoder.arrays["blocks"], units=np.array([1, 1, 0, 1], np.float32))
    with pytest.raises(ValueError, match="units must be positive, got 0"):
        FDEEncoder(encoder.config, blocks=wrong)


@pytest.mark.parametrize("target", [20, -1])
def test_targets_are_within_the_vector(target: int) -> None:
    """Compiled code writes to them without bounds checks."""
    encoder = fitted("paper, sketched")
    sketch = encoder.arrays["sketch"]
    wrong = dataclasses.replace(sketch, targets=np.append(sketch.targets[1:], target))
    with pytest.raises(ValueError, match=r"'targets' must be within 0\.\.19"):
        FDEEncoder(encoder.config, sketch=wrong)


@pytest.mark.parametrize("name", ["fde", "mean", "simhash", "simhash, centered", "landmarks"])
def test_fits_and_tokens_that_are_refused(name: str) -> None:
    config = CONFIGS[name]
    dimension = config.dimension
    fresh: Any = FDEEncoder(config)
    good, bad = np.ones((2, dimension)), np.ones((2, dimension))
    bad[0, 2] = np.nan
    refused = [
        (fresh.encode_documents, good, r"fit\(documents\) first"),
        (fresh.encode_queries, good, r"fit\(documents\) first"),
        (fresh.save, "encoder", r"fit\(documents\) first"),
        (fresh.fit, MultiVectors.from_flat(good[:0], lengths=[0, 0]), "token"),
        (fresh.fit, np.ones((2, 3)), rf"3 columns.*dimension={dimension}"),
        (lambda queries: fresh.fit(good, queries), np.ones((2, 3)), rf"3 columns.*dimension={dimension}"),
        (fresh.fit, [good, bad], r"documents\[1\].*nan.*token 0, coordinate 2"),
    ]
    for call, value, message in refused:
        with pytest.raises(ValueError, match=message):
            call(value)
    assert fresh.fit(ragged(dimension)) is fresh
    with pytest.raises(ValueError, match="Make a new encoder"):
        fresh.fit(ragged(dimension))
    wrong = np.zeros((3, dimension), np.float16)
    wrong[2, 1] = -np.inf
    texts = MultiVectors.from_arrays([wrong[:2], wrong], ids=["a", "b"])
    for side in SIDES:
        with pytest.raises(ValueError, match=rf"{side} has 5 columns.*dimension={dimension}"):
            encoded(fresh, side, np.ones((2, 5)))
        with pytest.raises(ValueError, match=rf"{side}\[1\] \(id 'b'\).*token 2, coordinate 1"):
            encoded(fresh, side, texts)


@pytest.mark.parametrize(
    "out",
    [
        np.zeros((2, 8), np.float32),
        np.zeros((1, 8)),
        [0.0] * 8,
        np.frombuffer(bytes(32), np.float32).reshape(1, 8),
        np.zeros((1, 16), np.float32)[:, ::2],
    ],
    ids=["shape", "float64", "list", "read-only", "strided"],
)
def test_arrays_to_write_to(out: Any) -> None:
    encoder = FDEEncoder.preset("paper", 4, num_repetitions=1, num_simhash_projections=1)
    with pytest.raises(ValueError, match=r"float32|C-contiguous"):
        encoder.encode_documents(np.ones((2, 4)), out=out)


@pytest.mark.parametrize("name", ["fde", "simhash", "landmarks"])
def test_zeros_can_be_fitted_and_encoded(name: str) -> None:
    """Tokens of length zero have no direction."""
    config = CONFIGS[name]
    zeros, documents = np.zeros((3, config.dimension), np.float32), list(ragged(config.dimension))
    encoder = FDEEncoder(config).fit([zeros, *documents])
    only_zeros = FDEEncoder(config).fit([zeros, zeros])
    for side in SIDES:
        assert np.isfinite(encoded(encoder, side, [zeros, *documents])).all(), side
        assert np.isfinite(encoded(only_zeros, side, [zeros, *documents])).all(), side


def test_an_encoder_can_be_fitted_after_a_fit_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = FDEEncoder(CONFIGS["fde"])
    before = {**vars(encoder), **encoder.arrays}
    with monkeypatch.context() as broken, pytest.raises(TypeError):
        broken.setattr(learned_projection, "fit_maps", None)
        encoder.fit(ragged(20, 60))
    assert {**vars(encoder), **encoder.arrays} == before
    assert encoder.needs_fit and not encoder.fit(ragged(20, 60)).needs_fit


def test_an_index_fits_maps_to_enough_documents(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("muvera.index.contents.MIN_FIT_DOCUMENTS", 20)
    documents = ragged(20, 60, seed=4)
    index = MuveraIndex(CONFIGS["fde"], exact_tokens=0)
    index.add(documents[:10])
    assert index.info().search == "all tokens" and "20" in index.info().warnings[0]
    index.add(documents[10:25])
    assert index.encoder is not None and index.info().warnings == ()
    index.add(MultiVectors(documents.tokens, documents.offsets, ids=np.arange(100, 160)))
    assert "rebuild()" in index.info().warnings[0]
    index.save(tmp_path / "index")
    loaded: Any = MuveraIndex.load(tmp_path / "index")
    assert loaded.info().warnings == index.info().warnings
    loaded.rebuild()
    assert loaded.info().warnings == ()
    new, old = (each.encode_documents(documents) for each in (loaded.encoder, index.encoder))
    assert not np.array_equal(new, old)


# -- arguments and folders -------------------------------------------------------------


def test_encoder_arguments() -> None:
    config = FDEConfig(8)
    assert as_encoder(FDEEncoder(config), 8) == as_encoder(None, 8) == (config, None)
    encoder = FDEEncoder(config).fit(ragged(8))
    assert as_encoder(encoder, 8) == (config, encoder)
    assert as_encoder("paper", 8) == (FDEConfig.preset("paper", 8), None)


WRONG: Any = {"dimension": 8}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: as_encoder("deep", 32), ValueError, "'deep'"),
        (lambda: as_encoder(WRONG, 8), TypeError, "dict"),
        (lambda: as_encoder(FDEConfig(32), 8), ValueError, r"dimension=32.*8 columns"),
        (lambda: FDEEncoder(WRONG), TypeError, "dict"),
    ],
    ids=["preset", "dictionary", "other width", "encoder of a dictionary"],
)
def test_wrong_encoder_arguments(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.fixture
def paper(tmp_path: Path) -> Path:
    """The file that describes a saved encoder."""
    FDEEncoder(FDEConfig.preset("paper", 8)).save(tmp_path / "encoder")
    return tmp_path / "encoder" / "encoder.json"


def test_a_folder_without_an_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"encoder\.json"):
        load_encoder(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: "{", "damaged"),
        (lambda content: "[" * 100_000, "damaged"),
        (lambda content: "[]", "does not describe an encoder"),
        (
            lambda content: content.replace('"format_version": 4', '"format_version": 3'),
            "does not describe an encoder",
        ),
        (lambda content: content.replace('"seed": 42', '"seed": 43'), "checksum"),
        (
            lambda content: with_checksum(content, lambda state: state["config"].update(partition="deep")),
            "'deep'",
        ),
        (
            lambda content: with_checksum(content, lambda state: state["config"].update(color=1)),
            "version: .* fit the",
        ),
        (lambda content: with_checksum(content, lambda state: state.update(files={})), "'encoder_"),
        (lambda content: with_checksum(content, lambda state: state["files"].update({"../x": {}})), "'../x'"),
    ],
    ids=["cut", "nested", "list", "version", "seed", "partition", "unknown field", "no files", "other file"],
)
def test_damaged_descriptions_are_refused(paper: Path, change: Callable[[str], str], message: str) -> None:
    content = paper.read_text()
    wrong = change(content)
    assert wrong != content
    paper.write_text(wrong)
    with pytest.raises(ValueError, match=message):
        load_encoder(paper.parent)


def test_a_damaged_array_is_refused(paper: Path) -> None:
    planes = paper.with_name("encoder_hyperplanes.npy")
    planes.write_bytes(planes.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match=r"encoder_hyperplanes\.npy.*checksum"):
        load_encoder(paper.parent)


@pytest.mark.parametrize("name", ["moments", "landmarks", "simhash"])
@pytest.mark.parametrize("number", [np.inf, np.nan, -1e30, 3e38])
def test_arrays_with_absurd_numbers_are_refused(name: str, number: float, tmp_path: Path) -> None:
    """They would make vectors of NaN: no fit writes them."""
    encoder = fitted(name)
    encoder.save(tmp_path / "encoder")
    files = sorted((tmp_path / "encoder").glob("encoder_*.npy"))
    floats = [file for file in files if np.load(file).dtype == np.float32 and np.load(file).size]
    assert floats
    for file in floats:
        kept = np.load(file)
        changed = kept.copy()
        changed.flat[-1] = number
        np.save(file, changed)
        with pytest.raises(ValueError, match=rf"{file.name} is damaged.*at most 1e\+18"):
            read_encoder(tmp_path / "encoder", encoder.config)
        np.save(file, kept)


@pytest.mark.parametrize("array", [np.full(8, np.nan, np.float32), np.array(["x"] * 8)], ids=["nan", "texts"])
def test_arrays_that_are_not_finite_numbers_are_refused(paper: Path, array: np.ndarray) -> None:
    np.save(paper.with_name("encoder_hyperplanes.npy"), array)
    with pytest.raises(ValueError, match=rf"encoder_hyperplanes\.npy.*{array.dtype}.*finite"):
        read_encoder(paper.parent, FDEConfig.preset("paper", 8))


@pytest.mark.parametrize(
    "change",
    [
        lambda bits: np.zeros(9, np.uint8),
        lambda bits: bits[:-1],
        lambda bits: np.frombuffer(zlib.compress(bytes(24_000_000)), np.uint8),
        lambda bits: np.frombuffer(zlib.compress(bytes(25)), np.uint8),
    ],
    ids=["no deflate", "cut", "too many", "uneven"],
)
def test_bytes_are_deflated_rows(tmp_path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    encoder = fitted("fde, all tokens are landmarks")
    encoder.save(tmp_path / "encoder")
    file = tmp_path / "encoder" / "encoder_learned_documents.npy"
    np.save(file, change(np.load(file)))
    with pytest.raises(ValueError, match="'documents' must be deflated rows of 24 bytes"):
        read_encoder(tmp_path / "encoder", encoder.config)


def with_checksum(content: str, change: Callable[[dict[str, Any]], object]) -> str:
    """Return a changed description with the right checksum.

    An attacker would write it like this.
    """
    state = json.loads(content)
    del state["sha256"]
    change(state)
    return json.dumps({**state, "sha256": content_checksum(state)})
