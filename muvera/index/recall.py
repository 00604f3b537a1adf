"""Recall of the first stage: measure it with windows of documents, and stop ranking at a requested recall.

A window of a document's tokens replaces a real query; its own document is never
counted.  The calibration controls the mean recall by conformal risk control
(Angelopoulos et al. 2022, arXiv 2208.02814): later queries of the same distribution
reach it, too.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..data.batches import pseudo_queries
from ..data.multivectors import MultiVectors
from ..kernels.selection import LIMIT, SLOPE, STATE, STEP, VARIANCE, trace_misses
from ..reranking.pruning import Stop
from ..utils.checks import require_number
from ..utils.hints import Argument, Message
from ..utils.parallel import run_in_ranges, split_by_count, stage
from .settings import FirstStageRecall
from .token_store import Ranked, Rows

if TYPE_CHECKING:
    from .two_stage_search import IndexContents

BEST, CANDIDATES = 10, 100  # exact best documents to find, and candidates to find them among

#: Maximum number of windows of a measurement, and of tokens to read for each.
MAX_WINDOWS, MAX_TOKENS = 64, 20_000_000
_WINDOW = 32  # tokens, as in ColBERT's queries

# Added documents are measured once one document in `_PART` is new, with `_PER_DOUBLING`
# windows times their share. Their recall needs `_MIN_WINDOWS` windows.
_PART, _PER_DOUBLING, _MIN_WINDOWS = 16, 128, 8

# Limits of a measurement: multiplications for exact Chamfer similarity (a few seconds),
# and minimum number of windows.
_PRODUCTS, _MIN_QUERIES = 5 * 10**10, 16

# A warning needs a recall of added documents below _ENOUGH.  It must also be lower than
# the other documents' recall, by more than _DROP plus two standard errors.  The
# standard deviation of windows is at least _DEVIATION.
_ENOUGH, _DROP, _DEVIATION = 0.95, 0.02, 0.05

#: Calibrated mean recalls; a search uses the lowest one that is at least the requested
#: one.
TARGETS = (0.5, 0.7, 0.8, 0.85, 0.9, 0.925, 0.95, 0.965, 0.98, 0.985, 0.99, 0.995, 0.998, 1.0)

#: Maximum number of candidates, and minimum number of queries of a calibration.
MAX_RANKED, MIN_QUERIES = 1000, 64

# Maximum number of windows.  Their lengths alternate, because real queries have
# different lengths.
_WINDOWS, _LENGTHS = 128, (8, 16, 32)

# Multiplications for ranking windows (one to two seconds).  _BEYOND windows measure how
# many of the exact best are not among MAX_RANKED candidates, unless the collection has
# more than MAX_TOKENS tokens.
_RANKED_PRODUCTS, _BEYOND = 12 * 10**10, 16

# Share of a target's misses that the cap on candidates may cause; stopping early may
# cause the rest.  The cap is a multiple of _ROUND, and at least _LEAST times k, as in a
# search.
_SHARE, _ROUND, _LEAST = 0.5, 16, 3


class FirstStage(NamedTuple):
    """Recall of all documents and of those added after the encoder was fitted.

    A warning if the second is lower.
    """

    everything: FirstStageRecall | None = None
    added: FirstStageRecall | None = None
    warning: str | None = None


@dataclass(frozen=True)
class MeasuredWindows:
    """The measured recall of each window: the share of its exact best documents among its candidates."""

    #: Rows of the windows' documents int64 (n,), and the windows' shares float64 (n,).
    rows: Rows
    shares: NDArray[np.float64]
    #: At the last measurement: the first row that did not exist, and the number of
    #: documents.
    stop: int
    documents: int
    #: Number of documents when windows of all documents were last measured.
    size: int

    def first_stage(self, live: Rows, fitted: int) -> FirstStage:
        """Return the recall of the searchable rows `live`, and of those from `fitted` on, which were added later."""
        current = np.isin(self.rows, live)
        old, new = (self.shares[current & after] for after in (self.rows < fitted, self.rows >= fitted))
        before = int(np.searchsorted(live, fitted))
        groups = [pair for pair in ((old, before), (new, len(live) - before)) if len(pair[0])]
        if not groups:
            return FirstStage()
        total = sum(size * float(shares.mean()) for shares, size in groups)
        everything = self._recall(total / sum(size for _, size in groups), len(old) + len(new))
        if len(new) < _MIN_WINDOWS:
            return FirstStage(everything)
        return FirstStage(everything, self._recall(float(new.mean()), len(new)), _warning(old, new))

    def _recall(self, recall: float, queries: int) -> FirstStageRecall:
        return FirstStageRecall(recall, BEST, CANDIDATES, queries, True, self.documents)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, without `size`."""
        listed = {"rows": self.rows.tolist(), "shares": self.shares.tolist()}
        return {**listed, "stop": self.stop, "documents": self.documents}

    @classmethod
    def from_dict(cls, values: dict[str, Any], size: int) -> MeasuredWindows:
        """Return the windows of :meth:`to_dict`.

        Raise ValueError or TypeError for damaged ones.
        """
        rows, shares = np.array(values["rows"], np.int64), np.array(values["shares"], np.float64)
        if rows.ndim != 1 or rows.shape != shares.shape or not ((shares >= 0) & (shares <= 1)).all():
            raise ValueError(
                f"A measured window must have one share from 0 to 1, got {shares.size} shares of {rows.size} windows."
            )
        return cls(rows, shares, int(values["stop"]), int(values["documents"]), size)


