"""Numbers of the first stage: measured recall, and when to stop for a mean recall.

A :class:`Calibration` says how many candidates a query ranks for a mean recall.  Its
queries are windows of documents, or real queries.  It controls their mean recall by
conformal risk control (Angelopoulos et al. 2022, arXiv 2208.02814): later queries of
the same distribution reach it, too.

A query of few tokens needs more candidates, because its ten best differ less from the
others: 8 tokens need up to three times as many as 32.  So windows of each length have
their own limits, and a query takes those of the longest windows that are not longer.
Only distinct tokens count as length: a ColBERT model fills a question of 10 tokens with
22 masks, which are like the tokens of its words.

An encoder finds more of the best documents of windows that it was fitted to, so these
promise too much.  A fit leaves out the windows of some documents, and they calibrate.
A real query resembles them: the documents that it looks for were fitted on.  Added
documents may be of another kind, so windows of these make a second calibration, and a
search takes the one that ranks more.

Everything here is computed from arrays; measuring.py makes the arrays.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors
from ..kernels.rows import count_distinct
from ..kernels.selection import LEAST, LIMIT, SLOPE, STATE, STEP, VARIANCE, trace_misses
from ..reranking.pruning import Stop
from ..utils.checks import require_number
from ..utils.hints import Argument, Message
from ..utils.intervals import CONFIDENCE, share_interval
from .settings import DEFAULT_CANDIDATES, FirstStageRecall

#: Exact best documents that a measurement looks for; the default `k` of a search.
BEST = 10

#: Candidates among which it looks for them; the default of a search.
CANDIDATES = DEFAULT_CANDIDATES

# A recall of added documents needs this many windows.
_MIN_WINDOWS = 8

# A recall of added documents from here on gets no warning.
_ENOUGH = 0.95

# Warn if the added documents' recall is lower than the other documents' recall by more
# than this plus two standard errors.
_DROP = 0.02

# Minimum standard deviation of windows in these standard errors, because a few windows
# can agree by chance.
_DEVIATION = 0.05

#: Calibrated mean recalls; a search uses the lowest one that is at least the requested
#: one.
TARGETS = (0.5, 0.7, 0.8, 0.85, 0.9, 0.925, 0.95, 0.965, 0.98, 0.985, 0.99, 0.995, 0.998, 1.0)

#: A search ranks as many candidates as reach this mean recall, unless the caller gives
#: a number or a recall.
DEFAULT_RECALL = 0.95

#: Maximum number of candidates of a calibration.
MAX_RANKED = 1000

#: Minimum number of queries of a calibration.
MIN_QUERIES = 64

# Share of a target's misses that the cap on candidates may cause; stopping early may
# cause the rest.
_SHARE = 0.5

# A query fails if its first candidates contain less than this share of its exact best.
_FAILED = 0.75

# The depth of `failed`: as many candidates as reach this mean recall.
_NEARLY_ALL = 0.98

# Warn if at least this many times n + 1 windows of added documents fail, where n
# windows of others fail: with equal failure rates, at most one measurement in fifty
# does so.
_TIMES = 4

# How a warning about added documents ends.
_FIT_AGAIN = (
    "In Python, rebuild() fits the encoder again. For a stream of changing documents use "
    "encoder='simhash', which hardly depends on a sample."
)

# The cap is rounded up to a multiple of this: a sample does not determine it exactly.
_ROUND = 16

# The cap is at least this many times k, as in a search.
_LEAST = 3

# Tokens are alike if their cosine is above this.
_ALIKE = 0.9

# Largest number of expected misses (levels x queries x checks) that are traced
# together: 4 MiB.
_TRACED = 1 << 19


class FirstStage(NamedTuple):
    """Recall of all documents, recall of added documents, and a warning.

    Added documents are newer than the encoder's fit.  None if unknown; the warning is
    None unless their recall is clearly lower.
    """

    everything: FirstStageRecall | None = None
    added: FirstStageRecall | None = None
    warning: str | None = None


@dataclass(frozen=True)
class MeasuredWindows:
    """The measured recall of each window.

    A window is a part of a document, used as a query.  Its recall is the share of its
    exact best documents that are among its candidates.

    Parameters
    ----------
    rows : ndarray (n,), int64
        Rows of the windows' documents.
    shares : ndarray (n,), float64
        The recall of each window.
    stop : int
        At the last measurement: the next free row number.
    documents : int
        At the last measurement: the number of documents that were searched.
    size : int
        Number of documents when windows of all documents were last measured.
    """

    rows: NDArray[np.int64]
    shares: NDArray[np.float64]
    stop: int
    documents: int
    size: int

    def first_stage(self, live: NDArray[np.int64], fitted: int) -> FirstStage:
        """Return the recall of the searchable rows `live`, int64 (n,), ascending.

        Rows from `fitted` on were added after the encoder was fitted.
        """
        current = np.isin(self.rows, live)
        old = self.shares[current & (self.rows < fitted)]
        new = self.shares[current & (self.rows >= fitted)]
        before = int(np.searchsorted(live, fitted))
        groups = [pair for pair in ((old, before), (new, len(live) - before)) if len(pair[0])]
        if not groups:
            return FirstStage()
        everything = self._recall(groups)
        if len(new) < _MIN_WINDOWS:
            return FirstStage(everything)
        return FirstStage(everything, self._recall([(new, len(new))]), _warning(old, new))

    def _recall(self, groups: Sequence[tuple[NDArray[np.float64], int]]) -> FirstStageRecall:
        """Return the recall of groups of documents, by shares and number of documents.

        The intervals of all groups contain their means with the given probability.
        """
        weights = np.array([size for _, size in groups]) / sum(size for _, size in groups)
        means = np.array([shares.mean() for shares, _ in groups])
        confidence = 1 - (1 - CONFIDENCE) / len(groups)
        ends = np.array([share_interval(shares, confidence=confidence) for shares, _ in groups])
        low, high = (weights @ ends).tolist()
        queries = sum(len(shares) for shares, _ in groups)
        recall = float(weights @ means)
        return FirstStageRecall(recall, BEST, CANDIDATES, queries, True, self.documents, (low, high))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, without `size`."""
        listed = {"rows": self.rows.tolist(), "shares": self.shares.tolist()}
        return {**listed, "stop": self.stop, "documents": self.documents}

    @classmethod
    def from_dict(cls, values: dict[str, Any], size: int) -> MeasuredWindows:
        """Return the windows of :meth:`to_dict`.

        Raise ValueError or TypeError for damaged ones.
        """
        rows = np.array(values["rows"], np.int64)
        shares = np.array(values["shares"], np.float64)
        if rows.ndim != 1 or rows.shape != shares.shape or not ((shares >= 0) & (shares <= 1)).all():
            raise ValueError(
                f"A measured window must have one share from 0 to 1, got {shares.size} shares of "
                f"{rows.size} windows."
            )
        return cls(rows, shares, int(values["stop"]), int(values["documents"]), size)


