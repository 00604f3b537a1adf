"""Learned vectors: the method against plain NumPy, what must hold to the bit, recall, an index of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.realistic_collections import documents_like_real, queries_like_real
from builders.token_collections import random_texts

from muvera import LearnedConfig, LearnedEncoder, MultiVectors, MuveraIndex, chamfer_matrix, load_encoder
from muvera.encoders.learned.landmarks import mixed_documents, sample_tokens
from muvera.encoders.learned.maps import LearnedMaps
from muvera.encoders.matmul import quantize_columns
from muvera.encoders.registry import read_encoder

SMALL: dict[str, Any] = {"vector_dimension": 24, "num_landmarks": 100, "num_features": 64}


@pytest.fixture(scope="module")
def documents() -> MultiVectors:
    return random_texts(60)


@pytest.fixture(scope="module")
def encoder(documents: MultiVectors) -> LearnedEncoder:
    return LearnedEncoder(LearnedConfig(dimension=20, **SMALL)).fit(documents)


def maps_of(encoder: LearnedEncoder) -> LearnedMaps:
    assert encoder.maps is not None
    return encoder.maps


def test_documents_are_mapped_maxima(encoder: LearnedEncoder, documents: MultiVectors) -> None:
    maps = maps_of(encoder)
    landmarks, units = quantize_columns(maps.landmarks.T)
    rounded, map_units = quantize_columns(maps.documents)
    expected = []
    for text in documents:
        rest = np.asarray(text, np.float64) - maps.center
        unit = abs(rest).max() / 127
        values = (np.floor(rest / unit + 0.5) @ landmarks).max(axis=0) * unit * units
        expected.append(values @ (rounded * map_units.astype(np.float64)) - maps.offset)
    found = encoder.encode_documents(documents)
    # A token's entry that lies between two bytes falls where float32 has it.
    assert (np.abs(found - np.stack(expected)) < 1e-3 * np.abs(found).max()).mean() > 0.99


def test_bytes_are_near_the_maxima_themselves(encoder: LearnedEncoder, documents: MultiVectors) -> None:
    maps = maps_of(encoder)
    rests = [np.asarray(text, np.float32) - maps.center for text in documents]
    values = np.stack([(maps.landmarks @ rest.T).max(axis=1) for rest in rests])
    exact = values.astype(np.float64) @ maps.documents - maps.offset
    found = encoder.encode_documents(documents)
    difference = np.linalg.norm(found - exact, axis=1).mean() / np.linalg.norm(exact, axis=1).mean()
    assert difference < 0.05


def test_queries_are_mapped_sums_of_features(encoder: LearnedEncoder, documents: MultiVectors) -> None:
    maps = maps_of(encoder)
    sums = np.stack([_sums_of_features(text, maps) for text in documents])
    rounded, units = quantize_columns(maps.queries)
    expected = sums @ (rounded * units.astype(np.float64))
    assert (abs(encoder.encode_queries(documents) - expected) <= _rounding(sums, maps.queries)).mean() > 0.99


def test_features_of_bytes_are_near_those_of_floats(encoder: LearnedEncoder, documents: MultiVectors) -> None:
    maps = maps_of(encoder)
    sums = np.stack([np.maximum(np.asarray(text) @ maps.features.T, 0).sum(axis=0) for text in documents])
    exact = sums.astype(np.float64) @ maps.queries
    difference = np.linalg.norm(encoder.encode_queries(documents) - exact, axis=1)
    assert (difference / np.linalg.norm(exact, axis=1)).mean() < 0.02


def _sums_of_features(text: np.ndarray, maps: LearnedMaps) -> np.ndarray:
    """Return a query's sums of features as bytes have them, float64 (F,)."""
    features, units = quantize_columns(maps.features.T)
    rest = np.asarray(text, np.float64) - maps.center
    # A token's entry that lies between two bytes falls where float32 has it.
    token_units = abs(rest).max(axis=1, keepdims=True) / 127
    products = (np.floor(rest / token_units + 0.5) @ features) * token_units * units
    sums: np.ndarray = np.maximum(maps.center @ maps.features.T + products, 0).sum(axis=0)
    return sums


def _rounding(sums: np.ndarray, query_map: np.ndarray) -> np.ndarray:
    """Half a unit of each query's 16 bits, and the sums' own roundings in float32."""
    units = abs(sums).max(axis=1, keepdims=True) / 32767 * 0.51
    return np.asarray((units + 3e-6 * abs(sums).max()) * abs(query_map).sum(axis=0))


