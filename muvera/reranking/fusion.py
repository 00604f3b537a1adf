"""Fusion: merge rankings of one query into one.

Their scores can have different scales.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..data.ranking import Ranking
from ..utils.checks import given, require_choice, require_int

Method = Literal["sum", "minmax", "zscore", "rrf"]

#: Added to ranks by "rrf" (Cormack et al., 2009); larger values give the first ranks
#: less weight.
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
        By source, such as ``{"maxsim": ..., "bm25": ...}``.  A document that is missing
        from a source gets 0 with "sum" and "rrf", and that source's lowest score with
        "minmax" and "zscore".
    weights : mapping of str to float, optional
        At least 0, by source.  Default: all 1.
    method : {"sum", "minmax", "zscore", "rrf"}
        "sum" adds scores unchanged, if they were trained to be added, as the scores
        of BGE-M3; "minmax" and "zscore" scale each ranking first, so that few
        judgements are enough to weight them (Bruch et al., TOIS 2023); "rrf" uses ranks
        only.
    k : int, optional
        Largest number of documents to return.

    Returns
    -------
    Ranking
        By weighted sums; ties go to the document that appears first, sources in the
        order of `rankings`.

    Raises
    ------
    TypeError, ValueError
        If the method is unknown, a weight is negative or not finite, the weights have
        other sources, or `k` is not a positive int.

    Examples
    --------
    >>> import numpy as np
    >>> words = Ranking(np.array(["a", "b"]), np.float32([9, 1]))
    >>> vectors = Ranking(np.array(["b", "c"]), np.float32([0.3, 0.2]))
    >>> fuse({"bm25": words, "maxsim": vectors}, method="rrf").ids.tolist()
    ['b', 'a', 'c']
    """
    require_rankings(rankings)
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
    for source, ranking in rankings.items():
        for identity, score in zip(ranking.ids.tolist(), _scaled(ranking, method).tolist(), strict=True):
            totals[identity] = totals.get(identity, 0.0) + weight_of[source] * score
    order = sorted(totals, key=lambda identity: -totals[identity])[:k]  # a stable sort
    scores = np.array([totals[identity] for identity in order], np.float32)
    return Ranking(np.array(order) if order else np.empty(0, np.int64), scores)


def require_rankings(rankings: object) -> None:
    """Raise TypeError unless `rankings` has names of sources."""
    if not isinstance(rankings, Mapping):
        raise TypeError(
            "rankings must be a dictionary from sources' names, such as 'bm25', to results, got "
            f"{given(rankings)}."
        )


def _scaled(ranking: Ranking, method: Method) -> NDArray[np.float64]:
    scores = np.asarray(ranking.scores, np.float64)
    if method == "rrf":
        return np.asarray(1 / (RRF_CONSTANT + 1 + np.arange(len(scores))))
    if method == "sum" or not len(scores):
        return scores
    spread = np.ptp(scores) if method == "minmax" else scores.std()
    # The lowest score becomes 0, so that a missing document counts as the lowest.
    return (scores - scores.min()) / spread if spread > 0 else np.ones(len(scores))
