"""Residuals of a PLAID index, as floats and as codes, against a bit-by-bit decoder."""

from __future__ import annotations

from typing import Any

import numpy as np
from builders.foreign_indexes import decode_slowly
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from muvera.kernels.token_codes import byte_table, decode_residuals
from muvera.reranking.codecs import ResidualCodec


@settings(max_examples=20)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([(1, 8), (1, 1024), (2, 12), (2, 100), (4, 64), (4, 72), (8, 96), (8, 128)]),
    st.integers(0, 3),
    st.sampled_from([np.int32, np.int64]),
    st.sampled_from([0, 1]),
)
def test_random_bytes_decode_bit_by_bit(
    seed: int, shape: tuple[int, int], count: int, kind: type, scale: int
) -> None:
    nbits, dimension = shape
    rng = np.random.default_rng(seed)
    centroids = scale * rng.normal(size=(7, dimension)).astype(np.float32)  # zeros stay zeros
    weights = scale * rng.normal(size=2**nbits).astype(np.float32)
    codes: NDArray[Any] = rng.integers(0, 7, count).astype(kind)
    packed = rng.integers(0, 256, (count, dimension * nbits // 8)).astype(np.uint8)
    out = np.full((2, count, dimension), np.nan, np.float32)
    for normalize in (0, 1):
        decode_residuals(
            codes, packed, centroids, byte_table(weights, nbits), bool(normalize), out[normalize]
        )
    # Values are at most 1; a float32 sum of 1024 squares and a reciprocal lose a few units.
    expected = decode_slowly(codes, packed, centroids, weights, nbits)
    np.testing.assert_allclose(out[1], expected, atol=1e-6)
    lengths = np.linalg.norm(out[0], axis=1, keepdims=True)
    np.testing.assert_allclose(out[1] * lengths, out[0], atol=1e-5 * lengths.max(initial=0))
    codec = ResidualCodec.of_plaid(centroids, weights)
    # The factor of a token has 11 bits.
    np.testing.assert_allclose(codec.decode(codec.plaid_codes(codes, packed)), expected, atol=1e-3)
