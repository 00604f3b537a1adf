"""Select the greatest of a row of integers, of equal ones the first.

A bound that few integers reach comes from maxima over parts of the row.  Integers that
reach it become *keys*, int64 numbers that are all different: the greater key has the
greater integer or, of equal ones, the lower position.  Counting the greater keys gives
the place of a key without a branch.
"""

import numpy as np
from llvmlite import ir
from numba import types

from .byte_tile import WIDE
from .jit import INT32, broadcast, call, constant, emitted, helper, load_vector
from .tile import LANES

#: Integers that are compared with the bound at a time; a row has a multiple of them.
CHUNK = 64

#: Keys that fit into the scratch memory: at least CHUNK and the wanted ones.
ROOM = 2 * CHUNK

#: Smallest 32-bit integer.
LEAST = -(2**31)

_LOW = 2**31 - 1
_VECTOR = ir.VectorType(INT32, LANES)


def _reached(builder: ir.IRBuilder, row: ir.Value, position: ir.Value, bound: ir.Value) -> ir.Value:
    limit = broadcast(builder, builder.trunc(bound, INT32), LANES)
    bits = ir.Constant(ir.IntType(64), 0)
    for first in range(0, CHUNK, LANES):
        address = builder.gep(row, [builder.add(position, ir.Constant(position.type, first))])
        reached = builder.icmp_signed(">=", load_vector(builder, address, _VECTOR), limit)
        part = builder.zext(builder.bitcast(reached, ir.IntType(LANES)), bits.type)
        bits = builder.or_(bits, builder.shl(part, ir.Constant(bits.type, first)))
    return bits


#: Return a number whose bit i is set if ``row[position + i]`` (int32) is at least a
#: bound.
reached_bits = emitted(_reached, types.uint64)


def _lowest_bit(builder: ir.IRBuilder, bits: ir.Value) -> ir.Value:
    return call(builder, "llvm.cttz.i64", bits.type, bits, ir.Constant(ir.IntType(1), 0))


#: Return the position of the lowest set bit of a 64-bit integer.
lowest_bit = emitted(_lowest_bit, types.intp)


@helper
def key_value(key):
    """Return the integer of a key."""
    return key >> 32


@helper
def key_position(key):
    """Return the position in the row of a key."""
    return _LOW - (key & 0xFFFFFFFF)


def _bound(builder: ir.IRBuilder, maxima: ir.Value, position: ir.Value, wanted: ir.Value) -> ir.Value:
    start = builder.gep(maxima, [position])
    vectors, places = [], []
    for i in range(WIDE * LANES):
        places.append(builder.gep(start, [ir.Constant(position.type, i)]))
    for place in places[::LANES]:
        vectors.append(load_vector(builder, place, _VECTOR))
    greater = [constant(_VECTOR, 0)] * WIDE
    for place in places:
        value = broadcast(builder, builder.load(place), LANES)
        for j, vector in enumerate(vectors):
            above = builder.sext(builder.icmp_signed(">", value, vector), _VECTOR)
            greater[j] = builder.sub(greater[j], above)
    limit = broadcast(builder, builder.trunc(wanted, INT32), LANES)
    bound = None
    for vector, count in zip(vectors, greater, strict=True):
        # The greatest number stands for maxima that are too small.
        few = builder.icmp_signed("<", count, limit)
        part = builder.select(few, vector, constant(_VECTOR, _LOW))
        bound = part if bound is None else builder.select(builder.icmp_signed("<", part, bound), part, bound)
    least = call(builder, f"llvm.vector.reduce.smin.v{LANES}i32", INT32, bound)
    return builder.sext(least, wanted.type)


#: Return the `wanted`-th greatest of the WIDE * LANES integers (int32) from `position`
#: on.
bound_of_maxima = emitted(_bound, types.intp)


@helper
def _keep_greatest(keys, count, kept):
    """Move the greatest of `count` keys to the front; `kept` is scratch memory."""
    wanted = kept.shape[0]
    for i in range(count):
        key = keys[i]
        place = np.int64(0)
        for j in range(count):
            place += np.int64(keys[j] > key)
        if place < wanted:
            kept[place] = key
    for place in range(wanted):  # a copy of a slice would compile its error message
        keys[place] = kept[place]


@helper
def select_greatest(row, start, stop, bound, keys, kept):
    """Write the greatest of ``row[start:stop]`` to the first `keys`, descending.

    Parameters
    ----------
    row : numpy.ndarray
        Flat array of int32 to select from.
    start, stop : int
        Their difference is a multiple of CHUNK.
    bound : int
        At least as many integers as wanted reach it.
    keys : numpy.ndarray
        Int64 (ROOM,), with the layout of :func:`key_value` and :func:`key_position`.
    kept : numpy.ndarray
        Scratch memory, int64; its length is the number of wanted integers.
    """
    wanted, found = kept.shape[0], np.int64(0)
    limit = np.int64(bound)
    for first in range(0, stop - start, CHUNK):
        bits = reached_bits(row, start + first, limit)
        while bits != np.uint64(0):
            position = first + lowest_bit(bits)
            bits &= bits - np.uint64(1)
            keys[found] = (np.int64(row[start + position]) << 32) + (_LOW - position)
            found += 1
        if found > keys.shape[0] - CHUNK:
            _keep_greatest(keys, found, kept)
            found = np.int64(wanted)
            # Of equal integers, the first ones are kept.
            limit = key_value(keys[wanted - 1]) + 1
    _keep_greatest(keys, found, kept)
