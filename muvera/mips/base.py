"""VectorSearch: the interface of single-vector search, and the checks of its arrays."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..data.validation import as_array
from ..utils.checks import has_repeats, require_int
from .saved_graph import Floats, Labels, SavedGraph

__all__ = [
    "Found",
    "Guard",
    "SavedState",
    "VectorSearch",
    "at_once",
    "checked_labels",
    "checked_vectors",
    "no_results",
]

#: Labels int64 (m, k) and inner products float32 (m, k), best first; label -1 if fewer were found.
Found = tuple[Labels, Floats]

#: Calls a function while no other thread searches.
Guard = Callable[[Callable[[], object]], object]


def at_once(work: Callable[[], object]) -> None:
    """Call `work`: the guard of a search that no other thread uses."""
    work()


class VectorSearch(ABC):
    """Base class of maximum inner product searches; the caller identifies vectors by int64 labels.

    Several threads may search at once.  A copy (:func:`copy.copy`) is cheap, because it shares the vectors, and adding
    to it or removing from it leaves the original as it is, also while other threads search that.  Copies of a graph
    share it: :meth:`add` changes it under a `guard` that excludes all searches, and so must :meth:`settle`.

    Parameters
    ----------
    dimension : int
        Floats of a vector.
    """

    #: Name of this kind: the "backend" of an index.
    kind: ClassVar[str]

    #: The file of a saved graph, if a save can keep it and write only the added vectors; otherwise None.
    saved: SavedGraph | None = None

    def __init__(self, dimension: int) -> None:
        self.dimension = require_int("dimension", dimension, 1)
        self.next_label = 0  # above all labels that were ever used

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of vectors that a search can return."""

    def add(
        self,
        labels: Labels,
        vectors: Floats,
        threads: int | None = None,
        guard: Guard = at_once,
    ) -> None:
        """Add vectors, float32 (n, dimension), under new labels (n,), of which each is used once.

        If it fails, the search holds all of them or none.
        """
        rows = checked_vectors(vectors, self.dimension)
        names = checked_labels(labels, len(rows))
        if not self.can_add(names):
            used = next(label for label in names if not self.can_add(label[np.newaxis]))
            raise ValueError(f"label {used} is in use or was used before. Use each label once.")
        if len(names):
            self.next_label = max(self.next_label, int(names.max()) + 1)
            self._add(names, rows, threads, guard)

    @abstractmethod
    def _add(self, labels: Labels, rows: Floats, threads: int | None, guard: Guard) -> None:
        """Add at least one checked vector."""

    @abstractmethod
    def can_add(self, labels: Labels) -> bool:
        """Return True if :meth:`add` would accept all of these labels."""

    def settle(self) -> None:  # noqa: B027 (only graphs need it)
        """Prepare for searches after changes; no copy from before them may be searched any more."""

    @abstractmethod
    def existing(self, labels: Labels) -> Labels:
        """Return those of `labels` that a search can return, ascending."""

    @abstractmethod
    def remove(self, labels: Labels) -> None:
        """Skip the vectors with these labels in every later search; they remain in memory.

        Raises
        ------
        KeyError
            For a label that does not exist.
        """

    def search(
        self,
        queries: Floats,
        k: int,
        allowed: Labels | None = None,
        threads: int | None = None,
        *,
        ef: int | None = None,
    ) -> Found:
        """Return the labels and inner products of the `k` best vectors of each query.

        Parameters
        ----------
        queries : float32 (m, dimension)
        k : int
        allowed : int64 (n,), optional
            Search only among these labels; unknown ones are ignored.
        threads : int, optional
        ef : int, optional
            Candidates that a graph search keeps; default: as in its settings.
        """
        require_int("k", k, 1)
        if ef is not None:
            require_int("ef", ef, 1)
        rows = checked_vectors(queries, self.dimension, "queries")
        labels, scores = no_results(len(rows), k)
        if len(rows) and len(self):
            best, products = self._search(rows, min(k, len(self)), allowed, threads, ef)
            labels[:, : best.shape[1]], scores[:, : best.shape[1]] = best, products
        return labels, scores

    @abstractmethod
    def _search(
        self, queries: Floats, k: int, allowed: Labels | None, threads: int | None, ef: int | None
    ) -> Found:
        """Search with at least one checked query; return at most k columns, padded with label -1."""

    @abstractmethod
    def measure_recall(
        self, queries: Floats, k: int, threads: int | None = None, *, ef: int | None = None
    ) -> float:
        """Return the share of the exact k best vectors that :meth:`search` finds, averaged over queries."""

    @abstractmethod
    def labels(self) -> Labels:
        """Return the labels that a search can return, ascending."""

    @abstractmethod
    def vectors(self, labels: Labels) -> Floats:
        """Return the stored vectors of `labels`, float32 (n, dimension)."""

    @abstractmethod
    def info(self) -> dict[str, Any]:
        """Return kind, size, settings and bytes per vector."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write this search's files into `folder`."""

    def save_added(self, folder: Path) -> None:
        """Write only the vectors that are not in the :attr:`saved` graph file; for graphs only."""
        raise NotImplementedError(f"{type(self).__name__} is not a graph.")

    def saved_in(self, folder: Path) -> None:
        """Record the folder that contains the saved files."""
        self.saved = None

    @classmethod
    @abstractmethod
    def load(cls, folder: Path, dimension: int, saved: SavedState) -> VectorSearch:
        """Load a search from the files of :meth:`save`.

        Raises
        ------
        ValueError
            For damaged files, or files of another dimension or other settings.
        """


