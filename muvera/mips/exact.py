"""ExactSearch: read every vector, as bytes before floats.

Each vector is also stored in signed bytes, with an upper bound of its rounding error.  For every query q, the
product computed from bytes differs from the exact one, and from that of the float32 kernel, by at most the
bound times the length of q.  So the products from bytes show which vectors can be among the best, and only
these are read as floats.  The result has the same bits as reading all floats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..data.ranking import best_first
from ..data.validation import read_only_view
from ..kernels.byte_product import multiply_rows, round_rows, split_to_bytes
from ..kernels.byte_tile import SPAN
from ..kernels.products import group_floors, inner_products, inner_products_at, places_above
from ..kernels.tile import LANES
from ..utils.atomic_files import save_array
from ..utils.npy_files import load_npy
from ..utils.parallel import run_in_ranges
from .base import Found, Guard, SavedState, VectorSearch, no_results
from .saved_graph import Floats, Labels

__all__ = [
    "MAX_ROUNDED",
    "ExactSearch",
    "byte_depth",
    "bytes_in_memory",
    "round_into",
    "score_all",
    "score_among",
]

#: Longer vectors have no bytes: the error bound grows with the root of their length, and with 5,249 floats, a
#: tenth or more of all vectors remained to be read.
MAX_ROUNDED = 2048

VECTORS, LABELS = "vectors.npy", "vector_labels.npy"

# Bytes of floats and of bytes that one task reads.
_FLOAT_TASK, _BYTE_TASK = 4 << 20, 1 << 20

# Bytes of rows copied at a time.
_BLOCK = 32 << 20

# Maximum number of queries whose scores are in memory at once, and maximum bytes of these scores.
_QUERIES, _SCORE_BYTES = 64, 256 << 20

# From this many queries on, the floats are read once for all of them, so bytes would save nothing.
_TOGETHER = 8

# Total floats from which reading bytes first is faster, and the share of remaining vectors above which it is
# not.
_BYTES_FROM, _MOST_READ = 1 << 20, 0.25

# Groups of vectors per wanted vector: if two of the best are in one group, only one counts for the bound.
_GROUPS = 8


class ExactSearch(VectorSearch):
    """Search by computing every inner product.

    Recall is 1.  Time and memory traffic grow with ``n * dimension``; for up to about 100,000 short vectors
    this is faster than a graph.

    Parameters
    ----------
    dimension : int
        Floats of a vector.
    """

    kind = "exact"

    def __init__(self, dimension: int) -> None:
        super().__init__(dimension)
        self._width = -(-self.dimension // LANES) * LANES
        # A row per vector in the order of adding: floats, and bytes, sums, units and errors.
        self._columns: list[NDArray[Any]] = [np.empty((0, self._width), np.float32)]
        if self.dimension <= MAX_ROUNDED:
            self._columns += [
                np.empty((0, byte_depth(self.dimension)), np.int8),
                *(np.empty(0, kind) for kind in (np.int32, np.float32, np.float32)),
            ]
        self._labels = np.empty(0, np.int64)
        self._count = 0
        self._written = [0]  # rows in the arrays, shared by copies
        self._alive: NDArray[np.int64] | None = None  # rows that were not removed, ascending; None: all

    def __copy__(self) -> ExactSearch:
        copied = ExactSearch.__new__(ExactSearch)
        vars(copied).update(vars(self), _columns=list(self._columns))
        return copied

    def __len__(self) -> int:
        return self._count if self._alive is None else len(self._alive)

    def _add(self, labels: Labels, rows: Floats, threads: int | None, guard: Guard) -> None:
        start, stop = self._count, self._count + len(rows)
        if stop > len(self._labels) or self._written != [start]:
            self._reserve(max(stop, len(self._labels) * 3 // 2))  # so that adding takes linear time
        self._written[0] = stop
        # No search reads these rows yet.
        self._columns[0][start:stop, : self.dimension] = rows
        if len(self._columns) > 1:
            round_into(self._columns[1:], start, rows, threads)
        self._labels[start:stop] = labels
        alive = None if self._alive is None else np.append(self._alive, np.arange(start, stop))
        self._alive, self._count = alive, stop

    def _reserve(self, capacity: int) -> None:
        for i, column in enumerate(self._columns):
            grown = np.zeros((capacity, *column.shape[1:]), column.dtype)
            grown[: self._count] = column[: self._count]
            self._columns[i] = grown
        self._labels = np.resize(self._labels, capacity)
        self._written = [self._count]

    def can_add(self, labels: Labels) -> bool:
        """Return True if :meth:`add` would accept all of these labels."""
        # An index numbers its rows upwards, so one comparison usually decides.
        above = int(labels.min(initial=self.next_label)) >= self.next_label
        return above or not np.isin(labels, self._labels[: self._count]).any()

    @property
    def _names(self) -> Labels:
        """Labels in the order of adding, without removed ones."""
        names = self._labels[: self._count]
        return names if self._alive is None else names[self._alive]

    def existing(self, labels: Labels) -> Labels:
        """Return those of `labels` that a search can return, ascending."""
        return np.intersect1d(labels, self._names)

    def remove(self, labels: Labels) -> None:
        """Skip these vectors in every later search; their rows remain until the index is rebuilt."""
        names = self._names
        keep = ~np.isin(names, labels)
        if keep.sum() != len(names) - len(labels):
            raise KeyError(f"label {np.setdiff1d(labels, names)[0]} does not exist.")
        rows = np.arange(self._count) if self._alive is None else self._alive
        self._alive = None if keep.all() and self._alive is None else rows[keep]

    # -- searching ------------------------------------------------------------

    def _search(
        self, queries: Floats, k: int, allowed: Labels | None, threads: int | None, ef: int | None
    ) -> Found:
        """Return the k best; ties go to the vector that was added first."""
        labels, rows = self._names, None
        if allowed is not None:
            rows = np.flatnonzero(np.isin(labels, allowed))
            labels = labels[rows]
            rows = rows if self._alive is None else self._alive[rows]
        best_labels, best_scores = no_results(len(queries), k)
        step = max(1, min(_QUERIES, _SCORE_BYTES // (4 * max(1, len(labels)))))
        for start in range(0, len(queries), step):
            results = self._best(queries[start : start + step], rows, k, threads)
            for i, (best, scores) in enumerate(results, start):
                best_labels[i, : len(best)] = labels[best]
                best_scores[i, : len(best)] = scores
        return best_labels, best_scores

    def _best(
        self, queries: Floats, rows: NDArray[np.int64] | None, k: int, threads: int | None
    ) -> Iterator[tuple[Labels, Floats]]:
        """Yield for each query the positions of the k best within `rows` (or all), and their scores."""
        small = self._count * self._width < _BYTES_FROM or k > _MOST_READ * len(self)
        if len(self._columns) == 1 or small or rows is not None or len(queries) >= _TOGETHER:
            yield from self._best_by_floats(queries, rows, k, threads)
            return
        products = self._byte_products(queries, threads)
        for query, own in zip(queries, np.ascontiguousarray(products.T), strict=True):
            positions = self._possible_best(query, own, k)
            if positions is None:
                yield from self._best_by_floats(query[np.newaxis], None, k, threads)
                continue
            scores = np.empty((len(positions), 1), np.float32)
            packed = self._padded(query[np.newaxis])[0]
            own_rows = positions if self._alive is None else self._alive[positions]
            inner_products_at(self._columns[0].reshape(-1), own_rows, self._width, packed, 1, scores)
            best = best_first(scores[:, 0], k)
            yield positions[best], scores[best, 0]

    def _best_by_floats(
        self, queries: Floats, rows: NDArray[np.int64] | None, k: int, threads: int | None
    ) -> Iterator[tuple[Labels, Floats]]:
        padded, floats = self._padded(queries), self._columns[0]
        if rows is None:
            products = self._without_removed(score_all(floats[: self._count], padded, threads))
        else:
            products = np.empty((len(rows), len(queries)), np.float32)
            for start, block in _blocks(rows, 4 * self._width):
                products[start : start + len(block)] = score_all(floats[block], padded, threads)
        for scores in np.ascontiguousarray(products.T):
            best = best_first(scores, k)
            yield best, scores[best]

    def _without_removed(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return the rows of `values`, one per vector, that belong to vectors that were not removed."""
        return values if self._alive is None else values[self._alive]

    def _padded(self, queries: Floats) -> Floats:
        padded = np.zeros((len(queries), self._width), np.float32)
        padded[:, : self.dimension] = queries
        return padded

    def _byte_products(self, queries: Floats, threads: int | None) -> Floats:
        """Return the products of all rounded vectors with queries rounded to 16 bits, (n, m)."""
        numbers, sums, units, _ = self._columns[1:]
        halves = np.zeros((2 * len(queries), numbers.shape[1]), np.uint8)
        query_units = np.empty(len(queries), np.float32)
        split_to_bytes(queries, halves, query_units)
        out = np.empty((self._count, len(queries)), np.float32)

        def work(start: int, stop: int) -> None:
            multiply_rows(numbers, start, stop, sums, units, halves, query_units, out[start:stop])

        run_in_ranges(
            work, _ranges(self._count, _BYTE_TASK // numbers.shape[1]), threads, numbers.size * len(queries)
        )
        return cast(Floats, self._without_removed(out))

    def _possible_best(self, query: Floats, products: Floats, k: int) -> NDArray[np.int64] | None:
        """Return the positions of vectors that can be among the k best; None if there are too many."""
        length = np.float32(np.sqrt(np.square(query, dtype=np.float64).sum()) * 1.000001)
        # Subnormal numbers of float32 have no relative precision.
        least = np.float32(self._width) * np.finfo(np.float32).tiny
        errors = self._without_removed(self._columns[-1][: self._count])
        count = len(products)
        size = max(1, count // (_GROUPS * k))
        floors = np.empty(-(-count // size), np.float32)
        group_floors(products, errors, length, least, size, floors)
        edge = np.partition(floors, len(floors) - k)[len(floors) - k]
        if not np.isfinite(edge) or not np.isfinite(products).all():
            return None
        positions = np.empty(int(_MOST_READ * count), np.int64)
        count = places_above(products, errors, length, least, edge, positions)
        return positions[:count] if count <= len(positions) else None

    def measure_recall(
        self, queries: Floats, k: int, threads: int | None = None, *, ef: int | None = None
    ) -> float:
        """Return 1: every vector is read."""
        return 1.0

    # -- reading and saving ---------------------------------------------------

    def labels(self) -> Labels:
        """Return the labels that a search can return, ascending."""
        return np.sort(self._names)

    def vectors(self, labels: Labels) -> Floats:
        """Return the stored vectors of `labels`."""
        stored = self._names
        missing = np.setdiff1d(labels, stored)
        if len(missing):
            raise KeyError(f"label {missing[0]} does not exist.")
        order = np.argsort(stored)
        rows = order[np.searchsorted(stored, labels, sorter=order)]
        rows = rows if self._alive is None else self._alive[rows]
        floats: Floats = self._columns[0][rows, : self.dimension]
        return floats

    def info(self) -> dict[str, Any]:
        """Return kind, size and bytes per vector."""
        size = bytes_in_memory(self.dimension)
        return {
            "kind": self.kind,
            "vectors": len(self),
            "dimension": self.dimension,
            "bytes_per_vector": size,
            "recall": 1.0,
        }

    def save(self, folder: Path) -> None:
        """Write the vectors and the labels as ``.npy``."""
        rows = slice(self._count) if self._alive is None else self._alive
        save_array(folder / VECTORS, self._columns[0][rows, : self.dimension])
        save_array(folder / LABELS, self._names)

    @classmethod
    def load(cls, folder: Path, dimension: int, saved: SavedState) -> ExactSearch:
        """Load the files of :meth:`save`; raise ValueError for damaged ones, see :class:`VectorSearch`."""
        loaded = cls(dimension)
        # Memory-mapped because `add` copies: memory holds the vectors once.
        loaded.add(load_npy(folder / LABELS, mmap=False), load_npy(folder / VECTORS))
        return loaded


def bytes_in_memory(dimension: int) -> int:
    """Return the bytes that a vector takes in memory: floats, bytes and label."""
    rounded = byte_depth(dimension) + 4 + 4 + 4 if dimension <= MAX_ROUNDED else 0
    return 4 * LANES * -(-dimension // LANES) + rounded + 8


def score_all(vectors: Floats, queries: Floats, threads: int | None = None) -> Floats:
    """Return the inner products of vectors and queries, float32 (n, m).

    Both are float32 rows of one width, a multiple of LANES.
    """
    width = vectors.shape[1]
    out = np.empty((len(vectors), len(queries)), np.float32)
    flat, packed = read_only_view(vectors).reshape(-1), read_only_view(queries).reshape(-1)

    def work(start: int, stop: int) -> None:
        inner_products(flat, start, stop, width, packed, len(queries), out[start:stop])

    run_in_ranges(
        work, _ranges(len(vectors), _FLOAT_TASK // (4 * width)), threads, vectors.size * len(queries)
    )
    return out


def score_among(
    labels: Labels,
    read: Callable[[Labels], Floats],
    queries: Floats,
    k: int,
    threads: int | None = None,
) -> Found:
    """Return the k best of `labels`; `read` returns their vectors, a block at a time."""
    best_labels, best_scores = no_results(len(queries), k)
    dimension = queries.shape[1]
    width = -(-dimension // LANES) * LANES
    padded = np.zeros((len(queries), width), np.float32)
    padded[:, :dimension] = queries
    for _, block in _blocks(labels, 4 * width):
        rows = np.zeros((len(block), width), np.float32)
        rows[:, :dimension] = read(block)
        products = score_all(rows, padded, threads).T
        scores = np.concatenate([best_scores, products], axis=1)
        names = np.concatenate([best_labels, np.broadcast_to(block, products.shape)], axis=1)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        best_scores, best_labels = np.take_along_axis(scores, best, 1), np.take_along_axis(names, best, 1)
    return best_labels, best_scores


def byte_depth(dimension: int) -> int:
    """Return the bytes of a rounded vector."""
    return -(-dimension // SPAN) * SPAN


def round_into(columns: list[NDArray[Any]], start: int, vectors: Floats, threads: int | None) -> None:
    """Round finite vectors (n, dimension) into the rows of `columns` from `start` on."""
    dimension = vectors.shape[1]
    root = float(np.sqrt(dimension))
    # Further parts of the error, in units of the vector's length.  A query's entries are off by half of
    # 1/32,767 of the greatest, times the rounded vector, which may be longer than the vector is; float32 sums
    # are off by half a unit in the last place per entry (twice that is counted here, and some more).
    slack = root / 65_000 * (1 + root / 254) + (dimension + 16) * 2.0**-23

    def work(first: int, stop: int) -> None:
        round_rows(vectors[first:stop], slack, *(column[start + first : start + stop] for column in columns))

    run_in_ranges(work, _ranges(len(vectors), _BYTE_TASK // (4 * dimension)), threads)


def _ranges(count: int, step: int) -> list[tuple[int, int]]:
    step = max(1, step)
    return [(start, min(start + step, count)) for start in range(0, count, step)]


def _blocks(rows: NDArray[np.int64], row_bytes: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield (start, block) of rows; a block has at most _BLOCK bytes."""
    step = max(1, _BLOCK // max(1, row_bytes))
    for start in range(0, len(rows), step):
        yield start, rows[start : start + step]
