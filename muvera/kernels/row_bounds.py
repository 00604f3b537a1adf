"""Upper bounds of Chamfer similarities of documents whose tokens are rows of a table.

For any numbers c_q >= 0, the similarity of a document is at most

    sum_q c_q + sum over its distinct rows r of g_r,   g_r = sum_q max(0, s_rq - c_q),

because the largest s_rq of a document exceeds c_q by at most the sum of all that exceed
it.  Few rows have a gain g_r above 0 if the cuts c_q are high.  Then lists of the
documents that contain each row give all bounds, without looking up each token.

Similarities are 16-bit integers, laid out as in :mod:`.token_table`.
"""

import numpy as np
from llvmlite import ir
from numba import types

from .jit import INT32, call, constant, emitted, kernel, load_vector, store_vector
from .tile import LANES
from .token_table import MOST

_ROW = ir.VectorType(ir.IntType(16), LANES)

# A cut is a multiple of _STEP, or the largest similarity divided by _SHARE if that is
# more.
_STEP = 32
_SHARE = 4


@kernel
def count_texts(numbers, offsets, sizes):
    """Count in `sizes` (V,) the documents that contain each row of the table."""
    seen = np.full(sizes.shape[0], -1, np.int32)
    for i in range(offsets.shape[0] - 1):
        for token in range(offsets[i], offsets[i + 1]):
            row = np.int64(numbers[token])
            if seen[row] != i:
                seen[row] = i
                sizes[row] += 1


@kernel
def list_texts(numbers, offsets, ends, texts):
    """Write the documents that contain each row to ``texts[ends[row] : ...]``.

    On entry, `ends` (V,) says where the list of each row begins; on return, where it
    ends.
    """
    seen = np.full(ends.shape[0], -1, np.int32)
    for i in range(offsets.shape[0] - 1):
        for token in range(offsets[i], offsets[i + 1]):
            row = np.int64(numbers[token])
            if seen[row] != i:
                seen[row] = i
                texts[ends[row]] = i
                ends[row] += 1


@emitted
def _raise_peaks(builder, similarities, first, peaks, start):
    """Replace LANES entries of `peaks` by larger ones of a row."""
    place = builder.gep(peaks, [start])
    row = load_vector(builder, builder.gep(similarities, [first]), _ROW)
    before = load_vector(builder, place, _ROW)
    store_vector(builder, builder.select(builder.icmp_signed(">", row, before), row, before), place)


def _emit_gain(builder, similarities, first, cuts, start):
    """Emit the sum over LANES columns of what a row exceeds the cuts by."""
    row = load_vector(builder, builder.gep(similarities, [first]), _ROW)
    cut = load_vector(builder, builder.gep(cuts, [start]), _ROW)
    above = builder.select(builder.icmp_signed(">", row, cut), builder.sub(row, cut), constant(_ROW, 0))
    wide = builder.zext(above, ir.VectorType(INT32, LANES))
    total = call(builder, f"llvm.vector.reduce.add.v{LANES}i32", INT32, wide)
    return builder.zext(total, ir.IntType(64))


_gain = emitted(_emit_gain, types.int64)


@kernel
def choose_cuts(similarities, size, sizes, budget, cuts):
    """Write the cut of each query token, int16 (columns,).

    The documents that contain rows above the cut of a token are at most `budget`, a
    document counted once for each of these rows.  ``sizes`` (size,) are the numbers of
    documents that contain each row; rows without documents have no similarities.
    """
    columns, stride = cuts.shape[0], size * LANES
    cuts[:] = 0
    for row in range(size):
        if sizes[row] > 0:
            for panel in range(columns // LANES):
                _raise_peaks(similarities, panel * stride + row * LANES, cuts, panel * LANES)
    for j in range(columns):
        cuts[j] //= _SHARE
    counts = np.zeros((columns, (MOST + 1) // _STEP), np.int64)
    for row in range(size):
        if sizes[row] > 0:
            for panel in range(columns // LANES):
                first = panel * stride + row * LANES
                if _gain(similarities, first, cuts, panel * LANES) > 0:
                    for j in range(LANES):
                        if similarities[first + j] > cuts[panel * LANES + j]:
                            counts[panel * LANES + j, similarities[first + j] // _STEP] += sizes[row]
    for j in range(columns):
        total, step = np.int64(0), counts.shape[1]
        while step > 0 and total + counts[j, step - 1] <= budget:
            step -= 1
            total += counts[j, step]
        cuts[j] = max(np.int64(cuts[j]), min(np.int64(MOST), np.int64(step * _STEP)))


@kernel
def list_gains(similarities, size, sizes, cuts, rows, gains):
    """Write the rows with a gain, and their gains; return their number."""
    count = np.int64(0)
    for row in range(size):
        if sizes[row] > 0:
            gain = np.int64(0)
            for panel in range(cuts.shape[0] // LANES):
                gain += _gain(similarities, (panel * size + row) * LANES, cuts, panel * LANES)
            if gain > 0:
                rows[count], gains[count] = row, gain
                count += 1
    return count


@kernel
def add_gains(starts, texts, rows, gains, out):
    """Add to `out` (documents,) the gains of the rows that each document contains."""
    for i in range(rows.shape[0]):
        for place in range(starts[rows[i]], starts[rows[i] + 1]):
            out[texts[place]] += gains[i]


@kernel
def least_of_largest(values, wanted, steps):
    """Return a number that at least `wanted` of the `values`, all >= 0, reach.

    It is the largest such multiple of a step, and about `steps` steps reach the largest
    value.
    """
    peak = np.int64(0)
    for i in range(values.shape[0]):
        peak = max(peak, np.int64(values[i]))
    step = peak // steps + 1
    counts = np.zeros(steps + 1, np.int64)
    for i in range(values.shape[0]):
        counts[values[i] // step] += 1
    total, place = np.int64(0), steps + 1
    while place > 0 and total < wanted:
        place -= 1
        total += counts[place]
    return place * step
