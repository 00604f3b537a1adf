"""Growing collections: relevant documents among more and more others.

Dense vectors return more documents that have nothing to do with a query as a collection
grows, the more so the fewer floats they have (Reimers and Gurevych, arXiv 2012.14210).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from muvera import MultiVectors

from ..known_names import require_known
from .base import Answers, Material, NotApplicableError, System
from .baselines import Exhaustive
from .library import FirstStage
from .texts import BM25

_SYSTEMS: dict[str, type[System]] = {system.name: system for system in (BM25, FirstStage, Exhaustive)}


class Distractors(System):
    """Another system that searches a part of the collection.

    The part has all documents that are relevant for a query, and `distractors` random
    others; more distractors include those of a smaller number.  `system` is "bm25",
    "fde" or "exhaustive", with the arguments `settings`, and `query` for each search.
    """

    name: ClassVar[str] = "distractors"

    def __init__(
        self,
        *,
        system: str = "fde",
        distractors: int = 0,
        settings: dict[str, Any] | None = None,
        query: dict[str, Any] | None = None,
    ) -> None:
        require_known(system, _SYSTEMS, "system with distractors")
        self._system = _SYSTEMS[system](**settings or {})
        self._distractors, self._query = distractors, query or {}

    def build(self, material: Material) -> None:
        """Choose documents, and build the system from them."""
        super().build(material)
        material.needs("judgements", reason="distractors needs judgements.")
        judged = [place for row in material.collection.judgements or [] for place in row if row[place] > 0]
        relevant = np.unique(np.array(judged, np.int64))
        order = np.random.default_rng(material.seed).permutation(len(self.documents))
        others = order[~np.isin(order, relevant)]
        if len(others) < self._distractors:
            raise NotApplicableError(
                f"{self._distractors} distractors are more than the {len(others)} documents that are not "
                "relevant."
            )
        self._positions = np.sort(np.concatenate([relevant, others[: self._distractors]]))
        part = material.collection.part(self._positions)
        self._system.build(replace(material, collection=part, shared={}))

    def search(self, queries: MultiVectors, k: int) -> Answers:
        """Search the part."""
        found = self._system.search(queries, min(k, len(self._positions)), **self._query)
        ids = np.full((len(queries), k), -1, np.int64)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        count = found.ids.shape[1]
        ids[:, :count] = np.where(found.ids < 0, -1, self._positions[found.ids])
        scores[:, :count] = found.scores
        return Answers(ids, scores, found.seconds)

    def reads_tokens(self, **_: Any) -> bool:
        """Return True if the system reads tokens."""
        return self._system.reads_tokens(**self._query)

    def bytes_per_document(self) -> float:
        """Return the bytes of a document in the system."""
        return self._system.bytes_per_document()
