"""Exact Chamfer similarity (MaxSim): Chamfer(Q, P) = sum over q of max over p of <q, p>.

Inner products add along the dimension with fused multiply-adds, and scores add over query tokens in their
order.  So a score has the same bits in any batch, with any other documents and any number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..data.multivectors import MultiVectors, as_kernel_arrays, checked_text, checked_texts
from ..data.ranking import Ranking, best_first
from ..data.validation import as_array, running_total
from ..kernels.chamfer import score_documents
from ..kernels.tile import pack_columns
from ..utils.checks import counted, given, require_int
from ..utils.parallel import run_in_ranges, split_by_weight
from .pruning import RerankOptions, rank_candidates

# Number of query tokens that are packed together: their panels stay in the second-level cache.
_QUERY_TOKENS = 512

# Number of document tokens per task.
_TASK_TOKENS = 8192

# Largest number of scores in memory in top_k: those of all documents with a block of queries.
_HELD_SCORES = 1 << 24


@dataclass(frozen=True, eq=False)
class Explanation:
    """The best document token of each query token.

    Parameters
    ----------
    tokens : int64 (n_query_tokens,)
        Position of the most similar document token, the first one if several are equally similar.
    similarities : float32 (n_query_tokens,)
        Inner products with these tokens; their sum is the Chamfer similarity.
    """

    tokens: NDArray[np.int64]
    similarities: NDArray[np.float32]

    @property
    def score(self) -> float:
        """Chamfer similarity, summed over query tokens."""
        return float(np.float32(self.similarities.astype(np.float64).cumsum()[-1]))


def chamfer(query: Any, document: Any) -> float:
    """Return the Chamfer similarity of one query and one document.

    Parameters
    ----------
    query : array_like (n_query_tokens, dim)
    document : array_like (n_document_tokens, dim)
        Both with at least one token.

    Returns
    -------
    float
        Sum over query tokens (divide by ``len(query)`` for the mean); higher is better.

    Examples
    --------
    >>> chamfer([[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.0], [0.25, 0.125]])
    0.625
    """
    pair = (checked_text(query, "query"), checked_text(document, "document"))
    return float(chamfer_matrix(*pair, threads=1)[0, 0])


def chamfer_matrix(queries: Any, documents: Any, *, threads: int | None = None) -> NDArray[np.float32]:
    """Return the Chamfer similarities of all queries with all documents.

    Parameters
    ----------
    queries, documents : MultiVectors, one array (tokens, dim) or a list of such arrays
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
        If an argument is not finite token vectors, the dimensions differ or a query has no tokens.
    """
    queries, documents = _checked(queries, documents)
    empty = np.flatnonzero(queries.lengths == 0)
    if len(empty):
        raise ValueError(f"queries[{empty[0]}] has no tokens: a query needs at least one. Remove it.")
    out = np.empty((len(queries), len(documents)), np.float32)
    for start, stop in split_by_weight(queries.offsets, _QUERY_TOKENS, len(queries)):
        out[start:stop] = _scores(queries[start:stop], documents, threads).T
    return out


def top_k(queries: Any, documents: Any, k: int, *, threads: int | None = None) -> list[Ranking]:
    """Return the `k` documents with the largest Chamfer similarity for each query.

    Parameters
    ----------
    queries, documents : MultiVectors, one array (tokens, dim) or a list of such arrays
    k : int
        Number of documents to return; all if fewer have tokens.
    threads : int, optional
        Default: all usable cores.

    Returns
    -------
    list of Ranking
        One per query; ties go to the earlier document.  A query without tokens has an empty ranking.

    Raises
    ------
    TypeError, ValueError
        If an argument is not finite token vectors, the dimensions differ or `k` is not positive.
    """
    queries, documents = _checked(queries, documents)
    require_int("k", k, 1)
    ids = documents.ids
    rankings = []
    most = max(1, _HELD_SCORES // max(1, len(documents)))
    for start, stop in split_by_weight(queries.offsets, _QUERY_TOKENS, most):
        scores = _scores(queries[start:stop], documents, threads)
        for q, row in enumerate(np.ascontiguousarray(scores.T), start):
            best = best_first(row, k) if len(queries[q]) else np.empty(0, np.int64)
            rankings.append(Ranking(ids[best], row[best]))
    return rankings


def rerank(
    queries: Any,
    documents: MultiVectors,
    candidates: Sequence[Any],
    k: int | None = None,
    *,
    threads: int | None = None,
) -> list[Ranking]:
    """Order each query's candidates by exact Chamfer similarity.

    Scoring of a candidate stops early once it cannot be among the `k` best.  This never changes the result,
    and is fastest if the most promising candidates come first.

    Parameters
    ----------
    queries : MultiVectors, one array (tokens, dim) or a list of such arrays
    documents : MultiVectors
    candidates : sequence of collections of ids
        Document ids for each query (positions if the documents have no ids), most promising first.  Documents
        without tokens are skipped.
    k : int, optional
        Largest number of documents to return.  Default: all.
    threads : int, optional
        Default: all usable cores.

    Returns
    -------
    list of Ranking
        Ties go to the earlier document.  A query without tokens has an empty ranking.

    Raises
    ------
    TypeError, ValueError
        If an argument is not finite token vectors, the dimensions differ, a candidate is not among the
        documents or a setting is wrong.
    """
    queries, documents = _checked(queries, documents)
    if not hasattr(candidates, "__len__"):
        raise TypeError(f"candidates must have one list of documents per query, got {given(candidates)}.")
    if len(candidates) != len(queries):
        raise ValueError(
            f"candidates has {counted(len(candidates), 'list')} for {counted(len(queries), 'query', 'queries')}. "
            "Give one per query."
        )
    if k is not None:
        require_int("k", k, 1)
    ids = documents.ids
    position_of = {name: i for i, name in enumerate(ids.tolist())} if documents.has_ids else None
    rankings = []
    for i, values in enumerate(candidates):
        positions = _positions(values, f"candidates[{i}]", len(documents), position_of)
        positions = positions[
            np.sort(np.unique(positions, return_index=True)[1])
        ]  # without repeats, in order
        if len(queries[i]) == 0:
            rankings.append(Ranking(ids[:0], np.empty(0, np.float32)))
            continue
        best, scores = rank_candidates(
            queries[i],
            positions,
            [(documents, positions)],
            RerankOptions(len(positions) if k is None else k),
            threads,
        )
        rankings.append(Ranking(ids[best], scores))
    return rankings


def explain(query: Any, document: Any) -> Explanation:
    """Find the best document token of each query token.

    Parameters
    ----------
    query : array_like (n_query_tokens, dim)
    document : array_like (n_document_tokens, dim)
        Both with at least one token.

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
    query, document = _checked(checked_text(query, "query"), checked_text(document, "document"))
    # Each token is a text of its own.
    each, every = (np.arange(texts.num_tokens + 1) for texts in (query, document))
    singles = MultiVectors(query.tokens, each)
    products = score_texts(singles, document, every, every[:-1], 1)
    tokens = products.argmax(axis=0)
    return Explanation(tokens, products[tokens, each[:-1]])


def score_texts(
    queries: MultiVectors,
    documents: MultiVectors,
    offsets: NDArray[np.int64],
    texts: NDArray[np.int64],
    threads: int | None,
) -> NDArray[np.float32]:
    """Return the scores of `texts` (n,) with m queries, float32 (n, m), without checks.

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
    return score_texts(queries, documents, documents.offsets, positions, threads)


def _positions(
    values: ArrayLike, name: str, count: int, position_of: dict[int | str, int] | None
) -> NDArray[np.int64]:
    """Return the positions of the documents with these ids; without `position_of`, ids are positions."""
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
    if len(positions) and (positions.min() < 0 or positions.max() >= count):
        wrong = positions.min() if positions.min() < 0 else positions.max()
        raise ValueError(f"{name} has position {wrong}, but there are {count} documents.")
    return positions


def _checked(queries: Any, documents: Any) -> tuple[MultiVectors, MultiVectors]:
    if isinstance(documents, (list, tuple)) and not documents:  # an empty list of documents has no dimension
        queries = checked_texts(queries, "queries", empty_dimension=1)
        return queries, checked_texts(documents, "documents", queries.dimension)
    documents = checked_texts(documents, "documents")
    return checked_texts(queries, "queries", documents.dimension, "documents"), documents
