"""Scan of 4-bit codes: approximate inner products of queries with all vectors.

A vector is split into pairs of columns, and the code of a pair is the number of the
nearest of 16 centroids.  The inner product with a query is then a sum of table entries,
one per pair.  The tables are rounded to bytes, so the sums are small integers, equal on
every processor.  One byte shuffle looks up a table for as many vectors as a register
has bytes (André, Kermarrec and Le Scouarnec, "Cache locality is not enough", VLDB 2015;
the layout is the same as in faiss's fast scan).  The entries of STEP pairs are added as
bytes, and these sums as 16-bit numbers.

Sizes: BLOCK vectors share a block of codes, STEP // 2 bytes per vector and step, each
with the codes of two pairs (the even pair in the low half).  A block is stored as rows
of BLOCK bytes.  The tables of all queries are uint8 (m, steps, STEP, 16), flat.  The
greatest entries of a step add up to at most 255, and the greatest entries of all
steps to at most MAX_SUM.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from .byte_product import joined, split_to_bytes
from .byte_tile import VECTORS, byte_dots_at
from .jit import (
    BYTE,
    FASTEST,
    FLOAT,
    INT32,
    SHUFFLES,
    Intrinsic,
    broadcast,
    constant,
    emitted,
    helper,
    joined_lanes,
    kernel,
    load_vector,
    look_up,
    new_sums,
    plus,
    shuffle,
    store_vector,
    times,
)
from .nearest import lowest_bit
from .rows import fetch
from .selection import select_best

#: Vectors of a block.
BLOCK = 64

#: Pairs of columns whose table entries are added as bytes.
STEP = 4

#: Number of queries for which a block is read once.
TOGETHER = 4

#: Greatest sum of table entries: one less than the maximum of a 16-bit number.
MAX_SUM = 65_534

#: Centroids of a pair of columns.
CENTROIDS = 16

#: Number of blocks that all queries scan while the codes are in the cache.
TILE = 64

#: Additional size of the result buffer of a scan.  With less, the best rows are
#: selected more often; with more, the first bound comes later.
ROOM = 8 * BLOCK

# Distance of prefetched rows from the current row.
_AHEAD = 12

# Sums that are counted together; their number fits 16 bits.
_COUNTED = 1 << 12

# Bytes of a step's tables.
_TABLES = STEP * CENTROIDS

# Bytes of a step's codes in a block.
_CODES = STEP // 2 * BLOCK

_WORD = ir.IntType(16)
_PRODUCTS = ir.VectorType(FLOAT, CENTROIDS)


def make_sums(instructions: str, queries: int) -> Intrinsic:
    """Return an intrinsic that adds the table entries of a block for some queries.

    `instructions` is the name of one of the SHUFFLES.  For each of `queries` queries
    from `first` on, it writes BLOCK sums to `out`.  In the query's entry of `hits`, bit
    i is set if sum i is at least the query's entry of `bounds`.
    """
    size = SHUFFLES[instructions][0]
    lookup, sums, table = (
        ir.VectorType(BYTE, size),
        ir.VectorType(_WORD, size // 2),
        ir.VectorType(BYTE, CENTROIDS),
    )
    order = [i + side * (size // 2) for i in range(size // 2) for side in (0, 1)]

    @emitted
    def add_entries(builder, codes, start, steps, tables, first, bounds, out, hits):
        def add_to(target: ir.Value, value: ir.Value) -> None:
            builder.store(builder.add(builder.load(target), value), target)

        numbers = [plus(builder, first, i) for i in range(queries)]
        begins = [times(builder, builder.mul(number, steps), _TABLES) for number in numbers]
        masks: list[list[ir.Value]] = [[] for _ in numbers]
        for part in range(0, BLOCK, size):
            # A sum of bytes is added as half of a word: `whole` sums words, `upper`
            # their upper halves.
            whole, upper = new_sums(builder, sums, queries), new_sums(builder, sums, queries)
            with cgutils.for_range(builder, steps) as loop:
                row = builder.add(start, times(builder, loop.index, _CODES))
                places = []
                for i in range(0, _CODES, BLOCK):
                    address = builder.gep(codes, [plus(builder, row, i + part)])
                    packed = load_vector(builder, address, lookup, align=1)
                    shifted = builder.lshr(builder.bitcast(packed, sums), constant(sums, 4))
                    for nibbles in (packed, builder.bitcast(shifted, lookup)):
                        places.append(builder.and_(nibbles, constant(lookup, 15)))
                for i, begin in enumerate(begins):
                    step = builder.add(begin, times(builder, loop.index, _TABLES))
                    total = constant(lookup, 0)
                    for pair, place in enumerate(places):
                        address = builder.gep(tables, [plus(builder, step, pair * CENTROIDS)])
                        entries = load_vector(builder, address, table, align=1)
                        total = builder.add(total, look_up(builder, instructions, entries, place))
                    words = builder.bitcast(total, sums)
                    add_to(whole[i], words)
                    add_to(upper[i], builder.lshr(words, constant(sums, 8)))
            for i, number in enumerate(numbers):
                high = builder.load(upper[i])
                low = builder.sub(builder.load(whole[i]), builder.shl(high, constant(sums, 8)))
                total = shuffle(builder, low, high, order)
                place = ir.Constant(start.type, i * BLOCK + part)
                store_vector(builder, total, builder.gep(out, [place]), align=2)
                bound = broadcast(builder, builder.load(builder.gep(bounds, [number])), size)
                masks[i].append(builder.icmp_unsigned(">=", total, bound))
        for i, bits in enumerate(masks):
            mask = builder.bitcast(joined_lanes(builder, bits), ir.IntType(BLOCK))
            builder.store(mask, builder.gep(hits, [ir.Constant(start.type, i)]))

    return add_entries


_sums_of_several, _sums_of_one = make_sums(FASTEST, TOGETHER), make_sums(FASTEST, 1)


@helper
def _number_reaching(sums, count, least):
    """Return how many of the first `count` sums are at least `least`."""
    total = 0
    for start in range(0, count, _COUNTED):
        part = sums[start : min(start + _COUNTED, count)]
        # As narrow as the sums, so that this loop is vectorized.
        reaching = np.uint16(0)
        for i in range(part.shape[0]):
            reaching = np.uint16(reaching + np.uint16(part[i] >= least))
        total += np.int64(reaching)
    return total


@kernel
def keep_best(sums, rows, count, wanted):
    """Move the `wanted` greatest of `count` sums to the front.

    Return the smallest of them.  Their order stays, and the earlier of equal sums are
    kept.
    """
    edge = 0  # the `wanted`-th greatest sum, bit by bit
    for shift in range(15, -1, -1):
        if _number_reaching(sums, count, np.uint16(edge | 1 << shift)) >= wanted:
            edge |= 1 << shift
    equal = wanted - _number_reaching(sums, count, np.uint16(edge + 1))
    kept = 0
    # Without a branch, which would be unpredictable.
    for i in range(count):
        value, row = np.int64(sums[i]), rows[i]
        sums[kept], rows[kept] = value, row
        at_edge = np.int64(value == edge)
        kept += np.int64(value > edge) + (at_edge & np.int64(equal > 0))
        equal -= at_edge
    return edge


@kernel
def scan_codes(codes, steps, tables, words, start, stop, first, wanted, bounds, sums, rows, found):
    """Scan the blocks `start` to `stop` for m queries.

    Keep at least the `wanted` rows with the greatest sums.  Calls can scan parts of the
    rows in ascending order.  Their state is in `bounds`, uint16 (m,), the smallest sums
    that can still enter, and `found`, int64 (m,), the numbers of results; both are zero
    at first.  The results are `sums`, uint16 (m, room), and `rows`, int64 (m, room),
    ascending.  `room` is at least ``wanted + BLOCK``; a larger `room` is faster.  Bit i
    of a block's entry of `words` is set if its row ``first + BLOCK * block + i`` is
    allowed.
    """
    block = np.empty(TOGETHER * BLOCK, np.uint16)
    hits = np.empty(TOGETHER, np.uint64)
    room = sums.shape[1] - BLOCK
    for begin in range(start, stop, TILE):
        for query in range(0, len(found), TOGETHER):
            together = min(TOGETHER, len(found) - query)
            for number in range(begin, min(begin + TILE, stop)):
                word, position = words[number], number * steps * _CODES
                if word == 0:
                    continue
                if together == TOGETHER:
                    _sums_of_several(codes, position, steps, tables, query, bounds, block, hits)
                for i in range(together):
                    at, base = query + i, i * BLOCK
                    if together < TOGETHER:
                        _sums_of_one(codes, position, steps, tables, at, bounds, block, hits[:1])
                        base, hit = 0, hits[0] & word
                    else:
                        hit = hits[i] & word
                    count = found[at]
                    while hit:
                        j = lowest_bit(hit)
                        hit &= hit - np.uint64(1)
                        sums[at, count] = block[base + j]
                        rows[at, count] = first + number * BLOCK + j
                        count += 1
                    if count > room:
                        # Later rows lose ties, so only a greater sum can enter.
                        bounds[at] = keep_best(sums[at], rows[at], count, wanted) + 1
                        count = wanted
                    found[at] = count


@helper
def _find_nearest(xs, ys, centroids, distances, nearest):
    """Write the number of each point's nearest centroid to `nearest` int32.

    Ties go to the lower number.
    """
    distances[:] = np.inf
    for j in range(CENTROIDS):
        x, y = centroids[0, j], centroids[1, j]
        for i in range(len(xs)):
            right, up = xs[i] - x, ys[i] - y
            distance = right * right + up * up
            nearer = distance < distances[i]
            distances[i] = distance if nearer else distances[i]
            nearest[i] = np.int32(j) if nearer else nearest[i]


@kernel
def fit_centroids(sample, starts, iterations, centroids):
    """Fit `centroids` (pairs, 2, CENTROIDS) to a `sample` (n, 2 pairs).

    Lloyd's algorithm begins with the rows `starts` of the sample.  A centroid without
    members does not move.
    """
    sums = np.empty((2, CENTROIDS), np.float64)
    sizes = np.empty(CENTROIDS, np.int64)
    points = np.empty((2, len(sample)), np.float32)
    distances, nearest = np.empty(len(sample), np.float32), np.empty(len(sample), np.int32)
    for pair in range(len(centroids)):
        means = centroids[pair]
        for i in range(len(sample)):
            points[0, i], points[1, i] = sample[i, 2 * pair], sample[i, 2 * pair + 1]
        for j in range(CENTROIDS):
            means[0, j], means[1, j] = points[0, starts[j]], points[1, starts[j]]
        for _ in range(iterations):
            _find_nearest(points[0], points[1], means, distances, nearest)
            sums[:] = 0.0
            sizes[:] = 0
            for i in range(len(sample)):
                sums[0, nearest[i]] += points[0, i]
                sums[1, nearest[i]] += points[1, i]
                sizes[nearest[i]] += 1
            for j in range(CENTROIDS):
                if sizes[j]:
                    means[0, j] = np.float32(sums[0, j] / sizes[j])
                    means[1, j] = np.float32(sums[1, j] / sizes[j])


@kernel
def encode_rows(vectors, centroids, first, steps, codes):
    """Write the codes of `vectors`, float32 (n, 2 pairs).

    They go to the rows from `first` on of `codes`, flat uint8.
    """
    points = np.empty((2, BLOCK), np.float32)
    distances, nearest = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.int32)
    for start in range(0, len(vectors), BLOCK):
        count = min(BLOCK, len(vectors) - start)
        for pair in range(len(centroids)):
            for i in range(count):
                points[0, i], points[1, i] = vectors[start + i, 2 * pair], vectors[start + i, 2 * pair + 1]
            _find_nearest(
                points[0, :count], points[1, :count], centroids[pair], distances[:count], nearest[:count]
            )
            for i in range(count):
                block, row = divmod(first + start + i, BLOCK)
                position = block * steps * _CODES + pair // 2 * BLOCK + row
                if pair % 2 == 0:
                    codes[position] = nearest[i]
                else:
                    codes[position] |= nearest[i] << 4


def _extreme(builder: ir.IRBuilder, value: ir.Value, order: str) -> ir.Value:
    """Emit copies of the least lane (`order` is "<") or of the greatest one (">")."""
    lanes = half = value.type.count
    while half > 1:
        half //= 2
        turned = shuffle(builder, value, value, [(j + half) % lanes for j in range(lanes)])
        value = builder.select(builder.fcmp_ordered(order, turned, value), turned, value)
    return value


def _pair_products(
    builder: ir.IRBuilder, query: ir.Value, centroids: ir.Value, pair: ir.Value, out: ir.Value
) -> ir.Value:
    parts = []
    for i in range(2):
        column = plus(builder, times(builder, pair, 2), i)
        entry = broadcast(builder, builder.load(builder.gep(query, [column])), CENTROIDS)
        start = builder.gep(centroids, [times(builder, column, CENTROIDS)])
        parts.append(builder.fmul(entry, load_vector(builder, start, _PRODUCTS)))
    products = builder.fadd(*parts)
    least, most = _extreme(builder, products, "<"), _extreme(builder, products, ">")
    target = builder.gep(out, [times(builder, pair, CENTROIDS)])
    store_vector(builder, builder.fsub(products, least), target)
    return builder.extract_element(builder.fsub(most, least), ir.Constant(INT32, 0))


# Write the products of a pair of columns with its centroids, minus the least of them,
# and return the greatest of these differences.
_pair_products_of = emitted(_pair_products, types.float32)


@kernel
def make_tables(query, centroids, products, tables):
    """Write the table of a query, float32 (2 pairs,).

    It goes to `tables`, uint8 (pairs * 16,); pairs are a multiple of STEP.  An entry is
    the product of the query with a centroid minus the smallest one of its pair, in a
    unit that all pairs share.  `products` float32 (pairs, CENTROIDS) is scratch memory.
    """
    flat, above = centroids.reshape(-1), products.reshape(-1)
    widest, total = np.float32(0), np.float32(0)
    for first in range(0, len(centroids), STEP):
        width = np.float32(0)
        for pair in range(first, first + STEP):
            width += _pair_products_of(query, flat, pair, above)
        widest, total = max(widest, width), total + width
    # Rounding can add half to each entry.
    scale = np.float32(0)
    if widest > 0:
        scale = min(np.float32(255 - STEP // 2) / widest, np.float32(MAX_SUM - len(centroids)) / total)
    for i in range(above.shape[0]):
        tables[i] = np.uint8(np.int32(np.rint(above[i] * scale)))


@kernel
def multiply_rows_at(numbers, first, rows, sums, units, query_bytes, query_unit, out):
    """Write the products of `rows` (n,) with one query to `out` (n,).

    `numbers` begins with row `first`.  See
    :func:`muvera.kernels.byte_product.multiply_rows`.
    """
    depth = query_bytes.shape[1]
    flat, halves = numbers.reshape(-1), query_bytes.reshape(-1)
    starts, dots = np.empty(len(rows), np.int64), np.empty(2 * VECTORS, np.int32)
    for i in range(len(rows)):
        starts[i] = (rows[i] - first) * depth
    for place in range(0, len(rows), VECTORS):
        stop = min(place + VECTORS, len(rows))
        for i in range(place + _AHEAD, min(stop + _AHEAD, len(rows))):
            fetch(flat, starts[i], starts[i] + depth)
        byte_dots_at(flat, starts, place, stop - 1, depth, halves, 0, dots)
        for i in range(stop - place):
            row = rows[place + i]
            out[place + i] = joined(dots[i], dots[VECTORS + i], sums[row], query_unit * units[row])


@kernel
def find_best(codes, words, columns, centroids, numbers, sums, units, query, wanted, rows, products):
    """Write the best vectors of one query to `rows` (k,) and `products` (k,).

    Return their number.  This makes the query's table, scans the `codes` (blocks,
    bytes, BLOCK) of all vectors, and multiplies the `wanted` best with the query; see
    :func:`scan_codes` and :func:`multiply_rows_at`.  The table's pairs are the
    `columns` (n,) of `query` in this order, each two of them.  Best first; ties go to
    the lower row.
    """
    pairs = centroids.shape[0]
    paired = np.zeros((1, 2 * pairs), np.float32)
    for i in range(columns.shape[0]):
        paired[0, i] = query[0, columns[i]]
    tables = np.empty(pairs * CENTROIDS, np.uint8)
    make_tables(paired[0], centroids, np.empty((pairs, CENTROIDS), np.float32), tables)
    room = wanted + ROOM
    best_sums, best_rows = np.empty((1, room), np.uint16), np.empty((1, room), np.int64)
    bounds, found = np.zeros(1, np.uint16), np.zeros(1, np.int64)
    scan_codes(
        codes.reshape(-1), pairs // STEP, tables, words, 0, len(codes), 0, wanted, bounds, best_sums,
        best_rows, found,
    )  # fmt: skip
    count = found[0]
    if count > wanted:
        keep_best(best_sums[0], best_rows[0], count, wanted)
        count = wanted
    halves, unit = np.zeros((2, numbers.shape[1]), np.uint8), np.empty(1, np.float32)
    split_to_bytes(query, halves, unit)
    candidates, exact = best_rows[0, :count], np.empty(count, np.float32)
    multiply_rows_at(numbers, 0, candidates, sums, units, halves, unit[0], exact)
    places = np.empty(rows.shape[0], np.int64)
    chosen = select_best(exact, candidates, places)
    for i in range(chosen):
        rows[i], products[i] = candidates[places[i]], exact[places[i]]
    return chosen
