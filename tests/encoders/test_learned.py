"""Learned vectors: the method against plain NumPy, training, exact bits, recall, bad input."""

from typing import Any

import numpy as np
import pytest
from builders.realistic_collections import documents_like_real
from builders.token_collections import random_texts
from numpy.typing import NDArray

from muvera import LearnedConfig, LearnedEncoder, MultiVectors
from muvera.encoders.learned import mixed_documents, sample_tokens, train_features, training_sample


@pytest.fixture(scope="module")
def documents() -> MultiVectors:
    return random_texts(60)


@pytest.fixture(scope="module")
def encoder(documents: MultiVectors) -> LearnedEncoder:
    config = LearnedConfig(dimension=20, vector_dimension=24, num_landmarks=100, num_features=70)
    return LearnedEncoder(config).fit(documents)


# -- the method -------------------------------------------------------------------


def test_documents_are_mapped_maxima(encoder: LearnedEncoder, documents: MultiVectors) -> None:
    maps: Any = encoder.maps
    expected = []
    for text in documents:
        rest = np.asarray(text, np.float64) - maps.center
        unit = abs(rest).max() / 127
        values = (np.floor(rest / unit + 0.5) @ maps.landmarks).max(axis=0) * unit * maps.landmark_scales
        expected.append(values @ (maps.documents * maps.document_scales.astype(np.float64)) - maps.offset)
    vectors = encoder.encode_documents(documents)
    # An entry halfway between two bytes may be rounded to either.
    assert (np.abs(vectors - np.stack(expected)) < 1e-3 * np.abs(vectors).max()).mean() > 0.99
    np.testing.assert_allclose(vectors.mean(axis=0), 0, atol=1e-4 * np.abs(vectors).max())


def test_queries_are_mapped_sums_of_features(encoder: LearnedEncoder, documents: MultiVectors) -> None:
    maps: Any = encoder.maps
    sums = []
    for text in documents:
        rest = np.asarray(text, np.float64) - maps.center
        token_units = abs(rest).max(axis=1, keepdims=True) / 127
        products = (np.floor(rest / token_units + 0.5) @ maps.features) * token_units * maps.feature_scales
        sums.append(np.maximum(maps.biases + products, 0).sum(axis=0))
    query_map = maps.queries * maps.query_scales.astype(np.float64)
    expected = np.stack(sums) @ query_map
    vectors = encoder.encode_queries(documents)
    steps = abs(np.stack(sums)).max(axis=1, keepdims=True) / 32767 * 0.51 + 3e-6 * abs(np.stack(sums)).max()
    assert (abs(vectors - expected) <= steps * abs(query_map).sum(axis=0)).mean() > 0.99


def test_full_rank_is_the_ridge_regression(documents: MultiVectors) -> None:
    config = LearnedConfig(dimension=20, vector_dimension=32, num_landmarks=200, num_features=32)
    encoder = LearnedEncoder(config).fit(documents)
    maps: Any = encoder.maps
    landmarks = (maps.landmarks * maps.landmark_scales.astype(np.float64)).T
    features = maps.features * maps.feature_scales.astype(np.float64)
    activations = np.maximum(landmarks @ features, 0)
    covariance = activations.T @ activations / len(activations)
    level = np.trace(covariance) / len(covariance)
    values = np.stack([(landmarks @ np.asarray(text, np.float64).T).max(axis=1) for text in documents])
    targets = activations.T @ (values - values.mean(axis=0)).T / len(activations)
    weights = np.linalg.solve(covariance + 0.03 * level * np.eye(32), targets)
    queries = random_texts(10, seed=5)
    sums = np.stack([np.maximum(np.asarray(text, np.float64) @ features, 0).sum(axis=0) for text in queries])
    scores = encoder.encode_queries(queries) @ encoder.encode_documents(documents).T
    wanted = sums @ weights
    # Bytes of tokens and maps cost some percent.
    assert np.linalg.norm(scores - wanted) < 0.1 * np.linalg.norm(wanted)


def test_samples(documents: MultiVectors) -> None:
    queries = random_texts(30, seed=9)
    landmarks = sample_tokens(documents, queries, 20, seed=0)
    from_queries = (landmarks[:, np.newaxis] == queries.tokens).all(axis=2).any(axis=1)
    assert landmarks.shape == (20, 20) and from_queries.sum() == 10
    mixed = mixed_documents(documents, 15, seed=0)
    known = {row.tobytes() for row in documents.tokens}
    assert len(mixed) == 15 and all(row.tobytes() in known for row in mixed.tokens)
    texts, tokens = training_sample(documents_like_real(1200), documents_like_real(0), 3)
    assert len(texts) == 1024 and len(tokens) == documents_like_real(1200).num_tokens


# -- training ---------------------------------------------------------------------


def test_trained_features_explain_more_than_random_ones() -> None:
    texts = documents_like_real(500)
    everything = np.asarray(texts.tokens, np.float32)
    random = np.random.default_rng(1).standard_normal((64, texts.dimension)).astype(np.float32)
    tokens = everything[np.random.default_rng(2).permutation(len(everything))]

    def values_at(tokens: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.stack([(tokens @ np.asarray(text).T).max(axis=1) for text in texts[:200] if len(text)])

    def unexplained(features: NDArray[np.float32], tokens: NDArray[np.float32]) -> float:
        """Return the share of the variance that a regression on the features leaves at tokens outside its fit."""
        active, values = np.maximum(tokens @ features.T, 0).astype(np.float64), values_at(tokens).T
        values = values - values.mean(axis=1, keepdims=True)
        half = len(tokens) // 2
        gram = active[:half].T @ active[:half]
        gram += 0.001 * np.trace(gram) / len(gram) * np.eye(len(gram))
        rest = values[half:] - active[half:] @ np.linalg.solve(gram, active[:half].T @ values[:half])
        return float(np.square(rest).sum() / np.square(values[half:]).sum())

    fit, rest = tokens[:2000], tokens[2000:]
    trained = train_features(random, fit, values_at(fit), 100, 0, threads=1)
    # Measured: .88 of the share that random features leave.
    assert unexplained(trained, rest) < 0.93 * unexplained(random, rest)
    few = tokens[:1500]
    runs = [
        train_features(random, few, values_at(few), 2, seed, threads=n)
        for seed, n in ((0, 1), (0, 2), (1, 1))
    ]
    assert runs[0].tobytes() == runs[1].tobytes() != runs[2].tobytes()
    assert train_features(random, tokens[:1000], values_at(tokens[:1000]), 3, 0) is random
    assert train_features(random, few, np.ones_like(values_at(few)), 3, 0) is random