def _warning(old: NDArray[np.float64], new: NDArray[np.float64]) -> str | None:
    """Return a warning if the windows of added documents have clearly lower shares than the others."""
    before = float(old.mean()) if len(old) else 1.0
    groups = [shares for shares in (old, new) if len(shares)]
    variance = sum(max(float(shares.var()), _DEVIATION**2) / len(shares) for shares in groups)
    if new.mean() >= min(_ENOUGH, before - _DROP - 2 * math.sqrt(variance)):
        return None
    return (
        f"For documents that were added after the encoder was fitted, {CANDIDATES} candidates contain only "
        f"{new.mean():.0%} of the exact {BEST} best; for the others, {before:.0%}. In Python, rebuild() "
        "fits the encoder again. For a stream of changing documents use encoder='simhash', which hardly depends on a "
        "sample."
    )


def document_windows(
    contents: IndexContents, count: int, rows: Rows | None = None
) -> tuple[MultiVectors, Rows]:
    """Return windows of up to `count` documents among `rows`, by default all with tokens, and these documents' rows."""
    stream = np.random.default_rng(0)
    rows = contents.searchable[0] if rows is None else rows
    picked = np.sort(stream.choice(rows, min(count, len(rows)), replace=False))
    documents = contents.store.rows(picked)
    windows, sources = pseudo_queries(documents, len(documents), _WINDOW, stream)
    return windows, picked[sources]


def _first_others(pairs: Sequence[Ranked], sources: Rows | None, count: int) -> list[Ranked]:
    """Return the first `count` rows of each query, with their scores, without its row in `sources`."""
    if sources is not None:
        masks = [rows != source for (rows, _), source in zip(pairs, sources, strict=True)]
        pairs = [(rows[mask], scores[mask]) for (rows, scores), mask in zip(pairs, masks, strict=True)]
    return [(rows[:count], scores[:count]) for rows, scores in pairs]


def propose(
    contents: IndexContents,
    queries: MultiVectors,
    sources: Rows | None,
    count: int,
    threads: int | None,
    among: Rows | None = None,
) -> list[Ranked]:
    """Return the rows and products of up to `count` candidates of each query, without its row in `sources`."""
    assert contents.candidates is not None
    most = count + int(sources is not None)
    return _first_others(contents.candidates.find(queries, most, among, threads), sources, count)


def shares_found(
    contents: IndexContents,
    queries: MultiVectors,
    sources: Rows | None,
    proposed: Sequence[Ranked],
    k: int,
    threads: int | None,
    among: Rows | None = None,
) -> NDArray[np.float64]:
    """Return the share of each query's `k` exact best rows, without its row in `sources`, among the proposed ones."""
    rows = contents.searchable[0] if among is None else among
    count = min(k + int(sources is not None), len(rows))
    best = _first_others(contents.best_rows(queries, [rows] * len(queries), count, threads), sources, k)
    return np.array([np.isin(a, b).mean() for (a, _), (b, _) in zip(best, proposed, strict=True)])


