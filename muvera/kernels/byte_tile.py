"""Sums of products of unsigned and signed bytes: exact integers, the same on every machine.

A map in bytes takes a quarter of the memory of a map in float32.  Processors with AVX-512 VNNI add four products of
bytes at once, so multiplying by such a map can take a quarter of the time.

Sizes: ``depth`` bytes of a row, a multiple of STEP; ``LANES`` columns in a panel of the packed
right matrix, int8 ``(panels, depth / STEP, LANES, STEP)``.  No sum exceeds 2**31 if ``depth``
is at most MAX_DEPTH.

An entry of a matrix in half bytes is one of the 16 numbers -120, -104, ..., 120.  Only its upper 4 bits are stored,
because the lower ones are always 1000.  A panel has the shape ``(depth / (2 * STEP), LANES, STEP)``.  Of 2 * STEP
consecutive entries of a column, the first STEP are in the lower halves of STEP bytes, the others in the upper halves.
"""

from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .llvm_helpers import (
    BYTE,
    FLOAT,
    INT32,
    broadcast,
    constant,
    entry_address,
    load_vector,
    new_sums,
    shuffle,
    store_vector,
    sum_each,
    tile_rows,
)
from .tile import LANES, ROWS

_HAS_VNNI = bool(binding.get_host_cpu_features().get("avx512vnni", False))
_HAS_AVX2 = bool(binding.get_host_cpu_features().get("avx2", False))

#: Consecutive bytes of a column that are multiplied together.
STEP = 4

#: Panels of a strip, which has two rows: the high and low bytes of a single query.
STRIP = ROWS // 2

#: Panels that are multiplied together: as many as fit into the registers, because they share the loads of the rows.
WIDE = ROWS // 4

#: Bytes of a vector register, and vectors of signed bytes that are multiplied together with a query.
SPAN, VECTORS = STEP * LANES, 4

#: Maximum number of bytes in a row: 255 * 128 * MAX_DEPTH is below 2**31.
MAX_DEPTH = 65536

_SUMS = ir.VectorType(INT32, LANES)

# Mask of the upper half of each byte in a 32-bit integer (as a signed number), and the bits 1000 for each lower half.
_UPPER, _LOWER = 0xF0F0F0F0 - 2**32, 0x08080808


