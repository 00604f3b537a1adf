"""Products of unsigned with signed bytes: exact integers, the same bits on every machine.

Four bytes take the place of one float, so a map in bytes is a quarter of the memory and, where
the processor adds four products at once (AVX-512 VNNI), up to a quarter of the time.

Sizes: ``depth`` bytes of a row, a multiple of STEP; ``LANES`` columns in a panel of the packed
right matrix, int8 ``(panels, depth / STEP, LANES, STEP)``.  No sum passes 2**31 as long as
``depth`` is at most MOST_DEPTH.
"""

from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .jit import INTERPRETED, kernel
from .tile import LANES, ROWS

_FOURS = bool(binding.get_host_cpu_features().get("avx512vnni", False))

#: Consecutive bytes of a column that are multiplied together.
STEP = 4

#: Bytes of a row: 255 * 128 * MOST_DEPTH is below 2**31.
MOST_DEPTH = 65536

_BYTE, _INTEGER = ir.IntType(8), ir.IntType(32)
_SUMS = ir.VectorType(_INTEGER, LANES)


def pack_bytes(matrix: np.ndarray) -> np.ndarray:
    """Pack the columns of `matrix` int8 (depth, n), depth a multiple of STEP, flat."""
    depth, count = matrix.shape
    panels = -(-count // LANES)
    padded = np.zeros((depth, panels * LANES), np.int8)
    padded[:, :count] = matrix
    return np.ascontiguousarray(
        padded.reshape(depth // STEP, STEP, panels, LANES).transpose(2, 0, 3, 1)
    ).reshape(-1)


def _pointer_to(
    context: Any, builder: Any, signature: Any, args: Any, which: int, index: Any, kind: Any
) -> Any:
    """Return the address of entry `index` of argument `which`, as one of `kind`."""
    data = context.make_array(signature.args[which])(context, builder, args[which]).data
    return builder.bitcast(builder.gep(data, [index]), kind.as_pointer())


def _emit_tile(context: Any, builder: Any, signature: Any, args: Any, add: Any) -> Any:
    """Emit ROWS x LANES sums; rows past `last` repeat row `last`, as in the float tile."""

    def pointer(which: int, index: Any, kind: Any) -> Any:
        return _pointer_to(context, builder, signature, args, which, index, kind)

    row, last, depth, panel, position = args[1], args[2], args[3], args[5], args[7]
    lanes = ir.Constant(depth.type, LANES)
    starts = []
    for i in range(ROWS):
        wanted = builder.add(row, ir.Constant(row.type, i))
        wanted = builder.select(builder.icmp_signed("<", wanted, last), wanted, last)
        starts.append(pointer(0, builder.mul(wanted, depth), _INTEGER))
    columns = pointer(4, builder.mul(panel, builder.mul(depth, lanes)), _SUMS)
    sums = [cgutils.alloca_once_value(builder, ir.Constant(_SUMS, [0] * LANES)) for _ in range(ROWS)]
    for total in sums:
        builder.store(ir.Constant(_SUMS, [0] * LANES), total)
    with cgutils.for_range(builder, builder.sdiv(depth, ir.Constant(depth.type, STEP))) as loop:
        column = builder.load(builder.gep(columns, [loop.index]), align=1)
        for start, total in zip(starts, sums, strict=True):
            four = builder.load(builder.gep(start, [loop.index]), align=1)
            undefined = ir.Constant(_SUMS, ir.Undefined)
            one = builder.insert_element(undefined, four, ir.Constant(_INTEGER, 0))
            zeros = ir.Constant(ir.VectorType(_INTEGER, LANES), [0] * LANES)
            spread = builder.shuffle_vector(one, undefined, zeros)
            builder.store(add(builder, builder.load(total), spread, column), total)
    for i, total in enumerate(sums):
        place = builder.add(position, ir.Constant(position.type, i * LANES))
        builder.store(builder.load(total), pointer(6, place, _SUMS), align=4)
    return context.get_dummy_value()


def _add_fours(builder: Any, total: Any, row: Any, column: Any) -> Any:
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(_SUMS, [_SUMS] * 3), "llvm.x86.avx512.vpdpbusd.512"
    )
    return builder.call(function, [total, row, column])


def _add_portably(builder: Any, total: Any, row: Any, column: Any) -> Any:
    """The same in any machine's instructions: each byte of the four in turn."""
    for i in range(STEP):
        low = ir.Constant(_SUMS, [8 * i] * LANES)
        high = ir.Constant(_SUMS, [24 - 8 * i] * LANES)
        top = ir.Constant(_SUMS, [24] * LANES)
        unsigned = builder.and_(builder.lshr(row, low), ir.Constant(_SUMS, [255] * LANES))
        signed = builder.ashr(builder.shl(column, high), top)
        total = builder.add(total, builder.mul(unsigned, signed))
    return total


def _intrinsic(add: Any) -> Any:
    @intrinsic
    def compiled(typingctx, rows, row, last, depth, packed, panel, out, position):
        signature = types.void(rows, types.intp, types.intp, types.intp, packed, types.intp, out, types.intp)

        def generate(context, builder, signature, args):
            return _emit_tile(context, builder, signature, args, add)

        return signature, generate

    return compiled


def _interpreted(rows, row, last, depth, packed, panel, out, position):
    picked = np.minimum(np.arange(row, row + ROWS), last)
    columns = packed[panel * depth * LANES : (panel + 1) * depth * LANES]
    columns = columns.reshape(depth // STEP, LANES, STEP).transpose(0, 2, 1).reshape(depth, LANES)
    # Float64 holds these integers exactly.
    products = rows[: (last + 1) * depth].reshape(-1, depth)[picked].astype(np.float64) @ columns
    out[position : position + ROWS * LANES] = products.ravel()


@intrinsic
def _compiled_round(typingctx, source, position, per_unit, out, start):
    signature = types.void(source, types.intp, types.float32, out, types.intp)

    def generate(context, builder, signature, args):
        floats = ir.VectorType(ir.FloatType(), LANES)
        scalar = builder.insert_element(ir.Constant(floats, ir.Undefined), args[2], ir.Constant(_INTEGER, 0))
        zeros = ir.Constant(ir.VectorType(_INTEGER, LANES), [0] * LANES)
        factor = builder.shuffle_vector(scalar, ir.Constant(floats, ir.Undefined), zeros)
        low, high, middle = (ir.Constant(floats, [value] * LANES) for value in (1.0, 255.0, 128.5))
        value = builder.load(_pointer_to(context, builder, signature, args, 0, args[1], floats), align=4)
        value = builder.fadd(builder.fmul(value, factor), middle)
        value = builder.select(builder.fcmp_ordered("<", value, low), low, value)
        value = builder.select(builder.fcmp_ordered(">", value, high), high, value)
        rounded = builder.trunc(builder.fptosi(value, _SUMS), ir.VectorType(_BYTE, LANES))
        target = _pointer_to(context, builder, signature, args, 3, args[4], rounded.type)
        builder.store(rounded, target, align=1)
        return context.get_dummy_value()

    return signature, generate


def _interpreted_round(source, position, per_unit, out, start):
    values = source[position : position + LANES] * per_unit + np.float32(128.5)
    out[start : start + LANES] = np.clip(values, 1, 255).astype(np.uint8)


#: Write the tile's ROWS * LANES sums (int32) to ``out[position:]``, row by row.
byte_tile: Any = _interpreted
portable_byte_tile: Any = _interpreted
if not INTERPRETED:
    portable_byte_tile = _intrinsic(_add_portably)
    byte_tile = _intrinsic(_add_fours) if _FOURS else portable_byte_tile

#: Write the bytes of ``source[position : position + LANES]`` to ``out[start:]``.
_round_lanes: Any = _interpreted_round if INTERPRETED else _compiled_round


@kernel
def round_to_bytes(block, per_unit, out):
    """Write ``128 + block * per_unit``, rounded and kept within 1..255, to `out` (uint8, 2-D).

    `out` may have more columns than `block`; these are left as they are.
    """
    width = block.shape[1]
    whole = width // LANES * LANES
    source, target = block.reshape(-1), out.reshape(-1)
    rest, rest_bytes = np.zeros(LANES, np.float32), np.zeros(LANES, np.uint8)
    for i in range(block.shape[0]):
        for j in range(0, whole, LANES):
            _round_lanes(source, i * width + j, per_unit, target, i * out.shape[1] + j)
        if whole < width:
            for j in range(whole, width):
                rest[j - whole] = block[i, j]
            _round_lanes(rest, 0, per_unit, rest_bytes, 0)
            for j in range(whole, width):
                out[i, j] = rest_bytes[j - whole]


@kernel
def multiply_bytes(rows, packed, column_sums, scales, start, out):
    """Write ``start + scales * ((rows - 128) @ M)`` to `out` (b, D), float32.

    `rows` uint8 (b, depth); `packed` M as :func:`pack_bytes` has it; `column_sums` int32 (D,)
    128 times the sum of each of M's columns; `scales` and `start` float32 (D,).
    """
    count, depth = rows.shape
    width = out.shape[1]
    flat = rows.reshape(-1)
    sums = np.empty(ROWS * LANES, np.int32)
    for panel in range((width + LANES - 1) // LANES):
        first = panel * LANES
        used = min(LANES, width - first)
        for row in range(0, count, ROWS):
            byte_tile(flat, row, count - 1, depth, packed, panel, sums, 0)
            for i in range(min(ROWS, count - row)):
                for j in range(used):
                    column = first + j
                    exact = np.float32(sums[i * LANES + j] - column_sums[column])
                    out[row + i, column] = start[column] + scales[column] * exact


@kernel
def split_to_bytes(block, out, units):
    """Write each row of `block` (b, n) as two rows of bytes, the high and the low one of 16 bits.

    Row i is ``units[i] * (256 * (high - 128) + low)``, up to half a unit: the greatest entry has 32,767.
    `out` uint8 (2 b, depth) may have more columns than `block`; these are left as they are.
    """
    for i in range(block.shape[0]):
        peak = np.float32(0)
        for j in range(block.shape[1]):
            peak = max(peak, abs(block[i, j]))
        units[i] = peak / np.float32(32767)
        inverse = np.float32(32767) / peak if peak > 0 else np.float32(0)
        for j in range(block.shape[1]):
            value = int(np.rint(block[i, j] * inverse))
            out[2 * i, j] = (value >> 8) + 128
            out[2 * i + 1, j] = value & 255


@kernel
def multiply_split(rows, packed, column_sums, units, scales, out):
    """Write the product of rows that :func:`split_to_bytes` wrote with M to `out` (b, D), float32.

    `packed` M as :func:`pack_bytes` has it; `column_sums` int32 (D,) 128 times the sum of each of M's
    columns; `units` float32 (b,), `scales` float32 (D,).  Both halves of a row are in one tile, so
    that M is read once.
    """
    count, depth = rows.shape
    width = out.shape[1]
    flat = rows.reshape(-1)
    sums = np.empty(ROWS * LANES, np.int32)
    for panel in range((width + LANES - 1) // LANES):
        first = panel * LANES
        used = min(LANES, width - first)
        for row in range(0, count, ROWS):
            byte_tile(flat, row, count - 1, depth, packed, panel, sums, 0)
            for i in range(0, min(ROWS, count - row), 2):
                for j in range(used):
                    high = sums[i * LANES + j] - column_sums[first + j]
                    exact = 256.0 * high + sums[(i + 1) * LANES + j]
                    unit = units[(row + i) // 2] * scales[first + j]
                    out[(row + i) // 2, first + j] = unit * np.float32(exact)
