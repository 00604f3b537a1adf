"""Learned sparse vectors, and token vectors by exact words, as a first stage."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from muvera import MultiVectors, SparseVectors
from muvera.reranking.sparse import COILVectors

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


class Coil(System):
    """:class:`muvera.reranking.sparse.COILVectors`, then exact Chamfer.

    Terms are the model's vocabulary ids.  The first and the last token of a text, which
    are special, are left out.
    """

    name: ClassVar[str] = "coil"
    chamfer: bool = True

    def build(self, material: Material) -> None:
        """Make the inverted lists."""
        reason = "coil needs vocabulary ids of the tokens."
        material.needs("document_token_ids", "query_token_ids", reason=reason)
        super().build(material)
        data: Any = material.collection
        self._query_terms = data.query_token_ids
        self._vectors = COILVectors(*_inner(self.documents, data.document_token_ids))
        self._tokens = self.documents.num_tokens - 2 * len(self.documents)

    def search(self, queries: MultiVectors, k: int, *, candidates: int = 100, rerank: bool = True) -> Answers:
        """Search by tokens of the same terms.

        With `rerank`, order the first `candidates` by exact Chamfer.
        """

        def answer(_: int, query: MultiVectors) -> Ranked:
            asked = _inner(query, [self._query_terms[int(query.ids[0])]])
            found = self._vectors.search(*asked, max(k, candidates) if rerank else k)[0]
            ids = np.asarray(found.ids, np.int64)
            return self.ranked_exactly(query, ids, k) if rerank else (ids, found.scores)

        return timed_search(queries, k, answer)

    def bytes_per_document(self) -> float:
        """Return the bytes of the token vectors and of their documents' numbers."""
        return (4 * self.documents.dimension + 8) * self._tokens / len(self.documents)


def _inner(
    texts: MultiVectors, terms: list[NDArray[np.int64]]
) -> tuple[MultiVectors, list[NDArray[np.int64]]]:
    """Return token vectors and terms without the first and the last token of a text."""
    arrays = [tokens[1:-1] for tokens in texts]
    return MultiVectors.from_arrays(arrays, dimension=texts.dimension), [own[1:-1] for own in terms]
