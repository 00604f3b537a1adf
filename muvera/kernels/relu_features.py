"""Sums of random ReLU features of tokens.

Sizes: d columns of a token, F features, packed in panels of LANES columns (panels, d,
LANES), flat.
"""

import numpy as np

from .jit import kernel
from .tile import LANES, ROWS, half_dot, tile_dot


@kernel
def sum_features(tokens, offsets, start, stop, packed, out):
    """Write ``sum(max(W x, 0) for tokens x)`` of the texts start..stop to `out` (stop - start, F).

    `tokens` is float32 (n, d).  The sum runs over a text's tokens in their order.
    """
    depth = tokens.shape[1]
    rows = tokens.reshape(-1)
    width = out.shape[1]
    panels = packed.shape[0] // (depth * LANES)
    tile = np.empty(ROWS * LANES, np.float32)
    total = np.empty(LANES, np.float32)
    for text in range(start, stop):
        first, last = offsets[text], offsets[text + 1]
        for panel in range(panels):
            total[:] = 0
            for row in range(first, last, ROWS):
                if last - row > ROWS // 2:
                    tile_dot(rows, row, last - 1, depth, packed, panel, tile, 0)
                else:
                    half_dot(rows, row, last - 1, depth, packed, panel, tile, 0)
                for i in range(min(ROWS, last - row)):
                    for j in range(LANES):
                        total[j] += max(tile[i * LANES + j], np.float32(0))
            column = panel * LANES
            for j in range(min(LANES, width - column)):
                out[text - start, column + j] = total[j]
