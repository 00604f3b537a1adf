"""What every encoder promises: the same bits in any batch and on any threads, one fit, files, refused input."""

import dataclasses
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.token_collections import ragged

from muvera import (
    FDEConfig,
    FDEEncoder,
    LearnedConfig,
    MomentsConfig,
    MomentsEncoder,
    MultiVectors,
    load_encoder,
)
from muvera.fde.config import FDEConfig, PRESETS
from muvera.fde.encoder import FDEEncoder
from muvera.fde.files import as_encoder, read_encoder
from muvera.utils.atomic_files import content_checksum

CONFIGS = [
    FDEConfig(dimension=8, num_repetitions=2, final_projection_dimension=20),
    FDEConfig.preset("reference", dimension=8),
    MomentsConfig(dimension=20, covariance=False, compact_dimension=None),
    MomentsConfig(dimension=140, compact_dimension=None),
    MomentsConfig(dimension=20, compact_dimension=16),
    MomentsConfig(dimension=140, compact_dimension=16),
    LearnedConfig(dimension=20, vector_dimension=16, num_landmarks=100, num_features=64),
]


@pytest.fixture(scope="module", params=CONFIGS, ids=lambda c: f"{c.kind} {c.dimension}-{c.vector_dimension}")
def encoder(request: pytest.FixtureRequest) -> Any:
    return FDEEncoder(request.param).fit(ragged(request.param.dimension), threads=2)


def test_batches_tasks_threads_and_dtypes_do_not_matter(
    encoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(encoder), "_task_size", lambda *_: (16, 4))
    documents = ragged(encoder.config.dimension)
    halves = MultiVectors.from_flat(documents.tokens.astype(np.float16), documents.lengths)
    floats = MultiVectors.from_flat(halves.tokens.astype(np.float32), documents.lengths)
    for encode in (encoder.encode_documents, encoder.encode_queries):
        together = encode(documents, threads=2)
        alone = np.concatenate([encode(documents[i : i + 1], threads=1) for i in range(len(documents))])
        np.testing.assert_array_equal(together, alone)
        np.testing.assert_array_equal(encode(halves), encode(floats))
        filled = documents.lengths > 0
        assert not together[~filled].any() and together[filled].any(axis=1).all()


def test_neighbors_in_memory_are_neither_read_nor_written(encoder: Any) -> None:
    dimension, size = encoder.config.dimension, encoder.config.vector_dimension
    texts = ragged(dimension, 5)
    around = np.full((texts.num_tokens + 40, dimension), np.nan, np.float32)
    around[20:-20] = texts.tokens
    inside = MultiVectors.from_flat(around[20:-20], texts.lengths)
    for encode in (encoder.encode_documents, encoder.encode_queries):
        out = np.full((len(texts) + 2, size), np.nan, np.float32)
        assert np.shares_memory(encode(inside, out=out[1:-1]), out)
        np.testing.assert_array_equal(out[1:-1], encode(texts))
        assert np.isnan(out[[0, -1]]).all() and np.isfinite(out[1:-1]).all()


def test_fits_repeat_in_any_batches_and_on_any_threads(encoder: Any) -> None:
    documents = ragged(encoder.config.dimension)
    batches = [documents[start : start + 7] for start in range(0, 40, 7)]
    for source in (iter(batches), list(documents)):
        again = FDEEncoder(encoder.config).fit(source, threads=1).to_arrays()
        for name, array in encoder.to_arrays().items():
            np.testing.assert_array_equal(again[name], array, err_msg=name)
    few = FDEEncoder(encoder.config).fit(documents[:2])
    assert np.isfinite(few.encode_documents(documents)).all()


@pytest.mark.parametrize("scale", [2.0**-46, 2.0**37])
def test_tokens_of_extreme_sizes(encoder: Any, scale: float, tmp_path: Path) -> None:
    """Vectors are those of tokens of ordinary size, times the scale (learned vectors: fault N12)."""
    documents = ragged(encoder.config.dimension)
    scaled = MultiVectors.from_flat(documents.tokens * np.float32(scale), documents.lengths)
    FDEEncoder(encoder.config).fit(scaled).save(tmp_path / "encoder")
    products = []
    loaded = load_encoder(tmp_path / "encoder")
    for each, factor, given in ((encoder, 1.0, documents), (loaded, scale, scaled)):
        queries = each.encode_queries(given[:20]).astype(np.float64)
        found = queries @ each.encode_documents(given).T.astype(np.float64) / factor**2
        products.append(found - found.mean(axis=1, keepdims=True))
    assert np.abs(products[0] - products[1]).max() < 0.02 * np.abs(products[0]).max()