def test_the_mean_sampled_document_is_zero(encoder: LearnedEncoder, documents: MultiVectors) -> None:
    vectors = encoder.encode_documents(documents)
    np.testing.assert_allclose(vectors.mean(axis=0), 0, atol=1e-4 * np.abs(vectors).max())


def test_full_rank_is_the_ridge_regression(documents: MultiVectors) -> None:
    """With as many floats as features nothing is cut: scores are the regression's own."""
    config = LearnedConfig(dimension=20, vector_dimension=32, num_landmarks=200, num_features=32)
    encoder = LearnedEncoder(config).fit(documents)
    maps = maps_of(encoder)
    activations = np.maximum(maps.landmarks.astype(np.float64) @ maps.features.T, 0)
    covariance = activations.T @ activations / len(activations)
    level = np.trace(covariance) / len(covariance)
    values = np.stack([(maps.landmarks @ np.asarray(texts).T).max(axis=1) for texts in documents])
    targets = activations.T @ (values - values.mean(axis=0)).T / len(activations)
    weights = np.linalg.solve(covariance + config.ridge * level * np.eye(32), targets)
    queries = random_texts(10, seed=5)
    sums = np.stack([np.maximum(np.asarray(texts) @ maps.features.T, 0).sum(axis=0) for texts in queries])
    found = encoder.encode_queries(queries) @ encoder.encode_documents(documents).T
    expected = sums @ weights
    np.testing.assert_allclose(found, expected, atol=2e-2 * np.abs(expected).max())


def test_queries_add(encoder: LearnedEncoder) -> None:
    """Up to the 16 bits that a query keeps: what a token adds does not depend on those beside it."""
    a, b = random_texts(1, seed=1)[0], random_texts(1, seed=2)[0]
    texts = [a, b, np.concatenate([a, b])]
    one, two, both = encoder.encode_queries(texts)
    maps = maps_of(encoder)
    errors = _rounding(np.stack([_sums_of_features(text, maps) for text in texts]), maps.queries)
    assert (abs(both - (one + two)) <= errors.sum(axis=0)).all()


def test_queries_scale_up_to_the_rounding_of_tokens(encoder: LearnedEncoder) -> None:
    text = random_texts(1, seed=1)[0]
    one, scaled = encoder.encode_queries([text, np.float32(3) * text])
    assert np.linalg.norm(scaled - 3 * one) < 0.03 * np.linalg.norm(scaled)


def test_a_documents_bits_do_not_depend_on_its_batch_or_threads(
    encoder: LearnedEncoder, documents: MultiVectors
) -> None:
    together = encoder.encode_documents(documents, threads=2)
    alone = np.concatenate([encoder.encode_documents(documents[i : i + 1], threads=1) for i in range(60)])
    assert together.tobytes() == alone.tobytes()
    queries = encoder.encode_queries(documents, threads=2)
    alone = np.concatenate([encoder.encode_queries(documents[i : i + 1], threads=1) for i in range(60)])
    assert queries.tobytes() == alone.tobytes()


def test_neither_repetition_nor_order_of_tokens_matters(encoder: LearnedEncoder) -> None:
    tokens = np.asarray(random_texts(1, seed=3, most=9)[0])
    once = encoder.encode_documents([tokens])
    assert once.tobytes() == encoder.encode_documents([np.concatenate([tokens, tokens])]).tobytes()
    assert once.tobytes() == encoder.encode_documents([tokens[::-1]]).tobytes()


def test_the_fit_repeats_however_documents_come(documents: MultiVectors) -> None:
    config = LearnedConfig(dimension=20, **SMALL)
    whole = LearnedEncoder(config).fit(documents).encode_documents(documents)
    parts = (documents[start : start + 7] for start in range(0, 60, 7))
    assert whole.tobytes() == LearnedEncoder(config).fit(parts).encode_documents(documents).tobytes()
    other = LearnedConfig(dimension=20, **{**SMALL, "seed": 7})
    assert whole.tobytes() != LearnedEncoder(other).fit(documents).encode_documents(documents).tobytes()


def test_texts_without_tokens_are_zero(encoder: LearnedEncoder) -> None:
    texts = MultiVectors.from_flat(random_texts(1)[0], [0, len(random_texts(1)[0]), 0])
    vectors = encoder.encode_documents(texts)
    assert not vectors[0].any() and vectors[1].any() and not vectors[2].any()
    assert not encoder.encode_queries(texts)[0].any()


