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

from .jit import INTERPRETED, kernel
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

#: Panels of a strip, which has two rows: those of a single query in two bytes.
STRIP = ROWS // 2

#: Bytes of a vector register, and vectors of signed bytes whose products with a query are summed together.
SPAN, VECTORS = STEP * LANES, 4

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


def emit_sums(builder: Any, rows: list[Any], depth: Any, columns: list[Any], add: Any) -> list[list[Any]]:
    """Emit the sums of rows with panels, all given by their addresses; return a list of sums a panel.

    `add` emits one step.  Several panels share the loads of the rows, which bound the speed of one.
    """
    starts = [builder.bitcast(address, INT32.as_pointer()) for address in rows]
    panels = [builder.bitcast(address, _SUMS.as_pointer()) for address in columns]
    sums = [new_sums(builder, _SUMS, len(rows)) for _ in panels]
    with cgutils.for_range(builder, builder.sdiv(depth, ir.Constant(depth.type, STEP))) as loop:
        steps = [builder.load(builder.gep(panel, [loop.index]), align=1) for panel in panels]
        for i, start in enumerate(starts):
            step_bytes = builder.load(builder.gep(start, [loop.index]), align=1)
            copies = broadcast(builder, step_bytes, LANES)
            for step, totals in zip(steps, sums, strict=True):
                builder.store(add(builder, builder.load(totals[i]), copies, step), totals[i])
    return [[builder.load(total) for total in totals] for totals in sums]


def _sums(
    context: Any, builder: Any, signature: Any, args: Any, add: Any, count: int = ROWS, panels: int = 1
) -> list[list[Any]]:
    """Emit the sums of the tile that the arguments of an intrinsic name."""
    rows, row, last, depth, packed, panel = args[:6]
    size = builder.mul(depth, ir.Constant(depth.type, LANES))
    starts = [
        entry_address(context, builder, signature.args[0], rows, builder.mul(place, depth))
        for place in tile_rows(builder, row, last, count)
    ]
    numbers = [builder.add(panel, ir.Constant(panel.type, i)) for i in range(panels)]
    columns = [
        entry_address(context, builder, signature.args[4], packed, builder.mul(number, size))
        for number in numbers
    ]
    return emit_sums(builder, starts, depth, columns, add)


def _emit_tile(context: Any, builder: Any, signature: Any, args: Any, add: Any) -> Any:
    """Emit the sums and store all of them."""
    position = args[7]
    for i, total in enumerate(_sums(context, builder, signature, args, add)[0]):
        target = builder.add(position, ir.Constant(position.type, i * LANES))
        store_vector(builder, total, entry_address(context, builder, signature.args[6], args[6], target))
    return context.get_dummy_value()


def _emit_strip(context: Any, builder: Any, signature: Any, args: Any, add: Any) -> Any:
    """Emit the sums of two rows with STRIP panels and store them, row by row."""
    found = _sums(context, builder, signature, args, add, 2, STRIP)
    for j, sums in enumerate(found):
        for i, total in enumerate(sums):
            target = builder.add(args[7], ir.Constant(args[7].type, (i * STRIP + j) * LANES))
            store_vector(builder, total, entry_address(context, builder, signature.args[6], args[6], target))
    return context.get_dummy_value()


def _emit_maxima(context: Any, builder: Any, signature: Any, args: Any, add: Any) -> Any:
    """Emit the sums and raise what is stored to their maxima over the rows."""
    target = entry_address(context, builder, signature.args[6], args[6], args[7])
    best = load_vector(builder, target, _SUMS)
    for total in _sums(context, builder, signature, args, add)[0]:
        best = builder.select(builder.icmp_signed(">", total, best), total, best)
    store_vector(builder, best, target)
    return context.get_dummy_value()


