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
from muvera.kernels.rows import HAS_HALVES, make_halves_to_floats
from muvera.kernels.tile import LANES, ROWS, pack_columns, tile_dot, tile_max, tile_signs
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
    tile, maxima, strip, dots, half_strip = map(compiled, make_tiles(addition))
    out, best = np.empty(ROWS * WIDE * LANES, np.int32), np.empty(WIDE * LANES, np.int32)
    for panel in range(0, 2 * STRIP, WIDE):
        own = exact[:, panel * LANES : (panel + WIDE) * LANES]
        tile(rows.reshape(-1), 0, count - 1, depth, packed, panel, out)
        np.testing.assert_array_equal(out.reshape(ROWS, -1)[:count, : own.shape[1]], own)
        for start in (-(2**31), 0):
            best[:] = start
            maxima(rows.reshape(-1), 0, count - 1, depth, packed, panel, best)
            np.testing.assert_array_equal(best[: own.shape[1]], np.maximum(own.max(axis=0), start))

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
