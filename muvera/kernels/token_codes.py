"""Token codes: bytes that stand for a token vector, written and unpacked to rows of bytes for the byte tile.

A code is a row of bytes: the number of the token's centroid (``id_bytes``, little-endian, may be 0), the
token's factor (float16, 2 bytes), and packed residuals.  The bits of a coordinate run from the lowest to
the highest, coordinates one after the other, and the first bit of a byte is its highest, as in PLAID
indexes.  A byte therefore stands for ``keys = 8 / bits`` coordinates.

Sizes: ``n`` tokens, ``width`` bytes a code, ``depth`` bytes of an unpacked row.  An entry of an unpacked
row is the centroid's byte plus that of the residual; both are made so that no sum passes 255, and so
``keys`` coordinates are added as one integer.

Half a byte, a *nibble*, of packed residuals of ``bits`` bits stands for ``4 / bits`` coordinates.  A shuffle
instruction looks up all nibbles of a vector in a table of 16 bytes at once; there is one table for each
coordinate of a nibble.  A processor without that instruction looks up whole bytes; both give the same bytes.
"""

from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .jit import INTERPRETED, helper, kernel
from .llvm_helpers import BYTE, constant, entry_address, load_vector, shuffle, store_vector
from .row_operations import half_at

#: Bytes of a factor.
FACTOR_BYTES = 2

# Entries among which the one is chosen that says how far a row was stretched.
_PROBED = 16

#: Coordinates that are unpacked together.
CHUNK = 64

_FEATURES = binding.get_host_cpu_features()

#: Bytes of a shuffle, by name; without any, whole bytes are looked up.
SHUFFLES = {
    name: size
    for name, size, feature in (("avx2", 32, "avx2"), ("avx512", 64, "avx512bw"))
    if _FEATURES.get(feature, False)
}

#: Whether nibbles can be unpacked.
HAS_SHUFFLES = INTERPRETED or bool(SHUFFLES)

_INSTRUCTIONS = {32: "llvm.x86.avx2.pshuf.b", 64: "llvm.x86.avx512.pshuf.b.512"}


def _look_up(builder: Any, size: int, table: Any, positions: Any) -> Any:
    """Emit the entries of `table`, a vector of 16 bytes, at CHUNK positions, `size` at a time."""
    vector = ir.VectorType(BYTE, size)
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(vector, [vector] * 2), _INSTRUCTIONS[size]
    )
    tables = shuffle(builder, table, table, [i % 16 for i in range(size)])
    parts = [
        builder.call(
            function, [tables, shuffle(builder, positions, positions, list(range(start, start + size)))]
        )
        for start in range(0, CHUNK, size)
    ]
    return parts[0] if len(parts) == 1 else shuffle(builder, parts[0], parts[1], list(range(CHUNK)))


def _compiled_unpack(bits: int, size: int) -> Any:
    per_nibble = 4 // bits
    width = CHUNK * bits // 8

    @intrinsic
    def compiled(typingctx, codes, start, centers, center, tables, out, position):
        word = types.intp
        signature = types.void(codes, word, centers, word, tables, out, word)

        def generate(context, builder, signature, args):
            kinds = signature.args

            def address(which: int, index: Any) -> Any:
                return entry_address(context, builder, kinds[which], args[which], index)

            packed = load_vector(builder, address(0, args[1]), ir.VectorType(BYTE, width), align=1)
            high = builder.lshr(packed, constant(packed.type, 4))
            low = builder.and_(packed, constant(packed.type, 15))
            order = [i + half * width for i in range(width) for half in range(2) for _ in range(per_nibble)]
            nibbles = shuffle(builder, high, low, order)
            found = None
            for i in range(per_nibble):
                table = load_vector(
                    builder,
                    address(4, ir.Constant(args[1].type, 16 * i)),
                    ir.VectorType(BYTE, 16),
                    align=1,
                )
                entries = _look_up(builder, size, table, nibbles)
                if found is None:
                    found = entries
                else:
                    picked = [j + CHUNK * (j % per_nibble == i) for j in range(CHUNK)]
                    found = shuffle(builder, found, entries, picked)
            base = load_vector(builder, address(2, args[3]), ir.VectorType(BYTE, CHUNK), align=1)
            store_vector(builder, builder.add(found, base), address(5, args[6]), align=1)
            return context.get_dummy_value()

        return signature, generate

    return compiled


