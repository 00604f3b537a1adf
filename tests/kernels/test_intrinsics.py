"""Intrinsics against NumPy, with every instruction that this processor has."""

from functools import cache
from typing import Any, NamedTuple

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
    sum_byte_rows,
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
    tile_max_of_two,
    tile_scatter,
    tile_signs,
    tile_signs_of_two,
)
from muvera.kernels.token_codes import CHUNK, make_unpack


@cache
def compiled(intrinsic: Any) -> Any:
    """Return a function that calls an intrinsic; only compiled code can do that."""
    return numba.njit(lambda *arguments: intrinsic(*arguments))


def normals(*shape: int) -> np.ndarray:
    return np.random.default_rng(list(shape)).standard_normal(shape).astype(np.float32)


@pytest.fixture(params=[0, ROWS - 2, ROWS - 1, ROWS + 2])
def last(request: pytest.FixtureRequest) -> int:
    """Number of the last row: the first one, or near or past the end of a tile."""
    return int(request.param)


def tile_before_nan(last: int) -> tuple[Any, np.ndarray]:
    """Return a tile's arguments and the exact products.

    There is NaN in the memory behind its rows.
    """
    depth, row = 32, last // ROWS * ROWS
    rows = np.full((last + 1 + ROWS, depth), np.nan, np.float32)
    rows[: last + 1] = normals(last + 1, depth)
    matrix = normals(LANES, depth)
    wanted = rows[np.minimum(np.arange(row, row + ROWS), last)].astype(np.float64) @ matrix.T
    return (rows.reshape(-1), row, last, depth, pack_columns(matrix).reshape(-1), 0), wanted


def test_products_of_rows_past_the_last_repeat_it(last: int) -> None:
    tile, wanted = tile_before_nan(last)
    out = np.full(ROWS * LANES + 1, 7, np.float32)
    compiled(tile_dot)(*tile, out, 0)
    np.testing.assert_allclose(out[:-1].reshape(ROWS, LANES), wanted, atol=2e-5)
    assert out[-1] == 7


def test_maxima_do_not_read_rows_past_the_last(last: int) -> None:
    tile, wanted = tile_before_nan(last)
    best = np.full(LANES + 1, -1, np.float32)
    compiled(tile_max)(*tile, best, 0)
    np.testing.assert_allclose(best[:-1], np.maximum(wanted.max(axis=0), -1), atol=2e-5)
    assert best[-1] == -1


def test_signs_of_rows_past_the_last_repeat_it(last: int) -> None:
    tile, wanted = tile_before_nan(last)
    masks = np.zeros(1 + 3 * ROWS, np.uint16)
    compiled(tile_signs)(*tile, masks, 1, 3)
    np.testing.assert_array_equal(masks[1::3], ((wanted > 0) << np.arange(LANES)).sum(axis=1))
    assert not masks[0::3].any() and not masks[2::3].any()


class TwoPanels(NamedTuple):
    """Rows, two packed panels, and the products that `tile_dot` writes."""

    rows: np.ndarray
    row: int
    last: int
    packed: np.ndarray
    products: np.ndarray

    @property
    def tile(self) -> tuple[Any, ...]:
        return self.rows.reshape(-1), self.row, self.last, self.rows.shape[1], self.packed


@pytest.fixture
def two_panels(last: int) -> TwoPanels:
    depth = 48
    rows, matrix = normals(last + 1, depth), normals(2 * LANES, depth)
    made = TwoPanels(
        rows,
        last // ROWS * ROWS,
        last,
        pack_columns(matrix).reshape(-1),
        np.empty((2, ROWS, LANES), np.float32),
    )
    for panel in (0, 1):
        compiled(tile_dot)(*made.tile, panel, made.products[panel].reshape(-1), 0)
    return made


def test_signs_of_two_panels_have_the_bits_of_the_products(two_panels: TwoPanels) -> None:
    masks = np.zeros(1 + 2 * (ROWS + 3), np.uint16)
    compiled(tile_signs_of_two)(*two_panels.tile, 0, masks, 1, ROWS + 3)
    signs = ((two_panels.products > 0) << np.arange(LANES)).sum(axis=2)
    np.testing.assert_array_equal(masks[1 : 1 + ROWS], signs[0])
    np.testing.assert_array_equal(masks[4 + ROWS : 4 + 2 * ROWS], signs[1])
    assert not masks[0] and not masks[1 + ROWS : 4 + ROWS].any() and not masks[4 + 2 * ROWS :].any()


def test_maxima_of_two_panels_are_those_of_their_products(two_panels: TwoPanels) -> None:
    best = np.full(2 * LANES + 2, 0.25, np.float32)
    compiled(tile_max_of_two)(*two_panels.tile, 0, best, 1)
    wanted = np.maximum(two_panels.products.max(axis=1), np.float32(0.25))
    np.testing.assert_array_equal(best[1:-1], wanted.reshape(-1))
    assert best[0] == best[-1] == 0.25


