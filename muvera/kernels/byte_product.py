"""Products of unsigned with signed bytes: exact integers, the same bits on every machine.

A map in bytes takes a quarter of the memory of a map in float32.  Where the processor adds four
products at once (AVX-512 VNNI), a product takes down to a quarter of the time.

Sizes: ``depth`` bytes of a row, a multiple of STEP; ``LANES`` columns in a panel of the packed
right matrix, int8 ``(panels, depth / STEP, LANES, STEP)``.  No sum passes 2**31 as long as
``depth`` is at most MAX_DEPTH.
"""

from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .ir_helpers import (
    BYTE,
    FLOAT,
    INT32,
    broadcast,
    constant,
    entry_address,
    load_vector,
    new_sums,
    store_vector,
    tile_rows,
)
from .jit import INTERPRETED, kernel
from .tile import LANES, ROWS

_HAS_VNNI = bool(binding.get_host_cpu_features().get("avx512vnni", False))

#: Consecutive bytes of a column that are multiplied together.
STEP = 4

#: Maximum number of bytes in a row: 255 * 128 * MAX_DEPTH is below 2**31.
MAX_DEPTH = 65536

_SUMS = ir.VectorType(INT32, LANES)


def pack_bytes(matrix: np.ndarray) -> np.ndarray:
    """Pack the columns of `matrix` int8 (depth, n), depth a multiple of STEP, flat."""
    depth, count = matrix.shape
    panels = -(-count // LANES)
    padded = np.zeros((depth, panels * LANES), np.int8)
    padded[:, :count] = matrix
    return np.ascontiguousarray(
        padded.reshape(depth // STEP, STEP, panels, LANES).transpose(2, 0, 3, 1)
    ).reshape(-1)


def _emit_tile(context: Any, builder: Any, signature: Any, args: Any, add: Any) -> Any:
    """Emit and store ROWS x LANES sums; `add` emits one step of STEP products."""

    def address(which: int, index: Any, kind: Any) -> Any:
        entry = entry_address(context, builder, signature.args[which], args[which], index)
        return builder.bitcast(entry, kind.as_pointer())

    row, last, depth, panel, position = args[1], args[2], args[3], args[5], args[7]
    lanes = ir.Constant(depth.type, LANES)
    starts = [address(0, builder.mul(i, depth), INT32) for i in tile_rows(builder, row, last, ROWS)]
    columns = address(4, builder.mul(panel, builder.mul(depth, lanes)), _SUMS)
    sums = new_sums(builder, _SUMS, ROWS)
    with cgutils.for_range(builder, builder.sdiv(depth, ir.Constant(depth.type, STEP))) as loop:
        column = builder.load(builder.gep(columns, [loop.index]), align=1)
        for start, total in zip(starts, sums, strict=True):
            step_bytes = builder.load(builder.gep(start, [loop.index]), align=1)
            copies = broadcast(builder, step_bytes, LANES)
            builder.store(add(builder, builder.load(total), copies, column), total)
    for i, total in enumerate(sums):
        target = builder.add(position, ir.Constant(position.type, i * LANES))
        builder.store(builder.load(total), address(6, target, _SUMS), align=4)
    return context.get_dummy_value()


def _add_vnni(builder: Any, total: Any, row: Any, column: Any) -> Any:
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(_SUMS, [_SUMS] * 3), "llvm.x86.avx512.vpdpbusd.512"
    )
    return builder.call(function, [total, row, column])


def _add_portably(builder: Any, total: Any, row: Any, column: Any) -> Any:
    """Emit the same sums for any machine: one byte of the four after the other."""
    for i in range(STEP):
        shifted = builder.lshr(row, constant(_SUMS, 8 * i))
        unsigned = builder.and_(shifted, constant(_SUMS, 255))
        signed = builder.ashr(builder.shl(column, constant(_SUMS, 24 - 8 * i)), constant(_SUMS, 24))
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
        floats = ir.VectorType(FLOAT, LANES)
        factor = broadcast(builder, args[2], LANES)
        low, high, middle = (constant(floats, value) for value in (1, 255, 128.5))
        source = entry_address(context, builder, signature.args[0], args[0], args[1])
        value = load_vector(builder, source, floats)
        value = builder.fadd(builder.fmul(value, factor), middle)
        value = builder.select(builder.fcmp_ordered("<", value, low), low, value)
        value = builder.select(builder.fcmp_ordered(">", value, high), high, value)
        rounded = builder.trunc(builder.fptosi(value, _SUMS), ir.VectorType(BYTE, LANES))
        target = entry_address(context, builder, signature.args[3], args[3], args[4])
        store_vector(builder, rounded, target, align=1)
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
    byte_tile = _intrinsic(_add_vnni) if _HAS_VNNI else portable_byte_tile

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
