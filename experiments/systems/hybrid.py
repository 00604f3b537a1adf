"""Several first stages together: vectors, words and single vectors, ranked exactly or by fused scores."""

from __future__ import annotations

from typing import Any, ClassVar

import bm25s
import numpy as np
from numpy.typing import NDArray

from muvera import (
    DenseVectors,
    MultiVectors,
    MuveraIndex,
    Ranking,
    hybrid_search,
    inverse_document_frequency,
    weight_queries,
)
from muvera.data.ranking import best_first

from .base import Answers, Family, Material, NotApplicableError, Ranked, System
from .timed_search import timed_search

__all__ = ["Hybrid"]

#: First stages: the index's vectors, BM25, and the model's own single vectors.
SOURCES = ("vectors", "words", "single")

# What feedback takes: the best documents' rarest tokens.
_FEEDBACK_DOCUMENTS, _FEEDBACK_TOKENS = 3, 10


class Hybrid(System):
    """What :func:`muvera.hybrid_search` finds.

    Parameters
    ----------
    sources : list of str
        First stages, of :data:`SOURCES`.
    idf : bool
        Multiply every query token by its inverse document frequency, scaled to a mean of 1.
    feedback : float
        Weight of the best documents' rarest tokens, which are added to the query for a second search
        (ColBERT-PRF); 0: none.
    """

    name: ClassVar[str] = "hybrid"
    family: ClassVar[Family] = "muvera"

    def __init__(self, *, sources: list[str] | None = None, idf: bool = False, feedback: float = 0.0) -> None:
        self._sources = ["vectors"] if sources is None else sources
        unknown = [name for name in self._sources if name not in SOURCES]
        if unknown or not self._sources:
            raise ValueError(f"sources must be some of {', '.join(SOURCES)}, got {self._sources}.")
        self._idf, self._feedback = idf, feedback

    def build(self, material: Material) -> None:
        """Index token vectors, words and single vectors.

        Raises
        ------
        NotApplicableError
            Where the collection lacks what a source reads.
        """
        super().build(material)
        texts, pooled = material.document_texts, material.document_pooled
        self._query_texts, self._query_vectors = material.query_texts, material.query_pooled
        if texts is None or self._query_texts is None:
            raise NotApplicableError("hybrid needs texts, and the collection has token vectors alone.")
        if "single" in self._sources and (pooled is None or self._query_vectors is None):
            raise NotApplicableError("The collection has no stored single vectors.")
        if self._idf or self._feedback:
            if material.document_token_ids is None or material.query_token_ids is None:
                raise NotApplicableError("The collection has no vocabulary ids of its tokens.")
            self._token_ids = material.document_token_ids
            self._query_token_ids = material.query_token_ids
        self._index = MuveraIndex.build(
            material.documents, exact_tokens=0, threads=material.threads, backend="exact"
        )
        if "words" in self._sources:
            self._words: Any = bm25s.BM25()
            self._words.index(bm25s.tokenize(texts, stopwords="en", show_progress=False), show_progress=False)
        if "single" in self._sources:
            self._single = DenseVectors(pooled)

    def search(
        self,
        queries: MultiVectors,
        k: int,
        *,
        candidates: int = 100,
        weights: dict[str, float] | None = None,
        method: Any = "minmax",
    ) -> Answers:
        """Search all sources.

        Parameters
        ----------
        candidates : int
            Documents that each source finds.
        weights, method : optional
            Of :func:`muvera.hybrid_search`.
        """

        def answer(_: int, query: MultiVectors) -> Ranked:
            position = int(query.ids[0])
            asked = self._weighted(query, position) if self._idf else query
            rankings = self._rankings(position, candidates)
            count = candidates if "vectors" in self._sources else 0

            def ranked(one: MultiVectors) -> Ranking:
                return hybrid_search(
                    self._index, one, rankings, k,
                    candidates=count, weights=weights, method=method, threads=self.threads,
                )[0]  # fmt: skip

            found = ranked(asked)
            if self._feedback:
                found = ranked(self._expanded(asked, found.ids[:_FEEDBACK_DOCUMENTS].tolist()))
            return np.asarray(found.ids, np.int64), found.scores

        return timed_search(queries, k, answer)

    def _rankings(self, position: int, count: int) -> dict[str, list[Ranking]]:
        found = {}
        if "words" in self._sources:
            assert self._query_texts is not None
            words = bm25s.tokenize(
                self._query_texts[position], stopwords="en", return_ids=False, show_progress=False
            )[0]
            # bm25s refuses a query without words, as one of stop words alone.
            scores = np.asarray(
                self._words.get_scores(words) if words else np.zeros(len(self.documents)), np.float32
            )
            best = best_first(scores, count)
            best = best[scores[best] > 0]
            found["words"] = [Ranking(best, scores[best])]
        if "single" in self._sources:
            assert self._query_vectors is not None
            found["single"] = self._single.search(
                self._query_vectors[position : position + 1], count, threads=self.threads
            )
        return found

    def _weighted(self, query: MultiVectors, position: int) -> MultiVectors:
        weights = self._rarity(self._query_token_ids[position])
        return weight_queries(query, weights / weights.mean())

    def _rarity(self, token_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        if not hasattr(self, "_idf_of"):
            kinds = np.unique(np.concatenate(self._token_ids))
            values = inverse_document_frequency(self._token_ids, [kinds])[0]
            self._idf_of = dict(zip(kinds.tolist(), values.tolist(), strict=True))
            self._most = float(values.max())
        return np.array([self._idf_of.get(token, self._most) for token in token_ids.tolist()], np.float32)

    def _expanded(self, query: MultiVectors, best: list[int]) -> MultiVectors:
        """Return the query with the mean vectors of its best documents' rarest tokens."""
        ids = np.concatenate([self._token_ids[i] for i in best])
        vectors = np.concatenate([np.asarray(self.documents[i], np.float32) for i in best])
        kinds, inverse, counts = np.unique(ids, return_inverse=True, return_counts=True)
        sums = np.zeros((len(kinds), vectors.shape[1]), np.float32)
        np.add.at(sums, inverse, vectors)
        rarity = self._rarity(kinds)
        chosen = np.argsort(-rarity * np.minimum(counts, len(best)), kind="stable")[:_FEEDBACK_TOKENS]
        means = sums[chosen] / np.linalg.norm(sums[chosen], axis=1, keepdims=True)
        added = means * (self._feedback * rarity[chosen] / self._most)[:, np.newaxis]
        return MultiVectors.from_arrays([np.concatenate([np.asarray(query.tokens, np.float32), added])])

    def bytes_per_document(self) -> float:
        """Return the bytes of a document's vector; words and single vectors come on top."""
        return float(self._index.config.vector_dimension * 4)
