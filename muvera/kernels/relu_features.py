"""Sums of ReLU features of tokens, in bytes.

Sizes: d columns of a token, `width` = d rounded up to LANES, F features, packed in panels of LANES columns
as :func:`muvera.kernels.byte_tile.pack_bytes` has them, with `width` bytes each.

Each token is rounded to 127ths of its largest entry, after a vector that is the same for all tokens is
subtracted; its own products are added as floats.  Products are exact integers, and what a token adds
depends neither on the machine nor on the tokens beside it.
"""

import numpy as np

from .byte_tile import byte_tile, round_lanes
from .jit import kernel
from .load_tokens import load_rows
from .tile import LANES, ROWS


@kernel
def sum_features(floats, halves, offsets, first, last, center, packed, column_sums, units, start, out):
    """Write ``sum(max(start + W (x - center), 0) for tokens x)`` of texts first..last to `out` (last - first, F).

    `center` (width,) is subtracted from tokens.  Row j of W is ``units[j]`` times its bytes, and
    ``column_sums[j]`` (int32) 128 times their sum.  `start` float32 (F,).  The sum runs over a text's tokens
    in their order.
    """
    depth = max(floats.shape[1], halves.shape[1])
    width = center.shape[0]
    count = out.shape[1]
    longest = 0
    for text in range(first, last):
        longest = max(longest, offsets[text + 1] - offsets[text])
    rows = np.empty(longest * width + LANES, np.float32)
    tokens = np.empty(longest * width, np.uint8)
    token_units = np.empty(longest, np.float32)
    tile = np.empty(ROWS * LANES, np.int32)
    total = np.empty(LANES, np.float32)
    for text in range(first, last):
        size = offsets[text + 1] - offsets[text]
        load_rows(floats, halves, offsets[text], offsets[text + 1], depth, width, center, rows)
        for i in range(size):
            peak = np.float32(0)
            for j in range(width):
                peak = max(peak, abs(rows[i * width + j]))
            token_units[i] = peak / np.float32(127)
            per_unit = np.float32(127) / peak if peak > 0 else np.float32(0)
            for j in range(i * width, (i + 1) * width, LANES):
                round_lanes(rows, j, per_unit, tokens, j)
        for panel in range((count + LANES - 1) // LANES):
            column = panel * LANES
            used = min(LANES, count - column)
            total[:] = 0
            for row in range(0, size, ROWS):
                byte_tile(tokens, row, size - 1, width, packed, panel, tile, 0)
                for i in range(min(ROWS, size - row)):
                    unit = token_units[row + i]
                    for j in range(used):
                        exact = np.float32(tile[i * LANES + j] - column_sums[column + j])
                        value = start[column + j] + unit * units[column + j] * exact
                        total[j] += max(value, np.float32(0))
            for j in range(used):
                out[text - first, column + j] = total[j]
