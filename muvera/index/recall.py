"""Search for a mean recall: when a query has ranked enough candidates.

A calibration ranks all candidates of some queries, and finds when to stop for each of :data:`TARGETS`.  It controls the
mean recall by conformal risk control (Angelopoulos et al. 2022, arXiv 2208.02814): later queries reach the same mean
recall if they have the distribution of the calibration's queries.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors
from ..kernels.recall import LIMIT, SLOPE, STATE, STEP, STOPPED, VARIANCE, trace_misses
from ..reranking.pruning import Stop
from ..utils.checks import require_number
from ..utils.parallel import run_in_ranges, split_by_count
from .windows import BEST, MAX_TOKENS, document_windows, exact_best, shares_found

if TYPE_CHECKING:
    from .two_stage_search import IndexContents

#: Calibrated mean recalls; a search uses the lowest one that is at least the requested one.
TARGETS = (0.5, 0.7, 0.8, 0.85, 0.9, 0.925, 0.95, 0.965, 0.98, 0.985, 0.99, 0.995, 0.998, 1.0)

#: Maximum number of candidates, and minimum number of queries of a calibration.
MAX_RANKED, MIN_QUERIES = 1000, 64

# Maximum number of windows.  Their lengths alternate, because real queries have different lengths.
_WINDOWS, _LENGTHS = 128, (8, 16, 32)

# Multiplications for ranking windows (one to two seconds).  _BEYOND windows measure how many of the exact best are not
# among MAX_RANKED candidates, unless the collection has more than MAX_TOKENS tokens.
_PRODUCTS, _BEYOND = 12 * 10**10, 16

# Share of a target's misses that the cap on candidates may cause; stopping early may cause the rest.  The cap is a
# multiple of _ROUND, and at least _LEAST times k, as in a search.
_SHARE, _ROUND, _LEAST = 0.5, 16, 3


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

    #: Slope of the exact score as a function of the product of vectors, and variance of its error per query token.
    slope: float
    variance: float
    #: By ascending target.
    levels: tuple[Level, ...]
    #: Number of documents and of queries of the calibration, and True if the queries were windows of documents.
    documents: int
    queries: int
    pseudo_queries: bool
    #: Name of the codes that ranked candidates first, or "floats".
    tokens: str

    def level(self, recall: float, k: int) -> Level:
        """Return the lowest level with this mean recall, with room for `k` documents."""
        level = next((level for level in self.levels if level.target >= recall), self.levels[-1])
        return level if level.cap >= _LEAST * k else level._replace(cap=_LEAST * k)

    def ends(
        self, level: Level, products: Sequence[NDArray[np.float32]], tokens: NDArray[np.int64], k: int
    ) -> Ends:
        """Return when to stop ranking, for queries with these `products` of candidates and numbers of `tokens`."""
        states = _states(self.slope, self.variance, tokens)
        states[:, LIMIT] = level.limit * k
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
        """Return the mean recall of the calibration's queries that ended like this one: early, or at the cap."""
        if self.level is None:
            return 1.0
        return self.level.stopped if self.stops[query].state[STOPPED] else self.level.capped


def require_recall(recall: object, candidates: object) -> None:
    """Raise unless `recall` is None, or a number between 0 and 1 without `candidates`."""
    if recall is None:
        return
    if not 0 < require_number("recall", recall, hint="Give a share such as 0.95.") < 1:
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
    count, own = len(contents.searchable[0]), int(sources is not None)
    width = min(MAX_RANKED, count - own)
    proposed = contents.candidates.find(queries, width + own, threads=threads)
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
    states = _states(slope, variance, queries.lengths)
    within = _share_within(contents, queries, sources, [rows[:width] for rows, _ in proposed], threads)
    return Calibration(
        slope=slope,
        variance=variance,
        levels=tuple(_level(target, within, products, scores, best, states) for target in TARGETS),
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


def _states(slope: float, variance: float, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the states of rankings of queries with these numbers of tokens."""
    states = np.zeros((len(tokens), STATE))
    states[:, SLOPE], states[:, VARIANCE] = slope, variance * tokens
    return states


def _share_within(
    contents: IndexContents,
    queries: MultiVectors,
    sources: NDArray[np.int64] | None,
    proposed: list[NDArray[np.int64]],
    threads: int | None,
) -> float:
    """Return the share of the exact best among all candidates; 1 for a small or a very large collection."""
    rows, tokens = contents.searchable
    if len(rows) <= 4 * MAX_RANKED or tokens > MAX_TOKENS:
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
    within: float,
    products: NDArray[np.float32],
    scores: NDArray[np.float32],
    best: NDArray[np.bool_],
    states: NDArray[np.float64],
) -> Level:
    """Return the level of a target; `within` is the share of the exact best among all candidates.

    Its limit is the largest one that keeps the mean recall among candidates at ``target / within``.
    """
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
