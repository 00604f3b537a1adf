"""WARP: scores of retrieved tokens' coded residuals, missing ones imputed, through xtr-warp-rs."""

from __future__ import annotations

from typing import Any, ClassVar

from muvera import MultiVectors

from .base import Answers, Material
from .worker_system import WorkerSystem

__all__ = ["Warp"]


class Warp(WorkerSystem):
    """xtr-warp-rs in an environment (with torch, some gigabytes) and a process of its own.

    A search runs on one thread, the build on as many as the runner allows.

    Parameters
    ----------
    nbits : int
        Bits of a residual's coordinate, 2 or 4: more raise recall and size.
    kmeans_niters : int
        Rounds of k-means.
    """

    name: ClassVar[str] = "warp"
    library: ClassVar[str] = "xtr-warp"

    def __init__(self, *, nbits: int = 4, kmeans_niters: int = 4) -> None:
        self._settings = {"nbits": nbits, "kmeans_niters": kmeans_niters}

    def build(self, material: Material) -> None:
        """Make the index in the scratch folder."""
        super().build(material)
        self._index = material.folder / "index"
        self.build_of(material, index=str(self._index), **self._settings)

    def search(
        self,
        queries: MultiVectors,
        k: int,
        *,
        nprobe: int | None = None,
        t_prime: int | None = None,
        candidates: int = 0,
    ) -> Answers:
        """Answer queries one at a time.

        Parameters
        ----------
        nprobe : int, optional
            Inverted lists that a query token reads; recall and time rise with it.  Default: its own choice.
        t_prime : int, optional
            Tokens after which a missing similarity is estimated.  Default: its own choice.
        candidates : int
            Rank so many of the best again by exact Chamfer, whose scores are then returned.  0: none.
        """
        return self.asked(
            queries,
            k,
            self._index,
            candidates,
            top_k=max(k, candidates),
            nprobe=nprobe,
            t_prime=t_prime,
        )

    def reads_tokens(self, **query: Any) -> bool:
        """Return whether candidates are ranked exactly."""
        return bool(query.get("candidates", 0))

    def bytes_per_document(self) -> float:
        """Return the bytes of the files that a search reads, in which the codes of tokens are."""
        # The chunks of the build, whose names begin with a number, are copied into the compacted files.
        files = [path for path in self._index.iterdir() if not path.name[0].isdigit()]
        return sum(path.stat().st_size for path in files) / len(self.documents)
