"""Learned sparse vectors as a first stage."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from muvera import MultiVectors, SparseVectors

from ..datasets.splade import SpladeTiny
from .base import Answers, Material, NotApplicableError, Ranked, System, timed_search


class Splade(System):
    """SPLADE-tiny in :class:`muvera.SparseVectors`, then exact Chamfer.

    Queries are encoded before timing, as the token vectors are.
    """

    name: ClassVar[str] = "splade"
    chamfer: bool = True

    def build(self, material: Material) -> None:
        """Encode documents and queries, and build inverted lists."""
        reason = "splade needs texts, and the collection has only token vectors."
        material.needs("document_texts", "query_texts", reason=reason)
        super().build(material)
        data: Any = material.collection
        if "splade" not in material.shared:
            try:
                model = SpladeTiny(material.cache)
            except RuntimeError as error:  # without a network
                raise NotApplicableError(str(error)) from error
            documents = list(model.encode(data.document_texts))
            queries = dict(zip(data.query_texts, model.encode(data.query_texts), strict=True))
            material.shared["splade"] = documents, queries
        documents, self._queries = material.shared["splade"]
        self._texts = data.query_texts
        self._vectors = SparseVectors(documents)
        self._weights = sum(map(len, documents))

    def search(self, queries: MultiVectors, k: int, *, candidates: int = 100, rerank: bool = True) -> Answers:
        """Search by sparse vectors.

        With `rerank`, order the first `candidates` by exact Chamfer.
        """

        def answer(_: int, query: MultiVectors) -> Ranked:
            words = self._queries[self._texts[int(query.ids[0])]]
            found = self._vectors.search([words], max(k, candidates) if rerank else k)[0]
            ids = np.asarray(found.ids, np.int64)
            return self.ranked_exactly(query, ids, k) if rerank else (ids, found.scores)

        return timed_search(queries, k, answer)

    def bytes_per_document(self) -> float:
        """Return the bytes of the inverted lists: 12 per weight."""
        return 12 * self._weights / len(self.documents)
