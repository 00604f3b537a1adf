"""The float32 inner product tile, from which the kernels build matrix products.

One intrinsic multiplies ``ROWS`` rows by ``LANES`` packed columns.  Its accumulators stay in registers.  Each step
along the depth adds to them by fused multiply-adds.  Two properties follow that a BLAS product does not have:

* An entry of a product has the same bits for any number of rows, columns and threads, and for any vector width of
  the machine: its sum has a fixed order.  So a token falls into the same SimHash cell alone and in any batch.
* A kernel can take the maxima or the signs of a product without storing the product.

Sizes: ``depth`` columns of the left matrix (the tokens' dimension), ``LANES`` columns in a
panel of the packed right matrix, which is float32 ``(panels, depth, LANES)``, zero-padded.
"""

from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .llvm_helpers import (
    FLOAT,
    broadcast,
    constant,
    entry_address,
    fused_multiply_add,
    load_vector,
    new_sums,
    store_vector,
    tile_rows,
)

#: Packed columns in a panel: one AVX-512 register, two of AVX2, four of NEON.
LANES = 16

# The accumulators must fit into the registers: 32 wide registers with AVX-512, otherwise 16 of half the
# width.
_WIDE_REGISTERS = bool(binding.get_host_cpu_features().get("avx512f", False))

#: Rows in a tile.
ROWS = 8 if _WIDE_REGISTERS else 4

_VECTOR = ir.VectorType(FLOAT, LANES)


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


def _emit_sums(context: Any, builder: Any, signature: Any, args: Any, lanewise: bool) -> list[Any]:
    """Emit the product of ROWS rows and one panel; return ROWS vectors of sums.

    By default, each entry of a row is multiplied by a packed vector.  With `lanewise`, LANES entries of a row are
    multiplied by a packed vector, lane by lane, so that each lane has its own partial sum.
    """
    rows_array, row, last, depth, packed, panel = args[:6]
    lanes = ir.Constant(depth.type, LANES)
    rows = [
        entry_address(context, builder, signature.args[0], rows_array, builder.mul(position, depth))
        for position in tile_rows(builder, row, last, ROWS)
    ]
    size = depth if lanewise else builder.mul(depth, lanes)
    steps = builder.sdiv(depth, lanes) if lanewise else depth
    columns = entry_address(context, builder, signature.args[4], packed, builder.mul(panel, size))
    sums = new_sums(builder, _VECTOR, ROWS)
    with cgutils.for_range(builder, steps) as loop:
        offset = builder.mul(loop.index, lanes)
        column = load_vector(builder, builder.gep(columns, [offset]), _VECTOR)
        for address, total in zip(rows, sums, strict=True):
            if lanewise:
                value = load_vector(builder, builder.gep(address, [offset]), _VECTOR)
            else:
                value = broadcast(builder, builder.load(builder.gep(address, [loop.index])), LANES)
            builder.store(fused_multiply_add(builder, value, column, builder.load(total)), total)
    return [builder.load(total) for total in sums]


def _compiled_dot(lanewise: bool) -> Any:
    @intrinsic
    def compiled(typingctx, rows, row, last, depth, packed, panel, out, position):
        signature = types.void(rows, types.intp, types.intp, types.intp, packed, types.intp, out, types.intp)

        def generate(context, builder, signature, args):
            address = entry_address(context, builder, signature.args[6], args[6], args[7])
            for i, total in enumerate(_emit_sums(context, builder, signature, args, lanewise)):
                store_vector(builder, total, builder.gep(address, [ir.Constant(args[7].type, i * LANES)]))
            return context.get_dummy_value()

        return signature, generate

    return compiled


@intrinsic
def _compiled_signs(typingctx, rows, row, last, depth, packed, panel, out, position, step):
    signature = types.void(
        rows, types.intp, types.intp, types.intp, packed, types.intp, out, types.intp, types.intp
    )

    def generate(context, builder, signature, args):
        address = entry_address(context, builder, signature.args[6], args[6], args[7])
        for total in _emit_sums(context, builder, signature, args, lanewise=False):
            positive = builder.fcmp_ordered(">", total, constant(_VECTOR, 0))
            builder.store(builder.bitcast(positive, ir.IntType(LANES)), address)
            address = builder.gep(address, [args[8]])
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _compiled_max(typingctx, rows, row, last, depth, packed, panel, out, position):
    signature = types.void(rows, types.intp, types.intp, types.intp, packed, types.intp, out, types.intp)

    def generate(context, builder, signature, args):
        address = entry_address(context, builder, signature.args[6], args[6], args[7])
        best = load_vector(builder, address, _VECTOR)
        for total in _emit_sums(context, builder, signature, args, lanewise=False):
            best = builder.select(builder.fcmp_ordered(">", total, best), total, best)
        store_vector(builder, best, address)
        return context.get_dummy_value()

    return signature, generate


# All take flat arrays.  `rows` contains float32 rows of `depth` entries.  `row` is the first row of the tile, `last` is
# the last valid row, and `panel` is the number of the packed panel.
_make_dot = _compiled_dot

#: Write the tile's ROWS * LANES products to ``out[position:]``, row by row.
tile_dot: Any = _make_dot(lanewise=False)
#: Raise ``out[position : position + LANES]`` to the maxima over the tile's rows.
tile_max: Any = _compiled_max
#: Write each row's signs as a uint16 (bit j: column j > 0) to ``out[position + i * step]``.
tile_signs: Any = _compiled_signs
#: :data:`tile_dot` of a packed matrix (panels, depth / LANES, LANES), multiplied lane by lane.
lane_dot: Any = _make_dot(lanewise=True)
