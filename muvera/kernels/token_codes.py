"""Token codes: bytes that stand for a token vector, written and unpacked to rows of bytes for the byte tile.

A code is a row of bytes: the number of the token's centroid (``id_bytes``, little-endian, may be 0), the
token's factor (float16, 2 bytes), and packed residuals.  The bits of a coordinate run from the lowest to
the highest, coordinates one after the other, and the first bit of a byte is its highest, as in PLAID
indexes.  A byte therefore stands for ``keys = 8 / bits`` coordinates.

Sizes: ``n`` tokens, ``width`` bytes a code, ``depth`` bytes of an unpacked row.  An entry of an unpacked
row is the centroid's byte plus that of the residual; both are made so that no sum passes 255, and so
``keys`` coordinates are added as one integer.
"""

import numpy as np

from .byte_shuffles import CHUNK, unpack_1, unpack_2, unpack_4
from .jit import kernel
from .row_operations import half_at

#: Bytes of a factor.
FACTOR_BYTES = 2

# Entries among which the one is chosen that says how far a row was stretched.
_PROBED = 16


@kernel
def _find_buckets(row, stretch, center, inverse_scales, thresholds, values, buckets):
    """Write the number of `thresholds` below each scaled residual of the stretched `row` to `buckets`."""
    for j in range(row.shape[0]):
        values[j] = (row[j] * stretch - center[j]) * inverse_scales[j]
    buckets[:] = 0
    for threshold in thresholds:
        for j in range(row.shape[0]):
            buckets[j] += np.uint8(values[j] > threshold)


@kernel
def _find_exact(row, center, inverse_scales, thresholds, levels, scales, tolerance, buckets):
    """Write the buckets that make the direction of `row` and return their norm; 0 where none do.

    How far the row was stretched is not known.  But each level is reached at the largest entry by one stretch
    alone, and the next entries refute the wrong ones.  Of several the farthest is taken.
    """
    dimension = row.shape[0]
    largest = 0
    for j in range(1, min(dimension, _PROBED)):
        if abs(row[j]) > abs(row[largest]):
            largest = j
    if row[largest] == 0:
        return 0.0
    for i in range(levels.shape[0]):
        level = levels[levels.shape[0] - 1 - i] if row[largest] > 0 else levels[i]
        stretch = np.float64(center[largest] + scales[largest] * level) / row[largest]
        if not stretch > 0:  # nor do the following ones
            break
        square = 0.0
        for j in range(dimension):
            value = np.float32((row[j] * stretch - center[j]) * inverse_scales[j])
            bucket, last = 0, thresholds.shape[0]
            while bucket < last:  # the number of thresholds below it, by halving
                middle = (bucket + last) >> 1
                if value > thresholds[middle]:
                    bucket = middle + 1
                else:
                    last = middle
            made = np.float64(center[j] + scales[j] * levels[bucket])
            if abs(made - row[j] * stretch) > tolerance * stretch:
                square = -1.0
                break
            buckets[j] = bucket
            square += made * made
        if square > 0:
            return np.sqrt(square)
    return 0.0


@kernel
def write_residuals(
    rows, centers, hints, numbers, inverse_scales, thresholds, levels, scales, bits, stretches, tolerance,
    packed, norms,
):  # fmt: skip
    """Write the residuals' bits of each row and the norm of what its code will stand for.

    Only the direction of that counts, since it gets the token's length again.  So the row is stretched by
    one of several factors, that of the smallest angle.  A row that a code of the hinted centroid stands for
    gets that code.

    Parameters
    ----------
    rows : float32 (n, d)
        Tokens.
    centers : float32 (K, d)
        Centroids.
    hints : int64 (n,)
        The centroid that each token was made with, if it was decoded.
    numbers : int64 (n,)
        The nearest centroid of each token, in whose place its hint is written where that one fits.
    inverse_scales, scales : float32 (d,)
        Inverse of each coordinate's scale, and the scale.
    thresholds : float32 (2 ** bits - 1,)
        Ascending: bucket i lies above i thresholds.
    levels : float32 (2 ** bits,)
        What each bucket stands for, in units of the scales.
    bits : int
    stretches : float32 (s,)
        Factors to try, the first of equals is taken.
    tolerance : float
        How far an entry of a row of length 1 may be from what its code stands for, if it was decoded.
    packed : uint8 (n, bytes)
        Receives the bits; zero before.
    norms : float64 (n,)
        Receives the norms.
    """
    count, dimension = rows.shape
    values, buckets = np.empty(dimension, np.float32), np.empty(dimension, np.uint8)
    chosen = np.empty(dimension, np.uint8)
    for t in range(count):
        norms[t] = _find_exact(
            rows[t], centers[hints[t]], inverse_scales, thresholds, levels, scales, tolerance, chosen
        )
        if norms[t] > 0:
            numbers[t] = hints[t]
        else:
            center = centers[numbers[t]]
            largest = -np.inf
            for stretch in stretches:
                _find_buckets(rows[t], stretch, center, inverse_scales, thresholds, values, buckets)
                square, inner = 0.0, 0.0
                for j in range(dimension):
                    value = np.float64(center[j] + scales[j] * levels[buckets[j]])
                    square += value * value
                    inner += value * rows[t, j]
                cosine = inner / np.sqrt(square) if square > 0 else 0.0
                if cosine > largest:
                    largest, norms[t] = cosine, np.sqrt(square)
                    chosen[:] = buckets
        place = 0
        for j in range(dimension):
            for bit in range(bits):
                if (chosen[j] >> bit) & 1:
                    packed[t, place >> 3] |= np.uint8(128 >> (place & 7))
                place += 1


