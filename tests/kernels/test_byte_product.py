"""Laws of rounding to bytes: error bounds, integers, and any batch."""

from typing import Any

import numpy as np
import pytest
import strategies as some
from hypothesis import given
from hypothesis import strategies as st

from muvera.kernels.byte_product import (
    multiply_by_bytes,
    multiply_by_half_bytes,
    multiply_rows,
    split_to_bytes,
)
from muvera.kernels.byte_tile import SPAN, STEP, pack_bytes, pack_half_bytes
from muvera.kernels.scan import multiply_rows_at
from muvera.mips.exact import byte_depth, rounded

#: Rows of very different lengths, and of zeros.
SCALES = st.sampled_from([0.0, 1e-30, 1e-3, 1.0, 1e6])


def rows_of(seed: int, count: int, dimension: int, scale: float = 1.0) -> Any:
    values = np.random.default_rng(seed).standard_normal((count, dimension))
    return (values * scale).astype(np.float32)


def split(rows: Any, depth: int) -> tuple[Any, Any]:
    halves, units = np.zeros((2 * len(rows), depth), np.uint8), np.empty(len(rows), np.float32)
    split_to_bytes(rows, halves, units)
    return halves, units


def whole(halves: Any) -> Any:
    """Return the integers of 16 bits whose bytes are in two rows."""
    return 256 * (halves[::2].astype(np.int64) - 128) + halves[1::2]


@given(some.seeds, st.integers(1, 5), some.dimensions, SCALES)
def test_sixteen_bits_lose_at_most_half_a_unit(seed: int, count: int, dimension: int, scale: float) -> None:
    """Rounding: the largest entry becomes 32,767.

    Three roundings of float32 lose up to .006 units more.
    """
    rows = rows_of(seed, count, dimension, scale)
    halves, units = split(rows, dimension + 3)
    numbers = whole(halves[:, :dimension])
    assert (np.abs(numbers * units[:, np.newaxis].astype(np.float64) - rows) <= 0.507 * units[:, None]).all()
    assert (np.abs(numbers).max(axis=1) == (32767 if scale else 0)).all()
    assert not halves[:, dimension:].any()


@given(some.seeds, st.integers(1, 5), some.dimensions, SCALES)
def test_the_error_bound_of_a_vector_bounds_its_rounding(
    seed: int, count: int, dimension: int, scale: float
) -> None:
    """Bound of decode(encode(v)): half a 127th per entry.

    `errors` is at least the lost length.
    """
    vectors = rows_of(seed, count, dimension, scale)
    numbers, sums, units, errors = rounded(vectors, 1)
    back = numbers[:, :dimension] * units[:, np.newaxis].astype(np.float64)
    assert (np.abs(back - vectors) <= 0.5001 * units[:, np.newaxis]).all()
    lost, lengths = (np.linalg.norm(rows.astype(np.float64), axis=1) for rows in (vectors - back, vectors))
    # At most half a unit per entry, the slack of products, and the smallest normal
    # number.
    most = np.sqrt(dimension) * 0.5001 * units + lengths * (np.sqrt(dimension) / 20_000 + dimension * 1e-6)
    assert (errors >= lost).all() and (errors <= most + 4e-6 * lengths + 2e-38).all()
    np.testing.assert_array_equal(sums, 128 * numbers.sum(axis=1, dtype=np.int64))
    assert numbers.shape[1] == byte_depth(dimension) and not numbers[:, dimension:].any()


@given(some.seeds, st.integers(1, 9), st.integers(1, 3), some.dimensions, SCALES)
def test_products_of_bytes_are_within_the_error_bound(
    seed: int, count: int, queries: int, dimension: int, scale: float
) -> None:
    """Bound of a search: |bytes - floats| <= error times the query's length.

    Tiny numbers are added.
    """
    vectors, asked = rows_of(seed, count, dimension, scale), rows_of(seed + 1, queries, dimension)
    numbers, sums, units, errors = rounded(vectors, 1)
    halves, query_units = split(asked, numbers.shape[1])
    products = np.empty((queries, count), np.float32)
    multiply_rows(numbers, 0, count, sums, units, halves, query_units, products)
    exact = asked.astype(np.float64) @ vectors.T.astype(np.float64)
    lengths = np.linalg.norm(asked.astype(np.float64), axis=1, keepdims=True)
    assert (np.abs(products - exact) <= errors * lengths + 1e-36).all()


