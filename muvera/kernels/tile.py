"""The float32 inner product tile, from which the kernels build matrix products.

One intrinsic multiplies ``ROWS`` rows by ``LANES`` packed columns.  Its accumulators
stay in registers.  Each step along the depth adds to them by fused multiply-adds.  Two
properties follow that a BLAS product does not have:

* An entry of a product has the same bits for any number of rows, columns and threads,
  and for any vector width of the machine: its sum has a fixed order.  So a token falls
  into the same SimHash cell alone and in any batch.
* A kernel can take the maxima or the signs of a product without storing the product.

Sizes: ``depth`` columns of the left matrix (the tokens' dimension), ``LANES`` columns
in a panel of the packed right matrix, which is float32 ``(panels, depth, LANES)``,
zero-padded.  The intrinsics get flat arrays: `row` is the first row of the tile in
`rows`, `last` the last valid row, and `panel` the number of the panel in `packed`.
"""

import numpy as np
from llvmlite import ir
from numba.core import cgutils

from .jit import (
    FEATURES,
    FLOAT,
    INT32,
    Intrinsic,
    broadcast,
    constant,
    emitted,
    fused_multiply_add,
    helper,
    load_vector,
    new_sums,
    plus,
    store_vector,
    tile_rows,
    times,
)

#: Packed columns in a panel: one AVX-512 register, two of AVX2, four of NEON.
LANES = 16

#: Rows in a tile.  The accumulators must fit into the registers: 32 wide ones with
#: AVX-512, otherwise 16 of half the width.
ROWS = 8 if FEATURES.get("avx512f", False) else 4

# Panels whose sums fit into the registers at a time: they share the loads of the rows.
_PANELS = 2 if ROWS == 8 else 1

# Bytes of a cache line.
_LINE = 64

_VECTOR = ir.VectorType(FLOAT, LANES)


def pad_columns(matrix: np.ndarray) -> np.ndarray:
    """Return float32 with zeros behind the last axis, up to a multiple of LANES."""
    widths = [(0, 0)] * (matrix.ndim - 1) + [(0, -matrix.shape[-1] % LANES)]
    return np.pad(matrix, widths).astype(np.float32)


