"""What every encoder promises: the same bits in any batch and on any threads, one fit, files, refused input."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.token_collections import ragged

from muvera import FDEConfig, LearnedConfig, MomentsConfig, MultiVectors, load_encoder
from muvera.encoders.registry import make_encoder

CONFIGS = [
    FDEConfig(dimension=8, num_repetitions=2, final_projection_dimension=20),
    FDEConfig.preset("reference", dimension=8),
    MomentsConfig(dimension=20, covariance=False, compact_dimension=None),
    MomentsConfig(dimension=140, compact_dimension=None),
    MomentsConfig(dimension=20, compact_dimension=16),
    MomentsConfig(dimension=140, compact_dimension=16),
    LearnedConfig(dimension=20, vector_dimension=16, num_landmarks=100, num_features=64),
]


@pytest.fixture(
    scope="module", params=CONFIGS, ids=lambda c: f"{c.kind} {c.dimension} to {c.vector_dimension}"
)
def encoder(request: pytest.FixtureRequest) -> Any:
    """A fitted encoder."""
    return make_encoder(request.param).fit(ragged(request.param.dimension), threads=2)


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
        again = make_encoder(encoder.config).fit(source, threads=1).to_arrays()
        for name, array in encoder.to_arrays().items():
            np.testing.assert_array_equal(again[name], array, err_msg=name)
    few = make_encoder(encoder.config).fit(documents[:2])
    assert np.isfinite(few.encode_documents(documents)).all()


@pytest.mark.parametrize("scale", [2.0**-46, 2.0**37])
def test_tokens_of_extreme_sizes(encoder: Any, scale: float, tmp_path: Path) -> None:
    """Vectors are those of tokens of ordinary size, times the scale (learned vectors: fault N12)."""
    documents = ragged(encoder.config.dimension)
    scaled = MultiVectors.from_flat(documents.tokens * np.float32(scale), documents.lengths)
    make_encoder(encoder.config).fit(scaled).save(tmp_path / "encoder")
    products = []
    for each, factor, given in (
        (encoder, 1.0, documents),
        (load_encoder(tmp_path / "encoder"), scale, scaled),
    ):
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
def test_a_fit_comes_first_and_once(config: Any) -> None:
    dimension = config.dimension
    fresh: Any = make_encoder(config)
    good, bad = np.ones((2, dimension)), np.ones((2, dimension))
    bad[0, 2] = np.nan
    refused = [
        *(
            (call, good, r"fit\(documents\) first")
            for call in (fresh.encode_documents, fresh.encode_queries, fresh.save)
        ),
        (fresh.fit, MultiVectors.from_flat(good[:0], lengths=[0, 0]), "token"),
        (fresh.fit, np.ones((2, 3)), rf"3 columns.*dimension={dimension}"),
        (fresh.fit, [good, bad], r"documents\[1\].*nan.*token 0, coordinate 2"),
    ]
    for call, value, message in refused:
        with pytest.raises(ValueError, match=message):
            call(value)
    assert fresh.fit(ragged(dimension)) is fresh
    with pytest.raises(ValueError, match="Make a new encoder"):
        fresh.fit(ragged(dimension))


@pytest.mark.parametrize("side", ["documents", "queries"])
def test_tokens_must_be_finite_and_of_the_right_width(encoder: Any, side: str) -> None:
    encode, dimension = getattr(encoder, f"encode_{side}"), encoder.config.dimension
    with pytest.raises(ValueError, match=rf"{side} has 5 columns.*dimension={dimension}"):
        encode(np.ones((2, 5)))
    with pytest.raises(ValueError, match=rf"{side}\[1\] \(id 'b'\).*token 2, coordinate 1"):
        bad = np.zeros((3, dimension), np.float16)
        bad[2, 1] = -np.inf
        encode(MultiVectors.from_arrays([bad[:2], bad], ids=["a", "b"]))