@given(some.seeds, st.integers(1, 9), st.integers(1, 3), some.dimensions, st.data())
def test_products_of_bytes_have_the_same_bits_in_any_part(
    seed: int, count: int, queries: int, dimension: int, data: st.DataObject
) -> None:
    """Batches: parts of vectors, single queries and chosen rows agree.

    The integers are exact.
    """
    numbers, sums, units, _ = rounded(rows_of(seed, count, dimension), 1)
    halves, query_units = split(rows_of(seed + 1, queries, dimension), numbers.shape[1])
    every = np.empty((queries, count), np.float32)
    multiply_rows(numbers, 0, count, sums, units, halves, query_units, every)
    dots = whole(halves) @ numbers.T.astype(np.int64)
    np.testing.assert_allclose(every, dots * query_units[:, np.newaxis] * units, rtol=1e-6)
    start, stop = sorted(data.draw(st.tuples(st.integers(0, count), st.integers(0, count))))
    part = np.full((queries, count), 7, np.float32)
    multiply_rows(numbers, start, stop, sums, units, halves, query_units, part)
    np.testing.assert_array_equal(part[:, start:stop], every[:, start:stop])
    assert (part[:, :start] == 7).all() and (part[:, stop:] == 7).all()
    chosen = np.random.default_rng(seed).integers(start, count, 5) if start < count else np.empty(0, int)
    for q in range(queries):
        own = np.empty(len(chosen), np.float32)
        multiply_rows_at(
            numbers[start:], start, chosen, sums, units, halves[2 * q : 2 * q + 2], query_units[q], own
        )
        np.testing.assert_array_equal(own, every[q, chosen])


MAPS = [(multiply_by_bytes, pack_bytes, STEP), (multiply_by_half_bytes, pack_half_bytes, 2 * STEP)]


@pytest.mark.parametrize(("multiply", "pack", "step"), MAPS, ids=["bytes", "half bytes"])
@given(some.seeds, st.integers(1, 9), st.integers(1, 70), st.integers(1, 200))
def test_products_with_a_map_are_those_of_integers_for_any_batch(
    multiply: Any, pack: Any, step: int, seed: int, count: int, dimension: int, columns: int
) -> None:
    """Exact integers, rounded three times to float32.

    A row alone has the bits of the row in a batch.
    """
    rng = np.random.default_rng(seed)
    depth = -(-dimension // step) * step
    matrix = np.zeros((depth, columns), np.int8)
    matrix[:dimension] = rng.integers(-127, 128, (dimension, columns))
    if pack is pack_half_bytes:  # the numbers -120, -104, ..., 120
        matrix = (matrix & -16) | 8
        matrix[dimension:] = 0
    block, scales = rows_of(seed, count, dimension), rng.uniform(0.5, 2, columns).astype(np.float32)
    used = matrix.astype(np.int64) if pack is pack_bytes else (matrix.astype(np.int64) & -16) | 8
    sums = (128 * used.sum(axis=0)).astype(np.int32)
    packed = pack(matrix)
    out, alone = np.empty((count, columns), np.float32), np.empty((1, columns), np.float32)
    multiply(block, packed, sums, scales, out)
    numbers = np.zeros((count, depth), np.int64)
    halves, units = split(block, dimension)
    numbers[:, :dimension] = whole(halves)
    if pack is pack_half_bytes:
        # Rows are filled with the bytes 0 and 0, which mean -32,768.
        numbers[:, dimension:] = -256 * 128
    exact = (numbers @ used).astype(np.float64) * units[:, np.newaxis] * scales
    np.testing.assert_allclose(out, exact, rtol=1e-6, atol=1e-6 * np.abs(exact).max())
    multiply(block[-1:], packed, sums, scales, alone)
    np.testing.assert_array_equal(alone[0], out[-1])


@given(some.seeds, st.integers(1, 4), st.integers(1, 150))
def test_packed_columns_hold_each_entry_once(seed: int, steps: int, columns: int) -> None:
    """Packing is a permutation plus zeros: unpacking gives the matrix back."""
    matrix = np.random.default_rng(seed).integers(-128, 128, (2 * STEP * steps, columns)).astype(np.int8)
    lanes = 16
    panels = pack_bytes(matrix).reshape(-1, 2 * steps, lanes, STEP)
    back = panels.transpose(1, 3, 0, 2).reshape(2 * STEP * steps, -1)
    np.testing.assert_array_equal(back[:, :columns], matrix)
    assert not back[:, columns:].any()
    halves = pack_half_bytes(matrix).reshape(-1, steps, lanes, STEP)
    both = np.stack([halves & 15, halves >> 4], axis=2).transpose(1, 2, 4, 0, 3)
    back = both.reshape(2 * STEP * steps, -1)
    np.testing.assert_array_equal(back[:, :columns], matrix.view(np.uint8) >> 4)
    assert STEP * lanes == SPAN and not back[:, columns:].any()
