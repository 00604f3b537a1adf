"""Compact FDEs: the maps' algebra, what must hold to the bit, recall on the bundled sample."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.paths import ROOT
from builders.token_collections import random_texts

import muvera.encoders.fde.compact_maps as compact_module
import muvera.encoders.long_vectors as long_vectors
from muvera import FDEConfig, FDEEncoder, MultiVectors, MuveraIndex, chamfer_matrix
from muvera.encoders.fde.compact_maps import CompactMaps, fit_maps, sample_windows
from muvera.encoders.matmul import quantize_columns

SAMPLE = ROOT / "muvera" / "data" / "sample"

SMALL: dict[str, Any] = {"num_repetitions": 4, "num_simhash_projections": 3, "compact_dimension": 24}


@pytest.fixture(scope="module")
def documents() -> MultiVectors:
    return random_texts(60)


@pytest.fixture(scope="module")
def encoder(documents: MultiVectors) -> FDEEncoder:
    return FDEEncoder(FDEConfig(dimension=20, **SMALL)).fit(documents)


def test_shapes(encoder: FDEEncoder, documents: MultiVectors) -> None:
    assert encoder.config.long_dimension == 4 * 8 * 16 + 21
    assert encoder.encode_documents(documents).shape == (60, 24)
    assert encoder.encode_queries(documents[:5]).shape == (5, 24)
    assert encoder.encode_documents(documents[:0]).shape == (0, 24)


def test_equals_the_long_fde_times_the_map(encoder: FDEEncoder, documents: MultiVectors) -> None:
    values = {**encoder.config.to_dict(), "compact_dimension": None}
    long = FDEEncoder(FDEConfig.from_dict(values), center=encoder.center, blocks=encoder.blocks)
    maps = encoder.compact
    assert maps is not None
    unit = maps.reach[0] / 127
    fdes = np.clip(np.rint(long.encode_documents(documents) / unit), -127, 127) * unit
    expected = fdes.astype(np.float64) @ maps.document_map - maps.offset
    difference = abs(encoder.encode_documents(documents) - expected)
    # A float that lies between two bytes falls where the encoder's own float32 has it.
    assert (difference < 1e-4 * abs(expected).max()).mean() > 0.99
    assert difference.max() < 1e-4 * abs(expected).max() + 2 * unit * abs(maps.document_map).max()
    rounded, units = quantize_columns(maps.queries)
    asked = long.encode_queries(documents).astype(np.float64)
    expected = asked @ (rounded * units.astype(np.float64))
    assert (abs(encoder.encode_queries(documents) - expected) <= _rounding(asked, maps.queries)).all()


def test_rounding_to_bytes_costs_little(encoder: FDEEncoder) -> None:
    """Against the product in floats, also of documents that reach further than the sample."""
    documents = random_texts(80, seed=4)
    values = {**encoder.config.to_dict(), "compact_dimension": None}
    maps = encoder.compact
    assert maps is not None
    long = FDEEncoder(
        FDEConfig.from_dict(values), center=encoder.center, blocks=encoder.blocks
    ).encode_documents(documents)
    exact = long @ maps.document_map - maps.offset
    error = np.linalg.norm(encoder.encode_documents(documents) - exact, axis=1)
    assert np.median(error / np.linalg.norm(exact, axis=1)) < 0.02
    assert maps.documents.dtype == np.int8


def test_a_dimension_that_is_no_multiple_of_four() -> None:
    documents = random_texts(30, dimension=3)
    settings: dict[str, Any] = {"num_repetitions": 3, "num_simhash_projections": 1, "compact_dimension": 5}
    encoder = FDEEncoder(FDEConfig(dimension=3, projection_dimension=3, **settings)).fit(documents)
    assert encoder.config.long_dimension == 18 + 4
    maps = encoder.compact
    assert maps is not None
    values = {**encoder.config.to_dict(), "compact_dimension": None}
    long = FDEEncoder(
        FDEConfig.from_dict(values), center=encoder.center, blocks=encoder.blocks
    ).encode_documents(documents)
    exact = long @ maps.document_map - maps.offset
    np.testing.assert_allclose(encoder.encode_documents(documents), exact, atol=0.05 * abs(exact).max())


def _rounding(asked: np.ndarray, query_map: np.ndarray) -> np.ndarray:
    """Half a unit of each query's 16 bits, and some roundings of float32."""
    units = abs(asked).max(axis=1, keepdims=True) / 32767 * 0.51
    return np.asarray(units * abs(query_map).sum(axis=0) + 1e-6)


