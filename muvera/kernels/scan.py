"""Scan of 4-bit codes: approximate inner products of queries with all vectors.

A vector is split into pairs of columns, and the code of a pair is the number of the nearest of 16 centroids.
The inner product with a query is then a sum of table entries, one per pair.  The tables are rounded to
bytes, so the sums are small integers, equal on every processor.  One byte shuffle looks up a table for as
many vectors as a register has bytes (André, Kermarrec and Le Scouarnec, "Cache locality is not enough", VLDB
2015; the layout is that of faiss's fast scan).  The entries of STEP pairs are added as bytes, and these sums
as 16-bit numbers.

Sizes: BLOCK vectors share a block of codes, STEP // 2 bytes per vector and step, each with the codes of two pairs
(the even pair in the low half).  A block is stored as rows of BLOCK bytes.  The tables of all queries are uint8
(m, steps, STEP, 16), flat.  The greatest entries of a step add up to at most 255, and those of all steps to at
most MAX_SUM.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .byte_product import joined
from .byte_tile import VECTORS, byte_dots
from .jit import helper, kernel
from .llvm_helpers import (
    BYTE,
    FASTEST,
    SHUFFLES,
    broadcast,
    constant,
    entry_address,
    joined_lanes,
    load_vector,
    look_up,
    new_sums,
    shuffle,
    store_vector,
)
from .row_operations import prefetch

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

# Distance of prefetched rows from the current row, and bytes per prefetch.
_AHEAD, _LINE = 12, 64

# Bytes of a step's tables and of its codes in a block.
_TABLES, _CODES = STEP * CENTROIDS, STEP // 2 * BLOCK

_WORD = ir.IntType(16)


def _emit_sums(instructions: str, queries: int) -> Any:
    """Return an intrinsic that adds the table entries of one block for some queries, by one of the SHUFFLES.

    For each of `queries` queries from `first` on, it writes BLOCK sums to `out`.  In the query's entry of `hits`, bit i
    is set if sum i is at least the query's entry of `bounds`.
    """
    size = SHUFFLES[instructions][0]
    lookup, sums = ir.VectorType(BYTE, size), ir.VectorType(_WORD, size // 2)

    @intrinsic
    def compiled(typingctx, codes, start, steps, tables, first, bounds, out, hits):
        signature = types.void(codes, types.intp, types.intp, tables, types.intp, bounds, out, hits)

        def generate(context, builder, signature, args):
            start, steps, first = args[1], args[2], args[4]
            word = start.type

            def address(which: int, *terms: Any) -> Any:
                place = ir.Constant(word, 0)
                for term in terms:
                    place = builder.add(place, ir.Constant(word, term) if isinstance(term, int) else term)
                return entry_address(context, builder, signature.args[which], args[which], place)

            def add_to(target: Any, value: Any) -> None:
                builder.store(builder.add(builder.load(target), value), target)

            numbers = [builder.add(first, ir.Constant(word, i)) for i in range(queries)]
            begins = [builder.mul(builder.mul(i, steps), ir.Constant(word, _TABLES)) for i in numbers]
            masks: list[list[Any]] = [[] for _ in numbers]
            for part in range(0, BLOCK, size):
                # A sum of bytes is added as half of a word: `whole` sums words, `upper` their upper halves.
                whole, upper = new_sums(builder, sums, queries), new_sums(builder, sums, queries)
                with cgutils.for_range(builder, steps) as loop:
                    row = builder.mul(loop.index, ir.Constant(word, _CODES))
                    table = builder.mul(loop.index, ir.Constant(word, _TABLES))
                    places = []
                    for i in range(0, _CODES, BLOCK):
                        packed = load_vector(builder, address(0, start, row, i + part), lookup, align=1)
                        shifted = builder.lshr(builder.bitcast(packed, sums), constant(sums, 4))
                        for nibbles in (packed, builder.bitcast(shifted, lookup)):
                            places.append(builder.and_(nibbles, constant(lookup, 15)))
                    for i in range(queries):
                        total = None
                        for pair, place in enumerate(places):
                            entries = load_vector(
                                builder,
                                address(3, begins[i], table, pair * CENTROIDS),
                                ir.VectorType(BYTE, CENTROIDS),
                                align=1,
                            )
                            found = look_up(builder, instructions, entries, place)
                            total = found if total is None else builder.add(total, found)
                        words = builder.bitcast(total, sums)
                        add_to(whole[i], words)
                        add_to(upper[i], builder.lshr(words, constant(sums, 8)))
                order = [i + side * (size // 2) for i in range(size // 2) for side in (0, 1)]
                for i in range(queries):
                    high = builder.load(upper[i])
                    low = builder.sub(builder.load(whole[i]), builder.shl(high, constant(sums, 8)))
                    total = shuffle(builder, low, high, order)
                    store_vector(builder, total, address(6, i * BLOCK + part), align=2)
                    bound = broadcast(builder, builder.load(address(5, numbers[i])), size)
                    masks[i].append(builder.icmp_unsigned(">=", total, bound))
            for i, bits in enumerate(masks):
                mask = joined_lanes(builder, bits)
                builder.store(builder.bitcast(mask, ir.IntType(BLOCK)), address(7, i))
            return context.get_dummy_value()

        return signature, generate

    return compiled


def _plain_sums(queries: int) -> Any:
    """Return a function like that of :func:`_emit_sums`, for processors without byte shuffles."""

    def plain(codes, start, steps, tables, first, bounds, out, hits):
        for query in range(queries):
            base = (first + query) * steps * _TABLES
            hits[query] = 0
            for i in range(BLOCK):
                total = 0
                for row in range(steps * (STEP // 2)):
                    code, table = np.int64(codes[start + row * BLOCK + i]), base + row * 2 * CENTROIDS
                    total += int(tables[table + (code & 15)]) + int(tables[table + CENTROIDS + (code >> 4)])
                out[query * BLOCK + i] = total
                if total >= bounds[first + query]:
                    hits[query] |= np.uint64(1) << np.uint64(i)

    return helper(plain)


def make_sums(instructions: str, queries: int) -> Any:
    """Return the function that adds table entries by the instruction `instructions`, of SHUFFLES or "plain"."""
    if instructions == "plain":
        return _plain_sums(queries)
    return _emit_sums(instructions, queries)


_sums_of_several, _sums_of_one = make_sums(FASTEST, TOGETHER), make_sums(FASTEST, 1)


@kernel
def _edge_of(sums, count, wanted, counts):
    """Return the `wanted`-th greatest of `count` sums and the number of greater sums; `counts` is scratch memory."""
    above, prefix = 0, 0
    for shift in (8, 0):
        counts[:] = 0
        for i in range(count):
            if shift == 8:
                counts[sums[i] >> 8] += 1
            elif sums[i] >> 8 == prefix:
                counts[sums[i] & 255] += 1
        digit = 255
        while above + counts[digit] < wanted:
            above += counts[digit]
            digit -= 1
        prefix = prefix << 8 | digit
    return prefix, above


@kernel
def keep_best(sums, rows, count, wanted, counts):
    """Move the `wanted` greatest of `count` sums to the front; return the smallest of them.

    Their order stays, and the earlier of equal sums are kept.  `counts`, int64 (256,), is scratch memory.
    """
    edge, above = _edge_of(sums, count, wanted, counts)
    equal = wanted - above
    kept = 0
    for i in range(count):
        if sums[i] > edge or (sums[i] == edge and equal > 0):
            if sums[i] == edge:
                equal -= 1
            sums[kept] = sums[i]
            rows[kept] = rows[i]
            kept += 1
    return edge


@kernel
def scan_codes(codes, steps, tables, words, start, stop, first, wanted, bounds, sums, rows, found):
    """Scan the blocks `start` to `stop` for m queries; keep at least the `wanted` rows with the greatest sums.

    Several calls can scan one part of the rows after another, in ascending order.  Their state is in `bounds`, uint16
    (m,), the smallest sums that can still enter, and `found`, int64 (m,), the numbers of results; both are zero at
    first.  The results are `sums`, uint16 (m, room), and `rows`, int64 (m, room), ascending.  `room` is at least
    ``wanted + BLOCK``; a larger `room` is faster.

    Bit i of a block's entry of `words` is set if a search can return its row i, number ``first + BLOCK * block + i``.
    """
    block = np.empty(TOGETHER * BLOCK, np.uint16)
    hits = np.empty(TOGETHER, np.uint64)
    counts = np.empty(256, np.int64)
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
                    own, base = query + i, i * BLOCK
                    if together < TOGETHER:
                        _sums_of_one(codes, position, steps, tables, own, bounds, block, hits[:1])
                        base, hit = 0, hits[0] & word
                    else:
                        hit = hits[i] & word
                    count = found[own]
                    while hit:
                        lowest = hit & (~hit + np.uint64(1))
                        j = (np.float64(lowest).view(np.int64) >> 52) - 1023  # the exponent of a power of two
                        hit ^= lowest
                        sums[own, count] = block[base + j]
                        rows[own, count] = first + number * BLOCK + j
                        count += 1
                    if count > room:
                        # Later rows lose ties, so only a greater sum can enter.
                        bounds[own] = keep_best(sums[own], rows[own], count, wanted, counts) + 1
                        count = wanted
                    found[own] = count


@helper
def _find_nearest(xs, ys, centroids, distances, nearest):
    """Write the number of each point's nearest centroid to `nearest` int32; ties go to the lower number."""
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
    """Fit the centroids of each pair of columns by Lloyd's algorithm.

    `sample` is float32 (n, 2 pairs); `starts` int64 (CENTROIDS,) are the rows of the first centroids.  The result is
    written to `centroids` float32 (pairs, 2, CENTROIDS).  A centroid without members does not move.
    """
    sums = np.empty((2, CENTROIDS), np.float64)
    sizes = np.empty(CENTROIDS, np.int64)
    points = np.empty((2, len(sample)), np.float32)
    distances, nearest = np.empty(len(sample), np.float32), np.empty(len(sample), np.int32)
    for pair in range(len(centroids)):
        own = centroids[pair]
        for i in range(len(sample)):
            points[0, i], points[1, i] = sample[i, 2 * pair], sample[i, 2 * pair + 1]
        for j in range(CENTROIDS):
            own[0, j], own[1, j] = points[0, starts[j]], points[1, starts[j]]
        for _ in range(iterations):
            _find_nearest(points[0], points[1], own, distances, nearest)
            sums[:] = 0.0
            sizes[:] = 0
            for i in range(len(sample)):
                sums[0, nearest[i]] += points[0, i]
                sums[1, nearest[i]] += points[1, i]
                sizes[nearest[i]] += 1
            for j in range(CENTROIDS):
                if sizes[j]:
                    own[0, j] = np.float32(sums[0, j] / sizes[j])
                    own[1, j] = np.float32(sums[1, j] / sizes[j])