def test_a_saved_encoder_encodes_the_same(encoder: Any, tmp_path: Path) -> None:
    documents = ragged(encoder.config.dimension)
    encoder.save(tmp_path / "encoder")
    loaded = load_encoder(tmp_path / "encoder")
    assert loaded.config == encoder.config
    for side in ("encode_documents", "encode_queries"):
        np.testing.assert_array_equal(getattr(loaded, side)(documents), getattr(encoder, side)(documents))
    with pytest.raises(FileExistsError):
        encoder.save(tmp_path / "encoder")
    encoder.save(str(tmp_path / "encoder"), overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["encoder"]


def test_arrays_of_another_configuration_are_refused(encoder: Any) -> None:
    """Compiled code reads them without bounds checks."""
    for name in encoder._array_classes(encoder.config):
        arrays = getattr(encoder, name)
        for field in dataclasses.fields(arrays):
            array = getattr(arrays, field.name)
            for wrong in (array[..., :-1], array.astype(np.int16), array[np.newaxis]):
                if wrong.shape != array.shape or wrong.dtype != array.dtype:
                    with pytest.raises(ValueError, match="The encoder's array"):
                        changed = dataclasses.replace(arrays, **{field.name: wrong})
                        type(encoder)(encoder.config, **{name: changed})
    with pytest.raises(ValueError, match="others were given"):
        type(encoder)(encoder.config, others=arrays)


@pytest.mark.parametrize("config", [CONFIGS[0], CONFIGS[4], CONFIGS[-1]], ids=lambda config: config.kind)
def test_fits_and_tokens_that_are_refused(config: Any) -> None:
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
    for side, encode in (("documents", fresh.encode_documents), ("queries", fresh.encode_queries)):
        with pytest.raises(ValueError, match=rf"{side} has 5 columns.*dimension={dimension}"):
            encode(np.ones((2, 5)))
        with pytest.raises(ValueError, match=rf"{side}\[1\] \(id 'b'\).*token 2, coordinate 1"):
            encode(texts)


# -- presets, configurations and folders ---------------------------------------------------


def test_presets() -> None:
    configs = {name: FDEConfig.preset(name, 32) for name in PRESETS}
    assert list(configs) == ["moments", "learned", "mean", "fde", "paper", "reference"]
    assert [c.vector_dimension for c in configs.values()] == [256, 1024, 33, 5153, 10240, 10240]
    sizes = [MomentsConfig(dimension=d).vector_dimension for d in (1, 8, 21, 22, 128, 129, 384, 8192)]
    assert sizes == [3, 45, 253, 256, 256, 512, 512, 512]
    assert [MomentsConfig(dimension=d).needs_fit_sample for d in (8, 128)] == [False, True]
    assert {name for name in PRESETS if configs[name].needs_fit_sample} == {"moments", "learned"}
    assert {name for name in PRESETS if not FDEEncoder(configs[name]).needs_fit} == {"paper", "reference"}
    assert FDEConfig.preset("learned", 32, seed=7) == LearnedConfig(dimension=32, seed=7)
    assert {FDEConfig.preset(name, np.int64(32)).hash for name in PRESETS} == {c.hash for c in configs.values()}
    for name, config in configs.items():
        assert FDEConfig.from_dict(config.to_dict()) == config
        encoder = FDEEncoder(config)
        assert encoder.config is config and type(encoder) is ENCODERS[config.kind]
        assert as_encoder(name, 32) == as_encoder(config, 32) == (config, None)
        for dimension in (1, 8, 384, 8192):
            assert FDEConfig.preset(name, dimension).vector_dimension


def test_encoder_arguments() -> None:
    config = MomentsConfig(dimension=8)
    assert FDEConfig.from_dict({"dimension": 8}) == config
    assert as_encoder(MomentsEncoder(config), 8) == as_encoder(None, 8) == (config, None)
    fitted = MomentsEncoder(config).fit(ragged(8))
    assert as_encoder(fitted, 8) == (config, fitted)
    wrong: Any = {"dimension": 8}
    for call, error, message in (
        (lambda: as_encoder("deep", 32), ValueError, "'deep'"),
        (lambda: as_encoder(wrong, 8), TypeError, "dict"),
        (lambda: as_encoder(FDEConfig(dimension=32), 8), ValueError, r"dimension=32.*8 columns"),
        (lambda: FDEEncoder(wrong), TypeError, "dict"),
    ):
        with pytest.raises(error, match=message):
            call()


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"dimension": 4.0}, TypeError, "float 4.0"),
        ({"num_simhash_projections": 17}, ValueError, "between 0 and 16, got 17"),
        ({"projection_dimension": 65}, ValueError, "between 1 and 64, got 65"),
        ({"projection_dimension": 16, "projection": "identity"}, ValueError, "64 columns.*16"),
        ({"projection": "gauss"}, ValueError, "'gauss'"),
        ({"soft_query_cells": float("nan")}, ValueError, "got nan"),
        ({"seed": -1}, ValueError, "at least 0, got -1"),
        ({"num_repetitions": None}, TypeError, "NoneType None"),
        ({"dialect": "reference"}, ValueError, "dialect='reference'.*'complementary'"),
        ({"encoder": "moments", "dimension": 0}, ValueError, "between 1 and 32768, got 0"),
        ({"encoder": "moments", "covariance": 1}, TypeError, "int 1"),
        ({"encoder": "moments", "compact_dimension": 0}, ValueError, "at least 1, got 0"),
        ({"encoder": "learned", "vector_dimension": 4096}, ValueError, "num_features=2048, got 4096"),
        ({"encoder": "learned", "num_landmarks": 1.5}, TypeError, "float 1.5"),
        ({"encoder": "learned", "training_epochs": -1}, ValueError, "at least 0, got -1"),
        ({"repetitions": 3}, ValueError, "'repetitions'"),
    ],
)  # fmt: skip
def test_wrong_configurations(values: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        FDEConfig.from_dict({"encoder": "fde", "dimension": 64, **values})


def test_damaged_folders(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"encoder\.json"):
        load_encoder(tmp_path)
    config = FDEConfig(dimension=8, center=False, split_mean=False)
    FDEEncoder(config).save(tmp_path / "encoder")
    file = tmp_path / "encoder" / "encoder.json"
    content = file.read_text()
    for wrong, message in (
        ("{", "damaged"),
        ("[" * 100_000, "damaged"),
        ("[]", "does not describe an encoder"),
        (content.replace('"format_version": 3', '"format_version": 2'), "does not describe an encoder"),
        (content.replace('"seed": 42', '"seed": 43'), "checksum"),
        (with_checksum(content, lambda state: state["config"].update(encoder="deep")), "'deep'"),
        (with_checksum(content, lambda state: state["config"].update(color=1)), "version: .* fit the"),
        (with_checksum(content, lambda state: state.update(files={})), "'encoder_"),
        (with_checksum(content, lambda state: state["files"].update({"../x": {}})), "'../x'"),
    ):
        file.write_text(wrong)
        with pytest.raises(ValueError, match=message):
            load_encoder(file.parent)
    file.write_text(content)
    planes = file.with_name("encoder_hyperplanes.npy")
    planes.write_bytes(planes.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match=r"encoder_hyperplanes\.npy.*checksum"):
        load_encoder(file.parent)
    for array in (np.full(8, np.nan, np.float32), np.array(["x"] * 8)):
        np.save(planes, array)
        with pytest.raises(ValueError, match=rf"encoder_hyperplanes\.npy.*{array.dtype}.*finite"):
            read_encoder(tmp_path / "encoder", config)


def test_bytes_are_deflated_rows(tmp_path: Path) -> None:
    config = MomentsConfig(dimension=8, compact_dimension=24)
    MomentsEncoder(config).fit(ragged(8)).save(tmp_path / "encoder")
    file = tmp_path / "encoder" / "encoder_compact_documents.npy"
    many = np.frombuffer(zlib.compress(bytes(24_000_000)), np.uint8)
    uneven = np.frombuffer(zlib.compress(bytes(25)), np.uint8)
    for wrong in (np.zeros(9, np.uint8), np.load(file)[:-1], many, uneven):
        np.save(file, wrong)
        with pytest.raises(ValueError, match="'documents' must be deflated rows of 24 bytes"):
            read_encoder(tmp_path / "encoder", config)


def with_checksum(content: str, change: Callable[[dict[str, Any]], object]) -> str:
    """Return a changed description with the right checksum, as an attacker would write it."""
    state = json.loads(content)
    del state["sha256"]
    change(state)
    return json.dumps({**state, "sha256": content_checksum(state)})