def test_query_fdes_are_linear(encoder: FDEEncoder) -> None:
    """Up to the 16 bits that a query keeps: the map itself is the same for all."""
    a, b = random_texts(2, seed=5)
    joined, repeated = np.concatenate([a, b]), np.concatenate([a, a])
    one, two, both, double = encoder.encode_queries([a, b, joined, repeated])
    long = FDEEncoder(
        dataclasses.replace(encoder.config, compact_dimension=None),
        center=encoder.center,
        blocks=encoder.blocks,
    )
    assert encoder.compact is not None
    errors = _rounding(long.encode_queries([a, b, joined, repeated]), encoder.compact.queries)
    assert (abs(both - (one + two)) <= errors[:3].sum(axis=0)).all()
    assert (abs(double - 2 * one) <= 2 * errors[0] + errors[3]).all()
    assert errors.max() < 0.01 * abs(both).max()


@pytest.mark.compiled("interpreted tiles are BLAS products")
def test_a_text_is_independent_of_its_batch_and_of_threads(
    encoder: FDEEncoder, documents: MultiVectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    for encode in (encoder.encode_documents, encoder.encode_queries):
        together = encode(documents, threads=1)
        alone = np.concatenate([encode(documents[i : i + 1]) for i in range(len(documents))])
        np.testing.assert_array_equal(together, alone)
        with monkeypatch.context() as patch:
            patch.setattr(long_vectors, "_COMPACT_TOKENS", 16)
            np.testing.assert_array_equal(together, encode(documents, threads=2))


def test_a_text_without_tokens_is_zero(encoder: FDEEncoder) -> None:
    empty = MultiVectors.from_arrays([np.empty((0, 20), np.float32)], dimension=20)
    assert not encoder.encode_documents(empty).any()
    assert not encoder.encode_queries(empty).any()


def test_frozen_after_fit(encoder: FDEEncoder, documents: MultiVectors) -> None:
    before = encoder.encode_documents(documents)
    encoder.encode_documents(random_texts(30, seed=9))
    np.testing.assert_array_equal(encoder.encode_documents(documents), before)
    with pytest.raises(ValueError, match="This encoder is fitted, and FDEs of two fits do not compare"):
        encoder.fit(documents)


@pytest.mark.parametrize("center", [True, False])
def test_needs_fit(documents: MultiVectors, center: bool) -> None:
    encoder = FDEEncoder(FDEConfig(dimension=20, center=center, **SMALL))
    assert encoder.needs_fit
    with pytest.raises(ValueError, match=r"compact_dimension=24, which is learned .* fit\(documents\) first"):
        encoder.encode_documents(documents)
    assert not encoder.fit(documents).needs_fit
    assert encoder.center.any() == center


def test_the_fit_does_not_depend_on_batches(encoder: FDEEncoder, documents: MultiVectors) -> None:
    again = FDEEncoder(encoder.config).fit(documents[i : i + 7] for i in range(0, 60, 7))
    np.testing.assert_array_equal(again.encode_documents(documents), encoder.encode_documents(documents))


def test_windows_come_from_long_and_short_texts_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compact_module, "_WINDOWS", 60)
    lengths = [2000, *[100] * 20]
    arrays = [np.full((length, 2), i, np.float32) for i, length in enumerate(lengths)]
    documents = MultiVectors.from_arrays(arrays)
    counts = np.zeros(21)
    for seed in range(20):
        windows = sample_windows(documents, None, 512, seed)
        assert len(windows) == 60
        counts += np.bincount(windows.tokens[windows.offsets[:-1], 0].astype(int), minlength=21)
    # 1,200 windows of 21 documents: about 57 each, not half of them from the long one.
    assert 35 < counts[0] < 85


def test_no_queries_are_as_none(encoder: FDEEncoder, documents: MultiVectors) -> None:
    nothing = MultiVectors.from_arrays([], dimension=20)
    again = FDEEncoder(encoder.config).fit(documents, nothing)
    np.testing.assert_array_equal(again.encode_documents(documents), encoder.encode_documents(documents))


def test_queries_change_the_fit(encoder: FDEEncoder, documents: MultiVectors) -> None:
    other = FDEEncoder(encoder.config).fit(documents, queries=random_texts(20, seed=3))
    assert not np.array_equal(other.encode_documents(documents), encoder.encode_documents(documents))
    with pytest.raises(ValueError, match="queries"):
        FDEEncoder(encoder.config).fit(documents, queries=random_texts(2, dimension=19))


