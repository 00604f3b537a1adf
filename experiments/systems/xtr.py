"""XTR: documents are ranked by retrieved token similarities alone, missing ones imputed."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from muvera import MultiVectors
from muvera.data.ranking import best_first

from .base import Answers, Material, Ranked
from .timed_search import timed_search
from .token_kernels import imputed_scores
from .token_search import TokenSystem

__all__ = ["XTR"]


class XTR(TokenSystem):
    """XTR's scoring (arXiv 2304.01982, section 3.2).

    Every query token retrieves `tokens` document tokens.  A document's score is the sum over query tokens
    of its best retrieved similarity, or of the query token's lowest retrieved one where none of the
    document's tokens was retrieved: no token vector is read after the search.  The model of the paper is
    trained for this, the embeddings here are not.

    Build arguments are those of :class:`experiments.systems.token_search.TokenSystem`.  No other copy of
    the tokens is needed than the graph's; only a search with `candidates` reads the stored ones, too.
    """

    name: ClassVar[str] = "xtr"

    def build(self, material: Material) -> None:
        """Build the graph, where there is one."""
        super().build(material)
        self._last = np.full(len(material.documents), -1, np.int64)
        self._gains = np.zeros(len(material.documents))

    def search(
        self,
        queries: MultiVectors,
        k: int,
        *,
        tokens: int = 1000,
        ef: int | None = None,
        candidates: int = 0,
    ) -> Answers:
        """Answer queries one at a time.

        Parameters
        ----------
        tokens : int
            Tokens that every query token retrieves; recall and time rise with it.
        ef : int, optional
            Tokens that a walk through the graph keeps; default and at least `tokens`.
        candidates : int
            Rank so many of the best again by exact Chamfer, whose scores are then returned; 0 for XTR as
            it is, whose scores are sums of partly imputed similarities.
        """

        def answer(_: int, query: MultiVectors) -> Ranked:
            found, scores = self.imputed(query, tokens, ef)
            best = best_first(scores, max(k, candidates))
            if not candidates:
                return found[best], scores[best]
            return self.ranked_exactly(query, found[best[:candidates]], k)

        return timed_search(queries, k, answer)

    def imputed(
        self, query: MultiVectors, tokens: int, ef: int | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return all documents behind the retrieved tokens, in no order, and their scores."""
        retrieved, similarities = self._tokens.nearest(query.tokens.astype(np.float32), tokens, ef)
        documents = self._tokens.document_of[retrieved]
        most = min(documents.size, len(self.documents))
        found, scores = np.empty(most, np.int64), np.empty(most, np.float32)
        count = imputed_scores(documents, similarities, self._last, self._gains, found, scores)
        return found[:count], scores[:count]

    def reads_tokens(self, **query: Any) -> bool:
        """Return whether candidates are ranked exactly."""
        return bool(query.get("candidates", 0))
