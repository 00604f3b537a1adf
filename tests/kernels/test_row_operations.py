"""Laws of the intrinsics on rows.

Only compiled code can call them: one wrapper for each.
"""

from typing import Any

import numpy as np
import pytest
import strategies as some
from hypothesis import given
from hypothesis import strategies as st

from muvera.kernels.jit import kernel
from muvera.kernels.rows import (
    add_scaled,
    half_at,
    load_rows,
    set_scaled,
    square_sum,
    widen_halves,
)
from muvera.kernels.tile import LANES, ROWS, lane_dot, pack_columns, tile_signs


@kernel
def _scaled(source: Any, position: Any, count: Any, weight: Any, out: Any, start: Any, add: Any) -> None:
    if add:
        add_scaled(source, position, count, np.float32(weight), out, start)
    else:
        set_scaled(source, position, count, np.float32(weight), out, start)


@kernel
def _square_sum(source: Any, position: Any, count: Any) -> Any:
    return square_sum(source, position, count)


@kernel
def _half_at(pairs: Any, position: Any) -> Any:
    return half_at(pairs, position)


@kernel
def _widen(halves: Any, start: Any, stop: Any, out: Any) -> None:
    widen_halves(halves, start, stop, out, np.int64(0))


@kernel
def _load(
    floats: Any, halves: Any, start: Any, stop: Any, depth: Any, width: Any, center: Any, out: Any
) -> None:
    load_rows(floats, halves, start, stop, depth, width, center, out)


@kernel
def _signs(rows: Any, last: Any, depth: Any, packed: Any, out: Any) -> None:
    tile_signs(rows, 0, last, depth, packed, 0, out, 0, 1)


@kernel
def _lane_dot(rows: Any, row: Any, last: Any, depth: Any, packed: Any, panel: Any, out: Any) -> None:
    lane_dot(rows, row, last, depth, packed, panel, out, 0)


def normals(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("add", [False, True], ids=["set", "add"])
@given(some.seeds, st.integers(0, 40), st.integers(0, 9), st.integers(0, 9))
def test_scaled_vectors_are_whole_and_write_nothing_else(
    add: bool, seed: int, count: int, position: int, start: int
) -> None:
    """A count is rounded down to whole vectors.

    A weight of a power of two makes products exact.
    """
    source, before = normals(seed, 60), normals(seed + 1, 60)
    out, whole = before.copy(), count // LANES * LANES
    _scaled(source, position, count, 0.5, out, start, add)
    expected = before.copy()
    values = np.float32(0.5) * source[position : position + whole]
    expected[start : start + whole] = values + (before[start : start + whole] if add else 0)
    np.testing.assert_array_equal(out, expected)


@given(some.seeds, st.integers(0, 70), st.integers(0, 5))
def test_square_sums_are_those_of_whole_vectors(seed: int, count: int, position: int) -> None:
    """LANES partial sums of fused products: within 1e-6 of float64."""
    source = normals(seed, 80)
    own = source[position : position + count // LANES * LANES].astype(np.float64)
    assert _square_sum(source, position, count) == pytest.approx(np.square(own).sum(), rel=1e-6)


@given(st.integers(0, 65535), st.integers(0, 90))
def test_halves_are_widened_exactly_from_any_start(start: int, count: int) -> None:
    """Every bit pattern of float16: the entries before `stop` are NumPy's."""
    halves = np.arange(65536, dtype=np.uint16)
    stop = min(start + count, 65536)
    out = np.full(count + LANES, 7, np.float32)
    _widen(halves, start, stop, out)
    with np.errstate(invalid="ignore"):  # signalling NaNs
        expected = halves[start:stop].view(np.float16).astype(np.float32)
    np.testing.assert_array_equal(out[: stop - start], expected)


@given(some.seeds, st.integers(0, 1), st.integers(1, 30))
def test_a_half_is_read_from_any_two_bytes(seed: int, shift: int, count: int) -> None:
    """Alignment does not matter: codes have their factor at any byte."""
    values = np.random.default_rng(seed).uniform(-7e4, 6e4, count).clip(-65504).astype("<f2")
    pairs = np.concatenate([np.zeros(shift, np.uint8), values.view(np.uint8)])
    found = [_half_at(pairs, shift + 2 * i) for i in range(count)]
    np.testing.assert_array_equal(np.array(found, np.float32), values.astype(np.float32))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@given(some.seeds, st.integers(1, 9), some.dimensions, st.data())
def test_loaded_rows_are_centered_and_padded_with_zeros(
    dtype: Any, seed: int, count: int, depth: int, data: st.DataObject
) -> None:
    """Rows start..stop minus the center, in float32.

    Zeros follow up to a multiple of LANES.
    """
    tokens, width = normals(seed, count, depth).astype(dtype), -(-depth // LANES) * LANES
    center = np.zeros(width, np.float32)
    center[:depth] = normals(seed + 1, depth)
    start, stop = sorted(data.draw(st.tuples(st.integers(0, count), st.integers(0, count))))
    none: Any = np.empty((0, depth), np.float32 if dtype is np.float16 else np.uint16)
    arrays = (none, tokens.view(np.uint16)) if dtype is np.float16 else (tokens, none)
    out = np.full((stop - start) * width + LANES, 7, np.float32)
    _load(*arrays, start, stop, depth, width, center, out)
    rows = out[: (stop - start) * width].reshape(-1, width)
    np.testing.assert_array_equal(rows[:, :depth], tokens[start:stop].astype(np.float32) - center[:depth])
    assert not rows[:, depth:].any()


@given(some.seeds, some.dimensions, st.integers(1, ROWS))
def test_zero_and_nan_are_not_positive(seed: int, depth: int, count: int) -> None:
    """Bit j is set exactly if the product is above zero.

    Zeros of both signs and NaN have no bit.
    """
    rng = np.random.default_rng(seed)
    rows, matrix = (rng.integers(-3, 4, (n, depth)).astype(np.float32) for n in (count, LANES))
    special = rng.integers(0, 4, count)
    rows[special == 1] = np.nan
    rows[special == 2] = -0.0
    masks = np.full(ROWS, 9, np.uint16)
    _signs(rows.reshape(-1), count - 1, depth, pack_columns(matrix).reshape(-1), masks)
    positive = (rows.astype(np.float64) @ matrix.T) > 0
    np.testing.assert_array_equal(masks[:count], (positive << np.arange(LANES)).sum(axis=1))
    assert (masks[count:] == masks[count - 1]).all()


@given(some.seeds, st.integers(1, 4), st.integers(1, 2 * ROWS))
def test_lane_products_are_sums_over_every_lanes_th_column(seed: int, steps: int, count: int) -> None:
    """Lane j adds the products of columns j, j + LANES, ...

    Rows past the last repeat it.
    """
    depth = steps * LANES
    rows, columns = normals(seed, count, depth), normals(seed + 1, 2, depth)
    for panel in range(2):
        for row in range(0, count, ROWS):
            out = np.empty(ROWS * LANES, np.float32)
            _lane_dot(rows.reshape(-1), row, count - 1, depth, columns.reshape(-1), panel, out)
            picked = rows[np.minimum(np.arange(row, row + ROWS), count - 1)].astype(np.float64)
            wanted = (picked * columns[panel]).reshape(ROWS, steps, LANES).sum(axis=1)
            np.testing.assert_allclose(out.reshape(ROWS, LANES), wanted, atol=1e-5)
