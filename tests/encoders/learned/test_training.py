"""Trained features: they span documents' functions better than random ones, with the same bits on any threads."""

import numpy as np
import pytest
from builders.realistic_collections import documents_like_real
from numpy.typing import NDArray

from muvera import LearnedConfig, LearnedEncoder
from muvera.encoders.learned.landmarks import training_sample
from muvera.encoders.learned.training import train_features

DOCUMENTS = documents_like_real(700)
TOKENS = np.asarray(DOCUMENTS.tokens, np.float32)
RANDOM = np.random.default_rng(1).standard_normal((64, TOKENS.shape[1])).astype(np.float32)

learns = pytest.mark.compiled("trains on thousands of tokens")


def values_at(tokens: NDArray[np.float32], count: int = 200) -> NDArray[np.float32]:
    """The largest inner products of documents with tokens."""
    texts = [np.asarray(text, np.float32) for text in DOCUMENTS[:count] if len(text)]
    return np.stack([(tokens @ text.T).max(axis=1) for text in texts])


def unexplained(features: NDArray[np.float32], tokens: NDArray[np.float32]) -> float:
    """Share of the variance of values that a regression on the features leaves, at tokens apart from its own."""
    active, values = np.maximum(tokens @ features.T, 0).astype(np.float64), values_at(tokens).T
    values = values - values.mean(axis=1, keepdims=True)
    half = len(tokens) // 2
    gram = active[:half].T @ active[:half]
    gram += 0.001 * np.trace(gram) / len(gram) * np.eye(len(gram))
    weights = np.linalg.solve(gram, active[:half].T @ values[:half])
    left = values[half:] - active[half:] @ weights
    return float(np.square(left).sum() / np.square(values[half:]).sum())


@learns
def test_trained_features_leave_less_than_random_ones() -> None:
    rng = np.random.default_rng(2)
    order = rng.permutation(len(TOKENS))
    seen, unseen = TOKENS[order[:2500]], TOKENS[order[2500:]]
    trained = train_features(RANDOM, seen, values_at(seen), 100, 0, threads=1)
    assert trained.shape == RANDOM.shape and trained.dtype == np.float32
    # Measured .88 of what random features leave.
    assert unexplained(trained, unseen) < 0.93 * unexplained(RANDOM, unseen)


@learns
def test_the_same_bits_on_any_number_of_threads() -> None:
    tokens = TOKENS[:1500]
    one, two = (train_features(RANDOM, tokens, values_at(tokens), 2, 0, threads=n) for n in (1, 2))
    assert one.tobytes() == two.tobytes()
    assert one.tobytes() != train_features(RANDOM, tokens, values_at(tokens), 2, 1, threads=1).tobytes()


@learns
def test_of_few_tokens_nothing_is_trained() -> None:
    tokens = TOKENS[:1000]
    assert train_features(RANDOM, tokens, values_at(tokens), 3, 0) is RANDOM
    same = np.ones_like(values_at(TOKENS[:1100]))
    assert train_features(RANDOM, TOKENS[:1100], same, 3, 0) is RANDOM


@learns
def test_an_encoder_trains_its_features_where_it_is_to() -> None:
    config = LearnedConfig(
        dimension=TOKENS.shape[1], vector_dimension=32, num_landmarks=256, num_features=64, training_epochs=1
    )
    trained = LearnedEncoder(config).fit(DOCUMENTS).maps
    random = (
        LearnedEncoder(LearnedConfig.from_dict({**config.to_dict(), "training_epochs": 0}))
        .fit(DOCUMENTS)
        .maps
    )
    assert trained is not None and random is not None
    assert (trained.landmarks == random.landmarks).all() and not (trained.features == random.features).any()


def test_samples_to_train_on_are_bounded_and_seeded() -> None:
    some, tokens = training_sample(DOCUMENTS, None, 3)
    assert len(some) == len(DOCUMENTS) and len(tokens) == DOCUMENTS.num_tokens
    asked = training_sample(DOCUMENTS, DOCUMENTS[:50], 3)[1]
    assert len(asked) == DOCUMENTS[:50].num_tokens + DOCUMENTS.num_tokens
    long = documents_like_real(1200)
    assert len(training_sample(long, None, 3)[0]) == 1024
