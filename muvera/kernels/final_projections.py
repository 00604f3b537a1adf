"""Products with the maps that shorten long FDEs, a block of documents and a repetition at a time.

Sizes: b rows of the block, n columns of one repetition, D columns of the result.
"""

import numpy as np

from .jit import kernel
from .tile import LANES, ROWS, pack_columns, tile_dot

# Depth of the expanded sign panel: 256 * 16 floats stay in the first-level cache.
_DEPTH = 256

#: Depth of the steps in which a packed map is read, for the same reason.
PRODUCT_DEPTH = 256


@kernel
def add_rademacher(block, start, signs, scale, out):
    """Add ``scale * block[:, start : start + n] @ S`` to `out` (b, D), all float32.

    `signs` (panels, n) holds S as bits: bit j of ``[p, i]`` set means S[i, p * LANES + j] = 1,
    else -1.  The +-1 are expanded once for all rows; the sum runs in the same order for any
    number of rows.
    """
    count = block.shape[0]
    length = signs.shape[1]
    width = out.shape[1]
    packed = np.empty(_DEPTH * LANES, np.float32)
    rows = np.empty((count + ROWS) * _DEPTH, np.float32)
    tile = np.empty(ROWS * LANES, np.float32)
    for begin in range(0, length, _DEPTH):
        depth = min(_DEPTH, length - begin)
        for i in range(count):
            for j in range(depth):
                rows[i * depth + j] = block[i, start + begin + j]
        for panel in range(signs.shape[0]):
            first = panel * LANES
            used = min(LANES, width - first)
            for i in range(depth):
                word = signs[panel, begin + i]
                for j in range(LANES):
                    packed[i * LANES + j] = scale if (word >> j) & 1 else -scale
            for row in range(0, count, ROWS):
                tile_dot(rows, row, count - 1, depth, packed, 0, tile, 0)
                for i in range(min(ROWS, count - row)):
                    for j in range(used):
                        out[row + i, first + j] += tile[i * LANES + j]


def pack_map(matrix: np.ndarray) -> np.ndarray:
    """Pack a map (L, D) for :func:`add_product`, flat."""
    steps = range(0, len(matrix), PRODUCT_DEPTH)
    return np.concatenate([pack_columns(matrix[i : i + PRODUCT_DEPTH].T).reshape(-1) for i in steps])


@kernel
def add_product(block, packed, step, out):
    """Add ``block @ M`` to `out` (b, D), both float32.

    `packed` holds M's rows `step` at a time, each step's columns packed in panels, flat.  A
    step of a panel is read once for all rows.  The sum runs in the same order for any number
    of rows.
    """
    count, length = block.shape
    width = out.shape[1]
    panels = (width + LANES - 1) // LANES
    rows = np.empty((count + ROWS) * step, np.float32)
    tile = np.empty(ROWS * LANES, np.float32)
    for begin in range(0, length, step):
        depth = min(step, length - begin)
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
    """Add the sketch of `block` (b, n) to `out` (b, D): column i goes to ``targets[i]``."""
    for row in range(block.shape[0]):
        for i in range(block.shape[1]):
            out[row, targets[i]] += signs[i] * block[row, i]
