"""Products of float32 rows with matrices, maps and vectors.

Sizes: b rows of a block, D columns of the result.  n `vectors` and m `queries` have `width` floats each, a multiple of
LANES.
"""

import numpy as np

from .jit import helper, kernel
from .row_operations import prefetch
from .tile import LANES, ROWS, lane_dot, pack_columns, tile_dot

# Depth of a step, in which a panel has 256 * 16 floats: they stay in the first-level cache.
_DEPTH = 256

# Floats per prefetch.
_LINE = 16


def pack_map(matrix: np.ndarray) -> np.ndarray:
    """Pack a map (L, D) for :func:`add_product`, flat: steps of rows, each packed in panels of columns."""
    steps = range(0, len(matrix), _DEPTH)
    return np.concatenate([pack_columns(matrix[i : i + _DEPTH].T).reshape(-1) for i in steps])


@kernel
def add_product(block, packed, out):
    """Add ``block @ M`` to `out` (b, D), both float32.

    `packed` is M packed by :func:`pack_map`.  Each step of a panel is read once for all rows.  The sum runs
    in the same order for any number of rows.
    """
    count, length = block.shape
    width = out.shape[1]
    panels = (width + LANES - 1) // LANES
    rows = np.empty((count + ROWS) * _DEPTH, np.float32)
    tile = np.empty(ROWS * LANES, np.float32)
    for begin in range(0, length, _DEPTH):
        depth = min(_DEPTH, length - begin)
        for i in range(count):
            for j in range(depth):
                rows[i * depth + j] = block[i, begin + j]
        columns = packed[begin * panels * LANES : (begin + depth) * panels * LANES]
        for panel in range(panels):
            first = panel * LANES
            used = min(LANES, width - first)
            for row in range(0, count, ROWS):
                tile_dot(rows, row, count - 1, depth, columns, panel, tile, 0)
                for i in range(min(ROWS, count - row)):
                    for j in range(used):
                        out[row + i, first + j] += tile[i * LANES + j]


@kernel
def add_count_sketch(block, targets, signs, out):
    """Add the sketch of `block` (b, n) to `out` (b, D): column i times ``signs[i]`` goes to ``targets[i]``."""
    for row in range(block.shape[0]):
        for i in range(block.shape[1]):
            out[row, targets[i]] += signs[i] * block[row, i]


@helper
def tree_sum(tile, first):
    """Return the sum of the LANES partial sums ``tile[first:]``, which this function overwrites."""
    half = LANES // 2
    while half > 0:
        for j in range(half):
            tile[first + j] += tile[first + j + half]
        half //= 2
    return tile[first]


@kernel
def inner_products(vectors, start, stop, width, queries, count, out):
    """Write the products of vectors start..stop with all queries to `out` (stop - start, m).

    LANES partial sums run along the width and are added as a tree: the bits do not depend
    on how many vectors or queries there are.  ROWS vectors are read for all queries.
    """
    tile = np.empty(ROWS * LANES, np.float32)
    for row in range(start, stop, ROWS):
        for query in range(count):
            lane_dot(vectors, row, stop - 1, width, queries, query, tile, 0)
            for i in range(min(ROWS, stop - row)):
                out[row - start + i, query] = tree_sum(tile, i * LANES)


@kernel
def inner_products_at(vectors, rows, query, out):
    """Write the products of the vectors (n, width) at `rows` with one query (width,) to `out` (rows,).

    They have the bits of :func:`inner_products`.
    """
    width = query.shape[0]
    flat = vectors.reshape(-1)
    block, tile = np.empty(ROWS * width, np.float32), np.empty(ROWS * LANES, np.float32)
    for first in range(0, rows.shape[0], ROWS):
        count = min(ROWS, rows.shape[0] - first)
        for i in range(count):
            following = rows[min(first + i + ROWS, rows.shape[0] - 1)] * width
            for j in range(0, width, _LINE):
                prefetch(flat, following + j)
            begin = rows[first + i] * width
            block[i * width : (i + 1) * width] = flat[begin : begin + width]
        lane_dot(block, 0, count - 1, width, query, 0, tile, 0)
        for i in range(count):
            out[first + i] = tree_sum(tile, i * LANES)
