"""Exact Chamfer similarity (MaxSim) of texts and of spans.

Chamfer(Q, P) = sum over q of max over p of <q, p>.  Inner products add along the
dimension with fused multiply-adds, and scores add over query tokens in order.  So
a score has the same bits in any batch, with any other documents and any number of
threads.

A span is a range of a document's tokens, such as a sentence (AGRaME, arXiv
2405.15028).  Spans of different documents are compared by ``score(span) + alpha *
score(document)``: the document's score shows whether the context matches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import (
    MultiVectors,
    MultiVectorsLike,
    as_kernel_arrays,
    as_multivectors,
    checked_text,
    checked_texts,
)
from ..data.ranking import Ranking, best_first
from ..data.validation import AnyArray, Ids, IdsLike, as_array, first_parts, repeats_before, running_total
from ..kernels.chamfer import score_documents
from ..kernels.tile import pack_columns
from ..utils.checks import counted, given, require_int, require_number
from ..utils.parallel import run_in_ranges, split_by_weight
from .pruning import RerankOptions, rank_candidates

# Number of query tokens that are packed together: their panels stay in the second-level
# cache.
_QUERY_TOKENS = 512

# Number of document tokens per task.
_TASK_TOKENS = 8192

# Largest number of scores in memory in top_k: the scores of all documents with a block
# of queries.
_HELD_SCORES = 1 << 24

# Maximum rounding error of the cosine of a token with itself.
_ROUNDING = 1e-12


@dataclass(frozen=True, eq=False)
class Explanation:
    """The best document token of each query token.

    Parameters
    ----------
    tokens : int64 (n_query_tokens,)
        Position of the most similar document token, the first one if several are
        equally similar.
    similarities : float32 (n_query_tokens,)
        Inner products with these tokens; their sum is the Chamfer similarity.
    part : int
        The part of the document that the tokens belong to, counted from 0.
    """

    tokens: NDArray[np.int64]
    similarities: NDArray[np.float32]
    part: int = 0

    @property
    def score(self) -> float:
        """Chamfer similarity, summed over query tokens."""
        return float(np.float32(self.similarities.astype(np.float64).cumsum()[-1]))


@dataclass(frozen=True)
class SpanScore:
    """One of the best spans.

    Parameters
    ----------
    document : int
        Position of its document.
    start, stop : int
        Its tokens within the document.
    score : float
        Score of the span plus alpha times the score of the document; spans are ranked
        by it.
    span_score, document_score : float
        Chamfer similarities of the query with the span and with the whole document.
    """

    document: int
    start: int
    stop: int
    score: float
    span_score: float
    document_score: float


def chamfer(query: AnyArray, document: AnyArray) -> float:
    """Return the Chamfer similarity of one query and one document.

    Parameters
    ----------
    query : array_like (n_query_tokens, dimension)
        At least one token.
    document : array_like (n_document_tokens, dimension)
        At least one token.

    Returns
    -------
    float
        Sum over query tokens (divide by ``len(query)`` for the mean); higher is better.

    Raises
    ------
    TypeError, ValueError
        If an argument is not finite token vectors of one text, or the dimensions
        differ.

    Examples
    --------
    >>> chamfer([[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.0], [0.25, 0.125]])
    0.625
    """
    pair = (checked_text(query, "query"), checked_text(document, "document"))
    return float(chamfer_matrix(*pair, threads=1)[0, 0])


def chamfer_matrix(
    queries: MultiVectorsLike, documents: MultiVectorsLike, *, threads: int | None = None
) -> NDArray[np.float32]:
    """Return the Chamfer similarities of all queries with all documents.

    Parameters
    ----------
    queries, documents : MultiVectors, one array (tokens, dimension) or a list of arrays
        Every query must have a token.
    threads : int, optional
        Default: all usable cores.

    Returns
    -------
    float32 (n_queries, n_documents)
        Sums over query tokens, higher is better; documents without tokens score -inf.

    Raises
    ------
    TypeError, ValueError
        If an argument is not finite token vectors, the dimensions differ or a query has
        no tokens.
    """
    queries, documents = _checked(queries, documents)
    empty = np.flatnonzero(queries.lengths == 0)
    if len(empty):
        raise ValueError(f"queries[{empty[0]}] has no tokens: a query needs at least one. Remove it.")
    out = np.empty((len(queries), len(documents)), np.float32)
    for start, stop in split_by_weight(queries.offsets, _QUERY_TOKENS, len(queries)):
        out[start:stop] = _scores(queries[start:stop], documents, threads).T
    return out


def top_k(
    queries: MultiVectorsLike, documents: MultiVectorsLike, k: int, *, threads: int | None = None
) -> list[Ranking]:
    """Return the `k` documents with the largest Chamfer similarity for each query.

    Parameters
    ----------
    queries, documents : MultiVectors, one array (tokens, dimension) or a list of arrays
        Both of the same model.
    k : int
        Number of documents to return; all if fewer have tokens.
    threads : int, optional
        Default: all usable cores.

    Returns
    -------
    list of Ranking
        One per query; ties go to the earlier document.  A document with several parts
        has the score of its best part.  A query without tokens has an empty ranking.

    Raises
    ------
    TypeError, ValueError
        If an argument is not finite token vectors, the dimensions differ or `k` is not
        positive.
    """
    queries, documents = _checked(queries, documents)
    require_int("k", k, 1)
    ids = documents.ids
    owners = first_parts(repeats_before(ids)) if documents.has_parts else None
    rankings = []
    most = max(1, _HELD_SCORES // max(1, len(documents)))
    for start, stop in split_by_weight(queries.offsets, _QUERY_TOKENS, most):
        scores = _scores(queries[start:stop], documents, threads)
        for q, row in enumerate(np.ascontiguousarray(scores.T), start):
            most_rows = k if owners is None else len(row)
            best = best_first(row, most_rows) if len(queries[q]) else np.empty(0, np.int64)
            rankings.append(_ranking(ids, best, row[best], owners, k))
    return rankings


def rerank(
    queries: MultiVectorsLike,
    documents: MultiVectors,
    candidates: Sequence[IdsLike],
    k: int | None = None,
    *,
    threads: int | None = None,
) -> list[Ranking]:
    """Order each query's candidates by exact Chamfer similarity.

    Scoring of a candidate stops early once it cannot be among the `k` best.  This never
    changes the result, and is fastest if the most promising candidates come first.

    Parameters
    ----------
    queries : MultiVectors, one array (tokens, dimension) or a list of such arrays
        Queries to rank documents for.
    documents : MultiVectors
        Collection that contains all candidates.
    candidates : sequence of collections of ids
        Document ids for each query (positions if the documents have no ids), most
        promising first.  Documents without tokens are skipped.
    k : int, optional
        Largest number of documents to return.  Default: all.
    threads : int, optional
        Default: all usable cores.

    Returns
    -------
    list of Ranking
        Ties go to the earlier document.  A document with several parts has the score of
        its best part.  A query without tokens has an empty ranking.

    Raises
    ------
    TypeError, ValueError
        If an argument is not finite token vectors, the dimensions differ, a candidate
        is not among the documents or a setting is wrong.
    """
    queries, documents = _checked(queries, documents)
    if not hasattr(candidates, "__len__"):
        raise TypeError(f"candidates must have one list of documents per query, got {given(candidates)}.")
    if len(candidates) != len(queries):
        raise ValueError(
            f"candidates has {counted(len(candidates), 'list')} for "
            f"{counted(len(queries), 'query', 'queries')}. Give one per query."
        )
    if k is not None:
        require_int("k", k, 1)
    ids = documents.ids
    owners = first_parts(repeats_before(ids)) if documents.has_parts else None
    position_of = None
    if documents.has_ids:  # the first part of each document
        position_of = {name: i for i, name in zip(range(len(ids))[::-1], ids.tolist()[::-1], strict=True)}
    rankings = []
    for i, values in enumerate(candidates):
        positions = _positions(values, f"candidates[{i}]", len(documents), position_of)
        first = np.unique(positions, return_index=True)[1]
        positions = positions[np.sort(first)]  # without repeats, in order
        if owners is not None:
            stops = np.searchsorted(owners, positions, side="right")
            positions = np.concatenate([positions[:0], *map(np.arange, positions, stops)])
        if len(queries[i]) == 0:
            rankings.append(Ranking(ids[:0], np.empty(0, np.float32)))
            continue
        options = RerankOptions(len(positions) if k is None or owners is not None else k)
        best, scores = rank_candidates(queries[i], positions, [(documents, positions)], options, threads)
        rankings.append(_ranking(ids, best, scores, owners, k))
    return rankings


def _ranking(
    ids: Ids,
    best: NDArray[np.int64],
    scores: NDArray[np.float32],
    owners: NDArray[np.int64] | None,
    k: int | None,
) -> Ranking:
    """Return a ranking of the documents of the best texts, `k` at most.

    `owners` has the first part of each text's document; None if each has one part.
    """
    if owners is None:
        return Ranking(ids[best], scores)
    at = np.sort(np.unique(owners[best], return_index=True)[1])[:k]
    return Ranking(ids[best[at]], scores[at], parts=best[at] - owners[best[at]])


def explain(query: AnyArray, document: AnyArray) -> Explanation:
    """Find the best document token of each query token.

    Parameters
    ----------
    query : array_like (n_query_tokens, dimension)
        At least one token.
    document : array_like (n_document_tokens, dimension)
        At least one token.

    Returns
    -------
    Explanation

    Raises
    ------
    TypeError, ValueError
        If an argument is not finite token vectors or the dimensions differ.

    Examples
    --------
    >>> explain([[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.0], [0.25, 0.125]]).tokens
    array([0, 1])
    """
    asked, found = _checked(checked_text(query, "query"), checked_text(document, "document"))
    # Each token is a text of its own.
    query_tokens = np.arange(asked.num_tokens)
    document_bounds = np.arange(found.num_tokens + 1)
    singles = MultiVectors(asked.tokens, np.arange(asked.num_tokens + 1))
    products = _score_texts(singles, found, document_bounds, document_bounds[:-1], 1)
    tokens = products.argmax(axis=0)
    return Explanation(tokens, products[tokens, query_tokens])


def carve_queries(queries: MultiVectorsLike, tau: float) -> MultiVectors:
    """Merge similar query tokens, so that a search needs fewer inner products.

    This is the ball carving of MUVERA, section 3.2.  Each ball of similar tokens is
    replaced by their sum.  The first token that is in no ball starts the next ball;
    every later free token whose cosine with it is at least `tau` joins this ball.  A
    ball matches one document token, so a score is at most the Chamfer similarity (up to
    rounding).  Both are equal if all tokens of each ball have the same best document
    token.

    Parameters
    ----------
    queries : MultiVectors, one array (tokens, dimension) or a list of such arrays
        Queries whose tokens are merged.
    tau : float
        Smallest cosine within a ball, above 0 and at most 1.  Lower values make fewer
        vectors and change scores more.  1 merges only tokens of the same direction and
        does not change scores.  The paper uses 0.7.

    Returns
    -------
    MultiVectors
        float32, with the same ids; a token alone in its ball is unchanged.

    Raises
    ------
    TypeError
        If `tau` is not a number or `queries` are not token vectors.
    ValueError
        If `tau` is out of range or `queries` have NaN or infinities.

    Examples
    --------
    >>> carve_queries([[[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]]], 0.7)[0]
    array([[1.8, 0.6],
           [0. , 1. ]], dtype=float32)
    """
    if not 0 < require_number("tau", tau) <= 1:
        raise ValueError(f"tau must be above 0 and at most 1, got {tau}.")
    queries = checked_texts(queries, "queries")
    carved = [_carved(np.asarray(query, np.float64), float(tau) - _ROUNDING) for query in queries]
    arrays = MultiVectors.from_arrays(carved, dimension=queries.dimension, dtype=np.float32)
    return arrays.with_ids(queries.ids) if queries.has_ids else arrays


# -- spans --------------------------------------------------------------------


def score_spans(query: AnyArray, document: AnyArray, spans: AnyArray) -> NDArray[np.float32]:
    """Return the Chamfer similarity of one query with each span of one document.

    Parameters
    ----------
    query : array_like (n_query_tokens, dimension)
        All or some token vectors of a query; the scores of its parts add up to its
        score.
    document : array_like (n_document_tokens, dimension)
        At least one token.
    spans : int (m, 2)
        Start and stop of each span, in tokens.  Spans may overlap and leave gaps.

    Returns
    -------
    float32 (m,)
        Sums over query tokens; -inf for an empty span.

    Raises
    ------
    TypeError, ValueError
        If `spans` have another shape or exceed the document.

    Examples
    --------
    >>> document = [[0.5, 0.0], [0.75, 0.0], [1.0, 0.0]]
    >>> score_spans([[1.0, 0.0]], document, [[0, 2], [2, 3]])
    array([0.75, 1.  ], dtype=float32)
    """
    queries, documents = checked_text(query, "query"), checked_text(document, "document")
    queries.require_dimension(documents.dimension, "query", "document")
    return _span_scores(queries, documents, _checked_spans(spans, "spans", documents.num_tokens))


def rank_spans(
    query: AnyArray,
    documents: MultiVectorsLike,
    spans: Sequence[AnyArray],
    k: int = 10,
    *,
    alpha: float = 1.0,
    document_scores: Sequence[float] | NDArray[np.floating[Any]] | None = None,
) -> list[SpanScore]:
    """Return the `k` best spans of several documents for one query.

    Parameters
    ----------
    query : array_like (n_query_tokens, dimension)
        At least one token.
    documents : MultiVectors or a list of arrays
        For example, the best documents of a search.
    spans : sequence of int (m, 2) arrays
        Spans of each document.
    k : int
        Largest number of spans to return.
    alpha : float
        Weight of the document's score; 0 compares spans alone.
    document_scores : float (n,), optional
        Chamfer similarities of the documents, if known; this saves half of the time.

    Returns
    -------
    list of SpanScore
        Best first; ties go to the earlier document, then to the earlier span.  Empty
        spans are never returned.

    Raises
    ------
    TypeError, ValueError
        If the numbers of span collections and of documents differ, or a span exceeds
        its document.
    """
    texts = as_multivectors(documents, "documents")
    queries = checked_text(query, "query")
    require_int("k", k, 1)
    if len(spans) != len(texts):
        raise ValueError(
            f"spans must have one array per document, got {len(spans)} for {len(texts)} documents."
        )
    if document_scores is not None and len(document_scores) != len(texts):
        raise ValueError(
            f"document_scores must have one score per document, got {len(document_scores)} for "
            f"{len(texts)} documents."
        )
    if not len(texts):
        return []
    queries.require_dimension(texts.dimension, "query", "documents")
    texts.require_finite("documents")
    lengths = texts.lengths.tolist()
    arrays = [_checked_spans(ranges, f"spans[{i}]", lengths[i]) for i, ranges in enumerate(spans)]
    bounds = np.concatenate(arrays)
    owners = np.repeat(np.arange(len(arrays)), list(map(len, arrays)))
    scores = _span_scores(queries, texts, bounds + texts.offsets[owners][:, np.newaxis]).astype(np.float64)
    if document_scores is None:
        document_scores = _scores(queries, texts, 1)[:, 0]
    of_documents = np.asarray(document_scores, np.float64)
    filled = bounds[:, 1] > bounds[:, 0]
    totals = np.full(len(bounds), -np.inf)
    totals[filled] = scores[filled] + alpha * of_documents[owners[filled]]
    order = np.argsort(-totals, kind="stable")[: min(k, int(filled.sum()))]
    best = []
    for i in order.tolist():
        start, stop = bounds[i].tolist()
        owner = int(owners[i])
        best.append(
            SpanScore(owner, start, stop, float(totals[i]), float(scores[i]), float(of_documents[owner]))
        )
    return best


def spans_from_characters(
    ranges: Sequence[tuple[int, int]], token_spans: Sequence[tuple[int, int]]
) -> NDArray[np.int64]:
    """Return the tokens that begin within ranges of characters, int64 (m, 2).

    A range is its first character and the first one after it, and so is a token in
    `token_spans`, see :class:`TextEncoder`.  A row of the result is the first token of
    a range and the first one after it; (0, 0) if the range has no tokens.  Tokens
    without characters, such as [CLS], belong to no range.
    """
    firsts, ends = np.array(token_spans, np.int64).reshape(-1, 2).T
    spans = np.zeros((len(ranges), 2), np.int64)
    for span, (start, stop) in zip(spans, ranges, strict=True):
        inside = np.flatnonzero((ends > firsts) & (firsts >= start) & (firsts < stop))
        if len(inside):
            span[:] = inside[0], inside[-1] + 1
    return spans


# -- scores without checks ----------------------------------------------------


def _score_texts(
    queries: MultiVectors,
    documents: MultiVectors,
    offsets: NDArray[np.int64],
    texts: NDArray[np.int64],
    threads: int | None,
) -> NDArray[np.float32]:
    """Return the scores of `texts` (n,) with m queries, float32 (n, m).

    Text i has the documents' tokens from ``offsets[i]`` to ``offsets[i + 1]``.
    """
    floats, halves = as_kernel_arrays(documents)
    packed = pack_columns(np.asarray(queries.tokens, np.float32)).reshape(-1)
    out = np.empty((len(texts), len(queries)), np.float32)

    def work(start: int, stop: int) -> None:
        score_documents(floats, halves, offsets, texts[start:stop], packed, queries.offsets, out[start:stop])

    totals = running_total(offsets[texts + 1] - offsets[texts])
    ranges = split_by_weight(totals, _TASK_TOKENS, len(texts))
    run_in_ranges(work, ranges, threads, float(totals[-1]) * len(packed))
    return out


def _scores(queries: MultiVectors, documents: MultiVectors, threads: int | None) -> NDArray[np.float32]:
    """Return the scores of all documents, float32 (n_documents, n_queries)."""
    positions = np.arange(len(documents))
    return _score_texts(queries, documents, documents.offsets, positions, threads)


def _positions(
    values: IdsLike, name: str, count: int, position_of: dict[int | str, int] | None
) -> NDArray[np.int64]:
    """Return the positions of the documents with these ids.

    Without `position_of`, ids are positions.
    """
    array = as_array(values, name)
    if array.ndim != 1 or (array.dtype.kind not in ("iu" if position_of is None else "iuUO") and array.size):
        kind = "positions" if position_of is None else "ids"
        raise TypeError(f"{name} must be integer {kind} (n,), got {array.dtype} {array.shape}.")
    if position_of is not None:
        ids = array.tolist()
        unknown = [id for id in ids if id not in position_of]
        if unknown:
            raise ValueError(f"{name} has id {unknown[0]!r}, which is not among the {count} documents.")
        return np.array([position_of[id] for id in ids], np.int64)
    positions = array.astype(np.int64)
    wrong = positions[(positions < 0) | (positions >= count)]
    if len(wrong):
        raise ValueError(f"{name} has position {wrong[0]}, but there are {count} documents.")
    return positions


def _checked(queries: MultiVectorsLike, documents: MultiVectorsLike) -> tuple[MultiVectors, MultiVectors]:
    if isinstance(documents, (list, tuple)) and not documents:  # an empty list of documents has no dimension
        queries = checked_texts(queries, "queries", empty_dimension=1)
        return queries, checked_texts(documents, "documents", queries.dimension)
    documents = checked_texts(documents, "documents")
    return checked_texts(queries, "queries", documents.dimension, "documents"), documents


def _span_scores(
    queries: MultiVectors, documents: MultiVectors, bounds: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return the scores of one query with ranges of tokens, float32 (m,)."""
    # Text i has the tokens from offsets[i] to offsets[i + 1]: every second text is a
    # span.
    spans = 2 * np.arange(len(bounds))
    return _score_texts(queries, documents, bounds.reshape(-1), spans, 1)[:, 0]


