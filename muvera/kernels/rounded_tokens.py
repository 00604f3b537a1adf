"""Estimates of Chamfer similarities from float tokens, which are rounded when read.

Products of bytes take a quarter of the time of products of floats.  An entry of a
document becomes its number of 127ths of the document's largest entry, plus 128.  Sizes
and documents are those of :mod:`muvera.kernels.chamfer`, the query is a
:class:`muvera.kernels.token_codes.CodeQuery`.
"""

from functools import lru_cache

import numpy as np
from llvmlite import ir
from numba import types

from .byte_tile import STEP, WIDE, byte_max_ahead
from .jit import (
    BYTE,
    FLOAT,
    INT32,
    Intrinsic,
    broadcast,
    constant,
    each_vector,
    emitted,
    helper,
    kernel,
    load_vector,
    new_sums,
    shuffle,
    store_vector,
)
from .rows import HAS_HALVES, half_at, widen
from .selection import STOPPED, enough, enter
from .tile import LANES, ROWS
from .token_codes import CodeQuery, QueryRounding, round_query

# Tokens that are rounded together: a multiple of ROWS whose bytes fit into the
# first-level cache.
_ROUNDED = 64

# Documents are rounded to zero if no entry is larger: its inverse would overflow.
_LEAST_PEAK = 1e-36

# Less than any sum of bytes.
_LEAST = -(2**31)

_VECTOR = ir.VectorType(FLOAT, LANES)
_INTEGERS = ir.VectorType(INT32, LANES)
_WORDS = ir.VectorType(ir.IntType(16), LANES)
_BYTES = ir.VectorType(BYTE, LANES)


@lru_cache(maxsize=16)
def _plain_rounding(depth: int) -> QueryRounding:
    """Return the rounding that leaves tokens as they are."""
    rounding = QueryRounding(np.ones(depth, np.float32), np.zeros(depth, np.float32), False, 128.0)
    # As the arrays of codecs: `round_query` is compiled once for each kind of array.
    rounding.scales.flags.writeable = False
    rounding.shift.flags.writeable = False
    return rounding


