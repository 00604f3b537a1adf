"""The single-vector heuristic: candidates are the documents behind each query token's nearest tokens."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from muvera import MultiVectors

from .base import Answers, Material, Ranked
from .timed_search import timed_search
from .token_kernels import documents_in_order
from .token_search import TokenSystem

__all__ = ["SingleVector"]


class SingleVector(TokenSystem):
    """The first stage of ColBERT, as the MUVERA paper compares it in section 3.1, and an exact rerank.

    Every query token retrieves its nearest document tokens.  The nearest of all query tokens come first,
    then all second nearest, and so on; within a rank the more similar goes first.  The documents behind
    this list, cut after `candidates`, are ranked by exact Chamfer.  How many tokens a query token must
    retrieve for that is not asked of the user: as few as fill the list.

    Build arguments are those of :class:`experiments.systems.token_search.TokenSystem`.
    """

    name: ClassVar[str] = "single_vector"
    chamfer: bool = True

    def build(self, material: Material) -> None:
        """Build the graph, where there is one."""
        super().build(material)
        self._seen = np.zeros(len(material.documents), np.bool_)

    def search(
        self,
        queries: MultiVectors,
        k: int,
        *,
        candidates: int = 100,
        ef: int | None = None,
        deduplicate: bool = True,
    ) -> Answers:
        """Answer queries one at a time.

        Parameters
        ----------
        candidates : int
            Length of the list; recall and time of reranking rise with it.
        ef : int, optional
            Tokens that a walk through the graph keeps; default and at least what it has to return.
        deduplicate : bool
            Count a document once in the list.  Without it every token counts, and fewer documents are
            reranked: the paper's weaker variant.
        """

        def answer(_: int, query: MultiVectors) -> Ranked:
            return self.ranked_exactly(query, self.candidates(query, candidates, ef, deduplicate), k)

        return timed_search(queries, k, answer)

    def candidates(
        self, query: MultiVectors, count: int, ef: int | None = None, deduplicate: bool = True
    ) -> NDArray[np.int64]:
        """Return the list of one query: `count` documents, or as many as tokens of `count` entries have."""
        tokens = query.tokens.astype(np.float32)
        if not deduplicate:
            ranked = self._by_rank(tokens, -(-count // len(tokens)), ef)[:count]
            return self._distinct(ranked, len(ranked))
        count = min(count, len(self.documents))
        # Many tokens lead to the same document: four times as many are mostly enough, and looking again
        # for more takes longer than some too many.
        depth = -(-4 * count // len(tokens))
        while True:
            found = self._distinct(self._by_rank(tokens, depth, ef), count)
            if len(found) == count or depth >= self.documents.num_tokens:
                return found
            depth *= 2

    def _by_rank(self, query: NDArray[np.float32], depth: int, ef: int | None) -> NDArray[np.int64]:
        """Return the documents of the `depth` nearest tokens of all query tokens, rank after rank."""
        found, scores = self._tokens.nearest(query, depth, ef)
        order = np.argsort(-scores.T, axis=1, kind="stable")
        documents: NDArray[np.int64] = self._tokens.document_of[np.take_along_axis(found.T, order, axis=1)]
        return documents.reshape(-1)

    def _distinct(self, documents: NDArray[np.int64], most: int) -> NDArray[np.int64]:
        out = np.empty(most, np.int64)
        return out[: documents_in_order(documents, self._seen, out)]
