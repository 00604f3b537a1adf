"""Ball carving (MUVERA, section 3.2): queries of fewer vectors, for a cheaper and nearly the same Chamfer."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors, as_multivectors
from ..data.validation import read_only_view
from ..kernels.ball_carving import carve_balls

__all__ = ["carve_queries", "carved_tokens", "require_tau"]

# What rounding may take from the cosine of a token with itself.
_ROUNDING = 1e-12


def carve_queries(queries: Any, tau: float) -> MultiVectors:
    """Replace query tokens that are alike by their sum.

    The first token that no ball has yet begins the next one, and every such token whose cosine
    with it is at least `tau` joins; a ball becomes the sum of its tokens.  The sum's best
    document token answers all of them, so that a score is never above Chamfer's (but for
    rounding), and equals it where the tokens of each ball have one best document token.

    Parameters
    ----------
    queries : MultiVectors, one array (tokens, dim) or a list of such arrays
        Of any length of tokens: cosines are compared, which for unit tokens are the paper's
        inner products.
    tau : float
        Above 0 and at most 1.  Lower ones leave fewer vectors and change scores more; 1 joins
        only tokens of one direction, which changes none.  The paper takes 0.7.

    Returns
    -------
    MultiVectors
        float32, with the same ids; a token that is alone in its ball keeps its bits.

    Examples
    --------
    >>> carve_queries([[[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]]], 0.7)[0]
    array([[1.8, 0.6],
           [0. , 1. ]], dtype=float32)
    """
    require_tau(tau)
    queries = as_multivectors(queries, "queries")
    queries.require_finite("queries")
    carved, counts = carved_tokens(np.asarray(queries.tokens, np.float32), queries.offsets, tau)
    return MultiVectors.from_flat(carved, counts, ids=queries.ids if queries.has_ids else None)


def carved_tokens(
    tokens: NDArray[np.float32], offsets: NDArray[np.int64], tau: float
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the carved tokens of all queries, one after the other, and how many each has.

    The work behind :func:`carve_queries`; it checks nothing.
    """
    sums, counts = np.zeros(tokens.shape), np.empty(len(offsets) - 1, np.int64)
    carve_balls(read_only_view(tokens), offsets, float(tau) - _ROUNDING, sums, counts)
    # A query's sums are the first of its rows.
    places = np.arange(len(sums)) - np.repeat(offsets[:-1], np.diff(offsets))
    return sums[places < np.repeat(counts, np.diff(offsets))].astype(np.float32), counts


def require_tau(tau: Any, name: str = "tau") -> None:
    """Raise unless `tau` is a number above 0 and at most 1."""
    if isinstance(tau, bool) or not isinstance(tau, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name} must be a number, got {type(tau).__name__}.")
    if not 0 < tau <= 1:
        raise ValueError(f"{name} must be above 0 and at most 1, the least cosine within a ball, got {tau}.")
