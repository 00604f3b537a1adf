"""Products of rows rounded to bytes, decoded residuals, and finite numbers."""

from typing import Any

import numpy as np
import pytest
from builders.foreign_indexes import decode_slowly
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from muvera.kernels.byte_product import (
    multiply_by_bytes,
    multiply_by_half_bytes,
    multiply_rows,
    round_rows,
    split_to_bytes,
)
from muvera.kernels.byte_tile import MAX_DEPTH, SPAN, pack_bytes, pack_half_bytes
from muvera.kernels.rows import first_beyond
from muvera.kernels.token_codes import byte_table, decode_residuals
from muvera.reranking.codecs import ResidualCodec

#: The sum of 128 times the smallest byte over the greatest depth.
LEAST_SUM = np.full(1, 128 * -128 * MAX_DEPTH, np.int32)


def test_the_greatest_depth_fits_an_integer_of_32_bits() -> None:
    assert 255 * 128 * MAX_DEPTH < 2**31


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("multiply", "pack", "least"),
    [(multiply_by_bytes, pack_bytes, -128), (multiply_by_half_bytes, pack_half_bytes, -120)],
    ids=["bytes", "half bytes"],
)
def test_products_with_a_map_of_the_greatest_depth_do_not_overflow(
    multiply: Any, pack: Any, least: int, sign: int
) -> None:
    block, matrix = np.full((1, MAX_DEPTH), sign, np.float32), np.full((MAX_DEPTH, 1), least, np.int8)
    sums, one = np.full(1, 128 * least * MAX_DEPTH, np.int32), np.ones(1, np.float32)
    out = np.empty((1, 1), np.float32)
    multiply(block, pack(matrix), sums, one, out)
    assert out[0, 0] == pytest.approx(sign * least * MAX_DEPTH, rel=1e-6)


@pytest.mark.parametrize("sign", [1, -1])
def test_products_of_vectors_of_the_greatest_depth_do_not_overflow(sign: int) -> None:
    numbers, query = np.full((1, MAX_DEPTH), -128, np.int8), np.full((1, MAX_DEPTH), sign, np.float32)
    halves, units = np.zeros((2, MAX_DEPTH), np.uint8), np.empty(1, np.float32)
    split_to_bytes(query, halves, units)
    out = np.empty((1, 1), np.float32)
    multiply_rows(numbers, 0, 1, LEAST_SUM, np.ones(1, np.float32), halves, units, out)
    assert out[0, 0] == pytest.approx(sign * -128 * MAX_DEPTH, rel=1e-6)


@pytest.mark.parametrize("columns", [1, 63, SPAN, 130])
def test_rounded_vectors_and_their_products(columns: int) -> None:
    """The largest entry becomes 127, and the error is that of rounding.

    Products are those of integers.
    """
    rng = np.random.default_rng(columns)
    vectors = (rng.normal(size=(7, columns)) * 10.0 ** np.arange(-3, 4)[:, np.newaxis]).astype(np.float32)
    vectors[2] = 0
    vectors[4] = 1e-44  # no unit that small is a normal number
    depth = -(-columns // SPAN) * SPAN
    numbers, sums = np.zeros((7, depth), np.int8), np.empty(7, np.int32)
    units, errors = np.empty(7, np.float32), np.empty(7, np.float32)
    round_rows(vectors, 0.25, numbers, sums, units, errors)
    assert set(abs(numbers).max(axis=1).tolist()) == {0, 127} and not numbers[:, columns:].any()
    assert not numbers[[2, 4]].any() and not units[[2, 4]].any()
    np.testing.assert_array_equal(sums, 128 * numbers.sum(axis=1, dtype=np.int64))
    back = numbers[:, :columns] * units[:, np.newaxis].astype(np.float64)
    assert (abs(back - vectors) <= 0.5001 * units[:, np.newaxis] + 1e-44).all()
    lost = np.linalg.norm(vectors - back, axis=1) + 0.25 * np.linalg.norm(vectors.astype(np.float64), axis=1)
    np.testing.assert_allclose(errors, lost, rtol=2e-6, atol=2e-38)
    assert (errors >= lost).all()

    queries = rng.normal(size=(3, columns)).astype(np.float32)
    asked, query_units = np.zeros((6, depth), np.uint8), np.empty(3, np.float32)
    split_to_bytes(queries, asked, query_units)
    out = np.empty((3, 6), np.float32)
    multiply_rows(numbers, 1, 6, sums, units, asked, query_units, out)
    whole = (256 * (asked[::2].astype(np.int64) - 128) + asked[1::2])[:, :columns]
    exact = (back[1:6] @ whole.T) * query_units
    np.testing.assert_allclose(out[:, 1:].T, exact, rtol=1e-6, atol=1e-44)


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
    # Values are at most 1; a float32 sum of 1024 squares and a reciprocal lose a few
    # units.
    expected = decode_slowly(codes, packed, centroids, weights, nbits)
    np.testing.assert_allclose(out[1], expected, atol=1e-6)
    lengths = np.linalg.norm(out[0], axis=1, keepdims=True)
    np.testing.assert_allclose(out[1] * lengths, out[0], atol=1e-5 * lengths.max(initial=0))
    codec = ResidualCodec.of_plaid(centroids, weights)
    # The factor of a token has 11 bits.
    np.testing.assert_allclose(codec.decode(codec.plaid_codes(codes, packed)), expected, atol=1e-3)


def beyond(values: np.ndarray) -> int:
    """Return the position of the first float32 of at least 100, or -1."""
    mask, limit = np.uint32(0x7FFFFFFF), np.float32(100).view(np.uint32)
    return int(first_beyond(values.view(np.uint32), mask, limit))


@pytest.mark.parametrize("count", [0, 5000])
def test_no_number_is_beyond_a_limit(count: int) -> None:
    assert beyond(np.full(count, -99.5, np.float32)) == -1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 100, -100])
@pytest.mark.parametrize("place", [0, 4, 4095, 4096, 4999])
def test_the_first_number_beyond_a_limit(place: int, value: float) -> None:
    values = np.full(5000, -99.5, np.float32)
    values[place] = value
    values[place + 1 :: 700] = np.nan
    assert beyond(values) == place