def _warning(old: NDArray[np.float64], new: NDArray[np.float64]) -> str | None:
    """Return a warning if the shares of added documents are clearly lower."""
    before = float(old.mean()) if len(old) else 1.0
    groups = [shares for shares in (old, new) if len(shares)]
    variance = sum(max(float(shares.var()), _DEVIATION**2) / len(shares) for shares in groups)
    if new.mean() >= min(_ENOUGH, before - _DROP - 2 * math.sqrt(variance)):
        return None
    return (
        f"For documents that were added after the encoder was fitted, {CANDIDATES} candidates contain "
        f"only {new.mean():.0%} of the exact {BEST} best; for the others, {before:.0%}. {_FIT_AGAIN}"
    )


class Level(NamedTuple):
    """When to stop ranking for a mean recall.

    Parameters
    ----------
    target : float
        The mean recall to reach.
    fixed : int
        Number of candidates that reaches it without stopping.
    cap : int
        Ranking stops at this number of candidates at the latest.
    limit : float
        Ranking stops once the expected misses, as a share of the k best, are at most
        this.
    stopped, capped : float
        Mean recall of queries that stopped before the cap, and of the others; the
        target, or the highest recall that the candidates allow, if there were none.
    added : float or None
        Mean recall of queries that mostly found documents that were added after the
        encoder was fitted; these are not in `stopped` and `capped`.  None if there were
        too few.
    """

    target: float
    fixed: int
    cap: int
    limit: float
    stopped: float
    capped: float
    added: float | None = None


