"""Inverted lists: the rows that contain each term, and sums of scores over them.

Sizes: a segment has ``n`` rows and ``P`` postings.  A posting is a row that contains a
term, and the term's value in it: its frequency, or its weight.
"""

import numpy as np

from .jit import kernel


@kernel
def list_postings(terms, offsets, ends, rows, frequencies):
    """Write the rows that contain each term to ``rows[ends[term] : ...]``.

    `frequencies` (P,) says how often.  On entry, `ends` (T,) says where the list of
    each term begins; on return, where it ends.
    """
    seen = np.full(ends.shape[0], -1, np.int32)
    for row in range(offsets.shape[0] - 1):
        for place in range(offsets[row], offsets[row + 1]):
            term = terms[place]
            if seen[term] != row:
                seen[term] = row
                rows[ends[term]] = row
                frequencies[ends[term]] = 0
                ends[term] += 1
            frequencies[ends[term] - 1] += 1


@kernel
def add_bm25(rows, frequencies, start, stop, weight, norms, out):
    """Add the BM25 scores of a term to `out` (n,).

    They are ``weight * f / (f + norms[row])``.  `weight` is the term's rarity, and
    `norms` (n,) grow with the lengths of rows.
    """
    for place in range(start, stop):
        row, frequency = np.int64(rows[place]), np.float32(frequencies[place])
        out[row] += weight * (frequency / (frequency + norms[row]))


@kernel
def add_weighted(rows, values, start, stop, weight, out):
    """Add the weights of a term, times `weight`, to `out` (n,)."""
    for place in range(start, stop):
        out[np.int64(rows[place])] += weight * np.float64(values[place])


@kernel
def count_live(rows, start, stop, alive):
    """Return how many of the rows of a list are alive."""
    count = np.int64(0)
    for place in range(start, stop):
        count += alive[np.int64(rows[place])]
    return count


@kernel
def least_of_best(scores, wanted, steps):
    """Return a number that at least `wanted` of `scores` (n,) reach, or 0.

    It is the largest such multiple of a step above 0; `steps` steps reach the largest
    score.
    """
    peak = np.float32(0)
    for i in range(scores.shape[0]):
        peak = max(peak, scores[i])
    if not peak > 0:
        return np.float32(0)
    counts = np.zeros(steps + 1, np.int64)
    scale = np.float32(steps) / peak
    for i in range(scores.shape[0]):
        if scores[i] > 0:
            counts[np.int64(scores[i] * scale)] += 1
    total, place = np.int64(0), steps + 1
    while place > 0 and total < wanted:
        place -= 1
        total += counts[place]
    # One step lower, as the product above is rounded.
    return np.float32(max(0, place - 1)) / scale
