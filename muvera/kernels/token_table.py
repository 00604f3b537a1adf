"""Scores of documents whose tokens are rows of one table.

The similarity of each row with a query is computed once, as a 16-bit integer from
products of bytes or as a float.  Then the maximum over the tokens of a document is a
maximum of looked up numbers.

Sizes: ``size`` rows have similarities, in panels of LANES query tokens: ``(panels,
size, LANES)``, flat.  Columns after the last token of a query are zero.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from .byte_tile import ADDITIONS, emit_sums
from .jit import (
    FLOAT,
    INT32,
    Intrinsic,
    call,
    constant,
    emitted,
    kernel,
    load_vector,
    plus,
    store_vector,
    tile_rows,
    times,
)
from .tile import LANES, ROWS, tile_dot

#: Byte of an entry of a table that is 0.
ZERO = 128

#: Largest 16-bit similarity.
MOST = 32767

_SUMS = ir.VectorType(INT32, LANES)

# Lookups per step of the loop.
_STEP = 8


def make_products(addition: str) -> Intrinsic:
    """Return the intrinsic that multiplies chosen rows of bytes with a panel.

    It writes the sums of the rows at ``used[first], ..., used[last]``, at most ROWS, to
    `out`, row by row.
    """
    add = ADDITIONS[addition]

    @emitted
    def write(builder, table, used, first, last, depth, packed, panel, out):
        places = tile_rows(builder, first, last, ROWS)
        numbers = [builder.load(builder.gep(used, [place])) for place in places]
        rows = [builder.gep(table, [builder.mul(number, depth)]) for number in numbers]
        column = builder.gep(packed, [builder.mul(panel, times(builder, depth, LANES))])
        [sums] = emit_sums(builder, rows, depth, [column], add)
        for i, total in enumerate(sums):
            store_vector(builder, total, builder.gep(out, [ir.Constant(first.type, i * LANES)]))

    return write


_row_products = make_products(list(ADDITIONS)[-1])


@kernel
def round_similarities(table, units, used, places, packed, biases, factors, size, out):
    """Write the similarities of rows with a query as 16-bit integers.

    ``table`` is flat, unsigned bytes (V, depth), with ZERO for 0, and ``units`` (V,)
    are the steps of a byte.  The similarities of the row ``used[i]`` go to the place
    ``places[i]``.  `packed` is the query by pack_bytes; `biases` and `factors` have an
    entry for each of its tokens and zeros up to whole panels.
    """
    panels = factors.shape[0] // LANES
    depth = table.shape[0] // units.shape[0]
    last = used.shape[0] - 1
    sums = np.empty(ROWS * LANES, np.int32)
    for panel in range(panels):
        bias, factor = biases[panel * LANES :], factors[panel * LANES :]
        for first in range(0, last + 1, ROWS):
            _row_products(table, used, first, last, depth, packed, panel, sums)
            for i in range(min(ROWS, last + 1 - first)):
                unit = units[used[first + i]]
                start = (panel * size + places[first + i]) * LANES
                own, to = sums[i * LANES : (i + 1) * LANES], out[start : start + LANES]
                for j in range(LANES):
                    to[j] = np.int32(np.rint(np.float32(own[j] - bias[j]) * (unit * factor[j])))


@kernel
def exact_similarities(rows, packed, out):
    """Write the products of all `rows` (n, depth) with packed query tokens."""
    count, depth = rows.shape
    flat = rows.reshape(-1)
    sums = np.empty(ROWS * LANES, np.float32)
    for panel in range(packed.shape[0] // (depth * LANES)):
        for row in range(0, count, ROWS):
            tile_dot(flat, row, count - 1, depth, packed, panel, sums, 0)
            start = (panel * count + row) * LANES
            for i in range(min(ROWS, count - row) * LANES):
                out[start + i] = sums[i]


def _emit_maxima(
    builder: ir.IRBuilder, numbers: ir.Value, start: ir.Value, stop: ir.Value, rows: ir.Value, first: ir.Value
) -> ir.Value:
    """Emit the maxima over the rows ``numbers[start:stop]`` of the panel at `first`."""
    entry = rows.type.pointee
    vector = ir.VectorType(entry, LANES)
    lowest = constant(vector, -np.inf if entry == FLOAT else -MOST - 1)
    panel = builder.gep(rows, [first])
    best = [cgutils.alloca_once(builder, vector) for _ in range(2)]
    for maxima in best:
        builder.store(lowest, maxima)

    def raise_to(place: ir.Value, maxima: ir.Value) -> None:
        number = builder.zext(builder.load(builder.gep(numbers, [place])), start.type)
        row = load_vector(builder, builder.gep(panel, [times(builder, number, LANES)]), vector)
        builder.store(_larger(builder, row, builder.load(maxima)), maxima)

    def raise_to_step(place: ir.Value) -> None:
        for i in range(_STEP):
            raise_to(plus(builder, place, i), best[i % 2])

    step = ir.Constant(start.type, _STEP)
    count = builder.sub(stop, start)
    with builder.if_else(builder.icmp_signed(">=", count, step)) as (many, few):
        with many:
            steps = builder.udiv(builder.sub(count, ir.Constant(start.type, 1)), step)
            with cgutils.for_range(builder, steps) as loop:
                raise_to_step(builder.add(start, times(builder, loop.index, _STEP)))
            # It may repeat tokens, which changes no maximum and ends no loop early.
            raise_to_step(builder.sub(stop, step))
        with few, cgutils.for_range(builder, count) as loop:
            raise_to(builder.add(start, loop.index), best[0])
    return _larger(builder, builder.load(best[0]), builder.load(best[1]))


def _larger(builder: ir.IRBuilder, left: ir.Value, right: ir.Value) -> ir.Value:
    """Emit the larger entry of two vectors in each lane."""
    compare = builder.fcmp_ordered if left.type.element == FLOAT else builder.icmp_signed
    return builder.select(compare(">", left, right), left, right)


def _emit_sum(builder: ir.IRBuilder, vector: ir.Value) -> ir.Value:
    """Emit the sum of lanes, as float64 and in order; integers are exact."""
    if vector.type.element != FLOAT:
        wide = builder.sext(vector, ir.VectorType(INT32, LANES))
        total = call(builder, f"llvm.vector.reduce.add.v{LANES}i32", INT32, wide)
        return builder.sitofp(total, ir.DoubleType())
    total = ir.Constant(ir.DoubleType(), 0)
    for i in range(LANES):
        entry = builder.extract_element(vector, ir.Constant(INT32, i))
        total = builder.fadd(total, builder.fpext(entry, ir.DoubleType()))
    return total


@emitted
def _write_maxima(builder, numbers, start, stop, rows, first, out, position):
    """Write the maxima over the rows ``numbers[start:stop]`` of a panel to `out`."""
    store_vector(
        builder, _emit_maxima(builder, numbers, start, stop, rows, first), builder.gep(out, [position])
    )


def _emit_sum_of_maxima(builder, numbers, start, stop, rows, first):
    """Emit the sum of the maxima over the rows ``numbers[start:stop]`` of a panel."""
    return _emit_sum(builder, _emit_maxima(builder, numbers, start, stop, rows, first))


def _emit_sum_of_larger(builder, maxima):
    """Emit the sum of the larger entries of the first and the second LANES entries."""
    kind = ir.VectorType(maxima.type.pointee, LANES)
    left = load_vector(builder, maxima, kind)
    right = load_vector(builder, builder.gep(maxima, [ir.Constant(INT32, LANES)]), kind)
    return _emit_sum(builder, _larger(builder, left, right))


def _emit_sum_of_lanes(builder, rows, first):
    """Emit the sum of LANES entries."""
    kind = ir.VectorType(rows.type.pointee, LANES)
    return _emit_sum(builder, load_vector(builder, builder.gep(rows, [first]), kind))


_sum_of_maxima = emitted(_emit_sum_of_maxima, types.float64)
_sum_of_larger = emitted(_emit_sum_of_larger, types.float64)
_sum_of_lanes = emitted(_emit_sum_of_lanes, types.float64)


# numba cannot keep the machine code of a kernel that is made by another function.
@kernel
def score_looked_up(numbers, offsets, documents, similarities, size, half, unit, out, places):
    """Write the Chamfer similarities of `documents` (c,) with one query to `out` (c,).

    ``numbers[offsets[i] : offsets[i + 1]]`` are the places of the tokens of document i
    in `similarities`, which have `size` places in each panel and are in multiples of
    `unit`.  A document of more than ``2 * half`` tokens has the score of its best
    passage, and `places` (c,) receives the number of that passage.  Passages have two
    blocks of `half` tokens, and begin with each block but the last.  `out` is -inf for
    a document without tokens.
    """
    stride = max(1, size) * LANES
    maxima = np.empty(2 * LANES, similarities.dtype)
    sums = np.empty(64)
    for i in range(documents.shape[0]):
        start, stop = offsets[documents[i]], offsets[documents[i] + 1]
        places[i] = 0
        if stop - start <= 2 * half:
            total = 0.0
            for first in range(0, similarities.shape[0], stride):
                total += _sum_of_maxima(numbers, start, stop, similarities, first)
            out[i] = unit * total if stop > start else -np.inf
            continue
        passages = (stop - start + half - 1) // half - 1
        if passages > sums.shape[0]:
            sums = np.empty(2 * passages)
        sums[:passages] = 0
        for first in range(0, similarities.shape[0], stride):
            _write_maxima(numbers, start, start + half, similarities, first, maxima, 0)
            for j in range(passages):
                begin = start + (j + 1) * half
                side = (j + 1) % 2 * LANES
                _write_maxima(numbers, begin, min(begin + half, stop), similarities, first, maxima, side)
                sums[j] += _sum_of_larger(maxima)
        for j in range(1, passages):
            if sums[j] > sums[places[i]]:
                places[i] = j
        out[i] = unit * sums[places[i]]


@kernel
def mean_products(numbers, offsets, documents, places, similarities, size, half, unit, out):
    """Write the mean over each document's tokens of their products with a query's sum.

    Of a long document, only the tokens of the passage ``places[i]`` count.
    :func:`score_looked_up` describes the other parameters.
    """
    stride = max(1, size) * LANES
    for i in range(documents.shape[0]):
        start, stop = offsets[documents[i]], offsets[documents[i] + 1]
        if stop - start > 2 * half:
            start += places[i] * half
            stop = min(start + 2 * half, stop)
        total = 0.0
        for first in range(0, similarities.shape[0], stride):
            for token in range(start, stop):
                total += _sum_of_lanes(similarities, first + np.int64(numbers[token]) * LANES)
        out[i] = unit * total / max(1, stop - start)