def pack_columns(matrix: np.ndarray) -> np.ndarray:
    """Pack the rows of `matrix` (n, depth) as columns for the tile.

    The result is float32 (panels, depth, LANES).  ``packed[p, :, j]`` is row ``p *
    LANES + j``; rows past n are zero.
    """
    count, depth = matrix.shape
    panels = -(-count // LANES)
    padded = np.zeros((panels * LANES, depth), np.float32)
    padded[:count] = matrix
    return np.ascontiguousarray(padded.reshape(panels, LANES, depth).transpose(0, 2, 1))


def at_cache_line(array: np.ndarray) -> np.ndarray:
    """Return a flat copy of a float32 `array` that starts at a cache line.

    Loads of LANES floats are faster if none of them lies in two lines.
    """
    room = np.empty(array.size + _LINE // 4, np.float32)
    skipped = -room.ctypes.data % _LINE // 4
    room = room[skipped : skipped + array.size]
    room[:] = array.reshape(-1)
    return room


def _emit_sums(
    builder: ir.IRBuilder,
    rows: ir.Value,
    row: ir.Value,
    last: ir.Value,
    depth: ir.Value,
    packed: ir.Value,
    panel: ir.Value,
    lanewise: bool = False,
    panels: int = 1,
    used: ir.Value | None = None,
) -> list[ir.Value]:
    """Emit the product of ROWS rows and `panels` panels: ROWS vectors of sums each.

    By default, each entry of a row is multiplied by a packed vector.  With `lanewise`,
    LANES entries of a row are multiplied by a packed vector, lane by lane, so that each
    lane has a separate partial sum.  The sums run over the first `used` columns, by
    default all of them.
    """
    lanes = ir.Constant(depth.type, LANES)
    places = tile_rows(builder, row, last, ROWS)
    starts = [builder.gep(rows, [builder.mul(place, depth)]) for place in places]
    size = depth if lanewise else builder.mul(depth, lanes)
    steps = depth if used is None else used
    if lanewise:
        steps = builder.sdiv(steps, lanes)
    columns = [builder.gep(packed, [builder.mul(plus(builder, panel, i), size)]) for i in range(panels)]
    sums = new_sums(builder, _VECTOR, panels * ROWS)
    with cgutils.for_range(builder, steps) as loop:
        offset = builder.mul(loop.index, lanes)
        factors = [load_vector(builder, builder.gep(first, [offset]), _VECTOR) for first in columns]
        for i, start in enumerate(starts):
            if lanewise:
                value = load_vector(builder, builder.gep(start, [offset]), _VECTOR)
            else:
                value = broadcast(builder, builder.load(builder.gep(start, [loop.index])), LANES)
            for factor, total in zip(factors, sums[i::ROWS], strict=True):
                builder.store(fused_multiply_add(builder, value, factor, builder.load(total)), total)
    return [builder.load(total) for total in sums]


def _dot(lanewise: bool) -> Intrinsic:
    @emitted
    def dot(builder, rows, row, last, depth, packed, panel, out, position):
        address = builder.gep(out, [position])
        for i, total in enumerate(_emit_sums(builder, rows, row, last, depth, packed, panel, lanewise)):
            store_vector(builder, total, builder.gep(address, [ir.Constant(position.type, i * LANES)]))

    return dot


#: Write the tile's ROWS * LANES products to ``out[position:]``, row by row.
tile_dot = _dot(lanewise=False)
#: The same with a packed matrix (panels, depth / LANES, LANES): ROWS * LANES partial
#: sums, one per lane.
lane_dot = _dot(lanewise=True)


@emitted
def tile_dot_below(builder, rows, row, last, depth, packed, panel, out):
    """Write `tile_dot` to `out` for a lower triangular matrix.

    Column j of the matrix has j + 1 entries.
    """
    used = times(builder, plus(builder, panel, 1), LANES)
    for i, total in enumerate(_emit_sums(builder, rows, row, last, depth, packed, panel, used=used)):
        store_vector(builder, total, builder.gep(out, [ir.Constant(row.type, i * LANES)]))


def _emit_outer(
    builder: ir.IRBuilder,
    left: ir.Value,
    row: ir.Value,
    right: ir.Value,
    column: ir.Value,
    width: ir.Value,
    count: ir.Value,
) -> list[ir.Value]:
    """Emit ROWS vectors of sums of products of columns.

    The sums run over `count` rows of `width` floats.  Columns ``row + i`` of `left` are
    multiplied by the LANES columns of `right` from `column` on.
    """
    sums = new_sums(builder, _VECTOR, ROWS)
    with cgutils.for_range(builder, count) as loop:
        start = builder.mul(loop.index, width)
        factor = load_vector(builder, builder.gep(right, [builder.add(start, column)]), _VECTOR)
        begin = builder.gep(left, [builder.add(start, row)])
        for i, total in enumerate(sums):
            address = builder.gep(begin, [ir.Constant(row.type, i)])
            value = broadcast(builder, builder.load(address), LANES)
            builder.store(fused_multiply_add(builder, value, factor, builder.load(total)), total)
    return [builder.load(total) for total in sums]


@emitted
def tile_outer(builder, left, row, right, column, width, count, out):
    """Write the ROWS * LANES sums of :func:`_emit_outer` to `out`."""
    for i, total in enumerate(_emit_outer(builder, left, row, right, column, width, count)):
        store_vector(builder, total, builder.gep(out, [ir.Constant(row.type, i * LANES)]))


@emitted
def outer_triangle(builder, left, row, right, column, width, count, diagonal, other, out, start, length):
    """Write the sums of `tile_outer` to rows of an upper triangle.

    Column j of `row` goes to ``out[start + j]``; `row` has `length` entries from the
    diagonal on, and each following row has one entry less.  Entries are multiplied by
    `diagonal` or, off the diagonal, by `other`.  A tile at the diagonal also writes to
    the end of the previous row.  Later writes replace these entries: the rows of
    a tile are written from the last to the first, and the caller takes the columns in
    ascending order and, for each, the rows in descending order.
    """
    factors = broadcast(builder, other, LANES)
    lanes = ir.Constant(ir.VectorType(INT32, LANES), list(range(LANES)))
    totals = _emit_outer(builder, left, row, right, column, width, count)
    for i in reversed(range(ROWS)):
        lane = builder.trunc(builder.sub(plus(builder, row, i), column), INT32)
        here = builder.icmp_signed("==", lanes, broadcast(builder, lane, LANES))
        factor = builder.select(here, broadcast(builder, diagonal, LANES), factors)
        begin = plus(builder, builder.add(start, times(builder, length, i)), -i * (i + 1) // 2)
        address = builder.gep(out, [builder.add(begin, column)])
        store_vector(builder, builder.fmul(totals[i], factor), address)


@emitted
def tile_scatter(builder, rows, row, last, depth, packed, panel, scales, out, places, offset):
    """Write a row's products times ``scales[row]`` to ``out[places[row] + offset :]``.

    `scales` and `places` have an entry for each of `rows`.
    """
    positions = tile_rows(builder, row, last, ROWS)
    totals = _emit_sums(builder, rows, row, last, depth, packed, panel)
    for position, total in zip(positions, totals, strict=True):
        scale = broadcast(builder, builder.load(builder.gep(scales, [position])), LANES)
        start = builder.add(builder.load(builder.gep(places, [position])), offset)
        store_vector(builder, builder.fmul(total, scale), builder.gep(out, [start]))


def _emit_maxima(builder: ir.IRBuilder, totals: list[ir.Value], address: ir.Value) -> None:
    """Raise LANES floats at `address` to the maxima over some vectors."""
    best = load_vector(builder, address, _VECTOR)
    for total in totals:
        best = builder.select(builder.fcmp_ordered(">", total, best), total, best)
    store_vector(builder, best, address)


@emitted
def tile_max(builder, rows, row, last, depth, packed, panel, out, position):
    """Raise ``out[position : position + LANES]`` to the maxima over the tile's rows."""
    totals = _emit_sums(builder, rows, row, last, depth, packed, panel)
    _emit_maxima(builder, totals, builder.gep(out, [position]))


@emitted
def tile_max_of_two(builder, rows, row, last, depth, packed, panel, out, position):
    """Raise ``out[position : position + 2 * LANES]`` to the maxima at two panels.

    Faster than `tile_max` at each of them: they share the loads of the rows.
    """
    for first in range(0, 2, _PANELS):
        begin = plus(builder, panel, first)
        totals = _emit_sums(builder, rows, row, last, depth, packed, begin, panels=_PANELS)
        for i in range(_PANELS):
            address = builder.gep(out, [plus(builder, position, (first + i) * LANES)])
            _emit_maxima(builder, totals[i * ROWS : (i + 1) * ROWS], address)


@helper
def raise_maxima(rows, row, last, depth, packed, panel, panels, best):
    """Raise ``best[panel * LANES :]`` to the maxima of a panel and of the next, if any.

    `panels` is the number of all panels.
    """
    if panel + 1 < panels:
        tile_max_of_two(rows, row, last, depth, packed, panel, best, panel * LANES)
    else:
        tile_max(rows, row, last, depth, packed, panel, best, panel * LANES)


@emitted
def tile_signs(builder, rows, row, last, depth, packed, panel, out, position, step):
    """Write each row's signs as a uint16 to ``out[position + i * step]``.

    Bit j is set if column j is positive.
    """
    address = builder.gep(out, [position])
    for total in _emit_sums(builder, rows, row, last, depth, packed, panel):
        positive = builder.fcmp_ordered(">", total, constant(_VECTOR, 0))
        builder.store(builder.bitcast(positive, ir.IntType(LANES)), address)
        address = builder.gep(address, [step])


@emitted
def tile_signs_of_two(builder, rows, row, last, depth, packed, panel, out, position, stride):
    """Write the signs at two panels as `tile_signs`, the second `stride` behind."""
    for first in range(0, 2, _PANELS):
        begin = plus(builder, panel, first)
        totals = _emit_sums(builder, rows, row, last, depth, packed, begin, panels=_PANELS)
        for i, total in enumerate(totals):
            positive = builder.fcmp_ordered(">", total, constant(_VECTOR, 0))
            start = builder.add(position, times(builder, stride, first + i // ROWS))
            address = builder.gep(out, [plus(builder, start, i % ROWS)])
            builder.store(builder.bitcast(positive, ir.IntType(LANES)), address)
