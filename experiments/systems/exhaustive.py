"""Exhaustive Chamfer: every token of every document is read for every query."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from muvera import MultiVectors, top_k

from .base import Answers, Material, Ranked, System
from .timed_search import timed_search

__all__ = ["Exhaustive"]


class Exhaustive(System):
    """The exact answer, and what it costs to compute it without an index."""

    name: ClassVar[str] = "exhaustive"
    chamfer: bool = True

    def build(self, material: Material) -> None:
        """Keep the token vectors; there is nothing else to build."""
        super().build(material)

    def search(self, queries: MultiVectors, k: int) -> Answers:
        """Score all documents."""

        def answer(_: int, query: MultiVectors) -> Ranked:
            ranking = top_k(query, self.documents, k, threads=self.threads)[0]
            return np.asarray(ranking.ids, np.int64), ranking.scores

        return timed_search(queries, k, answer)

    def bytes_per_document(self) -> float:
        """Return 0: nothing is kept beside the token vectors."""
        return 0.0
