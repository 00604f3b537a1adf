"""Ball carving (MUVERA, section 3.2): queries with fewer vectors, which make Chamfer cheaper and nearly the same."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors
from ..data.token_input import checked_texts
from ..data.validation import read_only_view
from ..kernels.ball_carving import carve_balls

__all__ = ["carve_queries", "carved_tokens", "require_tau"]

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
    require_tau(tau)
    queries = checked_texts(queries, "queries")
    carved, counts = carved_tokens(np.asarray(queries.tokens, np.float32), queries.offsets, tau)
    return MultiVectors.from_flat(carved, counts, ids=queries.ids if queries.has_ids else None)


def carved_tokens(
    tokens: NDArray[np.float32], offsets: NDArray[np.int64], tau: float
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the sums of the balls of all queries, one query after the other, and their numbers.

    This is :func:`carve_queries` on arrays, without checks.
    """
    sums, counts = np.zeros(tokens.shape), np.empty(len(offsets) - 1, np.int64)
    carve_balls(read_only_view(tokens), offsets, float(tau) - _ROUNDING, sums, counts)
    # The sums of a query stand in its first rows.
    places = np.arange(len(sums)) - np.repeat(offsets[:-1], np.diff(offsets))
    return sums[places < np.repeat(counts, np.diff(offsets))].astype(np.float32), counts


def require_tau(tau: Any, name: str = "tau") -> None:
    """Raise unless `tau` is a number above 0 and at most 1.

    Raises
    ------
    TypeError
        If it is not a number.
    ValueError
        If it is outside these bounds.
    """
    if isinstance(tau, bool) or not isinstance(tau, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name} must be a number, got {type(tau).__name__}.")
    if not 0 < tau <= 1:
        raise ValueError(f"{name} must be above 0 and at most 1, the least cosine within a ball, got {tau}.")
