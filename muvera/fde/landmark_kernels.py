"""Landmark cells, compiled: largest products of documents, soft weights of queries.

Sizes: d columns of a token; `width` is d rounded up to a multiple of LANES; n landmarks.
:func:`muvera.kernels.byte_tile.pack_bytes` packs them in panels of LANES columns of
`width` bytes.

Tokens minus a center are rounded to bytes.  Products of bytes are exact integers, so the
values of a text depend neither on the machine nor on other texts.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..kernels.byte_tile import WIDE, byte_max, byte_tile
from ..kernels.jit import helper, kernel
from ..kernels.rows import load_rows, longest_text, square_sum
from ..kernels.tile import LANES, ROWS

#: Cells that share one query token: 8 lose up to .005 of 10-recall@20 to 16, and all of
#: them gain nothing.
NEAREST = 16

# Cosines that are compared together, and lanes of their maxima; at least NEAREST.
_LANES = 64

# Smallest 32-bit integer: no sum is below it.
_LEAST = -(2**31)


class ByteColumns(NamedTuple):
    """Vectors as columns of bytes, and the center that is subtracted from tokens.

    Parameters
    ----------
    center : numpy.ndarray
        float32 (width,).
    packed : numpy.ndarray
        int8, flat, see :func:`muvera.kernels.byte_tile.pack_bytes`.
    sums : numpy.ndarray
        int32 (n,), 128 times the sum of each column's bytes.
    units : numpy.ndarray
        float32 (n,), the unit of each column's bytes.
    """

    center: NDArray[np.float32]
    packed: NDArray[np.int8]
    sums: NDArray[np.int32]
    units: NDArray[np.float32]


@helper
def _round_floats(rows, first, last, out):
    """Write ``rows[first:last]`` in 127ths of the largest entry to `out`; return the unit."""
    peak = np.float32(0.0)
    for i in range(first, last):
        peak = max(peak, abs(rows[i]))
    per_unit = np.float32(127.0) / peak if peak > 0 else np.float32(0.0)
    for i in range(first, last):
        value = rows[i] * per_unit + np.float32(128.5)
        out[i] = np.uint8(np.int32(min(max(value, np.float32(1.0)), np.float32(255.0))))
    return peak / np.float32(127.0)


@kernel
def largest_products(tokens, first, last, columns, out):
    """Write the largest product of each document with each column: 0 without tokens.

    Tokens minus the center are rounded to 127ths of their document's largest entry.

    Parameters
    ----------
    tokens : Tokens
    first, last : int
    columns : ByteColumns
    out : numpy.ndarray
        float32 (last - first, n).
    """
    depth = max(tokens.floats.shape[1], tokens.halves.shape[1])
    width = columns.center.shape[0]
    count = out.shape[1]
    panels = (count + LANES - 1) // LANES
    longest = longest_text(tokens.offsets, first, last)
    rows = np.empty(longest * width + LANES, np.float32)
    numbers = np.empty(longest * width, np.uint8)
    best = np.empty(WIDE * LANES, np.int32)
    for document in range(first, last):
        start = tokens.offsets[document]
        size = tokens.offsets[document + 1] - start
        values = out[document - first]
        if size == 0:
            values[:] = 0.0
            continue
        load_rows(tokens.floats, tokens.halves, start, start + size, depth, width, columns.center, rows)
        unit = _round_floats(rows, 0, size * width, numbers)
        for panel in range(0, panels, WIDE):
            best[:] = _LEAST
            for row in range(0, size, ROWS):
                byte_max(numbers, row, size - 1, width, columns.packed, panel, best)
            column = panel * LANES
            for j in range(min(WIDE * LANES, count - column)):
                exact = np.float32(best[j] - columns.sums[column + j])
                values[column + j] = unit * columns.units[column + j] * exact


@kernel
def center_rows(rows, count, weight):
    """Subtract the mean of the first `count` entries of each row, and multiply by `weight`.

    A document that is similar to everything would otherwise have large values in all
    cells, which no document of the sample had.
    """
    for i in range(rows.shape[0]):
        row = rows[i, :count]
        total = 0.0
        for value in row:
            total += np.float64(value)
        mean = np.float32(total / max(count, 1))
        for j in range(count):
            row[j] = (row[j] - mean) * weight


@helper
def _load_directions(tokens, start, stop, center, rows, lengths):
    """Write the directions of tokens start..stop minus `center` to `rows`, and their lengths."""
    depth = max(tokens.floats.shape[1], tokens.halves.shape[1])
    width = center.shape[0]
    none = np.zeros(width, np.float32)
    load_rows(tokens.floats, tokens.halves, start, stop, depth, width, none, rows)
    for t in range(stop - start):
        length = math.sqrt(square_sum(rows, t * width, width))
        lengths[t] = length
        inverse = np.float32(1.0) / np.float32(length) if length > 0 else np.float32(0.0)
        row = rows[t * width : (t + 1) * width]
        for j in range(width):
            row[j] = row[j] * inverse - center[j]


@helper
def _enter(value, number, values, numbers):
    """Insert into `values`, which descend; of equal values, the first one stays ahead."""
    place = values.shape[0] - 1
    while place > 0 and values[place - 1] < value:
        values[place] = values[place - 1]
        numbers[place] = numbers[place - 1]
        place -= 1
    values[place] = value
    numbers[place] = number


@helper
def _round_tokens(rows, size, center, numbers, scales, shifts):
    """Round each row to bytes, and write what turns products of bytes into cosines.

    The cosine of row t with a landmark is its product of bytes times ``scales[t]``, minus
    ``shifts[t]``, divided by the landmark's distance from the center.
    """
    width = center.shape[0]
    for t in range(size):
        shift = 0.0
        for j in range(width):
            shift += np.float64(rows[t * width + j]) * np.float64(center[j])
        length = math.sqrt(square_sum(rows, t * width, width))
        inverse = np.float32(1.0) / np.float32(length) if length > 0 else np.float32(0.0)
        scales[t] = _round_floats(rows, t * width, (t + 1) * width, numbers) * inverse
        shifts[t] = np.float32(shift) * inverse


@helper
def _write_cosines(products, sums, factors, inverse_lengths, scale, shift, cosines):
    """Write the cosines of one token with all landmarks."""
    for j in range(cosines.shape[0]):
        exact = np.float32(products[j] - sums[j])
        cosines[j] = exact * factors[j] * scale - shift * inverse_lengths[j]


@helper
def _least_of_best(cosines, largest, values, numbers):
    """Return a bound that at least as many cosines reach as `values` has entries.

    The entries of `largest` become maxima of different cosines, and the bound is one of
    the largest of them.  So hardly more cosines reach it.
    """
    kept, whole = values.shape[0], cosines.shape[0] // _LANES * _LANES
    largest[:] = -np.inf
    for first in range(0, whole, _LANES):
        chunk = cosines[first : first + _LANES]
        for j in range(_LANES):
            largest[j] = chunk[j] if chunk[j] > largest[j] else largest[j]
    for j in range(whole, cosines.shape[0]):
        largest[j - whole] = max(largest[j - whole], cosines[j])
    values[:] = -np.inf
    for j in range(_LANES):
        if largest[j] > values[kept - 1]:
            _enter(largest[j], 0, values, numbers)
    return values[kept - 1]


@helper
def _select(cosines, largest, values, numbers):
    """Write the largest `cosines`, descending, and their numbers; of ties, the first ones."""
    kept = values.shape[0]
    least = _least_of_best(cosines, largest, values, numbers)
    values[:] = -np.inf
    for first in range(0, cosines.shape[0], _LANES):
        chunk = cosines[first : first + _LANES]
        reached = 0
        for j in range(chunk.shape[0]):
            reached += 1 if chunk[j] >= least else 0
        if reached == 0:
            continue
        for j in range(chunk.shape[0]):
            if chunk[j] >= least and chunk[j] > values[kept - 1]:
                _enter(chunk[j], first + j, values, numbers)


@helper
def nearest_cells(tokens, start, stop, columns, inverse_lengths, sharpness, numbers, weights):
    """Write the nearest landmarks of tokens start..stop, and the weights of their cells.

    The weights of token q are ``|q| softmax(sharpness * cos(q / |q| - c, l - c))`` over
    its nearest landmarks l, with the center c.

    Parameters
    ----------
    tokens : Tokens
    start, stop : int
        Tokens of one query.
    columns : ByteColumns
        The landmarks.
    inverse_lengths : numpy.ndarray
        float32 (n,), ``1 / |l - c|``, or 0 if that length is 0.
    sharpness : float
    numbers : numpy.ndarray
        int64 (stop - start, k), the k nearest landmarks, nearest first.
    weights : numpy.ndarray
        float32 (stop - start, k).
    """
    size, kept = numbers.shape
    width, count = columns.center.shape[0], columns.units.shape[0]
    rows = np.empty(size * width + LANES, np.float32)
    lengths = np.empty(size, np.float64)
    _load_directions(tokens, start, stop, columns.center, rows, lengths)
    factors = columns.units * inverse_lengths
    rounded = np.empty(size * width, np.uint8)
    scales, shifts = np.empty(size, np.float32), np.empty(size, np.float32)
    _round_tokens(rows, size, columns.center, rounded, scales, shifts)
    tile = np.empty(ROWS * WIDE * LANES, np.int32)
    products = np.empty((ROWS, (count + WIDE * LANES - 1) // (WIDE * LANES) * (WIDE * LANES)), np.int32)
    cosines, largest = np.empty(count, np.float32), np.empty(_LANES, np.float32)
    values = np.empty(kept, np.float32)
    for row in range(0, size, ROWS):
        held = min(ROWS, size - row)
        for panel in range(0, (count + LANES - 1) // LANES, WIDE):
            byte_tile(rounded, row, size - 1, width, columns.packed, panel, tile)
            begin = panel * LANES
            for i in range(held):
                for j in range(WIDE * LANES):
                    products[i, begin + j] = tile[i * WIDE * LANES + j]
        for i in range(held):
            t = row + i
            _write_cosines(products[i], columns.sums, factors, inverse_lengths, scales[t], shifts[t], cosines)
            _select(cosines, largest, values, numbers[t])
            total = 0.0
            for j in range(kept):
                weight = math.exp(sharpness * (np.float64(values[j]) - np.float64(values[0])))
                weights[t, j] = weight
                total += weight
            for j in range(kept):
                weights[t, j] *= lengths[t] / total


@kernel
def landmark_queries(tokens, first, last, columns, inverse_lengths, sharpness, out):
    """Write the sums of the weights of each query's tokens in each cell.

    Parameters
    ----------
    tokens : Tokens
    first, last : int
    columns, inverse_lengths, sharpness
        As for :func:`nearest_cells`.
    out : numpy.ndarray
        float32 (last - first, at least n).
    """
    kept = min(NEAREST, columns.units.shape[0])
    for query in range(first, last):
        start, stop = tokens.offsets[query], tokens.offsets[query + 1]
        cells = out[query - first, : columns.units.shape[0]]
        cells[:] = 0.0
        numbers = np.zeros((stop - start, kept), np.int64)
        weights = np.empty((stop - start, kept), np.float32)
        nearest_cells(tokens, start, stop, columns, inverse_lengths, sharpness, numbers, weights)
        for t in range(stop - start):
            for i in range(kept):
                cells[numbers[t, i]] += weights[t, i]


@kernel
def project_landmark_queries(tokens, first, last, columns, inverse_lengths, sharpness, cell_map, out):
    """Add the product of :func:`landmark_queries`, minus each row's mean, with a map.

    Only the rows of the nearest landmarks are read, 16 for a token.

    Parameters
    ----------
    tokens : Tokens
    first, last : int
    columns, inverse_lengths, sharpness
        As for :func:`nearest_cells`.
    cell_map : CellMap
    out : numpy.ndarray
        float32 (last - first, D).
    """
    count = columns.units.shape[0]
    kept = min(NEAREST, count)
    total = np.empty(out.shape[1], np.float32)
    for query in range(first, last):
        start, stop = tokens.offsets[query], tokens.offsets[query + 1]
        numbers = np.zeros((stop - start, kept), np.int64)
        weights = np.empty((stop - start, kept), np.float32)
        nearest_cells(tokens, start, stop, columns, inverse_lengths, sharpness, numbers, weights)
        total[:] = 0.0
        mean = 0.0
        for t in range(stop - start):
            for i in range(kept):
                weight, row = weights[t, i], cell_map.rows[numbers[t, i]]
                mean += np.float64(weight)
                for j in range(total.shape[0]):
                    total[j] += weight * np.float32(row[j])
        mean /= max(count, 1)
        target = out[query - first]
        for j in range(target.shape[0]):
            target[j] += cell_map.scales[j] * (total[j] - np.float32(mean) * cell_map.sums[j])


class CellMap(NamedTuple):
    """The rows of a query's map that belong to landmark cells.

    Parameters
    ----------
    rows : numpy.ndarray
        int8 (n, D).
    scales : numpy.ndarray
        float32 (D,), the unit of each column.
    sums : numpy.ndarray
        float32 (D,), the sum of each column's bytes.
    """

    rows: NDArray[np.int8]
    scales: NDArray[np.float32]
    sums: NDArray[np.float32]
