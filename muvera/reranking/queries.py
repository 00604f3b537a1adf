"""Merge similar tokens of queries before a search."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors, checked_texts
from ..utils.checks import require_number

# Maximum rounding error of the cosine of a token with itself.
_ROUNDING = 1e-12


def carve_queries(queries: Any, tau: float) -> MultiVectors:
    """Merge similar query tokens, so that a search needs fewer inner products (MUVERA, section 3.2).

    Each ball of similar tokens is replaced by their sum.  The first token that is in no ball starts the next
    ball; every later free token whose cosine with it is at least `tau` joins this ball.  A ball matches one
    document token, so a score is at most the Chamfer similarity (up to rounding).  Both are equal if all tokens of
    each ball have the same best document token.

    Parameters
    ----------
    queries : MultiVectors, one array (tokens, dimension) or a list of such arrays
    tau : float
        Smallest cosine within a ball, above 0 and at most 1.  Lower values make fewer vectors and change
        scores more.  1 merges only tokens of the same direction and does not change scores.  The paper uses
        0.7.

    Returns
    -------
    MultiVectors
        float32, with the same ids; a token alone in its ball is unchanged.

    Raises
    ------
    TypeError
        If `tau` is not a number or `queries` are not token vectors.
    ValueError
        If `tau` is out of range or `queries` have NaN or infinities.

    Examples
    --------
    >>> carve_queries([[[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]]], 0.7)[0]
    array([[1.8, 0.6],
           [0. , 1. ]], dtype=float32)
    """
    if not 0 < require_number("tau", tau) <= 1:
        raise ValueError(f"tau must be above 0 and at most 1, got {tau}.")
    queries = checked_texts(queries, "queries")
    carved = [_carved(np.asarray(query, np.float64), float(tau) - _ROUNDING) for query in queries]
    arrays = MultiVectors.from_arrays(carved, dimension=queries.dimension, dtype=np.float32)
    return arrays.with_ids(queries.ids) if queries.has_ids else arrays


def _carved(tokens: NDArray[np.float64], least: float) -> NDArray[np.float32]:
    """Return the sums of balls of tokens (n, dimension); a token of zeros has the cosine 0 with all tokens."""
    norms = np.sqrt(np.square(tokens).sum(axis=1))
    sums, free = np.empty(tokens.shape, np.float32), np.ones(len(tokens), bool)
    count = 0
    for first in range(len(tokens)):
        if free[first]:
            lengths = norms * norms[first]
            # Not a product of matrices, whose last bits depend on the machine.
            joins = free & (lengths > 0) & ((tokens * tokens[first]).sum(axis=1) >= least * lengths)
            joins[first] = True
            free &= ~joins
            sums[count] = tokens[joins].sum(axis=0)
            count += 1
    return sums[:count]