def test_half_precision_equals_its_float32_values(encoder: LearnedEncoder) -> None:
    halves = MultiVectors.from_arrays([np.asarray(t, np.float16) for t in random_texts(5, seed=8)])
    floats = MultiVectors.from_arrays([np.asarray(t, np.float32) for t in halves])
    assert encoder.encode_documents(halves).tobytes() == encoder.encode_documents(floats).tobytes()
    assert encoder.encode_queries(halves).tobytes() == encoder.encode_queries(floats).tobytes()


def test_half_of_the_landmarks_come_from_queries(documents: MultiVectors) -> None:
    queries = random_texts(30, seed=9)
    landmarks = sample_tokens(documents, queries, 20, seed=0)
    of_queries = (landmarks[:, np.newaxis] == queries.tokens).all(axis=2).any(axis=1)
    assert landmarks.shape == (20, 20) and of_queries.sum() == 10


def test_mixed_documents_are_halves_of_two(documents: MultiVectors) -> None:
    mixed = mixed_documents(documents, 15, seed=0)
    assert len(mixed) == 15
    known = {row.tobytes() for row in documents.tokens}
    assert all(row.tobytes() in known for row in mixed.tokens)
    assert len(mixed_documents(documents, 0, seed=0)) == 0


SPLIT: dict[str, Any] = {**SMALL, "vector_dimension": 45, "split_mean": True}


@pytest.fixture(scope="module")
def split(documents: MultiVectors) -> LearnedEncoder:
    return LearnedEncoder(LearnedConfig(dimension=20, **SPLIT)).fit(documents)


