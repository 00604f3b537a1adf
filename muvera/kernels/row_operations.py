"""Operations on single rows of floats: scale, add, sum of squares, convert, prefetch, load tokens.

The intrinsics take flat arrays and a position in each; a ``count`` is rounded down to whole vectors of LANES.
Tokens come as float32 (`floats`, n x d) or as float16 bit patterns (`halves`, n x d); the other array is empty.  A
loaded row has `width` floats, d rounded up to LANES, with zeros at the end.
"""

from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .jit import helper
from .llvm_helpers import (
    BYTE,
    FLOAT,
    INT32,
    broadcast,
    constant,
    entry_address,
    fused_multiply_add,
    load_vector,
    new_sums,
    store_vector,
    sum_lanes,
)
from .tile import LANES

_VECTOR = ir.VectorType(FLOAT, LANES)
_WORDS = ir.VectorType(ir.IntType(16), LANES)

#: False on x86 processors without F16C, for which LLVM would call a missing function.
HAS_HALVES = bool(binding.get_host_cpu_features().get("f16c", True))


def widen(builder: Any, bits: Any, native: bool) -> Any:
    """Emit the float32 of the float16 bit patterns `bits`, a vector of LANES, exactly."""
    if native:
        return builder.fpext(builder.bitcast(bits, ir.VectorType(ir.HalfType(), LANES)), _VECTOR)
    numbers = ir.VectorType(INT32, LANES)
    wide = builder.zext(bits, numbers)
    sign = builder.shl(builder.and_(wide, constant(numbers, 0x8000)), constant(numbers, 16))
    magnitude = builder.shl(builder.and_(wide, constant(numbers, 0x7FFF)), constant(numbers, 13))
    # The exponents of the two formats differ by 112; the product also normalizes subnormal numbers.
    scaled = builder.fmul(builder.bitcast(magnitude, _VECTOR), constant(_VECTOR, 2.0**112))
    special = builder.icmp_unsigned(">=", magnitude, constant(numbers, 0x1F << 23))
    infinite = builder.or_(magnitude, constant(numbers, 0xFF << 23))
    value = builder.select(special, infinite, builder.bitcast(scaled, numbers))
    return builder.bitcast(builder.or_(value, sign), _VECTOR)


@intrinsic
def _compiled_square_sum(typingctx, array, position, count):
    signature = types.float32(array, types.intp, types.intp)

    def generate(context, builder, signature, args):
        address = entry_address(context, builder, signature.args[0], args[0], args[1])
        total = new_sums(builder, _VECTOR, 1)[0]
        width = ir.Constant(args[2].type, LANES)
        with cgutils.for_range(builder, builder.sdiv(args[2], width)) as loop:
            offset = builder.mul(loop.index, width)
            value = load_vector(builder, builder.gep(address, [offset]), _VECTOR)
            builder.store(fused_multiply_add(builder, value, value, builder.load(total)), total)
        return sum_lanes(builder, builder.load(total))

    return signature, generate


def _compiled_scaled(accumulate: bool) -> Any:
    """Return the intrinsic of ``out[...] = weight * source[...]``, or of ``+=`` with `accumulate`."""

    @intrinsic
    def compiled(typingctx, source, position, count, weight, out, start):
        signature = types.void(source, types.intp, types.intp, types.float32, out, types.intp)

        def generate(context, builder, signature, args):
            source = entry_address(context, builder, signature.args[0], args[0], args[1])
            target = entry_address(context, builder, signature.args[4], args[4], args[5])
            width = ir.Constant(args[2].type, LANES)
            factor = broadcast(builder, args[3], LANES)
            with cgutils.for_range(builder, builder.sdiv(args[2], width)) as loop:
                offset = builder.mul(loop.index, width)
                place = builder.gep(target, [offset])
                value = load_vector(builder, builder.gep(source, [offset]), _VECTOR)
                if accumulate:
                    before = load_vector(builder, place, _VECTOR)
                    value = fused_multiply_add(builder, value, factor, before)
                else:
                    value = builder.fmul(value, factor)
                store_vector(builder, value, place)
            return context.get_dummy_value()

        return signature, generate

    return compiled


