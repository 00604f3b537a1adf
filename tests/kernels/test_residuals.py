"""The residual kernel against a bit-by-bit decoder."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from builders.foreign_indexes import decode_slowly
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from muvera.convert.sources.plaid_codec import Codec
from muvera.kernels.token_codes import byte_table, decode_residuals


@settings(max_examples=20)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([1, 2, 4, 8]),
    st.sampled_from([8, 12, 64, 72, 96, 100, 128, 1024]),
    st.integers(0, 3),
    st.sampled_from([np.int32, np.int64]),
)
def test_random_bytes_decode_bit_by_bit(
    seed: int, nbits: int, dimension: int, count: int, kind: type
) -> None:
    if dimension * nbits % 8:
        dimension = 64
    rng = np.random.default_rng(seed)
    centroids = rng.normal(size=(7, dimension)).astype(np.float32)
    weights = rng.normal(size=2**nbits).astype(np.float32)
    codes: NDArray[Any] = rng.integers(0, 7, count).astype(kind)
    packed = rng.integers(0, 256, (count, dimension * nbits // 8)).astype(np.uint8)
    out = np.full((count, dimension), np.nan, np.float32)
    decode_residuals(codes, packed, centroids, byte_table(weights, nbits), True, out)
    # Values are at most 1; a float32 sum of 1024 squares and a reciprocal lose a few units.
    np.testing.assert_allclose(out, decode_slowly(codes, packed, centroids, weights, nbits), atol=1e-6)


def test_without_normalizing_it_is_the_sum() -> None:
    rng = np.random.default_rng(0)
    centroids, weights = rng.normal(size=(3, 12)).astype(np.float32), rng.normal(size=4).astype(np.float32)
    codes, packed = np.array([2, 0], np.int32), rng.integers(0, 256, (2, 3)).astype(np.uint8)
    out = np.empty((2, 12), np.float32)
    decode_residuals(codes, packed, centroids, byte_table(weights, 2), False, out)
    bits = np.unpackbits(packed, axis=1).reshape(2, 12, 2)
    assert np.array_equal(out, centroids[codes] + weights[bits[..., 0] + 2 * bits[..., 1]])


def test_a_vector_of_zeros_stays_zero() -> None:
    out = np.ones((1, 8), np.float32)
    zeros = np.zeros((1, 8), np.float32)
    decode_residuals(
        np.zeros(1, np.int32), np.zeros((1, 1), np.uint8), zeros, byte_table(np.zeros(2), 1), True, out
    )
    assert np.array_equal(out, zeros)


@pytest.mark.parametrize("nbits", [1, 2, 4, 8])
def test_threads_and_batches_agree_bitwise(nbits: int) -> None:
    rng = np.random.default_rng(nbits)
    centroids, weights = rng.normal(size=(50, 16)), rng.normal(size=2**nbits)
    codes = rng.integers(0, 50, 10_000)
    packed = rng.integers(0, 256, (10_000, 2 * nbits)).astype(np.uint8)
    codec = Codec(centroids, weights, nbits)
    together = codec.decode(codes.astype(np.int16), packed)
    alone = [codec.decode(codes[i : i + 1], packed[i : i + 1])[0] for i in range(0, 10_000, 999)]
    assert np.array_equal(alone, together[::999])
