"""GraphSearch: base class of searches in a graph of another library, and what they share.

A graph is walked by cosine, for by inner product parts of it become unreachable.  So that both order alike,
every vector is filled up to the same length (Bachrach et al., "Speeding up the Xbox recommender system",
RecSys 2014, section 3.1): v becomes (v, sqrt(reach**2 - |v|**2)) / reach, and a query gets a zero.  What is
filled in is spread over some coordinates, so that rounding all to bytes leaves as much of v.  The reach is
what 95 of a hundred vectors of the first addition are no longer than: a few very long ones would leave little
of all others' differences.  A vector beyond it has nothing to be filled up with: it gets zeros, it is divided
by its own length, and the walk takes it for as short as the reach.  Inner products are right all the same.
"""

from __future__ import annotations

from abc import abstractmethod
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..utils.atomic_files import save_array
from ..utils.npy_files import load_npy
from ..utils.parallel import thread_count
from .base import Found, Guard, VectorSearch, checked_labels, checked_queries, checked_vectors
from .exact import score_among
from .label_states import FREE, SPENT, USED, LabelStates
from .saved_graph import FILLING, SavedGraph, read_added

__all__ = ["NORMS", "GraphSearch"]

NORMS = "vector_norms.npy"

# Vectors read back at a time for exact scores.
_BLOCK_BYTES = 32 << 20

# Share of the first vectors that are filled up to the length of the others.
_WITHIN_REACH = 0.95

# Vectors that each thread adds before searches may come between.
_ADDED_PER_THREAD = 32


