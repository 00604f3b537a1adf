"""Recall of encoders on a sample: the share of the exact Chamfer best among the first candidates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors
from ..data.ranking import best_first
from ..encoders.base import Encoder
from ..reranking.chamfer import chamfer_matrix

__all__ = ["RecallEvaluator"]

# Document vectors in memory at a time.
_BLOCK_BYTES = 256 << 20


class RecallEvaluator:
    """Documents and queries with their exact scores, against which encoders are measured.

    Parameters
    ----------
    documents : MultiVectors
        Each with at least one token.
    queries : MultiVectors
        Each with at least one token.
    source_documents : int64 (n_queries,), optional
        Position of the document that each query was cut out of; it is left out of the query's
        ranking.  Default: the queries were cut out of none.
    k : int
        Number of exact best documents to find.
    threads : int, optional
        Default: all usable cores.

    Attributes
    ----------
    scores : float32 (n_queries, n_documents)
        Exact Chamfer similarities; -inf for a query's source document.

    Raises
    ------
    ValueError
        Where `k` exceeds the number of documents that can be found.
    """

    def __init__(
        self,
        documents: MultiVectors,
        queries: MultiVectors,
        source_documents: NDArray[np.int64] | None = None,
        *,
        k: int = 10,
        threads: int | None = None,
    ) -> None:
        available = len(documents) - (source_documents is not None)
        if k > available:
            raise ValueError(f"k={k} exceeds the {available} documents to be found. Use more documents.")
        self.documents, self.queries, self.k = documents, queries, k
        self.source_documents, self._threads = source_documents, threads
        self.scores = chamfer_matrix(queries, documents, threads=threads)
        self._exclude_sources(self.scores)
        self._best = np.stack([best_first(row, k) for row in self.scores])

    def _exclude_sources(self, scores: NDArray[np.float32]) -> None:
        if self.source_documents is not None:
            scores[np.arange(len(scores)), self.source_documents] = -np.inf

    def recall(self, encoder: Encoder, cutoffs: Sequence[int]) -> list[float]:
        """Return k-recall at each of `cutoffs`: the share of the exact best k among the first so many.

        Parameters
        ----------
        encoder : Encoder
            Fitted.
        cutoffs : sequence of int
            Numbers of candidates, each at least 1; with fewer than k recall cannot reach 1.
        """
        queries = encoder.encode_queries(self.queries, threads=self._threads)
        scores = np.empty_like(self.scores)
        block = max(1, _BLOCK_BYTES // (4 * queries.shape[1]))
        for start in range(0, len(self.documents), block):
            part = encoder.encode_documents(self.documents[start : start + block], threads=self._threads)
            scores[:, start : start + block] = queries @ part.T
        self._exclude_sources(scores)
        order = np.argsort(-scores, axis=1, kind="stable")
        ranks = np.empty_like(order)
        np.put_along_axis(ranks, order, np.broadcast_to(np.arange(order.shape[1]), order.shape), axis=1)
        ranks_of_best = np.take_along_axis(ranks, self._best, axis=1)
        return [float((ranks_of_best < cutoff).mean()) for cutoff in cutoffs]
