"""The ranking of texts: similarity, words that they share, and mean vectors.

The score of a text is

    maxsim + unit * (w * words + m * mean) / (1 - w - m),

with the Chamfer similarity ``maxsim`` of query and text, the similarity ``unit`` of the
query with itself, the text's BM25 score ``words``, divided by the highest one of all
texts, the cosine ``mean`` of the mean token vectors of query and text, and the weights
w and m.  So the score of a text does not depend on the other candidates, on conditions,
or on how texts are split over shards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.validation import TokenArray
from ..metadata.groups import Group, best_of_groups
from ..reranking.chamfer import score_spans
from .encoders.base import ScoreWeights

#: Parts of each text's score by id, best text first.
Parts = dict[Any, dict[str, float]]

Scores = NDArray[np.float64]


def query_unit(query: TokenArray) -> float:
    """Return the Chamfer similarity of a query with itself; 0 without tokens."""
    return float(score_spans(query, query, np.array([[0, len(query)]]))[0]) if len(query) else 0.0


@dataclass(frozen=True, eq=False)
class Candidates:
    """The candidates of one query, and their scores.

    Of equal candidates, the first one ranks higher.

    Parameters
    ----------
    unit : float
        Chamfer similarity of the query with itself, see :func:`query_unit`.
    maxsim : float (n,)
        Chamfer similarities, perhaps by codes.
    words : float (n,)
        BM25 scores, divided by the highest one.
    means : float (n,)
        Cosines of mean vectors.
    """

    unit: float
    maxsim: NDArray[Any]
    words: NDArray[Any]
    means: NDArray[Any]

    @classmethod
    def of(
        cls,
        unit: float,
        maxsim: NDArray[Any],
        words: NDArray[Any] | None = None,
        means: NDArray[Any] | None = None,
    ) -> Candidates:
        """Return candidates; a part that is not given is 0."""
        zeros = np.zeros(len(maxsim))
        return cls(unit, maxsim, zeros if words is None else words, zeros if means is None else means)

    def at(self, positions: NDArray[np.int64]) -> Candidates:
        """Return some of these candidates."""
        return Candidates(self.unit, self.maxsim[positions], self.words[positions], self.means[positions])

    def columns(self, weights: ScoreWeights) -> dict[str, Scores]:
        """Return the parts of the scores; a part with the weight 0 is left out."""
        columns = {"maxsim": np.asarray(self.maxsim, np.float64)}
        unit = self.unit / (1 - weights.words - weights.mean)
        if weights.words:
            columns["words"] = weights.words * unit * np.asarray(self.words, np.float64)
        if weights.mean:
            columns["mean"] = weights.mean * unit * np.asarray(self.means, np.float64)
        return columns

    def best(self, weights: ScoreWeights, k: int) -> NDArray[np.int64]:
        """Return the positions of the `k` best candidates, best first."""
        total = sum(self.columns(weights).values(), np.zeros(len(self.maxsim)))
        return np.argsort(-total, kind="stable")[:k]

    def parts(self, ids: Sequence[Any], weights: ScoreWeights, k: int) -> Parts:
        """Return the parts of the `k` best candidates; `ids` are those of all."""
        order, columns = self.best(weights, k), self.columns(weights)
        rows = zip(*(column[order].tolist() for column in columns.values()), strict=True)
        names = list(columns)
        return {
            ids[i]: dict(zip(names, row, strict=True)) for i, row in zip(order.tolist(), rows, strict=True)
        }


def join(parts: Sequence[Parts], k: int) -> Parts:
    """Return the `k` best texts of several collections, which have different ids.

    Equal texts keep the order of the collections.
    """
    scores = [(sum(own.values()), id, own) for some in parts for id, own in some.items()]
    return {id: own for _, id, own in sorted(scores, key=lambda one: -one[0])[:k]}


def rank_groups(
    rank: Callable[[list[int], int], list[Parts]],
    groups: Callable[[list[Any]], Mapping[Any, Group]],
    most_groups: Callable[[], int],
    queries: int,
    k: int,
    most: int,
) -> list[Parts]:
    """Return the score parts of the best text of each group, for each query.

    ``rank(numbers, depth)`` returns the `depth` best texts of some queries, ``groups``
    the groups of texts, and ``most_groups()`` a bound of the number of groups.  Rank
    twice as many texts until there are `k` groups, or no more texts or groups, but at
    most `most` texts.
    """
    found: list[Parts] = [{} for _ in range(queries)]
    left, depth = list(range(queries)), k
    while left:
        depth = max(k, min(2 * depth, most))
        ranked = rank(left, depth)
        known = groups(list({id: None for parts in ranked for id in parts}))
        for q, parts in zip(left, ranked, strict=True):
            found[q] = best_parts(parts, known, k)
        left = [q for q, parts in zip(left, ranked, strict=True) if len(parts) == depth < most]
        left = [q for q in left if len(found[q]) < k]
        enough = most_groups() if left else 0
        left = [q for q in left if len(found[q]) < enough]
    return found


def best_parts(parts: Parts, groups: Mapping[Any, Group], k: int) -> Parts:
    """Return the parts of the best text of each group, at most `k`.

    A text that is not in `groups` forms a group by itself.
    """
    ids = list(parts)
    return {ids[i]: parts[ids[i]] for i in best_of_groups(ids, groups, k)}