def test_full_rank_finds_a_bilinear_target() -> None:
    """Where the target is a multiple of the FDEs' own product, the maps reproduce it."""
    rng = np.random.default_rng(0)
    tokens, texts = rng.normal(size=(40, 12)), rng.normal(size=(30, 12))
    target = 3 * tokens @ texts.T
    wanted = target - target.mean(axis=1, keepdims=True)
    maps = fit_maps(
        tokens.astype(np.float32), texts.astype(np.float32), target.astype(np.float32), 12, 0, seed=0
    )
    found = (tokens @ maps.queries) @ (texts @ maps.document_map - maps.offset).T
    # The map's entries are rounded to 127ths of their column's largest.
    np.testing.assert_allclose(found, wanted, atol=2e-2 * abs(wanted).max())


@pytest.mark.parametrize("seed", range(3))
def test_means_that_the_sample_does_not_show_are_kept(seed: int) -> None:
    """Documents of another kind vary where those of the sample hardly do, among them in their mean tokens."""
    rng = np.random.default_rng(seed)
    long, means, quiet = 60, 15, 7
    spread = np.r_[np.ones(long - means), np.full(means - quiet, 2), np.full(quiet, 0.05)]
    windows = rng.normal(size=(300, long)).astype(np.float32)
    documents = (rng.normal(size=(200, long)) * spread).astype(np.float32)
    others = np.zeros((100, long))
    others[:, -quiet:] = rng.normal(size=(100, quiet))

    def errors(mean_columns: int) -> tuple[float, float]:
        """Root mean squares of what 30 columns miss of the products: of the sample, and of the others."""
        maps = fit_maps(windows, documents.copy(), windows @ documents.T, 30, mean_columns, seed=0)
        asked, moved = windows @ maps.queries, documents - documents.mean(axis=0)
        found = [asked @ (each @ maps.document_map).T for each in (moved, others)]
        exact = [windows @ each.T for each in (moved, others)]
        return tuple(float(np.sqrt(np.mean((f - e) ** 2))) for f, e in zip(found, exact, strict=True))  # type: ignore[return-value]

    (known, other), (known_with, other_with) = errors(0), errors(means)
    assert other_with < 0.5 * other
    assert known_with < 1.3 * known


def test_small_samples_leave_columns_zero() -> None:
    one = FDEEncoder(FDEConfig(dimension=20, **SMALL)).fit(random_texts(1, seed=2))
    documents = one.encode_documents(random_texts(8))
    assert np.isfinite(documents).all()
    assert (np.abs(documents).sum(axis=0) == 0).any()


