"""The inner product tile that every matrix product of the library is made of.

One intrinsic multiplies ``ROWS`` rows by ``LANES`` packed columns, accumulators in
registers, one fused multiply-add after the other along the depth.  Two things follow that
a BLAS product does not give:

* an entry of a product has the same bits whatever the number of rows, columns, threads or
  the machine's vector width, because its sum always runs 0, 1, 2, ... with explicit fma;
  so a token falls into the same SimHash cell alone and in any batch;
* the product can end in a maximum or in sign bits without being stored.

Sizes: ``depth`` columns of the left matrix (the tokens' dimension), ``LANES`` columns in a
panel of the packed right matrix, which is float32 ``(panels, depth, LANES)``, zero-padded.
"""

from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .jit import INTERPRETED, kernel

#: Packed columns in a panel: one AVX-512 register, two of AVX2, four of NEON.
LANES = 16

# Accumulators must fit the register file: 32 wide registers with AVX-512, else 16 halves.
_WIDE = bool(binding.get_host_cpu_features().get("avx512f", False))

#: Rows in a tile.
ROWS = 8 if _WIDE else 4

_FLOAT = ir.FloatType()
_VECTOR = ir.VectorType(_FLOAT, LANES)


def pack_columns(matrix: np.ndarray) -> np.ndarray:
    """Pack the rows of `matrix` (n, depth) as columns for the tile.

    Returns
    -------
    float32 (panels, depth, LANES)
        ``packed[p, :, j]`` is row ``p * LANES + j``; rows past n are zero.
    """
    count, depth = matrix.shape
    panels = -(-count // LANES)
    padded = np.zeros((panels * LANES, depth), np.float32)
    padded[:count] = matrix
    return np.ascontiguousarray(padded.reshape(panels, LANES, depth).transpose(0, 2, 1))


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [index])


def _load_vector(builder: Any, pointer: Any) -> Any:
    return builder.load(builder.bitcast(pointer, _VECTOR.as_pointer()), align=4)


def _store_vector(builder: Any, value: Any, pointer: Any) -> None:
    builder.store(value, builder.bitcast(pointer, _VECTOR.as_pointer()), align=4)


def _broadcast(builder: Any, scalar: Any) -> Any:
    undefined = ir.Constant(_VECTOR, ir.Undefined)
    index = ir.IntType(32)
    first = builder.insert_element(undefined, scalar, ir.Constant(index, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(index, LANES), [0] * LANES))


def _multiply_add(builder: Any, left: Any, right: Any, total: Any) -> Any:
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(_VECTOR, [_VECTOR] * 3), f"llvm.fma.v{LANES}f32"
    )
    return builder.call(function, [left, right, total])


def _tile(context: Any, builder: Any, signature: Any, args: Any, lanewise: bool = False) -> list[Any]:
    """Emit the product of ROWS rows and one panel; return the accumulators' values.

    Rows past `last` repeat row `last`, so that a short tile needs no second code path.
    `lanewise` multiplies vector by vector, lane with lane, instead of every entry of a row
    with a packed vector: the product with a matrix whose LANES blocks are interleaved.
    """
    rows_array, row, last, depth, packed, panel = args[:6]
    lanes = ir.Constant(depth.type, LANES)
    pointers = []
    for i in range(ROWS):
        wanted = builder.add(row, ir.Constant(row.type, i))
        wanted = builder.select(builder.icmp_signed("<", wanted, last), wanted, last)
        pointers.append(_pointer(context, builder, signature.args[0], rows_array, builder.mul(wanted, depth)))
    size = depth if lanewise else builder.mul(depth, lanes)
    steps = builder.sdiv(depth, lanes) if lanewise else depth
    columns = _pointer(context, builder, signature.args[4], packed, builder.mul(panel, size))
    zero = ir.Constant(_VECTOR, [0.0] * LANES)
    sums = [cgutils.alloca_once(builder, _VECTOR) for _ in range(ROWS)]
    for total in sums:
        builder.store(zero, total)
    with cgutils.for_range(builder, steps) as loop:
        offset = builder.mul(loop.index, lanes)
        column = _load_vector(builder, builder.gep(columns, [offset]))
        for pointer, total in zip(pointers, sums, strict=True):
            if lanewise:
                value = _load_vector(builder, builder.gep(pointer, [offset]))
            else:
                value = _broadcast(builder, builder.load(builder.gep(pointer, [loop.index])))
            builder.store(_multiply_add(builder, value, column, builder.load(total)), total)
    return [builder.load(total) for total in sums]


