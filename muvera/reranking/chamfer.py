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

from ..data.multivectors import MultiVectors, as_kernel_arrays, as_multivectors
from ..data.ranking import Ranking, best_first
from ..data.validation import as_array, read_only_view
from ..kernels.chamfer import match_tokens, score_documents
from ..kernels.tile import pack_columns
from ..utils.parallel import run_in_ranges, split_by_weight, thread_count
from .ball_carving import require_tau
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


def chamfer(query: Any, document: Any, *, mean: bool = False) -> float:
    """Return the Chamfer similarity of one query and one document.

    Parameters
    ----------
    query : array_like (n_query_tokens, dim)
    document : array_like (n_document_tokens, dim)
        Both with at least one token.
    mean : bool
        Divide by the number of query tokens (BGE-M3's convention; ColBERT sums).

    Returns
    -------
    float
        Higher is better.

    Examples
    --------
    >>> chamfer([[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.0], [0.25, 0.125]])
    0.625
    """
    pair = (_one_text(query, "query"), _one_text(document, "document"))
    return float(chamfer_matrix(*pair, mean=mean, threads=1)[0, 0])


def chamfer_matrix(
    queries: Any, documents: Any, *, mean: bool = False, threads: int | None = None
) -> NDArray[np.float32]:
    """Return the Chamfer similarities of all queries with all documents.

    Parameters
    ----------
    queries, documents : MultiVectors, one array (tokens, dim) or a list of such arrays
        Every query must have a token.
    mean : bool
        Divide by the number of query tokens.
    threads : int, optional
        Default: all usable cores.

    Returns
    -------
    float32 (n_queries, n_documents)
        Documents without tokens score -inf.
    """
    queries, documents = _checked(queries, documents)
    out = np.empty((len(queries), len(documents)), np.float32)
    for start, stop in split_by_weight(queries.offsets, _QUERY_TOKENS, len(queries)):
        out[start:stop] = scores_at(queries[start:stop], documents, None, mean, threads).T
    return out