def test_an_index_keeps_its_maps(
    documents: MultiVectors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muvera.index.two_stage_search.MIN_FIT_DOCUMENTS", 20)
    config = FDEConfig(dimension=20, **SMALL)
    index = MuveraIndex.build(documents[:40], config, exact_tokens=0)
    index.save(tmp_path / "index")
    loaded = MuveraIndex.load(tmp_path / "index")
    assert loaded.encoder is not None
    assert index.encoder is not None
    later = random_texts(10, seed=8)
    np.testing.assert_array_equal(
        loaded.encoder.encode_documents(later), index.encoder.encode_documents(later)
    )
    for one in (index, loaded):
        one.add(later)
        one.delete([3])
    query = random_texts(3, seed=11)
    for a, b in zip(
        index.search(query, 5, candidates=10), loaded.search(query, 5, candidates=10), strict=True
    ):
        np.testing.assert_array_equal(a.ids, b.ids)
    assert loaded.info().encoder["vector_dimension"] == 24


def test_a_build_learns_from_all_its_batches(
    documents: MultiVectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muvera.index.two_stage_search.MIN_FIT_DOCUMENTS", 20)
    config = FDEConfig(dimension=20, **SMALL)
    parts = (documents[:30], documents[30:])
    index = MuveraIndex.build((part for part in parts), config, exact_tokens=0)
    assert index.encoder is not None
    expected = FDEEncoder(config).fit(iter(parts)).encode_documents(documents)
    np.testing.assert_array_equal(index.encoder.encode_documents(documents), expected)


def test_maps_are_learned_from_enough_documents_and_again_when_outgrown(
    documents: MultiVectors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muvera.index.two_stage_search.MIN_FIT_DOCUMENTS", 20)
    index = MuveraIndex(FDEConfig(dimension=20, **SMALL), exact_tokens=0)
    index.add(documents[:1])
    assert index.info().search == "all tokens"
    (warning,) = index.info().warnings
    assert warning.startswith("1 documents are too few to learn maps from, so all tokens are read; with 20 ")
    index.add(documents[1:20])
    assert index.encoder is not None and index.info().warnings == ()
    index.add(MultiVectors(documents.tokens, documents.offsets))
    index.save(tmp_path / "index")
    for one in (index, MuveraIndex.load(tmp_path / "index")):
        (warning,) = one.info().warnings
        assert "learned from only 20 of now" in warning and "rebuild() learns them again" in warning
        one.rebuild()
        assert one.info().warnings == () and one.encoder is not None
        assert one.encoder is not index.encoder or one is index
        everything = [documents[:20], documents]
        assert isinstance(one.config, FDEConfig)
        expected = FDEEncoder(one.config).fit(iter(everything)).encode_documents(documents)
        np.testing.assert_array_equal(one.encoder.encode_documents(documents), expected)


def test_a_fit_that_fails_can_be_done_again(documents: MultiVectors, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = FDEEncoder(FDEConfig(dimension=20, **SMALL))
    with monkeypatch.context() as broken, pytest.raises(MemoryError):
        broken.setattr(
            "muvera.encoders.long_vectors.fit_maps", lambda *_: (_ for _ in ()).throw(MemoryError())
        )
        encoder.fit(documents)
    assert encoder.needs_fit and not encoder.fit(documents).needs_fit


def test_maps_of_another_configuration_are_refused(encoder: FDEEncoder) -> None:
    maps = encoder.compact
    assert maps is not None
    short = CompactMaps(
        maps.queries[:, :5], maps.documents[:, :5], maps.scales[:5], maps.reach, maps.offset[:5]
    )
    with pytest.raises(ValueError, match=r"queries has shape \(533, 5\), but the config.* \(533, 24\)"):
        FDEEncoder(encoder.config, center=encoder.center, compact=short)
    with pytest.raises(ValueError, match="has no compact_dimension"):
        FDEEncoder(FDEConfig(dimension=20), compact=maps)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"compact_dimension": 0}, ValueError, "must be between 1 and 5249, got 0"),
        ({"compact_dimension": 5250}, ValueError, "between 1 and 5249, got 5250"),
        (
            {"compact_dimension": 9, "num_repetitions": 800},
            ValueError,
            "compact_dimension needs a long FDE of at most 65536 floats, got 102529",
        ),
        ({"compact_dimension": 2.0}, TypeError, "compact_dimension must be an int, got float 2.0"),
        (
            {"compact_dimension": 9, "final_projection": "rademacher", "final_projection_dimension": 9},
            ValueError,
            "compact_dimension=9 and final_projection='rademacher' both map the FDE down",
        ),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        FDEConfig(dimension=128, **settings)


def test_configuration() -> None:
    config = FDEConfig(dimension=128, compact_dimension=512)
    assert (config.vector_dimension, config.long_dimension) == (512, 5249)
    assert FDEConfig.from_dict(config.to_dict()) == config
    hashes = {FDEConfig(dimension=128, compact_dimension=size).hash for size in (None, 256, 512)}
    assert len(hashes) == 3


@pytest.mark.compiled("encodes 14,000 tokens")
def test_recall_on_documents_outside_the_fit() -> None:
    """256 floats learned from half of the bundled sample find more than the paper's 10,240."""

    def texts(prefix: str) -> MultiVectors:
        lengths = np.load(SAMPLE / f"{prefix}lengths.npy")
        return MultiVectors.from_flat(np.load(SAMPLE / f"{prefix}tokens.npy"), lengths)

    documents, queries = texts(""), texts("query_")
    exact = chamfer_matrix(queries, documents)

    def recall(encoder: FDEEncoder, columns: Any) -> float:
        scores = (encoder.encode_queries(queries) @ encoder.encode_documents(documents).T)[:, columns]
        pairs = zip(np.argsort(-exact[:, columns])[:, :10], np.argsort(-scores)[:, :50], strict=True)
        return float(np.mean([len(np.intersect1d(best, found)) / 10 for best, found in pairs]))

    paper = FDEEncoder(FDEConfig.preset("paper", 128))
    compact = FDEEncoder(FDEConfig(dimension=128, compact_dimension=256)).fit(documents[::2])
    for columns in (np.arange(len(documents)), np.arange(1, len(documents), 2)):
        assert recall(compact, columns) > recall(paper, columns)
