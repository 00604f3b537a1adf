"""The ranking of texts: similarity, shared words and mean vectors, added by weight.

A *source* proposes candidates: vectors, words, or another search.  A *scorer* scores
candidates: by tokens, words, or mean vectors.  :class:`Candidates` has the scores of
one query's candidates and ranks them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..metadata.groups import Group, best_of_groups
from .encoders.base import ScoreWeights

#: Parts of each text's score by id, best text first.
Parts = dict[Any, dict[str, float]]

Scores = NDArray[np.float64]


class _Scale(NamedTuple):
    """What scores of words and of mean vectors are divided by.

    All candidates define it, even if only some of them are ranked.
    """

    most_words: float
    lowest_mean: float
    spread_of_means: float


@dataclass(frozen=True, eq=False)
class Candidates:
    """The candidates of one query, and their scores.

    Of equal candidates, the first one ranks higher.

    Parameters
    ----------
    rows : int64 (n,)
        Distinct numbers of the candidates.
    maxsim : float64 (n,)
        Chamfer similarities, perhaps by codes until :meth:`rescored`.
    words : float64 (n,)
        BM25 scores; 0 if text and query share no words.
    means : float64 (n,)
        Similarities of mean vectors; NaN, which counts as the lowest, if unknown.
    scale : _Scale, optional
        Default: the scale of these candidates.
    """

    rows: NDArray[np.int64]
    maxsim: Scores
    words: Scores
    means: Scores
    scale: _Scale | None = None

    def _scaled(self) -> _Scale:
        if self.scale is not None:
            return self.scale
        known = self.means[~np.isnan(self.means)]
        lowest = float(known.min()) if len(known) else 0.0
        spread = float(known.max()) - lowest if len(known) else 0.0
        return _Scale(float(self.words.max(initial=0.0)) or 1.0, lowest, spread)

    def columns(self, weights: ScoreWeights) -> dict[str, Scores]:
        """Return the parts of the scores; a part with the weight 0 is left out.

        BM25 scores are divided by the highest one.  Similarities of mean vectors are
        scaled to reach from 0 to 1.  Both are multiplied by the range of the Chamfer
        similarities and by the part's weight, and divided by the weight that remains
        for similarity.  If all similarities are equal, their size takes the place of
        their range, so that words and means decide.
        """
        columns = {"maxsim": self.maxsim}
        if not len(self.rows):
            return columns
        spread = self.maxsim.max() - self.maxsim.min()
        unit = (spread or abs(self.maxsim[0]) or 1.0) / (1 - weights.words - weights.mean)
        scale = self._scaled()
        if weights.words:
            columns["words"] = weights.words * unit / scale.most_words * self.words
        if weights.mean:
            means = np.where(np.isnan(self.means), scale.lowest_mean, self.means) - scale.lowest_mean
            spread = scale.spread_of_means
            columns["mean"] = weights.mean * unit * (means / spread if spread > 0 else 0.0 * means)
        return columns

    def ranked(self, weights: ScoreWeights, k: int) -> tuple[NDArray[np.int64], dict[str, Scores]]:
        """Return the positions of the `k` best candidates, and the parts of all."""
        columns = self.columns(weights)
        total = sum(columns.values(), np.zeros(len(self.rows)))
        return np.argsort(-total, kind="stable")[:k], columns

    def promising(self, weights: ScoreWeights, count: int) -> NDArray[np.int64]:
        """Return the rows to score exactly, if these similarities are estimates.

        These are the best `count` candidates, plus the most and the least similar one,
        which define the scale of all parts.
        """
        if not len(self.rows):
            return self.rows
        best = self.ranked(weights, count)[0]
        ends = [self.maxsim.argmax(), self.maxsim.argmin()]
        return self.rows[list(dict.fromkeys([*best.tolist(), *ends]))]

    def rescored(self, rows: NDArray[np.int64], maxsim: NDArray[Any]) -> Candidates:
        """Return some of these candidates with exact similarities.

        The scale of the other parts stays.
        """
        order = np.argsort(self.rows)
        at = order[np.searchsorted(self.rows, rows, sorter=order)]
        exact = np.asarray(maxsim, np.float64)
        return Candidates(rows, exact, self.words[at], self.means[at], self._scaled())

    def parts(self, ids: Sequence[Any], weights: ScoreWeights, k: int) -> Parts:
        """Return the parts of the `k` best candidates; `ids` are those of all."""
        order, columns = self.ranked(weights, k)
        rows = zip(*(column[order].tolist() for column in columns.values()), strict=True)
        names = list(columns)
        return {
            ids[i]: dict(zip(names, row, strict=True)) for i, row in zip(order.tolist(), rows, strict=True)
        }


def aligned(rows: NDArray[np.int64], known: NDArray[np.int64], scores: Scores, default: float) -> Scores:
    """Return the score of each of `rows`, or `default` if it is not in `known`.

    `known` are distinct rows, and `scores` are their scores.
    """
    if not len(known):
        return np.full(len(rows), default)
    order = np.argsort(known)
    at = order[np.minimum(np.searchsorted(known, rows, sorter=order), len(known) - 1)]
    return np.where(known[at] == rows, scores[at], default)


class Unranked(NamedTuple):
    """The candidates of one query in one of several collections, before the ranking."""

    #: The id of each candidate.
    ids: list[Any]
    candidates: Candidates
    #: How many candidates vectors proposed, and how many others words may propose.
    vectors: int
    words: int
    #: How many of the best must be scored exactly; 0 if all of them are.
    rescored: int


def join(parts: Sequence[Unranked], matches: int) -> Unranked:
    """Return the candidates that one collection of all texts would have.

    Of the candidates in `parts`, these are the most similar ones and the best by words,
    as many as in one part.  Only the `matches` best by words have scores of words.
    Equal candidates keep the order of the parts.
    """
    ids = [id for part in parts for id in part.ids]
    maxsim = np.concatenate([part.candidates.maxsim for part in parts])
    words = np.concatenate([part.candidates.words for part in parts])
    means = np.concatenate([part.candidates.means for part in parts])
    vectors, others = max(part.vectors for part in parts), max(part.words for part in parts)
    best = np.argsort(-maxsim, kind="stable")[:vectors]
    shared = np.argsort(-words, kind="stable")[:matches]
    shared = shared[words[shared] > 0]
    kept = np.concatenate([best, shared[~np.isin(shared, best)][:others]])
    counted = np.zeros(len(ids))
    counted[shared] = words[shared]
    candidates = Candidates(np.arange(len(kept)), maxsim[kept], counted[kept], means[kept])
    rescored = max(part.rescored for part in parts)
    return Unranked([ids[at] for at in kept.tolist()], candidates, vectors, others, rescored)


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


def add_parts(
    maxsim: Mapping[Any, float],
    words: Mapping[Any, float],
    means: Mapping[Any, float],
    weights: ScoreWeights,
    k: int,
) -> Parts:
    """Rank candidates by id, as :class:`Candidates` does by row.

    `maxsim` has all candidates.  A candidate that is missing in `words` shares no word
    with the query, and one that is missing in `means` counts as the lowest.
    """
    ids = list(maxsim)
    candidates = Candidates(
        np.arange(len(ids)),
        np.array(list(maxsim.values()), np.float64),
        np.array([words.get(id, 0.0) for id in ids]),
        np.array([means.get(id, np.nan) for id in ids]),
    )
    return candidates.parts(ids, weights, k)
