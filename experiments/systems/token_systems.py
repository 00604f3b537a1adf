"""The single-vector heuristic, which searches single tokens first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, get_args

import numpy as np
from numpy.typing import NDArray

from muvera import HNSWSettings, MultiVectors
from muvera.mips import HNSWSearch

from ..known_names import require_known
from .base import Answers, Material, Ranked, System, timed_search
from .baselines import VectorBackend

__all__ = ["SingleVector"]

# Tokens read at a time.
_BLOCK = 1 << 16


class SingleVector(System):
    """The first stage of ColBERT, as in section 3.1 of the MUVERA paper, and exact ranking.

    Every query token retrieves its nearest document tokens.  The nearest of all query tokens come first, then all
    second nearest, and so on; within a rank the more similar goes first.  The documents behind the first
    `candidates` entries are ranked exactly.  The query tokens retrieve as few tokens as fill this list.

    The backend is a graph of all tokens ("hnsw"), or a scan of all ("exact"), which has no graph errors and
    takes about as long as exact Chamfer over all documents.
    """

    name: ClassVar[str] = "single_vector"
    chamfer: bool = True

    def __init__(self, *, backend: VectorBackend = "hnsw", m: int = 16, ef_construction: int = 100) -> None:
        require_known(backend, get_args(VectorBackend), "backend")
        self._settings = {"m": m, "ef_construction": ef_construction} if backend == "hnsw" else None

    def build(self, material: Material) -> None:
        """Build the graph, if there is one."""
        super().build(material)
        documents = material.documents
        self._document_of = np.repeat(np.arange(len(documents)), documents.lengths)
        self._graph: HNSWSearch | None = None
        if self._settings is not None:
            # `nearest` searches for ef tokens, so ef = 1 here sets no lower bound.
            settings = HNSWSettings(ef=1, seed=material.seed, **self._settings)
            self._graph = HNSWSearch(documents.dimension, settings)
            for start, block in self._blocks():
                self._graph.add(np.arange(start, start + len(block)), block, material.threads)

    def _blocks(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield (first token, tokens as float32)."""
        for start in range(0, self.documents.num_tokens, _BLOCK):
            yield start, self.documents.tokens[start : start + _BLOCK].astype(np.float32)

    def nearest(
        self, query: NDArray[np.float32], count: int, ef: int | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the `count` best tokens of each query token and their inner products, best first."""
        count = min(count, len(self._document_of))
        if self._graph is not None:
            width = min(max(count, ef or 0), len(self._document_of))
            tokens, scores = self._graph.search(query, width, threads=self.threads)
            return tokens[:, :count], scores[:, :count]
        tokens = np.empty((len(query), 0), np.int64)
        scores = np.empty((len(query), 0), np.float32)
        for start, block in self._blocks():
            numbers = np.broadcast_to(np.arange(start, start + len(block)), (len(query), len(block)))
            tokens = np.concatenate([tokens, numbers], axis=1)
            scores = np.concatenate([scores, query @ block.T], axis=1)
            # Earlier tokens come first, so a stable order gives ties to them.
            best = np.argsort(-scores, axis=1, kind="stable")[:, :count]
            tokens, scores = np.take_along_axis(tokens, best, 1), np.take_along_axis(scores, best, 1)
        return tokens, scores

    def search(
        self,
        queries: MultiVectors,
        k: int,
        *,
        candidates: int = 100,
        ef: int | None = None,
        deduplicate: bool = True,
    ) -> Answers:
        """Rank the documents of a list of `candidates`; with `deduplicate` it counts a document once."""

        def answer(_: int, query: MultiVectors) -> Ranked:
            return self.ranked_exactly(query, self.candidates(query, candidates, ef, deduplicate), k)

        return timed_search(queries, k, answer)

    def candidates(
        self, query: MultiVectors, count: int, ef: int | None = None, deduplicate: bool = True
    ) -> NDArray[np.int64]:
        """Return the list of one query: `count` documents, or those of `count` tokens."""
        tokens = query.tokens.astype(np.float32)
        if not deduplicate:
            ranked = self._by_rank(tokens, -(-count // len(tokens)), ef)[:count]
            return _distinct(ranked, len(ranked))
        count = min(count, len(self.documents))
        # Many tokens belong to the same document: four times as many are usually enough, and a second search
        # would take longer than some extra tokens.
        depth = -(-4 * count // len(tokens))
        while True:
            distinct = _distinct(self._by_rank(tokens, depth, ef), count)
            if len(distinct) == count or depth >= self.documents.num_tokens:
                return distinct
            depth *= 2

    def _by_rank(self, query: NDArray[np.float32], depth: int, ef: int | None) -> NDArray[np.int64]:
        """Return the documents of the `depth` nearest tokens of all query tokens, rank after rank."""
        tokens, scores = self.nearest(query, depth, ef)
        order = np.argsort(-scores.T, axis=1, kind="stable")
        documents: NDArray[np.int64] = self._document_of[np.take_along_axis(tokens.T, order, axis=1)]
        return documents.reshape(-1)

    def bytes_per_document(self) -> float:
        """Return the bytes of the graph, with its float32 copy of the tokens, and of the tokens' owners."""
        graph = 0 if self._graph is None else int(self._graph.info()["bytes_per_vector"])
        per_token = graph + self._document_of.itemsize
        return per_token * self.documents.num_tokens / len(self.documents)


def _distinct(documents: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Return at most `most` distinct documents in the order of their first appearance."""
    first = np.sort(np.unique(documents, return_index=True)[1])
    return documents[first[:most]]
