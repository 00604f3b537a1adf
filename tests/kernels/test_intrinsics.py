"""Intrinsics against NumPy, with every instruction that this processor has."""

from typing import Any

import numba
import numpy as np
import pytest

from muvera.kernels.byte_tile import (
    ADDITIONS,
    SPAN,
    STRIP,
    VECTORS,
    WIDE,
    make_tiles,
    pack_bytes,
    pack_half_bytes,
)
from muvera.kernels.jit import SHUFFLES
from muvera.kernels.rows import (
    HAS_HALVES,
    empty_floats,
    load_rows,
    make_halves_to_floats,
    sum_list,
    sum_shares,
)
from muvera.kernels.tile import (
    LANES,
    ROWS,
    at_cache_line,
    pack_columns,
    tile_dot,
    tile_max,
    tile_scatter,
    tile_signs,
    tile_signs_of_two,
)
from muvera.kernels.token_codes import CHUNK, make_unpack


def compiled(intrinsic: Any) -> Any:
    """Return a function that calls an intrinsic, which only compiled code can do."""
    return numba.njit(lambda *arguments: intrinsic(*arguments))


def normals(*shape: int) -> np.ndarray:
    return np.random.default_rng(list(shape)).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("last", [0, ROWS - 2, ROWS - 1, ROWS + 2])
def test_rows_past_the_last_repeat_it(last: int) -> None:
    """The memory behind it does not matter."""
    depth, row = 32, last // ROWS * ROWS
    rows = np.full((last + 1 + ROWS, depth), np.nan, np.float32)
    rows[: last + 1] = normals(last + 1, depth)
    matrix = normals(LANES, depth)
    wanted = rows[np.minimum(np.arange(row, row + ROWS), last)].astype(np.float64) @ matrix.T
    tile = rows.reshape(-1), row, last, depth, pack_columns(matrix).reshape(-1), 0

    out = np.full(ROWS * LANES + 1, 7, np.float32)
    compiled(tile_dot)(*tile, out, 0)
    np.testing.assert_allclose(out[:-1].reshape(ROWS, LANES), wanted, atol=2e-5)
    assert out[-1] == 7

    best = np.full(LANES + 1, -1, np.float32)
    compiled(tile_max)(*tile, best, 0)
    np.testing.assert_allclose(best[:-1], np.maximum(wanted.max(axis=0), -1), atol=2e-5)
    assert best[-1] == -1

    masks = np.zeros(1 + 3 * ROWS, np.uint16)
    compiled(tile_signs)(*tile, masks, 1, 3)
    np.testing.assert_array_equal(masks[1::3], ((wanted > 0) << np.arange(LANES)).sum(axis=1))
    assert not masks[0::3].any() and not masks[2::3].any()


@pytest.mark.parametrize("last", [0, ROWS - 2, ROWS - 1, ROWS + 2])
def test_tiles_with_places(last: int) -> None:
    """Products have the bits of `tile_dot` wherever they go.

    Rows past the last write nothing else.
    """
    depth, row = 48, last // ROWS * ROWS
    rows, matrix = normals(last + 1, depth), normals(2 * LANES, depth)
    packed = pack_columns(matrix).reshape(-1)
    used = range(row, min(row + ROWS, last + 1))
    products = np.empty((2, ROWS * LANES), np.float32)
    for panel in (0, 1):
        tile = rows.reshape(-1), row, last, depth, packed, panel
        compiled(tile_dot)(*tile, products[panel], 0)
    masks = np.zeros(1 + 2 * (ROWS + 3), np.uint16)
    compiled(tile_signs_of_two)(rows.reshape(-1), row, last, depth, packed, 0, masks, 1, ROWS + 3)
    signs = ((products.reshape(2, ROWS, LANES) > 0) << np.arange(LANES)).sum(axis=2)
    np.testing.assert_array_equal(masks[1 : 1 + ROWS], signs[0])
    np.testing.assert_array_equal(masks[4 + ROWS : 4 + 2 * ROWS], signs[1])
    assert not masks[0] and not masks[1 + ROWS : 4 + ROWS].any() and not masks[4 + 2 * ROWS :].any()

    places = np.random.default_rng(last).permutation(last + 1) * (LANES + 3)
    scales, out = normals(last + 1) + 5, np.full((last + 1) * (LANES + 3) + 3, 7, np.float32)
    wanted = out.copy()
    for i in used:
        start = places[i] + 2
        wanted[start : start + LANES] = products[1].reshape(ROWS, LANES)[i - row] * scales[i]
    compiled(tile_scatter)(rows.reshape(-1), row, last, depth, packed, 1, scales, out, places, 2)
    np.testing.assert_array_equal(out, wanted)