def measure(contents: IndexContents, threads: int | None) -> None:
    """Measure first-stage recall if it is unknown, the size has doubled or halved, or many documents were added."""
    rows, search = contents.searchable[0], contents.candidates
    if search is None or len(rows) <= CANDIDATES + 1:
        return
    earlier = search.windows
    if earlier is None or not len(rows) / 2 <= earlier.size <= 2 * len(rows):
        halves = np.split(rows, [np.searchsorted(rows, search.fitted_rows)])
        groups = [group for group in halves if len(group)]
        count, earlier = MAX_WINDOWS // len(groups), None
    else:
        groups = [rows[rows >= earlier.stop]]
        if len(groups[0]) < max(_PART, len(rows) // _PART):
            return
        count = min(MAX_WINDOWS, -(-_PER_DOUBLING * len(groups[0]) // len(rows)))
    windows, sources = zip(*(document_windows(contents, count, group) for group in groups), strict=True)
    later = measure_windows(contents, MultiVectors.concatenate(windows), np.concatenate(sources), threads)
    if earlier is not None:
        rows, shares = np.append(earlier.rows, later.rows), np.append(earlier.shares, later.shares)
        later = replace(later, rows=rows, shares=shares, size=earlier.size)
    search.windows = later


def measure_windows(
    contents: IndexContents, queries: MultiVectors, sources: Rows, threads: int | None
) -> MeasuredWindows:
    """Return the recall of windows.

    A large collection is searched in part, with fewer windows.
    """
    rows, tokens = contents.searchable
    among = None
    if tokens > MAX_TOKENS:
        count = int(len(rows) * MAX_TOKENS / tokens)
        some = np.random.default_rng(0).choice(rows, count, replace=False)
        among, tokens = np.union1d(some, sources), MAX_TOKENS
    affordable = max(_MIN_QUERIES, _PRODUCTS // max(1, _WINDOW * tokens * contents.config.dimension))
    kept = np.sort(np.random.default_rng(0).permutation(len(queries))[:affordable])
    queries, sources = queries[kept], sources[kept]
    with stage("measuring recall"):
        proposed = propose(contents, queries, sources, CANDIDATES, threads, among)
        shares = shares_found(contents, queries, sources, proposed, BEST, threads, among)
    searched = rows if among is None else among
    return MeasuredWindows(sources, shares, len(contents.store), len(searched), len(rows))


class Level(NamedTuple):
    """When to stop for a mean recall, which `fixed` candidates reach without stopping.

    Ranking stops at `cap` candidates, or once the expected misses, as a share of the k
    best, are at most `limit`. `stopped` and `capped` are the mean recalls of queries
    that stopped before the cap, and of the others.
    """

    target: float
    fixed: int
    cap: int
    limit: float
    stopped: float
    capped: float


EVERYTHING = Level(1.0, 0, 0, 0.0, 1.0, 1.0)  # ranks every document


@dataclass(frozen=True)
class Calibration:
    """The error model of an index's first stage, and when to stop for each target."""

    #: Slope of exact scores as a function of products, and variance of the errors per
    #: query token.
    slope: float
    variance: float
    #: By ascending target.
    levels: tuple[Level, ...]
    #: Documents at that time; queries; True if these were windows of documents.
    documents: int
    queries: int
    pseudo_queries: bool
    #: Name of the codes that ranked candidates first, or "floats".
    tokens: str

    def level(self, recall: float, k: int) -> Level:
        """Return the lowest level with this mean recall, with room for `k` documents."""
        level = next((level for level in self.levels if level.target >= recall), self.levels[-1])
        return level if level.cap >= _LEAST * k else level._replace(cap=_LEAST * k)

    def stops(
        self, level: Level, products: Sequence[NDArray[np.float32]], tokens: NDArray[np.int64], k: int
    ) -> list[Stop]:
        """Return when to stop ranking, for queries with these `products` of candidates and numbers of `tokens`."""
        states = _states(self.slope, self.variance, tokens)
        states[:, LIMIT] = level.limit * k
        return [Stop(own, state) for own, state in zip(products, states, strict=True)]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Calibration:
        """Return the calibration of :meth:`to_dict`."""
        return cls(**{**values, "levels": tuple(Level(*level) for level in values["levels"])})


def require_recall(recall: object, candidates: object) -> None:
    """Raise unless `recall` is None, or a number between 0 and 1 without `candidates`."""
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


def calibrate_on_windows(contents: IndexContents, threads: int | None) -> Calibration | None:
    """Calibrate with windows of documents; None if there are too few documents."""
    rows, tokens = contents.searchable
    work = tokens / max(1, len(rows)) * MAX_RANKED * contents.config.dimension * max(_LENGTHS)
    windows, sources = document_windows(
        contents, int(min(_WINDOWS, max(MIN_QUERIES, _RANKED_PRODUCTS / work)))
    )
    if len(windows) < MIN_QUERIES:
        return None
    lengths = np.minimum(windows.lengths, np.resize(_LENGTHS, len(windows)))
    cut = [windows[i][:length] for i, length in enumerate(lengths)]
    return calibrate(contents, MultiVectors.from_arrays(cut, dimension=windows.dimension), sources, threads)


def calibrate(
    contents: IndexContents,
    queries: MultiVectors,
    sources: NDArray[np.int64] | None = None,
    threads: int | None = None,
) -> Calibration:
    """Calibrate with queries that have tokens.

    The rows `sources` of windows' documents are not their candidates.
    """
    count = len(contents.searchable[0])
    proposed = propose(contents, queries, sources, min(MAX_RANKED, count - int(sources is not None)), threads)
    width = min(len(rows) for rows, _ in proposed)
    proposed = _first_others(proposed, None, width)
    products = np.stack([own for _, own in proposed])
    scores = np.empty_like(products)

    def work(start: int, stop: int) -> None:
        for q in range(start, stop):
            scores[q] = contents.store.scores(queries[q], proposed[q][0])

    run_in_ranges(work, split_by_count(len(queries), 4), threads)
    best = np.zeros(scores.shape, bool)
    np.put_along_axis(best, np.argsort(-scores, axis=1, kind="stable")[:, :BEST], True, axis=1)
    slope, variance = _error_model(products, scores, queries.lengths)
    states = _states(slope, variance, queries.lengths)
    within = 1.0  # the share of the exact best among all candidates
    if count > 4 * MAX_RANKED and contents.searchable[1] <= MAX_TOKENS:
        some = None if sources is None else sources[:_BEYOND]
        shares = shares_found(contents, queries[:_BEYOND], some, proposed[:_BEYOND], BEST, threads)
        within = float(shares.mean())
    return Calibration(
        slope=slope,
        variance=variance,
        levels=tuple(_level(target, within, products, scores, best, states) for target in TARGETS),
        documents=count,
        queries=len(queries),
        pseudo_queries=sources is not None,
        tokens=contents.store.ranked_by,
    )


def _error_model(
    products: NDArray[np.float32], scores: NDArray[np.float32], tokens: NDArray[np.int64]
) -> tuple[float, float]:
    """Return the slope of scores on products, and the variance of the errors per query token."""
    left = products - products.mean(axis=1, keepdims=True, dtype=np.float64)
    right = scores - scores.mean(axis=1, keepdims=True, dtype=np.float64)
    slope = float((left * right).sum() / max(float(np.square(left).sum()), 1e-30))
    return slope, float((np.square(right - slope * left).mean(axis=1) / tokens).mean())


def _states(slope: float, variance: float, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the states of rankings of queries with these numbers of tokens."""
    states = np.zeros((len(tokens), STATE))
    states[:, SLOPE], states[:, VARIANCE] = slope, variance * tokens
    return states


def _number(best: NDArray[np.bool_], recall: float) -> int:
    """Return the number of candidates that reach this mean recall, or the number of all candidates."""
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


def _level(
    target: float,
    within: float,
    products: NDArray[np.float32],
    scores: NDArray[np.float32],
    best: NDArray[np.bool_],
    states: NDArray[np.float64],
) -> Level:
    """Return the level with the largest limit that keeps the mean recall among candidates at ``target / within``."""
    recall, (count, width) = target / within, best.shape
    recalls = np.cumsum(best, axis=1) / BEST  # after each candidate
    enough = max(_LEAST * BEST, _number(best, 1 - _SHARE * (1 - recall)))
    cap = min(width, -(-enough // _ROUND) * _ROUND)
    expected = np.full((count, cap // STEP + 1), np.inf)
    trace_misses(scores[:, :cap], products[:, :cap], BEST, states.copy(), expected)
    # A limit stops at the first check below it.
    reached = np.minimum.accumulate(expected[:, 1:], axis=1) / BEST
    checks = recalls[:, STEP - 1 : cap : STEP][:, : reached.shape[1]]
    after = np.concatenate([checks, recalls[:, cap - 1 : cap]], axis=1)

    def ends(limit: float) -> NDArray[np.int64]:
        return np.asarray((reached > limit).sum(axis=1), np.int64)

    def loss(limit: float) -> float:
        """Return the mean loss with the worst query counted twice, as conformal risk control requires."""
        losses = 1 - after[np.arange(count), ends(limit)]
        return float((losses.sum() + losses.max()) / (count + 1))

    limits = np.unique(reached[np.isfinite(reached)]).tolist()
    allowed = bisect_right(limits, 1 - recall, key=loss)  # the loss grows with the limit
    limit = limits[allowed - 1] if allowed else 0.0
    last = ends(limit)
    own, early = after[np.arange(count), last], last < reached.shape[1]
    stopped, capped = (
        within * (float(own[group].mean()) if group.any() else target) for group in (early, ~early)
    )
    return Level(target, _number(best, recall), cap, limit, stopped, capped)
