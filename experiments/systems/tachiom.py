"""TACHIOM: centroids by kinds of tokens, a graph of them, and product codes, through tachiom."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from muvera import MultiVectors

from .base import Answers, Material, NotApplicableError
from .worker_system import WorkerSystem

__all__ = ["Tachiom"]


class Tachiom(WorkerSystem):
    """tachiom in an environment and a process of its own.

    It ranks by product codes of 32 bytes a token.  It builds and searches on one thread.

    Parameters
    ----------
    total_centroids : int, optional
        Of all kinds of tokens together; default: tachiom's own choice.
    ef_construction : int, optional
        Of the graph of centroids; default: tachiom's own choice.
    """

    name: ClassVar[str] = "tachiom"
    library: ClassVar[str] = "tachiom"

    def __init__(self, *, total_centroids: int | None = None, ef_construction: int | None = None) -> None:
        self._settings: dict[str, Any] = {
            "total_centroids": total_centroids,
            "ef_construction": ef_construction,
        }

    def build(self, material: Material) -> None:
        """Make the index in the scratch folder.

        Raises
        ------
        NotApplicableError
            Where the collection does not say which token of the vocabulary each vector stands for.
        """
        if material.document_token_ids is None:
            raise NotApplicableError("The collection has no token ids, by which tachiom groups tokens.")
        super().build(material)
        self._index = material.folder / "index.bin"
        kinds = material.folder / "token_ids.npy"
        np.save(kinds, np.concatenate(material.document_token_ids).astype(np.uint32))
        self.build_of(material, index=str(self._index), **self._settings)
        kinds.unlink()

    def search(
        self,
        queries: MultiVectors,
        k: int,
        *,
        k_centroids: int = 20,
        k_docs_to_score: int = 500,
        alpha: float | None = 0.45,
        candidates: int = 0,
    ) -> Answers:
        """Answer queries one at a time.

        Parameters
        ----------
        k_centroids : int
            Inverted lists that a query token reads; recall and time rise with it.
        k_docs_to_score : int
            Documents that are scored by their codes, at least those that are returned.
        alpha : float, optional
            Documents are not scored by codes whose score by centroids is below this share; None: all are.
        candidates : int
            Rank so many of the best again by exact Chamfer, whose scores are then returned.  0: none.
        """
        top = max(k, candidates)
        return self.asked(
            queries,
            k,
            self._index,
            candidates,
            top_k=top,
            k_centroids=k_centroids,
            k_docs_to_score=max(top, k_docs_to_score),
            ef_search=max(30, k_centroids),
            alpha=alpha,
        )

    def reads_tokens(self, **query: Any) -> bool:
        """Return whether candidates are ranked exactly."""
        return bool(query.get("candidates", 0))

    def bytes_per_document(self) -> float:
        """Return the bytes of the index's file, in which the codes of tokens are."""
        return self._index.stat().st_size / len(self.documents)
