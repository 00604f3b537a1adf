"""ExactSearch: read every vector, as bytes before floats.

Each vector is also stored in signed bytes, with an upper bound of its rounding error.
The product computed from bytes differs from the product of the float32 kernel by at
most this bound times the length of the query.  So only vectors that can be among the
best are read as floats, and the result has the same bits as reading all floats.
"""

from __future__ import annotations

import math
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..kernels.byte_product import (
    Bounds,
    bound_products,
    multiply_possible,
    multiply_rows,
    round_rows,
    split_to_bytes,
)
from ..kernels.byte_tile import SPAN
from ..kernels.tile import LANES
from ..utils.arrays import GrowingArray, load_npy, save_array
from ..utils.parallel import run_in_ranges, split_by_count
from .base import (
    Floats,
    Found,
    Keep,
    Labels,
    Saved,
    SavedState,
    VectorSearch,
    padded,
    score_among,
)

#: Files of a saved search.
VECTORS = "vectors.npy"
LABELS = "vector_labels.npy"

# Bytes of rounded vectors that one task reads.
_BYTE_TASK = 1 << 20

# Maximum number of queries that share the reading of bytes.
_TOGETHER = 8

# Total floats from which reading bytes first is faster.
_BYTES_FROM = 1 << 20

# Share of vectors that must be read as floats from which reading bytes first is slower.
_MOST_READ = 0.25

# An empty array of rows, with which kernels search all rows.
_ALL = np.empty(0, np.int64)

# The smallest normal number.
_TINY = np.finfo(np.float32).tiny

# Groups of vectors per wanted vector: if two of the best are in one group, only one
# counts for the bound.
_GROUPS = 8


