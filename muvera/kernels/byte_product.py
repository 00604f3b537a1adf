"""Products of rows rounded to bytes, bit-identical on every machine.

The other factor is a map or vectors in bytes.  Rows are rounded to one byte or to two.
See :mod:`muvera.kernels.byte_tile` for the sums and the sizes.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .byte_tile import STEP, STRIP, VECTORS, WIDE, byte_dots, byte_strip, byte_tile, half_byte_strip
from .jit import helper, kernel
from .rows import inner_products_at
from .tile import LANES, ROWS


@kernel
def split_to_bytes(block, out, units):
    """Write each row of `block` (b, n) as two rows of bytes.

    They go to `out` (2 b, depth): the high and the low bytes of 16 bits.  Row i is
    ``units[i] * (256 * (high - 128) + low)``, up to half a unit: the largest entry
    becomes 32,767.
    """
    for i in range(block.shape[0]):
        row, high, low = block[i], out[2 * i], out[2 * i + 1]
        # Bit patterns of positive floats have the order of the floats; this loop and
        # the next are vectorized.
        bits, peak_bits = row.view(np.int32), np.int32(0)
        for j in range(len(row)):
            peak_bits = max(peak_bits, bits[j] & np.int32(0x7FFFFFFF))
        peak = np.int32(peak_bits).view(np.float32)
        units[i] = peak / np.float32(32767)
        inverse = np.float32(32767) / peak if peak > 0 else np.float32(0)
        for j in range(len(row)):
            value = np.int32(np.rint(row[j] * inverse))
            high[j] = np.uint8((value >> 8) + 128)
            low[j] = np.uint8(value & 255)


@helper
def joined(high, low, column_sum, unit):
    """Return the product from the sums of a row's high and low bytes."""
    return unit * np.float32(256.0 * (high - column_sum) + low)


