"""Exact Chamfer similarity (MaxSim): Chamfer(Q, P) = sum over q of max over p of <q, p>.

Every inner product is one fused multiply-add after the other along the dimension, every
sum over query tokens runs in their order: a score has the same bits whatever the batch,
the other documents and the number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..data.multivectors import MultiVectors, as_kernel_arrays
from ..data.ranking import Ranking, best_first
from ..data.token_input import as_multivectors, checked_texts
from ..data.validation import as_array, as_tokens, read_only_view
from ..kernels.chamfer import match_tokens, score_documents
from ..kernels.tile import pack_columns
from ..utils.checks import require_int
from ..utils.parallel import run_in_ranges, split_by_weight, thread_count
from .pruning import RerankOptions, rank_candidates, require_patience

__all__ = ["Explanation", "chamfer", "chamfer_matrix", "explain", "rerank", "top_k"]

# Query tokens packed at once: their panels stay in the second-level cache.
_QUERY_TOKENS = 512

# Document tokens of one task.
_TASK_TOKENS = 16384

# Scores held at once by top_k, of all documents with a block of queries.
_HELD_SCORES = 1 << 24


@dataclass(frozen=True, eq=False)
class Explanation:
    """Which document token answered each query token.

    Parameters
    ----------
    tokens : int64 (n_query_tokens,)
        Position in the document of the most similar token, the first of equals.
    similarities : float32 (n_query_tokens,)
        Its inner product with the query token; their sum is the Chamfer similarity.
    """

    tokens: NDArray[np.int64]
    similarities: NDArray[np.float32]

    @property
    def score(self) -> float:
        """The Chamfer similarity, summed over query tokens."""
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
        Higher is better: a sum over query tokens.  Divide by ``len(query)`` for their mean.

    Examples
    --------
    >>> chamfer([[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.0], [0.25, 0.125]])
    0.625
    """
    pair = (_one_text(query, "query"), _one_text(document, "document"))
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
        Documents without tokens score -inf.
    """
    queries, documents = _checked(queries, documents)
    empty = np.flatnonzero(queries.lengths == 0)
    if len(empty):
        raise ValueError(f"queries[{empty[0]}] has no tokens: a query needs at least one. Leave it out.")
    out = np.empty((len(queries), len(documents)), np.float32)
    for start, stop in split_by_weight(queries.offsets, _QUERY_TOKENS, len(queries)):
        out[start:stop] = scores_at(queries[start:stop], documents, None, threads).T
    return out


def top_k(queries: Any, documents: Any, k: int, *, threads: int | None = None) -> list[Ranking]:
    """Return the `k` documents with the largest Chamfer similarity for each query.

    Parameters
    ----------
    queries, documents : MultiVectors, one array (tokens, dim) or a list of such arrays
    k : int
        How many documents to return; of fewer with tokens, all.
    threads : int, optional
        As for :func:`chamfer_matrix`.

    Returns
    -------
    list of Ranking
        One a query; ties go to the earlier document.  A query without tokens finds nothing.

    Raises
    ------
    TypeError, ValueError
        For anything but token vectors of one dimension and finite numbers, or a wrong `k`.
    """
    queries, documents = _checked(queries, documents)
    require_int("k", k, 1)
    ids = documents.ids
    rankings = []
    most = max(1, _HELD_SCORES // max(1, len(documents)))
    for start, stop in split_by_weight(queries.offsets, _QUERY_TOKENS, most):
        scores = scores_at(queries[start:stop], documents, None, threads)
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
    patience: int | None = None,
    threads: int | None = None,
) -> list[Ranking]:
    """Order each query's candidates by exact Chamfer similarity.

    A candidate is left before all of its products are made where it cannot be among the `k`
    best.  That changes no answer, and saves most where the likely best come first.

    Parameters
    ----------
    queries : MultiVectors, one array (tokens, dim) or a list of such arrays
    documents : MultiVectors
    candidates : sequence of collections of ids
        For each query, the ids of documents, which are their positions where none were given, the
        likely best first; documents without tokens are left out.
    k : int, optional
        How many to return at most.  Default: all.
    patience : int, optional
        End once so many candidates in a row brought nothing new into the k best: fewer products,
        fewer of the best, and one thread.
    threads : int, optional
        As for :func:`chamfer_matrix`.

    Returns
    -------
    list of Ranking
        Ties go to the earlier document.  A query without tokens finds nothing.

    Raises
    ------
    TypeError, ValueError
        For anything but token vectors of one dimension and finite numbers, candidates that are not
        among the documents, or a wrong setting.
    """
    queries, documents = _checked(queries, documents)
    if len(candidates) != len(queries):
        raise ValueError(f"There are {len(candidates)} candidate lists for {len(queries)} queries.")
    if k is not None:
        require_int("k", k, 1)
    elif patience is not None:
        raise ValueError("patience stops once the k best no longer change. Give k.")
    require_patience(patience)
    ids = documents.ids
    position_of = {name: i for i, name in enumerate(ids.tolist())} if documents.has_ids else None
    rankings = []
    for i, values in enumerate(candidates):
        positions = _positions(values, f"candidates[{i}]", len(documents), position_of)
        positions = positions[np.sort(np.unique(positions, return_index=True)[1])]  # each once, in order
        if len(queries[i]) == 0:
            rankings.append(Ranking(ids[:0], np.empty(0, np.float32)))
            continue
        found, scores = rank_candidates(
            queries[i],
            positions,
            lambda at, _: [(documents, at, np.arange(len(at)))],
            RerankOptions(len(positions) if k is None else k, patience=patience),
            threads,
        )
        rankings.append(Ranking(ids[found], scores))
    return rankings


def explain(query: Any, document: Any) -> Explanation:
    """Find which document token answers each query token.

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
        For anything but token vectors of one dimension and finite numbers.

    Examples
    --------
    >>> explain([[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.0], [0.25, 0.125]]).tokens
    array([0, 1])
    """
    query, document = _checked(_one_text(query, "query"), _one_text(document, "document"))
    count = query.num_tokens
    packed = pack_columns(query.tokens.astype(np.float32))
    tokens, similarities = np.zeros(count, np.int64), np.empty(count, np.float32)
    rows = read_only_view(document.tokens.astype(np.float32, copy=False))
    match_tokens(rows, packed.reshape(-1), tokens, similarities)
    return Explanation(tokens, similarities)


def scores_at(
    queries: MultiVectors,
    documents: MultiVectors,
    positions: NDArray[np.int64] | None,
    threads: int | None = None,
) -> NDArray[np.float32]:
    """Return the scores of the documents at `positions` (default all), float32 (c, n_queries).

    The work behind the public functions; it checks nothing.
    """
    floats, halves = as_kernel_arrays(documents)
    packed = pack_columns(np.asarray(queries.tokens, np.float32)).reshape(-1)
    if positions is None:
        positions, offsets = np.arange(len(documents)), documents.offsets
    else:
        # Not by `documents.lengths`, which would read the offsets of all documents.
        lengths = documents.offsets[positions + 1] - documents.offsets[positions]
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    out = np.empty((len(positions), len(queries)), np.float32)

    def work(start: int, stop: int) -> None:
        score_documents(
            floats, halves, documents.offsets, positions[start:stop], packed, queries.offsets, False,
            out[start:stop],
        )  # fmt: skip

    # A small candidate list is shared out evenly too.
    weight = min(_TASK_TOKENS, int(offsets[-1]) // thread_count(threads) + 1)
    run_in_ranges(work, split_by_weight(offsets, weight, len(positions)), threads)
    return out


def _positions(
    values: ArrayLike, name: str, count: int, position_of: dict[int | str, int] | None
) -> NDArray[np.int64]:
    """Return where the documents of these ids are; without `position_of`, ids are the positions."""
    array = as_array(values, name)
    if array.ndim != 1 or (array.dtype.kind not in ("iu" if position_of is None else "iuUO") and array.size):
        kind = "positions" if position_of is None else "ids"
        raise TypeError(f"{name} must be integer {kind} (n,), got {array.dtype} {array.shape}.")
    if position_of is not None:
        names = array.tolist()
        unknown = [one for one in names if one not in position_of]
        if unknown:
            raise ValueError(f"{name} has id {unknown[0]!r}, which none of the {count} documents has.")
        return np.array([position_of[one] for one in names], np.int64)
    positions = array.astype(np.int64)
    if len(positions) and (positions.min() < 0 or positions.max() >= count):
        wrong = positions.min() if positions.min() < 0 else positions.max()
        raise ValueError(f"{name} has position {wrong}, but there are {count} documents.")
    return positions


def _one_text(value: Any, name: str) -> MultiVectors:
    several = isinstance(value, (list, tuple)) and bool(value) and getattr(value[0], "ndim", 0) == 2
    if several or isinstance(value, MultiVectors):
        raise ValueError(
            f"{name} must be one array (tokens, dimension), got {len(value)} of them in a list. Give one."
        )
    array = as_array(value, name)
    if array.dtype.kind in "US":
        as_tokens(value, name)  # raises
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(
            f"{name} must have shape (tokens, dimension) with at least one token, got {array.shape}."
        )
    return as_multivectors(array, name)


def _checked(queries: Any, documents: Any) -> tuple[MultiVectors, MultiVectors]:
    if isinstance(documents, (list, tuple)) and not documents:  # which have any dimension
        queries = checked_texts(queries, "queries", empty_dimension=1)
        documents = checked_texts(documents, "documents", queries.dimension)
    else:
        documents = checked_texts(documents, "documents")
        queries = checked_texts(queries, "queries", empty_dimension=documents.dimension)
    if queries.dimension != documents.dimension:
        raise ValueError(
            f"queries have {queries.dimension} columns, but documents have {documents.dimension}. "
            "Encode both with the same model."
        )
    return queries, documents