class ExactSearch(VectorSearch):
    """Search by computing every inner product.

    For up to about 100,000 short vectors this is faster than a graph.
    """

    kind = "exact"

    def __init__(self, dimension: int) -> None:
        super().__init__(dimension)
        self._width = -(-self.dimension // LANES) * LANES
        # A row per vector in the order of adding: the label and the floats, and bytes,
        # sums, units and errors.
        self._labels = GrowingArray(np.empty(0, np.int64))
        none = np.empty((0, self.dimension), np.float32)
        columns = [np.empty((0, self._width), np.float32), *rounded(none, 1)]
        self._columns = [GrowingArray(column) for column in columns]

    def _add(self, labels: Labels, rows: Floats, threads: int | None) -> None:
        new = [padded(rows), *rounded(rows, threads)]
        all_labels, *columns = (copy(column) for column in (self._labels, *self._columns))
        for column, values in zip([all_labels, *columns], [labels, *new], strict=True):
            column.extend(values)
        self._labels, self._columns = all_labels, columns

    def _rows_of(self, labels: Labels) -> NDArray[np.int64]:
        return np.searchsorted(self._labels.values, labels)

    # -- searching ------------------------------------------------------------

    def _search(
        self, queries: Floats, best: Found, allowed: Labels | None, threads: int | None, ef: int | None
    ) -> None:
        """Write the best; ties go to the vector that was added first."""
        rows = None
        k = best[0].shape[1]
        if allowed is not None or len(self) < len(self._labels):
            rows = self._rows_of(self.labels() if allowed is None else self.existing(allowed))
        by_bytes = allowed is None and k <= _MOST_READ * len(self)
        if not by_bytes or len(self._labels) * self._width < _BYTES_FROM:
            self._by_floats(queries, best, rows, threads)
            return
        for start, stop in split_by_count(len(queries), _TOGETHER):
            self._by_bytes(queries[start:stop], (best[0][start:stop], best[1][start:stop]), rows, threads)

    def _by_floats(
        self, queries: Floats, best: Found, rows: NDArray[np.int64] | None, threads: int | None
    ) -> None:
        """Write the best of `rows`, or of all, by floats."""
        floats = self._columns[0].values
        labels = self._labels.values
        if rows is None:
            return score_among(labels, lambda a, b: floats[a:b], queries, best, threads)
        return score_among(labels[rows], lambda a, b: floats[rows[a:b]], queries, best, threads)

    def _byte_products(self, queries: Floats, threads: int | None) -> Floats:
        """Return the products of rounded queries with all rounded vectors, (m, n).

        Queries are rounded to 16 bits.
        """
        numbers, sums, units = (column.values for column in self._columns[1:-1])
        halves = np.zeros((2 * len(queries), numbers.shape[1]), np.uint8)
        query_units = np.empty(len(queries), np.float32)
        split_to_bytes(queries, halves, query_units)
        out = np.empty((len(queries), len(numbers)), np.float32)

        def work(start: int, stop: int) -> None:
            multiply_rows(numbers, start, stop, sums, units, halves, query_units, out)

        ranges = split_by_count(len(numbers), _BYTE_TASK // numbers.shape[1])
        run_in_ranges(work, ranges, threads, numbers.size * len(queries))
        return out

    def _by_bytes(
        self, queries: Floats, best: Found, rows: NDArray[np.int64] | None, threads: int | None
    ) -> None:
        """Write the best of `rows`, or of all.

        Only vectors that can be among them by bytes are read as floats.
        """
        products = self._byte_products(queries, threads)
        errors = self._columns[-1].values
        chosen = _ALL
        if rows is not None:
            products, errors, chosen = products.take(rows, axis=1), errors[rows], rows
        k = best[0].shape[1]
        count, size = products.shape
        # The k-th best of the groups' best lower bounds is at most the k-th best
        # product.
        groups = min(_GROUPS * k, size)
        most = int(_MOST_READ * size)
        # Subnormal numbers of float32 have no relative precision.
        least = np.float32(queries.shape[1] + LANES) * _TINY
        limits = Bounds(errors, np.empty(count, np.float32), least)
        lanes = padded(queries)
        bounds = np.empty((count, groups), np.float32)
        bound_products(products, limits, lanes, bounds)
        edges = np.partition(bounds, groups - k)[:, groups - k]
        possible = np.zeros((count, most), np.int64)
        exact = np.empty((count, most), np.float32)
        counts = np.empty(count, np.int64)
        vectors = self._columns[0].values
        largest = multiply_possible(products, limits, lanes, edges, vectors, chosen, possible, exact, counts)
        exact = exact[:, :largest]
        at = np.arange(count)[:, np.newaxis], (-exact).argsort(axis=1, kind="stable")[:, :k]
        best[1][:] = exact[at]
        best[0][:] = np.where(best[1] > -np.inf, self._labels.values[possible[at]], -1)
        for q in np.flatnonzero(counts > most) if largest > most else ():
            single = slice(q, q + 1)
            self._by_floats(queries[single], (best[0][single], best[1][single]), rows, threads)

    # -- reading and saving ---------------------------------------------------

    def _stored(self, labels: Labels) -> Floats:
        floats: Floats = self._columns[0].values[self._rows_of(labels), : self.dimension]
        return floats

    def info(self) -> dict[str, Any]:
        """Return kind, size, recall and bytes per vector."""
        arrays = [column.values for column in (self._labels, *self._columns)]
        size = sum(array.itemsize * math.prod(array.shape[1:]) for array in arrays)
        return {**super().info(), "bytes_per_vector": size, "recall": 1.0}

    def save(self, folder: Path, keep: Keep) -> Saved:
        """Write the vectors and the labels as ``.npy``."""
        names = self.labels()
        rows = slice(None) if len(names) == len(self._labels) else self._rows_of(names)
        save_array(folder / VECTORS, self._columns[0].values[rows, : self.dimension])
        save_array(folder / LABELS, names)
        return {}, []

    def read(self, folder: Path, saved: SavedState) -> None:
        """Read the labels and the vectors."""
        # Memory-mapped because `add` copies: memory holds the vectors once.
        self.add(load_npy(folder / LABELS, mmap=False), load_npy(folder / VECTORS))


def byte_depth(dimension: int) -> int:
    """Return the bytes of a rounded vector."""
    return -(-dimension // SPAN) * SPAN


def rounded(vectors: Floats, threads: int | None) -> list[NDArray[Any]]:
    """Round vectors to bytes, see :func:`round_rows`.

    Return int8 (n, depth), and for each vector the sum of its bytes, its unit and its
    error.
    """
    count, dimension = vectors.shape
    columns: list[NDArray[Any]] = [
        np.zeros((count, byte_depth(dimension)), np.int8),
        *(np.empty(count, kind) for kind in (np.int32, np.float32, np.float32)),
    ]
    root = float(np.sqrt(dimension))
    # Two further errors, in units of the vector's length.  Rounding a query changes
    # each entry by at most half of 1/32,767 of its largest entry.  The rounded vector,
    # which may be longer than the vector, multiplies this error.  A float32 sum is off
    # by half a unit in the last place per entry; twice that is counted, and 16 entries
    # more.
    slack = root / 65_000 * (1 + root / 254) + (dimension + 16) * 2.0**-23

    def work(start: int, stop: int) -> None:
        round_rows(vectors[start:stop], slack, *(column[start:stop] for column in columns))

    run_in_ranges(work, split_by_count(count, _BYTE_TASK // (4 * dimension)), threads)
    return columns
