"""Norms of token vectors, scaling to unit length, and the search for numbers that are not finite.

A sum of squares is computed as eight float64 sums, each over every eighth column, which are added in a fixed order.
So it is the same on every machine, and the additions do not wait for each other.
"""

import numpy as np

from .jit import helper, kernel


@helper
def _square_sum(row, sums):
    """Return the sum of squares of `row`, float32 (depth,); `sums` is room for eight sums."""
    sums[:] = 0.0
    depth = len(row)
    whole = depth // 8 * 8
    for k in range(0, whole, 8):
        for j in range(8):
            sums[j] += np.float64(row[k + j]) * np.float64(row[k + j])
    total = ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]))
    for k in range(whole, depth):
        total += np.float64(row[k]) * np.float64(row[k])
    return total


@kernel
def measure_rows(tokens, totals):
    """Add the rows of `tokens` to the running `totals`, a float64 array of six.

    These are: the number of rows that are not zero; the sum, minimum and maximum of their norms; the largest
    distance of a norm from 1; and the number of rows that are zero.  The sum runs from row to row, so that it
    does not depend on the division into batches.
    """
    sums = np.empty(8, np.float64)
    for i in range(tokens.shape[0]):
        square = _square_sum(tokens[i], sums)
        if square == 0.0:
            totals[5] += 1.0
            continue
        norm = np.sqrt(square)
        totals[0] += 1.0
        totals[1] += norm
        totals[2] = min(totals[2], norm)
        totals[3] = max(totals[3], norm)
        totals[4] = max(totals[4], abs(norm - 1.0))


@kernel
def unit_rows(tokens):
    """Divide each row by its norm in place; return the first row that is zero, or -1."""
    zero = -1
    sums = np.empty(8, np.float64)
    for i in range(tokens.shape[0]):
        row = tokens[i]
        square = _square_sum(row, sums)
        if square == 0.0:
            if zero < 0:
                zero = i
            continue
        factor = 1.0 / np.sqrt(square)
        for k in range(len(row)):
            row[k] = np.float32(row[k] * factor)
    return zero


@kernel
def first_beyond(bits, magnitude, limit):
    """Return the flat position of the first number of at least `limit`, an infinity or a NaN, or -1.

    `bits` are the floats' bit patterns as unsigned integers, `magnitude` the mask of all bits but
    the sign, and `limit` the bit pattern of the smallest number that is too large.  Patterns
    have the order of the numbers, with infinities and NaN at the end.  Whole blocks are tested with one
    accumulated flag, which vectorizes, and only a block that fails is searched.
    """
    block = 4096
    for start in range(0, bits.shape[0], block):
        stop = min(start + block, bits.shape[0])
        bad = np.uint8(0)
        for i in range(start, stop):
            bad |= np.uint8((bits[i] & magnitude) >= limit)
        if bad:
            for i in range(start, stop):
                if (bits[i] & magnitude) >= limit:
                    return i
    return -1
