"""Measure the recall of an index's first stage, and calibrate ``search(recall=)``.

A window of a document's tokens replaces a real query; no part of its own document is
counted.  These functions read one :class:`.contents.IndexContents` and return numbers;
they change nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..data.batches import pseudo_queries
from ..data.multivectors import MultiVectors
from ..data.validation import running_total
from ..reranking.pruning import PackedQueries
from ..utils.intervals import share_interval
from ..utils.parallel import run_in_ranges, share_done, split_by_count, split_by_weight, stage
from .calibration import (
    BEST,
    CANDIDATES,
    DEFAULT_RECALL,
    MAX_RANKED,
    MIN_QUERIES,
    Calibration,
    MeasuredWindows,
    Scored,
    distinct_tokens,
)
from .contents import IndexContents
from .searching import best_rows, estimate
from .settings import FirstStageRecall
from .token_store import Ranked, Rows

#: Maximum number of windows of a measurement of recall.
MAX_WINDOWS = 64

#: Maximum number of tokens to read for each window: a larger collection is searched in
#: part.
MAX_TOKENS = 20_000_000

# Tokens of a window, as in ColBERT's queries.
_WINDOW = 32

# Added documents are measured once one document in this many is new.
_PART = 16

# Windows of added documents for their share of the collection: this number if they are
# all documents, half of it if they are half of them.
_WINDOWS_OF_ALL = 128

# Multiplications for exact Chamfer similarity of a measurement: a few seconds.
_PRODUCTS = 5 * 10**10

# Windows of a measurement, even if they need more multiplications.
_MIN_WINDOWS = 16

# A measurement with a wide interval may take this many times _PRODUCTS.
_MORE = 4

# An interval is wide if half of the 95% interval of the mean recall is above this.
_INTERVAL = 0.02

# Standard errors in half of a 95% interval.
_Z = 1.96

# Documents to whose windows an encoder is not fitted: at least _LEFT_OUT, and one in
# _KEPT_SHARE of a large collection, but never more than one in _LEFT_SHARE.
_LEFT_OUT, _KEPT_SHARE, _LEFT_SHARE = 64, 32, 8

# Maximum number of documents whose windows calibrate: the mean recall of a length has a
# standard error of .01.  Half as many added documents, because adding is frequent.
_CALIBRATION_DOCUMENTS = 256

# Windows whose candidates are found together.
_FOUND_TOGETHER = 128

# Lengths of the windows of each document: shorter queries need more candidates.
_LENGTHS = (4, 8, 16, 32)

# Multiplications for ranking the windows of a calibration: one to two seconds.
_RANKED_PRODUCTS = 12 * 10**10

# This many windows measure how many of the exact best are not among MAX_RANKED
# candidates, unless the collection has more than MAX_TOKENS tokens.
_BEYOND = 16

# Numbers of documents to return whose numbers of candidates are measured with these
# windows, and the maximum number of these candidates.
_DEEP, _MOST_DEEP = (100, 1000), 10_000

# Tokens of the documents that are scored together: some tens of megabytes.
_BLOCK_TOKENS = 1 << 18

# A pair of a query and a document counts as this many tokens of a block: sorting the
# pairs of a block takes a few megabytes.
_TOKENS_OF_PAIR = 4


# -- windows ------------------------------------------------------------------


def document_windows(
    contents: IndexContents, count: int, rows: Rows | None = None
) -> tuple[MultiVectors, Rows]:
    """Return windows of at most `count` documents, one each, and the documents' rows.

    The documents are chosen from `rows`, int64 (n,), which have tokens.  Default: all.
    """
    stream = np.random.default_rng(0)
    rows = contents.searchable[0] if rows is None else rows
    picked = np.sort(stream.choice(rows, min(count, len(rows)), replace=False))
    documents = contents.tokens.rows(picked)
    windows, sources = pseudo_queries(documents, len(documents), _WINDOW, stream)
    return windows, picked[sources]


def _most_parts(contents: IndexContents, sources: Rows | None, among: Rows | None = None) -> int:
    """Return the largest number of rows among `among` that a source's document has.

    At least 1; 0 without sources.  `among` ascends.
    """
    if sources is None:
        return 0
    if not contents.ids.has_parts:
        return 1
    documents = contents.ids.first_rows(contents.searchable[0] if among is None else among)
    wanted = contents.ids.first_rows(sources)
    counts = np.searchsorted(documents, wanted, side="right") - np.searchsorted(documents, wanted)
    return int(counts.max(initial=1))


def _first_others(
    contents: IndexContents, found: Sequence[Ranked], sources: Rows | None, count: int
) -> list[Ranked]:
    """Return the first `count` rows and scores of each query, without its document."""
    if sources is not None:
        document = contents.ids.first_rows
        masks = [document(rows) != source for (rows, _), source in zip(found, document(sources), strict=True)]
        found = [(rows[mask], scores[mask]) for (rows, scores), mask in zip(found, masks, strict=True)]
    return [(rows[:count], scores[:count]) for rows, scores in found]


def nearest(
    contents: IndexContents,
    queries: MultiVectors,
    count: int,
    sources: Rows | None = None,
    among: Rows | None = None,
    threads: int | None = None,
) -> list[Ranked]:
    """Return the candidates of each query, and their products.

    The contents must have vectors.

    Parameters
    ----------
    count : int
        Maximum number of candidates for each query.
    sources : ndarray (n,), int64, optional
        For windows: their rows; no part of their documents is a candidate.
    among : ndarray (m,), int64, optional
        Search only these rows, which ascend.  Default: all.
    """
    assert contents.candidates is not None
    most = count + _most_parts(contents, sources, among)
    return _first_others(contents, contents.candidates.find(queries, most, among, threads), sources, count)


def shares_found(
    contents: IndexContents,
    queries: MultiVectors,
    proposed: Sequence[Ranked],
    k: int,
    sources: Rows | None = None,
    among: Rows | None = None,
    threads: int | None = None,
) -> NDArray[np.float64]:
    """Return the share of each query's `k` exact best rows that were proposed.

    A proposed row with the same score replaces one of them: equal documents are equally
    good answers.  The share is 1 for a query without exact best rows.  `proposed` are
    the rows for each query, and their products.  :func:`nearest` describes `sources`
    and `among`.
    """
    rows = contents.searchable[0] if among is None else among
    count = min(k + _most_parts(contents, sources, among), len(rows))
    exact_best = best_rows(contents, queries, [rows] * len(queries), count, threads)
    best = _first_others(contents, exact_best, sources, k)
    found = best_rows(contents, queries, [rows for rows, _ in proposed], k, threads)
    return np.array(
        [
            (Counter(exact.tolist()) & Counter(scores.tolist())).total() / len(exact) if len(exact) else 1.0
            for (_, exact), (_, scores) in zip(best, found, strict=True)
        ]
    )


# -- recall -------------------------------------------------------------------


def recall_of_queries(
    contents: IndexContents, queries: MultiVectors, k: int, count: int, threads: int | None
) -> FirstStageRecall | None:
    """Return the share of the `k` exact best documents among `count` candidates.

    The queries have tokens.  Return None if there are no vectors or no documents.
    """
    documents = len(contents.searchable[0])
    if contents.candidates is None or documents == 0:
        return None
    proposed = nearest(contents, queries, count, threads=threads)
    shares = shares_found(contents, queries, proposed, k, threads=threads)
    return FirstStageRecall(
        float(shares.mean()), k, count, len(queries), False, documents, share_interval(shares)
    )


def measured_windows(contents: IndexContents, threads: int | None) -> MeasuredWindows | None:
    """Return the recall of windows: the last measurement, unless it is out of date.

    Windows of all documents are measured if there are none yet, or if the number of
    documents has doubled or halved.  Windows of added documents are measured once these
    are a sixteenth of all documents.  Return None without vectors, or if there have
    always been too few documents.
    """
    candidates = contents.candidates
    if candidates is None:
        return None
    earlier = candidates.windows
    rows = contents.searchable[0]
    if len(rows) - _most_parts(contents, rows) <= CANDIDATES:
        return earlier
    if earlier is None or not len(rows) / 2 <= earlier.size <= 2 * len(rows):
        before = np.searchsorted(rows, candidates.fitted_rows)
        groups = [group for group in (rows[:before], rows[before:]) if len(group)]
        return _measured_groups(contents, groups, MAX_WINDOWS // len(groups), threads)
    new = rows[rows >= earlier.stop]
    if len(new) < max(_PART, len(rows) // _PART):
        return earlier
    count = min(MAX_WINDOWS, -(-_WINDOWS_OF_ALL * len(new) // len(rows)))
    later = _measured_groups(contents, [new], count, threads)
    return replace(
        later,
        rows=np.append(earlier.rows, later.rows),
        shares=np.append(earlier.shares, later.shares),
        size=earlier.size,
    )


def _measured_groups(
    contents: IndexContents, groups: Sequence[Rows], count: int, threads: int | None
) -> MeasuredWindows:
    """Measure windows of up to `count` documents of each group of rows."""
    drawn = [document_windows(contents, count, group) for group in groups]
    windows = MultiVectors.concatenate([windows for windows, _ in drawn])
    return _measured(contents, windows, np.concatenate([sources for _, sources in drawn]), threads)


def _measured(
    contents: IndexContents, windows: MultiVectors, sources: Rows, threads: int | None
) -> MeasuredWindows:
    """Return the recall of windows of the documents at `sources`.

    A large collection is searched in part, with fewer windows.  If their mean is
    uncertain, more are measured.
    """
    rows, tokens = contents.searchable
    among: Rows | None = None
    if tokens > MAX_TOKENS:
        count = int(len(rows) * MAX_TOKENS / tokens)
        some = np.random.default_rng(0).choice(rows, count, replace=False)
        among = np.union1d(some, sources)
        tokens = MAX_TOKENS
    cost = max(1, _WINDOW * tokens * contents.config.dimension)
    affordable = max(_MIN_WINDOWS, _PRODUCTS // cost)
    order = np.random.default_rng(0).permutation(len(windows))
    parts = [np.sort(order[:affordable])]

    def shares_of(part: Rows) -> NDArray[np.float64]:
        shares = [np.empty(0)]
        for start in range(0, len(part), _MIN_WINDOWS):
            block = part[start : start + _MIN_WINDOWS]
            own = sources[block]
            proposed = nearest(contents, windows[block], CANDIDATES, own, among, threads)
            shares.append(shares_found(contents, windows[block], proposed, BEST, own, among, threads))
            share_done((start + len(block)) / len(part))
        return np.concatenate(shares)

    with stage("measuring recall"):
        shares = shares_of(parts[0])
        more = np.sort(order[affordable : _MORE * _PRODUCTS // cost])
        if len(more) and _Z * shares.std() / math.sqrt(len(shares)) > _INTERVAL:
            shares = np.append(shares, shares_of(more))
            parts.append(more)
    sources = sources[np.concatenate(parts)]
    searched = rows if among is None else among
    return MeasuredWindows(sources, shares, len(contents.tokens), len(searched), len(rows))


def exact_scores(
    contents: IndexContents,
    query: MultiVectors,
    k: int,
    rows: Rows | None = None,
    after_block: Callable[[], None] = lambda: None,
) -> NDArray[np.float32]:
    """Return the scores of the `k` best documents for one query, best first.

    These are the documents of a search whose candidates are all documents.  They are
    read in blocks on one thread, which bounds the memory.

    Parameters
    ----------
    rows : ndarray (n,), int64, optional
        Search only these rows, which ascend and have tokens.  Default: all.
    after_block : callable
        Called after each block; it may wait, or raise an exception.
    """
    rows = contents.searchable[0] if rows is None else rows
    tokens, wanted = contents.tokens, k
    blocks = split_by_weight(running_total(tokens.coarse_lengths[rows]), _BLOCK_TOKENS, len(rows))
    while True:
        wanted = 2 * wanted if contents.ids.has_parts else wanted
        count = tokens.num_rescored(wanted) if tokens.has_estimates else wanted
        best, scores = np.empty(0, np.int64), np.empty(0, np.float32)
        for start, stop in blocks:
            block = [rows[start:stop]]
            if tokens.has_estimates:
                found = estimate(contents, query, block, count, 1)[0]
            else:
                found = best_rows(contents, query, block, count, 1)[0]
            best, scores = np.append(best, found[0]), np.append(scores, found[1])
            order = np.argsort(-scores, kind="stable")[:count]
            best, scores = best[order], scores[order]
            after_block()
        if tokens.has_estimates:
            best, scores = best_rows(contents, query, [best], wanted, 1)[0]
        documents = scores[contents.ids.best_parts(best, k)]
        if len(documents) == k or wanted >= len(rows):
            return documents


# -- calibration --------------------------------------------------------------


def left_out(contents: IndexContents) -> Rows:
    """Return the rows to whose windows an encoder should not be fitted, ascending.

    These windows calibrate.  Empty if there would be too few of them.
    """
    rows = contents.searchable[0]
    most = min(_CALIBRATION_DOCUMENTS, len(rows) // _LEFT_SHARE)
    count = min(most, max(_LEFT_OUT, len(rows) // _KEPT_SHARE))
    if len(_LENGTHS) * count < MIN_QUERIES:
        count = 0
    return np.sort(np.random.default_rng(0).choice(rows, count, replace=False))


def calibration_is_current(contents: IndexContents) -> bool:
    """Return True unless the token codec changed or the documents more than doubled."""
    last = None if contents.candidates is None else contents.candidates.calibration
    if last is None or last.tokens != contents.tokens.ranked_by:
        return False
    return len(contents.searchable[0]) <= 2 * last.documents


def calibrate_on_windows(
    contents: IndexContents, unseen: Rows, threads: int | None, depth: int | None = None
) -> Calibration | None:
    """Calibrate with windows of documents.

    The contents must have vectors.  The windows' documents are the rows `unseen`, int64
    (n,), to whose windows the encoder should not have been fitted.
    :meth:`Calibration.fit` describes `depth`, which is given for added documents.
    Return None with fewer than MIN_QUERIES documents or windows.
    """
    most = _CALIBRATION_DOCUMENTS if depth is None else _CALIBRATION_DOCUMENTS // 2
    windows, sources = _calibration_windows(contents, unseen, most)
    others = len(contents.searchable[0]) - _most_parts(contents, sources)
    if min(len(windows), others + 1) < MIN_QUERIES:
        return None
    with stage("calibrating"):
        groups = np.tile(_LENGTHS, len(windows) // len(_LENGTHS))
        return _calibrate(contents, windows, groups, sources, threads, depth)


def added_rows(contents: IndexContents) -> Rows:
    """Return the searchable rows that were added after the encoder was fitted."""
    assert contents.candidates is not None
    rows = contents.searchable[0]
    return rows[contents.candidates.newer(rows)]


def _calibration_windows(contents: IndexContents, rows: Rows, most: int) -> tuple[MultiVectors, Rows]:
    """Return windows of at most `most` documents at `rows`, and these documents' rows.

    Each of them has a window of each length.
    """
    documents, tokens = contents.searchable
    work = tokens / max(1, len(documents)) * MAX_RANKED * contents.config.dimension * sum(_LENGTHS)
    least = -(-MIN_QUERIES // len(_LENGTHS))
    count = min(most, max(least, int(_RANKED_PRODUCTS / max(1, work))))
    stream = np.random.default_rng(0)
    picked = np.sort(stream.permutation(rows)[:count])
    windows = []
    for document in contents.tokens.rows(picked) if len(picked) else ():
        for length in _LENGTHS:
            start = stream.integers(0, max(0, len(document) - length) + 1)
            windows.append(document[start : start + length])
    return (
        MultiVectors.from_arrays(windows, dimension=contents.config.dimension),
        np.repeat(picked, len(_LENGTHS)),
    )


def calibrate(contents: IndexContents, queries: MultiVectors, threads: int | None = None) -> Calibration:
    """Calibrate with real queries that have tokens.

    All of them are one group, because they have the lengths that users ask with.  The
    contents must have vectors.
    """
    with stage("calibrating"):
        return _calibrate(contents, queries, np.zeros(len(queries), np.int64), threads=threads)


def _calibrate(
    contents: IndexContents,
    queries: MultiVectors,
    groups: NDArray[np.int64],
    sources: Rows | None = None,
    threads: int | None = None,
    depth: int | None = None,
) -> Calibration:
    """Calibrate with queries of these `groups`, int64 (n,); 0 is that of real queries.

    :func:`nearest` describes `sources`, and :meth:`Calibration.fit` describes `depth`.
    """
    assert contents.candidates is not None
    documents, tokens = contents.searchable
    others = len(documents) - _most_parts(contents, sources)
    rows, products = _proposed(contents, queries, min(MAX_RANKED, others), sources, threads)
    share_done(0.2)
    scores = _scores(contents, queries, rows, threads)
    share_done(0.5)
    within = 1.0  # the share of the exact best among all candidates
    deep: tuple[tuple[int, int], ...] = ()
    many = len(documents) > 4 * MAX_RANKED and tokens <= MAX_TOKENS
    if many or depth is None:
        some = np.flatnonzero(groups != _LENGTHS[0])  # the shortest windows are unlike most queries
        some = some[np.unique(np.linspace(0, len(some) - 1, _BEYOND).astype(np.int64))]
        own = None if sources is None else sources[some]
        reached = _ranks_of_best(contents, queries[some], own, threads)
        within = float((reached.ranks[:, :BEST] < MAX_RANKED).mean()) if many else 1.0
        deep = reached.numbers(_DEEP)
    share_done(0.8)
    added = contents.candidates.newer(rows)
    del rows
    return Calibration.fit(
        Scored(products, scores, queries.lengths, distinct_tokens(queries), groups, within, added),
        documents=len(documents),
        pseudo_queries=sources is not None,
        tokens=contents.tokens.ranked_by,
        depth=depth,
        deep=deep,
    )


def _proposed(
    contents: IndexContents, queries: MultiVectors, count: int, sources: Rows | None, threads: int | None
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return rows and products of each query's candidates, both (n, c).

    All queries have the same number c of candidates, at most `count`.
    """
    rows, products = np.empty((len(queries), count), np.int32), np.empty((len(queries), count), np.float32)
    for start in range(0, len(queries), _FOUND_TOGETHER):
        block = slice(start, start + _FOUND_TOGETHER)
        own = None if sources is None else sources[block]
        found = nearest(contents, queries[block], count, own, threads=threads)
        count = min(count, *(len(each) for each, _ in found))
        for q, (each, scores) in enumerate(found, start):
            rows[q, :count], products[q, :count] = each[:count], scores[:count]
    return rows[:, :count], products[:, :count]


