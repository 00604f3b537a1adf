"""Token codes: write them, and unpack them to bytes for the byte tile.

A code is a row of bytes: the number of the token's centroid (``id_bytes``, little-endian, may be 0), the
token's factor (float16, 2 bytes), and packed residuals.  The bits of a coordinate run from the lowest to
the highest, coordinates one after the other, and the first bit of a byte is its highest, as in PLAID
indexes.  A byte therefore holds ``keys = 8 / bits`` coordinates.

An entry of an unpacked row is the centroid's byte plus that of the residual; no sum exceeds 255.  Rows of fewer than 8
bits per coordinate are unpacked in chunks of CHUNK coordinates.  Half a byte, a *nibble*, of packed residuals holds
``4 / bits`` coordinates.  A shuffle instruction looks up all nibbles of a vector in a table of 16 bytes at once; there
is one table for each coordinate of a nibble.
"""

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from .jit import helper, kernel
from .llvm_helpers import BYTE, FASTEST, constant, entry_address, load_vector, look_up, shuffle, store_vector
from .row_operations import half_at

#: Bytes of a factor.
FACTOR_BYTES = 2

#: Coordinates that are unpacked together.
CHUNK = 64


class CodeFormat(NamedTuple):
    """The layout of a codec's codes of `width` bytes, and the values that they encode, as floats and as bytes.

    With `bits`, a code is a centroid's number and packed residuals.  `centers` (flat) are in units of `scales`, and
    `levels` (flat) contains the levels of each byte's coordinates, see :func:`byte_table`.  `center_bytes` (flat) has
    a row of whole chunks for each centroid; `level_bytes` has the tables of a nibble, or of a byte for 8 bits.

    Without `bits`, a code has one byte per coordinate: 128 plus the number of steps from the only center.

    A code contains a factor, in multiples of `unit`.
    """

    width: int
    id_bytes: int
    bits: int
    unit: np.float32
    centers: NDArray[np.float32]
    levels: NDArray[np.float32]
    scales: NDArray[np.float32]
    center_bytes: NDArray[np.uint8]
    level_bytes: NDArray[np.uint8]


def _compiled_unpack(bits: int, shuffles: str) -> Any:
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
            residuals = None
            for i in range(per_nibble):
                place = address(4, ir.Constant(args[1].type, 16 * i))
                table = load_vector(builder, place, ir.VectorType(BYTE, 16), align=1)
                entries = look_up(builder, shuffles, table, nibbles)
                if residuals is None:
                    residuals = entries
                else:
                    lanes = [j + CHUNK * (j % per_nibble == i) for j in range(CHUNK)]
                    residuals = shuffle(builder, residuals, entries, lanes)
            base = load_vector(builder, address(2, args[3]), ir.VectorType(BYTE, CHUNK), align=1)
            store_vector(builder, builder.add(residuals, base), address(5, args[6]), align=1)
            return context.get_dummy_value()

        return signature, generate

    return compiled


