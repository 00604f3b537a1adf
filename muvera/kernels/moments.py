"""Moments of texts: the mean token and the covariance of a document, what a query says of both.

Sizes: d columns of a token, `width` = d rounded up to LANES.  A row of `out` holds from column `at` on
the upper triangle of a d x d matrix, row by row (d * (d + 1) / 2 floats, only with `second`), then d
floats of the first moment, then one float.  Entries beside the diagonal carry the root of 2, so that
the inner product of two triangles is that of the two symmetric matrices.
"""

import math

import numpy as np

from .jit import kernel
from .row_operations import load_rows
from .tile import LANES, ROWS, tile_dot


@kernel
def write_triangle(rows, count, width, depth, weights, scale, turned, packed, tile, out):
    """Write ``scale * sum_t weights[t] x_t x_t'`` of `count` rows x_t to `out`, its upper triangle.

    `turned` and `packed` are room for the rows and their columns, ``(width + ROWS) * count`` and
    ``width * count`` floats.
    """
    root = np.float32(math.sqrt(2.0)) * scale
    for t in range(count):
        for j in range(width):
            value = rows[t * width + j]
            turned[j * count + t] = value * weights[t]
            packed[((j // LANES) * count + t) * LANES + j % LANES] = value
    for panel in range(width // LANES):
        first = panel * LANES
        for row in range(0, min(first + LANES, depth), ROWS):
            tile_dot(turned, row, width - 1, count, packed, panel, tile, 0)
            for i in range(row, min(row + ROWS, depth)):
                start = i * depth - i * (i - 1) // 2 - i
                for j in range(max(first, i), min(first + LANES, depth)):
                    value = tile[(i - row) * LANES + j - first]
                    out[start + j] = value * (scale if i == j else root)


@kernel
def document_moments(floats, halves, offsets, first, last, at, second, out):
    """Write the moments of documents first..last to ``out[0 : last - first]``, and 0 as the last float.

    The covariance is that of the document's tokens about their mean, times ``sqrt(2 log n)`` of n
    tokens: what the greatest of n normal values of variance 1 is beyond their mean, nearly.
    """
    depth = max(floats.shape[1], halves.shape[1])
    width = (depth + LANES - 1) // LANES * LANES
    longest = 0
    for document in range(first, last):
        longest = max(longest, offsets[document + 1] - offsets[document])
    rows = np.empty((longest + ROWS) * width + LANES, np.float32)
    nothing = np.zeros(width, np.float32)
    total = np.empty(depth, np.float64)
    room = longest if second else 0
    turned = np.empty((width + ROWS) * room, np.float32)
    packed = np.empty(width * room, np.float32)
    ones = np.ones(room, np.float32)
    tile = np.empty(ROWS * LANES, np.float32)
    size = depth * (depth + 1) // 2 if second else 0
    for document in range(first, last):
        target = out[document - first, at : at + size + depth + 1]
        start = offsets[document]
        count = offsets[document + 1] - start
        if count == 0:
            target[:] = 0.0
            continue
        load_rows(floats, halves, start, start + count, depth, width, nothing, rows)
        total[:] = 0.0
        for t in range(count):
            for j in range(depth):
                total[j] += np.float64(rows[t * width + j])
        for j in range(depth):
            target[size + j] = np.float32(total[j] / count)
        target[size + depth] = 0.0
        if second:
            for t in range(count):
                for j in range(depth):
                    rows[t * width + j] -= target[size + j]
            scale = np.float32(math.sqrt(2.0 * math.log(float(count))) / count)
            write_triangle(rows, count, width, depth, ones, scale, turned, packed, tile, target)


@kernel
def weigh_moments(offsets, first, last, at, size, coefficients, units, center, out):
    """Turn the moments of documents first..last in ``out[0 : last - first]`` into their vectors.

    With m the mean token and n the number of tokens the blocks become ``c0 * triangle``,
    ``c1 m + c2 m / |m|`` and ``c3 |m| + c4 |m|**2 + c5 log n``, all minus `center` and times the
    block's unit (three `units`).  A document without tokens stays zero.
    """
    depth = center.shape[0] - size - 1
    for document in range(first, last):
        count = offsets[document + 1] - offsets[document]
        if count == 0:
            continue
        target = out[document - first, at : at + center.shape[0]]
        square = 0.0
        for j in range(size, size + depth):
            square += np.float64(target[j]) * np.float64(target[j])
        norm = math.sqrt(square)
        along = coefficients[1] + (coefficients[2] / norm if norm > 0 else 0.0)
        bias = coefficients[3] * norm + coefficients[4] * square + coefficients[5] * math.log(float(count))
        for j in range(size):
            target[j] = (coefficients[0] * target[j] - center[j]) * units[0]
        for j in range(size, size + depth):
            target[j] = (along * target[j] - center[j]) * units[1]
        target[size + depth] = (bias - center[size + depth]) * units[2]


@kernel
def query_moments(floats, halves, offsets, first, last, at, metric, units, out):
    """Write what queries first..last multiply documents' moments with to ``out[0 : last - first]``.

    These are, each divided by the block's unit, the triangle of ``sum_q q q' / (2 sqrt(q' C q))`` with
    C = `metric` packed as columns, flat (empty: no triangle), the sum of the tokens, and their number.
    """
    depth = max(floats.shape[1], halves.shape[1])
    width = (depth + LANES - 1) // LANES * LANES
    second = metric.shape[0] > 0
    longest = 0
    for query in range(first, last):
        longest = max(longest, offsets[query + 1] - offsets[query])
    rows = np.empty((longest + ROWS) * width + LANES, np.float32)
    nothing = np.zeros(width, np.float32)
    total = np.empty(depth, np.float64)
    room = longest if second else 0
    turned = np.empty((width + ROWS) * room, np.float32)
    packed = np.empty(width * room, np.float32)
    weights = np.empty(longest + ROWS, np.float32)
    tile = np.empty(ROWS * LANES, np.float32)
    size = depth * (depth + 1) // 2 if second else 0
    for query in range(first, last):
        target = out[query - first, at : at + size + depth + 1]
        target[:] = 0.0
        start = offsets[query]
        count = offsets[query + 1] - start
        if count == 0:
            continue
        load_rows(floats, halves, start, start + count, depth, width, nothing, rows)
        total[:] = 0.0
        for t in range(count):
            for j in range(depth):
                total[j] += np.float64(rows[t * width + j])
        for j in range(depth):
            target[size + j] = np.float32(total[j]) / units[1]
        target[size + depth] = np.float32(count) / units[2]
        if second:
            weights[:] = 0.0
            for panel in range(width // LANES):
                for row in range(0, count, ROWS):
                    tile_dot(rows, row, count - 1, width, metric, panel, tile, 0)
                    for i in range(min(ROWS, count - row)):
                        for j in range(LANES):
                            value = rows[(row + i) * width + panel * LANES + j]
                            weights[row + i] += tile[i * LANES + j] * value
            for t in range(count):
                # A token in whose direction no document varies has nothing to add.
                weights[t] = 0.5 / math.sqrt(weights[t]) if weights[t] > 1e-12 else 0.0
            write_triangle(
                rows, count, width, depth, weights, np.float32(1.0) / units[0], turned, packed, tile, target
            )