def _store_tile(context: Any, builder: Any, signature: Any, args: Any, lanewise: bool) -> Any:
    pointer = _pointer(context, builder, signature.args[6], args[6], args[7])
    for i, total in enumerate(_tile(context, builder, signature, args, lanewise)):
        _store_vector(builder, total, builder.gep(pointer, [ir.Constant(args[7].type, i * LANES)]))
    return context.get_dummy_value()


def _store_signs(context: Any, builder: Any, signature: Any, args: Any, lanewise: bool) -> Any:
    pointer = _pointer(context, builder, signature.args[6], args[6], args[7])
    zero = ir.Constant(_VECTOR, [0.0] * LANES)
    for total in _tile(context, builder, signature, args, lanewise):
        mask = builder.bitcast(builder.fcmp_ordered(">", total, zero), ir.IntType(LANES))
        builder.store(mask, pointer)
        pointer = builder.gep(pointer, [args[8]])
    return context.get_dummy_value()


@intrinsic
def _compiled_dot(typingctx, rows, row, last, depth, packed, panel, out, position):
    signature = types.void(rows, types.intp, types.intp, types.intp, packed, types.intp, out, types.intp)

    def generate(context, builder, signature, args):
        return _store_tile(context, builder, signature, args, lanewise=False)

    return signature, generate


@intrinsic
def _compiled_lane_dot(typingctx, rows, row, last, depth, packed, panel, out, position):
    signature = types.void(rows, types.intp, types.intp, types.intp, packed, types.intp, out, types.intp)

    def generate(context, builder, signature, args):
        return _store_tile(context, builder, signature, args, lanewise=True)

    return signature, generate


@intrinsic
def _compiled_max(typingctx, rows, row, last, depth, packed, panel, out, position):
    signature = types.void(rows, types.intp, types.intp, types.intp, packed, types.intp, out, types.intp)

    def generate(context, builder, signature, args):
        pointer = _pointer(context, builder, signature.args[6], args[6], args[7])
        best = _load_vector(builder, pointer)
        for total in _tile(context, builder, signature, args):
            best = builder.select(builder.fcmp_ordered(">", total, best), total, best)
        _store_vector(builder, best, pointer)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _compiled_signs(typingctx, rows, row, last, depth, packed, panel, out, position, step):
    signature = types.void(
        rows, types.intp, types.intp, types.intp, packed, types.intp, out, types.intp, types.intp
    )

    def generate(context, builder, signature, args):
        return _store_signs(context, builder, signature, args, lanewise=False)

    return signature, generate


@intrinsic
def _compiled_lane_signs(typingctx, rows, row, last, depth, packed, panel, out, position, step):
    signature = types.void(
        rows, types.intp, types.intp, types.intp, packed, types.intp, out, types.intp, types.intp
    )

    def generate(context, builder, signature, args):
        return _store_signs(context, builder, signature, args, lanewise=True)

    return signature, generate


@intrinsic
def _compiled_square_sum(typingctx, array, position, count):
    signature = types.float32(array, types.intp, types.intp)

    def generate(context, builder, signature, args):
        pointer = _pointer(context, builder, signature.args[0], args[0], args[1])
        zero = ir.Constant(_VECTOR, [0.0] * LANES)
        total = cgutils.alloca_once_value(builder, zero)
        builder.store(zero, total)
        width = ir.Constant(args[2].type, LANES)
        with cgutils.for_range(builder, builder.sdiv(args[2], width)) as loop:
            value = _load_vector(builder, builder.gep(pointer, [builder.mul(loop.index, width)]))
            builder.store(_multiply_add(builder, value, value, builder.load(total)), total)
        value, index = builder.load(total), ir.IntType(32)
        for half in (8, 4, 2, 1):  # the lanes are added as a tree, the same everywhere
            order = [ir.Constant(index, (j + half) % LANES) for j in range(LANES)]
            swapped = builder.shuffle_vector(value, value, ir.Constant(ir.VectorType(index, LANES), order))
            value = builder.fadd(value, swapped)
        return builder.extract_element(value, ir.Constant(index, 0))

    return signature, generate


