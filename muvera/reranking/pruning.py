"""Faster reranking: skip candidates that cannot, or hardly, be among the k best.

Scoring a document stops once bounds show that it is worse than the k best so far, which
never changes the result.  `stop` and `estimates` of :class:`RerankOptions` end the
ranking once few of the k best are expected among the other candidates.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors, as_kernel_arrays
from ..data.validation import read_only_view, running_total
from ..kernels.chamfer import BoundedQuery, Progress, prepare_query, score_pairs, score_with_pruning
from ..kernels.rounded_tokens import plain_query, score_rounded
from ..kernels.selection import STATE, select_best
from ..kernels.tile import LANES
from ..utils.parallel import SMALL, require_threads, run_in_ranges, split_by_count, split_for_threads

# Queries with more tokens are scored without bounds: the cosines take memory quadratic
# in the tokens.
_MAX_BOUNDED_TOKENS = 512

# Maximum number of tasks of one query: each begins with one of the most promising
# candidates.
_TASKS = 8

# Largest number of pairs of a short query and a candidate per task.
_PAIRS = 1024

# Smallest number of them: ranking fewer takes less time than starting another thread.
_FEW_PAIRS = 128

#: Documents of a segment, and positions in them of candidates that follow each other.
DocumentRun = tuple[MultiVectors, NDArray[np.int64]]


class Stop(NamedTuple):
    """When to stop a ranking, see :mod:`muvera.kernels.selection`."""

    #: The candidates' products in the first stage, descending, float32 (c,).
    products: NDArray[np.float32]
    #: State of the ranking, which updates it, float64 (STATE,).
    state: NDArray[np.float64]


#: Rank every candidate.
ALL = Stop(np.empty(0, np.float32), np.zeros(STATE))


@dataclass(frozen=True, eq=False)
class RerankOptions:
    """How to find one query's best candidates.

    Parameters
    ----------
    k : int
        Number of candidates to find.
    early_exit : bool
        Stop scoring a document once it cannot be among the k best.  This never changes
        the result.
    stop : Stop
        Ends the ranking once few of the k best are expected to be missing.  Default:
        all candidates are ranked.
    estimates : float32 (c,), optional
        Descending estimates of the scores.  Ranking stops before the first candidate
        that would need a five-sigma error to be among the k best.  Sigma is estimated
        from the errors of the candidates before it: at least 8, and at least k.
    """

    k: int
    early_exit: bool = True
    stop: Stop = ALL
    estimates: NDArray[np.float32] | None = None

    @property
    def in_order(self) -> bool:
        """True if the score of a candidate can end the ranking before the next one."""
        return self.stop is not ALL or self.estimates is not None


def score_runs(
    score: Callable[[Any, NDArray[np.int64], int, NDArray[np.float32]], object],
    runs: Sequence[tuple[Any, NDArray[np.int64]]],
    operations: float = 0,
    threads: int | None = 1,
    done: Callable[[int, int], object] | None = None,
) -> NDArray[np.float32]:
    """Score all candidates, run by run; return float32 (c,).

    With several threads, candidates are divided among n <= 8 tasks.  Task i scores
    every n-th one from i on, so each task begins with promising candidates.

    Parameters
    ----------
    score : callable
        ``score(texts, positions, first, out)`` writes the scores of a part of a run to
        `out`; `first` is the number of the run's first candidate.
    runs : sequence of (texts, int64 (c_i,))
        Texts of a segment, and positions in them of candidates that follow each other.
    operations : float
        Number of multiply-adds per token, or 0 to use one thread.
    threads : int or None
        None: all usable cores.
    done : callable, optional
        ``done(first, stop)`` is called for each run, once the first task has scored its
        part: the run has the candidates first..stop.
    """
    scores = np.empty(sum(len(positions) for _, positions in runs), np.float32)

    def score_every(step: int, start: int) -> None:
        first = 0
        for texts, positions in runs:
            part = np.ascontiguousarray(positions[start::step])
            out = np.empty(len(part), np.float32)
            score(texts, part, first, out)
            scores[first + start : first + len(positions) : step] = out
            first += len(positions)
            if done is not None and start == 0:
                done(first - len(positions), first)

    tasks = 1
    if threads != 1 and operations:
        tokens = sum(len(positions) * texts.num_tokens / max(1, len(texts)) for texts, positions in runs)
        tasks = min(_TASKS, len(scores)) if tokens * operations >= SMALL else 1
    if tasks == len(runs) == 1:  # for a few candidates, planning takes as long as scoring
        require_threads(threads)
        texts, positions = runs[0]
        score(texts, np.ascontiguousarray(positions), 0, scores)
        if done is not None:
            done(0, len(scores))
        return scores
    run_in_ranges(lambda i, _: score_every(tasks, i), [(i, i + 1) for i in range(tasks)], threads)
    return scores


def score_candidates(
    query: NDArray[np.float32],
    runs: Sequence[DocumentRun],
    options: RerankOptions,
    threads: int | None = None,
    done: Callable[[int, int], object] | None = None,
) -> NDArray[np.float32]:
    """Score one query's candidates by Chamfer similarity; return float32 (c,).

    `query`, float32 (m, dimension), has at least one token.  `runs` have the most
    promising candidates first.  Pruned candidates get -inf.  The k best do not depend
    on the number of threads.  :func:`score_runs` describes `done`.
    """
    packed = _bounded(query, options.early_exit)
    bounded = len(packed.cosines) > 0 and options.k < sum(len(positions) for _, positions in runs)
    keeps_best = options.in_order or bounded
    best = options.k if keeps_best else 0
    panels = -(-len(query) // LANES)
    estimates = np.empty(0, np.float32) if options.estimates is None else options.estimates
    ended: deque[Progress] = deque()  # of finished tasks, for the next tasks

    def score(
        documents: MultiVectors, positions: NDArray[np.int64], first: int, out: NDArray[np.float32]
    ) -> None:
        try:
            progress = ended.pop()
        except IndexError:
            progress = Progress(np.full(best, -np.inf, np.float32), np.zeros(3), np.zeros(panels))
        score_with_pruning(
            *as_kernel_arrays(documents), documents.offsets, positions, packed, documents.longest_tokens,
            options.stop, estimates[first : first + len(out)], progress, out,
        )  # fmt: skip
        ended.append(progress)

    return score_runs(score, runs, 0 if options.in_order else len(packed.columns), threads, done)


def estimate_candidates(
    query: NDArray[np.float32],
    runs: Sequence[DocumentRun],
    options: RerankOptions,
    threads: int | None = None,
) -> NDArray[np.float32]:
    """Score one query's candidates by tokens rounded to bytes; return float32 (c,).

    This takes about a third of the time of :func:`score_candidates`, which describes
    the arguments; only a stop in `options` needs the most promising candidates first.
    Candidates after the stop and candidates without tokens get -inf.
    """
    rounded, ends = plain_query(query), np.array([len(query)])
    heap = np.full(options.k, -np.inf, np.float32)

    def score(
        documents: MultiVectors, positions: NDArray[np.int64], first: int, out: NDArray[np.float32]
    ) -> None:
        arrays = *as_kernel_arrays(documents), documents.offsets
        score_rounded(*arrays, positions, rounded, ends, options.stop, heap, out[np.newaxis])

    return score_runs(score, runs, 0 if options.in_order else len(rounded.packed) / 4, threads)


def estimate_together(
    queries: MultiVectors, runs: Sequence[DocumentRun], threads: int | None = None
) -> NDArray[np.float32]:
    """Score the same candidates for several queries; return float32 (queries, c).

    The results are those of :func:`estimate_candidates`, but each candidate is read and
    rounded once.  All queries have tokens.
    """
    rounded = plain_query(np.asarray(queries.tokens, np.float32))
    scores = np.empty((len(queries), sum(len(positions) for _, positions in runs)), np.float32)
    heap = np.full(1, -np.inf, np.float32)
    tasks, first = [], 0
    for documents, positions in runs:
        for start, stop in split_for_threads(len(positions), _FEW_PAIRS, _PAIRS, threads):
            tasks.append((documents, positions[start:stop], first + start))
        first += len(positions)

    def work(start: int, stop: int) -> None:
        for documents, positions, first in tasks[start:stop]:
            out = np.empty((len(queries), len(positions)), np.float32)
            arrays = *as_kernel_arrays(documents), documents.offsets
            score_rounded(*arrays, positions, rounded, queries.offsets[1:], ALL, heap, out)
            scores[:, first : first + len(positions)] = out

    run_in_ranges(work, split_by_count(len(tasks), 1), threads)
    return scores


def rank_candidates(
    query: NDArray[Any],
    positions: NDArray[np.int64],
    runs: Sequence[DocumentRun],
    options: RerankOptions,
    threads: int | None = None,
    done: Callable[[int, int], object] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find one query's best candidates.

    `query`, float (m, dimension), has at least one token.  `positions`, int64 (c,), are
    distinct candidates, the most promising ones first, and `runs` are their texts,
    split by segment.  Return the best candidates that have tokens, int64 (k,), best
    first, and their Chamfer similarities, float32 (k,).  Ties go to the lower position.
    :func:`score_runs` describes `done`.
    """
    scores = score_candidates(np.asarray(query, np.float32), runs, options, threads, done)
    return ranked(positions, scores, options.k)


