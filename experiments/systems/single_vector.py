"""The single-vector heuristic: candidates are the documents behind each query token's nearest tokens."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from muvera import MultiVectors, rerank

from .base import Answers, Family, Material
from .timed_search import Best, timed_search
from .token_kernels import documents_in_order
from .token_search import Backend, TokenSearch

__all__ = ["SingleVector"]


class SingleVector:
    """The first stage of ColBERT, as the MUVERA paper compares it in section 3.1, and an exact rerank.

    Every query token retrieves its nearest document tokens.  The nearest of all query tokens come first,
    then all second nearest, and so on; within a rank the more similar goes first.  The documents behind
    this list, cut after `candidates`, are ranked by exact Chamfer.  How many tokens a query token must
    retrieve for that is not asked of the user: as few as fill the list.

    Parameters
    ----------
    backend : {"hnsw", "exact"}
        A graph of all tokens, or a scan of all of them: the latter shows the heuristic without any error
        of a graph, and takes about as long as exact Chamfer over all documents.
    m, ef_construction : int
        Links a token and candidates while building; more raise recall, and the time of a build that has
        to add every token.
    """

    name: ClassVar[str] = "single_vector"
    family: ClassVar[Family] = "baseline"
    chamfer: ClassVar[bool] = True

    def __init__(self, *, backend: Backend = "hnsw", m: int = 16, ef_construction: int = 100) -> None:
        self._backend: Backend = backend
        self._m, self._ef_construction = m, ef_construction

    def build(self, material: Material) -> None:
        """Build the graph, where there is one."""
        self._documents, self._threads = material.documents, material.threads
        self._tokens = TokenSearch(
            material.documents,
            self._backend,
            m=self._m,
            ef_construction=self._ef_construction,
            seed=material.seed,
            threads=material.threads,
        )
        self._seen = np.zeros(len(material.documents), np.bool_)

    def search(
        self,
        queries: MultiVectors,
        positions: NDArray[np.int64],
        k: int,
        *,
        candidates: int = 100,
        ef: int | None = None,
        deduplicate: bool = True,
    ) -> Answers:
        """Answer queries one at a time.

        Parameters
        ----------
        queries, positions, k
            As :class:`experiments.systems.base.System` says.
        candidates : int
            Length of the list; recall and time of reranking rise with it.
        ef : int, optional
            Tokens that a walk through the graph keeps; default and at least what it has to return.
        deduplicate : bool
            Count a document once in the list.  Without it every token counts, and fewer documents are
            reranked: the paper's weaker variant.
        """

        def answer(_: int, query: MultiVectors) -> Best:
            found = self.candidates(query, candidates, ef, deduplicate)
            best = rerank(query, self._documents, [found], k, threads=self._threads)[0]
            return np.asarray(best.ids, np.int64), best.scores

        return timed_search(queries, k, answer)

    def candidates(
        self, query: MultiVectors, count: int, ef: int | None = None, deduplicate: bool = True
    ) -> NDArray[np.int64]:
        """Return the list of one query: `count` documents, or as many as tokens of `count` entries have."""
        tokens = query.tokens.astype(np.float32)
        if not deduplicate:
            ranked = self._by_rank(tokens, -(-count // len(tokens)), ef)[:count]
            return self._distinct(ranked, len(ranked))
        count = min(count, len(self._documents))
        # Many tokens lead to the same document: four times as many are mostly enough, and looking again
        # for more takes longer than some too many.
        depth = -(-4 * count // len(tokens))
        while True:
            found = self._distinct(self._by_rank(tokens, depth, ef), count)
            if len(found) == count or depth >= self._documents.num_tokens:
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

    def bytes_per_document(self) -> float:
        """Return the bytes of the graph, with its own float32 copy of the tokens, and of their owners."""
        return self._tokens.bytes_per_token * self._documents.num_tokens / len(self._documents)

    def close(self) -> None:
        """Nothing is held outside this object."""
