"""Ball carving (MUVERA, section 3.2): queries with fewer vectors, which make Chamfer cheaper and nearly the same."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..data.multivectors import MultiVectors
from ..data.token_input import checked_texts
from ..data.validation import read_only_view
from ..kernels.ball_carving import carve_balls

__all__ = ["carve_queries"]

# Largest rounding error of the cosine of a token with itself.
_ROUNDING = 1e-12


def carve_queries(queries: Any, tau: float) -> MultiVectors:
    """Replace each ball of similar query tokens by the sum of its tokens.

    The first token that belongs to no ball begins the next ball, and every later free token whose
    cosine with it is at least `tau` joins.  A ball matches a single document token, so a score is
    never above the Chamfer similarity (up to rounding), and equals it where all tokens of each
    ball have the same best document token.

    Parameters
    ----------
    queries : MultiVectors, one array (tokens, dim) or a list of such arrays
        Tokens of any norm: cosines are compared, which for unit tokens are the paper's
        inner products.
    tau : float
        Smallest cosine within a ball, above 0 and at most 1.  A lower tau leaves fewer vectors and
        changes scores more; tau=1 joins only tokens of the same direction, which changes no
        score.  The paper uses 0.7.

    Returns
    -------
    MultiVectors
        float32, with the same ids; a token that is alone in its ball keeps its bits.

    Raises
    ------
    TypeError
        If `tau` is not a number, or `queries` is of no supported kind.
    ValueError
        If `tau` is not above 0 and at most 1, or `queries` has NaN or infinities.

    Examples
    --------
    >>> carve_queries([[[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]]], 0.7)[0]
    array([[1.8, 0.6],
           [0. , 1. ]], dtype=float32)
    """
    if isinstance(tau, bool) or not isinstance(tau, (int, float, np.integer, np.floating)):
        raise TypeError(f"tau must be a number, got {type(tau).__name__}.")
    if not 0 < tau <= 1:
        raise ValueError(f"tau must be above 0 and at most 1, the least cosine within a ball, got {tau}.")
    queries = checked_texts(queries, "queries")
    tokens, offsets = np.asarray(queries.tokens, np.float32), queries.offsets
    sums, counts = np.zeros(tokens.shape), np.empty(len(queries), np.int64)
    carve_balls(read_only_view(tokens), offsets, float(tau) - _ROUNDING, sums, counts)
    # The kernel writes the sums of a query to the first of its rows.
    rows = np.arange(len(sums)) - np.repeat(offsets[:-1], queries.lengths)
    carved = sums[rows < np.repeat(counts, queries.lengths)].astype(np.float32)
    return MultiVectors.from_flat(carved, counts, ids=queries.ids if queries.has_ids else None)
