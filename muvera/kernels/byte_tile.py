"""Sums of products of unsigned and signed bytes.

They are exact integers, the same on every machine.  A map in bytes takes a quarter of
the memory of a map in float32.  Processors with AVX-512 VNNI add four products of bytes
at once, so multiplying by such a map can take a quarter of the time.

Sizes: ``depth`` bytes of a row, a multiple of STEP; ``LANES`` columns in a panel of the
packed right matrix, int8 ``(panels, depth / STEP, LANES, STEP)``.  No sum exceeds 2**31
if ``depth`` is at most MAX_DEPTH.

An entry of a matrix in half bytes is one of the 16 numbers -120, -104, ..., 120.  Only
its upper 4 bits are stored, because the lower ones are always 1000.  A panel has the
shape ``(depth / (2 * STEP), LANES, STEP)``.  Of 2 * STEP consecutive entries of a
column, the first STEP are in the lower halves of STEP bytes, the others in the upper
halves.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba.core import cgutils

from .jit import (
    BYTE,
    FEATURES,
    INT32,
    Intrinsic,
    broadcast,
    call,
    constant,
    emit_prefetch,
    emitted,
    load_vector,
    new_sums,
    plus,
    shuffle,
    store_vector,
    tile_rows,
    times,
)
from .tile import LANES, ROWS

#: Consecutive bytes of a column that are multiplied together.
STEP = 4

#: Panels of a strip, which has two rows: the high and low bytes of a single query.
STRIP = ROWS // 2

#: Panels that are multiplied together: as many as fit into the registers, because they
#: share the loads of the rows.
WIDE = ROWS // 4

#: Bytes of a vector register.
SPAN = STEP * LANES

#: Vectors of signed bytes that are multiplied together with a query.
VECTORS = 4

#: Maximum number of bytes in a row: 255 * 128 * MAX_DEPTH is below 2**31.
MAX_DEPTH = 65536

_SUMS = ir.VectorType(INT32, LANES)

# Mask of the upper half of each byte in a 32-bit integer, as a signed number.
_UPPER = 0xF0F0F0F0 - 2**32

# The bits 1000 in the lower half of each byte.
_LOWER = 0x08080808


#: Emits a sum plus the products of one step: of a row's bytes and a column's bytes.
Addition = Callable[[ir.IRBuilder, ir.Value, ir.Value, ir.Value], ir.Value]


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
    """Pack the columns of `matrix`, int8 (depth, n), in panels of half bytes.

    Return a flat array.  depth must be a multiple of 2 * STEP.  Zeros fill the panels
    up to a multiple of STRIP.
    """
    depth, count = matrix.shape
    panels = -(-count // (STRIP * LANES)) * STRIP
    padded = np.zeros((depth, panels * LANES), np.uint8)
    padded[:, :count] = matrix.view(np.uint8) >> 4
    steps = padded.reshape(depth // (2 * STEP), 2, STEP, panels, LANES)
    return np.ascontiguousarray((steps[:, 0] | steps[:, 1] << 4).transpose(2, 0, 3, 1)).reshape(-1)


def emit_sums(
    builder: ir.IRBuilder,
    rows: list[ir.Value],
    depth: ir.Value,
    columns: list[ir.Value],
    add: Addition,
    halves: int = 1,
    begin_step: Callable[[ir.Value], None] | None = None,
) -> list[list[ir.Value]]:
    """Emit the sums of rows with panels, from their addresses.

    Return a list of sums for each panel.  `add` emits one step.  `begin_step`, if
    given, gets the number of a step and emits what comes before it.  A byte of a panel
    has one entry, or two entries if `halves` is 2.  Loading the rows limits the speed
    of one panel, so several panels share these loads.
    """
    starts = [builder.bitcast(address, INT32.as_pointer()) for address in rows]
    panels = [builder.bitcast(address, _SUMS.as_pointer()) for address in columns]
    # Each half has its own sums: an addition does not wait for the one before it.
    sums = [[new_sums(builder, _SUMS, len(rows)) for _ in panels] for _ in range(halves)]
    with cgutils.for_range(builder, builder.sdiv(depth, ir.Constant(depth.type, halves * STEP))) as loop:
        if begin_step is not None:
            begin_step(loop.index)
        loaded = [builder.load(builder.gep(panel, [loop.index]), align=1) for panel in panels]
        first = times(builder, loop.index, halves)
        for half in range(halves):
            steps = [_half(builder, value, half) for value in loaded] if halves == 2 else loaded
            place = plus(builder, first, half)
            for i, start in enumerate(starts):
                copies = broadcast(builder, builder.load(builder.gep(start, [place]), align=1), LANES)
                for step, totals in zip(steps, sums[half], strict=True):
                    builder.store(add(builder, builder.load(totals[i]), copies, step), totals[i])
    return [
        [_sum_at(builder, addresses) for addresses in zip(*parts, strict=True)]
        for parts in zip(*sums, strict=True)
    ]


def _sum_at(builder: ir.IRBuilder, addresses: tuple[ir.Value, ...]) -> ir.Value:
    """Emit the sum of the vectors at some addresses."""
    total = builder.load(addresses[0])
    for address in addresses[1:]:
        total = builder.add(total, builder.load(address))
    return total


def _half(builder: ir.IRBuilder, value: ir.Value, half: int) -> ir.Value:
    """Emit the entries in the lower (`half` = 0) or upper halves (1) of bytes."""
    upper = value if half else builder.shl(value, constant(_SUMS, 4))
    return builder.or_(builder.and_(upper, constant(_SUMS, _UPPER)), constant(_SUMS, _LOWER))


def _emit_tile(
    builder: ir.IRBuilder,
    tile: tuple[ir.Value, ...],
    add: Addition,
    count: int,
    panels: int,
    halves: int = 1,
    begin_step: Callable[[ir.Value], None] | None = None,
) -> list[list[ir.Value]]:
    """Emit the sums of `count` rows with some panels.

    `tile` has the first six arguments of an intrinsic.
    """
    rows, row, last, depth, packed, panel = tile
    places, size = tile_rows(builder, row, last, count), times(builder, depth, LANES // halves)
    starts = [builder.gep(rows, [builder.mul(place, depth)]) for place in places]
    numbers = [plus(builder, panel, i) for i in range(panels)]
    columns = [builder.gep(packed, [builder.mul(number, size)]) for number in numbers]
    return emit_sums(builder, starts, depth, columns, add, halves, begin_step)


def _storing(add: Addition, count: int, panels: int, halves: int = 1) -> Intrinsic:
    """Return the intrinsic that writes the sums of rows with panels, row by row.

    There are `count` rows and `panels` panels.
    """

    @emitted
    def write(builder, rows, row, last, depth, packed, panel, out):
        tile = rows, row, last, depth, packed, panel
        for j, sums in enumerate(_emit_tile(builder, tile, add, count, panels, halves)):
            for i, total in enumerate(sums):
                place = ir.Constant(row.type, (i * panels + j) * LANES)
                store_vector(builder, total, builder.gep(out, [place]))

    return write


def _emit_maxima(
    builder: ir.IRBuilder,
    tile: tuple[ir.Value, ...],
    add: Addition,
    out: ir.Value,
    begin_step: Callable[[ir.Value], None] | None = None,
) -> None:
    """Raise integers at `out` to the maxima of sums of ROWS rows with WIDE panels."""
    for j, sums in enumerate(_emit_tile(builder, tile, add, ROWS, WIDE, begin_step=begin_step)):
        target = builder.gep(out, [ir.Constant(tile[1].type, j * LANES)])
        best = load_vector(builder, target, _SUMS)
        for total in sums:
            best = builder.select(builder.icmp_signed(">", total, best), total, best)
        store_vector(builder, best, target)


def _maxima(add: Addition) -> Intrinsic:
    """Return the intrinsic that raises integers to the maxima of sums.

    The sums are those of ROWS rows with WIDE panels.
    """

    @emitted
    def raise_to_maxima(builder, rows, row, last, depth, packed, panel, out):
        _emit_maxima(builder, (rows, row, last, depth, packed, panel), add, out)

    return raise_to_maxima


def _maxima_ahead(add: Addition) -> Intrinsic:
    """Return the intrinsic of `_maxima` that also prefetches memory.

    Step i, of STEP bytes, prefetches the cache line at the address
    ``min(place + i * pace, end)``.  Many prefetches at once would fill the queue of
    cache misses, and the sums would wait for them.
    """

    @emitted
    def raise_to_maxima(builder, rows, row, last, depth, packed, panel, out, place, pace, end):
        def fetch(step: ir.Value) -> None:
            address = builder.add(place, builder.mul(pace, step))
            address = builder.select(builder.icmp_signed("<", address, end), address, end)
            emit_prefetch(builder, builder.inttoptr(address, BYTE.as_pointer()))

        _emit_maxima(builder, (rows, row, last, depth, packed, panel), add, out, fetch)

    return raise_to_maxima


def _placing(add: Addition) -> Intrinsic:
    """Return the intrinsic that writes the sums with WIDE panels to rows.

    It also raises integers to the maxima of the sums.
    """

    @emitted
    def write(builder, rows, row, last, depth, packed, panel, shifts, out, stride, maxima):
        tile = rows, row, last, depth, packed, panel
        for j, sums in enumerate(_emit_tile(builder, tile, add, ROWS, WIDE)):
            column = times(builder, plus(builder, panel, j), LANES)
            shift = load_vector(builder, builder.gep(shifts, [column]), _SUMS)
            for i, total in enumerate(sums):
                value = builder.sub(total, shift)
                target = builder.gep(maxima, [ir.Constant(row.type, (i * WIDE + j) * LANES)])
                best = load_vector(builder, target, _SUMS)
                best = builder.select(builder.icmp_signed(">", value, best), value, best)
                store_vector(builder, best, target)
                store_vector(
                    builder, value, builder.gep(out, [builder.add(column, times(builder, stride, i))])
                )

    return write


def _emit_dots(
    builder: ir.IRBuilder,
    add: Addition,
    vectors: list[ir.Value],
    depth: ir.Value,
    queries: ir.Value,
    query: ir.Value,
    out: ir.Value,
) -> None:
    """Emit the products of VECTORS vectors, from their addresses, with a query's rows.

    The row of high bytes comes first.
    """
    first = times(builder, query, 2)
    rows = [builder.gep(queries, [builder.mul(i, depth)]) for i in (first, plus(builder, first, 1))]
    starts, halves = (
        [builder.bitcast(address, _SUMS.as_pointer()) for address in addresses]
        for addresses in (vectors, rows)
    )
    sums = [new_sums(builder, _SUMS, VECTORS) for _ in halves]
    with cgutils.for_range(builder, builder.sdiv(depth, ir.Constant(depth.type, SPAN))) as loop:
        unsigned = [builder.load(builder.gep(half, [loop.index]), align=1) for half in halves]
        for i, start in enumerate(starts):
            signed = builder.load(builder.gep(start, [loop.index]), align=1)
            for half, totals in zip(unsigned, sums, strict=True):
                builder.store(add(builder, builder.load(totals[i]), half, signed), totals[i])
    for i, totals in enumerate(sums):
        dots = _sum_each(builder, [builder.load(total) for total in totals])
        store_vector(builder, dots, builder.gep(out, [ir.Constant(query.type, i * VECTORS)]))


def _dots(add: Addition) -> Intrinsic:
    """Return the intrinsic that multiplies consecutive vectors with a query."""

    @emitted
    def write(builder, vectors, vector, last, depth, queries, query, out):
        places = tile_rows(builder, vector, last, VECTORS)
        addresses = [builder.gep(vectors, [builder.mul(place, depth)]) for place in places]
        _emit_dots(builder, add, addresses, depth, queries, query, out)

    return write


def _dots_at(add: Addition) -> Intrinsic:
    """Return the intrinsic that multiplies vectors at chosen places with a query."""

    @emitted
    def write(builder, vectors, starts, place, last, depth, queries, query, out):
        places = tile_rows(builder, place, last, VECTORS)
        begins = [builder.load(builder.gep(starts, [place])) for place in places]
        addresses = [builder.gep(vectors, [begin]) for begin in begins]
        _emit_dots(builder, add, addresses, depth, queries, query, out)

    return write


def _sum_each(builder: ir.IRBuilder, values: list[ir.Value]) -> ir.Value:
    """Emit the sums of the lanes of four integer vectors, as four lanes."""
    one, two, three, four = values
    total = _halved(builder, _halved(builder, one, two, 1), _halved(builder, three, four, 1), 2)
    lanes = LANES
    while lanes > 4:
        lanes //= 2
        parts = (shuffle(builder, total, total, list(range(start, start + lanes))) for start in (0, lanes))
        total = builder.add(*parts)
    return total


def _halved(builder: ir.IRBuilder, left: ir.Value, right: ir.Value, size: int) -> ir.Value:
    """Emit the sum of each two neighboring groups of `size` lanes.

    The groups are alternately from `left` and `right`.
    """
    order = [
        start + side * LANES + i
        for start in range(0, LANES, 2 * size)
        for side in (0, 1)
        for i in range(size)
    ]
    return builder.add(
        shuffle(builder, left, right, order), shuffle(builder, left, right, [place + size for place in order])
    )


def _add_vnni(builder: ir.IRBuilder, total: ir.Value, row: ir.Value, column: ir.Value) -> ir.Value:
    return call(builder, "llvm.x86.avx512.vpdpbusd.512", _SUMS, total, row, column)


def _add_portably(builder: ir.IRBuilder, total: ir.Value, row: ir.Value, column: ir.Value) -> ir.Value:
    """Emit the same sums for any machine, one of the four bytes after another."""
    for i in range(STEP):
        shifted = builder.lshr(row, constant(_SUMS, 8 * i))
        unsigned = builder.and_(shifted, constant(_SUMS, 255))
        signed = builder.ashr(builder.shl(column, constant(_SUMS, 24 - 8 * i)), constant(_SUMS, 24))
        total = builder.add(total, builder.mul(unsigned, signed))
    return total


def _add_avx2(builder: ir.IRBuilder, total: ir.Value, row: ir.Value, column: ir.Value) -> ir.Value:
    """Emit the same sums by 16-bit products, which are added in pairs.

    Even bytes come first, then odd ones.
    """
    words, pair_sums = ir.VectorType(ir.IntType(16), 2 * LANES), ir.VectorType(INT32, LANES // 2)
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
            parts.append(call(builder, "llvm.x86.avx2.pmadd.wd", pair_sums, left, right))
        total = builder.add(total, shuffle(builder, parts[0], parts[1], list(range(LANES))))
    return total


#: Ways to add the products of one step, by name; the last one is the fastest that this
#: processor has.
ADDITIONS: dict[str, Addition] = {"portable": _add_portably}
if FEATURES.get("avx2", False):
    ADDITIONS["avx2"] = _add_avx2
if FEATURES.get("avx512vnni", False):
    ADDITIONS["vnni"] = _add_vnni


class ByteTiles(NamedTuple):
    """The intrinsics that are made with one of the ADDITIONS."""

    #: Write the sums (int32) of ROWS rows with WIDE panels to `out`, row by row.
    tile: Intrinsic
    #: Raise the integers ``out[: WIDE * LANES]`` to the maxima of these sums over the
    #: rows.
    max: Intrinsic
    #: The same with prefetches, see :func:`_maxima_ahead`.
    max_ahead: Intrinsic
    #: Write the sums of two rows with STRIP panels, row by row.
    strip: Intrinsic
    #: The same with panels of half bytes.
    half_strip: Intrinsic
    #: Write the sums of `tile` minus the `shifts` of their columns to rows of `stride`
    #: integers, and raise row i of `maxima` (ROWS, WIDE * LANES) to those of row i.
    rows: Intrinsic
    #: Write the products of VECTORS vectors, which are not packed, with the two rows of
    #: a query.
    dots: Intrinsic
    #: The same for the vectors that begin at the positions ``starts[place]`` (int64) to
    #: ``starts[last]``.
    dots_at: Intrinsic


def make_tiles(addition: str) -> ByteTiles:
    """Return the intrinsics that are made with one of the ADDITIONS."""
    add = ADDITIONS[addition]
    return ByteTiles(
        tile=_storing(add, ROWS, WIDE),
        max=_maxima(add),
        max_ahead=_maxima_ahead(add),
        strip=_storing(add, 2, STRIP),
        half_strip=_storing(add, 2, STRIP, halves=2),
        rows=_placing(add),
        dots=_dots(add),
        dots_at=_dots_at(add),
    )


_FASTEST = make_tiles(list(ADDITIONS)[-1])

# The intrinsics of this processor; see :class:`ByteTiles`.
byte_tile = _FASTEST.tile
byte_max = _FASTEST.max
byte_max_ahead = _FASTEST.max_ahead
byte_strip = _FASTEST.strip
half_byte_strip = _FASTEST.half_strip
byte_rows = _FASTEST.rows
byte_dots = _FASTEST.dots
byte_dots_at = _FASTEST.dots_at
