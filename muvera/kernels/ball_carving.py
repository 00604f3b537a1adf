"""Greedy balls of query tokens that are alike."""

import numpy as np

from .jit import kernel


@kernel
def _dot(a, b, sums):
    """Return the inner product of two float32 rows: eight `sums` in float64, added in one order."""
    sums[:] = 0
    depth = len(a)
    whole = depth // 8 * 8
    for i in range(0, whole, 8):
        for j in range(8):
            sums[j] += np.float64(a[i + j]) * np.float64(b[i + j])
    for i in range(whole, depth):
        sums[i - whole] += np.float64(a[i]) * np.float64(b[i])
    return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]))


@kernel
def carve_balls(tokens, offsets, least, sums, counts):
    """Write the sums of each query's balls to the first of its rows of `sums`, how many to `counts`.

    Parameters
    ----------
    tokens : float32 (n, d)
        Of all queries, one after the other.
    offsets : int64 (q + 1,)
    least : float
        Cosine with a ball's first token from which on a token joins.  A token of zeros has the
        cosine 0 with all.
    sums : float64 (n, d)
        Zeros.
    counts : int64 (q,)
    """
    parts, norms = np.empty(8), np.empty(tokens.shape[0])
    for i in range(tokens.shape[0]):
        norms[i] = np.sqrt(_dot(tokens[i], tokens[i], parts))
    free = np.ones(tokens.shape[0], np.bool_)
    for query in range(counts.shape[0]):
        start, stop = offsets[query], offsets[query + 1]
        ball = start
        for first in range(start, stop):
            if not free[first]:
                continue
            for i in range(first, stop):
                lengths = norms[first] * norms[i]
                if not free[i]:
                    continue
                alike = lengths > 0 and _dot(tokens[first], tokens[i], parts) >= least * lengths
                if i == first or alike:
                    free[i] = False
                    for j in range(tokens.shape[1]):
                        sums[ball, j] += tokens[i, j]
            ball += 1
        counts[query] = ball - start
