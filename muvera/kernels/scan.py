"""Scan of 4-bit codes: approximate inner products of one query with all vectors.

A vector is split into pairs of columns, and the code of a pair is the number of the nearest of 16 centroids.
The inner product with a query is then a sum of table entries, one per pair.  The tables are rounded to
bytes, so the sums are small integers, equal on every processor.  One byte shuffle looks up a table for as
many vectors as a register has bytes (André, Kermarrec and Le Scouarnec, "Cache locality is not enough", VLDB
2015; the layout is that of faiss's fast scan).

Sizes: BLOCK vectors share a block of codes; ``groups`` bytes per vector, each with the codes of two pairs (the
even pair in the low half).  A block is stored as ``groups`` rows of BLOCK bytes.  The tables are uint8
(groups, 2, 16), flat.  No sum may exceed MAX_SUM.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .jit import INTERPRETED, kernel
from .llvm_helpers import BYTE, broadcast, constant, entry_address, load_vector, shuffle, store_vector, zeros
from .token_codes import SHUFFLES

#: Vectors of a block.
BLOCK = 64

#: Greatest sum of table entries: one less than a 16-bit number can hold.
MAX_SUM = 65_534

#: Centroids of a pair of columns.
CENTROIDS = 16

_INSTRUCTIONS = {32: "llvm.x86.avx2.pshuf.b", 64: "llvm.x86.avx512.pshuf.b.512"}

_WORD = ir.IntType(16)


def _emit_sums(size: int) -> Any:
    """Return an intrinsic that adds the table entries of one block, `size` vectors at a time.

    It writes the sums to `out` and returns a number with bit i set if sum i is at least `bound`.
    """
    lookup = ir.VectorType(BYTE, size)
    sums = ir.VectorType(_WORD, size // 2)
    parts = BLOCK // size

    @intrinsic
    def compiled(typingctx, codes, start, groups, tables, bound, out):
        signature = types.uint64(codes, types.intp, types.intp, tables, types.uint16, out)

        def generate(context, builder, signature, args):
            kinds = signature.args
            pshufb = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(lookup, [lookup] * 2), _INSTRUCTIONS[size]
            )
            word = args[1].type
            # A byte is added as half of a word: `whole` sums words, of which `high` sums the upper halves.
            whole = [[cgutils.alloca_once(builder, sums) for _ in range(parts)] for _ in range(2)]
            for addresses in whole:
                for address in addresses:
                    builder.store(zeros(sums), address)
            with cgutils.for_range(builder, args[2]) as loop:
                row = builder.add(args[1], builder.mul(loop.index, ir.Constant(word, BLOCK)))
                table = builder.mul(loop.index, ir.Constant(word, 2 * CENTROIDS))
                halves = []
                for i in range(2):
                    position = builder.add(table, ir.Constant(word, i * CENTROIDS))
                    entries = load_vector(
                        builder,
                        entry_address(context, builder, kinds[3], args[3], position),
                        ir.VectorType(BYTE, CENTROIDS),
                        align=1,
                    )
                    halves.append(shuffle(builder, entries, entries, [j % CENTROIDS for j in range(size)]))
                for part in range(parts):
                    position = builder.add(row, ir.Constant(word, part * size))
                    packed = load_vector(
                        builder,
                        entry_address(context, builder, kinds[0], args[0], position),
                        lookup,
                        align=1,
                    )
                    low = builder.and_(packed, constant(lookup, 15))
                    wide = builder.bitcast(packed, sums)
                    high = builder.and_(
                        builder.bitcast(builder.lshr(wide, constant(sums, 4)), lookup), constant(lookup, 15)
                    )
                    for entries, places in zip(halves, (low, high), strict=True):
                        found = builder.bitcast(builder.call(pshufb, [entries, places]), sums)
                        total, upper = whole[0][part], whole[1][part]
                        builder.store(builder.add(builder.load(total), found), total)
                        builder.store(
                            builder.add(builder.load(upper), builder.lshr(found, constant(sums, 8))), upper
                        )
            hits = []
            for part in range(parts):
                upper = builder.load(whole[1][part])
                lower = builder.sub(builder.load(whole[0][part]), builder.shl(upper, constant(sums, 8)))
                order = [i + side * (size // 2) for i in range(size // 2) for side in (0, 1)]
                total = shuffle(builder, lower, upper, order)
                address = entry_address(context, builder, kinds[5], args[5], ir.Constant(word, part * size))
                store_vector(builder, total, address, align=2)
                hits.append(builder.icmp_unsigned(">=", total, broadcast(builder, args[4], size)))
            bits = hits[0] if parts == 1 else shuffle(builder, hits[0], hits[1], list(range(BLOCK)))
            return builder.bitcast(bits, ir.IntType(BLOCK))

        return signature, generate

    return compiled


def _interpreted_sums(codes, start, groups, tables, bound, out):
    block = codes[start : start + groups * BLOCK].reshape(groups, BLOCK)
    entries = tables.reshape(groups, 2, CENTROIDS).astype(np.int64)
    rows = np.arange(groups)[:, np.newaxis]
    out[:] = (entries[rows, 0, block & 15] + entries[rows, 1, block >> 4]).sum(axis=0)
    return sum(1 << int(i) for i in np.flatnonzero(out >= bound))


@kernel
def _plain_sums(codes, start, groups, tables, bound, out):
    for i in range(BLOCK):
        out[i] = 0
    for group in range(groups):
        row, table = start + group * BLOCK, group * 2 * CENTROIDS
        for i in range(BLOCK):
            code = codes[row + i]
            out[i] += np.uint16(tables[table + (code & 15)]) + np.uint16(
                tables[table + CENTROIDS + (code >> 4)]
            )
    hits = np.uint64(0)
    for i in range(BLOCK):
        if out[i] >= bound:
            hits |= np.uint64(1) << np.uint64(i)
    return hits


@intrinsic
def _compiled_lowest(typingctx, bits):
    def generate(context, builder, signature, args):
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate


def _interpreted_lowest(bits):
    return (int(bits) & -int(bits)).bit_length() - 1


@kernel
def _without_lowest(bits):
    return bits & (bits - np.uint64(1))


lowest_bit = _interpreted_lowest if INTERPRETED else _compiled_lowest
without_lowest = (lambda bits: int(bits) & (int(bits) - 1)) if INTERPRETED else _without_lowest

block_sums = (
    _interpreted_sums if INTERPRETED else _emit_sums(max(SHUFFLES.values())) if SHUFFLES else _plain_sums
)


@kernel
def _edge_of(sums, count, wanted, counts):
    """Return the `wanted`-th greatest of `count` sums and the number of greater ones, byte by byte, upper first."""
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
def _keep_best(sums, rows, count, wanted, counts):
    """Keep the `wanted` greatest of `count` sums in order, of equal ones the earlier; return the smallest one kept."""
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
def scan_codes(codes, groups, tables, mask, start, stop, tile, wanted, sums, rows, found):
    """Find the `wanted` rows with the greatest sums for each of m queries, among the rows `start` to `stop`.

    `codes` flat uint8; `tables` uint8 (m, groups * 32); `mask` uint8, one entry per row, 0 to skip it, or empty to
    scan all.  `sums` uint16 (m, room) and `rows` int64 (m, room) get the results, in ascending order of rows, and
    `found` int64 (m,) their numbers; room is at least ``wanted + BLOCK``, and more is faster.  `start` is a multiple of
    BLOCK.  Queries take turns scanning `tile` rows, which stay in the cache.
    """
    block = np.empty(BLOCK, np.uint16)
    counts = np.empty(256, np.int64)
    bounds = np.zeros(len(tables), np.uint16)
    room = sums.shape[1] - BLOCK
    masked = len(mask) > 0
    for query in range(len(tables)):
        found[query] = 0
    for begin in range(start, stop, tile):
        end = min(begin + tile, stop)
        for query in range(len(tables)):
            own_sums, own_rows, count = sums[query], rows[query], found[query]
            for first in range(begin, end, BLOCK):
                hits = block_sums(codes, first * groups, groups, tables[query], bounds[query], block)
                while hits:
                    i = lowest_bit(hits)  # type: ignore[call-arg]
                    hits = without_lowest(hits)
                    if first + i < end and (not masked or mask[first + i]):
                        own_sums[count] = block[i]
                        own_rows[count] = first + i
                        count += 1
                if count > room:
                    # Later rows lose ties, so only a greater sum can enter.
                    bounds[query] = _keep_best(own_sums, own_rows, count, wanted, counts) + 1
                    count = wanted
            found[query] = count
    for query in range(len(tables)):
        if found[query] > wanted:
            _keep_best(sums[query], rows[query], found[query], wanted, counts)
            found[query] = wanted


@kernel
def fit_centroids(sample, starts, iterations, centroids):
    """Fit the centroids of each pair of columns by Lloyd's algorithm.

    `sample` float32 (n, 2 pairs); `starts` int64 (CENTROIDS,) rows of the sample to start from; `centroids` float32
    (pairs, 2, CENTROIDS) gets the result.  A centroid without members stays where it is.
    """
    sums = np.empty((2, CENTROIDS), np.float64)
    sizes = np.empty(CENTROIDS, np.int64)
    for pair in range(len(centroids)):
        own = centroids[pair]
        for j in range(CENTROIDS):
            own[0, j], own[1, j] = sample[starts[j], 2 * pair], sample[starts[j], 2 * pair + 1]
        for _ in range(iterations):
            sums[:] = 0.0
            sizes[:] = 0
            for i in range(len(sample)):
                x, y = sample[i, 2 * pair], sample[i, 2 * pair + 1]
                j = _nearest(own, x, y)
                sums[0, j] += x
                sums[1, j] += y
                sizes[j] += 1
            for j in range(CENTROIDS):
                if sizes[j]:
                    own[0, j] = np.float32(sums[0, j] / sizes[j])
                    own[1, j] = np.float32(sums[1, j] / sizes[j])


@kernel
def _nearest(centroids, x, y):
    """Return the number of the nearest centroid; of equally near ones, the lower number."""
    best, least = 0, np.float32(np.inf)
    for j in range(CENTROIDS):
        right, up = x - centroids[0, j], y - centroids[1, j]
        distance = right * right + up * up
        if distance < least:
            best, least = j, distance
    return best


@kernel
def encode_rows(vectors, centroids, first, groups, codes):
    """Write the codes of `vectors` float32 (n, 2 pairs) to the rows from `first` on of `codes`, flat uint8."""
    for i in range(len(vectors)):
        row = first + i
        position = row // BLOCK * BLOCK * groups + row % BLOCK
        for group in range(groups):
            code = 0
            for half in range(2):
                pair = 2 * group + half
                if pair < len(centroids):
                    x, y = vectors[i, 2 * pair], vectors[i, 2 * pair + 1]
                    code |= _nearest(centroids[pair], x, y) << (4 * half)
            codes[position + group * BLOCK] = code


@kernel
def make_tables(query, centroids, limit, products, tables):
    """Write the table of a query, float32 (2 pairs,), to `tables` uint8 (groups * 32,), with entries up to `limit`.

    `products` float32 (pairs, CENTROIDS) is scratch memory.  An entry is the product of the query with a
    centroid minus the smallest one of its pair, in a unit that all pairs share.
    """
    widest = np.float32(0)
    for pair in range(len(centroids)):
        x, y = query[2 * pair], query[2 * pair + 1]
        least, most = np.float32(np.inf), np.float32(-np.inf)
        for j in range(CENTROIDS):
            product = x * centroids[pair, 0, j] + y * centroids[pair, 1, j]
            products[pair, j] = product
            least, most = min(least, product), max(most, product)
        widest = max(widest, most - least)
        for j in range(CENTROIDS):
            products[pair, j] -= least
    scale = np.float32(limit) / widest if widest > 0 else np.float32(0)
    tables[:] = 0
    for pair in range(len(centroids)):
        for j in range(CENTROIDS):
            tables[pair * CENTROIDS + j] = np.uint8(np.rint(products[pair, j] * scale))
