"""Exact search: every vector is read, in blocks, by a compiled product."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.validation import read_only_view
from ..kernels.inner_products import inner_products
from ..kernels.tile import LANES
from ..utils.npy_files import load_npy
from ..utils.parallel import run_in_ranges
from .base import Found, SavedState, checked_dimension, none_found
from .flat import LABELS, FlatSearch, blocks

__all__ = ["ExactSearch", "score_all", "score_among"]

VECTORS = "vectors.npy"

# Vectors of one task.
_TASK_BYTES = 4 << 20


def score_all(
    vectors: NDArray[np.float32], queries: NDArray[np.float32], threads: int | None = None
) -> NDArray[np.float32]:
    """Return the inner products of all vectors with all queries, float32 (n, m).

    Both are float32 rows of one width, a multiple of LANES.
    """
    width = vectors.shape[1]
    out = np.empty((len(vectors), len(queries)), np.float32)
    flat, packed = read_only_view(vectors).reshape(-1), read_only_view(queries).reshape(-1)
    step = max(1, _TASK_BYTES // (4 * width))
    ranges = [(start, min(start + step, len(vectors))) for start in range(0, len(vectors), step)]

    def work(start: int, stop: int) -> None:
        inner_products(flat, start, stop, width, packed, len(queries), out[start:stop])

    run_in_ranges(work, ranges, threads)
    return out


def score_among(
    labels: NDArray[np.int64],
    stored: Callable[[NDArray[np.int64]], NDArray[np.float32]],
    queries: NDArray[np.float32],
    k: int,
    dimension: int,
    block_bytes: int,
    threads: int | None = None,
) -> Found:
    """Return the k best of `labels`, whose vectors `stored` returns, scored one by one, a block at a time."""
    found, scores = none_found(queries, k)
    width = -(-dimension // LANES) * LANES
    padded = np.zeros((len(queries), width), np.float32)
    padded[:, :dimension] = queries
    step = max(1, block_bytes // (4 * width))
    for start in range(0, len(labels), step):
        part = labels[start : start + step]
        rows = np.zeros((len(part), width), np.float32)
        rows[:, :dimension] = stored(part)
        products = score_all(rows, padded, threads).T
        merged = np.concatenate([scores, products], axis=1)
        names = np.concatenate([found, np.broadcast_to(part, products.shape)], axis=1)
        best = np.argsort(-merged, axis=1, kind="stable")[:, :k]
        scores, found = np.take_along_axis(merged, best, 1), np.take_along_axis(names, best, 1)
    return found, scores


class ExactSearch(FlatSearch):
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
        self._width = -(-checked_dimension(dimension) // LANES) * LANES
        super().__init__(dimension, {VECTORS: np.empty((0, self._width), np.float32)})

    def _write(self, start: int, vectors: NDArray[np.float32], threads: int | None) -> None:
        self._columns[0][start : start + len(vectors), : self.dimension] = vectors

    def _products(
        self, queries: NDArray[np.float32], picked: NDArray[np.int64] | None, threads: int | None
    ) -> NDArray[np.float32]:
        padded = np.zeros((len(queries), self._width), np.float32)
        padded[:, : self.dimension] = queries
        rows = self._columns[0]
        if picked is None:
            return score_all(rows[: self._count], padded, threads)
        out = np.empty((len(picked), len(queries)), np.float32)
        for start, part in blocks(picked, 4 * self._width):
            out[start : start + len(part)] = score_all(rows[part], padded, threads)
        return out

    def _read(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        return self._columns[0][positions, : self.dimension]

    @property
    def floats(self) -> NDArray[np.float32]:
        """The vectors in the order of adding, a view."""
        return self._columns[0][: self._count, : self.dimension]

    def measure_recall(
        self, queries: NDArray[np.float32], k: int, threads: int | None = None, *, ef: int | None = None
    ) -> float:
        """Return 1: every vector is read."""
        return 1.0

    def _saved(self, column: NDArray[Any]) -> NDArray[Any]:
        return column[:, : self.dimension]

    @classmethod
    def load(cls, folder: Path, dimension: int, saved: SavedState) -> ExactSearch:
        """Read what :meth:`save` wrote.

        Raises
        ------
        ValueError
            For files of another dimension or damaged ones.
        """
        loaded = cls(dimension)
        # Mapped, for `add` copies: memory holds them once.
        vectors = load_npy(folder / VECTORS)
        labels = load_npy(folder / LABELS, mmap=False)
        loaded.add(labels, vectors)
        return loaded

    def info(self) -> dict[str, Any]:
        """Return kind, size, and bytes a vector."""
        return {**super().info(), "bytes_per_vector": 4 * self._width + 8, "recall": 1.0}
