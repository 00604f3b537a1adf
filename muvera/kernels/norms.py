"""Norms of token vectors: measured, and divided out.  Every sum runs 0, 1, 2, ... in float64."""

import numpy as np

from .jit import kernel


@kernel
def measure_rows(tokens, totals):
    """Add the rows of `tokens` to the running `totals`, a float64 array of six.

    They are: rows that are not zero, their norms' sum, least and greatest, the greatest
    distance of a norm from 1, and the rows that are entirely zero.  The sum goes from row
    to row, so that it does not depend on how the rows were cut into batches.
    """
    for i in range(tokens.shape[0]):
        square = 0.0
        for k in range(tokens.shape[1]):
            value = np.float64(tokens[i, k])
            square += value * value
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
def unit_rows(tokens):
    """Divide each row by its norm in place; return the first row that is zero, or -1."""
    zero = -1
    for i in range(tokens.shape[0]):
        square = 0.0
        for k in range(tokens.shape[1]):
            value = np.float64(tokens[i, k])
            square += value * value
        if square == 0.0:
            if zero < 0:
                zero = i
            continue
        norm = np.sqrt(square)
        for k in range(tokens.shape[1]):
            tokens[i, k] = np.float32(tokens[i, k] / norm)
    return zero
