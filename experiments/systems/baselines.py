"""Baselines: exhaustive Chamfer, and one vector per text."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from muvera import MultiVectors, top_k
from muvera.convert import pool_tokens
from muvera.mips import make_search

from .base import Answers, Material, Ranked, System, timed_search


class Exhaustive(System):
    """The exact answer, without an index.

    With `pool` and `factor`, documents are pooled first by
    :func:`muvera.convert.pool_tokens`, and the scores are those of the pooled tokens.
    """

    name: ClassVar[str] = "exhaustive"

    def __init__(self, *, pool: str | None = None, factor: float = 1.0) -> None:
        self._pool, self._factor = pool, factor
        self.chamfer = pool is None

    def build(self, material: Material) -> None:
        """Keep the token vectors, pooled if `pool` is given."""
        super().build(material)
        self._kept = self.documents
        if self._pool is not None:
            self._kept = pool_tokens(self.documents, self._factor, self._pool)

    def search(self, queries: MultiVectors, k: int) -> Answers:
        """Score all documents."""

        def answer(_: int, query: MultiVectors) -> Ranked:
            ranking = top_k(query, self._kept, k, threads=self.threads)[0]
            return np.asarray(ranking.ids, np.int64), ranking.scores

        return timed_search(queries, k, answer)

    def bytes_per_document(self) -> float:
        """Return 0: only the token vectors are stored."""
        return 0.0

    def token_bytes_per_document(self) -> float:
        """Return the bytes of the kept tokens."""
        return self._kept.tokens.nbytes / len(self._kept)


class Pooled(System):
    """Single-vector search, then exact Chamfer reranking.

    Ordinary vector databases search like this.

    `vectors` is "mean" for the mean of a text's token vectors, scaled to length 1, or
    "stored" for the model's own single vectors.
    """

    name: ClassVar[str] = "pooled"
    chamfer: bool = True

    def __init__(self, *, vectors: Literal["mean", "stored"] = "mean") -> None:
        self._stored = vectors == "stored"

    def build(self, material: Material) -> None:
        """Pool the documents and add them to the search."""
        super().build(material)
        if self._stored:
            reason = "The collection has no stored single vectors. Use vectors: mean."
            material.needs("document_pooled", "query_pooled", reason=reason)
        self._query_vectors = material.collection.query_pooled
        vectors: Any = material.collection.document_pooled if self._stored else mean_vectors(self.documents)
        self._search = make_search("exact", vectors.shape[1])
        self._search.add(np.arange(len(vectors)), vectors, material.threads)

    def search(self, queries: MultiVectors, k: int, *, candidates: int = 100, rerank: bool = True) -> Answers:
        """Search by the single vector.

        With `rerank`, order the first `candidates` by exact Chamfer.
        """
        count = min(max(k, candidates) if rerank else k, len(self.documents))

        def answer(_: int, query: MultiVectors) -> Ranked:
            stored: Any = self._query_vectors
            vector = stored[query.ids] if self._stored else mean_vectors(query)
            ids, scores = self._search.search(vector, count, threads=self.threads)
            found = ids[0] >= 0
            if rerank:
                return self.ranked_exactly(query, ids[0][found], k)
            return ids[0][found], scores[0][found]

        return timed_search(queries, k, answer)

    def bytes_per_document(self) -> float:
        """Return the bytes of a stored vector."""
        return float(self._search.info()["bytes_per_vector"])


def mean_vectors(texts: MultiVectors) -> NDArray[np.float32]:
    """Return each text's mean token vector, scaled to length 1.

    The result is float32 (n, dimension).
    """
    sums = np.add.reduceat(np.asarray(texts.tokens, np.float32), texts.offsets[:-1], axis=0)
    norms = np.linalg.norm(sums, axis=1, keepdims=True)
    means: NDArray[np.float32] = sums / np.maximum(norms, np.float32(1e-12))
    return means
