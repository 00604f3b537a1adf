"""Moments of texts: the mean token and the covariance of a document, and their counterparts for queries.

Sizes: d columns of a token, `width` = d rounded up to LANES.  Results go to the columns of `out` from `at`
on.  A triangle is the upper triangle of a d x d matrix, row by row (d * (d + 1) / 2 floats).  Its entries off the
diagonal are multiplied by the root of 2, so that the inner product of two triangles is that of the two symmetric
matrices.
"""

import math

import numpy as np

from .jit import helper, kernel
from .products import tree_sum
from .row_operations import load_rows, longest_text, set_scaled
from .tile import LANES, ROWS, tile_dot


@helper
def _sum_rows(rows, count, width, total):
    """Write the sum of the first `count` rows to `total` (d,)."""
    total[:] = 0.0
    for t in range(count):
        row = rows[t * width : (t + 1) * width]
        for j in range(total.shape[0]):
            total[j] += np.float64(row[j])


@kernel
def first_moments(floats, halves, offsets, first, last, at, mean, out):
    """Write the sums, or with `mean` the means, of the tokens of texts first..last to ``out[0 : last - first]``."""
    depth = max(floats.shape[1], halves.shape[1])
    width = (depth + LANES - 1) // LANES * LANES
    rows = np.empty(longest_text(offsets, first, last) * width + LANES, np.float32)
    center = np.zeros(width, np.float32)
    total = np.empty(depth, np.float64)
    for text in range(first, last):
        start, stop = offsets[text], offsets[text + 1]
        load_rows(floats, halves, start, stop, depth, width, center, rows)
        _sum_rows(rows, stop - start, width, total)
        count = stop - start if mean and stop > start else 1
        for j in range(depth):
            out[text - first, at + j] = np.float32(total[j] / count)


@helper
def _write_triangle(rows, count, width, depth, weights, scale, turned, packed, tile, out, at):
    """Write ``scale * sum_t weights[t] x_t x_t'`` of `count` rows x_t to ``out[at:]``, its upper triangle.

    `turned`, ``(width + ROWS) * count`` floats, and `packed`, ``width * count`` floats, are scratch memory for the rows
    and their columns.
    """
    root = np.float32(math.sqrt(2.0)) * scale
    for t in range(count):
        row, weight = rows[t * width : (t + 1) * width], weights[t]
        for j in range(width):
            turned[j * count + t] = row[j] * weight
        for panel in range(width // LANES):
            begin = (panel * count + t) * LANES
            packed[begin : begin + LANES] = row[panel * LANES : (panel + 1) * LANES]
    for panel in range(width // LANES):
        first = panel * LANES
        last = min(first + LANES, depth)
        for row in range(0, last, ROWS):
            tile_dot(turned, row, width - 1, count, packed, panel, tile, 0)
            for i in range(row, min(row + ROWS, last)):
                start = at + i * depth - i * (i - 1) // 2 - i
                if i < first and last - first == LANES:
                    set_scaled(tile, (i - row) * LANES, LANES, root, out, start + first)
                    continue
                for j in range(max(first, i), last):
                    value = tile[(i - row) * LANES + j - first]
                    out[start + j] = value * (scale if i == j else root)


@helper
def _subtract_mean(rows, count, width, mean):
    """Subtract the mean of the first `count` rows from each of them; `mean`, float64 (d,), receives it."""
    _sum_rows(rows, count, width, mean)
    mean /= count
    for t in range(count):
        row = rows[t * width : (t + 1) * width]
        for j in range(mean.shape[0]):
            row[j] -= np.float32(mean[j])


@helper
def _weigh_tokens(rows, count, width, metric, tile, sums, weights):
    """Write ``1 / (2 sqrt(x' C x))`` of `count` rows x to `weights`, with C = `metric` packed as columns, flat."""
    sums[: count * LANES] = 0.0
    for panel in range(width // LANES):
        for row in range(0, count, ROWS):
            tile_dot(rows, row, count - 1, width, metric, panel, tile, 0)
            for i in range(min(ROWS, count - row)):
                products, t = tile[i * LANES : (i + 1) * LANES], row + i
                total = sums[t * LANES : (t + 1) * LANES]
                token = rows[t * width + panel * LANES : t * width + (panel + 1) * LANES]
                for j in range(LANES):
                    total[j] += products[j] * token[j]
    for t in range(count):
        square = tree_sum(sums, t * LANES)
        # No document varies in the direction of a token with weight 0.
        weights[t] = 0.5 / math.sqrt(square) if square > 1e-12 else 0.0


@kernel
def triangles(floats, halves, offsets, first, last, at, metric, unit, out):
    """Write the triangles of texts first..last to ``out[0 : last - first]``.

    With an empty `metric`, these are the triangles of documents' covariances: those of the n tokens around their
    mean, times ``sqrt(2 log n)``.  This is about the distance of the largest of n normal values of variance 1 from
    their mean.

    Otherwise, these are the triangles that queries multiply covariances with: ``sum_q q q' / (2 sqrt(q' C q))``,
    divided by `unit`, with C = `metric` packed as columns, flat.
    """
    depth = max(floats.shape[1], halves.shape[1])
    width = (depth + LANES - 1) // LANES * LANES
    longest = longest_text(offsets, first, last)
    rows = np.empty((longest + ROWS) * width + LANES, np.float32)
    center = np.zeros(width, np.float32)
    mean = np.empty(depth, np.float64)
    turned = np.empty((width + ROWS) * longest, np.float32)
    packed = np.empty(width * longest, np.float32)
    weights = np.ones(longest, np.float32)
    sums = np.empty(longest * LANES, np.float32)
    tile = np.empty(ROWS * LANES, np.float32)
    for text in range(first, last):
        start = offsets[text]
        count = offsets[text + 1] - start
        if count == 0:
            out[text - first, at : at + depth * (depth + 1) // 2] = 0.0
            continue
        load_rows(floats, halves, start, start + count, depth, width, center, rows)
        if metric.shape[0]:
            _weigh_tokens(rows, count, width, metric, tile, sums, weights)
            scale = np.float32(1.0) / unit
        else:
            _subtract_mean(rows, count, width, mean)
            scale = np.float32(math.sqrt(2.0 * math.log(float(count))) / count)
        _write_triangle(
            rows, count, width, depth, weights, scale, turned, packed, tile, out[text - first], at
        )


@kernel
def weigh_moments(offsets, first, last, at, size, coefficients, units, center, out):
    """Turn the moments of documents first..last in ``out[0 : last - first]`` into their vectors.

    Moments are a triangle of `size` floats, the mean token m and one more float.  With n tokens they become
    ``c0 * triangle``, ``c1 m + c2 m / |m|`` and ``c3 |m| + c4 |m|**2 + c5 log n``, all minus `center` and
    times the block's unit (three `units`).  A document without tokens becomes zero.
    """
    depth = center.shape[0] - size - 1
    for document in range(first, last):
        target = out[document - first, at : at + center.shape[0]]
        count = offsets[document + 1] - offsets[document]
        target[size + depth] = 0.0
        if count == 0:
            continue
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