def pack_bytes(matrix: np.ndarray) -> np.ndarray:
    """Pack the columns of `matrix`, int8 (depth, n), in panels; return a flat array.

    depth must be a multiple of STEP.  Zeros fill the panels up to a multiple of WIDE.
    """
    depth, count = matrix.shape
    panels = -(-count // (WIDE * LANES)) * WIDE
    padded = np.zeros((depth, panels * LANES), np.int8)
    padded[:, :count] = matrix
    return np.ascontiguousarray(
        padded.reshape(depth // STEP, STEP, panels, LANES).transpose(2, 0, 3, 1)
    ).reshape(-1)


def pack_half_bytes(matrix: np.ndarray) -> np.ndarray:
    """Pack the columns of `matrix`, int8 (depth, n), in panels of half bytes; return a flat array.

    depth must be a multiple of 2 * STEP.  Zeros fill the panels up to a multiple of STRIP.
    """
    depth, count = matrix.shape
    panels = -(-count // (STRIP * LANES)) * STRIP
    padded = np.zeros((depth, panels * LANES), np.uint8)
    padded[:, :count] = matrix.view(np.uint8) >> 4
    steps = padded.reshape(depth // (2 * STEP), 2, STEP, panels, LANES)
    return np.ascontiguousarray((steps[:, 0] | steps[:, 1] << 4).transpose(2, 0, 3, 1)).reshape(-1)


def emit_sums(
    builder: Any, rows: list[Any], depth: Any, columns: list[Any], add: Any, halves: int = 1
) -> list[list[Any]]:
    """Emit the sums of rows with panels, from their addresses; return a list of sums for each panel.

    `add` emits one step.  A byte of a panel has one entry, or two entries if `halves` is 2.  Loading the rows limits
    the speed of one panel, so several panels share these loads.
    """
    starts = [builder.bitcast(address, INT32.as_pointer()) for address in rows]
    panels = [builder.bitcast(address, _SUMS.as_pointer()) for address in columns]
    sums = [new_sums(builder, _SUMS, len(rows)) for _ in panels]
    with cgutils.for_range(builder, builder.sdiv(depth, ir.Constant(depth.type, halves * STEP))) as loop:
        loaded = [builder.load(builder.gep(panel, [loop.index]), align=1) for panel in panels]
        first = builder.mul(loop.index, ir.Constant(depth.type, halves))
        for half in range(halves):
            steps = [_half(builder, value, half) for value in loaded] if halves == 2 else loaded
            place = builder.add(first, ir.Constant(depth.type, half))
            for i, start in enumerate(starts):
                step_bytes = builder.load(builder.gep(start, [place]), align=1)
                copies = broadcast(builder, step_bytes, LANES)
                for step, totals in zip(steps, sums, strict=True):
                    builder.store(add(builder, builder.load(totals[i]), copies, step), totals[i])
    return [[builder.load(total) for total in totals] for totals in sums]


def _half(builder: Any, value: Any, half: int) -> Any:
    """Emit the entries in the lower halves (`half` = 0) or the upper halves (1) of bytes."""
    upper = value if half else builder.shl(value, constant(_SUMS, 4))
    return builder.or_(builder.and_(upper, constant(_SUMS, _UPPER)), constant(_SUMS, _LOWER))


def _sums(
    context: Any, builder: Any, signature: Any, args: Any, add: Any,
    count: int = ROWS, panels: int = 1, halves: int = 1,
) -> list[list[Any]]:  # fmt: skip
    """Emit the sums of `count` rows with some panels from the arguments of an intrinsic."""
    rows, row, last, depth, packed, panel = args[:6]
    size = builder.mul(depth, ir.Constant(depth.type, LANES // halves))
    starts = [
        entry_address(context, builder, signature.args[0], rows, builder.mul(place, depth))
        for place in tile_rows(builder, row, last, count)
    ]
    numbers = [builder.add(panel, ir.Constant(panel.type, i)) for i in range(panels)]
    columns = [
        entry_address(context, builder, signature.args[4], packed, builder.mul(number, size))
        for number in numbers
    ]
    return emit_sums(builder, starts, depth, columns, add, halves)


def _storing(count: int, panels: int, halves: int = 1) -> Any:
    """Return a function that emits the sums of `count` rows with some panels, and stores them row by row."""

    def emit(context: Any, builder: Any, signature: Any, args: Any, add: Any) -> Any:
        for j, sums in enumerate(_sums(context, builder, signature, args, add, count, panels, halves)):
            for i, total in enumerate(sums):
                target = builder.add(args[7], ir.Constant(args[7].type, (i * panels + j) * LANES))
                address = entry_address(context, builder, signature.args[6], args[6], target)
                store_vector(builder, total, address)
        return context.get_dummy_value()

    return emit


def _emit_maxima(context: Any, builder: Any, signature: Any, args: Any, add: Any) -> Any:
    """Emit the sums of WIDE panels and raise the stored values to their maxima over the rows."""
    for j, sums in enumerate(_sums(context, builder, signature, args, add, panels=WIDE)):
        place = builder.add(args[7], ir.Constant(args[7].type, j * LANES))
        target = entry_address(context, builder, signature.args[6], args[6], place)
        best = load_vector(builder, target, _SUMS)
        for total in sums:
            best = builder.select(builder.icmp_signed(">", total, best), total, best)
        store_vector(builder, best, target)
    return context.get_dummy_value()


def _emit_dots(context: Any, builder: Any, signature: Any, args: Any, add: Any) -> Any:
    """Emit the products of VECTORS vectors with both rows of a query: high bytes first."""
    vectors, vector, last, depth, queries, query, out, position = args
    addresses = [
        entry_address(context, builder, signature.args[0], vectors, builder.mul(place, depth))
        for place in tile_rows(builder, vector, last, VECTORS)
    ]
    first = builder.mul(query, ir.Constant(query.type, 2))
    query_rows = [
        entry_address(
            context, builder, signature.args[4], queries, builder.mul(builder.add(first, half), depth)
        )
        for half in (ir.Constant(first.type, 0), ir.Constant(first.type, 1))
    ]
    starts = [builder.bitcast(address, _SUMS.as_pointer()) for address in addresses]
    halves = [builder.bitcast(address, _SUMS.as_pointer()) for address in query_rows]
    sums = [new_sums(builder, _SUMS, VECTORS) for _ in halves]
    with cgutils.for_range(builder, builder.sdiv(depth, ir.Constant(depth.type, SPAN))) as loop:
        unsigned = [builder.load(builder.gep(half, [loop.index]), align=1) for half in halves]
        for i, start in enumerate(starts):
            signed = builder.load(builder.gep(start, [loop.index]), align=1)
            for half, totals in zip(unsigned, sums, strict=True):
                builder.store(add(builder, builder.load(totals[i]), half, signed), totals[i])
    for i, totals in enumerate(sums):
        dots = sum_each(builder, [builder.load(total) for total in totals])
        place = builder.add(position, ir.Constant(position.type, i * VECTORS))
        store_vector(builder, dots, entry_address(context, builder, signature.args[6], out, place))
    return context.get_dummy_value()


def _add_vnni(builder: Any, total: Any, row: Any, column: Any) -> Any:
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(_SUMS, [_SUMS] * 3), "llvm.x86.avx512.vpdpbusd.512"
    )
    return builder.call(function, [total, row, column])


def _add_portably(builder: Any, total: Any, row: Any, column: Any) -> Any:
    """Emit the same sums for any machine, one of the four bytes after another."""
    for i in range(STEP):
        shifted = builder.lshr(row, constant(_SUMS, 8 * i))
        unsigned = builder.and_(shifted, constant(_SUMS, 255))
        signed = builder.ashr(builder.shl(column, constant(_SUMS, 24 - 8 * i)), constant(_SUMS, 24))
        total = builder.add(total, builder.mul(unsigned, signed))
    return total


def _add_avx2(builder: Any, total: Any, row: Any, column: Any) -> Any:
    """Emit the same sums by 16-bit products, added in pairs: even bytes, then odd ones."""
    words, half = ir.VectorType(ir.IntType(16), 2 * LANES), ir.VectorType(ir.IntType(16), LANES)
    function = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(ir.VectorType(INT32, LANES // 2), [half, half]),
        "llvm.x86.avx2.pmadd.wd",
    )
    row, column = builder.bitcast(row, words), builder.bitcast(column, words)
    eight = constant(words, 8)
    pairs = (
        (builder.and_(row, constant(words, 255)), builder.ashr(builder.shl(column, eight), eight)),
        (builder.lshr(row, eight), builder.ashr(column, eight)),
    )
    for unsigned, signed in pairs:
        parts = []
        for start in (0, LANES):
            order = list(range(start, start + LANES))
            left = shuffle(builder, unsigned, unsigned, order)
            right = shuffle(builder, signed, signed, order)
            parts.append(builder.call(function, [left, right]))
        total = builder.add(total, shuffle(builder, parts[0], parts[1], list(range(LANES))))
    return total


def _intrinsic(add: Any, emit: Any) -> Any:
    @intrinsic
    def compiled(typingctx, rows, row, last, depth, packed, panel, out, position):
        signature = types.void(rows, types.intp, types.intp, types.intp, packed, types.intp, out, types.intp)

        def generate(context, builder, signature, args):
            return emit(context, builder, signature, args, add)

        return signature, generate

    return compiled


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


#: Ways to add the products of one step, by name; the last one is the fastest that this processor has.
ADDITIONS: dict[str, Any] = {"portable": _add_portably}
if _HAS_AVX2:
    ADDITIONS["avx2"] = _add_avx2
if _HAS_VNNI:
    ADDITIONS["vnni"] = _add_vnni


def make_tiles(addition: str) -> tuple[Any, ...]:
    """Return the five intrinsics (sums, maxima, strip, dots, strip of half bytes), made with one of the ADDITIONS."""
    emitted = (_storing(ROWS, WIDE), _emit_maxima, _storing(2, STRIP), _emit_dots, _storing(2, STRIP, 2))
    return tuple(_intrinsic(ADDITIONS[addition], emit) for emit in emitted)


#: ``byte_tile`` writes the sums (int32) of ROWS rows with WIDE panels to ``out[position:]``, row by row.  ``byte_max``
#: raises the integers ``out[position : position + WIDE * LANES]`` to the maxima over the rows, for WIDE panels.
#: ``byte_strip`` writes the sums of two rows with STRIP panels, row by row; ``half_byte_strip`` reads panels of half
#: bytes.  ``byte_dots`` writes the products of VECTORS vectors, which are not packed, with the two rows of a query.
byte_tile, byte_max, byte_strip, byte_dots, half_byte_strip = make_tiles(list(ADDITIONS)[-1])

#: Write the bytes of ``source[position : position + LANES]`` to ``out[start:]``: 128 and the value times
#: ``per_unit``, rounded and clipped to 1..255.
round_lanes: Any = _compiled_round
