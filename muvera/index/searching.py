"""Run a search: check arguments, find candidates, rank them exactly.

These functions read one :class:`.contents.IndexContents` and change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors
from ..data.ranking import Ranking, best_first
from ..data.validation import running_total
from ..kernels.selection import STOPPED
from ..reranking.pruning import ALL, RerankOptions, Stop, rank_short
from ..utils.checks import require_choice, require_int
from ..utils.hints import Argument, Message
from ..utils.parallel import (
    require_threads,
    run_in_ranges,
    split_by_count,
    split_by_weight,
    split_for_threads,
    thread_count,
    threads_for_short_work,
)
from .calibration import BEST, EVERYTHING, Dial, Level, require_recall
from .candidates import CandidateSearch
from .contents import IndexContents
from .settings import num_candidates
from .token_store import Ranked, Rows

#: Documents to return by default.
DEFAULT_K = BEST

#: What a search returns: each document by its best part, or each part.
Group = Literal["document", "part"]

# Queries whose candidates are read from disk while earlier ones are ranked.
_AHEAD = 4

# Largest number of queries per task that searches vectors: they share what they read.
_TOGETHER = 16

# Smallest number of these queries: with fewer, starting another thread takes longer
# than it saves.
_FEW = 8

# Pairs of a short query and a candidate that are ranked together.
_PAIRS = 1 << 18

# The best of no rows.
_NOTHING: Ranked = (np.empty(0, np.int64), np.empty(0, np.float32))


@dataclass(frozen=True)
class SearchPlan:
    """Validated arguments of a search; see :meth:`muvera.MuveraIndex.search`."""

    k: int = DEFAULT_K
    ids: list[Any] | None = None
    candidates: int | None = None
    recall: float | None = None
    ef: int | None = None
    rescore: int | None = None
    threads: int | None = None
    group: Group = "document"

    def __post_init__(self) -> None:
        require_int("k", self.k, 1)
        for name, value in (("candidates", self.candidates), ("rescore", self.rescore)):
            if value is not None and require_int(name, value, 1) < self.k:
                number = Argument(name, f"{value}")
                raise ValueError(Message(number, " must be at least ", Argument("k", f"{self.k}"), "."))
        if self.ef is not None:
            require_int("ef", self.ef, 1)
        require_recall(self.recall, self.candidates)
        require_threads(self.threads)
        require_choice("group", self.group, get_args(Group))

    @property
    def num_candidates(self) -> int:
        """Number of candidates from the vectors, without a calibration."""
        return num_candidates(self.k, self.candidates)


@dataclass(frozen=True)
class Proposal:
    """The rows to rank for each query, and when to stop.

    Parameters
    ----------
    rows : sequence of ndarray (n,), int64
        For each query, most promising first.
    k : int
        Number of documents to return.
    levels : sequence of Level
        The calibrated level of each query; if empty, the expected recall is unknown.
    stops : sequence of Stop
        When to stop ranking each query; if empty, all rows are ranked.
    candidates : CandidateSearch, optional
        Tells which documents were added after the encoder was fitted.
    """

    rows: Sequence[Rows]
    k: int
    levels: Sequence[Level] = ()
    stops: Sequence[Stop] = ()
    candidates: CandidateSearch | None = None

    def has_everything(self, query: int) -> bool:
        """Return True if the rows of a query are all that may be found."""
        return bool(self.levels) and self.levels[query] is EVERYTHING

    def expected_recall(self, query: int, best: Rows) -> float | None:
        """Return the calibrated mean recall of queries that ended like this one.

        `best`, int64 (k,), are the rows that the query returns.

        If this query mostly found added documents, the mean is over queries that also
        did.  Otherwise it is over queries that stopped early, or over queries that
        reached the cap, like this one.

        Return None without a calibrated level.  For a query that mostly found added
        documents, also return None if fewer than 8 such queries were measured, or if
        added documents seem to be of another kind.  Return None if an added document
        that was not measured yet is the best one, because the query may be about
        documents of its kind.
        """
        if not self.levels:
            return None
        level = self.levels[query]
        newer = 0 if self.candidates is None else np.count_nonzero(self.candidates.newer(best))
        if self.candidates is not None and newer:
            unmeasured = self.candidates.unmeasured(best)
            if unmeasured[0] or unmeasured.mean() > 0.5:
                return None
            if newer > len(best) / 2:
                return level.added
        early = self.stops and self.stops[query].state[STOPPED]
        return level.stopped if early else level.capped


def search(contents: IndexContents, queries: MultiVectors, plan: SearchPlan) -> list[Ranking]:
    """Return the best documents for each query, or the best parts.

    A graph must not change before the candidates are found.
    """
    if plan.group == "part" or not contents.ids.has_parts:
        return rank(contents, queries, propose(contents, queries, plan), plan.threads, plan.rescore)

    def wider(left: Rows, k: int) -> Proposal:
        k = k if plan.candidates is None else min(k, plan.candidates)
        rescore = None if plan.rescore is None else max(k, plan.rescore)
        return propose(contents, queries[left], replace(plan, k=k, rescore=rescore))

    return rank_documents(contents, queries, wider, plan.k, plan.threads, plan.rescore)


def propose(contents: IndexContents, queries: MultiVectors, plan: SearchPlan) -> Proposal:
    """Return the rows to rank for each query; they are parts of documents.

    If few documents or tokens are searched, all rows are proposed.  Otherwise the
    vectors are searched; a graph must not change meanwhile.
    """
    contents.tokens.require_rescore(plan.rescore)
    rows, tokens = contents.searchable
    k = min(plan.k, len(rows))
    allowed: Rows | None = None
    if plan.ids is not None:
        rows = np.sort(contents.ids.rows(plan.ids, "ignore"))
        rows = rows[contents.lengths[rows] > 0]
        tokens = int(contents.tokens.coarse_lengths[rows].sum())
        allowed = rows
    candidates = contents.candidates
    dials: list[Dial] | None = None
    if candidates is not None and plan.recall is not None:
        dials = candidates.dials(plan.recall, k, queries)
    count = plan.num_candidates
    if dials is not None:
        count = min((dial.level.cap for dial in dials), default=count)
    elif candidates is not None and plan.candidates is None:
        count = candidates.enough(k)
    if candidates is None or len(rows) <= count or tokens <= contents.settings.exact_tokens:
        return Proposal([rows] * len(queries), k, [EVERYTHING] * len(queries))
    if dials is not None:
        return _dialed(candidates, queries, dials, k, rows, plan)
    return Proposal([found for found, _ in _find(candidates, queries, count, allowed, plan)], k)


def _dialed(
    candidates: CandidateSearch,
    queries: MultiVectors,
    dials: Sequence[Dial],
    k: int,
    allowed: Rows,
    plan: SearchPlan,
) -> Proposal:
    """Return each query's candidates among the rows `allowed`, and when to stop.

    Queries with the same largest number of candidates are searched together, so that no
    answer depends on the other queries.
    """
    proposed, stops = [allowed] * len(queries), [ALL] * len(queries)
    levels = [EVERYTHING] * len(queries)
    caps = [dial.level.cap for dial in dials]
    for cap in {cap for cap in caps if cap < len(allowed)}:
        own = [q for q, cap_of_query in enumerate(caps) if cap_of_query == cap]
        some = queries if len(own) == len(queries) else queries[own]
        found = _find(candidates, some, cap, None if plan.ids is None else allowed, plan)
        lengths = some.lengths.tolist()
        for q, length, (rows, products) in zip(own, lengths, found, strict=True):
            proposed[q], levels[q] = rows, dials[q].level
            stops[q] = dials[q].stop(products, length, k)
    return Proposal(proposed, k, levels, stops, candidates)


def _find(
    candidates: CandidateSearch, queries: MultiVectors, count: int, allowed: Rows | None, plan: SearchPlan
) -> list[Ranked]:
    """Return up to `count` candidates of each query, and their products.

    Many queries use several threads.
    """
    find = partial(candidates.find, count=count, allowed=allowed, ef=plan.ef)
    threads = threads_for_short_work(plan.threads) if len(queries) == 1 else plan.threads
    if len(queries) < 2 * _FEW or thread_count(threads) == 1:
        return find(queries, threads=threads)
    found = [_NOTHING] * len(queries)

    def work(start: int, stop: int) -> None:
        found[start:stop] = find(queries[start:stop], threads=1)

    run_in_ranges(work, split_for_threads(len(queries), _FEW, _TOGETHER, threads), threads)
    return found


def rank(
    contents: IndexContents,
    queries: MultiVectors,
    proposal: Proposal,
    threads: int | None,
    rescore: int | None = None,
) -> list[Ranking]:
    """Rank each query's rows by their tokens.

    The ranking of a query without tokens is empty.
    :meth:`.token_store.DocumentTokens.rank` describes `rescore`.
    """
    best = best_rows(contents, queries, proposal.rows, proposal.k, threads, rescore, proposal.stops)
    return [
        _ranking(contents, rows, scores, proposal.expected_recall(q, rows))
        for q, (rows, scores) in enumerate(best)
    ]


def rank_documents(
    contents: IndexContents,
    queries: MultiVectors,
    propose_rows: Callable[[Rows, int], Proposal],
    k: int,
    threads: int | None,
    rescore: int | None = None,
) -> list[Ranking]:
    """Rank documents by their best part.

    The best rows can be parts of few documents.  So more of them are ranked until there
    are `k` documents, or no more rows.

    Parameters
    ----------
    propose_rows : callable
        ``propose_rows(left, k)`` proposes rows for the queries at `left`, to find their
        `k` best rows; fewer, if there are not so many.
    k : int
        Number of documents to return.
    rescore : int, optional
        See :meth:`.token_store.DocumentTokens.rank`.
    """
    rankings = [_ranking(contents, *_NOTHING, None)] * len(queries)
    left = np.arange(len(queries))
    count = k
    while len(left):
        count *= 2
        proposal = propose_rows(left, count)
        some = queries[left]
        best = best_rows(contents, some, proposal.rows, proposal.k, threads, rescore, proposal.stops)
        short = np.zeros(len(left), bool)
        for i, (rows, scores) in enumerate(best):
            at = contents.ids.best_parts(rows, k)
            recall = proposal.expected_recall(i, rows[at])
            rankings[left[i]] = _ranking(contents, rows[at], scores[at], recall)
            short[i] = len(at) < k and proposal.k == count and len(some[i]) > 0
        left = left[short]
    return rankings


def _ranking(
    contents: IndexContents, rows: Rows, scores: NDArray[np.float32], recall: float | None
) -> Ranking:
    exact = contents.tokens.has_exact_scores  # otherwise the scores are of decoded tokens
    return Ranking(contents.ids.of(rows), scores, exact, recall, contents.ids.parts(rows))


def estimate(
    contents: IndexContents, queries: MultiVectors, rows: Sequence[Rows], k: int, threads: int | None
) -> list[Ranked]:
    """Return the `k` best of each query's rows by the coarse level of their tokens.

    The coarse level must be codes or means, not the floats of all tokens.  Scoring by
    codes takes a quarter of the time of decoding them.  `rows` are int64 (n,) for each
    query.  The result has rows and their Chamfer similarities for each query, best
    first; a query without tokens has none.
    """
    tokens = contents.tokens
    best = [_NOTHING] * len(rows)

    def work(start: int, stop: int) -> None:
        for q in range(start, stop):
            if len(queries[q]) and len(rows[q]):
                tokens.read_ahead(rows[q])
                found = tokens.scores(queries[q], rows[q])
                order = best_first(found, k)
                best[q] = rows[q][order], found[order]

    run_in_ranges(work, split_by_count(len(rows), 1), threads)
    return best


def best_rows(
    contents: IndexContents,
    queries: MultiVectors,
    rows: Sequence[Rows],
    k: int,
    threads: int | None,
    rescore: int | None = None,
    stops: Sequence[Stop] = (),
) -> list[Ranked]:
    """Return the `k` best of each query's rows, best first, and their scores.

    `rows` are int64 (n,) for each query.  `stops` say when to stop ranking each query;
    without them, all rows are ranked.  :meth:`.token_store.DocumentTokens.rank`
    describes `rescore`.
    """
    tokens = contents.tokens
    best = [_NOTHING] * len(queries)
    lengths = queries.lengths.tolist()
    left = [q for q, length in enumerate(lengths) if length and len(rows[q])]
    same = len(left) > 1 and all(rows[q] is rows[left[0]] for q in left)
    if same and not stops and tokens.ranks_together(rows[left[0]], k, rescore):
        for start in range(0, len(left), _TOGETHER):
            group = left[start : start + _TOGETHER]
            results = tokens.rank_together(queries[group], rows[group[0]], k, threads, rescore)
            for q, result in zip(group, results, strict=True):
                best[q] = result
        return best
    if len(left) > 1 and not tokens.has_estimates and not stops:
        short = [q for q in left if tokens.ranks_short(queries[q], rows[q])]
        left = [q for q in left if not tokens.ranks_short(queries[q], rows[q])]
        counts = running_total([len(rows[q]) for q in short])
        for start, stop in split_by_weight(counts, _PAIRS, len(short)):
            group = short[start:stop]
            rows_of_group = [rows[q] for q in group]
            results = rank_short(queries[group], rows_of_group, tokens.float_runs, k, threads)
            for q, result in zip(group, results, strict=True):
                best[q] = result
    threads_of_query = threads_for_short_work(threads) if len(queries) == 1 else 1

    def work(start: int, stop: int) -> None:
        for i in range(start, stop):
            for later in left[i + _AHEAD : i + _AHEAD + 1]:
                tokens.read_ahead(rows[later], k, rescore)
            q = left[i]
            options = RerankOptions(k, stop=stops[q] if stops else ALL)
            best[q] = tokens.rank(queries[q], rows[q], options, threads_of_query, rescore=rescore)

    for q in left[:_AHEAD]:
        tokens.read_ahead(rows[q], k, rescore)
    if len(left) == len(queries) == 1:  # its candidates are divided among the threads
        work(0, 1)
    else:
        run_in_ranges(work, split_by_count(len(left), 1), threads)
    return best
