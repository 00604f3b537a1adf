"""One vector a text: pooled token vectors, searched as ordinary vectors, then reranked exactly."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from muvera import MultiVectors

from .base import Answers, Material, NotApplicableError, Ranked, System
from .timed_search import timed_search
from .vector_search import VectorBackend, VectorSearchSettings

__all__ = ["Pooled", "mean_vectors"]


class Pooled(System):
    """What an ordinary vector database does, with exact Chamfer reranking behind it.

    Parameters
    ----------
    vectors : {"mean", "stored"}
        "mean": the mean of a text's token vectors, scaled to length 1.  "stored": the model's own
        single vectors, where the collection has them.
    backend : {"exact", "hnsw"}
    hnsw : dict, optional
        Settings of :class:`muvera.mips.HNSWSettings`.
    """

    name: ClassVar[str] = "pooled"
    chamfer: bool = True

    def __init__(
        self,
        *,
        vectors: Literal["mean", "stored"] = "mean",
        backend: VectorBackend = "exact",
        hnsw: dict[str, Any] | None = None,
    ) -> None:
        if vectors not in ("mean", "stored"):
            raise ValueError(f"vectors must be 'mean' or 'stored', got {vectors!r}.")
        self._stored = vectors == "stored"
        self._settings = VectorSearchSettings(backend, hnsw)

    def build(self, material: Material) -> None:
        """Pool the documents and add them to the search.

        Raises
        ------
        NotApplicableError
            Where single vectors are asked for that the collection does not have.
        """
        super().build(material)
        self._query_vectors = material.query_pooled
        if self._stored:
            if material.document_pooled is None or material.query_pooled is None:
                raise NotApplicableError("The collection has no stored single vectors. Use vectors: mean.")
            vectors = material.document_pooled
        else:
            vectors = mean_vectors(material.documents)
        self._search = self._settings.make(vectors.shape[1], material.seed)
        self._search.add(np.arange(len(vectors)), vectors, material.threads)

    def search(self, queries: MultiVectors, k: int, *, candidates: int = 100, rerank: bool = True) -> Answers:
        """Find by the single vector; with `rerank`, order the first `candidates` by exact Chamfer."""
        count = min(max(k, candidates) if rerank else k, len(self.documents))

        def answer(_: int, query: MultiVectors) -> Ranked:
            if self._stored:
                assert self._query_vectors is not None  # checked when it was built
                vector = self._query_vectors[query.ids]
            else:
                vector = mean_vectors(query)
            ids, scores = self._search.search(vector, count, threads=self.threads)
            found = ids[0] >= 0
            if rerank:
                return self.ranked_exactly(query, ids[0][found], k)
            return ids[0][found], scores[0][found]

        return timed_search(queries, k, answer)

    def reads_tokens(self, **query: Any) -> bool:
        """Return whether candidates are ranked exactly."""
        return bool(query.get("rerank", True))

    def bytes_per_document(self) -> float:
        """Return the bytes of a vector and, with a graph, of its links."""
        return float(self._search.info()["bytes_per_vector"])


def mean_vectors(texts: MultiVectors) -> NDArray[np.float32]:
    """Return the mean token vector of each text, scaled to length 1, float32 (n, dimension).

    Parameters
    ----------
    texts : MultiVectors
        Each with a token.
    """
    sums = np.add.reduceat(np.asarray(texts.tokens, np.float32), texts.offsets[:-1], axis=0)
    norms = np.linalg.norm(sums, axis=1, keepdims=True)
    means: NDArray[np.float32] = sums / np.maximum(norms, np.float32(1e-12))
    return means