class PackedQueries(NamedTuple):
    """Queries with tokens, and their columns for :func:`score_packed`."""

    queries: MultiVectors
    #: Panels of LANES columns, flat float32.
    columns: NDArray[np.float32]
    #: The first panel of each query, and the number of all panels, int64 (n + 1,).
    panels: NDArray[np.int64]

    @classmethod
    def of(cls, queries: MultiVectors) -> PackedQueries:
        """Pack all queries."""
        panels = running_total(-(-queries.lengths // LANES))
        columns = np.zeros((int(panels[-1]), queries.dimension, LANES), np.float32)
        places = np.arange(queries.num_tokens) - np.repeat(queries.offsets[:-1], queries.lengths)
        owners = np.repeat(panels[:-1], queries.lengths) + places // LANES
        columns[owners, :, places % LANES] = queries.tokens
        return cls(queries, columns.reshape(-1), panels)


def score_packed(
    queries: PackedQueries, numbers: NDArray[np.int64], runs: Sequence[DocumentRun]
) -> NDArray[np.float32]:
    """Score pairs of a query and a document by Chamfer similarity; return float32 (p,).

    A document is read once if its pairs follow each other.  `numbers`, int64 (p,), are
    the queries, and `runs` the documents, split by segment.  A document without tokens
    scores -inf.
    """
    counts = queries.queries.lengths

    def score(
        documents: MultiVectors, positions: NDArray[np.int64], first: int, out: NDArray[np.float32]
    ) -> None:
        asked = numbers[first : first + len(out)]
        score_pairs(
            *as_kernel_arrays(documents), documents.offsets, positions, queries.columns, queries.panels,
            asked, counts, out,
        )  # fmt: skip

    return score_runs(score, runs)


def rank_short(
    queries: MultiVectors,
    positions: Sequence[NDArray[np.int64]],
    runs_of: Callable[[NDArray[np.int64]], Sequence[DocumentRun]],
    k: int,
    threads: int | None = None,
) -> list[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Find the best candidates of several short queries.

    Each document is read once for all queries.  Queries of a single panel, LANES
    tokens, gain nothing from bounds.

    All queries have tokens.  `positions` are int64 (c_i,), the distinct candidates of
    each.  `runs_of` returns the texts at some positions, split by segment.  The results
    are as in :func:`rank_candidates`.
    """
    packed = PackedQueries.of(queries)
    ends = np.cumsum([len(proposed) for proposed in positions])
    rows = np.concatenate(positions)
    order = rows.argsort()
    owners = np.searchsorted(ends, order, side="right")
    ordered = rows[order]
    scores = np.empty(len(rows), np.float32)

    def work(start: int, stop: int) -> None:
        scores[order[start:stop]] = score_packed(packed, owners[start:stop], runs_of(ordered[start:stop]))

    run_in_ranges(work, split_for_threads(len(order), _FEW_PAIRS, _PAIRS, threads), threads)
    parts = np.split(scores, ends[:-1])
    return [ranked(proposed, part, k) for proposed, part in zip(positions, parts, strict=True)]


def ranked(
    positions: NDArray[np.int64], scores: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the k best positions, int64, and their scores, float32, best first.

    `positions` are distinct.  A score of -inf is never returned.  Ties go to the lower
    position.
    """
    best = np.empty(min(k, len(scores)), np.int64)
    best = best[: select_best(scores, positions, best)]
    return positions[best], scores[best]


def _bounded(tokens: NDArray[np.float32], early_exit: bool) -> BoundedQuery:
    """Pack a query for the kernel.

    The angles between its tokens are included if they bound scores.
    """
    count, depth = tokens.shape
    # Two panels are multiplied together, so bounds would save nothing for queries of at
    # most two.
    bounded = early_exit and 2 * LANES < count <= _MAX_BOUNDED_TOKENS
    angles = np.empty((2, count if bounded else 0, count), np.float32)
    columns = np.zeros(-(-count // LANES) * LANES * depth, np.float32)
    slack = (depth + 64) * 2.0**-23
    query = BoundedQuery(columns, np.empty(count, np.int64), np.empty(count), angles[0], angles[1], slack)
    if prepare_query(read_only_view(tokens), query):
        return query
    return query._replace(cosines=angles[0, :0], sines=angles[1, :0])
