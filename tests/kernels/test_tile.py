"""The product tile: against float64, and the same bits in any product."""

from typing import Any

import numpy as np
import pytest
import strategies as some
from hypothesis import given
from hypothesis import strategies as st

from muvera.kernels.jit import kernel
from muvera.kernels.tile import (
    LANES,
    ROWS,
    outer_triangle,
    pack_columns,
    tile_dot,
    tile_dot_below,
    tile_max,
    tile_outer,
    tile_signs,
    tile_signs_of_two,
)

# Only compiled code can call intrinsics: one wrapper for each.


@kernel
def _multiply(rows: Any, count: Any, depth: Any, packed: Any, panels: Any, out: Any) -> None:
    tile = np.empty(ROWS * LANES, np.float32)
    for panel in range(panels):
        for row in range(0, count, ROWS):
            tile_dot(rows, row, count - 1, depth, packed, panel, tile, 0)
            for i in range(min(ROWS, count - row)):
                for j in range(LANES):
                    out[row + i, panel * LANES + j] = tile[i * LANES + j]


@kernel
def _dot_below(rows: Any, last: Any, depth: Any, packed: Any, panel: Any, out: Any) -> None:
    tile_dot_below(rows, 0, last, depth, packed, panel, out)


@kernel
def _outer(left: Any, row: Any, right: Any, column: Any, width: Any, count: Any, out: Any) -> None:
    tile_outer(left, row, right, column, width, count, out)


@kernel
def _triangle(left: Any, right: Any, depth: Any, count: Any, diagonal: Any, other: Any, out: Any) -> None:
    for first in range(0, depth, LANES):
        for row in range(first + LANES - ROWS, -1, -ROWS):
            start = 1 + row * depth - row * (row + 1) // 2
            outer_triangle(
                left, row, right, first, depth, count, diagonal, other, out, start, depth - row
            )  # fmt: skip


@kernel
def _max(rows: Any, last: Any, depth: Any, packed: Any, out: Any) -> None:
    tile_max(rows, 0, last, depth, packed, 0, out, 0)


@kernel
def _signs(rows: Any, last: Any, depth: Any, packed: Any, panel: Any, out: Any) -> None:
    tile_signs(rows, 0, last, depth, packed, panel, out, 0, 1)


