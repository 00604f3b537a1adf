"""Rows of float32: load, scale, add, measure and multiply them.

Tokens come as float32 (`floats`, n x d) or as float16 bit patterns (`halves`, n x d);
the other array is empty.  A loaded row has `width` floats, d rounded up to LANES, with
zeros at the end.  The intrinsics take flat arrays and a position in each; a ``count``
is rounded down to whole vectors of LANES.
"""

from collections.abc import Callable

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from .jit import (
    BYTE,
    FEATURES,
    FLOAT,
    INT32,
    Intrinsic,
    broadcast,
    constant,
    each_vector,
    emit_prefetch,
    emitted,
    fused_multiply_add,
    helper,
    kernel,
    load_vector,
    new_sums,
    store_vector,
    sum_lanes,
    times,
)
from .tile import LANES, ROWS, lane_dot, pack_columns, tile_dot

#: False on x86 processors without F16C, for which LLVM would call a missing function.
HAS_HALVES = bool(FEATURES.get("f16c", True))

_VECTOR = ir.VectorType(FLOAT, LANES)
_WORDS = ir.VectorType(ir.IntType(16), LANES)
_BYTES = ir.VectorType(BYTE, LANES)

# Bytes of a cache line.
_LINE = 64

# Depth of a step of a map, in which a panel has 256 * 16 floats: they stay in the
# first-level cache.
_DEPTH = 256


def widen(builder: ir.IRBuilder, bits: ir.Value, native: bool) -> ir.Value:
    """Emit the float32 of LANES float16 bit patterns, exactly."""
    if native:
        return builder.fpext(builder.bitcast(bits, ir.VectorType(ir.HalfType(), LANES)), _VECTOR)
    numbers = ir.VectorType(INT32, LANES)
    wide = builder.zext(bits, numbers)
    sign = builder.shl(builder.and_(wide, constant(numbers, 0x8000)), constant(numbers, 16))
    magnitude = builder.shl(builder.and_(wide, constant(numbers, 0x7FFF)), constant(numbers, 13))
    # The exponents of the two formats differ by 112; the product also normalizes
    # subnormal numbers.
    scaled = builder.fmul(builder.bitcast(magnitude, _VECTOR), constant(_VECTOR, 2.0**112))
    special = builder.icmp_unsigned(">=", magnitude, constant(numbers, 0x1F << 23))
    infinite = builder.or_(magnitude, constant(numbers, 0xFF << 23))
    value = builder.select(special, infinite, builder.bitcast(scaled, numbers))
    return builder.bitcast(builder.or_(value, sign), _VECTOR)


def _square_sum(builder, array, position, count):
    start, total = builder.gep(array, [position]), new_sums(builder, _VECTOR, 1)[0]
    with each_vector(builder, count, LANES) as offset:
        value = load_vector(builder, builder.gep(start, [offset]), _VECTOR)
        builder.store(fused_multiply_add(builder, value, value, builder.load(total)), total)
    return sum_lanes(builder, builder.load(total))


#: Return the sum of squares of ``array[position : position + count]``.
square_sum = emitted(_square_sum, types.float32)


def _scaled(accumulate: bool) -> Intrinsic:
    @emitted
    def scaled(builder, source, position, count, weight, out, start):
        begin, target = builder.gep(source, [position]), builder.gep(out, [start])
        factor = broadcast(builder, weight, LANES)
        with each_vector(builder, count, LANES) as offset:
            place = builder.gep(target, [offset])
            value = load_vector(builder, builder.gep(begin, [offset]), _VECTOR)
            if accumulate:
                value = fused_multiply_add(builder, value, factor, load_vector(builder, place, _VECTOR))
            else:
                value = builder.fmul(value, factor)
            store_vector(builder, value, place)

    return scaled


#: Add ``weight * source[position : position + count]`` to ``out[start : start +
#: count]``.
add_scaled = _scaled(accumulate=True)
#: Write the same product instead of adding it.
set_scaled = _scaled(accumulate=False)