def test_scattered_products_have_their_bits_and_write_nothing_else(two_panels: TwoPanels) -> None:
    row, last, products = two_panels.row, two_panels.last, two_panels.products
    places = np.random.default_rng(last).permutation(last + 1) * (LANES + 3)
    scales, out = normals(last + 1) + 5, np.full((last + 1) * (LANES + 3) + 3, 7, np.float32)
    wanted = out.copy()
    for i in range(row, min(row + ROWS, last + 1)):
        start = places[i] + 2
        wanted[start : start + LANES] = products[1, i - row] * scales[i]
    compiled(tile_scatter)(*two_panels.tile, 1, scales, out, places, 2)
    np.testing.assert_array_equal(out, wanted)


@pytest.fixture(params=[1, 3, ROWS, 2 * ROWS + 7])
def width(request: pytest.FixtureRequest) -> int:
    """Width of rows: whole vectors, in less and in more than a block."""
    return int(request.param) * LANES


def test_sums_of_lists_run_in_their_order(width: int) -> None:
    rows = normals(9, width)
    rows[:, 0], rows[4] = -0.0, 1e8  # the order and the sign of zero show
    following = np.array([3, -1, 8, 4, 6, -1, 2, -1, 1])
    out = np.full(width + 2, 7, np.float32)
    compiled(sum_list)(rows.reshape(-1), following, 0, 5, width, out, 1)
    wanted = rows[0] + rows[3] + rows[4] + rows[6] + rows[2]
    assert out[1:-1].tobytes() == wanted.tobytes() and out[0] == out[-1] == 7