def _scores(
    contents: IndexContents, queries: MultiVectors, rows: NDArray[np.int32], threads: int | None
) -> NDArray[np.float32]:
    """Return the scores of each query's `rows`, int32 (n, c); float32 (n, c).

    Documents are read in the order of their rows, once for all queries: queries often
    have documents in common, and a file may be larger than the memory.
    """
    tokens, packed = contents.tokens, PackedQueries.of(queries)
    pairs = np.bincount(rows.reshape(-1), minlength=len(tokens))
    weights = running_total(tokens.coarse_lengths + _TOKENS_OF_PAIR * pairs)
    blocks = split_by_weight(weights, _BLOCK_TOKENS, len(tokens))
    scores = np.empty(rows.shape, np.float32)

    def work(number: int, _: int) -> None:
        start, stop = blocks[number]
        own = np.flatnonzero((rows >= start) & (rows < stop))
        found = rows.reshape(-1)[own].astype(np.int64)
        order = np.argsort(found, kind="stable")
        own, found = own[order], found[order]
        tokens.read_ahead(np.unique(found))
        scores.reshape(-1)[own] = tokens.pair_scores(packed, own // rows.shape[1], found)
        if tokens.coarse.pages.is_brief:
            tokens.coarse.release(found)

    run_in_ranges(work, split_by_count(len(blocks), 1), threads)
    return scores


class _Reached(NamedTuple):
    """Where the candidates' order has the exact best documents of each query."""

    #: The rank of each query's exact best, best first, int64 (queries, n).
    ranks: NDArray[np.int64]
    #: Share of the documents that were searched.
    share: float

    def numbers(self, depths: Sequence[int]) -> tuple[tuple[int, int], ...]:
        """Return pairs of k and the number of candidates for DEFAULT_RECALL of k best.

        If only a share of the documents was searched, that share of the k best and of
        the candidates is among them.
        """
        pairs = []
        for k in depths:
            count = round(k * self.share)
            if BEST <= count <= self.ranks.shape[1]:
                ranks = np.sort(self.ranks[:, :count], axis=None)
                last = int(ranks[math.ceil(DEFAULT_RECALL * ranks.size) - 1])
                pairs.append((k, math.ceil((last + 1) / self.share)))
        return tuple(pairs)


def _ranks_of_best(
    contents: IndexContents, queries: MultiVectors, sources: Rows | None, threads: int | None
) -> _Reached:
    """Return where the candidates' order has the exact best documents.

    A large collection is searched in part.
    """
    rows, tokens = contents.searchable
    share, among = 1.0, rows
    if tokens > MAX_TOKENS:
        share = MAX_TOKENS / tokens
        among = np.sort(np.random.default_rng(1).choice(rows, int(len(rows) * share), replace=False))
    parts = _most_parts(contents, sources, among)
    others = len(among) - parts
    proposed = nearest(contents, queries, min(others, _MOST_DEEP), sources, among, threads)
    count = min(others, max(_DEEP))
    most = min(len(among), count + parts)
    exact_best = best_rows(contents, queries, [among] * len(queries), most, threads)
    best = _first_others(contents, exact_best, sources, count)
    ranks = np.full((len(queries), count), _MOST_DEEP)
    place = np.empty(len(contents.tokens), np.int64)
    for own, (found, _), (exact, scores) in zip(ranks, proposed, best, strict=True):
        place.fill(_MOST_DEEP)
        place[found] = np.arange(len(found))
        places = place[exact]
        # Of equal documents, the ones that are found first are as good as others.
        own[: len(exact)] = places[np.lexsort((places, -scores))]
    return _Reached(ranks, share)