#: Rank every document.
EVERYTHING = Level(target=1.0, fixed=0, cap=0, limit=0.0, stopped=1.0, capped=1.0)


class QueryGroup(NamedTuple):
    """The error model of queries with similar numbers of tokens, and when to stop.

    Parameters
    ----------
    least : float
        Least number of distinct tokens of a query: their mean number in the windows.
    slope : float
        Slope of exact scores as a function of products.
    variance : float
        Variance of the errors per query token.
    levels : tuple of Level
        One for each of TARGETS, by ascending target.
    """

    least: float
    slope: float
    variance: float
    levels: tuple[Level, ...]

    def level(self, recall: float, k: int) -> Level:
        """Return the lowest level with this mean recall and room for `k` documents."""
        level = next((level for level in self.levels if level.target >= recall), self.levels[-1])
        return level if level.cap >= _LEAST * k else level._replace(cap=_LEAST * k)


class Dial(NamedTuple):
    """When to stop ranking a query for one mean recall: its group, and a level."""

    group: QueryGroup
    level: Level

    def stop(self, products: NDArray[np.float32], tokens: int, k: int) -> Stop:
        """Return when to stop ranking a query for its `k` best.

        `products`, float32 (c,), are the products of its candidates, best first.
        `tokens` is its number of tokens.
        """
        state = _states(self.group.slope, self.group.variance, np.array([tokens]))[0]
        state[LIMIT] = self.level.limit * k
        state[LEAST] = _unstopped(self.level.fixed)
        return Stop(products, state)


class Scored(NamedTuple):
    """The first c candidates of n queries, which a calibration is fitted to."""

    #: Products of the candidates, best first, float32 (n, c).
    products: NDArray[np.float32]
    #: Their exact scores, or scores by codes if the index stores codes, float32 (n, c).
    scores: NDArray[np.float32]
    #: Number of tokens of each query, int64 (n,).
    query_tokens: NDArray[np.int64]
    #: Number of distinct tokens of each query, int64 (n,).
    distinct: NDArray[np.int64]
    #: Number of each query's group, int64 (n,).
    groups: NDArray[np.int64]
    #: Share of the exact best documents that are among the candidates.
    within: float
    #: Marks candidates that were added after the encoder was fitted, bool (n, c).
    added: NDArray[np.bool_] | None


