"""Transformations of queries before a search: merge similar tokens, weight tokens.

Weighted Chamfer similarity is ``sum_i w_i max_j <q_i, p_j>``.  Multiplying each query token by its weight gives
the same scores, so every search accepts weighted queries.  A query's vector is a sum over its tokens, so the
weights apply to it, too.  One exception changes candidates slightly: the soft cells of an FDE depend on the
lengths of token vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors, as_multivectors, checked_texts
from ..data.validation import as_array
from ..utils.checks import require_number

__all__ = ["carve_queries", "weight_queries"]

# Maximum rounding error of the cosine of a token with itself.
_ROUNDING = 1e-12


def carve_queries(queries: Any, tau: float) -> MultiVectors:
    """Merge similar query tokens, so that a search needs fewer inner products (MUVERA, section 3.2).

    Each ball of similar tokens is replaced by their sum.  The first token that is in no ball starts the next
    ball; every later free token whose cosine with it is at least `tau` joins this ball.  A ball matches one
    document token, so a score is at most the Chamfer similarity (up to rounding), and equal to it if all
    tokens of each ball have the same best document token.

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


def weight_queries(queries: Any, weights: Any) -> MultiVectors:
    """Multiply the token vectors of queries by weights.

    Parameters
    ----------
    queries : MultiVectors, one array (tokens, dimension) or a list of such arrays
    weights : float (tokens,), or a sequence of such arrays
        At least 0, one per token vector, in order; a single array contains the weights of all queries, one
        after another.

    Returns
    -------
    MultiVectors
        float32, with the same ids.

    Raises
    ------
    ValueError
        If the number of weights differs from that of tokens, or a weight is negative or not finite.

    Examples
    --------
    >>> import numpy as np
    >>> weight_queries(np.eye(2), [2.0, 0.5]).tokens.tolist()
    [[2.0, 0.0], [0.0, 0.5]]
    """
    texts = as_multivectors(queries, "queries")
    if isinstance(weights, Sequence) and len(weights) and np.ndim(weights[0]):
        weights = np.concatenate([np.asarray(as_array(one), np.float32) for one in weights])
    flat = np.asarray(as_array(weights), np.float32)
    if flat.shape != (texts.num_tokens,):
        raise ValueError(
            f"weights have shape {flat.shape} for {texts.num_tokens} query tokens. Give one per token."
        )
    wrong = np.flatnonzero(~(np.isfinite(flat) & (flat >= 0)))
    if len(wrong):
        raise ValueError(
            f"weights[{wrong[0]}] is {flat[wrong[0]]}: weights must be finite and at least 0. A negative one "
            "would search for the least similar token."
        )
    scaled = np.asarray(texts.tokens, np.float32) * flat[:, np.newaxis]
    return MultiVectors(scaled, texts.offsets, texts.ids if texts.has_ids else None)