def top_k(
    queries: Any, documents: Any, k: int, *, mean: bool = False, threads: int | None = None
) -> list[Ranking]:
    """Return the `k` documents with the largest Chamfer similarity for each query.

    Parameters
    ----------
    queries, documents : MultiVectors, one array (tokens, dim) or a list of such arrays
    k : int
        At most the number of documents that have tokens.
    mean, threads
        As for :func:`chamfer_matrix`.

    Returns
    -------
    list of Ranking
        One a query; ties go to the earlier document.
    """
    queries, documents = _checked(queries, documents)
    require_k(k, int((documents.lengths > 0).sum()), "documents with tokens")
    ids = documents.ids
    rankings = []
    most = max(1, _HELD_SCORES // max(1, len(documents)))
    for start, stop in split_by_weight(queries.offsets, _QUERY_TOKENS, most):
        scores = scores_at(queries[start:stop], documents, None, mean, threads)
        for row in np.ascontiguousarray(scores.T):
            best = best_first(row, k)
            rankings.append(Ranking(ids[best], row[best]))
    return rankings


def rerank(
    queries: Any,
    documents: MultiVectors,
    candidates: Sequence[ArrayLike],
    k: int | None = None,
    *,
    mean: bool = False,
    ball_carving_tau: float | None = None,
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
    candidates : sequence of integer arrays
        For each query, positions in `documents`, the likely best first; documents without tokens
        are left out.
    k : int, optional
        How many to return at most.  Default: all.
    ball_carving_tau : float, optional
        Choose the k best by the query as :func:`muvera.carve_queries` makes it with this tau:
        fewer products, fewer of the best.  Scores stay those of the whole query.
    patience : int, optional
        End once so many candidates in a row brought nothing new into the k best: fewer products,
        fewer of the best, and one thread.
    mean, threads
        As for :func:`chamfer_matrix`.

    Returns
    -------
    list of Ranking
        Ties go to the earlier document.
    """
    queries, documents = _checked(queries, documents)
    if len(candidates) != len(queries):
        raise ValueError(f"There are {len(candidates)} candidate lists for {len(queries)} queries.")
    if k is not None:
        require_k(k, None, "")
    elif ball_carving_tau is not None or patience is not None:
        raise ValueError("ball_carving_tau and patience leave out what is not among the k best. Give k.")
    if ball_carving_tau is not None:
        require_tau(ball_carving_tau, "ball_carving_tau")
    require_patience(patience)
    ids = documents.ids
    rankings = []
    for i, values in enumerate(candidates):
        positions = _as_positions(values, f"candidates[{i}]")
        positions = positions[np.sort(np.unique(positions, return_index=True)[1])]  # each once, in order
        if len(positions) and (positions.min() < 0 or positions.max() >= len(documents)):
            wrong = positions.min() if positions.min() < 0 else positions.max()
            raise ValueError(
                f"candidates[{i}] has position {wrong}, but there are {len(documents)} documents."
            )
        found, scores = rank_candidates(
            queries[i],
            ball_carving_tau,
            positions,
            lambda at: [(documents, at, np.arange(len(at)))],
            RerankOptions(len(positions) if k is None else k, patience=patience, mean=mean),
            threads,
        )
        rankings.append(Ranking(ids[found], scores))
    return rankings


def explain(query: Any, document: Any) -> Explanation:
    """Tell which document token answers each query token.

    Parameters
    ----------
    query : array_like (n_query_tokens, dim)
    document : array_like (n_document_tokens, dim)
        Both with at least one token.

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
    mean: bool = False,
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
            floats, halves, documents.offsets, positions[start:stop], packed, queries.offsets, mean,
            out[start:stop],
        )  # fmt: skip

    # A small candidate list is shared out evenly too.
    weight = min(_TASK_TOKENS, int(offsets[-1]) // thread_count(threads) + 1)
    run_in_ranges(work, split_by_weight(offsets, weight, len(positions)), threads)
    return out


def _as_positions(values: ArrayLike, name: str) -> NDArray[np.int64]:
    array = as_array(values)
    if array.ndim != 1 or (array.dtype.kind not in "iu" and array.size):
        raise TypeError(f"{name} must be integer positions (n,), got {array.dtype} {array.shape}.")
    return array.astype(np.int64)


def _one_text(value: Any, name: str) -> MultiVectors:
    array = as_array(value)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"{name} must have shape (tokens, dim) with at least one token, got {array.shape}.")
    return as_multivectors(array, name)


def _checked(queries: Any, documents: Any) -> tuple[MultiVectors, MultiVectors]:
    queries, documents = as_multivectors(queries, "queries"), as_multivectors(documents, "documents")
    if queries.dimension != documents.dimension:
        raise ValueError(
            f"queries have {queries.dimension} columns, but documents have {documents.dimension}."
        )
    require_query_tokens(queries)
    queries.require_finite("queries")
    documents.require_finite("documents")
    return queries, documents


def require_query_tokens(queries: MultiVectors) -> None:
    """Raise ValueError for a query without tokens: every document would score 0."""
    empty = np.flatnonzero(queries.lengths == 0)
    if len(empty):
        raise ValueError(f"queries[{empty[0]}] has no tokens: a query needs at least one. Leave it out.")


def require_k(k: Any, most: int | None, what: str, name: str = "k") -> None:
    """Raise unless `k` is an int from 1 to `most`, the number of `what`."""
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)):
        raise TypeError(f"{name} must be an int, got {type(k).__name__}.")
    if k < 1:
        raise ValueError(f"{name} must be at least 1, got {k}.")
    if most == 0:
        raise ValueError(f"k={k}, but there are no {what}. Add some first.")
    if most is not None and k > most:
        raise ValueError(f"k={k} exceeds the {most} {what}. Use k <= {most}.")