def _emit_dots(context: Any, builder: Any, signature: Any, args: Any, add: Any) -> Any:
    """Emit the products of VECTORS vectors with both rows of a query: those of the high bytes, then of the low."""
    vectors, vector, last, depth, queries, query, out, position = args
    addresses = [
        entry_address(context, builder, signature.args[0], vectors, builder.mul(place, depth))
        for place in tile_rows(builder, vector, last, VECTORS)
    ]
    first = builder.mul(query, ir.Constant(query.type, 2))
    asked = [
        entry_address(
            context, builder, signature.args[4], queries, builder.mul(builder.add(first, half), depth)
        )
        for half in (ir.Constant(first.type, 0), ir.Constant(first.type, 1))
    ]
    starts = [builder.bitcast(address, _SUMS.as_pointer()) for address in addresses]
    halves = [builder.bitcast(address, _SUMS.as_pointer()) for address in asked]
    sums = [new_sums(builder, _SUMS, VECTORS) for _ in halves]
    with cgutils.for_range(builder, builder.sdiv(depth, ir.Constant(depth.type, SPAN))) as loop:
        unsigned = [builder.load(builder.gep(half, [loop.index]), align=1) for half in halves]
        for i, start in enumerate(starts):
            signed = builder.load(builder.gep(start, [loop.index]), align=1)
            for half, totals in zip(unsigned, sums, strict=True):
                builder.store(add(builder, builder.load(totals[i]), half, signed), totals[i])
    for i, totals in enumerate(sums):
        found = sum_each(builder, [builder.load(total) for total in totals])
        place = builder.add(position, ir.Constant(position.type, i * VECTORS))
        store_vector(builder, found, entry_address(context, builder, signature.args[6], out, place))
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