class GraphSearch(VectorSearch):
    """Base class of approximate searches: a library's graph, the labels in it and what vectors were divided by.

    Parameters
    ----------
    dimension : int
        Floats of a vector.
    """

    #: Name of the graph's file.
    file: ClassVar[str]

    def __init__(self, dimension: int) -> None:
        super().__init__(dimension)
        self._states = LabelStates()
        self._reach = 0.0  # until something is added
        self._norms = np.empty(0, np.float32)  # by label, what vectors were divided by; 1 where unknown

    # -- what differs ---------------------------------------------------------

    @abstractmethod
    def _prepare(self, count: int) -> None:
        """Make room in the graph for so many vectors more."""

    @abstractmethod
    def _insert(self, labels: NDArray[np.int64], rows: NDArray[np.float32], threads: int) -> None:
        """Put rows into the graph, which :meth:`_prepare` made ready."""

    @abstractmethod
    def _retire(self, labels: NDArray[np.int64]) -> None:
        """Take out of the graph, and out of the labels, what got in before an addition failed."""

    @abstractmethod
    def _stored(self, labels: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the vectors of labels that are here, as exactly as they are kept."""

    # -- changing -------------------------------------------------------------

    def __len__(self) -> int:
        return self._states.num_used

    def add(
        self,
        labels: NDArray[np.int64],
        vectors: NDArray[np.float32],
        threads: int | None = None,
        guard: Guard = nullcontext,
    ) -> None:
        """Add vectors under new labels, some at a time, so that searches come between."""
        rows = checked_vectors(vectors, self.dimension)
        labels = checked_labels(labels, len(rows))
        if not self.can_add(labels):
            first = labels[self._states.of(labels) != FREE].min(keepdims=True)
            was = "was used already" if self._states.of(first)[0] == SPENT else "is in use"
            raise ValueError(f"label {first[0]} {was}.")
        if len(labels) == 0:
            return
        lengths = np.sqrt(np.square(rows, dtype=np.float64).sum(axis=1))
        reach = self._reach or float(np.float32(np.quantile(lengths, _WITHIN_REACH))) or 1.0
        norms = np.maximum(lengths, reach).astype(np.float32)
        missing = np.sqrt(np.maximum(1 - np.square(lengths / reach), 0) / FILLING)
        filled = np.empty((len(rows), self.dimension + FILLING), np.float32)
        filled[:, : self.dimension] = rows / norms[:, np.newaxis]
        filled[:, self.dimension :] = missing[:, np.newaxis]
        workers = thread_count(threads)
        step = _ADDED_PER_THREAD * workers
        try:
            with guard():
                self._prepare(len(labels))
                self._reach = reach
                self._keep_norms(labels, norms)
            for start in range(0, len(labels), step):
                part = labels[start : start + step]
                with guard():
                    self._insert(part, filled[start : start + step], workers)
                    self._states.put(part, USED)
        except BaseException:
            with guard():
                self._retire(labels)
            raise
        if self.saved is not None:
            self.saved = self.saved.record(labels, rows)

    def _keep_norms(self, labels: NDArray[np.int64], norms: NDArray[np.float32]) -> None:
        needed = int(labels.max()) + 1
        if needed > len(self._norms):
            grown = np.ones(max(needed, len(self._norms) * 3 // 2), np.float32)
            grown[: len(self._norms)] = self._norms
            self._norms = grown
        elif not self._norms.flags.writeable:
            self._norms = self._norms.copy()
        self._norms[labels] = norms

    def can_add(self, labels: NDArray[np.int64]) -> bool:
        """Whether :meth:`add` would take all of these labels."""
        return bool((self._states.of(labels) == FREE).all())

    def existing(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return those of `labels` that a search can return, ascending."""
        return np.unique(labels[self._states.of(labels) == USED])

    def _require(self, labels: NDArray[np.int64]) -> None:
        missing = labels[self._states.of(labels) != USED]
        if len(missing):
            raise KeyError(f"label {missing.min()} is not here.")

    # -- searching ------------------------------------------------------------

    @staticmethod
    def _asked(queries: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return queries as the graph takes them: with zeros where vectors are filled up."""
        asked = np.zeros((len(queries), queries.shape[1] + FILLING), np.float32)
        asked[:, : queries.shape[1]] = queries
        return asked

    def _given(self, labels: NDArray[np.int64], rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the vectors as they were given, of rows of the graph."""
        return rows[:, : self.dimension] * self._norms[labels, np.newaxis]

    def _search_among(
        self, labels: NDArray[np.int64], queries: NDArray[np.float32], k: int, threads: int | None = None
    ) -> Found:
        """Score the vectors of `labels` one by one."""
        return score_among(labels, self._stored, queries, k, self.dimension, _BLOCK_BYTES, threads)

    def measure_recall(
        self, queries: NDArray[np.float32], k: int, threads: int | None = None, *, ef: int | None = None
    ) -> float:
        """Return which share of the k best of all kept vectors the graph finds, averaged over `queries`."""
        queries = checked_queries(queries, self.dimension, k)
        k = min(k, len(self))
        if k == 0 or len(queries) == 0:
            return 1.0
        exact, _ = self._search_among(self.labels(), queries, k, threads)
        found, _ = self.search(queries, k, threads=threads, ef=ef)
        return float(np.mean([len(np.intersect1d(a, b)) for a, b in zip(exact, found, strict=True)])) / k

    # -- looking --------------------------------------------------------------

    def labels(self) -> NDArray[np.int64]:
        """Return the labels that a search can return, ascending."""
        return self._states.used

    def vectors(self, labels: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the stored vectors of `labels`, as exactly as they are kept."""
        labels = np.asarray(labels, np.int64)
        self._require(labels)
        if len(labels) == 0:
            return np.empty((0, self.dimension), np.float32)
        return self._stored(labels)

    # -- keeping --------------------------------------------------------------

    def save_added(self, folder: Path) -> None:
        """Write the vectors that the graph's file lacks, and all norms."""
        assert self.saved is not None
        self.saved.write(folder, self.existing)
        self._save_norms(folder)

    def saved_in(self, folder: Path) -> None:
        """Take note that the graph's file is in `folder` now."""
        self.saved = SavedGraph(folder / self.file, len(self)) if len(self) else None

    def _add_saved(self, graph: Path, folder: Path) -> None:
        """Add what was written to `folder` because the graph's file lacks it."""
        self.saved = SavedGraph(graph, self._states.num_used + self._states.num_spent)
        self.add(*read_added(folder, self.dimension))

    def _save_norms(self, folder: Path) -> None:
        save_array(folder / NORMS, np.concatenate([np.array([self._reach], np.float32), self._norms]))

    @staticmethod
    def _require_whole(graph: Path, needed: int) -> None:
        """Raise OSError where the graph's file lacks some of its bytes."""
        written = graph.stat().st_size
        if written != needed:
            raise OSError(
                f"{graph} has {written} of its {needed} bytes: it was not written whole. Is the disk full?"
            )

    def _load_norms(self, folder: Path, graph: Path, labels: NDArray[np.int64]) -> None:
        """Read what :meth:`_save_norms` wrote, of these labels in the graph and perhaps of more."""
        kept: NDArray[Any] = load_npy(folder / NORMS, mmap=False)
        if kept.dtype != np.float32 or kept.ndim != 1 or len(kept) == 0:
            raise ValueError(f"{folder / NORMS} is damaged: it has {kept.dtype} {kept.shape} for norms.")
        reach, norms = float(kept[0]), kept[1:]
        if not np.isfinite(kept).all() or reach < 0 or not (norms > 0).all():
            raise ValueError(f"{folder / NORMS} is damaged: a norm is no positive number.")
        if len(labels) == 0:
            return
        if labels.max() >= len(norms):
            raise ValueError(f"{folder / NORMS} has no norm for vector {labels.max()} of {graph}.")
        if reach == 0 or norms[labels].min() < reach:
            raise ValueError(f"{folder / NORMS} is damaged: a norm is less than the graph's reach {reach:g}.")
        self._reach, self._norms = reach, norms