def _emit_row_sum(
    builder: ir.IRBuilder,
    rows: ir.Value,
    following: ir.Value,
    shares: ir.Value | None,
    first: ir.Value,
    count: ir.Value,
    width: ir.Value,
    vectors: int,
) -> list[ir.Value]:
    """Emit sums of `vectors` vectors over `count` rows of a list.

    `rows` starts at the first column.

    Sums start at -0, which changes no number, not even a negative zero.
    """
    entry = cgutils.alloca_once(builder, first.type)
    builder.store(first, entry)
    sums = new_sums(builder, _VECTOR, vectors)
    for total in sums:
        builder.store(constant(_VECTOR, -0.0), total)
    with cgutils.for_range(builder, count):
        row = place = builder.load(entry)
        if shares is not None:
            row = builder.lshr(place, ir.Constant(place.type, 1))
            share = broadcast(builder, builder.load(builder.gep(shares, [place])), LANES)
        start = builder.gep(rows, [builder.mul(row, width)])
        for i, total in enumerate(sums):
            address = builder.gep(start, [ir.Constant(width.type, i * LANES)])
            value, so_far = load_vector(builder, address, _VECTOR), builder.load(total)
            if shares is None:
                so_far = builder.fadd(so_far, value)
            else:
                so_far = fused_multiply_add(builder, value, share, so_far)
            builder.store(so_far, total)
        builder.store(builder.load(builder.gep(following, [place])), entry)
    return [builder.load(total) for total in sums]


def _in_blocks(builder: ir.IRBuilder, width: ir.Value, emit: Callable[[ir.Value, int], object]) -> None:
    """Emit ``emit(column, vectors)`` for blocks that cover `width` columns.

    A block has `vectors` vectors.  As many columns at a time as fit into the registers,
    and the rest by halves.
    """
    size = builder.sdiv(width, ir.Constant(width.type, LANES))
    vectors = ROWS
    while vectors:
        number = builder.sdiv(size, ir.Constant(width.type, vectors))
        begin = ir.Constant(width.type, 0)
        if vectors < ROWS:
            begin = times(builder, builder.sdiv(number, ir.Constant(width.type, 2)), 2)
            number = builder.and_(number, ir.Constant(width.type, 1))
        with cgutils.for_range(builder, number) as loop:
            emit(times(builder, builder.add(begin, loop.index), vectors * LANES), vectors)
        vectors //= 2


def _store_block(builder: ir.IRBuilder, totals: list[ir.Value], target: ir.Value) -> None:
    """Emit stores of vectors to consecutive places from `target` on."""
    for i, total in enumerate(totals):
        store_vector(builder, total, builder.gep(target, [ir.Constant(ir.IntType(64), i * LANES)]))


def _sum_list(builder, rows, following, shares, first, count, width, out, position):
    def emit(column, vectors):
        columns = builder.gep(rows, [column])
        totals = _emit_row_sum(builder, columns, following, shares, first, count, width, vectors)
        _store_block(builder, totals, builder.gep(out, [builder.add(position, column)]))

    _in_blocks(builder, width, emit)


@emitted
def sum_list(builder, rows, following, first, count, width, out, position):
    """Write the sum of a linked list of rows to ``out[position : position + width]``.

    The list is ``first``, ``following[first]``, and so on, `count` rows of `width`
    floats, which are added in this order.  The width is a multiple of LANES.
    """
    _sum_list(builder, rows, following, None, first, count, width, out, position)


@emitted
def sum_shares(builder, rows, following, shares, first, count, width, out, position):
    """Write the sum of a list whose entry e is row e // 2 times ``shares[e]``."""
    _sum_list(builder, rows, following, shares, first, count, width, out, position)


@emitted
def sum_byte_rows(builder, rows, width, numbers, shares, count, whole, out):
    """Write the sum of `count` rows of bytes, each times its share, to ``out[:whole]``.

    Row e of the sum is row ``numbers[e]`` (int64) of `rows`, int8 rows of `width`
    bytes, times ``shares[e]``.  `whole` is a multiple of LANES.
    """

    def emit(column, vectors):
        columns, sums = builder.gep(rows, [column]), new_sums(builder, _VECTOR, vectors)
        with cgutils.for_range(builder, count) as loop:
            share = broadcast(builder, builder.load(builder.gep(shares, [loop.index])), LANES)
            row = builder.load(builder.gep(numbers, [loop.index]))
            start = builder.gep(columns, [builder.mul(row, width)])
            for i, total in enumerate(sums):
                address = builder.gep(start, [ir.Constant(width.type, i * LANES)])
                number = builder.sitofp(load_vector(builder, address, _BYTES, align=1), _VECTOR)
                builder.store(fused_multiply_add(builder, number, share, builder.load(total)), total)
        _store_block(builder, [builder.load(total) for total in sums], builder.gep(out, [column]))

    _in_blocks(builder, whole, emit)