def test_sums_of_shares_are_those_of_the_entries_of_a_list(width: int) -> None:
    rows, shares, out = normals(9, width), normals(18), np.full(width + 2, 7, np.float32)
    following = np.full(18, -1)
    following[[2, 5, 16]] = 5, 16, 7  # entries of the rows 1, 2, 8 and 3
    compiled(sum_shares)(rows.reshape(-1), following, shares, 2, 4, width, out, 1)
    exact = sum(rows[e // 2].astype(np.float64) * shares[e] for e in (2, 5, 16, 7))
    np.testing.assert_allclose(out[1:-1], exact, atol=2e-6)
    compiled(sum_shares)(rows.reshape(-1), following, shares, 2, 1, width, out, 1)
    assert out[1:-1].tobytes() == (rows[1] * shares[2]).tobytes()
    assert out[0] == out[-1] == 7


@pytest.mark.parametrize("count", [0, 1, 4])
def test_sums_of_byte_rows_are_exact_for_whole_shares(width: int, count: int) -> None:
    """Definition; integers below 2^24 are exact in float32."""
    rng = np.random.default_rng([width, count])
    rows = rng.integers(-128, 128, (9, width), np.int8)
    numbers, shares = rng.integers(0, 9, count), rng.integers(-99, 100, count).astype(np.float32)
    out = np.full(width + 1, 7, np.float32)
    compiled(sum_byte_rows)(rows.reshape(-1), width, numbers, shares, count, width, out)
    np.testing.assert_array_equal(out[:-1], shares @ rows[numbers].astype(np.float32))
    assert out[-1] == 7


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


@pytest.mark.parametrize("count", [1, 100])
def test_arrays_start_at_a_cache_line(count: int) -> None:
    made = compiled(empty_floats)(count)
    assert made.shape == (count,) and made.ctypes.data % 64 == 0
    values = normals(2, count)
    copy = at_cache_line(values)
    assert copy.ctypes.data % 64 == 0
    np.testing.assert_array_equal(copy, values.reshape(-1))


DEPTH, COLUMNS, COUNT = 3 * SPAN, 2 * STRIP * LANES - 3, ROWS - 1
STRIDE = 2 * STRIP * LANES
SMALLEST = -(2**31)


@cache
def byte_tiles(addition: str) -> dict[str, Any]:
    return {name: compiled(tile) for name, tile in make_tiles(addition)._asdict().items()}


def rows_and_matrix(extreme: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return ROWS rows of bytes and a matrix.

    Their numbers are random, or the greatest and the smallest ones.
    """
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 256, (ROWS, DEPTH)).astype(np.uint8)
    matrix = rng.integers(-128, 128, (DEPTH, COLUMNS)).astype(np.int8)
    if extreme:
        rows[:], matrix[:] = 255, -128
    return rows, matrix


def every_addition(test: Any) -> Any:
    extremes = pytest.mark.parametrize("extreme", [False, True], ids=["random", "extreme"])
    return pytest.mark.parametrize("addition", ADDITIONS)(extremes(test))


@every_addition
def test_a_tile_of_bytes_is_exact(addition: str, extreme: bool) -> None:
    rows, matrix = rows_and_matrix(extreme)
    packed, exact = pack_bytes(matrix), rows[:COUNT].astype(np.int64) @ matrix
    out = np.empty(ROWS * WIDE * LANES, np.int32)
    for panel in range(0, 2 * STRIP, WIDE):
        own = exact[:, panel * LANES : (panel + WIDE) * LANES]
        byte_tiles(addition)["tile"](rows.reshape(-1), 0, COUNT - 1, DEPTH, packed, panel, out)
        np.testing.assert_array_equal(out.reshape(ROWS, -1)[:COUNT, : own.shape[1]], own)


@pytest.mark.parametrize("start", [SMALLEST, 0])
@every_addition
def test_maxima_of_products_of_bytes_are_exact(addition: str, extreme: bool, start: int) -> None:
    rows, matrix = rows_and_matrix(extreme)
    packed, exact = pack_bytes(matrix), rows[:COUNT].astype(np.int64) @ matrix
    for panel in range(0, 2 * STRIP, WIDE):
        own = exact[:, panel * LANES : (panel + WIDE) * LANES]
        best = np.full(WIDE * LANES, start, np.int32)
        ahead, tile = best.copy(), (rows.reshape(-1), 0, COUNT - 1, DEPTH, packed, panel)
        byte_tiles(addition)["max"](*tile, best)
        np.testing.assert_array_equal(best[: own.shape[1]], np.maximum(own.max(axis=0), start))
        address = rows.ctypes.data
        byte_tiles(addition)["max_ahead"](*tile, ahead, address, 64, address + rows.nbytes - 1)
        np.testing.assert_array_equal(ahead, best)


@every_addition
def test_shifted_products_of_bytes_and_their_maxima_are_exact(addition: str, extreme: bool) -> None:
    rows, matrix = rows_and_matrix(extreme)
    packed, exact = pack_bytes(matrix), rows[:COUNT].astype(np.int64) @ matrix
    shifts = np.random.default_rng(1).integers(-1000, 1000, STRIDE).astype(np.int32)
    sums, lanes = np.zeros((ROWS, STRIDE), np.int32), np.full((ROWS, WIDE * LANES), SMALLEST, np.int32)
    for panel in range(0, 2 * STRIP, WIDE):
        byte_tiles(addition)["rows"](
            rows.reshape(-1), 0, COUNT - 1, DEPTH, packed, panel, shifts, sums.reshape(-1), STRIDE,
            lanes.reshape(-1),
        )  # fmt: skip
    np.testing.assert_array_equal(sums[:COUNT, :COLUMNS], exact - shifts[:COLUMNS])
    np.testing.assert_array_equal(lanes, sums.reshape(ROWS, -1, WIDE * LANES).max(axis=1))


@pytest.mark.parametrize("name", ["strip", "half_strip"])
@every_addition
def test_strips_of_products_of_bytes_are_exact(addition: str, extreme: bool, name: str) -> None:
    rows, matrix = rows_and_matrix(extreme)
    used = matrix if name == "strip" else (matrix & -16) | 8  # the entries of half bytes
    packed = pack_bytes(used) if name == "strip" else pack_half_bytes(used)
    out = np.empty(2 * STRIP * LANES, np.int32)
    byte_tiles(addition)[name](rows.reshape(-1), 1, 2, DEPTH, packed, STRIP, out)
    wanted = rows[1:3].astype(np.int64) @ used[:, STRIP * LANES :]
    np.testing.assert_array_equal(out.reshape(2, -1)[:, : wanted.shape[1]], wanted)


@every_addition
def test_products_of_vectors_with_a_query_are_exact(addition: str, extreme: bool) -> None:
    rows, matrix = rows_and_matrix(extreme)
    vectors = np.ascontiguousarray(matrix[:, : VECTORS + 2].T)
    out = np.empty(2 * VECTORS, np.int32)
    byte_tiles(addition)["dots"](vectors.reshape(-1), 3, VECTORS + 1, DEPTH, rows.reshape(-1), 1, out)
    wanted = rows[2:4].astype(np.int64) @ vectors[3:].T
    np.testing.assert_array_equal(out.reshape(2, VECTORS)[:, : VECTORS - 1], wanted)


@every_addition
def test_products_of_chosen_vectors_with_a_query_are_exact(addition: str, extreme: bool) -> None:
    rows, matrix = rows_and_matrix(extreme)
    vectors = np.ascontiguousarray(matrix[:, : VECTORS + 2].T)
    chosen = np.array([4, 0, 5, 1, 1])
    out = np.empty(2 * VECTORS, np.int32)
    byte_tiles(addition)["dots_at"](
        vectors.reshape(-1), chosen * DEPTH, 1, 3, DEPTH, rows.reshape(-1), 1, out
    )
    wanted = rows[2:4].astype(np.int64) @ vectors[chosen[1:4]].T
    np.testing.assert_array_equal(out.reshape(2, VECTORS)[:, :3], wanted)


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
