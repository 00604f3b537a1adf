"""Recall of FDEs on a sample: which share of the exact Chamfer best they put first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors
from ..data.ranking import best_first
from ..encoders.base import Encoder
from ..reranking.chamfer import chamfer_matrix

__all__ = ["RecallEvaluator"]

# Document FDEs held at once.
_BLOCK_BYTES = 256 << 20


class RecallEvaluator:
    """Documents, queries and their exact scores, against which encoders are measured.

    Parameters
    ----------
    documents : MultiVectors
        Each with a token.
    queries : MultiVectors
        Each with a token.
    own : int64 (n_queries,), optional
        A document for each query that does not count, because the query was cut out of it.
    k : int
        How many exact best are to be found.
    threads : int, optional
        Default: all usable cores.

    Attributes
    ----------
    scores : float32 (n_queries, n_documents)
        Exact Chamfer similarities; -inf where a document does not count.
    """

    def __init__(
        self,
        documents: MultiVectors,
        queries: MultiVectors,
        own: NDArray[np.int64] | None = None,
        *,
        k: int = 10,
        threads: int | None = None,
    ) -> None:
        counted = len(documents) - (own is not None)
        if k > counted:
            raise ValueError(f"k={k} exceeds the {counted} documents to be found. Use more documents.")
        self.documents, self.queries, self.k = documents, queries, k
        self._own, self._threads = own, threads
        self.scores = chamfer_matrix(queries, documents, threads=threads)
        self._exclude(self.scores)
        self._best = np.stack([best_first(row, k) for row in self.scores])

    def _exclude(self, scores: NDArray[np.float32]) -> None:
        if self._own is not None:
            scores[np.arange(len(scores)), self._own] = -np.inf

    def recall(self, encoder: Encoder, depths: Sequence[int]) -> list[float]:
        """Return k-recall at each of `depths`: the share of the exact best k among the first so many.

        Parameters
        ----------
        encoder : FDEEncoder or LearnedEncoder
            Fitted.
        depths : sequence of int
            Numbers of candidates, each at least 1; one below k cannot reach 1.
        """
        queries = encoder.encode_queries(self.queries, threads=self._threads)
        scores = np.empty_like(self.scores)
        block = max(1, _BLOCK_BYTES // (4 * queries.shape[1]))
        for start in range(0, len(self.documents), block):
            part = encoder.encode_documents(self.documents[start : start + block], threads=self._threads)
            scores[:, start : start + block] = queries @ part.T
        self._exclude(scores)
        order = np.argsort(-scores, axis=1, kind="stable")
        place = np.empty_like(order)
        np.put_along_axis(place, order, np.broadcast_to(np.arange(order.shape[1]), order.shape), axis=1)
        found = np.take_along_axis(place, self._best, axis=1)
        return [float((found < depth).mean()) for depth in depths]
