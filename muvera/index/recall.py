"""First-stage recall, measured with windows of documents, and the recall dial: candidates for a mean recall.

Windows replace real queries, which are unknown when an index is built.  A window's own document is never counted.
Documents added after the encoder was fitted are measured separately.

A calibration ranks all candidates of some queries, and finds when to stop for each of :data:`TARGETS`.  It controls the
mean recall by conformal risk control (Angelopoulos et al. 2022, arXiv 2208.02814): later queries reach the same mean
recall if they have the distribution of the calibration's queries.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors
from ..data.sampling import pseudo_queries
from ..kernels.recall import LIMIT, SLOPE, STATE, STEP, STOPPED, VARIANCE, trace_misses
from ..reranking.pruning import RerankOptions, Stop
from ..utils.checks import given
from ..utils.parallel import run_in_ranges, split_by_count
from .info import FirstStageRecall

if TYPE_CHECKING:
    from .two_stage_search import IndexContents

__all__ = [
    "BEST",
    "CANDIDATES",
    "MAX_RANKED",
    "MIN_QUERIES",
    "Calibration",
    "Ends",
    "Level",
    "MeasuredWindows",
    "calibrate",
    "calibrate_on_windows",
    "document_windows",
    "exact_best",
    "numbers_of",
    "ranking_tokens",
    "require_recall",
    "shares_found",
    "with_enough_tokens",
]

#: Exact best documents to find, and candidates to find them among.
BEST, CANDIDATES = 10, 100

# Number of tokens in a window, as in ColBERT's queries.
_WINDOW = 32

# Minimum number of windows for a recall of added documents.
_MIN_WINDOWS = 8

# A warning needs a recall of added documents below _ENOUGH.  It must also be lower than the other documents' recall, by
# more than _DROP plus two standard errors.  The standard deviation of windows is at least _DEVIATION.
_ENOUGH, _DROP, _DEVIATION = 0.95, 0.02, 0.05

#: Calibrated mean recalls; a search uses the lowest one that is not below its own.
TARGETS = (0.5, 0.7, 0.8, 0.85, 0.9, 0.925, 0.95, 0.965, 0.98, 0.985, 0.99, 0.995, 0.998, 1.0)

#: Maximum number of candidates, and minimum number of queries of a calibration.
MAX_RANKED, MIN_QUERIES = 1000, 64

# Maximum number of windows.  Their lengths alternate, because real queries have different lengths.
_WINDOWS, _LENGTHS = 128, (8, 16, 32)

# Multiplications for ranking windows (about a second).  _BEYOND windows measure how many of the exact best are not
# among MAX_RANKED candidates, unless the collection has more than _MAX_TOKENS tokens.
_PRODUCTS, _BEYOND, _MAX_TOKENS = 5 * 10**10, 16, 20_000_000

# The cap on candidates alone causes this share of a target's misses.  The cap is a multiple of _ROUND, and at least
# _LEAST times k, as in a search.
_SHARE, _ROUND, _LEAST = 0.5, 16, 3


# -- windows of documents ------------------------------------------------------


def document_windows(
    contents: IndexContents, count: int, rows: NDArray[np.int64] | None = None
) -> tuple[MultiVectors, NDArray[np.int64]]:
    """Return windows of up to `count` distinct documents, and the rows of these documents.

    The documents are chosen from `rows`, live rows with tokens; default: all of them.
    """
    stream = np.random.default_rng(0)
    rows = contents.searchable[0] if rows is None else rows
    picked = np.sort(stream.choice(rows, min(count, len(rows)), replace=False))
    documents = contents.store.rows(picked)
    windows, sources = pseudo_queries(documents, len(documents), _WINDOW, stream)
    return windows, picked[sources]


def exact_best(
    contents: IndexContents,
    queries: MultiVectors,
    sources: NDArray[np.int64] | None,
    k: int,
    threads: int | None = None,
    among: NDArray[np.int64] | None = None,
) -> list[NDArray[np.int64]]:
    """Return the rows of the `k` best documents of each query, best first, without the query's row in `sources`.

    Only the rows in `among` are ranked; default: all.
    """
    rows = contents.searchable[0] if among is None else among
    more = int(sources is not None)
    options = RerankOptions(min(k + more, len(rows)))
    rankings = contents.rank(queries, [rows] * len(queries), options, threads)
    best = [np.array(contents.ids.rows(ranking.ids.tolist()), np.int64) for ranking in rankings]
    return [ranking[:k] for ranking in _without(best, sources)]


def shares_found(
    best: Sequence[NDArray[np.int64]],
    proposed: Sequence[NDArray[np.int64]],
    sources: NDArray[np.int64] | None,
    candidates: int,
) -> NDArray[np.float64]:
    """Return the share of each query's best rows among its first `candidates` proposed ones."""
    pairs = zip(best, _without(proposed, sources), strict=True)
    return np.array([np.isin(exact, candidate_rows[:candidates]).mean() for exact, candidate_rows in pairs])