@intrinsic
def _compiled_prefetch(typingctx, array, position):
    signature = types.void(array, types.intp)

    def generate(context, builder, signature, args):
        address = entry_address(context, builder, signature.args[0], args[0], args[1])
        byte = BYTE.as_pointer()
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.VoidType(), [byte, INT32, INT32, INT32]), "llvm.prefetch.p0"
        )
        # Read, into the second-level cache: the first would evict the packed columns.
        flags = [ir.Constant(INT32, flag) for flag in (0, 2, 1)]
        builder.call(function, [builder.bitcast(address, byte), *flags])
        return context.get_dummy_value()

    return signature, generate


def make_halves_to_floats(native: bool) -> Any:
    """Return the intrinsic that widens LANES float16 bit patterns, by one instruction if `native`."""

    @intrinsic
    def compiled(typingctx, halves, source, out, position):
        signature = types.void(halves, types.intp, out, types.intp)

        def generate(context, builder, signature, args):
            source = entry_address(context, builder, signature.args[0], args[0], args[1])
            target = entry_address(context, builder, signature.args[2], args[2], args[3])
            bits = load_vector(builder, source, _WORDS, align=2)
            store_vector(builder, widen(builder, bits, native), target)
            return context.get_dummy_value()

        return signature, generate

    return compiled


@intrinsic
def _compiled_half_at(typingctx, array, position):
    signature = types.float32(array, types.intp)

    def generate(context, builder, signature, args):
        address = entry_address(context, builder, signature.args[0], args[0], args[1])
        bits = builder.load(builder.bitcast(address, ir.IntType(16).as_pointer()), align=1)
        if HAS_HALVES:
            return builder.fpext(builder.bitcast(bits, ir.HalfType()), FLOAT)
        return builder.extract_element(
            widen(builder, broadcast(builder, bits, LANES), False), ir.Constant(INT32, 0)
        )

    return signature, generate


#: Return the sum of squares of ``array[position : position + count]``.
square_sum: Any = _compiled_square_sum

_make_scaled = _compiled_scaled
#: Add ``weight * source[position : position + count]`` to ``out[start : start + count]``.
add_scaled: Any = _make_scaled(True)
#: Write the same product instead of adding it.
set_scaled: Any = _make_scaled(False)

#: Fetch the cache line at ``array[position]``, which may lie outside the array.
prefetch: Any = _compiled_prefetch

#: Return the float16 in the two bytes at ``array[position]`` (uint8) as float32.
half_at: Any = _compiled_half_at

#: Write LANES float16 bit patterns of ``halves[source:]`` to ``out[position:]`` as float32.
_halves_to_floats: Any = make_halves_to_floats(HAS_HALVES)


@helper
def widen_halves(halves, start, stop, out, position):
    """Write float16 bit patterns ``halves[start:stop]`` (flat uint16) to ``out[position:]`` as float32.

    `out` needs room for LANES - 1 values more than it receives.
    """
    whole = (stop - start) // LANES * LANES
    for i in range(0, whole, LANES):
        _halves_to_floats(halves, start + i, out, position + i)
    if whole < stop - start:
        tail = np.zeros(LANES, np.uint16)
        for i in range(whole, stop - start):
            tail[i - whole] = halves[start + i]
        _halves_to_floats(tail, 0, out, position + whole)


@helper
def widened(halves, start, stop):
    """Return float16 bit patterns ``halves[start:stop]`` (flat uint16) as float32, and some more entries."""
    out = np.empty(stop - start + LANES, np.float32)
    widen_halves(halves, start, stop, out, np.int64(0))
    return out


@helper
def load_rows(floats, halves, start, stop, depth, width, center, out):
    """Write tokens start..stop minus `center` (width,) to `out` (flat), float32 rows of `width`."""
    flat, bits = floats.reshape(-1), halves.reshape(-1)
    for i in range(stop - start):
        # Slices, because numba does not vectorize loops over an index that is a sum.
        row = out[i * width : (i + 1) * width]
        begin = (start + i) * depth
        if bits.shape[0] > 0:
            widen_halves(bits, begin, begin + depth, out, i * width)
            for j in range(depth):
                row[j] -= center[j]
        else:
            source = flat[begin : begin + depth]
            for j in range(depth):
                row[j] = source[j] - center[j]
        row[depth:] = 0.0


@helper
def longest_text(offsets, first, last):
    """Return the largest number of tokens of the texts first..last."""
    longest = 0
    for text in range(first, last):
        longest = max(longest, offsets[text + 1] - offsets[text])
    return longest