@kernel
def _signs_of_two(rows: Any, last: Any, depth: Any, packed: Any, out: Any) -> None:
    tile_signs_of_two(rows, 0, last, depth, packed, 0, out, 0, out.shape[0] // 2)


def normals(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def multiplied(left: Any, right: Any) -> Any:
    """Return the products of all rows of both matrices, float32 (rows, rows)."""
    packed = pack_columns(right)
    out = np.empty((len(left), len(packed) * LANES), np.float32)
    _multiply(left.reshape(-1), len(left), left.shape[1], packed.reshape(-1), len(packed), out)
    assert not out[:, len(right) :].any()  # packed rows past the last are zero
    return out[:, : len(right)]


def rows_with_zeros_and_nan(seed: int, count: int, depth: int) -> Any:
    """Return rows of small integers; a quarter is NaN, and a quarter is -0."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(-3, 4, (count, depth)).astype(np.float32)
    kinds = rng.integers(0, 4, count)
    rows[kinds == 1] = np.nan
    rows[kinds == 2] = -0.0
    return rows


@given(some.seeds, st.integers(1, 3 * ROWS), st.integers(1, 70), st.integers(1, 3 * LANES))
def test_products_are_those_of_float64(seed: int, count: int, depth: int, columns: int) -> None:
    """Each of `depth` fused products rounds by at most 2^-24 of the sum of sizes."""
    left, right = normals(seed, count, depth), normals(seed + 1, columns, depth)
    exact = left.astype(np.float64) @ right.T.astype(np.float64)
    sizes = np.abs(left).astype(np.float64) @ np.abs(right).T.astype(np.float64)
    assert (np.abs(multiplied(left, right) - exact) <= depth * 2.0**-24 * sizes).all()


@given(some.seeds, st.integers(1, 3 * ROWS), st.integers(1, 70), st.integers(1, 3 * LANES))
def test_a_row_and_a_column_alone_have_the_bits_of_their_product(
    seed: int, count: int, depth: int, columns: int
) -> None:
    left, right = normals(seed, count, depth), normals(seed + 1, columns, depth)
    every = multiplied(left, right)
    i, j = seed % count, seed % columns
    assert multiplied(left[i : i + 1], right).tobytes() == every[i].tobytes()
    assert multiplied(left, right[j : j + 1]).tobytes() == every[:, j].tobytes()


@pytest.mark.parametrize("count", [1, ROWS - 1, ROWS, ROWS + 1, 2 * ROWS + 3])
@pytest.mark.parametrize("columns", [1, LANES - 1, LANES, LANES + 1, 40])
def test_products_of_small_integers_are_exact(count: int, columns: int) -> None:
    """Every depth up to two vectors: no product is lost or counted twice."""
    rng = np.random.default_rng([count, columns])
    for depth in range(1, 2 * LANES + 2):
        left = rng.integers(-99, 100, (count, depth)).astype(np.float32)
        right = rng.integers(-99, 100, (columns, depth)).astype(np.float32)
        np.testing.assert_array_equal(multiplied(left, right), left @ right.T)


@given(some.seeds, st.integers(1, ROWS), st.integers(1, 4))
def test_products_with_a_triangular_matrix_leave_out_its_zeros(seed: int, count: int, panels: int) -> None:
    width = panels * LANES
    rows, below = normals(seed, count, width), np.tril(normals(seed + 1, width, width))
    whole = multiplied(rows, below)
    packed, out = pack_columns(below).reshape(-1), np.empty(ROWS * LANES, np.float32)
    for panel in range(panels):
        _dot_below(rows.reshape(-1), count - 1, width, packed, panel, out)
        own = whole[:, panel * LANES : (panel + 1) * LANES]
        np.testing.assert_array_equal(out.reshape(ROWS, LANES)[:count], own)


@given(some.seeds, st.integers(0, 40), st.integers(1, 3), st.data())
def test_products_of_columns_are_sums_over_the_rows(
    seed: int, count: int, vectors: int, data: st.DataObject
) -> None:
    """Definition, for any number of rows: none gives zeros.

    Small integers are exact.
    """
    rng, width = np.random.default_rng(seed), vectors * LANES
    left, right = (rng.integers(-9, 10, (count, width)).astype(np.float32) for _ in range(2))
    row = data.draw(st.integers(0, width - ROWS))
    column = data.draw(st.integers(0, width - LANES))
    out = np.full(ROWS * LANES + 1, 7, np.float32)
    _outer(left.reshape(-1), row, right.reshape(-1), column, width, count, out)
    expected = left[:, row : row + ROWS].T @ right[:, column : column + LANES]
    np.testing.assert_array_equal(out[:-1].reshape(ROWS, LANES), expected)
    assert out[-1] == 7


@given(some.seeds, st.integers(0, 5), st.integers(1, 4))
def test_tiles_of_columns_fill_an_upper_triangle(seed: int, count: int, panels: int) -> None:
    """Entries left of the diagonal are overwritten, and none is outside."""
    rng, depth = np.random.default_rng(seed), panels * LANES
    left, right = (rng.integers(-9, 10, (count, depth)).astype(np.float32) for _ in range(2))
    out = np.full(depth * (depth + 1) // 2 + 2, 7, np.float32)
    _triangle(left.reshape(-1), right.reshape(-1), depth, count, np.float32(3), np.float32(5), out)
    every = (left.T @ right) * np.where(np.eye(depth), 3, 5)
    np.testing.assert_array_equal(out[1:-1], every[np.triu_indices(depth)])
    assert out[0] == out[-1] == 7


@given(some.seeds, some.dimensions, st.integers(1, ROWS), st.sampled_from([-np.inf, 0.0, 5.0]))
def test_maxima_are_raised_by_greater_products_alone(seed: int, depth: int, count: int, start: float) -> None:
    """NaN raises nothing, and rows past the last do not count twice."""
    rows, matrix = rows_with_zeros_and_nan(seed, count, depth), normals(seed + 1, LANES, depth).round()
    best = np.full(LANES + 1, start, np.float32)
    _max(rows.reshape(-1), count - 1, depth, pack_columns(matrix).reshape(-1), best)
    products = rows.astype(np.float64) @ matrix.T.astype(np.float64)
    np.testing.assert_array_equal(best[:-1], np.fmax.reduce(products, axis=0, initial=start))
    assert best[-1] == np.float32(start)


@given(some.seeds, some.dimensions, st.integers(1, ROWS))
def test_signs_of_two_panels_are_those_of_each(seed: int, depth: int, count: int) -> None:
    """Bit j is set if the product is above zero, and not for -0 or NaN."""
    rows, matrix = rows_with_zeros_and_nan(seed, count, depth), normals(seed + 1, 2 * LANES, depth).round()
    flat, packed = rows.reshape(-1), pack_columns(matrix).reshape(-1)
    both, alone = np.full(2 * ROWS, 9, np.uint16), np.full((2, ROWS), 9, np.uint16)
    _signs_of_two(flat, count - 1, depth, packed, both)
    for panel in range(2):
        _signs(flat, count - 1, depth, packed, panel, alone[panel])
    np.testing.assert_array_equal(both.reshape(2, ROWS), alone)
    positive = (rows.astype(np.float64) @ matrix.T.astype(np.float64) > 0).reshape(count, 2, LANES)
    np.testing.assert_array_equal(alone[:, :count].T, (positive << np.arange(LANES)).sum(axis=2))
