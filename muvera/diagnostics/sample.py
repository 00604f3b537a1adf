"""Queries with exact answers on a sample of documents, against which encoders are measured."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors
from ..data.ranking import best_first
from ..data.sampling import pseudo_queries
from ..encoders.base import Encoder
from ..mips import ExactSearch, VectorSearch
from ..reranking.chamfer import chamfer_matrix

__all__ = [
    "WINDOW",
    "AnsweredQueries",
    "K",
    "encoder_ranks",
    "exact_search",
    "query_count",
    "ranks_of_best",
    "windows_of",
]

#: Number of exact best documents to find for each query.
K = 10

#: Tokens of a pseudo-query, as many as ColBERT's queries have.
WINDOW = 32

# Multiplications of exact Chamfer per query: a few seconds for all queries.
_PRODUCTS = 10**9


@dataclass(frozen=True, eq=False)
class AnsweredQueries:
    """Queries and their exact scores on a sample of documents, float32 (n_queries, n_documents).

    `sources` are the positions of the documents that the queries were cut out of, -1 for none.  They score -inf.
    """

    queries: MultiVectors
    sources: NDArray[np.int64]
    scores: NDArray[np.float32]

    @classmethod
    def of(
        cls,
        queries: MultiVectors,
        documents: MultiVectors,
        sources: NDArray[np.int64] | None = None,
        threads: int | None = None,
    ) -> AnsweredQueries:
        """Score all documents with all queries."""
        sources = np.full(len(queries), -1) if sources is None else sources
        scores = chamfer_matrix(queries, documents, threads=threads)
        cut = np.flatnonzero(sources >= 0)
        scores[cut, sources[cut]] = -np.inf
        return cls(queries, sources, scores)

    def best(self, count: int, k: int = K) -> NDArray[np.int64]:
        """Return the exact best among the first `count` documents, int64 (n_queries, k)."""
        return np.stack([best_first(row[:count], k) for row in self.scores])


def query_count(documents: MultiVectors, length: int, most: int) -> int:
    """Return how many queries of `length` tokens to measure: at most `most`, at least a tenth of it."""
    products = documents.num_tokens * documents.dimension * length
    return min(most, max(most // 10, _PRODUCTS * most // products))


def windows_of(
    documents: MultiVectors, positions: NDArray[np.int64], count: int, stream: np.random.Generator
) -> tuple[MultiVectors, NDArray[np.int64]]:
    """Cut at most `count` windows out of the documents at `positions`; return them and their sources."""
    queries, sources = pseudo_queries(documents[positions], min(count, len(positions)), WINDOW, stream)
    return queries, positions[sources]


def exact_search(vectors: NDArray[np.float32], threads: int | None = None) -> VectorSearch:
    """Return an exact search over vectors, labeled by their positions."""
    search = ExactSearch(vectors.shape[1])
    search.add(np.arange(len(vectors)), np.ascontiguousarray(vectors), threads)
    return search


def ranks_of_best(
    search: VectorSearch,
    vectors: NDArray[np.float32],
    queries: AnsweredQueries,
    best: NDArray[np.int64],
    max_rank: int,
    threads: int | None = None,
) -> NDArray[np.int64]:
    """Return the rank of each of the `best` documents, int64 (n_queries, k), in a search with the queries' vectors.

    The labels of the search are positions of documents; source documents are skipped.  Ranks start at 0; a document
    that is not among the first `max_rank` has at least that rank.
    """
    count = len(search)
    missing = max_rank + 1
    labels, _ = search.search(np.ascontiguousarray(vectors), min(missing, count), threads=threads)
    # The last column stands for sources that are not among the searched documents.
    rank_of = np.full((len(labels), count + 1), missing)
    np.put_along_axis(rank_of, labels, np.broadcast_to(np.arange(labels.shape[1]), labels.shape), axis=1)
    ranks = np.take_along_axis(rank_of, best, axis=1)
    searched = (queries.sources >= 0) & (queries.sources < count)
    sources = np.where(searched, queries.sources, count)[:, np.newaxis]
    return ranks - (np.take_along_axis(rank_of, sources, axis=1) < ranks)


def encoder_ranks(
    encoder: Encoder,
    documents: MultiVectors,
    queries: AnsweredQueries,
    k: int,
    max_rank: int,
    threads: int | None = None,
) -> NDArray[np.int64]:
    """Return the ranks of the exact `k` best documents by a fitted encoder's vectors."""
    search = exact_search(encoder.encode_documents(documents, threads=threads), threads)
    vectors = encoder.encode_queries(queries.queries, threads=threads)
    return ranks_of_best(search, vectors, queries, queries.best(len(documents), k), max_rank, threads)
