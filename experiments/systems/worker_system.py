"""Base class of systems that work in a process of another library."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from muvera import MultiVectors

from ..peers.environments import PEERS, Worker, save_texts
from .base import Answers, Family, Material, Ranked, System
from .timed_search import timed_search

__all__ = ["WorkerSystem"]


class WorkerSystem(System):
    """A library that runs in an environment and a process of its own.

    Attributes
    ----------
    library : str
        As in :data:`experiments.peers.environments.PEERS`.
    worker : Worker
        The process, once it was prepared.
    folder : Path
        Where inputs and results are passed on, once it was built.
    """

    family: ClassVar[Family] = "peer"
    own_process: ClassVar[bool] = True
    library: ClassVar[str]
    _worker: Worker | None = None

    @property
    def worker(self) -> Worker:
        """The library's process.

        Raises
        ------
        RuntimeError
            Before it was started.
        """
        if self._worker is None:
            raise RuntimeError(f"{self.library} has no process yet. Call prepare or build first.")
        return self._worker

    def prepare(self, material: Material) -> None:
        """Make the library's environment where it is missing, start its process and import it there."""
        self._worker = Worker(PEERS[self.library], material.folder, material.cache)
        self._worker.time("load")

    def build(self, material: Material) -> None:
        """Prepare the process unless that has been done."""
        super().build(material)
        self.folder = material.folder
        if self._worker is None:
            self.prepare(material)

    def build_of(self, material: Material, **options: Any) -> None:
        """Let the process build of all documents, and time it without handing them over.

        Parameters
        ----------
        material : Material
            Its seed and number of threads are handed over, too.
        **options
            Keywords of the process's operation "build".
        """
        save_texts(material.folder, "documents", list(material.documents))
        seconds = self.worker.time("build", seed=material.seed, threads=material.threads, **options)
        self.build_seconds = float(seconds[0].sum())
        for name in ("documents.npy", "documents_lengths.npy"):
            (material.folder / name).unlink()

    def asked(self, queries: MultiVectors, k: int, index: Path, ranked_again: int, **options: Any) -> Answers:
        """Return what the process finds for queries one at a time, or the best of it by exact Chamfer.

        Parameters
        ----------
        queries : MultiVectors
        k : int
        index : Path
            What the process built.
        ranked_again : int
            Rank so many of the best again by exact Chamfer.  0: none.
        **options
            Keywords of the process's operation "search".
        """
        self.hand_over(queries)
        found, times = self.worker.each("search", "queries", self.folder, index=str(index), **options)
        return self.answers_of(queries, k, found, times[0], ranked_again)

    def hand_over(self, queries: MultiVectors) -> None:
        """Write queries where the process reads the input "queries"."""
        save_texts(self.folder, "queries", [tokens.astype(np.float32) for tokens in queries])

    def answers_of(
        self,
        queries: MultiVectors,
        k: int,
        found: NDArray[np.float64],
        seconds: NDArray[np.float64],
        candidates: int,
    ) -> Answers:
        """Return what the process found, or the best of it by exact Chamfer.

        Parameters
        ----------
        queries : MultiVectors
        k : int
        found : float64 (n_queries, most, 2)
            Position and score of the documents of each query, best first; a position of -1 where there
            are no more.
        seconds : float64 (n_queries,)
            What the process took.
        candidates : int
            Rank so many of the best again; the time is added.  0: none.
        """
        ids, scores = found[:, :, 0].astype(np.int64), found[:, :, 1].astype(np.float32)
        if not candidates:
            return Answers(ids, scores, seconds)

        def answer(place: int, query: MultiVectors) -> Ranked:
            best = ids[place, :candidates]
            return self.ranked_exactly(query, best[best >= 0], k)

        again = timed_search(queries, k, answer)
        return Answers(again.ids, again.scores, again.seconds + seconds)

    def close(self) -> None:
        """End the process."""
        if self._worker is not None:
            self._worker.close()