@kernel
def _write_numbers(codes, first, last, width, id_bytes, most, numbers):
    """Write the centroids' numbers of the codes first..last, of which none is above `most`.

    All at once: a call for each token would take as long as unpacking it.
    """
    for token in range(first, last):
        number = np.int64(codes[token * width])
        for i in range(1, id_bytes):
            number |= np.int64(codes[token * width + i]) << (8 * i)
        numbers[token - first] = min(number, most)


@kernel
def write_factors(codes, first, last, width, start, factors):
    """Write the factors, `start` bytes behind the beginning of each code, of the codes first..last."""
    for token in range(first, last):
        factors[token - first] = half_at(codes, token * width + start)


@kernel
def unpack_residuals(
    codes, first, last, width, id_bytes, centers, table, nibbles, words, numbers, out, factors
):  # fmt: skip
    """Write the codes first..last of `codes` (flat) to `out` as rows of `words` integers, and their factors.

    Their centroids' numbers are written to `numbers` on the way.

    `table` holds the integer of each byte, `centers` (flat) `words` integers of each centroid; the type of
    all three is as wide as the coordinates that a byte stands for.  `nibbles`, which may be empty, holds the
    same for half bytes, see :mod:`muvera.kernels.byte_shuffles`.  A row may have more integers than a code has
    bytes of residuals; these are left as they are.  A number past the last centroid stands for the last.
    """
    residuals = id_bytes + FACTOR_BYTES
    count = width - residuals
    keys = table.itemsize
    whole = count * keys // CHUNK * CHUNK if nibbles.shape[0] > 0 else 0
    rows, center_bytes = out.view(np.uint8), centers.view(np.uint8)
    write_factors(codes, first, last, width, id_bytes, factors)
    _write_numbers(codes, first, last, width, id_bytes, centers.shape[0] // words - 1, numbers)
    # A loop for each number of bits: with the choice inside, the tables are loaded again for every chunk.
    if keys == 8:
        for token in range(first, last):
            start, row = token * width, (token - first) * words * 8
            center = numbers[token - first] * words * 8
            for i in range(0, whole, CHUNK):
                unpack_1(codes, start + residuals + i // 8, center_bytes, center + i, nibbles, rows, row + i)
    elif keys == 4:
        for token in range(first, last):
            start, row = token * width, (token - first) * words * 4
            center = numbers[token - first] * words * 4
            for i in range(0, whole, CHUNK):
                unpack_2(codes, start + residuals + i // 4, center_bytes, center + i, nibbles, rows, row + i)
    elif keys == 2:
        for token in range(first, last):
            start, row = token * width, (token - first) * words * 2
            center = numbers[token - first] * words * 2
            for i in range(0, whole, CHUNK):
                unpack_4(codes, start + residuals + i // 2, center_bytes, center + i, nibbles, rows, row + i)
    if whole < count * keys:
        for token in range(first, last):
            start, row = token * width, (token - first) * words
            center = numbers[token - first] * words
            for i in range(whole // keys, count):
                out[row + i] = centers[center + i] + table[codes[start + residuals + i]]


@kernel
def copy_bytes(codes, first, last, width, dimension, depth, out, factors):
    """Write the codes first..last of `codes` (flat), a factor and a byte a coordinate, to `out` as rows."""
    write_factors(codes, first, last, width, 0, factors)
    for token in range(first, last):
        start = token * width + FACTOR_BYTES
        for i in range(dimension):
            out[(token - first) * depth + i] = codes[start + i]
