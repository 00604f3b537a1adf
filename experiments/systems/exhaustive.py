"""Exhaustive Chamfer: every token of every document is read for every query."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from muvera import MultiVectors, top_k

from .base import Answers, Family, Material
from .timed_search import Best, timed_search

__all__ = ["Exhaustive"]


class Exhaustive:
    """The exact answer, and what it costs to compute it without an index."""

    name: ClassVar[str] = "exhaustive"
    family: ClassVar[Family] = "baseline"
    chamfer: ClassVar[bool] = True

    def build(self, material: Material) -> None:
        """Keep the token vectors; there is nothing else to build."""
        self._documents, self._threads = material.documents, material.threads

    def search(self, queries: MultiVectors, positions: NDArray[np.int64], k: int) -> Answers:
        """Score all documents."""

        def search(place: int, query: MultiVectors) -> Best:
            ranking = top_k(query, self._documents, k, threads=self._threads)[0]
            return np.asarray(ranking.ids, np.int64), ranking.scores

        return timed_search(queries, k, search)

    def bytes_per_document(self) -> float:
        """Return 0: nothing is kept beside the token vectors."""
        return 0.0

    def close(self) -> None:
        """Let go of the token vectors."""
        del self._documents