def _without(
    rows: Sequence[NDArray[np.int64]], sources: NDArray[np.int64] | None
) -> Sequence[NDArray[np.int64]]:
    if sources is None:
        return rows
    return [own[own != source] for own, source in zip(rows, sources, strict=True)]


@dataclass(frozen=True)
class MeasuredWindows:
    """The measured recall of each window: the share of its exact best documents among its candidates."""

    #: Rows of the windows' documents int64 (n,), and the windows' shares float64 (n,).
    rows: NDArray[np.int64]
    shares: NDArray[np.float64]
    #: At the last measurement: the first row that did not exist, and the number of documents.
    stop: int
    documents: int

    def recalls(
        self, live: NDArray[np.int64], fitted: int
    ) -> tuple[FirstStageRecall | None, FirstStageRecall | None]:
        """Return the recall of all documents, and of documents added after the fit.

        Added documents have rows of at least `fitted`.  `live` are the searchable rows, ascending; windows of other
        documents do not count.
        """
        old, new = self._groups(live, fitted)
        before = int(np.searchsorted(live, fitted))
        groups = [
            (shares, size) for shares, size in ((old, before), (new, len(live) - before)) if len(shares)
        ]
        if not groups:
            return None, None
        total = sum(size * float(shares.mean()) for shares, size in groups)
        everything = self._recall(total / sum(size for _, size in groups), len(old) + len(new))
        return everything, self._recall(float(new.mean()), len(new)) if len(new) >= _MIN_WINDOWS else None

    def _groups(
        self, live: NDArray[np.int64], fitted: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the shares of windows of live documents with rows below `fitted`, and of the others."""
        kept = np.zeros(len(self.rows), np.bool_)
        if len(live):
            kept = live[np.minimum(np.searchsorted(live, self.rows), len(live) - 1)] == self.rows
        return self.shares[kept & (self.rows < fitted)], self.shares[kept & (self.rows >= fitted)]

    def _recall(self, recall: float, queries: int) -> FirstStageRecall:
        return FirstStageRecall(recall, BEST, CANDIDATES, queries, True, self.documents)

    def warning(self, live: NDArray[np.int64], fitted: int) -> str | None:
        """Return a warning if added documents have a clearly lower recall than the others, otherwise None."""
        old, new = self._groups(live, fitted)
        if len(new) < _MIN_WINDOWS or new.mean() >= _ENOUGH:
            return None
        before = float(old.mean()) if len(old) else 1.0
        groups = [shares for shares in (old, new) if len(shares)]
        variance = sum(max(float(shares.var()), _DEVIATION**2) / len(shares) for shares in groups)
        if new.mean() >= before - _DROP - 2 * math.sqrt(variance):
            return None
        return (
            f"For documents that were added after the encoder was fitted, {CANDIDATES} candidates contain only "
            f"{new.mean():.0%} of the exact {BEST} best; for the others, {before:.0%}. rebuild() fits the encoder "
            "again. For a stream of changing documents use encoder='fde', which hardly depends on a sample."
        )

    def and_more(self, other: MeasuredWindows) -> MeasuredWindows:
        """Return these and later windows together."""
        rows, shares = np.concatenate([self.rows, other.rows]), np.concatenate([self.shares, other.shares])
        return MeasuredWindows(rows, shares, other.stop, other.documents)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {**vars(self), "rows": self.rows.tolist(), "shares": self.shares.tolist()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> MeasuredWindows:
        """Return the windows of :meth:`to_dict`; raise ValueError or TypeError for damaged ones."""
        rows, shares = np.array(values["rows"], np.int64), np.array(values["shares"], np.float64)
        if rows.ndim != 1 or rows.shape != shares.shape or not ((shares >= 0) & (shares <= 1)).all():
            raise ValueError(
                f"A measured window must have one share from 0 to 1, got {shares.size} shares of {rows.size} windows."
            )
        return cls(rows, shares, int(values["stop"]), int(values["documents"]))


# -- the dial -----------------------------------------------------------------


class Level(NamedTuple):
    """When to stop for a mean recall.

    Without stopping early, `fixed` candidates reach it.  `cap` is the maximum number of candidates.  Ranking stops once
    the expected misses, as a share of the k best, are at most `limit`.  `stopped` and `capped` are the mean recalls of
    queries that stopped before the cap, and of the others.
    """

    target: float
    fixed: int
    cap: int
    limit: float
    stopped: float
    capped: float


@dataclass(frozen=True)
class Calibration:
    """The error model of an index's first stage, and when to stop for each target."""

    #: The exact score as a linear function of the product of vectors, and its variance per query token.
    slope: float
    variance: float
    #: By ascending target.
    levels: tuple[Level, ...]
    #: Numbers at the calibration, and True if the queries were windows of documents.
    documents: int
    queries: int
    pseudo_queries: bool
    #: Name of the codes that ranked candidates first, or "floats".
    tokens: str

    def level(self, recall: float, k: int) -> Level:
        """Return the lowest level with this mean recall, with room for `k` documents."""
        level = next((level for level in self.levels if level.target >= recall), self.levels[-1])
        return level._replace(cap=max(level.cap, _LEAST * k))

    def ends(
        self, level: Level, products: Sequence[NDArray[np.float32]], tokens: NDArray[np.int64], k: int
    ) -> Ends:
        """Return when to stop ranking, for queries with these `products` of candidates and numbers of `tokens`."""
        states = np.zeros((len(products), STATE))
        states[:, SLOPE], states[:, VARIANCE], states[:, LIMIT] = (
            self.slope,
            self.variance * tokens,
            level.limit * k,
        )
        return Ends(level, [Stop(own, state) for own, state in zip(products, states, strict=True)])

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Calibration:
        """Return the calibration of :meth:`to_dict`."""
        return cls(**{**values, "levels": tuple(Level(*level) for level in values["levels"])})


class Ends(NamedTuple):
    """When to stop ranking the candidates of several queries; without a level, every document is ranked."""

    level: Level | None = None
    stops: Sequence[Stop] = ()

    def expected_recall(self, query: int) -> float:
        """Return the mean recall of the calibration's queries that stopped early, or of the others if this did not."""
        if self.level is None:
            return 1.0
        return self.level.stopped if self.stops[query].state[STOPPED] else self.level.capped


def require_recall(recall: object, candidates: object) -> None:
    """Raise unless `recall` is None, or a number between 0 and 1 without `candidates`."""
    if recall is None:
        return
    if isinstance(recall, bool) or not isinstance(recall, (int, float, np.integer, np.floating)):
        raise TypeError(f"recall must be a number between 0 and 1, got {given(recall)}.")
    if not 0 < recall < 1:
        raise ValueError(
            f"recall must be above 0 and below 1, got {recall}. Give candidates= for a fixed number."
        )
    if candidates is not None:
        raise ValueError(f"Give recall={recall} or candidates={candidates}, not both.")


def ranking_tokens(contents: IndexContents) -> str:
    """Return the name of the codes that rank candidates first, or "floats"."""
    codec = contents.store.codec
    return "floats" if codec is None else codec.name


def calibrate_on_windows(contents: IndexContents, threads: int | None) -> Calibration | None:
    """Calibrate with windows of documents; None if there are too few documents."""
    rows, tokens = contents.searchable
    work = tokens / max(1, len(rows)) * MAX_RANKED * contents.config.dimension * max(_LENGTHS)
    windows, sources = document_windows(contents, int(min(_WINDOWS, max(MIN_QUERIES, _PRODUCTS / work))))
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

    If the queries are windows, `sources` are the rows of their documents, which are not candidates.
    """
    assert contents.candidates is not None
    count = len(contents.searchable[0])
    width = min(MAX_RANKED, count - int(sources is not None))
    proposed = contents.candidates.find(queries, width + int(sources is not None), threads=threads)
    if sources is not None:
        others = [rows != source for (rows, _), source in zip(proposed, sources, strict=True)]
        proposed = [(rows[other], own[other]) for (rows, own), other in zip(proposed, others, strict=True)]
    width = min(width, *(len(rows) for rows, _ in proposed))
    products = np.stack([own[:width] for _, own in proposed])
    scores = np.empty_like(products)

    def work(start: int, stop: int) -> None:
        for q in range(start, stop):
            scores[q] = contents.store.scores(queries[q], proposed[q][0][:width])

    run_in_ranges(work, split_by_count(len(queries), 4), threads)
    best = np.zeros(scores.shape, bool)
    np.put_along_axis(best, np.argsort(-scores, axis=1, kind="stable")[:, :BEST], True, axis=1)
    slope, variance = _error_model(products, scores, queries.lengths)
    states = np.zeros((len(queries), STATE))
    states[:, SLOPE], states[:, VARIANCE] = slope, variance * queries.lengths
    within = _share_within(contents, queries, sources, [rows[:width] for rows, _ in proposed], threads)
    levels = [_level(target, target / within, products, scores, best, states) for target in TARGETS]
    return Calibration(
        slope=slope,
        variance=variance,
        levels=tuple(
            level._replace(stopped=level.stopped * within, capped=level.capped * within) for level in levels
        ),
        documents=count,
        queries=len(queries),
        pseudo_queries=sources is not None,
        tokens=ranking_tokens(contents),
    )


def _error_model(
    products: NDArray[np.float32], scores: NDArray[np.float32], tokens: NDArray[np.int64]
) -> tuple[float, float]:
    """Return the slope of scores on products, and the variance of the errors per query token."""
    left = products - products.mean(axis=1, keepdims=True, dtype=np.float64)
    right = scores - scores.mean(axis=1, keepdims=True, dtype=np.float64)
    slope = float((left * right).sum() / max(float(np.square(left).sum()), 1e-30))
    return slope, float((np.square(right - slope * left).mean(axis=1) / tokens).mean())


def _share_within(
    contents: IndexContents,
    queries: MultiVectors,
    sources: NDArray[np.int64] | None,
    proposed: list[NDArray[np.int64]],
    threads: int | None,
) -> float:
    """Return the share of the exact best among all candidates; 1 for a small or a very large collection."""
    rows, tokens = contents.searchable
    if len(rows) <= 4 * MAX_RANKED or tokens > _MAX_TOKENS:
        return 1.0
    count = min(_BEYOND, len(queries))
    own = None if sources is None else sources[:count]
    exact = exact_best(contents, queries[np.arange(count)], own, BEST, threads)
    return float(shares_found(exact, proposed[:count], own, MAX_RANKED).mean())


def _number(best: NDArray[np.bool_], recall: float) -> int:
    """Return the number of candidates that reach this mean recall, or the number of all candidates."""
    recalls = np.cumsum(best.mean(axis=0)) / max(1.0, best.sum(axis=1).mean())
    enough = np.flatnonzero(recalls >= recall - 1e-9)
    return int(enough[0]) + 1 if len(enough) else best.shape[1]


def numbers_of(best: NDArray[np.bool_]) -> dict[float, int]:
    """Return the number of candidates for each target; `best` (n, c) marks the exact best of n queries."""
    return {target: _number(best, target) for target in TARGETS}


def with_enough_tokens(queries: MultiVectors) -> MultiVectors:
    """Return the queries that have tokens; raise ValueError if there are too few for a calibration."""
    filled = queries[np.flatnonzero(queries.lengths > 0)]
    if len(filled) < MIN_QUERIES:
        raise ValueError(
            f"calibrate needs at least {MIN_QUERIES} queries with tokens, got {len(filled)}. Give more."
        )
    return filled


def _level(
    target: float,
    recall: float,
    products: NDArray[np.float32],
    scores: NDArray[np.float32],
    best: NDArray[np.bool_],
    states: NDArray[np.float64],
) -> Level:
    """Return the level of a target, with the largest limit that keeps the recall among candidates at `recall`."""
    count, width = best.shape
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

    limits = np.unique(reached[np.isfinite(reached)])
    low, high = 0, len(limits)  # the loss grows with the limit
    while low < high:
        middle = (low + high) // 2
        if loss(limits[middle]) <= 1 - recall:
            low = middle + 1
        else:
            high = middle
    limit = float(limits[low - 1]) if low else 0.0
    last = ends(limit)
    own, early = after[np.arange(count), last], last < reached.shape[1]
    stopped, capped = (float(own[group].mean()) if group.any() else target for group in (early, ~early))
    return Level(target, _number(best, recall), cap, limit, stopped, capped)
