"""Learned vectors: largest products with landmarks, sums of ReLU features, and a step of Adam.

Sizes: A token has d columns; `width` is d rounded up to a multiple of LANES.  n is the number of landmarks or
features.  :func:`muvera.kernels.byte_tile.pack_bytes` packs them in panels of LANES columns of `width` bytes.

One center is subtracted from all tokens before they are rounded to bytes.  Products of bytes are exact
integers, so a text's values do not depend on the machine or on other texts.
"""

import numpy as np

from .byte_tile import WIDE, byte_max, byte_tile
from .jit import helper, kernel
from .rows import load_rows, longest_text
from .tile import LANES, ROWS

# Smallest 32-bit integer: no sum is below it.
_LEAST = -(2**31)


@helper
def _round_floats(rows, first, last, out):
    """Write ``rows[first:last]`` in 127ths of the largest entry to the same positions of `out`; return the unit."""
    peak = np.float32(0.0)
    for i in range(first, last):
        peak = max(peak, abs(rows[i]))
    per_unit = np.float32(127.0) / peak if peak > 0 else np.float32(0.0)
    for i in range(first, last):
        value = rows[i] * per_unit + np.float32(128.5)
        out[i] = np.uint8(np.int32(min(max(value, np.float32(1.0)), np.float32(255.0))))
    return peak / np.float32(127.0)


@kernel
def largest_products(floats, halves, offsets, first, last, center, packed, column_sums, units, out):
    """Write the largest products of documents first..last with landmarks to `out` (last - first, n): 0 without tokens.

    Tokens minus `center` (width,) are rounded to 127ths of their document's largest entry.  Landmark j is
    ``units[j]`` times its bytes, and ``column_sums[j]`` (int32) is 128 times their sum.
    """
    depth = max(floats.shape[1], halves.shape[1])
    width = center.shape[0]
    count = out.shape[1]
    panels = (count + LANES - 1) // LANES
    longest = longest_text(offsets, first, last)
    rows = np.empty(longest * width + LANES, np.float32)
    tokens = np.empty(longest * width, np.uint8)
    best = np.empty(WIDE * LANES, np.int32)
    for document in range(first, last):
        start = offsets[document]
        size = offsets[document + 1] - start
        values = out[document - first]
        if size == 0:
            values[:] = 0.0
            continue
        load_rows(floats, halves, start, start + size, depth, width, center, rows)
        unit = _round_floats(rows, 0, size * width, tokens)
        for panel in range(0, panels, WIDE):
            best[:] = _LEAST
            for row in range(0, size, ROWS):
                byte_max(tokens, row, size - 1, width, packed, panel, best)
            column = panel * LANES
            for j in range(min(WIDE * LANES, count - column)):
                exact = np.float32(best[j] - column_sums[column + j])
                values[column + j] = unit * units[column + j] * exact


@kernel
def sum_features(floats, halves, offsets, first, last, center, packed, column_sums, units, start, out):
    """Write ``sum(max(start + W (x - center), 0) for tokens x)`` of texts first..last to `out` (last - first, n).

    Tokens minus `center` are rounded to 127ths of their own largest entry.  W has the form of the landmarks of
    :func:`largest_products`.  The sum runs over a text's tokens in their order.
    """
    depth = max(floats.shape[1], halves.shape[1])
    width = center.shape[0]
    count = out.shape[1]
    longest = longest_text(offsets, first, last)
    rows = np.empty(longest * width + LANES, np.float32)
    tokens = np.empty(longest * width, np.uint8)
    token_units = np.empty(longest, np.float32)
    tile = np.empty(ROWS * WIDE * LANES, np.int32)
    total = np.empty(WIDE * LANES, np.float32)
    for text in range(first, last):
        size = offsets[text + 1] - offsets[text]
        load_rows(floats, halves, offsets[text], offsets[text + 1], depth, width, center, rows)
        for i in range(size):
            token_units[i] = _round_floats(rows, i * width, (i + 1) * width, tokens)
        for panel in range(0, (count + LANES - 1) // LANES, WIDE):
            column = panel * LANES
            used = min(WIDE * LANES, count - column)
            total[:] = 0
            for row in range(0, size, ROWS):
                byte_tile(tokens, row, size - 1, width, packed, panel, tile)
                for i in range(min(ROWS, size - row)):
                    unit = token_units[row + i]
                    for j in range(used):
                        exact = np.float32(tile[i * WIDE * LANES + j] - column_sums[column + j])
                        value = start[column + j] + unit * units[column + j] * exact
                        total[j] += max(value, np.float32(0))
            for j in range(used):
                out[text - first, column + j] = total[j]


@kernel
def adam_step(weights, gradient, first, second, step, rate):
    """Update `weights` by one step of Adam (Kingma and Ba, arXiv 1412.6980); `step` counts from 1."""
    first_keep, second_keep = np.float32(0.9), np.float32(0.999)
    one = np.float32(1.0)
    first_bias = np.float32(1.0 / (1.0 - 0.9**step))
    second_bias = np.float32(1.0 / (1.0 - 0.999**step))
    floor = np.float32(1e-8)
    for i in range(weights.shape[0]):
        value = gradient[i]
        first[i] = first_keep * first[i] + (one - first_keep) * value
        second[i] = second_keep * second[i] + (one - second_keep) * value * value
        weights[i] -= rate * first[i] * first_bias / (np.sqrt(second[i] * second_bias) + floor)
