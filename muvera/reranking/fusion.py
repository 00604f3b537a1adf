"""Rankings of several kinds made one: by weighted sums, normalized sums, or reciprocal ranks.

Scores of different kinds (Chamfer, BM25, cosines of single vectors) have different scales.  "sum" adds them as
they are, for scores that were trained to be added (BGE-M3); "minmax" and "zscore" bring every list to one
scale first, which needs few judgements to weight and is insensitive to which of both is taken (Bruch et al.,
TOIS 2023); "rrf" looks at ranks alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..data.ranking import Ranking
from ..utils.checks import require_int

__all__ = ["Method", "fuse", "ndcg", "tune_weights"]

Method = Literal["sum", "minmax", "zscore", "rrf"]

#: Added to ranks by "rrf" (Cormack et al., 2009): larger, and the first places matter less.
RRF_CONSTANT = 60


def fuse(
    rankings: Mapping[str, Ranking],
    weights: Mapping[str, float] | None = None,
    method: Method = "minmax",
    k: int | None = None,
) -> Ranking:
    """Return one ranking of all that is in several rankings of one query.

    Parameters
    ----------
    rankings : mapping of str to Ranking
        By source, such as ``{"maxsim": ..., "bm25": ...}``.  What a source does not have adds nothing: 0 by
        "sum", the least of that source by "minmax" and "zscore".
    weights : mapping of str to float, optional
        At least 0, by source.  Default: all 1.
    method : {"sum", "minmax", "zscore", "rrf"}
    k : int, optional
        How many to return at most.

    Returns
    -------
    Ranking
        Scores are the weighted sums; ties go to what appears first, sources in the order of `rankings`.

    Raises
    ------
    ValueError
        For an unknown method, a negative weight, or weights of other sources.

    Examples
    --------
    >>> import numpy as np
    >>> one = Ranking(np.array(["a", "b"]), np.float32([9, 1]))
    >>> two = Ranking(np.array(["b", "c"]), np.float32([0.3, 0.2]))
    >>> fuse({"bm25": one, "maxsim": two}, method="rrf").ids.tolist()
    ['b', 'a', 'c']
    """
    used = _checked_weights(rankings, weights)
    if method not in get_args(Method):
        raise ValueError(f"method must be one of {', '.join(get_args(Method))}, got {method!r}.")
    if k is not None:
        require_int("k", k, 1)
    totals: dict[int | str, float] = {}
    for ranking in rankings.values():
        totals.update(dict.fromkeys(ranking.ids.tolist(), 0.0))
    for name, ranking in rankings.items():
        for identity, score in zip(ranking.ids.tolist(), _scaled(ranking, method).tolist(), strict=True):
            totals[identity] += used[name] * score
    order = sorted(totals, key=lambda identity: -totals[identity])[:k]  # stable: first come, first served
    scores = np.array([totals[identity] for identity in order], np.float32)
    return Ranking(np.array(order) if order else np.empty(0, np.int64), scores)


def _checked_weights(
    rankings: Mapping[str, Ranking], weights: Mapping[str, float] | None
) -> dict[str, float]:
    given = (
        dict.fromkeys(rankings, 1.0) if weights is None else {name: float(w) for name, w in weights.items()}
    )
    if set(given) != set(rankings):
        raise ValueError(
            f"weights must be of the sources {', '.join(rankings)}, got {', '.join(given) or 'none'}."
        )
    for name, weight in given.items():
        if not (np.isfinite(weight) and weight >= 0):
            raise ValueError(f"The weight of {name!r} must be a finite number of at least 0, got {weight}.")
    return given


def _scaled(ranking: Ranking, method: Method) -> NDArray[np.float64]:
    scores = np.asarray(ranking.scores, np.float64)
    if method == "rrf":
        return np.asarray(1 / (RRF_CONSTANT + 1 + np.arange(len(scores))))
    if method == "sum" or not len(scores):
        return scores
    spread = np.ptp(scores) if method == "minmax" else scores.std()
    # What is missing counts as the least, so the least is 0 by both.
    return (scores - scores.min()) / spread if spread > 0 else np.ones(len(scores))


def tune_weights(
    rankings: Sequence[Mapping[str, Ranking]],
    relevant: Sequence[Mapping[Any, float]],
    method: Method = "minmax",
    *,
    step: float = 0.1,
    cutoff: int = 10,
    folds: int = 5,
    seed: int = 0,
) -> tuple[dict[str, float], float]:
    """Choose the weights of a fusion by judged queries.

    Parameters
    ----------
    rankings : sequence of mappings
        For each query, its rankings by source, as :func:`fuse` takes them.
    relevant : sequence of mappings of id to grade
        For each query, what is relevant and how much (1 where judgements are binary).
    method : str
        As for :func:`fuse`.
    step : float
        Weights are multiples of it that add up to 1; smaller is finer and takes longer.
    cutoff : int
        nDCG is measured among the first so many.
    folds : int
        Parts of the queries for the estimate.
    seed : int
        Fixes the parts.

    Returns
    -------
    weights : dict of str to float
        Those with the largest mean nDCG over all queries, the more even ones of equals.
    estimate : float
        Mean nDCG of queries that did not choose: each part by the weights that the other parts choose.

    Raises
    ------
    ValueError
        For fewer than 2 judged queries, or sources that differ between queries.
    """
    if len(rankings) != len(relevant):
        raise ValueError(f"There are rankings of {len(rankings)} queries and judgements of {len(relevant)}.")
    judged = [i for i, grades in enumerate(relevant) if any(grade > 0 for grade in grades.values())]
    if len(judged) < 2:
        raise ValueError(f"Weights need at least 2 queries with something relevant, got {len(judged)}.")
    sources = list(rankings[judged[0]])
    if any(set(rankings[i]) != set(sources) for i in judged):
        raise ValueError(
            "Every query must have a ranking of every source. Give empty ones where nothing was found."
        )
    parts = round(1 / step)
    grid = [
        [count / parts for count in counts]
        for counts in product(range(parts + 1), repeat=len(sources))
        if sum(counts) == parts
    ]
    grid.sort(key=lambda values: sum(value * value for value in values))
    gains = np.array(
        [
            [
                ndcg(fuse(rankings[i], dict(zip(sources, values, strict=True)), method), relevant[i], cutoff)
                for i in judged
            ]
            for values in grid
        ]
    )
    order = np.random.default_rng(seed).permutation(len(judged))
    held_out = []
    for fold in np.array_split(order, min(folds, len(judged))):
        rest = np.setdiff1d(order, fold)
        held_out += gains[int(np.argmax(gains[:, rest].mean(axis=1))), fold].tolist()
    best = grid[int(np.argmax(gains.mean(axis=1)))]
    return dict(zip(sources, best, strict=True)), float(np.mean(held_out))


def ndcg(ranking: Ranking, relevant: Mapping[Any, float], cutoff: int) -> float:
    """Return the normalized discounted cumulative gain of a ranking, linear gains, among the first `cutoff`.

    Examples
    --------
    >>> import numpy as np
    >>> ndcg(Ranking(np.array(["a", "b"]), np.float32([2, 1])), {"b": 1}, 10)
    0.6309297535714575
    """
    discounts = 1 / np.log2(2 + np.arange(cutoff))
    found = [max(0.0, relevant.get(identity, 0)) for identity in ranking.ids[:cutoff].tolist()]
    ideal = sorted((grade for grade in relevant.values() if grade > 0), reverse=True)[:cutoff]
    best = float(np.dot(ideal, discounts[: len(ideal)]))
    return float(np.dot(found, discounts[: len(found)])) / best if best else 0.0
