"""FlatSearch: base class of brute-force searches."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.ranking import best_first
from ..utils.atomic_files import save_array
from ..utils.npy_files import load_npy
from .base import (
    Found,
    Guard,
    VectorSearch,
    checked_allowed,
    checked_labels,
    checked_queries,
    checked_vectors,
    none_found,
)

__all__ = ["LABELS", "FlatSearch", "blocks"]

LABELS = "vector_labels.npy"

# Queries whose scores are held at once, and the bytes that they may take.
_QUERIES, _SCORE_BYTES = 64, 256 << 20

# Bytes of rows copied at a time.
_BLOCK_BYTES = 32 << 20

Best = tuple[NDArray[np.int64], NDArray[np.float32]]


class FlatSearch(VectorSearch):
    """Base class of brute-force searches: rows of arrays in the order of adding, all of which are read.

    Parameters
    ----------
    dimension : int
        Floats of a vector.
    columns : dict of arrays (0, ...)
        What is kept of a vector, a row of each, by the names of the files.
    derived : sequence of arrays (0, ...)
        What is kept beside and follows from them: not saved.
    """

    def __init__(
        self, dimension: int, columns: dict[str, NDArray[Any]], derived: Sequence[NDArray[Any]] = ()
    ) -> None:
        super().__init__(dimension)
        self._files = tuple(columns)
        self._columns = [*columns.values(), *derived]
        self._labels = np.empty(0, np.int64)
        self._count = 0
        self._highest = -1  # of all labels that there ever were

    # -- what differs ---------------------------------------------------------

    @abstractmethod
    def _write(self, start: int, vectors: NDArray[np.float32], threads: int | None) -> None:
        """Write what is kept of checked vectors to the columns' rows from `start` on."""

    @abstractmethod
    def _products(
        self, queries: NDArray[np.float32], picked: NDArray[np.int64] | None, threads: int | None
    ) -> NDArray[np.float32]:
        """Score the rows at `picked` (default all) for all queries, float32 (n, m)."""

    @abstractmethod
    def _read(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the vectors at `positions`, as exactly as they are kept, float32 (n, dimension)."""

    def _best(
        self, queries: NDArray[np.float32], picked: NDArray[np.int64] | None, k: int, threads: int | None
    ) -> Iterator[Best]:
        """Yield for each query the places of its k best within `picked`, and their scores."""
        for row in np.ascontiguousarray(self._products(queries, picked, threads).T):
            best = best_first(row, k)
            yield best, row[best]

    def info(self) -> dict[str, Any]:
        """Return kind, size and dimension."""
        return {"kind": self.kind, "vectors": len(self), "dimension": self.dimension}

    # -- changing -------------------------------------------------------------

    def __len__(self) -> int:
        return self._count

    def add(
        self,
        labels: NDArray[np.int64],
        vectors: NDArray[np.float32],
        threads: int | None = None,
        guard: Guard = nullcontext,
    ) -> None:
        """Add vectors under new labels; room grows by half, so that adding is linear."""
        vectors = checked_vectors(vectors, self.dimension)
        labels = checked_labels(labels, len(vectors))
        if not self.can_add(labels):
            raise ValueError(f"label {self.existing(labels)[0]} is in use.")
        needed = self._count + len(vectors)
        if needed > len(self._labels):
            with guard():
                self._make_room(max(needed, len(self._labels) * 3 // 2))
        self._write(self._count, vectors, threads)  # beyond what a search reads
        with guard():
            self._take(labels)

    def _make_room(self, room: int) -> None:
        for i, column in enumerate(self._columns):
            grown = np.zeros((room, *column.shape[1:]), column.dtype)
            grown[: self._count] = column[: self._count]
            self._columns[i] = grown
        self._labels = np.resize(self._labels, room)

    def _take(self, labels: NDArray[np.int64]) -> None:
        """Make the rows that follow findable, under `labels`."""
        self._labels[self._count : self._count + len(labels)] = labels
        self._count += len(labels)
        self._highest = max(self._highest, int(labels.max(initial=-1)))

    def can_add(self, labels: NDArray[np.int64]) -> bool:
        """Whether :meth:`add` would take all of these labels."""
        # Labels that only ever rise, as an index gives them, are compared with one number.
        return int(labels.min(initial=self._highest + 1)) > self._highest or not len(self.existing(labels))

    def existing(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return those of `labels` that a search can return, ascending."""
        return np.intersect1d(labels, self._labels[: self._count])

    def remove(self, labels: NDArray[np.int64]) -> None:
        """Drop vectors; the others keep their order."""
        labels = checked_labels(labels)
        keep = ~np.isin(self._labels[: self._count], labels)
        if keep.sum() != self._count - len(labels):
            missing = np.setdiff1d(labels, self._labels[: self._count])
            raise KeyError(f"label {missing[0]} is not here.")
        # Moved up in place, a block at a time: a second copy might not fit into memory.
        kept = np.flatnonzero(keep)
        first = len(kept) if keep.all() else int(np.argmin(keep))
        for column in self._columns:
            for start, part in blocks(kept[first:], column[:1].nbytes):
                column[first + start : first + start + len(part)] = column[part]
        self._labels[: len(kept)] = self._labels[kept]
        self._count = len(kept)

    # -- searching ------------------------------------------------------------

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        allowed: NDArray[np.int64] | None = None,
        threads: int | None = None,
        *,
        ef: int | None = None,
    ) -> Found:
        """Return the k best labels and their inner products; ties go to the earlier vector."""
        queries = checked_queries(queries, self.dimension, k)
        labels = self._labels[: self._count]
        picked = None
        if allowed is not None:
            picked = np.flatnonzero(np.isin(labels, checked_allowed(allowed)))
            labels = labels[picked]
        found, scores = none_found(queries, k)
        step = max(1, min(_QUERIES, _SCORE_BYTES // (4 * max(1, len(labels)))))
        for start in range(0, len(queries), step):
            ranked = self._best(queries[start : start + step], picked, k, threads)
            for i, (best, products) in enumerate(ranked, start):
                found[i, : len(best)] = labels[best]
                scores[i, : len(best)] = products
        return found, scores

    def labels(self) -> NDArray[np.int64]:
        """Return the labels that a search can return, ascending."""
        return np.sort(self._labels[: self._count])

    def vectors(self, labels: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the stored vectors of `labels`, as exactly as they are kept."""
        labels = np.asarray(labels, np.int64)
        missing = np.setdiff1d(labels, self._labels[: self._count])
        if len(missing):
            raise KeyError(f"label {missing[0]} is not here.")
        order = np.argsort(self._labels[: self._count])
        at = np.searchsorted(self._labels[: self._count], labels, sorter=order)
        return self._read(order[at])

    @property
    def in_order(self) -> NDArray[np.int64]:
        """The labels in the order of adding, a view."""
        return self._labels[: self._count]

    # -- keeping --------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Write each column and the labels as ``.npy``."""
        for name, column in zip(self._files, self._columns, strict=False):
            save_array(folder / name, self._saved(column[: self._count]))
        save_array(folder / LABELS, self._labels[: self._count])

    def _saved(self, column: NDArray[Any]) -> NDArray[Any]:
        """Return the part of a column that is to be saved."""
        return column

    def _restore(self, folder: Path) -> None:
        """Take the saved columns and labels, having compared their shapes.

        Raises
        ------
        ValueError
            Where they are not of this search's kind, not as many as the labels, or not finite.
        """
        labels = checked_labels(load_npy(folder / LABELS, mmap=False))
        for i, name in enumerate(self._files):
            array, wanted = load_npy(folder / name, mmap=False), self._columns[i]
            if array.dtype != wanted.dtype or array.shape != (len(labels), *wanted.shape[1:]):
                raise ValueError(
                    f"{folder / name} must be {wanted.dtype} {(len(labels), *wanted.shape[1:])}, "
                    f"got {array.dtype} {array.shape}."
                )
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise ValueError(f"{folder / name} is damaged: it has a number that is not finite.")
            self._columns[i] = array
        self._labels = np.empty(len(labels), np.int64)
        self._take(labels)


def blocks(positions: NDArray[np.int64], row_bytes: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Cut positions of rows of so many bytes into (where it starts, part)."""
    step = max(1, _BLOCK_BYTES // max(1, row_bytes))
    for start in range(0, len(positions), step):
        yield start, positions[start : start + step]