def _plain_unpack(bits: int) -> Any:
    """Return a function like that of :func:`_compiled_unpack`, for processors without byte shuffles."""
    per_nibble = 4 // bits

    def plain(codes, start, centers, center, tables, out, position):
        for i in range(CHUNK):
            place = i // per_nibble
            nibble = codes[start + place // 2] >> (4 - 4 * (place % 2)) & 15
            out[position + i] = centers[center + i] + tables[16 * (i % per_nibble) + nibble]

    return helper(plain)


def make_unpack(bits: int, shuffles: str) -> Any:
    """Return the function that unpacks CHUNK coordinates by the instruction `shuffles`, of SHUFFLES or "plain".

    It looks up the bits from ``codes[start]`` on in ``tables``, 16 bytes for each coordinate of a nibble,
    adds ``centers[center:]``, and writes the sums to ``out[position:]``; all are flat bytes.
    """
    if shuffles == "plain":
        return _plain_unpack(bits)
    return _compiled_unpack(bits, shuffles)


def _unpack_rows(bits: int) -> Any:
    """Return a function that unpacks the residuals of `tokens` codes, `size` bytes each, to rows of `stride` bytes.

    `rest` is scratch memory for the bytes after the last whole chunk.
    """
    unpack, step = make_unpack(bits, FASTEST), CHUNK * bits // 8

    @helper
    def rows(codes, start, width, size, tokens, centers, tables, numbers, rest, stride, out):
        whole = size // step
        for token in range(tokens):
            place, center, row = start + token * width, numbers[token] * stride, token * stride
            for i in range(whole):
                chunk = i * CHUNK
                unpack(codes, place + i * step, centers, center + chunk, tables, out, row + chunk)
            if whole * step < size:
                for i in range(size - whole * step):
                    rest[i] = codes[place + whole * step + i]
                chunk = whole * CHUNK
                unpack(rest, 0, centers, center + chunk, tables, out, row + chunk)

    return rows


# One loop per number of bits: with the choice inside, the tables would be loaded for every chunk.
_rows_of_1, _rows_of_2, _rows_of_4 = _unpack_rows(1), _unpack_rows(2), _unpack_rows(4)


@helper
def _find_buckets(row, stretch, center, inverse_scales, thresholds, values, buckets):
    """Write the number of `thresholds` below each scaled residual of the stretched `row` to `buckets`."""
    for j in range(row.shape[0]):
        values[j] = (row[j] * stretch - center[j]) * inverse_scales[j]
    buckets[:] = 0
    for threshold in thresholds:
        for j in range(row.shape[0]):
            buckets[j] += np.uint8(values[j] > threshold)


@kernel
def write_residuals(
    rows, centers, numbers, inverse_scales, thresholds, levels, scales, bits, stretches, packed, norms
):  # fmt: skip
    """Write the residuals' bits of each row and the norm of the decoded vector.

    Only the direction of that vector matters, since its length is restored by the factor.  So the row is
    stretched by the one of the `stretches` with the smallest angle; of equals, by the first.

    `numbers`, int64 (n,), are the centroids of the `rows` (n, d) among the `centers` (K, d).  Bucket i of a coordinate
    lies above i thresholds, and the levels are in units of the coordinate's scale.  The bits in `packed`, uint8
    (n, bytes), are zero before.
    """
    count, dimension = rows.shape
    values, buckets = np.empty(dimension, np.float32), np.empty(dimension, np.uint8)
    chosen = np.empty(dimension, np.uint8)
    for t in range(count):
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
def write_numbers(codes, first, last, width, id_bytes, most, numbers):
    """Write the centroid numbers of the codes first..last, each limited to `most`."""
    for token in range(first, last):
        number = np.int64(codes[token * width])
        for i in range(1, id_bytes):
            number |= np.int64(codes[token * width + i]) << (8 * i)
        numbers[token - first] = min(number, most)


@helper
def write_factors(codes, first, last, width, start, factors):
    """Write the factors of the codes first..last, which begin `start` bytes after the start of each code."""
    for token in range(first, last):
        factors[token - first] = half_at(codes, token * width + start)


@helper
def unpack_residuals(
    codes, first, last, width, id_bytes, bits, centers, tables, numbers, rest, stride, out
):  # fmt: skip
    """Write the codes first..last of `codes` (flat) to `out` as rows of `stride` bytes, whole chunks.

    The centroids' numbers are written to `numbers`; a number past the last centroid counts as the last.  `centers` and
    `tables` are the bytes of a :class:`CodeFormat`; `rest`, uint8 (CHUNK / 2,), is scratch memory.
    """
    residuals, tokens = id_bytes + FACTOR_BYTES, last - first
    start, size = first * width + residuals, width - residuals
    write_numbers(codes, first, last, width, id_bytes, len(centers) // stride - 1, numbers)
    if bits == 1:
        _rows_of_1(codes, start, width, size, tokens, centers, tables, numbers, rest, stride, out)
    elif bits == 2:
        _rows_of_2(codes, start, width, size, tokens, centers, tables, numbers, rest, stride, out)
    elif bits == 4:
        _rows_of_4(codes, start, width, size, tokens, centers, tables, numbers, rest, stride, out)
    else:
        for token in range(tokens):
            place, center, row = start + token * width, numbers[token] * stride, token * stride
            for i in range(size):
                out[row + i] = centers[center + i] + tables[codes[place + i]]


def byte_table(weights: np.ndarray, nbits: int) -> np.ndarray:
    """Return the weights of the coordinates of each byte, lowest coordinate first.

    The weights are float32 (2 ** nbits,), the result is float32 (256, 8 // nbits).
    """
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
    buckets = (bits.reshape(256, 8 // nbits, nbits) << np.arange(nbits)).sum(2)
    return np.ascontiguousarray(weights[buckets], np.float32)