@emitted
def prefetch(builder, array, position):
    """Fetch the cache line at ``array[position]``, which may lie outside the array."""
    emit_prefetch(builder, builder.bitcast(builder.gep(array, [position]), BYTE.as_pointer()))


def make_halves_to_floats(native: bool) -> Intrinsic:
    """Return the intrinsic that widens LANES float16 bit patterns.

    It uses one instruction if `native`.
    """

    @emitted
    def widen_lanes(builder, halves, source, out, position):
        bits = load_vector(builder, builder.gep(halves, [source]), _WORDS, align=2)
        store_vector(builder, widen(builder, bits, native), builder.gep(out, [position]))

    return widen_lanes


#: Write LANES float16 bit patterns of ``halves[source:]`` to ``out[position:]`` as
#: float32.
_halves_to_floats = make_halves_to_floats(HAS_HALVES)


def _half_at(builder, array, position):
    word = builder.bitcast(builder.gep(array, [position]), ir.IntType(16).as_pointer())
    bits = broadcast(builder, builder.load(word, align=1), LANES)
    return builder.extract_element(widen(builder, bits, HAS_HALVES), ir.Constant(INT32, 0))


#: Return the float16 in the two bytes at ``array[position]`` (uint8) as float32.
half_at = emitted(_half_at, types.float32)


@helper
def empty_floats(count):
    """Return an uninitialized float32 array that starts at a cache line.

    A load of LANES floats across two lines takes twice as long.
    """
    room = np.empty(count + LANES, np.float32)
    skipped = (-room.ctypes.data % _LINE) // room.itemsize
    return room[skipped : skipped + count]


@helper
def empty_integers(count):
    """Return an uninitialized int32 array that starts at a cache line."""
    return empty_floats(count).view(np.int32)


