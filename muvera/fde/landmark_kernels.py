"""Landmark cells, compiled: largest products of documents, soft weights of queries.

Sizes: d columns of a token; `width` is d rounded up to a multiple of LANES; n
landmarks. :func:`muvera.kernels.byte_tile.pack_bytes` packs them in panels of LANES
columns of `width` bytes.

Tokens minus a center are rounded to bytes.  Products of bytes are exact integers, so
the values of a text depend neither on the machine nor on other texts.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..kernels.byte_tile import WIDE, byte_max, byte_rows
from ..kernels.jit import helper, kernel
from ..kernels.nearest import LEAST, ROOM, bound_of_maxima, key_position, key_value, select_greatest
from ..kernels.rows import (
    empty_integers,
    fetch,
    load_rows,
    longest_text,
    norm_square,
    square_sum,
    sum_byte_rows,
)
from ..kernels.tile import LANES, ROWS

#: Cells that share one query token: 8 lose up to .005 of 10-recall@20 to 16, and all of
#: them gain nothing.
NEAREST = 16

#: A query token whose nearest landmark has a lower cosine has most of its weight in no
#: cell, so the moments decide.  This raises the recall of documents unlike the sample,
#: which `python -m experiments vectors drift` measures.  With larger values, documents
#: of the sample's kind begin to lose.
ELSEWHERE = 0.7

# Tokens whose largest entry is below this number count as zero: its inverse overflows.
_TINY = 1e-36

# The logarithm of 2, and the Taylor series of 2**x up to x**8: for |x| <= 1/2, its
# relative error is below 1e-9.
_LOG2 = math.log(2.0)
_SERIES = tuple(_LOG2**i / math.factorial(i) for i in range(9))


class ByteColumns(NamedTuple):
    """Vectors as columns of bytes, and the center that is subtracted from tokens.

    Parameters
    ----------
    center : numpy.ndarray
        float32 (width,), subtracted from tokens.
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


class Directions(NamedTuple):
    """Directions as columns of bytes in one unit, and the center that they start from.

    Their products with a token rounded to bytes are integers with the order of the
    cosines.

    Parameters
    ----------
    center : numpy.ndarray
        float32 (width,), subtracted from tokens.
    packed : numpy.ndarray
        int8, flat, see :func:`muvera.kernels.byte_tile.pack_bytes`.
    sums : numpy.ndarray
        int32, 128 times the sum of each column's bytes, then 2**31 - 1 up to a multiple
        of :data:`muvera.kernels.nearest.CHUNK`: columns that are not there come last.
    size : int
        n, the number of directions.
    unit : float
        The unit of all bytes.
    """

    center: NDArray[np.float32]
    packed: NDArray[np.int8]
    sums: NDArray[np.int32]
    size: int
    unit: float


@helper
def _round_floats(rows, first, last, out):
    """Write ``rows[first:last]`` in 127ths of the largest entry; return the unit."""
    # Bit patterns of positive floats have the order of the floats; this loop is
    # vectorized.
    row = rows[first:last]
    bits, peak_bits = row.view(np.int32), np.int32(0)
    for j in range(row.shape[0]):
        peak_bits = max(peak_bits, bits[j] & np.int32(0x7FFFFFFF))
    peak = np.int32(peak_bits).view(np.float32)
    per_unit = np.float32(127.0) / peak if peak > _TINY else np.float32(0.0)
    numbers = out[first:last]
    for j in range(row.shape[0]):
        numbers[j] = np.uint8(np.int32(row[j] * per_unit + np.float32(128.5)))
    return peak / np.float32(127.0)