def plain_query(tokens: np.ndarray) -> CodeQuery:
    """Return the tokens of a query, float32 (m, d), for :func:`score_rounded`."""
    count, depth = tokens.shape
    rows, columns = -(-depth // STEP) * STEP, -(-count // (WIDE * LANES)) * WIDE * LANES
    query = CodeQuery(
        np.zeros(rows * columns, np.int8), np.zeros(columns, np.float32),
        np.empty(count, np.float32), np.empty(count, np.float32),
    )  # fmt: skip
    round_query(np.ascontiguousarray(tokens), _plain_rounding(depth), np.float32(1), query)
    return query


def _make_largest(bits: int) -> Intrinsic:
    """Return the intrinsic that finds the largest float, without its sign.

    It takes ``array[position : position + count]``, floats of `bits` bits, and returns
    a bit pattern.  Bit patterns of positive floats have the order of the floats.
    """
    vector = ir.VectorType(ir.IntType(bits), 32 * LANES // bits)
    lanes, mask = vector.count, (1 << (bits - 1)) - 1

    def largest(builder, array, position, count):
        start, best = builder.gep(array, [position]), new_sums(builder, vector, 1)[0]
        with each_vector(builder, count, lanes) as offset:
            place = builder.gep(start, [offset])
            value = builder.and_(load_vector(builder, place, vector, align=bits // 8), constant(vector, mask))
            so_far = builder.load(best)
            builder.store(builder.select(builder.icmp_signed(">", value, so_far), value, so_far), best)
        value, half = builder.load(best), lanes // 2
        while half:
            other = shuffle(builder, value, value, [(j + half) % lanes for j in range(lanes)])
            value = builder.select(builder.icmp_signed(">", other, value), other, value)
            half //= 2
        return builder.zext(builder.extract_element(value, ir.Constant(INT32, 0)), ir.IntType(64))

    return emitted(largest, types.intp)


_largest_float, _largest_half = _make_largest(32), _make_largest(16)


def _make_round(halves: bool) -> Intrinsic:
    """Return the intrinsic that rounds floats, or bit patterns of float16, to bytes.

    It writes ``source[position : position + count] * per_unit + 128`` to `out`.
    """

    @emitted
    def to_bytes(builder, source, position, count, per_unit, out, start):
        begin, target = builder.gep(source, [position]), builder.gep(out, [start])
        factor = broadcast(builder, per_unit, LANES)
        with each_vector(builder, count, LANES) as offset:
            place = builder.gep(begin, [offset])
            if halves:
                value = widen(builder, load_vector(builder, place, _WORDS, align=2), HAS_HALVES)
            else:
                value = load_vector(builder, place, _VECTOR)
            value = builder.fadd(builder.fmul(value, factor), constant(_VECTOR, 128.5))
            number = builder.trunc(builder.fptosi(value, _INTEGERS), _BYTES)
            store_vector(builder, number, builder.gep(target, [offset]), align=1)

    return to_bytes


_round_floats, _round_halves = _make_round(False), _make_round(True)


@helper
def _float_at(floats, halves, position):
    """Return entry `position` of the flat tokens."""
    if halves.shape[0] > 0:
        return half_at(halves[position : position + 1].view(np.uint8), 0)
    return floats[position]


@helper
def _peak(floats, halves, start, stop):
    """Return the largest absolute value of the entries start..stop of flat tokens."""
    if halves.shape[0] > 0:
        step, bits = 2 * LANES, np.array([_largest_half(halves, start, stop - start)], np.uint16)
        peak = half_at(bits.view(np.uint8), 0)
    else:
        step, peak = LANES, np.int32(_largest_float(floats, start, stop - start)).view(np.float32)
    for i in range(stop - (stop - start) % step, stop):
        peak = max(peak, abs(_float_at(floats, halves, i)))
    return peak


@helper
def _round_rows(floats, halves, first, last, depth, per_unit, rows, stride):
    """Write the tokens first..last as bytes to `rows`, `stride` bytes each."""
    whole = depth // LANES * LANES
    for i in range(last - first):
        begin, target = (first + i) * depth, i * stride
        if halves.shape[0] > 0:
            _round_halves(halves, begin, whole, per_unit, rows, target)
        else:
            _round_floats(floats, begin, whole, per_unit, rows, target)
        for j in range(whole, depth):
            value = _float_at(floats, halves, begin + j) * per_unit + np.float32(128.5)
            rows[target + j] = np.uint8(np.int32(value))


@kernel
def score_rounded(floats, halves, offsets, documents, query, ends, stop_at, heap, out):
    """Write estimates of the Chamfer similarities of documents with some queries.

    `query` is :func:`plain_query` of the tokens of all queries, one query after
    another, and `ends`, int64 (q,), has the number of tokens up to the end of each
    query.  `documents`, int64 (n,), `stop_at` and `heap` are those of
    :func:`muvera.kernels.token_codes.score_codes`; only one query can stop.  Write to
    `out`, float32 (q, n).
    """
    packed, biases, units = query.packed, query.biases, query.units
    depth, stride = max(floats.shape[1], halves.shape[1]), packed.shape[0] // biases.shape[0]
    flat, bits = floats.reshape(-1), halves.reshape(-1)
    rows = np.zeros(_ROUNDED * stride, np.uint8)
    best = np.empty(biases.shape[0], np.int32)
    # A tile prefetches as many rows as it has.  Of 8 float32 rows, every second cache
    # line is prefetched: the processor reads lines in pairs.
    entry_bytes = 2 if bits.shape[0] > 0 else 4
    base = np.int64(bits.ctypes.data) if bits.shape[0] > 0 else np.int64(flat.ctypes.data)
    pace = STEP * ROWS * entry_bytes
    stopping = stop_at.products.shape[0] > 0
    out[:] = -np.inf
    if stopping and stop_at.state[STOPPED] > 0:
        return
    for i in range(documents.shape[0]):
        start, stop = offsets[documents[i]], offsets[documents[i] + 1]
        if start == stop:
            continue
        following = documents[min(i + 1, documents.shape[0] - 1)]
        ahead = base + offsets[following] * depth * entry_bytes
        end = max(ahead, base + offsets[following + 1] * depth * entry_bytes - 1)
        peak = _peak(flat, bits, start * depth, stop * depth)
        per_unit = np.float32(127.0) / peak if peak > _LEAST_PEAK else np.float32(0.0)
        best[:] = _LEAST
        for first in range(start, stop, _ROUNDED):
            last = min(first + _ROUNDED, stop)
            _round_rows(flat, bits, first, last, depth, per_unit, rows, stride)
            for panel in range(0, biases.shape[0] // LANES, WIDE):
                maxima = best[panel * LANES :]
                for row in range(0, last - first, ROWS):
                    byte_max_ahead(
                        rows, row, last - first - 1, stride, packed, panel, maxima, ahead,
                        pace if panel == 0 else 0, end,
                    )  # fmt: skip
                    if panel == 0:
                        ahead = min(ahead + ROWS * depth * entry_bytes, end)
        token = 0
        for number in range(ends.shape[0]):
            total = 0.0
            while token < ends[number]:
                total += np.float64(units[token]) * (np.float64(best[token]) - np.float64(biases[token]))
                token += 1
            out[number, i] = total * np.float64(peak / np.float32(127.0))
        if stopping:
            score = out[0, i]
            if score > heap[0]:
                enter(heap, score)
            if enough(score, stop_at.products, heap, stop_at.state):
                return
