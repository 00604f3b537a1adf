"""Moments, compiled: mean token and covariance of a document, and their counterparts.

Sizes: d columns of a token, `width` = d rounded up to LANES.  Results go to the columns
of `out` from `at` on.  A triangle is the upper triangle of a d x d matrix, row by row
(d * (d + 1) / 2 floats).  Its entries off the diagonal are multiplied by the root of 2,
so that the inner product of two triangles equals the inner product of the two
symmetric matrices.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..kernels.byte_product import multiply_by_bytes, multiply_by_half_bytes
from ..kernels.jit import helper, kernel
from ..kernels.rows import add_product, empty_floats, load_rows, longest_text, set_scaled, tree_sum
from ..kernels.tile import LANES, ROWS, outer_triangle, tile_dot_below, tile_outer
from .kernels import Tokens

#: No document varies in the direction of a token with a smaller q' C0 q, whose weight
#: is 0.
LEAST_VARIANCE = 1e-12

# Tokens that are turned together: few enough to stay in the cache.
_TURNED_ROWS = 192


class Directions(NamedTuple):
    """The directions of covariances.

    Parameters
    ----------
    packed : numpy.ndarray
        float32, packed by :func:`muvera.kernels.rows.pack_map` from (width, r); empty
        if r is d, for the columns themselves.
    size : int
        r, the number of directions.
    """

    packed: NDArray[np.float32]
    size: int


class QueryMetric(NamedTuple):
    """Scales of the query blocks.

    Parameters
    ----------
    packed : numpy.ndarray
        The documents' mean covariance C0 (r, r), float32: its lower triangle with
        doubled entries off the diagonal, packed as columns, flat.
    units : numpy.ndarray
        float32 (4,), of cells, covariance, mean and bias.
    """

    packed: NDArray[np.float32]
    units: NDArray[np.float32]


class DocumentWeights(NamedTuple):
    """Factors and offsets that turn the moments of documents into their blocks.

    Parameters
    ----------
    triangle : int
        Number of floats of the covariance.
    coefficients : numpy.ndarray
        float64 (6,), c0..c5 of :func:`weigh_moments`.
    units : numpy.ndarray
        float32 (3,), of covariance, mean and bias.
    center : numpy.ndarray
        float32 (triangle + d + 1,), subtracted.
    """

    triangle: int
    coefficients: NDArray[np.float64]
    units: NDArray[np.float32]
    center: NDArray[np.float32]


class ByteMap(NamedTuple):
    """A map (L, D) in bytes or half bytes, packed in panels of columns.

    Parameters
    ----------
    packed : numpy.ndarray
        int8, or uint8 for half bytes; see :func:`muvera.kernels.byte_tile.pack_bytes`
        and `pack_half_bytes`.
    sums : numpy.ndarray
        int32 (D,), 128 times the sum of each column.
    scales : numpy.ndarray
        float32 (D,), the unit of each column.
    """

    packed: NDArray[np.int8] | NDArray[np.uint8]
    sums: NDArray[np.int32]
    scales: NDArray[np.float32]


@helper
def _sum_rows(rows, count, width, total):
    """Write the sum of the first `count` rows to `total` (d,)."""
    total[:] = 0.0
    for t in range(count):
        row = rows[t * width : (t + 1) * width]
        for j in range(total.shape[0]):
            total[j] += np.float64(row[j])


@kernel
def first_moments(tokens, first, last, at, mean, out):
    """Write the sums, or with `mean` the means, of the tokens of texts first..last.

    Column `at` of `out`, float32 (at least last - first, at least at + d), is the first
    to write.
    """
    offsets = tokens.offsets
    depth = max(tokens.floats.shape[1], tokens.halves.shape[1])
    width = (depth + LANES - 1) // LANES * LANES
    rows = np.empty(longest_text(offsets, first, last) * width + LANES, np.float32)
    center = np.zeros(width, np.float32)
    total = np.empty(depth, np.float64)
    for text in range(first, last):
        start, stop = offsets[text], offsets[text + 1]
        load_rows(tokens.floats, tokens.halves, start, stop, depth, width, center, rows)
        _sum_rows(rows, stop - start, width, total)
        count = max(stop - start, 1) if mean else 1
        for j in range(depth):
            out[text - first, at + j] = np.float32(total[j] / count)


@helper
def _load_turned(tokens, start, stop, center, directions, rows):
    """Write tokens start..stop in the directions, in steps that stay in the cache."""
    depth, width = max(tokens.floats.shape[1], tokens.halves.shape[1]), center.shape[0]
    size = directions.size
    block = np.empty(min(stop - start, _TURNED_ROWS) * width + LANES, np.float32)
    for begin in range(start, stop, _TURNED_ROWS):
        end = min(begin + _TURNED_ROWS, stop)
        load_rows(tokens.floats, tokens.halves, begin, end, depth, width, center, block)
        turned = rows[(begin - start) * size : (end - start) * size].reshape(end - begin, size)
        turned[:] = 0.0
        add_product(block[: (end - begin) * width].reshape(end - begin, width), directions.packed, turned)


@helper
def _weigh_rows(rows, count, width, weights, out):
    """Write ``weights[t] x_t`` of `count` rows x_t to `out`."""
    for t in range(count):
        set_scaled(rows, t * width, width, weights[t], out, t * width)


@helper
def _write_triangle(rows, weighted, count, width, depth, scale, out, at):
    """Write the upper triangle of ``scale * sum_t y_t x_t'`` to ``out[at:]``.

    :func:`_weigh_rows` describes the rows y_t, `weighted`.
    """
    root = np.float32(math.sqrt(2.0)) * scale
    whole = depth // LANES * LANES
    # Tiles at the diagonal also write to the end of the row before theirs, which is
    # written after them.
    for first in range(0, whole, LANES):
        for row in range(first + LANES - ROWS, -1, -ROWS):
            start = at + row * depth - row * (row - 1) // 2 - row
            outer_triangle(weighted, row, rows, first, width, count, scale, root, out, start, depth - row)
    tile = empty_floats(ROWS * LANES)
    for row in range(0, depth if whole < depth else 0, ROWS):
        tile_outer(weighted, row, rows, whole, width, count, tile)
        for i in range(row, min(row + ROWS, depth)):
            start = at + i * depth - i * (i - 1) // 2 - i
            for j in range(max(whole, i), depth):
                entry = tile[(i - row) * LANES + j - whole]
                out[start + j] = entry * (scale if i == j else root)


@helper
def _subtract_mean(rows, count, width, mean):
    """Subtract the mean of the first `count` rows, and write it to `mean`, float64."""
    _sum_rows(rows, count, width, mean)
    mean /= count
    for t in range(count):
        row = rows[t * width : (t + 1) * width]
        for j in range(mean.shape[0]):
            row[j] -= np.float32(mean[j])


@helper
def _weigh_tokens(rows, count, width, metric, weights):
    """Write ``1 / (2 sqrt(x' C0 x))`` of each row x to `weights`; see `QueryMetric`."""
    sums, tile = np.zeros(count * LANES, np.float32), empty_floats(ROWS * LANES)
    for panel in range(width // LANES):
        for row in range(0, count, ROWS):
            tile_dot_below(rows, row, count - 1, width, metric, panel, tile)
            for i in range(min(ROWS, count - row)):
                begin = (row + i) * width + panel * LANES
                token, products = rows[begin : begin + LANES], tile[i * LANES : (i + 1) * LANES]
                totals = sums[(row + i) * LANES : (row + i + 1) * LANES]
                for j in range(LANES):
                    totals[j] += products[j] * token[j]
    for t in range(count):
        square = tree_sum(sums, t * LANES)
        weights[t] = 0.5 / math.sqrt(square) if square > LEAST_VARIANCE else 0.0


@kernel
def write_triangles(tokens, first, last, at, directions, metric, unit, out):
    """Write the triangles of texts first..last to ``out[0 : last - first]``.

    With an empty `metric`, these are the covariances of documents of n tokens, times
    ``sqrt(2 log n)``: about the distance of the largest of n normal values of variance
    1 from their mean.  Otherwise, queries multiply covariances with them: ``sum_q q q'
    / (2 sqrt(q' C0 q))``, divided by `unit`, with C0 = `metric`, see
    :class:`QueryMetric`.
    """
    offsets, size = tokens.offsets, directions.size
    depth = max(tokens.floats.shape[1], tokens.halves.shape[1])
    width = (depth + LANES - 1) // LANES * LANES
    side = (size + LANES - 1) // LANES * LANES
    longest = longest_text(offsets, first, last)
    rows = empty_floats((longest + ROWS) * side + LANES)
    center = np.zeros(width, np.float32)
    mean = np.empty(size, np.float64)
    weighted = empty_floats(longest * side if metric.shape[0] else 0)
    weights = np.empty(longest, np.float32)
    for text in range(first, last):
        start, stop = offsets[text], offsets[text + 1]
        count = stop - start
        if count == 0:
            out[text - first, at : at + size * (size + 1) // 2] = 0.0
            continue
        if directions.packed.shape[0]:
            _load_turned(tokens, start, stop, center, directions, rows)
        else:
            load_rows(tokens.floats, tokens.halves, start, stop, depth, width, center, rows)
        if metric.shape[0]:
            _weigh_tokens(rows, count, side, metric, weights)
            _weigh_rows(rows, count, side, weights, weighted)
            _write_triangle(rows, weighted, count, side, size, np.float32(1.0) / unit, out[text - first], at)
        else:
            _subtract_mean(rows, count, side, mean)
            scale = np.float32(math.sqrt(2.0 * math.log(float(count))) / count)
            _write_triangle(rows, rows, count, side, size, scale, out[text - first], at)


def document_moments(
    tokens: Tokens, first: int, last: int, at: int, directions: Directions, out: NDArray[np.float32]
) -> None:
    """Write the triangles and the means of documents first..last.

    Column `at` of `out`, float32 (last - first, at least at + r (r + 1) / 2 + d), is
    the first to write.
    """
    no_metric = np.empty(0, np.float32)
    triangle = directions.size * (directions.size + 1) // 2
    first_moments(tokens, first, last, at + triangle, True, out)
    if directions.size:
        write_triangles(tokens, first, last, at, directions, no_metric, np.float32(1.0), out)


@kernel
def write_sums(tokens, first, last, at, units, out):
    """Write the sum of the tokens and their number, divided by the last two units."""
    first_moments(tokens, first, last, at, False, out)
    bias = at + max(tokens.floats.shape[1], tokens.halves.shape[1])
    for text in range(first, last):
        for j in range(at, bias):
            out[text - first, j] /= units[2]
        out[text - first, bias] = np.float32(tokens.offsets[text + 1] - tokens.offsets[text]) / units[3]


def query_moments(
    tokens: Tokens,
    first: int,
    last: int,
    at: int,
    directions: Directions,
    metric: QueryMetric,
    out: NDArray[np.float32],
) -> None:
    """Write triangle, sum and number of tokens of queries, divided by the units.

    Column `at` of `out`, float32 (last - first, at least at + r (r + 1) / 2 + d + 1),
    is the first to write.
    """
    triangle = directions.size * (directions.size + 1) // 2
    write_sums(tokens, first, last, at + triangle, metric.units, out)
    if directions.size:
        write_triangles(tokens, first, last, at, directions, metric.packed, metric.units[1], out)


@helper
def project_query_moments(tokens, first, last, directions, metric, triangle_map, sum_map, out):
    """Write the products of :func:`query_moments` with two maps.

    `triangle_map` has half bytes; `sum_map` has bytes, and belongs to the other
    columns.  `out` is float32 (last - first, D).
    """
    count = last - first
    depth = max(tokens.floats.shape[1], tokens.halves.shape[1])
    sums, products = np.empty((count, depth + 1), np.float32), np.empty(out.shape, np.float32)
    write_sums(tokens, first, last, 0, metric.units, sums)
    multiply_by_bytes(sums, sum_map.packed, sum_map.sums, sum_map.scales, out)
    if directions.size == 0:
        return
    triangles = np.empty((count, directions.size * (directions.size + 1) // 2), np.float32)
    write_triangles(tokens, first, last, 0, directions, metric.packed, metric.units[1], triangles)
    multiply_by_half_bytes(triangles, triangle_map.packed, triangle_map.sums, triangle_map.scales, products)
    for i in range(count):
        for j in range(out.shape[1]):
            out[i, j] += products[i, j]


@kernel
def weigh_moments(offsets, first, last, at, weights, out):
    """Turn the moments of documents first..last into their blocks: zero without tokens.

    Moments are a triangle, the mean token m and one more float.  With n tokens they
    become ``c0 * triangle``, ``c1 m + c2 m / |m|`` and
    ``c3 |m| + c4 |m|**2 + c5 log n``, all minus the center and times the block's unit.

    `offsets` (texts + 1,) are of the texts' tokens.  The moments begin in column `at`
    of `out`, float32 (last - first, at least at + triangle + d + 1).
    """
    size, coefficients, units, center = weights
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