@dataclass(frozen=True)
class Calibration:
    """The error model of an index's first stage, and when to stop for each target.

    Parameters
    ----------
    groups : tuple of QueryGroup
        One for each length of windows, by ascending length; one for real queries.
    documents : int
        Documents in the index when it was calibrated.
    queries : int
        Number of queries that it was calibrated with.
    pseudo_queries : bool
        True if the queries were windows of documents.
    tokens : str
        Name of the codes that ranked candidates first, or "floats".
    depth : int
        Number of candidates for `failed`; 0 if unknown.
    failed : int
        Queries whose first `depth` candidates contain less than three quarters of the
        exact best.
    deep : tuple of tuple of int
        Pairs of a number of documents to return and the number of candidates that
        contains DEFAULT_RECALL of them; ascending, without the ten best.
    """

    groups: tuple[QueryGroup, ...]
    documents: int
    queries: int
    pseudo_queries: bool
    tokens: str
    depth: int = 0
    failed: int = 0
    deep: tuple[tuple[int, int], ...] = ()

    @classmethod
    def fit(
        cls,
        measured: Scored,
        *,
        documents: int,
        pseudo_queries: bool,
        tokens: str,
        depth: int | None = None,
        deep: tuple[tuple[int, int], ...] = (),
    ) -> Calibration:
        """Fit each group's error model, and a level for each of TARGETS.

        The default of `depth` is the number of candidates that reaches a mean recall of
        _NEARLY_ALL.  The arguments after `measured` are fields of the class.
        """
        best = np.zeros(measured.scores.shape, bool)
        for own, scores in zip(best, measured.scores, strict=True):
            own[np.argsort(-scores, kind="stable")[:BEST]] = True
        groups = tuple(_group(measured, best, number) for number in np.unique(measured.groups).tolist())
        if depth is None:
            depth = max(_LEAST * BEST, _number(best, _NEARLY_ALL))
        failed = int((best[:, :depth].sum(axis=1) < _FAILED * best.sum(axis=1)).sum())
        return cls(groups, documents, len(best), pseudo_queries, tokens, depth, failed, deep)

    def group(self, distinct: int) -> QueryGroup:
        """Return the group of queries with this number of distinct tokens."""
        groups = [group for group in self.groups if group.least <= distinct]
        return max(groups or self.groups[:1], key=lambda group: group.least)

    def number(self, recall: float) -> int:
        """Return the number of candidates for this mean recall, whatever the length.

        Queries with few distinct tokens may find less.
        """
        groups = self.groups[1:] or self.groups  # the shortest windows are unlike most queries
        return max(group.level(recall, BEST).fixed for group in groups)

    def enough(self, k: int) -> int:
        """Return the number of candidates that reaches DEFAULT_RECALL of the `k` best.

        Between measured k, its logarithm is interpolated; beyond, it is proportional.
        """
        fixed = self.number(DEFAULT_RECALL)
        if not self.deep:
            return max(k, fixed)
        at, counts = np.log([(BEST, fixed), *self.deep]).T
        count = math.exp(float(np.interp(math.log(max(k, 1)), at, counts)))
        return max(k, math.ceil(count * max(1.0, k / self.deep[-1][0]) - 1e-6))

    def warning(self, added: Calibration) -> str | None:
        """Return a warning if some of the added documents seem to be of another kind.

        `added` was measured with windows of added documents.  Only windows at the same
        depth can be compared with it; otherwise there is no warning.
        """
        comparable = self.pseudo_queries and self.depth and added.depth == self.depth
        ratio = added.queries / self.queries
        expected = self.failed * ratio + max(1.0, ratio)
        if not comparable or added.failed < _TIMES * expected:
            return None
        return (
            f"Some documents that were added after the encoder was fitted seem to be of another kind: for "
            f"{added.failed} of {added.queries} windows of added documents, {self.depth} candidates contain "
            f"less than {_FAILED:.0%} of the exact {BEST} best; for the others, {self.failed} of "
            f"{self.queries}. {_FIT_AGAIN}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Calibration:
        """Return the calibration of :meth:`to_dict`."""
        values = dict(values)
        if "levels" in values:  # an older calibration has limits for queries of any length
            values["groups"] = [(0.0, *(values.pop(name) for name in ("slope", "variance", "levels")))]
        groups = tuple(
            QueryGroup(least, slope, variance, tuple(Level(*level) for level in levels))
            for least, slope, variance, levels in values["groups"]
        )
        deep = tuple((int(k), int(count)) for k, count in values.get("deep", ()))
        return cls(**{**values, "groups": groups, "deep": deep})


def require_recall(recall: object, candidates: object) -> None:
    """Raise unless `recall` is None, or between 0 and 1 without `candidates`."""
    if recall is None:
        return
    if not 0 < require_number("recall", recall, hint="Give a share such as 0.95.") < 1:
        raise ValueError(
            Message(
                Argument("recall"),
                f" must be above 0 and below 1, got {recall}. Give ",
                Argument("candidates", ""),
                " for a fixed number.",
            )
        )
    if candidates is not None:
        either, other = Argument("recall", f"{recall}"), Argument("candidates", f"{candidates}")
        raise ValueError(Message("Give ", either, " or ", other, ", not both."))


def distinct_tokens(queries: MultiVectors) -> NDArray[np.int64]:
    """Return the number of distinct tokens of each query, at most 64; int64 (n,)."""
    counts = np.empty(len(queries), np.int64)
    count_distinct(np.asarray(queries.tokens, np.float32), queries.offsets, _ALIKE, counts)
    return counts


def _group(measured: Scored, best: NDArray[np.bool_], number: int) -> QueryGroup:
    """Return the group with this number.

    `best` (n, c) marks the exact best of all queries.
    """
    own = measured.groups == number
    products, scores, tokens = measured.products[own], measured.scores[own], measured.query_tokens[own]
    added = None if measured.added is None else measured.added[own]
    slope, variance = _error_model(products, scores, tokens)
    states = _states(slope, variance, tokens)
    levels = _levels(TARGETS, measured.within, products, scores, best[own], states, added)
    least = float(measured.distinct[own].mean()) if number else 0.0
    return QueryGroup(least, slope, variance, levels)


def _error_model(
    products: NDArray[np.float32], scores: NDArray[np.float32], tokens: NDArray[np.int64]
) -> tuple[float, float]:
    """Return the slope of scores on products, and the error variance per token."""
    left = products - products.mean(axis=1, keepdims=True, dtype=np.float64)
    right = scores - scores.mean(axis=1, keepdims=True, dtype=np.float64)
    slope = float((left * right).sum() / max(float(np.square(left).sum()), 1e-30))
    return slope, float((np.square(right - slope * left).mean(axis=1) / tokens).mean())


def _states(slope: float, variance: float, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the initial stopping state of each query, given its number of tokens."""
    states = np.zeros((len(tokens), STATE))
    states[:, SLOPE] = slope
    states[:, VARIANCE] = variance * tokens
    return states


def _number(best: NDArray[np.bool_], recall: float) -> int:
    """Return the number of candidates that reach this mean recall, at most all."""
    recalls = np.cumsum(best.mean(axis=0)) / max(1.0, best.sum(axis=1).mean())
    enough = np.flatnonzero(recalls >= recall - 1e-9)
    return int(enough[0]) + 1 if len(enough) else best.shape[1]


def numbers_of(best: NDArray[np.bool_]) -> dict[float, int]:
    """Return the number of candidates for each target.

    `best` (n, c) marks the exact best of n queries.
    """
    return {target: _number(best, target) for target in TARGETS}


def with_enough_tokens(queries: MultiVectors) -> MultiVectors:
    """Return the queries that have tokens.

    Raise ValueError if there are too few for a calibration.
    """
    filled = queries[np.flatnonzero(queries.lengths > 0)]
    if len(filled) < MIN_QUERIES:
        raise ValueError(
            f"calibrate needs at least {MIN_QUERIES} queries with tokens, got {len(filled)}. Give more."
        )
    return filled


def _levels(
    targets: Sequence[float],
    within: float,
    products: NDArray[np.float32],
    scores: NDArray[np.float32],
    best: NDArray[np.bool_],
    states: NDArray[np.float64],
    added: NDArray[np.bool_] | None = None,
) -> tuple[Level, ...]:
    """Return the level of each of `targets`, which ascend."""
    # If no candidate is one of the exact best, no number of candidates is enough.
    recalls = [target / within if within else math.inf for target in targets]
    caps = np.array([_cap(best, recall) for recall in recalls], np.int64)
    most = int(caps.max())
    checks = most // STEP + 1
    together = max(1, _TRACED // (len(best) * checks))
    ranked = np.ascontiguousarray(scores[:, :most])
    found = np.ascontiguousarray(products[:, :most])
    levels = []
    for first in range(0, len(targets), together):
        part = slice(first, first + together)
        misses = np.full((len(caps[part]), len(best), checks), np.inf)
        trace_misses(ranked, found, caps[part], BEST, states.copy(), misses)
        for target, recall, cap, expected in zip(
            targets[part], recalls[part], caps[part].tolist(), misses, strict=True
        ):
            reached = expected[:, : cap // STEP + 1]
            levels.append(_level(target, recall, within, cap, scores, best, reached, added))
    return tuple(levels)


def _unstopped(fixed: int) -> int:
    """Return the number of candidates at which no query stops yet.

    The errors of real queries fit the model less well than the errors of windows do, so
    a query ranks more than half of what all queries would need.
    """
    return fixed // 2


def _cap(best: NDArray[np.bool_], recall: float) -> int:
    """Return the number of candidates at which ranking stops at the latest."""
    enough = max(_LEAST * BEST, _number(best, 1 - _SHARE * (1 - recall)))
    return int(min(best.shape[1], -(-enough // _ROUND) * _ROUND))


def _level(
    target: float,
    recall: float,
    within: float,
    cap: int,
    scores: NDArray[np.float32],
    best: NDArray[np.bool_],
    expected: NDArray[np.float64],
    added: NDArray[np.bool_] | None,
) -> Level:
    """Return the level with the largest limit that keeps the mean recall.

    `recall` is ``target / within``: what the candidates must reach.  Column j of
    `expected` has the misses that are expected after ``STEP * j`` candidates.
    """
    count, fixed = len(best), _number(best, recall)
    recalls = np.cumsum(best, axis=1) / BEST  # after each candidate
    # A limit stops at the first check below it.
    reached = expected[:, 1:] / BEST
    reached[:, : _unstopped(fixed) // STEP] = np.inf
    reached = np.minimum.accumulate(reached, axis=1)
    checks = recalls[:, STEP - 1 : cap : STEP][:, : reached.shape[1]]
    after = np.concatenate([checks, recalls[:, cap - 1 : cap]], axis=1)

    def ends(limit: float) -> NDArray[np.int64]:
        return np.asarray((reached > limit).sum(axis=1), np.int64)

    def loss(limit: float) -> float:
        """Return the mean loss with the worst query counted twice.

        Conformal risk control requires that.
        """
        losses = 1 - after[np.arange(count), ends(limit)]
        return float((losses.sum() + losses.max()) / (count + 1))

    limits = np.unique(reached[np.isfinite(reached)]).tolist()
    allowed = bisect_right(limits, 1 - recall, key=loss)  # the loss grows with the limit
    limit = limits[allowed - 1] if allowed else 0.0
    last = ends(limit)
    recall_of_query = after[np.arange(count), last]
    early = last < reached.shape[1]
    ranked = np.where(early, STEP * (last + 1), cap)
    found_added = np.zeros(count, bool) if added is None else _mostly_added(scores, added, ranked)

    def mean_recall(queries: NDArray[np.bool_]) -> float:
        return within * (float(recall_of_query[queries].mean()) if queries.any() else target)

    return Level(
        target,
        fixed=fixed,
        cap=cap,
        limit=limit,
        stopped=mean_recall(early & ~found_added),
        capped=mean_recall(~early & ~found_added),
        added=mean_recall(found_added) if found_added.sum() >= _MIN_WINDOWS else None,
    )


def _mostly_added(
    scores: NDArray[np.float32], added: NDArray[np.bool_], ranked: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return for each query if most of the best ranked candidates are added ones."""
    shares = []
    for own, marks, number in zip(scores, added, ranked.tolist(), strict=True):
        best = np.argsort(-own[:number], kind="stable")[:BEST]
        shares.append(marks[best].mean())
    return np.array(shares) > 0.5