@pytest.mark.parametrize("vectors", [1, 3, ROWS, 2 * ROWS + 7])
def test_sums_of_lists_run_in_their_order(vectors: int) -> None:
    width = vectors * LANES
    rows, shares = normals(9, width), normals(18)
    rows[:, 0], rows[4] = -0.0, 1e8  # the order and the sign of zero show
    following = np.array([3, -1, 8, 4, 6, -1, 2, -1, 1])
    out = np.full(width + 2, 7, np.float32)
    compiled(sum_list)(rows.reshape(-1), following, 0, 5, width, out, 1)
    wanted = rows[0] + rows[3] + rows[4] + rows[6] + rows[2]
    assert out[1:-1].tobytes() == wanted.tobytes() and out[0] == out[-1] == 7

    following = np.full(18, -1)
    following[[2, 5, 16]] = 5, 16, 7  # entries of the rows 1, 2, 8 and 3
    compiled(sum_shares)(rows.reshape(-1), following, shares, 2, 4, width, out, 1)
    exact = sum(rows[e // 2].astype(np.float64) * shares[e] for e in (2, 5, 16, 7))
    np.testing.assert_allclose(out[1:-1], exact, atol=2e-6)
    compiled(sum_shares)(rows.reshape(-1), following, shares, 2, 1, width, out, 1)
    assert out[1:-1].tobytes() == (rows[1] * shares[2]).tobytes()


@pytest.mark.parametrize("depth", [1, 16, 37])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_loaded_rows(depth: int, dtype: type) -> None:
    tokens: np.ndarray = normals(5, depth).astype(dtype)
    width = depth + -depth % LANES
    center = np.pad(normals(depth), (0, width - depth))
    floats, halves = np.empty((0, depth), np.float32), np.empty((0, depth), np.uint16)
    if dtype == np.float16:
        halves = tokens.view(np.uint16)
    else:
        floats = tokens
    out = np.full(4 * width + LANES, 7, np.float32)
    compiled(load_rows)(floats, halves, 1, 5, depth, width, center, out)
    wanted = np.zeros((4, width), np.float32)
    wanted[:, :depth] = tokens[1:].astype(np.float32) - center[:depth]
    np.testing.assert_array_equal(out[: 4 * width].reshape(4, width), wanted)


def test_arrays_start_at_a_cache_line() -> None:
    for count in (1, 100):
        assert compiled(empty_floats)(count).shape == (count,)
        assert compiled(empty_floats)(count).ctypes.data % 64 == 0
        values = normals(2, count)
        copy = at_cache_line(values)
        assert copy.ctypes.data % 64 == 0
        np.testing.assert_array_equal(copy, values.reshape(-1))


@pytest.mark.parametrize("addition", ADDITIONS)
@pytest.mark.parametrize("extreme", [False, True])
def test_sums_of_products_of_bytes_are_exact(addition: str, extreme: bool) -> None:
    rng = np.random.default_rng(0)
    depth, columns, count = 3 * SPAN, 2 * STRIP * LANES - 3, ROWS - 1
    rows = rng.integers(0, 256, (ROWS, depth)).astype(np.uint8)
    matrix = rng.integers(-128, 128, (depth, columns)).astype(np.int8)
    if extreme:
        rows[:], matrix[:] = 255, -128
    packed, exact = pack_bytes(matrix), rows[:count].astype(np.int64) @ matrix
    tile, maxima, strip, dots, half_strip, in_rows = map(compiled, make_tiles(addition))
    out, best = np.empty(ROWS * WIDE * LANES, np.int32), np.empty(WIDE * LANES, np.int32)
    for panel in range(0, 2 * STRIP, WIDE):
        own = exact[:, panel * LANES : (panel + WIDE) * LANES]
        tile(rows.reshape(-1), 0, count - 1, depth, packed, panel, out)
        np.testing.assert_array_equal(out.reshape(ROWS, -1)[:count, : own.shape[1]], own)
        for start in (-(2**31), 0):
            best[:] = start
            maxima(rows.reshape(-1), 0, count - 1, depth, packed, panel, best)
            np.testing.assert_array_equal(best[: own.shape[1]], np.maximum(own.max(axis=0), start))

    stride = 2 * STRIP * LANES
    shifts, sums = rng.integers(-1000, 1000, stride).astype(np.int32), np.zeros((ROWS, stride), np.int32)
    lanes = np.full((ROWS, WIDE * LANES), -(2**31), np.int32)
    for panel in range(0, 2 * STRIP, WIDE):
        in_rows(
            rows.reshape(-1), 0, count - 1, depth, packed, panel, shifts, sums.reshape(-1), stride,
            lanes.reshape(-1),
        )  # fmt: skip
    np.testing.assert_array_equal(sums[:count, :columns], exact - shifts[:columns])
    np.testing.assert_array_equal(lanes, sums.reshape(ROWS, -1, WIDE * LANES).max(axis=1))

    halves = (matrix & -16) | 8  # the entries of half bytes
    out = np.empty(2 * STRIP * LANES, np.int32)
    for call, own, columns_of in ((strip, matrix, packed), (half_strip, halves, pack_half_bytes(halves))):
        call(rows.reshape(-1), 1, 2, depth, columns_of, STRIP, out)
        wanted = rows[1:3].astype(np.int64) @ own[:, STRIP * LANES :]
        np.testing.assert_array_equal(out.reshape(2, -1)[:, : wanted.shape[1]], wanted)

    vectors = np.ascontiguousarray(matrix[:, : VECTORS + 2].T)
    out = np.empty(2 * VECTORS, np.int32)
    dots(vectors.reshape(-1), 3, VECTORS + 1, depth, rows.reshape(-1), 1, out)
    wanted = rows[2:4].astype(np.int64) @ vectors[3:].T
    np.testing.assert_array_equal(out.reshape(2, VECTORS)[:, : VECTORS - 1], wanted)


@pytest.mark.parametrize("native", sorted({HAS_HALVES, False}))
def test_halves_are_widened_by_every_processor(native: bool) -> None:
    """Every bit pattern of float16, subnormals and infinities too."""
    widen = make_halves_to_floats(native)

    @numba.njit
    def call(halves: Any, out: Any) -> None:
        for i in range(0, 65536, LANES):
            widen(halves, i, out, i)

    halves, out = np.arange(65536, dtype=np.uint16), np.empty(65536, np.float32)
    call(halves, out)
    with np.errstate(invalid="ignore"):  # signalling NaNs, on arm64
        expected = halves.view(np.float16).astype(np.float32)
    known = ~np.isnan(expected)
    np.testing.assert_array_equal(out.view(np.uint32)[known], expected.view(np.uint32)[known])
    assert np.isnan(out[~known]).all()


@pytest.mark.parametrize("shuffles", SHUFFLES)
@pytest.mark.parametrize("bits", [1, 2, 4])
def test_unpacked_codes_are_entries_of_the_table(shuffles: str, bits: int) -> None:
    rng = np.random.default_rng(bits)
    packed = rng.integers(0, 256, CHUNK * bits // 8 + 3).astype(np.uint8)
    levels = rng.integers(0, 100, 2**bits).astype(np.uint8)
    centers = rng.integers(0, 100, CHUNK + 5).astype(np.uint8)
    nibble_bits = (np.arange(16)[:, np.newaxis] >> np.arange(3, -1, -1)) & 1
    buckets = (nibble_bits.reshape(16, 4 // bits, bits) << np.arange(bits)).sum(axis=2)
    tables = np.ascontiguousarray(levels[buckets].T).reshape(-1)
    out = np.zeros(CHUNK + 4, np.uint8)
    compiled(make_unpack(bits, shuffles))(packed, 3, centers, 5, tables, out, 2)
    flat = np.unpackbits(packed[3:]).reshape(CHUNK, bits)
    expected = centers[5:] + levels[(flat.astype(int) << np.arange(bits)).sum(axis=1)]
    np.testing.assert_array_equal(out[2:-2], expected)
    assert not out[:2].any() and not out[-2:].any()
