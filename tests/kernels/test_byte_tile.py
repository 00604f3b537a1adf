"""Tiles of bytes and unpacked half bytes: every instruction gives NumPy's integers."""

from typing import Any

import numpy as np
import pytest

from muvera.kernels import byte_tile
from muvera.kernels.byte_tile import SPAN, STRIP, VECTORS, WIDE, pack_bytes, pack_half_bytes
from muvera.kernels.jit import SHUFFLES, kernel
from muvera.kernels.tile import LANES, ROWS
from muvera.kernels.token_codes import CHUNK, make_unpack


def through(addition: str, which: int) -> Any:
    """Return one of the tiles, with one way to add."""
    tile = byte_tile.make_tiles(addition)[which]

    @kernel
    def call(rows: Any, last: int, depth: int, packed: Any, panel: int, out: Any) -> None:
        tile(rows, 0, last, depth, packed, panel, out)

    return call


@pytest.mark.parametrize("addition", byte_tile.ADDITIONS)
@pytest.mark.parametrize("extreme", [False, True])
def test_a_tile_is_exact(addition: str, extreme: bool) -> None:
    rng = np.random.default_rng(0)
    depth, columns = 24, LANES + 3
    rows = rng.integers(0, 256, (ROWS - 1, depth)).astype(np.uint8)
    matrix = rng.integers(-128, 128, (depth, columns)).astype(np.int8)
    if extreme:
        rows[:], matrix[:] = 255, -128
    exact = np.zeros((ROWS - 1, 2 * LANES), np.int64)
    exact[:, :columns] = rows.astype(np.int64) @ matrix
    out, best = np.empty(ROWS * WIDE * LANES, np.int32), np.empty(WIDE * LANES, np.int32)
    write, raise_to_maxima = through(addition, 0), through(addition, 1)
    for panel in range(0, 2, WIDE):
        write(rows.reshape(-1), ROWS - 2, depth, pack_bytes(matrix), panel, out)
        wanted = exact[:, panel * LANES : (panel + WIDE) * LANES]
        np.testing.assert_array_equal(out.reshape(ROWS, -1)[: ROWS - 1], wanted)
        for start in (-(2**31), 0):
            best[:] = start
            raise_to_maxima(rows.reshape(-1), ROWS - 2, depth, pack_bytes(matrix), panel, best)
            np.testing.assert_array_equal(best, np.maximum(wanted.max(axis=0), start))


@pytest.mark.parametrize("addition", byte_tile.ADDITIONS)
@pytest.mark.parametrize("which", [2, 4])
@pytest.mark.parametrize("extreme", [False, True])
def test_a_strip_is_exact(addition: str, which: int, extreme: bool) -> None:
    rng = np.random.default_rng(1)
    depth, columns = 32, 2 * STRIP * LANES
    rows = rng.integers(0, 256, (2, depth)).astype(np.uint8)
    matrix = rng.integers(-128, 128, (depth, columns)).astype(np.int8)
    if extreme:
        rows[:], matrix[:] = 255, -128
    if which == 4:
        matrix = (matrix & -16) | 8  # the entries of half bytes
    out = np.empty(2 * STRIP * LANES, np.int32)
    packed = pack_bytes(matrix) if which == 2 else pack_half_bytes(matrix)
    through(addition, which)(rows.reshape(-1), 1, depth, packed, STRIP, out)
    np.testing.assert_array_equal(out.reshape(2, -1), rows.astype(np.int64) @ matrix[:, STRIP * LANES :])


@pytest.mark.parametrize("addition", byte_tile.ADDITIONS)
@pytest.mark.parametrize("extreme", [False, True])
def test_products_of_vectors_with_a_query_are_exact(addition: str, extreme: bool) -> None:
    rng = np.random.default_rng(2)
    vectors = rng.integers(-128, 128, (VECTORS + 2, 3 * SPAN)).astype(np.int8)
    queries = rng.integers(0, 256, (2 * 3, 3 * SPAN)).astype(np.uint8)
    if extreme:
        vectors[:], queries[:] = -128, 255
    dots = byte_tile.make_tiles(addition)[3]

    @kernel
    def call(vectors: Any, last: int, depth: int, queries: Any, query: int, out: Any) -> None:
        dots(vectors, 3, last, depth, queries, query, out)

    out = np.empty(2 * VECTORS, np.int32)
    for query in range(3):
        call(vectors.reshape(-1), VECTORS + 1, 3 * SPAN, queries.reshape(-1), query, out)
        wanted = queries[2 * query : 2 * query + 2].astype(np.int64) @ vectors[3:].T.astype(np.int64)
        for half, exact in zip(out.reshape(2, VECTORS), wanted, strict=True):
            np.testing.assert_array_equal(half[: VECTORS - 1], exact)


@pytest.mark.parametrize("shuffles", SHUFFLES)
@pytest.mark.parametrize("bits", [1, 2, 4])
def test_shuffles_look_up_what_a_table_says(shuffles: str, bits: int) -> None:
    rng = np.random.default_rng(bits)
    packed = rng.integers(0, 256, CHUNK * bits // 8 + 3).astype(np.uint8)
    levels = rng.integers(0, 100, 2**bits).astype(np.uint8)
    centers = rng.integers(0, 100, CHUNK + 5).astype(np.uint8)
    nibble_bits = (np.arange(16)[:, np.newaxis] >> np.arange(3, -1, -1)) & 1
    buckets = (nibble_bits.reshape(16, 4 // bits, bits) << np.arange(bits)).sum(axis=2)
    tables = np.ascontiguousarray(levels[buckets].T).reshape(-1)
    unpack = make_unpack(bits, shuffles)

    @kernel
    def run(packed: Any, centers: Any, tables: Any, out: Any) -> None:
        unpack(packed, 3, centers, 5, tables, out, 2)

    out = np.zeros(CHUNK + 4, np.uint8)
    run(packed, centers, tables, out)
    flat = np.unpackbits(packed[3:]).reshape(CHUNK, bits)
    expected = centers[5:] + levels[(flat.astype(int) << np.arange(bits)).sum(axis=1)]
    np.testing.assert_array_equal(out[2:-2], expected)
    assert not out[:2].any() and not out[-2:].any()
