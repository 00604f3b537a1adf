"""Exact search: every vector is read, in blocks, by a compiled product."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..inputs import frozen
from ..kernels.tile import LANES
from ..kernels.vectors import inner_products
from ..parallel import run_in_ranges
from ..ranking import best_first
from .base import Found, checked_labels, checked_queries, checked_vectors

__all__ = ["ExactSearch", "score_all"]

# Vectors of one task, and queries whose scores are held at once.
_TASK_BYTES = 4 << 20
_QUERIES = 64


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
        self.dimension = dimension
        self._width = -(-dimension // LANES) * LANES
        self._rows = np.empty((0, self._width), np.float32)
        self._labels = np.empty(0, np.int64)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(
        self, labels: NDArray[np.int64], vectors: NDArray[np.float32], threads: int | None = None
    ) -> None:
        """Add vectors under new labels; room grows by half, so that adding is linear."""
        vectors = checked_vectors(vectors, self.dimension)
        labels = checked_labels(labels, len(vectors))
        known = np.intersect1d(labels, self._labels[: self._count])
        if len(known):
            raise ValueError(f"label {known[0]} is in use.")
        needed = self._count + len(vectors)
        if needed > len(self._rows):
            room = max(needed, len(self._rows) * 3 // 2)
            rows = np.zeros((room, self._width), np.float32)
            rows[: self._count] = self._rows[: self._count]
            self._rows = rows
            self._labels = np.resize(self._labels, room)
        self._rows[self._count : needed, : self.dimension] = vectors
        self._labels[self._count : needed] = labels
        self._count = needed

    def remove(self, labels: NDArray[np.int64]) -> None:
        """Drop vectors; the others keep their order."""
        labels = checked_labels(labels)
        keep = ~np.isin(self._labels[: self._count], labels)
        if keep.sum() != self._count - len(labels):
            missing = np.setdiff1d(labels, self._labels[: self._count])
            raise KeyError(f"label {missing[0]} is not here.")
        self._rows = np.array(self._rows[: self._count][keep])
        self._labels = self._labels[: self._count][keep]
        self._count = len(self._labels)

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        allowed: NDArray[np.int64] | None = None,
        threads: int | None = None,
    ) -> Found:
        """Return the k best labels and their inner products; ties go to the earlier vector."""
        queries = checked_queries(queries, self.dimension, k, len(self))
        rows, labels = self._rows[: self._count], self._labels[: self._count]
        if allowed is not None:
            picked = np.isin(labels, allowed)
            rows, labels = rows[picked], labels[picked]
        found = np.full((len(queries), k), -1, np.int64)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        padded = np.zeros((len(queries), self._width), np.float32)
        padded[:, : self.dimension] = queries
        for start in range(0, len(queries), _QUERIES):
            products = score_all(rows, padded[start : start + _QUERIES], threads)
            for i, row in enumerate(np.ascontiguousarray(products.T)):
                best = best_first(row, k)
                found[start + i, : len(best)] = labels[best]
                scores[start + i, : len(best)] = row[best]
        return found, scores

    def labels(self) -> NDArray[np.int64]:
        """Return the labels that a search can return, ascending."""
        return np.sort(self._labels[: self._count])

    def vectors(self, labels: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the stored vectors of `labels`."""
        order = np.argsort(self._labels[: self._count])
        at = np.searchsorted(self._labels[: self._count], labels, sorter=order)
        return self._rows[order[at], : self.dimension]

    def save(self, folder: Path) -> None:
        """Write ``vectors.npy`` and ``vector_labels.npy``."""
        np.save(folder / "vectors.npy", self._rows[: self._count, : self.dimension])
        np.save(folder / "vector_labels.npy", self._labels[: self._count])

    @classmethod
    def load(cls, folder: Path, dimension: int) -> ExactSearch:
        """Read what :meth:`save` wrote."""
        loaded = cls(dimension)
        vectors = np.load(folder / "vectors.npy", allow_pickle=False)
        labels = np.load(folder / "vector_labels.npy", allow_pickle=False)
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
