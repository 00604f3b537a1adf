"""Capacity of SimHash cells: how many tokens a cell can hold before its best token is lost.

A cell of a document's FDE holds the mean of its m tokens in p coordinates; a query token finds its
best token x again only if <q, x> / m stands out from the noise.  Such sums of nearly orthogonal
vectors are the bundles of vector symbolic architectures, whose capacity Clarkson, Ubaru and Yang
(arXiv 2301.10352) bound.

The model
---------
A query has t tokens.  Each has a cosine of s with its best token in the relevant document, and
cosines of mean r and standard deviation tau with all other tokens; r is the same for all documents
and cancels out.  The tokens of a cell are nearly orthogonal, so that their mean has a squared length
of 1 / m.  R repetitions of p independent projections estimate its inner product with the query
token: these are R p rows of +-1.

A competing document without such tokens is ahead if the sum of t differences, of mean s / m each, is
negative.  A difference has a variance of 2 tau^2 / m because other tokens share the cells, and of
2 / (m R p) because of the projections.  Of both together, Chernoff's bound is

    exp(-t s^2 / (4 m (tau^2 + 1 / (R p)))),

and N competitors have at most N times this probability.  Solving for m gives the largest load for a
probability of delta.  Orthogonal matrices, as ``projection="complementary"`` and
``hyperplanes="orthogonal"`` draw them, have less noise than independent rows; ``projection="identity"``
has none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..utils.checks import require_int, require_number

__all__ = ["CellCapacity", "cell_capacity"]


@dataclass(frozen=True)
class CellCapacity:
    """Load that cells can carry, and the probability of failure at the given load.

    Parameters
    ----------
    failure : float
        Bound on the probability that a competitor is ahead of the relevant document, at most 1.
    largest_load : float
        Tokens per cell up to which this bound is at most delta; below 1 where even a cell of
        one token fails more often.
    shared_noise, projection_noise : float
        Shares of the variance that come from other tokens in the cell and from the projections:
        the first falls with more cells, the second with more projected columns or repetitions.
    """

    failure: float
    largest_load: float
    shared_noise: float
    projection_noise: float


def cell_capacity(
    tokens_per_cell: float,
    projection_dimension: int | None,
    repetitions: int,
    spread: float,
    competitors: int,
    delta: float = 0.05,
    *,
    similarity: float = 1.0,
    query_tokens: int = 1,
) -> CellCapacity:
    """Return a bound on the failure of cells under a load, and the largest load they can carry.

    Parameters
    ----------
    tokens_per_cell : float
        m, at least 1.
    projection_dimension : int or None
        p.  None: tokens are not projected.
    repetitions : int
        R.
    spread : float
        tau, standard deviation of the cosine of a query token with unrelated tokens.
    competitors : int
        N, other documents.
    delta : float
        Probability of failure for `largest_load`.
    similarity : float
        s, by how much the cosine with the best token exceeds that with unrelated ones.
    query_tokens : int
        t.

    Returns
    -------
    CellCapacity

    Raises
    ------
    TypeError
        For a value that is no number, or no int where an int is needed.
    ValueError
        For a value out of its range.

    Examples
    --------
    >>> capacity = cell_capacity(16, 16, 20, spread=0.1, competitors=1000, similarity=0.5, query_tokens=32)
    >>> round(capacity.failure, 3), round(capacity.largest_load, 1)
    (0.073, 15.4)
    """
    load = require_number("tokens_per_cell", tokens_per_cell, 1)
    if projection_dimension is not None:
        require_int("projection_dimension", projection_dimension, 1)
    require_int("repetitions", repetitions, 1)
    require_number("spread", spread, 0)
    require_int("competitors", competitors, 1)
    require_int("query_tokens", query_tokens, 1)
    for name, value in (("delta", delta), ("similarity", similarity)):
        if not 0 < require_number(name, value) <= 1:
            raise ValueError(f"{name} must be above 0 and at most 1, got {value}.")
    shared = spread**2
    projected = 0.0 if projection_dimension is None else 1 / (projection_dimension * repetitions)
    noise = shared + projected
    if noise == 0:
        return CellCapacity(0.0, math.inf, 0.0, 0.0)
    signal = query_tokens * similarity**2 / (4 * noise)
    return CellCapacity(
        failure=min(1.0, competitors * math.exp(-signal / load)),
        largest_load=signal / math.log(competitors / delta) if competitors > delta else math.inf,
        shared_noise=shared / noise,
        projection_noise=projected / noise,
    )
