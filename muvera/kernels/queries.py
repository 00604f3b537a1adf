"""Prepare query tokens for reranking: round them to bytes and pack them, or merge them into balls."""

import numpy as np

from .byte_tile import STEP
from .jit import helper, kernel
from .tile import LANES

#: Largest absolute value of a byte.
MOST = 127


@kernel
def round_query(tokens, scales, shift, zero, depth, packed, biases, steps, products):
    """Write each scaled token as whole multiples of its step, which is a 127th of its largest entry.

    Parameters
    ----------
    tokens : float32 (m, n)
    scales, shift : float32 (n,)
        A token is multiplied by the scales; its product with the shift is also written.
    zero : float
        Byte that represents the value 0 in document tokens.
    depth : int
        Rows of a packed panel, a multiple of STEP, at least n.
    packed : int8
        Panels in the layout of :func:`muvera.kernels.byte_tile.pack_bytes`; zero before.
    biases : float32 (panels * LANES,)
        Receives the part of a product of bytes that comes from `zero`; zero before.
    steps, products : float32 (m,)
        Receive the steps and the products with the shift.
    """
    for i in range(tokens.shape[0]):
        product, peak = 0.0, np.float32(0)
        for j in range(tokens.shape[1]):
            value = tokens[i, j] * scales[j]
            product += np.float64(value) * np.float64(shift[j])
            peak = max(peak, abs(value))
        step = peak / np.float32(MOST) if peak > 0 else np.float32(1)
        inverse = np.float32(1) / step
        total = 0
        panel = i // LANES * depth * LANES + i % LANES * STEP
        for j in range(tokens.shape[1]):
            number = int(np.rint(tokens[i, j] * scales[j] * inverse))
            number = max(-MOST, min(MOST, number))
            packed[panel + j // STEP * LANES * STEP + j % STEP] = number
            total += number
        biases[i] = zero * total
        steps[i] = step
        products[i] = product


@helper
def _dot(a, b, sums):
    """Return the inner product of two float32 rows, accumulated in eight float64 `sums` in a fixed order."""
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
    """Write the sum of each ball of a query to the query's first rows of `sums`, their number to `counts`.

    Parameters
    ----------
    tokens : float32 (n, d)
        Tokens of all queries, one query after another.
    offsets : int64 (q + 1,)
        Starts of the queries in `tokens`.
    least : float
        Smallest cosine with the first token of a ball at which a token joins the ball.  A token
        of zeros has the cosine 0 with all tokens.
    sums : float64 (n, d)
        Must be zero at the start.
    counts : int64 (q,)
        Receives the number of balls of each query.
    """
    partial_sums, norms = np.empty(8), np.empty(tokens.shape[0])
    for i in range(tokens.shape[0]):
        norms[i] = np.sqrt(_dot(tokens[i], tokens[i], partial_sums))
    free = np.ones(tokens.shape[0], np.bool_)
    for query in range(counts.shape[0]):
        start, stop = offsets[query], offsets[query + 1]
        ball = start
        for first in range(start, stop):
            if not free[first]:
                continue
            for i in range(first, stop):
                if not free[i]:
                    continue
                lengths = norms[first] * norms[i]
                similar = lengths > 0 and _dot(tokens[first], tokens[i], partial_sums) >= least * lengths
                if i == first or similar:
                    free[i] = False
                    for j in range(tokens.shape[1]):
                        sums[ball, j] += tokens[i, j]
            ball += 1
        counts[query] = ball - start