@helper
def _split(block, step):
    """Return the rows of :func:`split_to_bytes`, and their units.

    A row has a multiple of `step` bytes.
    """
    # Zeros in further columns add nothing to the sums.
    rows = np.zeros((2 * block.shape[0], (block.shape[1] + step - 1) // step * step), np.uint8)
    units = np.empty(block.shape[0], np.float32)
    split_to_bytes(block, rows, units)
    return rows, units


@kernel
def multiply_by_bytes(block, packed, column_sums, scales, out):
    """Write the product of `block` (b, n) with a map M to `out` (b, D), both float32.

    M is packed by :func:`pack_bytes`.  `column_sums` int32 (D,) is 128 times the sum of
    each column of M, `scales` float32 (D,) its unit.  Rows are rounded to 16 bits,
    whose halves are in one tile, so that M is read once.  No row's product depends on
    the other rows.
    """
    rows, units = _split(block, STEP)
    count, depth = rows.shape
    width = out.shape[1]
    panels = (width + LANES - 1) // LANES
    flat = rows.reshape(-1)
    sums = np.empty(ROWS * WIDE * LANES, np.int32)
    # A tile of many rows would repeat the rows of a single query.
    begun = panels // STRIP * STRIP if count == 2 else 0
    for panel in range(0, begun, STRIP):
        byte_strip(flat, 0, 1, depth, packed, panel, sums)
        _write_strip(sums, panel * LANES, column_sums, units[0], scales, out[0])
    for panel in range(begun, panels, WIDE):
        first = panel * LANES
        for row in range(0, count, ROWS):
            byte_tile(flat, row, count - 1, depth, packed, panel, sums)
            for i in range(0, min(ROWS, count - row), 2):
                high, low = sums[i * WIDE * LANES :], sums[(i + 1) * WIDE * LANES :]
                for j in range(min(WIDE * LANES, width - first)):
                    unit = units[(row + i) // 2] * scales[first + j]
                    out[(row + i) // 2, first + j] = joined(high[j], low[j], column_sums[first + j], unit)


@helper
def _write_strip(sums, first, column_sums, unit, scales, out):
    """Write the products of a strip from column `first` on."""
    for j in range(min(STRIP * LANES, out.shape[0] - first)):
        column = first + j
        out[column] = joined(sums[j], sums[STRIP * LANES + j], column_sums[column], unit * scales[column])


@kernel
def multiply_by_half_bytes(block, packed, column_sums, scales, out):
    """Write the product of :func:`multiply_by_bytes`, strip by strip.

    M is packed by :func:`pack_half_bytes`.
    """
    rows, units = _split(block, 2 * STEP)
    depth = rows.shape[1]
    flat = rows.reshape(-1)
    sums = np.empty(2 * STRIP * LANES, np.int32)
    for first in range(0, out.shape[1], STRIP * LANES):
        for row in range(out.shape[0]):
            half_byte_strip(flat, 2 * row, 2 * row + 1, depth, packed, first // LANES, sums)
            _write_strip(sums, first, column_sums, units[row], scales, out[row])


@kernel
def round_rows(vectors, slack, numbers, sums, units, errors):
    """Round each row of `vectors` (n, d) to signed bytes in `numbers` (n, depth).

    A byte is a 127th of the row's largest entry.  `sums` int32 (n,) receives 128 times
    the sum of a row's bytes, `units` float32 (n,) its unit, and `errors` float32 (n,)
    the length of the rounding error plus `slack` times that of the row, rounded up.
    """
    tiny = np.finfo(np.float32).tiny
    for i in range(vectors.shape[0]):
        peak = np.float32(0)
        for j in range(vectors.shape[1]):
            peak = max(peak, abs(vectors[i, j]))
        unit = peak / np.float32(127)
        # A subnormal unit has no accurate inverse: such a vector is treated as zero.
        if unit < tiny:
            unit = np.float32(0)
        inverse = np.float32(1) / unit if unit > 0 else np.float32(0)
        total = np.int32(0)
        lost, square = 0.0, 0.0
        for j in range(vectors.shape[1]):
            value = vectors[i, j]
            number = min(max(np.int32(np.rint(value * inverse)), np.int32(-127)), np.int32(127))
            numbers[i, j] = number
            total += number
            lost += (value - np.float64(number) * unit) ** 2
            square += np.float64(value) ** 2
        sums[i] = 128 * total
        units[i] = unit
        # Below the normal numbers float32 has no relative precision.
        errors[i] = (np.sqrt(lost) + slack * np.sqrt(square)) * 1.000001 + tiny


@kernel
def multiply_rows(numbers, start, stop, sums, units, query_bytes, query_units, out):
    """Write the products of the vectors start..stop with all queries.

    They go to these columns of `out` (m, n), float32.  `numbers`, `sums` and `units`
    are those of :func:`round_rows`; `query_bytes` (2 m, depth) and `query_units` (m,)
    those of :func:`split_to_bytes`.  Depth is a multiple of SPAN.
    """
    depth = query_bytes.shape[1]
    flat, queries = numbers.reshape(-1), query_bytes.reshape(-1)
    dots = np.empty(2 * VECTORS, np.int32)
    for row in range(start, stop, VECTORS):
        for query in range(query_units.shape[0]):
            byte_dots(flat, row, stop - 1, depth, queries, query, dots)
            for i in range(min(VECTORS, stop - row)):
                out[query, row + i] = joined(
                    dots[i], dots[VECTORS + i], sums[row + i], query_units[query] * units[row + i]
                )


class Bounds(NamedTuple):
    """How far products with rounded vectors can be from the exact ones.

    The error of query q and column i is at most ``errors[i] * lengths[q] + least``.
    """

    #: Error of each column per length of the query, float32 (n,).
    errors: NDArray[np.float32]
    #: Length of each query, float32 (m,).  :func:`bound_products` writes it.
    lengths: NDArray[np.float32]
    #: Error that no length makes smaller, float32.
    least: np.float32


@kernel
def bound_products(products, limits, queries, bounds):
    """Write the length of each query, and lower bounds of its products.

    A row of `bounds` (m, groups) has the greatest lower bound of the products g, g +
    groups, ... for each group g.  `limits` are the :class:`Bounds` of `products` (m,
    n).
    """
    errors, lengths, least = limits.errors, limits.lengths, limits.least
    groups = bounds.shape[1]
    bounds[:] = -np.inf
    for q in range(products.shape[0]):
        square = 0.0
        for value in queries[q]:
            square += np.float64(value) * np.float64(value)
        lengths[q] = np.sqrt(square) * 1.000001
        own, length, best = products[q], lengths[q], bounds[q]
        for first in range(0, own.shape[0], groups):
            for g in range(min(groups, own.shape[0] - first)):
                bound = own[first + g] - (errors[first + g] * length + least)
                if best[g] < bound < np.inf:
                    best[g] = bound


@kernel
def multiply_possible(products, limits, queries, edges, vectors, rows, possible, exact, counts):
    """Write the vectors that can reach the query's edge, and their exact products.

    The edge is the query's entry of `edges`.  Column i of the products belongs to the
    vector ``rows[i]`` of `vectors`, or to vector i if `rows` is empty.  Rows go to
    `possible` (m, most), products to `exact` (m, most), and the numbers of rows to
    `counts` (m,); if one exceeds `most`, that query has no results.  Return the largest
    count.
    """
    errors, lengths, least = limits.errors, limits.lengths, limits.least
    for q in range(products.shape[0]):
        own, length, edge, found, count = products[q], lengths[q], edges[q], possible[q], 0
        for i in range(own.shape[0]):
            if not own[i] + (errors[i] * length + least) < edge:
                if count == found.shape[0]:
                    count += 1
                    break
                found[count] = rows[i] if rows.shape[0] > 0 else i
                count += 1
        counts[q] = count
        exact[q] = -np.inf
        if count <= found.shape[0]:
            inner_products_at(vectors, found[:count], queries[q], exact[q, :count])
    return counts.max()
