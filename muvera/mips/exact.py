"""Exact search: every vector is read, in blocks, by a compiled product."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..inputs import frozen
from ..kernels.tile import LANES
from ..kernels.vectors import inner_products
from ..parallel import run_in_ranges
from ..ranking import best_first
from .base import (
    Found,
    checked_allowed,
    checked_dimension,
    checked_labels,
    checked_queries,
    checked_vectors,
    read_array,
)

__all__ = ["ExactSearch", "score_all"]

# Vectors of one task, and queries whose scores are held at once.
_TASK_BYTES = 4 << 20
_QUERIES = 64

# Vectors copied at a time.
_BLOCK_BYTES = 32 << 20


def score_all(
    vectors: NDArray[np.float32], queries: NDArray[np.float32], threads: int | None = None
) -> NDArray[np.float32]:
    """Return the inner products of all vectors with all queries, float32 (n, m).

    Both are float32 rows of one width, a multiple of LANES.
    """
    width = vectors.shape[1]
    out = np.empty((len(vectors), len(queries)), np.float32)
    flat, packed = frozen(vectors).reshape(-1), frozen(queries).reshape(-1)
    step = max(1, _TASK_BYTES // (4 * width))
    ranges = [(start, min(start + step, len(vectors))) for start in range(0, len(vectors), step)]

    def work(start: int, stop: int) -> None:
        inner_products(flat, start, stop, width, packed, len(queries), out[start:stop])

    run_in_ranges(work, ranges, threads)
    return out


class ExactSearch:
    """Search by computing every inner product.

    Recall is 1 by definition.  Time and memory traffic grow with ``n * dimension``; for
    short vectors and up to some 100,000 of them this beats a graph.

    Parameters
    ----------
    dimension : int
        Floats of a vector.
    """

    kind = "exact"

    def __init__(self, dimension: int) -> None:
        self.dimension = checked_dimension(dimension)
        self._width = -(-dimension // LANES) * LANES
        self._rows = np.empty((0, self._width), np.float32)
        self._labels = np.empty(0, np.int64)
        self._count = 0
        self._highest = -1  # of all labels that there ever were

    def __len__(self) -> int:
        return self._count

    def add(
        self, labels: NDArray[np.int64], vectors: NDArray[np.float32], threads: int | None = None
    ) -> None:
        """Add vectors under new labels; room grows by half, so that adding is linear."""
        vectors = checked_vectors(vectors, self.dimension)
        labels = checked_labels(labels, len(vectors))
        if not self.accepts(labels):
            raise ValueError(f"label {self.holding(labels)[0]} is in use.")
        needed = self._count + len(vectors)
        if needed > len(self._rows):
            room = max(needed, len(self._rows) * 3 // 2)
            rows = np.zeros((room, self._width), np.float32)
            rows[: self._count] = self._rows[: self._count]
            self._rows, self._labels = rows, np.resize(self._labels, room)
        self._rows[self._count : needed, : self.dimension] = vectors
        self._labels[self._count : needed] = labels
        self._count = needed
        self._highest = max(self._highest, int(labels.max(initial=-1)))

    def accepts(self, labels: NDArray[np.int64]) -> bool:
        """Whether :meth:`add` would take all of these labels."""
        # Labels that only ever rise, as an index gives them, are compared with one number.
        return int(labels.min(initial=self._highest + 1)) > self._highest or not len(self.holding(labels))

    def holding(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
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
        for start, part in _blocks(kept[first:], self._width):
            self._rows[first + start : first + start + len(part)] = self._rows[part]
        self._labels[: len(kept)] = self._labels[kept]
        self._count = len(kept)

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        allowed: NDArray[np.int64] | None = None,
        threads: int | None = None,
    ) -> Found:
        """Return the k best labels and their inner products; ties go to the earlier vector."""
        queries = checked_queries(queries, self.dimension, k, len(self))
        labels = self._labels[: self._count]
        picked = None
        if allowed is not None:
            picked = np.flatnonzero(np.isin(labels, checked_allowed(allowed)))
            labels = labels[picked]
        found = np.full((len(queries), k), -1, np.int64)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        padded = np.zeros((len(queries), self._width), np.float32)
        padded[:, : self.dimension] = queries
        for start in range(0, len(queries), _QUERIES):
            products = self._products(padded[start : start + _QUERIES], picked, threads)
            for i, row in enumerate(np.ascontiguousarray(products.T)):
                best = best_first(row, k)
                found[start + i, : len(best)] = labels[best]
                scores[start + i, : len(best)] = row[best]
        return found, scores

    def _products(
        self, queries: NDArray[np.float32], picked: NDArray[np.int64] | None, threads: int | None
    ) -> NDArray[np.float32]:
        """Score the vectors at `picked` (default all), float32 (n, m)."""
        if picked is None:
            return score_all(self._rows[: self._count], queries, threads)
        out = np.empty((len(picked), len(queries)), np.float32)
        for start, part in _blocks(picked, self._width):
            out[start : start + len(part)] = score_all(self._rows[part], queries, threads)
        return out

    def labels(self) -> NDArray[np.int64]:
        """Return the labels that a search can return, ascending."""
        return np.sort(self._labels[: self._count])

    def vectors(self, labels: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the stored vectors of `labels`."""
        labels = np.asarray(labels, np.int64)
        missing = np.setdiff1d(labels, self._labels[: self._count])
        if len(missing):
            raise KeyError(f"label {missing[0]} is not here.")
        order = np.argsort(self._labels[: self._count])
        at = np.searchsorted(self._labels[: self._count], labels, sorter=order)
        return self._rows[order[at], : self.dimension]

    def save(self, folder: Path) -> None:
        """Write ``vectors.npy`` and ``vector_labels.npy``."""
        np.save(folder / "vectors.npy", self._rows[: self._count, : self.dimension])
        np.save(folder / "vector_labels.npy", self._labels[: self._count])

    @classmethod
    def load(cls, folder: Path, dimension: int) -> ExactSearch:
        """Read what :meth:`save` wrote.

        Raises
        ------
        ValueError
            For files of another dimension or damaged ones.
        """
        loaded = cls(dimension)
        # Mapped, for `add` copies: memory holds them once.
        vectors = read_array(folder / "vectors.npy", mmap=True)
        labels = read_array(folder / "vector_labels.npy")
        loaded.add(labels, vectors)
        return loaded

    def info(self) -> dict[str, Any]:
        """Return kind, size, and bytes a vector."""
        return {
            "kind": self.kind,
            "vectors": len(self),
            "dimension": self.dimension,
            "bytes_per_vector": 4 * self._width + 8,
            "recall": 1.0,
        }


def _blocks(positions: NDArray[np.int64], width: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Cut positions of rows of `width` floats into (where it starts, part)."""
    step = max(1, _BLOCK_BYTES // (4 * width))
    for start in range(0, len(positions), step):
        yield start, positions[start : start + step]