def _scaled(context: Any, builder: Any, signature: Any, args: Any, accumulate: bool) -> Any:
    """Emit ``out[...] (+)= weight * source[...]`` over whole vectors."""
    pointer = _pointer(context, builder, signature.args[0], args[0], args[1])
    target = _pointer(context, builder, signature.args[4], args[4], args[5])
    width = ir.Constant(args[2].type, LANES)
    factor = _broadcast(builder, args[3])
    with cgutils.for_range(builder, builder.sdiv(args[2], width)) as loop:
        offset = builder.mul(loop.index, width)
        place = builder.gep(target, [offset])
        value = _load_vector(builder, builder.gep(pointer, [offset]))
        if accumulate:
            value = _multiply_add(builder, value, factor, _load_vector(builder, place))
        else:
            value = builder.fmul(value, factor)
        _store_vector(builder, value, place)
    return context.get_dummy_value()


@intrinsic
def _compiled_add_scaled(typingctx, source, position, count, weight, out, start):
    signature = types.void(source, types.intp, types.intp, types.float32, out, types.intp)

    def generate(context, builder, signature, args):
        return _scaled(context, builder, signature, args, accumulate=True)

    return signature, generate


@intrinsic
def _compiled_set_scaled(typingctx, source, position, count, weight, out, start):
    signature = types.void(source, types.intp, types.intp, types.float32, out, types.intp)

    def generate(context, builder, signature, args):
        return _scaled(context, builder, signature, args, accumulate=False)

    return signature, generate


@intrinsic
def _compiled_prefetch(typingctx, array, position):
    signature = types.void(array, types.intp)

    def generate(context, builder, signature, args):
        pointer = _pointer(context, builder, signature.args[0], args[0], args[1])
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.VoidType(), [byte, word, word, word]), "llvm.prefetch.p0"
        )
        # Read, into the second-level cache: the first would evict the packed columns.
        flags = [ir.Constant(word, 0), ir.Constant(word, 2), ir.Constant(word, 1)]
        builder.call(function, [builder.bitcast(pointer, byte), *flags])
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _compiled_widen(typingctx, halves, source, out, position):
    signature = types.void(halves, types.intp, out, types.intp)

    def generate(context, builder, signature, args):
        half = ir.VectorType(ir.HalfType(), LANES)
        pointer = _pointer(context, builder, signature.args[0], args[0], args[1])
        value = builder.load(builder.bitcast(pointer, half.as_pointer()), align=2)
        _store_vector(
            builder,
            builder.fpext(value, _VECTOR),
            _pointer(context, builder, signature.args[2], args[2], args[3]),
        )
        return context.get_dummy_value()

    return signature, generate


def _interpreted_tile(rows, row, last, depth, packed, panel):
    picked = np.minimum(np.arange(row, row + ROWS), last)
    columns = packed[panel * depth * LANES : (panel + 1) * depth * LANES].reshape(depth, LANES)
    return rows[: (last + 1) * depth].reshape(-1, depth)[picked] @ columns