def _interpreted_unpack(bits: int) -> Any:
    per_nibble = 4 // bits

    def interpreted(codes, start, centers, center, tables, out, position):
        packed = codes[start : start + CHUNK * bits // 8]
        nibbles = np.stack([packed >> 4, packed & 15], axis=1).reshape(-1)
        entries = tables.reshape(per_nibble, 16)[:, nibbles].T.reshape(-1)
        out[position : position + CHUNK] = centers[center : center + CHUNK] + entries

    return interpreted


def make_unpack(bits: int, shuffles: str) -> Any:
    """Return what unpacks CHUNK coordinates, made of one of the SHUFFLES.

    It adds ``centers[center:]`` to what ``tables``, 16 bytes for each coordinate of a nibble, have for the
    bits from ``codes[start]`` on, and writes the sums to ``out[position:]``; all are flat bytes.
    """
    return _interpreted_unpack(bits) if INTERPRETED else _compiled_unpack(bits, SHUFFLES[shuffles])


_BEST = list(SHUFFLES)[-1] if SHUFFLES else ""


@intrinsic
def _compiled_never(typingctx, codes, start, centers, center, tables, out, position):
    word = types.intp
    signature = types.void(codes, word, centers, word, tables, out, word)

    def generate(context, builder, signature, args):
        return context.get_dummy_value()

    return signature, generate


def _unpack(bits: int) -> Any:
    if HAS_SHUFFLES:
        return make_unpack(bits, _BEST)
    return _compiled_never


unpack_1, unpack_2, unpack_4 = _unpack(1), _unpack(2), _unpack(4)


@helper
def _find_buckets(row, stretch, center, inverse_scales, thresholds, values, buckets):
    """Write the number of `thresholds` below each scaled residual of the stretched `row` to `buckets`."""
    for j in range(row.shape[0]):
        values[j] = (row[j] * stretch - center[j]) * inverse_scales[j]
    buckets[:] = 0
    for threshold in thresholds:
        for j in range(row.shape[0]):
            buckets[j] += np.uint8(values[j] > threshold)


@helper
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


@helper
def _write_numbers(codes, first, last, width, id_bytes, most, numbers):
    """Write the centroids' numbers of the codes first..last, of which none is above `most`.

    All at once: a call for each token would take as long as unpacking it.
    """
    for token in range(first, last):
        number = np.int64(codes[token * width])
        for i in range(1, id_bytes):
            number |= np.int64(codes[token * width + i]) << (8 * i)
        numbers[token - first] = min(number, most)


@helper
def write_factors(codes, first, last, width, start, factors):
    """Write the factors, `start` bytes behind the beginning of each code, of the codes first..last."""
    for token in range(first, last):
        factors[token - first] = half_at(codes, token * width + start)


@helper
def unpack_residuals(
    codes, first, last, width, id_bytes, centers, table, nibbles, words, numbers, out, factors
):  # fmt: skip
    """Write the codes first..last of `codes` (flat) to `out` as rows of `words` integers, and their factors.

    Their centroids' numbers are written to `numbers` on the way.

    `table` holds the integer of each byte, `centers` (flat) `words` integers of each centroid; the type of
    all three is as wide as the coordinates that a byte stands for.  `nibbles`, which may be empty, holds the
    same for half bytes, see :mod:`muvera.kernels.token_codes`.  A row may have more integers than a code has
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


@helper
def copy_bytes(codes, first, last, width, dimension, depth, out, factors):
    """Write the codes first..last of `codes` (flat), a factor and a byte a coordinate, to `out` as rows."""
    write_factors(codes, first, last, width, 0, factors)
    for token in range(first, last):
        start = token * width + FACTOR_BYTES
        for i in range(dimension):
            out[(token - first) * depth + i] = codes[start + i]