@helper
def fetch(array, start, stop):
    """Prefetch the entries start..stop of a flat array."""
    for i in range(start, stop, _LINE // array.itemsize):
        prefetch(array, i)


@helper
def fetch_tokens(floats, halves, start, stop):
    """Prefetch the entries start..stop of the tokens, flat."""
    if halves.shape[0] > 0:
        fetch(halves, start, stop)
    else:
        fetch(floats, start, stop)


@helper
def widen_halves(halves, start, stop, out, position):
    """Write ``halves[start:stop]`` (flat) to ``out[position:]`` as float32.

    Up to LANES - 1 more values are written.
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
    """Return ``halves[start:stop]`` (flat) as float32, and some more entries."""
    out = np.empty(stop - start + LANES, np.float32)
    widen_halves(halves, start, stop, out, np.int64(0))
    return out


@emitted
def subtract_row(builder, source, position, count, center, out, start):
    """Write ``source[position :] - center`` to ``out[start:]``, `count` floats."""
    begin, target = builder.gep(source, [position]), builder.gep(out, [start])
    with each_vector(builder, count, LANES) as offset:
        value = load_vector(builder, builder.gep(begin, [offset]), _VECTOR)
        shift = load_vector(builder, builder.gep(center, [offset]), _VECTOR)
        store_vector(builder, builder.fsub(value, shift), builder.gep(target, [offset]))


@helper
def load_rows(floats, halves, start, stop, depth, width, center, out):
    """Write tokens start..stop minus `center` (width,) to `out`.

    `out` is flat, float32 rows of `width`.
    """
    flat, bits = floats.reshape(-1), halves.reshape(-1)
    whole = depth // LANES * LANES
    for i in range(stop - start):
        begin, row = (start + i) * depth, i * width
        if bits.shape[0] > 0:
            widen_halves(bits, begin, begin + depth, out, row)
            subtract_row(out, row, whole, center, out, row)
            for j in range(whole, depth):
                out[row + j] -= center[j]
        else:
            subtract_row(flat, begin, whole, center, out, row)
            for j in range(whole, depth):
                out[row + j] = flat[begin + j] - center[j]
        for j in range(depth, width):
            out[row + j] = 0.0


@helper
def longest_text(offsets, first, last):
    """Return the largest number of tokens of the texts first..last."""
    longest = 0
    for text in range(first, last):
        longest = max(longest, offsets[text + 1] - offsets[text])
    return longest


@helper
def norm_square(row, sums):
    """Return the sum of squares of `row` in float64.

    Eight `sums` do not wait for each other.
    """
    sums[:] = 0.0
    depth = len(row)
    whole = depth // 8 * 8
    for k in range(0, whole, 8):
        for j in range(8):
            sums[j] += np.float64(row[k + j]) * np.float64(row[k + j])
    total = ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]))
    for k in range(whole, depth):
        total += np.float64(row[k]) * np.float64(row[k])
    return total


@kernel
def measure_rows(tokens, totals):
    """Add the rows of `tokens` to six running `totals`, float64.

    The totals do not depend on the division into batches.  These are: the number of
    rows that are not zero; the sum, minimum and maximum of their norms; the largest
    distance of a norm from 1; and the number of rows that are zero.
    """
    sums = np.empty(8, np.float64)
    for i in range(tokens.shape[0]):
        square = norm_square(tokens[i], sums)
        if square == 0.0:
            totals[5] += 1.0
            continue
        norm = np.sqrt(square)
        totals[0] += 1.0
        totals[1] += norm
        totals[2] = min(totals[2], norm)
        totals[3] = max(totals[3], norm)
        totals[4] = max(totals[4], abs(norm - 1.0))


@kernel
def normalize_rows(tokens):
    """Divide each row by its norm in place.

    Return the first row that is zero, or -1.
    """
    zero = -1
    sums = np.empty(8, np.float64)
    for i in range(tokens.shape[0]):
        row = tokens[i]
        square = norm_square(row, sums)
        if square == 0.0:
            if zero < 0:
                zero = i
            continue
        factor = 1.0 / np.sqrt(square)
        for k in range(len(row)):
            row[k] = np.float32(row[k] * factor)
    return zero


@helper
def _product(left, right):
    """Return the inner product of two rows.

    Eight sums do not wait for each other; as variables, they stay in one register.
    """
    zero = np.float32(0.0)
    s0, s1, s2, s3, s4, s5, s6, s7 = zero, zero, zero, zero, zero, zero, zero, zero
    depth = len(left)
    rest = depth // 8 * 8
    for k in range(0, rest, 8):
        s0 += left[k] * right[k]
        s1 += left[k + 1] * right[k + 1]
        s2 += left[k + 2] * right[k + 2]
        s3 += left[k + 3] * right[k + 3]
        s4 += left[k + 4] * right[k + 4]
        s5 += left[k + 5] * right[k + 5]
        s6 += left[k + 6] * right[k + 6]
        s7 += left[k + 7] * right[k + 7]
    total = ((s0 + s1) + (s2 + s3)) + ((s4 + s5) + (s6 + s7))
    for k in range(rest, depth):
        total += left[k] * right[k]
    return total


@kernel
def count_distinct(tokens, offsets, cosine, counts):
    """Write how many tokens of each text are unlike the distinct ones before them.

    Two tokens are alike if their cosine is above `cosine`.  `tokens` are float32 (n,
    d).  Tokens after the first 64 distinct ones are not counted.
    """
    kept = np.empty(64, np.int64)
    squares = np.empty(64, np.float32)
    for text in range(len(counts)):
        count = 0
        for i in range(offsets[text], offsets[text + 1]):
            square = _product(tokens[i], tokens[i])
            distinct = True
            for j in range(count):
                if _product(tokens[i], tokens[kept[j]]) > cosine * np.sqrt(square * squares[j]):
                    distinct = False
                    break
            if distinct:
                kept[count] = i
                squares[count] = square
                count += 1
                if count == len(kept):
                    break
        counts[text] = count


@kernel
def first_beyond(bits, magnitude, limit):
    """Return the flat position of the first large number, or -1.

    A number is large if it is at least `limit`, an infinity or a NaN.  `bits` and
    `limit` are bit patterns as unsigned integers, which have the order of the numbers,
    with infinities and NaN at the end; `magnitude` is the mask of all bits but the
    sign.
    """
    block = 4096  # The test of a whole block is vectorized; only a block that fails is searched.
    for start in range(0, bits.shape[0], block):
        stop = min(start + block, bits.shape[0])
        bad = np.uint8(0)
        for i in range(start, stop):
            bad |= np.uint8((bits[i] & magnitude) >= limit)
        if bad:
            for i in range(start, stop):
                if (bits[i] & magnitude) >= limit:
                    return i
    return -1


def pack_map(matrix: np.ndarray) -> np.ndarray:
    """Pack a map (L, D) for :func:`add_product`; return a flat array.

    Steps of rows follow each other, each packed in panels of columns.
    """
    steps = range(0, len(matrix), _DEPTH)
    return np.concatenate([pack_columns(matrix[i : i + _DEPTH].T).reshape(-1) for i in steps])


@kernel
def add_product(block, packed, out):
    """Add ``block @ M`` to `out` (b, D), both float32.

    M is packed by :func:`pack_map`.  Each step of a panel is read once for all rows.
    The sum runs in the same order for any number of rows.
    """
    count, length = block.shape
    width = out.shape[1]
    panels = (width + LANES - 1) // LANES
    rows = np.empty((count + ROWS) * _DEPTH, np.float32)
    tile = np.empty(ROWS * LANES, np.float32)
    for begin in range(0, length, _DEPTH):
        depth = min(_DEPTH, length - begin)
        for i in range(count):
            for j in range(depth):
                rows[i * depth + j] = block[i, begin + j]
        columns = packed[begin * panels * LANES : (begin + depth) * panels * LANES]
        for panel in range(panels):
            first = panel * LANES
            used = min(LANES, width - first)
            for row in range(0, count, ROWS):
                tile_dot(rows, row, count - 1, depth, columns, panel, tile, 0)
                for i in range(min(ROWS, count - row)):
                    for j in range(used):
                        out[row + i, first + j] += tile[i * LANES + j]


@kernel
def add_count_sketch(block, targets, signs, out):
    """Add the sketch of `block` (b, n) to `out` (b, D).

    Column i times ``signs[i]`` goes to ``targets[i]``.
    """
    for row in range(block.shape[0]):
        for i in range(block.shape[1]):
            out[row, targets[i]] += signs[i] * block[row, i]


@helper
def tree_sum(tile, first):
    """Return the sum of the LANES partial sums ``tile[first:]``.

    They are overwritten.
    """
    half = LANES // 2
    while half > 0:
        for j in range(half):
            tile[first + j] += tile[first + j + half]
        half //= 2
    return tile[first]


@kernel
def inner_products(vectors, start, stop, width, queries, count, out):
    """Write the products of vectors start..stop with queries.

    Vectors and the `count` queries are flat; `out` is (stop - start, count).  The width
    is a multiple of LANES.  LANES partial sums run along it and are added as a tree:
    the bits do not depend on the number of vectors or queries.
    """
    tile = np.empty(ROWS * LANES, np.float32)
    for row in range(start, stop, ROWS):
        for query in range(count):
            lane_dot(vectors, row, stop - 1, width, queries, query, tile, 0)
            for i in range(min(ROWS, stop - row)):
                out[row - start + i, query] = tree_sum(tile, i * LANES)


@kernel
def inner_products_at(vectors, rows, query, out):
    """Write the products of the vectors at `rows` with one query.

    `vectors` are (n, width); products have the bits of :func:`inner_products`.
    """
    width = query.shape[0]
    flat = vectors.reshape(-1)
    block, tile = np.empty(ROWS * width, np.float32), np.empty(ROWS * LANES, np.float32)
    for first in range(0, rows.shape[0], ROWS):
        count = min(ROWS, rows.shape[0] - first)
        for i in range(count):
            following = rows[min(first + i + ROWS, rows.shape[0] - 1)] * width
            fetch(flat, following, following + width)
            begin = rows[first + i] * width
            for j in range(width):
                block[i * width + j] = flat[begin + j]
        lane_dot(block, 0, count - 1, width, query, 0, tile, 0)
        for i in range(count):
            out[first + i] = tree_sum(tile, i * LANES)