def _interpreted_lane_tile(rows, row, last, depth, packed, panel):
    picked = np.minimum(np.arange(row, row + ROWS), last)
    wanted = rows[: (last + 1) * depth].reshape(-1, depth // LANES, LANES)[picked]
    return (wanted * packed[panel * depth : (panel + 1) * depth].reshape(-1, LANES)).sum(1)


def _interpreted_dot(rows, row, last, depth, packed, panel, out, position):
    tile = _interpreted_tile(rows, row, last, depth, packed, panel)
    out[position : position + ROWS * LANES] = tile.ravel()


def _interpreted_lane_dot(rows, row, last, depth, packed, panel, out, position):
    tile = _interpreted_lane_tile(rows, row, last, depth, packed, panel)
    out[position : position + ROWS * LANES] = tile.ravel()


def _interpreted_max(rows, row, last, depth, packed, panel, out, position):
    best = out[position : position + LANES]
    np.maximum(best, _interpreted_tile(rows, row, last, depth, packed, panel).max(0), out=best)


def _write_signs(tile, out, position, step):
    for i in range(ROWS):
        out[position + i * step] = ((tile[i] > 0) << np.arange(LANES)).sum()


def _interpreted_signs(rows, row, last, depth, packed, panel, out, position, step):
    _write_signs(_interpreted_tile(rows, row, last, depth, packed, panel), out, position, step)


def _interpreted_lane_signs(rows, row, last, depth, packed, panel, out, position, step):
    _write_signs(_interpreted_lane_tile(rows, row, last, depth, packed, panel), out, position, step)


def _interpreted_widen(halves, source, out, position):
    out[position : position + LANES] = halves[source : source + LANES].view(np.float16)


def _interpreted_square_sum(array, position, count):
    row = array[position : position + count // LANES * LANES]
    return np.float32(row @ row)


def _interpreted_add_scaled(source, position, count, weight, out, start):
    count = count // LANES * LANES
    out[start : start + count] += source[position : position + count] * np.float32(weight)


def _interpreted_set_scaled(source, position, count, weight, out, start):
    count = count // LANES * LANES
    out[start : start + count] = source[position : position + count] * np.float32(weight)


def _interpreted_prefetch(array, position):
    return None


# All take flat arrays.  `rows` is float32 of rows of `depth` entries, `row` and `last` the
# first row of the tile and the last valid one, `panel` the packed panel's number.
if INTERPRETED:
    #: Write the tile's ROWS * LANES products to ``out[position:]``, row by row.
    tile_dot: Any = _interpreted_dot
    #: Raise ``out[position : position + LANES]`` to the maxima over the tile's rows.
    tile_max: Any = _interpreted_max
    #: Write each row's signs as a uint16 (bit j: column j > 0) to ``out[position + i * step]``.
    tile_signs: Any = _interpreted_signs
    #: The same two with `packed` (panels, depth / LANES, LANES) multiplied lane by lane.
    lane_dot: Any = _interpreted_lane_dot
    lane_signs: Any = _interpreted_lane_signs
    #: Ask for the cache line at ``array[position]`` (any position; it may lie outside).
    prefetch: Any = _interpreted_prefetch
    #: Sum of squares of ``array[position : position + count]``, count cut to whole LANES.
    square_sum: Any = _interpreted_square_sum
    #: Add ``weight * source[position : ...]`` to ``out[start : ...]``, count cut to whole LANES.
    add_scaled: Any = _interpreted_add_scaled
    #: Write the same product instead of adding it.
    set_scaled: Any = _interpreted_set_scaled
    _widen: Any = _interpreted_widen
else:
    tile_dot = _compiled_dot
    tile_max = _compiled_max
    tile_signs = _compiled_signs
    lane_dot = _compiled_lane_dot
    lane_signs = _compiled_lane_signs
    prefetch = _compiled_prefetch
    square_sum = _compiled_square_sum
    add_scaled = _compiled_add_scaled
    set_scaled = _compiled_set_scaled
    _widen = _compiled_widen


@kernel
def widen_halves(halves, start, stop, out):
    """Write float16 bit patterns ``halves[start:stop]`` (flat uint16) to `out` as float32.

    `out` needs room for LANES - 1 values more than it receives.
    """
    whole = (stop - start) // LANES * LANES
    for i in range(0, whole, LANES):
        _widen(halves, start + i, out, i)
    if whole < stop - start:
        tail = np.zeros(LANES, np.uint16)
        for i in range(whole, stop - start):
            tail[i - whole] = halves[start + i]
        _widen(tail, 0, out, whole)


@kernel
def multiply(rows, packed, out):
    """Write the product of `rows` (n, depth) and `packed` columns to `out` (n, m)."""
    count, depth = rows.shape
    width = out.shape[1]
    flat = rows.reshape(-1)
    columns = packed.reshape(-1)
    tile = np.empty(ROWS * LANES, np.float32)
    for panel in range(packed.shape[0]):
        first = panel * LANES
        used = min(LANES, width - first)
        for row in range(0, count, ROWS):
            tile_dot(flat, row, count - 1, depth, columns, panel, tile, 0)
            for i in range(min(ROWS, count - row)):
                for j in range(used):
                    out[row + i, first + j] = tile[i * LANES + j]