@kernel
def encode_rows(vectors, centroids, first, steps, codes):
    """Write the codes of `vectors` float32 (n, 2 pairs) to the rows from `first` on of `codes`, flat uint8."""
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


@kernel
def make_tables(query, centroids, products, tables):
    """Write the table of a query, float32 (2 pairs,), to `tables` uint8 (pairs * 16,); pairs are a multiple of STEP.

    `products` float32 (pairs, CENTROIDS) is scratch memory.  An entry is the product of the query with a
    centroid minus the smallest one of its pair, in a unit that all pairs share.
    """
    widest, total = np.float32(0), np.float32(0)
    for first in range(0, len(centroids), STEP):
        width = np.float32(0)
        for pair in range(first, first + STEP):
            x, y = query[2 * pair], query[2 * pair + 1]
            least, most = np.float32(np.inf), np.float32(-np.inf)
            for j in range(CENTROIDS):
                product = x * centroids[pair, 0, j] + y * centroids[pair, 1, j]
                products[pair, j] = product
                least, most = min(least, product), max(most, product)
            width += most - least
            for j in range(CENTROIDS):
                products[pair, j] -= least
        widest, total = max(widest, width), total + width
    # Rounding can add half to each entry.
    scale = np.float32(0)
    if widest > 0:
        scale = min(np.float32(255 - STEP // 2) / widest, np.float32(MAX_SUM - len(centroids)) / total)
    for pair in range(len(centroids)):
        for j in range(CENTROIDS):
            tables[pair * CENTROIDS + j] = np.uint8(np.rint(products[pair, j] * scale))


@kernel
def multiply_rows_at(numbers, first, rows, sums, units, query_bytes, query_unit, out):
    """Write the products of some rows with one query to `out` float32 (n,), see :func:`multiply_rows`.

    `rows` int64 (n,) are row numbers in `sums` and `units`; `numbers` int8 begins with row `first`.
    """
    depth = query_bytes.shape[1]
    flat, halves = numbers.reshape(-1), query_bytes.reshape(-1)
    dots = np.empty(2 * VECTORS, np.int32)
    for i in range(len(rows)):
        if i + _AHEAD < len(rows):
            for position in range(0, depth, _LINE):
                prefetch(flat, (rows[i + _AHEAD] - first) * depth + position)
        row = rows[i]
        byte_dots(flat, row - first, row - first, depth, halves, 0, dots, 0)
        out[i] = joined(dots[0], dots[VECTORS], sums[row], query_unit * units[row])