@kernel
def largest_products(tokens, first, last, columns, out):
    """Write the largest product of each document with each column: 0 without tokens.

    Tokens minus the center are rounded to 127ths of their document's largest entry.
    `out` is float32 (last - first, n).
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
            best[:] = LEAST
            for row in range(0, size, ROWS):
                byte_max(numbers, row, size - 1, width, columns.packed, panel, best)
            column = panel * LANES
            for j in range(min(WIDE * LANES, count - column)):
                exact = np.float32(best[j] - columns.sums[column + j])
                values[column + j] = unit * columns.units[column + j] * exact


@kernel
def center_rows(rows, count, weight):
    """Subtract the mean of each row's first `count` entries, and multiply by `weight`.

    A document that is similar to everything would otherwise have large values in all
    cells, which no document of the sample had.  `rows`, float32 (n, at least `count`),
    are changed in place.
    """
    for i in range(rows.shape[0]):
        row = rows[i, :count]
        total = 0.0
        for value in row:
            total += np.float64(value)
        mean = np.float32(total / max(count, 1))
        for j in range(count):
            row[j] = (row[j] - mean) * weight


class CellMap(NamedTuple):
    """The rows of a query's map that belong to landmark cells.

    Parameters
    ----------
    rows : numpy.ndarray
        int8 (n, D), a row for each landmark cell.
    scales : numpy.ndarray
        float32 (D,), the unit of each column.
    sums : numpy.ndarray
        float32 (D,), the sum of each column's bytes.
    """

    rows: NDArray[np.int8]
    scales: NDArray[np.float32]
    sums: NDArray[np.float32]


@helper
def _round_directions(tokens, start, stop, center, rounded, lengths, units):
    """Write the directions of tokens minus `center` in bytes, as `_round_floats`.

    The length of each token goes to `lengths`, and the unit of its bytes, divided by
    its distance from the center, to `units`.

    The length is a sum in float64, whose order does not matter to the float32 that
    scales the token.  So programs in other languages round to the same bytes.
    """
    depth = max(tokens.floats.shape[1], tokens.halves.shape[1])
    width = center.shape[0]
    rows = np.empty((stop - start) * width + LANES, np.float32)
    load_rows(tokens.floats, tokens.halves, start, stop, depth, width, np.zeros(width, np.float32), rows)
    sums = np.empty(8, np.float64)
    for t in range(stop - start):
        row = rows[t * width : (t + 1) * width]
        lengths[t] = math.sqrt(norm_square(row, sums))
        inverse = np.float32(1.0 / max(lengths[t], _TINY))
        for j in range(width):
            row[j] = row[j] * inverse - center[j]
        distance = math.sqrt(square_sum(rows, t * width, width))
        unit = np.float64(_round_floats(rows, t * width, (t + 1) * width, rounded))
        units[t] = unit / distance if distance > 0 else 0.0


@helper
def _power_of_two(x):
    """Return 2**x for x from -1,000 to 1,000, from sums and products of fixed order."""
    x = min(max(x, -1000.0), 1000.0)
    whole = np.floor(x + 0.5)
    rest = x - whole
    power = _SERIES[8]
    for i in range(7, -1, -1):
        power = power * rest + _SERIES[i]
    return power * np.int64((np.int64(whole) + 1023) << 52).view(np.float64)


@helper
def _write_weights(keys, length, steepness, elsewhere, weights):
    """Write the weights of the cells of descending `keys`, whose sum is below `length`.

    They fall by half if an integer falls by ``1 / steepness``.  The rest of `length`
    belongs to no cell; it weighs as much as an integer of ``elsewhere / steepness``.
    """
    powers = np.empty(weights.shape[0], np.float64)
    first = key_value(keys[0])
    for j in range(weights.shape[0]):
        powers[j] = _power_of_two(steepness * np.float64(key_value(keys[j]) - first))
    total = _power_of_two(elsewhere - steepness * np.float64(first))
    for j in range(weights.shape[0]):
        total += powers[j]
    for j in range(weights.shape[0]):
        weights[j] = np.float32(powers[j] * (length / total))


@helper
def nearest_cells(tokens, start, stop, landmarks, sharpness, ahead, numbers, weights):
    """Write the nearest landmarks of tokens start..stop, and their cells' weights.

    The weights of token q are ``|q| exp(b cos(q / |q| - c, l - c)) / t`` for its
    nearest landmarks l, with the center c and the sharpness b.  t is the sum of these
    powers plus ``exp(b ELSEWHERE)``.  All cosines are computed from products of bytes,
    and of equal products, the first ones are nearest.

    The tokens are of one query, and `landmarks` are ``(l - c) / |l - c|``.  `numbers`,
    int64 (stop - start, k), receives the k nearest landmarks, nearest first, and
    `weights`, float32 (stop - start, k), their weights.  The rows of `ahead`, int8 (n,
    any width), with the numbers of the nearest landmarks are prefetched.
    """
    size, kept = numbers.shape
    width, stride = landmarks.center.shape[0], landmarks.sums.shape[0]
    panels = landmarks.packed.shape[0] // (width * LANES)
    rounded = np.empty(size * width, np.uint8)
    lengths, units = np.empty(size, np.float64), np.empty(size, np.float64)
    _round_directions(tokens, start, stop, landmarks.center, rounded, lengths, units)
    read, lanes = ahead.reshape(-1), WIDE * LANES
    products, maxima = empty_integers(ROWS * stride), empty_integers(ROWS * lanes)
    for i in range(ROWS):
        products[i * stride + panels * LANES : (i + 1) * stride] = LEAST
    keys, best = np.empty(ROOM, np.int64), np.empty(kept, np.int64)
    per_unit, elsewhere = sharpness * landmarks.unit / _LOG2, sharpness * ELSEWHERE / _LOG2
    for row in range(0, size, ROWS):
        maxima[:] = LEAST
        for panel in range(0, panels, WIDE):
            byte_rows(
                rounded, row, size - 1, width, landmarks.packed, panel, landmarks.sums,
                products, stride, maxima,
            )  # fmt: skip
        for i in range(min(ROWS, size - row)):
            t = row + i
            bound = bound_of_maxima(maxima, i * lanes, kept)
            select_greatest(products, i * stride, (i + 1) * stride, bound, keys, best)
            for j in range(kept):
                number = key_position(keys[j])
                numbers[t, j] = number
                fetch(read, number * ahead.shape[1], (number + 1) * ahead.shape[1])
            _write_weights(keys, lengths[t], per_unit * units[t], elsewhere, weights[t])


@helper
def _sum_cells(numbers, weights, cells, touched, shares):
    """Write the numbers of the cells with a weight, and their sums of weights.

    `cells`, float32 (n,), is zero before and after.  Return the number of such cells.
    """
    count = np.int64(0)
    for t in range(numbers.shape[0]):
        for i in range(numbers.shape[1]):
            number, weight = numbers[t, i], weights[t, i]
            if cells[number] == 0 and weight > 0:
                touched[count] = number
                count += 1
            cells[number] += weight
    for i in range(count):
        shares[i] = cells[touched[i]]
        cells[touched[i]] = 0.0
    return count


@kernel
def landmark_queries(tokens, first, last, landmarks, sharpness, out):
    """Write the sums of the weights of each query's tokens in each cell.

    See :func:`nearest_cells`.  `out` is float32 (last - first, at least n).
    """
    kept, no_rows = min(NEAREST, landmarks.size), np.empty((landmarks.size, 0), np.int8)
    for query in range(first, last):
        start, stop = tokens.offsets[query], tokens.offsets[query + 1]
        cells = out[query - first, : landmarks.size]
        cells[:] = 0.0
        numbers = np.empty((stop - start, kept), np.int64)
        weights = np.empty((stop - start, kept), np.float32)
        nearest_cells(tokens, start, stop, landmarks, sharpness, no_rows, numbers, weights)
        for t in range(stop - start):
            for i in range(kept):
                cells[numbers[t, i]] += weights[t, i]


@helper
def _sum_rows(rows, numbers, shares, count, total):
    """Write the sum of `count` rows of bytes, each times its share, to `total` (D,)."""
    width = rows.shape[1]
    whole = width // LANES * LANES
    sum_byte_rows(rows.reshape(-1), width, numbers, shares, count, whole, total)
    for j in range(whole, width):
        total[j] = 0.0
        for i in range(count):
            total[j] += shares[i] * np.float32(rows[numbers[i], j])


@helper
def project_landmark_queries(tokens, first, last, landmarks, sharpness, cell_map, out):
    """Add the product of :func:`landmark_queries`, minus each row's mean, with a map.

    Only the rows of the nearest landmarks are read, up to 16 for a token.  `out` is
    float32 (last - first, D).
    """
    kept = min(NEAREST, landmarks.size)
    cells, total = np.zeros(landmarks.size, np.float32), np.empty(out.shape[1], np.float32)
    for query in range(first, last):
        start, stop = tokens.offsets[query], tokens.offsets[query + 1]
        numbers = np.empty((stop - start, kept), np.int64)
        weights = np.empty((stop - start, kept), np.float32)
        nearest_cells(tokens, start, stop, landmarks, sharpness, cell_map.rows, numbers, weights)
        touched = np.empty(numbers.size, np.int64)
        shares = np.empty(numbers.size, np.float32)
        count = _sum_cells(numbers, weights, cells, touched, shares)
        _sum_rows(cell_map.rows, touched, shares, count, total)
        mean = 0.0
        for i in range(count):
            mean += np.float64(shares[i])
        mean /= max(landmarks.size, 1)
        target = out[query - first]
        for j in range(target.shape[0]):
            target[j] += cell_map.scales[j] * (total[j] - np.float32(mean) * cell_map.sums[j])
