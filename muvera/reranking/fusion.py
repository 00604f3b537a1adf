"""Fusion: merge rankings of several kinds into one.

Scores of different kinds (Chamfer, BM25, cosines of single vectors) have different scales.  "sum" adds them
unchanged, for scores that were trained to be added (BGE-M3).  "minmax" and "zscore" scale every list first;
few judgements are enough to weight the lists (Bruch et al., TOIS 2023).  "rrf" uses ranks only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..data.ranking import Ranking
from ..utils.checks import require_choice, require_int

__all__ = ["Method", "fuse", "ndcg", "tune_weights"]

Method = Literal["sum", "minmax", "zscore", "rrf"]

#: Added to ranks by "rrf" (Cormack et al., 2009); larger values give the first ranks less weight.
RRF_CONSTANT = 60


def fuse(
    rankings: Mapping[str, Ranking],
    weights: Mapping[str, float] | None = None,
    method: Method = "minmax",
    k: int | None = None,
) -> Ranking:
    """Merge several rankings of one query into one.

    Parameters
    ----------
    rankings : mapping of str to Ranking
        By source, such as ``{"maxsim": ..., "bm25": ...}``.  A document that is missing from a source gets 0
        with "sum" and "rrf", and that source's lowest score with "minmax" and "zscore".
    weights : mapping of str to float, optional
        At least 0, by source.  Default: all 1.
    method : {"sum", "minmax", "zscore", "rrf"}
    k : int, optional
        Largest number of documents to return.

    Returns
    -------
    Ranking
        By weighted sums; ties go to the document that appears first, sources in the order of `rankings`.

    Raises
    ------
    ValueError
        If the method is unknown, a weight is negative or the weights are of other sources.

    Examples
    --------
    >>> import numpy as np
    >>> one = Ranking(np.array(["a", "b"]), np.float32([9, 1]))
    >>> two = Ranking(np.array(["b", "c"]), np.float32([0.3, 0.2]))
    >>> fuse({"bm25": one, "maxsim": two}, method="rrf").ids.tolist()
    ['b', 'a', 'c']
    """
    weight_of = dict.fromkeys(rankings, 1.0) if weights is None else {s: float(w) for s, w in weights.items()}
    if set(weight_of) != set(rankings):
        raise ValueError(
            f"weights must have the sources {', '.join(rankings)}, got {', '.join(weight_of) or 'none'}."
        )
    for source, weight in weight_of.items():
        if not (np.isfinite(weight) and weight >= 0):
            raise ValueError(f"The weight of {source!r} must be a finite number of at least 0, got {weight}.")
    require_choice("method", method, get_args(Method))
    if k is not None:
        require_int("k", k, 1)
    totals: dict[int | str, float] = {}
    for ranking in rankings.values():
        totals.update(dict.fromkeys(ranking.ids.tolist(), 0.0))
    for source, ranking in rankings.items():
        for identity, score in zip(ranking.ids.tolist(), _scaled(ranking, method).tolist(), strict=True):
            totals[identity] += weight_of[source] * score
    order = sorted(totals, key=lambda identity: -totals[identity])[:k]  # a stable sort
    scores = np.array([totals[identity] for identity in order], np.float32)
    return Ranking(np.array(order) if order else np.empty(0, np.int64), scores)


def _scaled(ranking: Ranking, method: Method) -> NDArray[np.float64]:
    scores = np.asarray(ranking.scores, np.float64)
    if method == "rrf":
        return np.asarray(1 / (RRF_CONSTANT + 1 + np.arange(len(scores))))
    if method == "sum" or not len(scores):
        return scores
    spread = np.ptp(scores) if method == "minmax" else scores.std()
    # The lowest score becomes 0, so that a missing document counts as the lowest.
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
    """Choose the weights of a fusion with judged queries.

    Parameters
    ----------
    rankings : sequence of mappings
        For each query, its rankings by source, as for :func:`fuse`.
    relevant : sequence of mappings of id to grade
        For each query, the relevant documents and their grades (1 for binary judgements).
    method : str
        As for :func:`fuse`.
    step : float
        Weights are multiples of it that add up to 1; smaller is finer and slower.
    cutoff : int
        Number of documents over which nDCG is measured.
    folds : int
        Number of folds for the estimate.
    seed : int
        Fixes the folds.

    Returns
    -------
    weights : dict of str to float
        The weights with the largest mean nDCG over all queries; of equals, the most even ones.
    estimate : float
        Cross-validated mean nDCG: each fold is measured with the weights chosen on the other folds.

    Raises
    ------
    ValueError
        If fewer than 2 queries have a relevant document, or sources differ between queries.
    """
    if len(rankings) != len(relevant):
        raise ValueError(f"There are rankings of {len(rankings)} queries and judgements of {len(relevant)}.")
    judged = [i for i, grades in enumerate(relevant) if any(grade > 0 for grade in grades.values())]
    if len(judged) < 2:
        raise ValueError(f"tune_weights needs at least 2 queries with relevant documents, got {len(judged)}.")
    sources = list(rankings[judged[0]])
    if any(set(rankings[i]) != set(sources) for i in judged):
        raise ValueError("Every query must have a ranking of every source. Give empty rankings if needed.")
    parts = round(1 / step)
    grid = [
        dict(zip(sources, (count / parts for count in counts), strict=True))
        for counts in product(range(parts + 1), repeat=len(sources))
        if sum(counts) == parts
    ]
    grid.sort(key=lambda weights: sum(value * value for value in weights.values()))
    gains = np.array(
        [[ndcg(fuse(rankings[i], weights, method), relevant[i], cutoff) for i in judged] for weights in grid]
    )
    order = np.random.default_rng(seed).permutation(len(judged))
    held_out = []
    for fold in np.array_split(order, min(folds, len(judged))):
        rest = np.setdiff1d(order, fold)
        held_out += gains[int(np.argmax(gains[:, rest].mean(axis=1))), fold].tolist()
    return grid[int(np.argmax(gains.mean(axis=1)))], float(np.mean(held_out))


def ndcg(ranking: Ranking, relevant: Mapping[Any, float], cutoff: int) -> float:
    """Return the normalized discounted cumulative gain (linear gains) of the first `cutoff` documents.

    Examples
    --------
    >>> import numpy as np
    >>> ndcg(Ranking(np.array(["a", "b"]), np.float32([2, 1])), {"b": 1}, 10)
    0.6309297535714575
    """
    discounts = 1 / np.log2(2 + np.arange(cutoff))
    gains = [max(0.0, relevant.get(identity, 0)) for identity in ranking.ids[:cutoff].tolist()]
    ideal = sorted((grade for grade in relevant.values() if grade > 0), reverse=True)[:cutoff]
    best = float(np.dot(ideal, discounts[: len(ideal)]))
    return float(np.dot(gains, discounts[: len(gains)])) / best if best else 0.0
