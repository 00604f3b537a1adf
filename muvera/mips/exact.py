"""Exact search: every vector is read, in blocks, by a compiled product.

Beside the floats stand the same vectors in bytes, with the length of what rounding took from each.  A
query's product with that is at most the product of both lengths, so that the bytes' products tell which
vectors can be among the best: the floats of these alone are read.  The result has the bits of reading all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.ranking import best_first
from ..data.validation import read_only_view
from ..kernels.inner_products import inner_products, inner_products_at
from ..kernels.possible_best import group_floors, places_above
from ..kernels.tile import LANES
from ..utils.npy_files import load_npy
from ..utils.parallel import run_in_ranges
from .base import Found, SavedState, checked_dimension, none_found
from .flat import LABELS, Best, FlatSearch, blocks
from .rounded_rows import bytes_of_rounded, round_into, rounded_columns, rounded_products

__all__ = ["MAX_ROUNDED", "ExactSearch", "bytes_in_memory", "score_all", "score_among"]

#: Vectors of more floats have no bytes beside them.  The bound grows with the root of their number: at the
#: default FDE's 5,249 it left a tenth or more of all vectors to read.
MAX_ROUNDED = 2048

VECTORS = "vectors.npy"

# Vectors of one task.
_TASK_BYTES = 4 << 20

# From so many queries together on, the floats are read once for all of them, and the bytes save nothing.
_TOGETHER = 8

# Floats of all vectors from which on reading bytes first is faster, and the share of the vectors whose floats
# would have to be read after it that makes reading all of them in their order as fast.
_BYTES_FROM, _MOST_READ = 1 << 20, 0.25

# Groups of vectors for each of the k best: of two best in one group only the better counts for the bound.
_GROUPS = 8


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
        columns = {VECTORS: np.empty((0, self._width), np.float32)}
        self._rounded = dimension <= MAX_ROUNDED
        super().__init__(dimension, columns, rounded_columns(dimension) if self._rounded else ())

    def _write(self, start: int, vectors: NDArray[np.float32], threads: int | None) -> None:
        self._columns[0][start : start + len(vectors), : self.dimension] = vectors
        if self._rounded:
            round_into(self._columns[1:], start, vectors, threads)

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

    def _best(
        self, queries: NDArray[np.float32], picked: NDArray[np.int64] | None, k: int, threads: int | None
    ) -> Iterator[Best]:
        """Yield for each query the places of its k best within `picked`, and their scores."""
        count = self._count
        small = count * self._width < _BYTES_FROM or k > _MOST_READ * count
        if not self._rounded or small or picked is not None or len(queries) >= _TOGETHER:
            yield from super()._best(queries, picked, k, threads)
            return
        products = rounded_products(self._columns[1:], count, queries, threads)
        for query, row in zip(queries, np.ascontiguousarray(products.T), strict=True):
            places = self._possible_best(query, row, k)
            if places is None:
                yield from super()._best(query[np.newaxis], None, k, threads)
                continue
            scores = self._scores_at(query, places)
            best = best_first(scores, k)
            yield places[best], scores[best]

    def _scores_at(self, query: NDArray[np.float32], places: NDArray[np.int64]) -> NDArray[np.float32]:
        padded = np.zeros(self._width, np.float32)
        padded[: self.dimension] = query
        out = np.empty((len(places), 1), np.float32)
        inner_products_at(self._columns[0].reshape(-1), places, self._width, padded, 1, out)
        return out[:, 0]

    def _possible_best(
        self, query: NDArray[np.float32], products: NDArray[np.float32], k: int
    ) -> NDArray[np.int64] | None:
        """Return the places that can be among the k best by their products in bytes; None where most can."""
        length = np.float32(np.sqrt(np.square(query, dtype=np.float64).sum()) * 1.000001)
        # Below the normal numbers float32 has no relative precision.
        least = np.float32(self._width) * np.finfo(np.float32).tiny
        errors = self._columns[-1][: self._count]
        size = max(1, self._count // (_GROUPS * k))
        floors = np.empty(-(-self._count // size), np.float32)
        group_floors(products, errors, length, least, size, floors)
        edge = np.partition(floors, len(floors) - k)[len(floors) - k]
        if not np.isfinite(edge) or not np.isfinite(products).all():
            return None
        places = np.empty(int(_MOST_READ * self._count), np.int64)
        count = places_above(products, errors, length, least, edge, places)
        return places[:count] if count <= len(places) else None

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
        return {**super().info(), "bytes_per_vector": bytes_in_memory(self.dimension), "recall": 1.0}


def bytes_in_memory(dimension: int) -> int:
    """Return the bytes of a vector of so many floats: these, its bytes beside them and its label."""
    rounded = bytes_of_rounded(dimension) if dimension <= MAX_ROUNDED else 0
    return 4 * LANES * -(-dimension // LANES) + rounded + 8
