"""Sums of features in bytes against NumPy, and their bits."""

import itertools

import numpy as np
import pytest

from muvera import MultiVectors
from muvera.encoders.learned.token_products import Features


@pytest.mark.parametrize("width", [1, 16, 33])
@pytest.mark.parametrize("center", [0.0, 3.0])
def test_equals_numpy_but_for_rounding(width: int, center: float) -> None:
    rng = np.random.default_rng(0)
    tokens = (center + rng.normal(size=(40, 20))).astype(np.float32)
    directions = rng.normal(size=(width, 20)).astype(np.float32)
    offsets = np.array([0, 0, 1, 20, 40])  # the first text has no tokens
    expected = np.array(
        [
            np.maximum(tokens[a:b].astype(np.float64) @ directions.T, 0).sum(axis=0)
            for a, b in itertools.pairwise(offsets)
        ]
    )
    features = Features(directions, np.full(20, center, np.float32))
    found = features.values_of(MultiVectors(tokens, offsets), 1)
    # Steps of a token and of a direction are 127ths of entries of up to 4: each of 20 products errs by at
    # most half a step of either, times the other's entry of about 1.
    counts = np.diff(offsets)[:, np.newaxis]
    assert (np.abs(found - expected) <= counts * 20 * (4 / 127)).all()
    assert np.corrcoef(found[2:].ravel(), expected[2:].ravel())[0, 1] > 0.999 or width == 1
    assert (found[0] == 0).all()


def test_small_integers_are_exact() -> None:
    rng = np.random.default_rng(2)
    tokens = rng.integers(-127, 128, size=(9, 5)).astype(np.float32)
    directions = rng.integers(-127, 128, size=(18, 5)).astype(np.float32)
    tokens[:, 0], directions[:, 0] = 127, 127  # so that a step is 1
    texts = MultiVectors(tokens, np.array([0, 1, 9]))
    expected = [np.maximum(part @ directions.T, 0).sum(axis=0) for part in texts]
    np.testing.assert_array_equal(Features(directions, np.zeros(5, np.float32)).values_of(texts, 1), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_text_has_the_same_bits_alone(dtype: type) -> None:
    rng = np.random.default_rng(1)
    texts = MultiVectors(rng.normal(size=(40, 16)).astype(dtype), np.array([0, 7, 29, 40]))
    features = Features(rng.normal(size=(48, 16)).astype(np.float32), rng.normal(size=16).astype(np.float32))
    together, alone = features.values_of(texts, 2), features.values_of(texts[1:2], 1)
    assert together[1].tobytes() == alone[0].tobytes()