def _checked_spans(spans: AnyArray, name: str, tokens: int) -> NDArray[np.int64]:
    """Return the spans of a document of `tokens` tokens, int64 (m, 2), or raise."""
    array = as_array(spans, name)
    if array.size == 0:
        array = np.empty((0, 2), np.int64)
    if array.dtype.kind not in "iu" or array.ndim != 2 or array.shape[1] != 2:
        raise TypeError(f"{name} must be integers (m, 2), start and stop, got {array.dtype} {array.shape}.")
    starts, stops = array.T
    wrong = np.flatnonzero((starts < 0) | (stops < starts) | (stops > tokens))
    if len(wrong):
        i = wrong[0]
        raise ValueError(
            f"{name}[{i}] is {starts[i]}..{stops[i]}, but must lie within the document's {tokens} tokens."
        )
    return np.ascontiguousarray(array, np.int64)


def _carved(tokens: NDArray[np.float64], least: float) -> NDArray[np.float32]:
    """Return the sums of balls of tokens (n, dimension).

    A token of zeros has the cosine 0 with all tokens.
    """
    norms = np.sqrt(np.square(tokens).sum(axis=1))
    sums = np.empty(tokens.shape, np.float32)
    free = np.ones(len(tokens), bool)
    count = 0
    for first in range(len(tokens)):
        if free[first]:
            lengths = norms * norms[first]
            # Not a product of matrices, whose last bits depend on the machine.
            joins = free & (lengths > 0) & ((tokens * tokens[first]).sum(axis=1) >= least * lengths)
            joins[first] = True
            free &= ~joins
            sums[count] = tokens[joins].sum(axis=0)
            count += 1
    return sums[:count]
