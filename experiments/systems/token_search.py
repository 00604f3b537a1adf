"""Baselines that retrieve single tokens: the single-vector heuristic, and XTR."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from muvera import MultiVectors
from muvera.data.ranking import best_first
from muvera.mips import make_search
from muvera.mips.settings import HNSWSettings

from .base import Answers, Material, Ranked, System, timed_search

# How many times as many tokens are retrieved at first as there must be documents, since
# several tokens lead to one document.  Another search would take longer.
_DEEPER = 4


class TokenSystem(System):
    """Base class of systems that search among all document tokens.

    `backend` "exact" compares a query token with every document token, which takes
    about as long as exact Chamfer over all documents but has no error of a graph.
    "hnsw" builds a graph of all tokens.
    """

    def __init__(self, *, backend: Literal["exact", "hnsw"] = "exact") -> None:
        self._backend = backend

    def build(self, material: Material) -> None:
        """Add every document token to the search."""
        super().build(material)
        documents = material.documents
        self._document_of = np.repeat(np.arange(len(documents)), documents.lengths)
        settings = HNSWSettings(seed=material.seed)
        self._search = make_search(self._backend, documents.dimension, settings)
        tokens = np.asarray(documents.tokens, np.float32)
        self._search.add(np.arange(len(tokens)), tokens, material.threads)

    def nearest(
        self, query: MultiVectors, count: int, ef: int | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the documents of each query token's nearest tokens, and similarities.

        Both have a row per query token, best first, with at most `count` columns.
        """
        count = min(count, len(self._document_of))
        breadth = None if ef is None else max(ef, count)
        tokens = np.asarray(query.tokens, np.float32)
        found, scores = self._search.search(tokens, count, threads=self.threads, ef=breadth)
        return self._document_of[found], scores

    def bytes_per_document(self) -> float:
        """Return the bytes of the search, and of each token's document number."""
        per_token = float(self._search.info()["bytes_per_vector"]) + self._document_of.itemsize
        return per_token * len(self._document_of) / len(self.documents)


class SingleVector(TokenSystem):
    """The single-vector heuristic (MUVERA, section 3.1), then exact Chamfer.

    The nearest document tokens of all query tokens come first, then all second nearest
    ones, and so on.  The documents behind the first `candidates` entries of this list
    are ranked.
    """

    name: ClassVar[str] = "single_vector"
    chamfer: bool = True

    def search(
        self,
        queries: MultiVectors,
        k: int,
        *,
        candidates: int = 100,
        deduplicate: bool = True,
        ef: int | None = None,
    ) -> Answers:
        """Rank the documents behind the nearest tokens.

        With `deduplicate`, a document counts once among the candidates.  Without it,
        every token counts, and fewer documents are ranked.
        """

        def answer(_: int, query: MultiVectors) -> Ranked:
            return self.ranked_exactly(query, self._candidates(query, candidates, deduplicate, ef), k)

        return timed_search(queries, k, answer)

    def _candidates(
        self, query: MultiVectors, count: int, deduplicate: bool, ef: int | None
    ) -> NDArray[np.int64]:
        depth = -(-count // len(query.tokens))
        if deduplicate:
            depth *= _DEEPER
        while True:
            documents, scores = self.nearest(query, depth, ef)
            # Rank after rank; within a rank, the most similar token first.
            order = np.argsort(-scores.T, axis=1, kind="stable")
            entries = np.take_along_axis(documents.T, order, axis=1).reshape(-1)
            first = np.sort(np.unique(entries, return_index=True)[1])
            if not deduplicate:
                return entries[first[first < count]]
            if len(first) >= min(count, len(self.documents)) or depth >= len(self._document_of):
                return entries[first[:count]]
            depth *= 2


class XTR(TokenSystem):
    """XTR's scoring (arXiv 2304.01982, section 3.2).

    Each query token retrieves `tokens` document tokens.  A document's score is the sum
    over query tokens of its best retrieved similarity.  If none of its tokens was
    retrieved, the lowest retrieved similarity is imputed.  The paper trains a model for
    this score; the embeddings here are not trained for it.
    """

    name: ClassVar[str] = "xtr"

    def search(
        self,
        queries: MultiVectors,
        k: int,
        *,
        tokens: int = 1000,
        candidates: int = 0,
        ef: int | None = None,
    ) -> Answers:
        """Rank by imputed scores.

        With `candidates`, order this many of the best by exact Chamfer.
        """

        def answer(_: int, query: MultiVectors) -> Ranked:
            scores = self.scores(query, tokens, ef)
            best = best_first(scores, max(k, candidates))
            best = best[scores[best] > -np.inf]
            return self.ranked_exactly(query, best, k) if candidates else (best, scores[best])

        return timed_search(queries, k, answer)

    def scores(self, query: MultiVectors, tokens: int, ef: int | None = None) -> NDArray[np.float32]:
        """Return every document's score, -inf without a retrieved token."""
        documents, similarities = self.nearest(query, tokens, ef)
        imputed = similarities[:, -1].astype(np.float64)
        gains = np.zeros(len(self.documents))
        for row, values, least in zip(documents, similarities, imputed, strict=True):
            found, first = np.unique(row, return_index=True)  # the first is the most similar
            gains[found] += values[first] - least
        scores = np.full(len(gains), -np.inf, np.float32)
        reached = np.unique(documents)
        scores[reached] = gains[reached] + imputed.sum()
        return scores

    def reads_tokens(self, **query: object) -> bool:
        """Return True if candidates are ranked exactly."""
        return bool(query.get("candidates", 0))
