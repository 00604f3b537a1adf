"""Largest inner products of documents with landmarks, in bytes.

Sizes: d columns of a token, `width` = d rounded up to LANES, n landmarks, packed in panels of LANES
columns as :func:`muvera.kernels.byte_tile.pack_bytes` has them, with `width` bytes each.

Tokens are rounded to 127ths of their document's largest entry, after a vector that is the same for all
documents is subtracted.  All sums are exact integers, so a document's values do not depend on the
machine, nor on the documents beside it.
"""

import numpy as np

from .byte_tile import byte_max, round_lanes
from .jit import kernel
from .load_tokens import load_rows
from .tile import LANES, ROWS

# Least integer of 32 bits: no sum is below it.
_LEAST = -(2**31)


@kernel
def largest_products(floats, halves, offsets, first, last, center, packed, column_sums, units, out):
    """Write the values of documents first..last at the landmarks to `out` (last - first, n), float32.

    `center` (width,) is subtracted from tokens.  Landmark j is ``units[j]`` times its bytes, and
    ``column_sums[j]`` (int32) 128 times their sum.  A document without tokens gets zeros.
    """
    depth = max(floats.shape[1], halves.shape[1])
    width = center.shape[0]
    count = out.shape[1]
    panels = (count + LANES - 1) // LANES
    longest = 0
    for document in range(first, last):
        longest = max(longest, offsets[document + 1] - offsets[document])
    rows = np.empty(longest * width + LANES, np.float32)
    tokens = np.empty(longest * width, np.uint8)
    best = np.empty(LANES, np.int32)
    for document in range(first, last):
        start = offsets[document]
        size = offsets[document + 1] - start
        values = out[document - first]
        if size == 0:
            values[:] = 0.0
            continue
        load_rows(floats, halves, start, start + size, depth, width, center, rows)
        peak = np.float32(0.0)
        for i in range(size * width):
            peak = max(peak, abs(rows[i]))
        per_unit = np.float32(127.0) / peak if peak > 0 else np.float32(0.0)
        for i in range(0, size * width, LANES):
            round_lanes(rows, i, per_unit, tokens, i)
        unit = peak / np.float32(127.0)
        for panel in range(panels):
            best[:] = _LEAST
            for row in range(0, size, ROWS):
                byte_max(tokens, row, size - 1, width, packed, panel, best, 0)
            column = panel * LANES
            for j in range(min(LANES, count - column)):
                exact = np.float32(best[j] - column_sums[column + j])
                values[column + j] = unit * units[column + j] * exact
