"""BM25 over the texts through bm25s, with exact Chamfer reranking of what it finds."""

from __future__ import annotations

from typing import Any, ClassVar

import bm25s
import numpy as np

from muvera import MultiVectors
from muvera.data.ranking import best_first

from .base import Answers, Material, NotApplicableError, Ranked, System
from .timed_search import timed_search

__all__ = ["BM25"]


class BM25(System):
    """Words instead of vectors in the first stage.

    Parameters
    ----------
    k1 : float
        How slowly repeated words stop to count.
    b : float
        How much long documents are held back.
    stopwords : str, optional
        Language whose commonest words are left out.
    """

    name: ClassVar[str] = "bm25"
    chamfer: bool = True

    def __init__(self, *, k1: float = 1.5, b: float = 0.75, stopwords: str | None = "en") -> None:
        self._index: Any = bm25s.BM25(k1=k1, b=b)
        self._stopwords = stopwords

    def build(self, material: Material) -> None:
        """Count the documents' words.

        Raises
        ------
        NotApplicableError
            Where the collection has no texts.
        """
        if material.document_texts is None or material.query_texts is None:
            raise NotApplicableError("bm25 needs texts, and the collection has token vectors alone.")
        super().build(material)
        self._queries = material.query_texts
        words = bm25s.tokenize(material.document_texts, stopwords=self._stopwords, show_progress=False)
        self._index.index(words, show_progress=False)

    def search(self, queries: MultiVectors, k: int, *, candidates: int = 100, rerank: bool = True) -> Answers:
        """Find by BM25; with `rerank`, order the first `candidates` by exact Chamfer."""

        def answer(_: int, query: MultiVectors) -> Ranked:
            text = self._queries[int(query.ids[0])]
            words = bm25s.tokenize(text, stopwords=self._stopwords, return_ids=False, show_progress=False)
            # bm25s refuses a query without words, as one of stop words alone.
            found = self._index.get_scores(words[0]) if words[0] else np.zeros(len(self.documents))
            scores = np.asarray(found, np.float32)
            best = best_first(scores, max(k, candidates) if rerank else k)
            return self.ranked_exactly(query, best, k) if rerank else (best, scores[best])

        return timed_search(queries, k, answer)

    def reads_tokens(self, **query: Any) -> bool:
        """Return whether candidates are ranked exactly."""
        return bool(query.get("rerank", True))

    def bytes_per_document(self) -> float:
        """Return the size of the score matrix, without the vocabulary's strings."""
        arrays = [self._index.scores[part] for part in ("data", "indices", "indptr")]
        return float(sum(array.nbytes for array in arrays)) / len(self.documents)
