"""GraphSearch: base class of searches in another library's graph.

Graphs are searched by cosine, because by inner product some vectors become unreachable.  To make both rank
alike, every vector is extended to the same length (Bachrach et al., "Speeding up the Xbox recommender system",
RecSys 2014, section 3.1): v becomes (v, sqrt(reach**2 - |v|**2)) / reach, and queries get zeros.  The extension is
spread over several columns, so that rounding to bytes keeps more of v.  The reach is the 95th percentile of the
lengths of the first vectors added: with a few very long vectors, their length would leave little of the
differences between all others.  A longer vector gets zeros and is divided by its own length; the graph then
treats it as short as the reach, but its inner products are exact.
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..utils.atomic_files import save_array
from ..utils.npy_files import load_npy
from ..utils.parallel import thread_count
from .base import Found, Guard, VectorSearch, checked_vectors
from .exact import score_among
from .saved_graph import FILLING, Floats, Labels, SavedGraph, read_added

__all__ = ["FREE", "NORMS", "SPENT", "USED", "GraphSearch", "LabelStates"]

NORMS = "vector_norms.npy"

#: States of a label: never used, or removed without a trace; in use; removed and never to be used again.
FREE, USED, SPENT = 0, 1, 2

# Quantile of the first vectors' lengths that becomes the reach.
_WITHIN_REACH = 0.95

# Vectors that each thread adds before searches may run again.
_ADDED_PER_THREAD = 32


class LabelStates:
    """States of the labels 0, 1, ..., one byte each; a set of a million labels would take a hundred times as much."""

    def __init__(self) -> None:
        self._states = np.zeros(0, np.uint8)
        self._counts = np.zeros(3, np.int64)

    def count(self, state: int) -> int:
        """Return how many labels are USED or SPENT."""
        return int(self._counts[state])

    @property
    def used(self) -> Labels:
        """The labels in use, ascending."""
        return np.flatnonzero(self._states == USED)

    def of(self, labels: Labels) -> NDArray[np.uint8]:
        """Return the states of any labels."""
        states = np.zeros(len(labels), np.uint8)
        known = (labels >= 0) & (labels < len(self._states))
        states[known] = self._states[labels[known]]
        return states

    def put(self, labels: Labels, state: int) -> None:
        """Set the state of labels, all different."""
        if len(labels) == 0:
            return
        needed = int(labels.max()) + 1
        if needed > len(self._states):
            grown = np.zeros(max(needed, len(self._states) * 3 // 2), np.uint8)
            grown[: len(self._states)] = self._states
            self._states = grown
        self._counts -= np.bincount(self._states[labels], minlength=3)
        self._counts[state] += len(labels)
        self._states[labels] = state


class GraphSearch(VectorSearch):
    """Base class of graph searches: the states of labels, and what vectors were divided by.

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
        self._reach = 0.0  # until the first vectors are added
        self._norms = np.empty(0, np.float32)  # by label, what its vector was divided by

    @abstractmethod
    def _prepare(self, count: int) -> None:
        """Make room in the graph for `count` more vectors."""

    @abstractmethod
    def _insert(self, labels: Labels, rows: Floats, threads: int) -> None:
        """Insert rows into the graph after :meth:`_prepare`."""

    @abstractmethod
    def _retire(self, labels: Labels) -> None:
        """Take the vectors of a failed addition out of the graph and the labels."""

    @abstractmethod
    def _stored(self, labels: Labels) -> Floats:
        """Return the vectors of labels in use."""

    # -- changing -------------------------------------------------------------

    def __len__(self) -> int:
        return self._states.count(USED)

    def _add(self, labels: Labels, rows: Floats, threads: int | None, guard: Guard) -> None:
        """Add a few vectors at a time, so that searches can run in between."""
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
                self._record_norms(labels, norms)
            for start in range(0, len(labels), step):
                block = labels[start : start + step]
                with guard():
                    self._insert(block, filled[start : start + step], workers)
                    self._states.put(block, USED)
        except BaseException:
            with guard():
                self._retire(labels)
            raise
        if self.saved is not None:
            self.saved = self.saved.record(labels, rows)

    def _record_norms(self, labels: Labels, norms: Floats) -> None:
        needed = int(labels.max()) + 1
        if needed > len(self._norms):
            grown = np.ones(max(needed, len(self._norms) * 3 // 2), np.float32)
            grown[: len(self._norms)] = self._norms
            self._norms = grown
        elif not self._norms.flags.writeable:
            self._norms = self._norms.copy()
        self._norms[labels] = norms

    def can_add(self, labels: Labels) -> bool:
        """Return True if :meth:`add` would accept all of these labels."""
        return bool((self._states.of(labels) == FREE).all())

    def existing(self, labels: Labels) -> Labels:
        """Return those of `labels` that a search can return, ascending."""
        return np.unique(labels[self._states.of(labels) == USED])

    def _require(self, labels: Labels) -> None:
        missing = labels[self._states.of(labels) != USED]
        if len(missing):
            raise KeyError(f"label {missing.min()} does not exist.")

    # -- searching ------------------------------------------------------------

    def _filled(self, queries: Floats) -> Floats:
        """Return queries with zeros in the columns that bring vectors to one length."""
        filled = np.zeros((len(queries), self.dimension + FILLING), np.float32)
        filled[:, : self.dimension] = queries
        return filled

    def _original(self, labels: Labels, rows: Floats) -> Floats:
        """Return the vectors as they were added, from rows of the graph."""
        return rows[:, : self.dimension] * self._norms[labels, np.newaxis]

    def _search_among(self, labels: Labels, queries: Floats, k: int, threads: int | None = None) -> Found:
        """Score the vectors of `labels` one by one."""
        return score_among(labels, self._stored, queries, k, threads)

    def measure_recall(
        self, queries: Floats, k: int, threads: int | None = None, *, ef: int | None = None
    ) -> float:
        """Return the share of the k best stored vectors that the graph finds, averaged over `queries`."""
        queries = checked_vectors(queries, self.dimension, "queries")
        k = min(k, len(self))
        if k == 0 or len(queries) == 0:
            return 1.0
        exact, _ = self._search_among(self.labels(), queries, k, threads)
        labels, _ = self.search(queries, k, threads=threads, ef=ef)
        return float(np.mean([len(np.intersect1d(a, b)) for a, b in zip(exact, labels, strict=True)])) / k

    # -- reading and saving ---------------------------------------------------

    def labels(self) -> Labels:
        """Return the labels that a search can return, ascending."""
        return self._states.used

    def vectors(self, labels: Labels) -> Floats:
        """Return the vectors of `labels` as the graph stores them."""
        self._require(labels)
        return self._stored(labels) if len(labels) else np.empty((0, self.dimension), np.float32)

    def save_added(self, folder: Path) -> None:
        """Write the vectors that the graph's file lacks, and all norms."""
        assert self.saved is not None
        self.saved.write(folder, self.existing)
        self._save_norms(folder)

    def saved_in(self, folder: Path) -> None:
        """Record that the graph's file is in `folder` now."""
        self.saved = SavedGraph(folder / self.file, len(self)) if len(self) else None

    def _add_saved(self, graph: Path, folder: Path) -> None:
        """Add the vectors in `folder` that the graph's file lacks."""
        self.saved = SavedGraph(graph, self._states.count(USED) + self._states.count(SPENT))
        self.add(*read_added(folder, self.dimension))

    def _save_norms(self, folder: Path) -> None:
        save_array(folder / NORMS, np.concatenate([np.array([self._reach], np.float32), self._norms]))

    @staticmethod
    def _require_whole(graph: Path, needed: int) -> None:
        """Raise OSError if the graph's file is shorter than it should be."""
        written = graph.stat().st_size
        if written != needed:
            raise OSError(f"{graph} has only {written} of {needed} bytes. Is the disk full?")

    def _load_norms(self, folder: Path, graph: Path, labels: Labels) -> None:
        """Read what :meth:`_save_norms` wrote, and check the norms of `labels`."""
        array: NDArray[Any] = load_npy(folder / NORMS, mmap=False)
        if array.dtype != np.float32 or array.ndim != 1 or len(array) == 0:
            raise ValueError(f"{folder / NORMS} is damaged: it holds {array.dtype} {array.shape} for norms.")
        reach, norms = float(array[0]), array[1:]
        if not np.isfinite(array).all() or reach < 0 or not (norms > 0).all():
            raise ValueError(f"{folder / NORMS} is damaged: a norm is not a positive number.")
        if len(labels) == 0:
            return
        if labels.max() >= len(norms):
            raise ValueError(f"{folder / NORMS} has no norm for vector {labels.max()} of {graph}.")
        if reach == 0 or norms[labels].min() < reach:
            raise ValueError(f"{folder / NORMS} is damaged: a norm is less than the graph's reach {reach:g}.")
        self._reach, self._norms = reach, norms