def test_with_the_mean_split_off_the_rest_is_learned(split: LearnedEncoder, documents: MultiVectors) -> None:
    """The sketch is the map of the maxima of what the mean leaves; then come the blocks of the moments."""
    maps, blocks = maps_of(split), split.blocks
    assert blocks is not None and maps.documents.shape == (100, 24)
    rests = [np.asarray(text, np.float64) for text in documents]
    means = np.stack([rest.mean(axis=0) for rest in rests])
    values = np.stack(
        [(maps.landmarks @ (rest - mean).T).max(axis=1) for rest, mean in zip(rests, means, strict=True)]
    )
    exact = (values @ maps.documents - maps.offset) * blocks.coefficients[0] * blocks.units[0]
    found = split.encode_documents(documents)
    sketches = found[:, :24]
    assert np.linalg.norm(sketches - exact) < 0.1 * np.linalg.norm(exact)
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    block = blocks.coefficients[2] * means + blocks.coefficients[3] * means / lengths
    np.testing.assert_allclose(found[:, 24:44], (block - blocks.offset[:20]) * blocks.units[2], atol=1e-5)
    queries = split.encode_queries(documents)
    sums = np.stack([rest.sum(axis=0) for rest in rests])
    np.testing.assert_allclose(queries[:, 24:44], sums / blocks.units[2], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(queries[:, 44], documents.lengths / blocks.units[3], rtol=1e-5)


def test_split_vectors_hold_what_all_vectors_hold(
    split: LearnedEncoder, documents: MultiVectors, tmp_path: Path
) -> None:
    """Bits alone and together, on one thread and two; zero for no tokens; saved and loaded."""
    together, queries = split.encode_documents(documents, threads=2), split.encode_queries(documents)
    alone = np.concatenate([split.encode_documents(documents[i : i + 1], threads=1) for i in range(60)])
    assert together.tobytes() == alone.tobytes()
    alone = np.concatenate([split.encode_queries(documents[i : i + 1], threads=1) for i in range(60)])
    assert queries.tobytes() == alone.tobytes()
    again = LearnedEncoder(split.config).fit(documents, threads=1)
    assert again.encode_documents(documents).tobytes() == together.tobytes()
    empty = MultiVectors.from_flat(random_texts(1)[0], [0, len(random_texts(1)[0]), 0])
    vectors = split.encode_documents(empty)
    assert not vectors[0].any() and vectors[1].any() and not vectors[2].any()
    halves = MultiVectors.from_arrays([np.asarray(t, np.float16) for t in random_texts(5, seed=8)])
    floats = MultiVectors.from_arrays([np.asarray(t, np.float32) for t in halves])
    assert split.encode_documents(halves).tobytes() == split.encode_documents(floats).tobytes()
    split.save(tmp_path / "split")
    loaded = load_encoder(tmp_path / "split")
    assert loaded.config == split.config and not loaded.needs_fit
    assert loaded.encode_documents(documents).tobytes() == together.tobytes()
    assert loaded.encode_queries(documents).tobytes() == queries.tobytes()
    fitted = maps_of(split)
    with pytest.raises(ValueError, match="call fit"):
        LearnedEncoder(split.config, maps=fitted).encode_documents(documents)
    with pytest.raises(ValueError, match="the configuration has split_mean=False"):
        LearnedEncoder(LearnedConfig(dimension=20, **SMALL), blocks=split.blocks)


def test_a_tiny_sample_gives_zero_columns_not_noise() -> None:
    config = LearnedConfig(dimension=20, vector_dimension=60, num_landmarks=50, num_features=64)
    encoder = LearnedEncoder(config).fit(random_texts(2))
    vectors = encoder.encode_documents(random_texts(4, seed=6))
    assert np.isfinite(vectors).all()


@pytest.mark.compiled("fits some thousand documents")
def test_finds_more_than_an_fde_of_the_same_size() -> None:
    """On clustered documents, of which a quarter is learned from: the share that 64 floats find."""
    from muvera import FDEConfig, FDEEncoder

    documents = documents_like_real(800)
    queries = queries_like_real(documents, 60)
    exact = chamfer_matrix(queries, documents)
    top = np.argsort(-exact, axis=1)[:, :10]
    learned = LearnedConfig(
        dimension=documents.dimension, vector_dimension=64, num_landmarks=1024, num_features=512
    )
    fde = FDEConfig(
        dimension=documents.dimension, num_repetitions=1, num_simhash_projections=2, projection_dimension=16
    )
    found = {}
    encoders: dict[str, LearnedEncoder | FDEEncoder] = {
        "learned": LearnedEncoder(learned),
        "fde": FDEEncoder(fde),
    }
    for name, encoder in encoders.items():
        encoder.fit(documents[::4])
        scores = encoder.encode_queries(queries) @ encoder.encode_documents(documents).T
        best = np.argsort(-scores, axis=1)[:, :50]
        found[name] = np.mean([np.isin(t, b).mean() for t, b in zip(top, best, strict=True)])
    # Sixty queries of ten: a share is known to .02.
    assert found["learned"] > found["fde"] + 0.1


def test_an_index_of_learned_vectors(
    documents: MultiVectors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muvera.index.two_stage_search.MIN_FIT_DOCUMENTS", 20)
    config = LearnedConfig(dimension=20, **SMALL)
    index = MuveraIndex.build(documents, config, exact_tokens=0, path=tmp_path / "index")
    loaded = MuveraIndex.load(tmp_path / "index")
    assert loaded.config == config
    more = random_texts(10, seed=4)
    for each in (index, loaded):
        each.add(MultiVectors(more.tokens, more.offsets, ids=np.arange(100, 110)))
        each.delete([0, 3])
    loaded.save(tmp_path / "index")
    for each in (index, loaded, MuveraIndex.load(tmp_path / "index")):
        found = each.search(more, k=3, candidates=30)
        assert [ranking.ids[0] for ranking in found] == list(range(100, 110))
        assert each.info().encoder["encoder"] == "learned"
    assert loaded.encoder is not None and index.encoder is not None
    vectors = index.encoder.encode_documents(more)
    assert vectors.tobytes() == loaded.encoder.encode_documents(more).tobytes()


def test_saved_maps_must_fit_the_configuration(encoder: LearnedEncoder, tmp_path: Path) -> None:
    encoder.save(tmp_path)
    config = LearnedConfig(dimension=20, **{**SMALL, "vector_dimension": 25})
    with pytest.raises(ValueError, match=r"documents has shape \(100, 24\), but .* asks for \(100, 25\)"):
        read_encoder(tmp_path, config)
    (tmp_path / "encoder_queries.npy").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"encoder_queries\.npy has 7 bytes instead of"):
        load_encoder(tmp_path)


def test_refusals(encoder: LearnedEncoder, documents: MultiVectors, tmp_path: Path) -> None:
    fresh = LearnedEncoder(LearnedConfig(dimension=20, **SMALL))
    with pytest.raises(ValueError, match="learns from documents: call fit"):
        fresh.encode_documents(documents)
    with pytest.raises(ValueError, match="not fitted has nothing to save"):
        fresh.save(tmp_path)
    with pytest.raises(ValueError, match="no document tokens to learn from"):
        fresh.fit(MultiVectors.from_flat(np.empty((0, 20), np.float32), [0, 0]))
    with pytest.raises(ValueError, match="is fitted, and vectors of two fits do not compare"):
        encoder.fit(documents)
    with pytest.raises(ValueError, match="documents has 8 columns"):
        encoder.encode_documents(np.zeros((3, 8), np.float32))
    with pytest.raises(TypeError, match="config must be a LearnedConfig, got dict"):
        LearnedEncoder({"dimension": 20})  # type: ignore[arg-type]