@dataclass(frozen=True)
class SavedState:
    """Information that an index stores about the files of a search.

    Parameters
    ----------
    settings : HNSWSettings, optional
    live : int64 (n,), optional
        The labels that a search can return, ascending; the files may contain others.  Default: all.
    graph : Path, optional
        The graph's file in another folder; the vectors in this folder are added to it.
    """

    settings: Any = None
    live: Labels | None = None
    graph: Path | None = None

    def among(self, labels: Labels) -> NDArray[np.bool_]:
        """Return which of `labels` a search can return."""
        return np.ones(len(labels), bool) if self.live is None else np.isin(labels, self.live)


def checked_vectors(vectors: Any, dimension: int, name: str = "vectors") -> Floats:
    """Return `vectors` as float32 (n, dimension), finite and C-contiguous, or raise."""
    array = as_array(vectors, name)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name} must be numbers, got dtype {array.dtype}.")
    if array.dtype != np.float32 or not array.flags.c_contiguous:
        with np.errstate(over="ignore"):  # the check below refuses the infinities
            array = np.ascontiguousarray(array, dtype=np.float32)
    if array.ndim != 2 or array.shape[1] != dimension:
        raise ValueError(f"{name} must have shape (n, {dimension}), got {array.shape}.")
    # A float64 sum of float32 values is finite if and only if all of them are.
    with np.errstate(invalid="ignore"):
        sums = np.asarray(array.sum(axis=1, dtype=np.float64))
    if not np.isfinite(sums).all():
        raise ValueError(f"{name}[{int(np.argmin(np.isfinite(sums)))}] has a NaN or an infinity.")
    return array


def checked_labels(labels: Any, count: int | None = None) -> Labels:
    """Return labels as int64 (n,), non-negative and distinct, or raise."""
    array = np.asarray(labels)
    if array.ndim != 1 or (array.dtype.kind not in "iu" and array.size):
        raise TypeError(f"labels must be integers (n,), got {array.dtype} {array.shape}.")
    if count is not None and len(array) != count:
        raise ValueError(f"There are {len(array)} labels for {count} vectors.")
    if len(array) and array.min() < 0:
        raise ValueError(f"labels must not be negative, got {array.min()}.")
    if has_repeats(array):
        raise ValueError("labels must be different, but one occurs twice.")
    return array.astype(np.int64)


def no_results(count: int, k: int) -> Found:
    """Return arrays (count, k) to write results into: labels of -1 and scores of -inf."""
    return np.full((count, k), -1, np.int64), np.full((count, k), -np.inf, np.float32)