def _interpreted_sums(rows, row, last, depth, packed, panel):
    picked = np.minimum(np.arange(row, row + ROWS), last)
    columns = packed[panel * depth * LANES : (panel + 1) * depth * LANES]
    columns = columns.reshape(depth // STEP, LANES, STEP).transpose(0, 2, 1).reshape(depth, LANES)
    # Float64 holds these integers exactly.
    return rows[: (last + 1) * depth].reshape(-1, depth)[picked].astype(np.float64) @ columns


def _interpreted(rows, row, last, depth, packed, panel, out, position):
    sums = _interpreted_sums(rows, row, last, depth, packed, panel)
    out[position : position + ROWS * LANES] = sums.ravel()


def _interpreted_strip(rows, row, last, depth, packed, panel, out, position):
    for i in range(STRIP):
        sums = _interpreted_sums(rows, row, last, depth, packed, panel + i)
        for j in range(2):
            start = position + (j * STRIP + i) * LANES
            out[start : start + LANES] = sums[j]


def _interpreted_dots(vectors, vector, last, depth, queries, query, out, position):
    picked = np.minimum(np.arange(vector, vector + VECTORS), last)
    signed = vectors[: (last + 1) * depth].reshape(-1, depth)[picked].astype(np.float64)
    halves = queries[2 * query * depth : 2 * (query + 1) * depth].reshape(2, depth)
    out[position : position + 2 * VECTORS] = (halves @ signed.T).ravel()


def _interpreted_max(rows, row, last, depth, packed, panel, out, position):
    best = out[position : position + LANES]
    best[:] = np.maximum(best, _interpreted_sums(rows, row, last, depth, packed, panel).max(axis=0))


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


#: Ways to add one step's products by name: the fastest that a processor has, and those that it could take.
ADDITIONS: dict[str, Any] = {"portable": _add_portably}
if _HAS_AVX2:
    ADDITIONS["avx2"] = _add_avx2
if _HAS_VNNI:
    ADDITIONS["vnni"] = _add_vnni


def make_tiles(addition: str) -> tuple[Any, Any, Any, Any]:
    """Return what writes sums, raises maxima, writes a strip and writes dots, made of one of the ADDITIONS."""
    if INTERPRETED:
        return _interpreted, _interpreted_max, _interpreted_strip, _interpreted_dots
    add = ADDITIONS[addition]
    emitted = (_emit_tile, _emit_maxima, _emit_strip, _emit_dots)
    tile, maxima, strip, dots = (_intrinsic(add, emit) for emit in emitted)
    return tile, maxima, strip, dots


#: Write the tile's ROWS * LANES sums (int32) to ``out[position:]``, row by row; raise the LANES integers
#: ``out[position : position + LANES]`` to the maxima over the tile's rows; write the sums of two rows with
#: STRIP panels, row by row; write the products of VECTORS vectors with the two rows of a query, which
#: is what needs no packed matrix and no room for more than one query.
byte_tile, byte_max, byte_strip, byte_dots = make_tiles(list(ADDITIONS)[-1])

#: Write the bytes of ``source[position : position + LANES]`` to ``out[start:]``: 128 and the value times
#: ``per_unit``, rounded and kept within 1..255.
round_lanes: Any = _interpreted_round if INTERPRETED else _compiled_round


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
            round_lanes(source, i * width + j, per_unit, target, i * out.shape[1] + j)
        if whole < width:
            for j in range(whole, width):
                rest[j - whole] = block[i, j]
            round_lanes(rest, 0, per_unit, rest_bytes, 0)
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
def _joined(high, low, column_sum, unit):
    """Return the product that the sums of a row's high and low bytes stand for."""
    return unit * np.float32(256.0 * (high - column_sum) + low)


@kernel
def multiply_split(rows, packed, column_sums, units, scales, out):
    """Write the product of rows that :func:`split_to_bytes` wrote with M to `out` (b, D), float32.

    `packed` M as :func:`pack_bytes` has it; `column_sums` int32 (D,) 128 times the sum of each of M's
    columns; `units` float32 (b,), `scales` float32 (D,).  Both halves of a row are in one tile, so
    that M is read once.
    """
    count, depth = rows.shape
    width = out.shape[1]
    panels = (width + LANES - 1) // LANES
    flat = rows.reshape(-1)
    sums = np.empty(ROWS * LANES, np.int32)
    # A tile of many rows would repeat those of a single query.
    begun = panels // STRIP * STRIP if count == 2 else 0
    for panel in range(0, begun, STRIP):
        byte_strip(flat, 0, 1, depth, packed, panel, sums, 0)
        first = panel * LANES
        for j in range(min(STRIP * LANES, width - first)):
            out[0, first + j] = _joined(
                sums[j], sums[STRIP * LANES + j], column_sums[first + j], units[0] * scales[first + j]
            )
    for panel in range(begun, panels):
        first = panel * LANES
        for row in range(0, count, ROWS):
            byte_tile(flat, row, count - 1, depth, packed, panel, sums, 0)
            for i in range(0, min(ROWS, count - row), 2):
                for j in range(min(LANES, width - first)):
                    out[(row + i) // 2, first + j] = _joined(
                        sums[i * LANES + j], sums[(i + 1) * LANES + j], column_sums[first + j],
                        units[(row + i) // 2] * scales[first + j],
                    )  # fmt: skip


@kernel
def round_rows(vectors, slack, numbers, sums, units, errors):
    """Round each row of `vectors` (n, d) to signed bytes in a unit of its own, 127ths of its greatest entry.

    `numbers` int8 (n, depth) may have more columns than `vectors`; these are left as they are.  `sums` int32
    (n,) gets 128 times the sum of a row's bytes, `units` float32 (n,) its unit, `errors` float32 (n,) the
    length of what rounding has taken away and `slack` times that of the row, rounded up.
    """
    tiny = np.finfo(np.float32).tiny
    for i in range(vectors.shape[0]):
        peak = np.float32(0)
        for j in range(vectors.shape[1]):
            peak = max(peak, abs(vectors[i, j]))
        unit = peak / np.float32(127)
        # A unit that is no normal number has no accurate inverse: such a vector is as good as zero.
        if unit < tiny:
            unit = np.float32(0)
        inverse = np.float32(1) / unit if unit > 0 else np.float32(0)
        total = np.int32(0)
        lost, square = 0.0, 0.0
        for j in range(vectors.shape[1]):
            value = vectors[i, j]
            number = min(max(np.int32(np.rint(value * inverse)), np.int32(-127)), np.int32(127))
            numbers[i, j] = number
            total += number
            lost += (value - np.float64(number) * unit) ** 2
            square += np.float64(value) ** 2
        sums[i] = 128 * total
        units[i] = unit
        # Below the normal numbers float32 has no relative precision.
        errors[i] = (np.sqrt(lost) + slack * np.sqrt(square)) * 1.000001 + tiny


@kernel
def multiply_rows(numbers, start, stop, sums, units, asked, query_units, out):
    """Write the products of the vectors start..stop with all queries to `out` (stop - start, m), float32.

    `numbers`, `sums` and `units` as :func:`round_rows` has them, `asked` uint8 (2 m, depth) and `query_units`
    float32 (m,) as :func:`split_to_bytes`; depth is a multiple of SPAN, and what follows the queries' own
    columns may be anything where the vectors have zeros.
    """
    depth = asked.shape[1]
    flat, queries = numbers.reshape(-1), asked.reshape(-1)
    found = np.empty(2 * VECTORS, np.int32)
    for row in range(start, stop, VECTORS):
        for query in range(query_units.shape[0]):
            byte_dots(flat, row, stop - 1, depth, queries, query, found, 0)
            for i in range(min(VECTORS, stop - row)):
                out[row - start + i, query] = _joined(
                    found[i], found[VECTORS + i], sums[row + i], query_units[query] * units[row + i]
                )
