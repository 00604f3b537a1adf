"""Inner products of single vectors, read once from memory.

Sizes: n `vectors` and m `queries` of `width` floats, whole vectors of LANES, flat.
"""

import numpy as np

from .jit import kernel
from .tile import LANES, ROWS, lane_dot


@kernel
def _tree_sum(tile, first):
    """Return the sum of the LANES partial sums ``tile[first:]``, which are overwritten."""
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
                out[row - start + i, query] = _tree_sum(tile, i * LANES)


@kernel
def inner_products_at(vectors, positions, width, queries, count, out):
    """Write the products of the vectors at `positions` with all queries to `out`, with the bits of all.

    ROWS vectors at a time are copied side by side.
    """
    tile = np.empty(ROWS * LANES, np.float32)
    block = np.empty(ROWS * width, np.float32)
    for start in range(0, len(positions), ROWS):
        used = min(ROWS, len(positions) - start)
        for i in range(used):
            source = positions[start + i] * width
            block[i * width : (i + 1) * width] = vectors[source : source + width]
        for query in range(count):
            lane_dot(block, 0, used - 1, width, queries, query, tile, 0)
            for i in range(used):
                out[start + i, query] = _tree_sum(tile, i * LANES)
