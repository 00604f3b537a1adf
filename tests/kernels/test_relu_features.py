"""Sums of random features against NumPy, and their bits."""

import itertools

import numpy as np
import pytest

from muvera.kernels.relu_features import sum_features
from muvera.kernels.tile import pack_columns


def summed(tokens: np.ndarray, offsets: np.ndarray, features: np.ndarray) -> np.ndarray:
    out = np.empty((len(offsets) - 1, len(features)), np.float32)
    sum_features(tokens, offsets, 0, len(out), pack_columns(features).reshape(-1), out)
    return out


@pytest.mark.parametrize("width", [1, 16, 33])
def test_equals_numpy(width: int) -> None:
    rng = np.random.default_rng(0)
    tokens = rng.normal(size=(40, 20)).astype(np.float32)
    features = rng.normal(size=(width, 20)).astype(np.float32)
    offsets = np.array([0, 0, 1, 20, 40])  # the first text has no tokens
    expected = [
        np.maximum(tokens[a:b].astype(np.float64) @ features.T, 0).sum(axis=0)
        for a, b in itertools.pairwise(offsets)
    ]
    np.testing.assert_allclose(summed(tokens, offsets, features), expected, rtol=1e-5, atol=1e-5)


def test_a_text_has_the_same_bits_alone() -> None:
    rng = np.random.default_rng(1)
    tokens = rng.normal(size=(40, 16)).astype(np.float32)
    features = rng.normal(size=(48, 16)).astype(np.float32)
    together = summed(tokens, np.array([0, 7, 29, 40]), features)
    alone = summed(np.ascontiguousarray(tokens[7:29]), np.array([0, 22]), features)
    assert together[1].tobytes() == alone[0].tobytes()
