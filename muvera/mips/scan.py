"""ScanSearch: read a 4-bit code of every vector, then order the best by bytes."""

from __future__ import annotations

from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.ranking import best_first
from ..data.validation import read_only_view
from ..kernels.byte_product import multiply_rows, split_to_bytes
from ..kernels.scan import BLOCK, CENTROIDS, MAX_SUM, encode_rows, fit_centroids, make_tables, scan_codes
from ..utils.atomic_files import save_array
from ..utils.npy_files import load_npy
from ..utils.parallel import run_in_ranges, thread_count
from .base import (
    Found,
    Guard,
    SavedState,
    VectorSearch,
    checked_labels,
    checked_vectors,
    no_results,
)
from .exact import byte_depth, round_into

__all__ = ["ScanSearch", "scan_bytes"]

CODES, BYTES, SUMS, UNITS, LABELS = (
    f"vector_{name}.npy" for name in ("codes", "bytes", "sums", "units", "labels")
)
CENTROID_FILE, COLUMNS = "vector_centroids.npy", "vector_columns.npy"

# Vectors to fit the centroids on, and iterations.  They are fitted again each time the number of vectors has
# grown fourfold, until a full sample was used.
_SAMPLE, _ITERATIONS, _GROWTH = 16_384, 10, 4

# Number of vectors to order by bytes: this many per requested vector of 256 floats, more if vectors are
# shorter, because their codes are less accurate, and never fewer than the minimum.
_BY_BYTES, _MIN_BY_BYTES = 2, 256

# Rows that each query scans in turn while their codes are in the cache.
_TILE = 4096

# Maximum number of queries per pass over the codes; minimum number of rows per thread.
_TOGETHER, _ROWS_PER_THREAD = 16, 1 << 17

# Size of the result buffer, so that the best are selected rarely.
_ROOM = 32 * BLOCK

# Up to this many rows, all rows are ordered by bytes.
_FEW = 2048


class ScanSearch(VectorSearch):
    """Search by reading a short code of every vector.

    Each pair of columns has 16 centroids, so a code takes 4 bits per pair: 64 bytes for 256 floats.  A query
    scans the codes of all vectors and orders the best of them by vectors in bytes: twice `k` of 256 floats,
    more of shorter vectors.  Results are bit-identical for any number of threads.  The centroids are fitted
    on the first vectors; adding and removing vectors is cheap.

    Parameters
    ----------
    dimension : int
        Floats of a vector.
    """

    kind = "scan"

    def __init__(self, dimension: int) -> None:
        super().__init__(dimension)
        self._pairs = -(-self.dimension // 2)
        self._groups = -(-self._pairs // 2)
        self._columns: NDArray[np.int64] = np.arange(self.dimension)
        self._centroids: NDArray[np.float32] = np.zeros((self._pairs, 2, CENTROIDS), np.float32)
        self._fitted_on = 0
        self._codes: NDArray[np.uint8] = np.empty((0, self._groups, BLOCK), np.uint8)
        # A row per vector in the order of adding: bytes, 128 times their sum, and their unit.
        self._bytes: NDArray[np.int8] = np.empty((0, byte_depth(self.dimension)), np.int8)
        self._sums: NDArray[np.int32] = np.empty(0, np.int32)
        self._units: NDArray[np.float32] = np.empty(0, np.float32)
        self._labels: NDArray[np.int64] = np.empty(0, np.int64)
        self._alive: NDArray[np.uint8] = np.empty(0, np.uint8)
        self._count = 0
        self._removed = 0
        self._written = [0]  # rows in the arrays, shared by copies

    def __len__(self) -> int:
        return self._count - self._removed

    # -- changing -------------------------------------------------------------

    def _add(
        self, labels: NDArray[np.int64], vectors: NDArray[np.float32], threads: int | None, guard: Guard
    ) -> None:
        start, stop = self._count, self._count + len(vectors)
        if stop > len(self._labels) or self._written != [start]:
            self._reserve(-(-max(stop, len(self._labels) * 3 // 2) // BLOCK) * BLOCK)
        self._written[0] = stop
        # No search reads these rows yet.
        rows = slice(start, stop)
        errors = np.empty(len(vectors), np.float32)
        round_into([self._bytes[rows], self._sums[rows], self._units[rows], errors], 0, vectors, threads)
        if self._fitted_on < _SAMPLE and stop >= _GROWTH * self._fitted_on:
            self._fit(vectors, threads)
        self._encode(self._codes, start, vectors, threads)
        self._labels[rows] = labels
        self._alive[rows] = 1
        self._count = stop

    def _reserve(self, capacity: int) -> None:
        def grown(array: NDArray[Any], size: int) -> NDArray[Any]:
            larger = np.zeros((size, *array.shape[1:]), array.dtype)
            larger[: min(len(array), size)] = array[:size]
            return larger

        self._codes = grown(self._codes, capacity // BLOCK)
        self._bytes, self._sums, self._units, self._labels, self._alive = (
            grown(array[: self._count], capacity)
            for array in (self._bytes, self._sums, self._units, self._labels, self._alive)
        )
        self._written = [self._count]

    def _fit(self, vectors: NDArray[np.float32], threads: int | None) -> None:
        """Fit the centroids on a sample of the stored vectors and of new ones, and encode the stored ones again."""
        total = self._count + len(vectors)
        picked = np.sort(np.random.default_rng(0).permutation(total)[:_SAMPLE])
        sample = np.concatenate(
            [
                self._decoded(picked[picked < self._count]),
                vectors[picked[picked >= self._count] - self._count],
            ]
        )
        # Pair columns of large and small spread, so that 4 bits per pair lose less.
        order = np.argsort(-sample.astype(np.float64).var(axis=0), kind="stable")
        columns = np.empty(self.dimension, np.int64)
        columns[0::2] = order[: len(columns[0::2])]
        columns[1::2] = order[len(columns[0::2]) :][::-1]
        starts = np.random.default_rng(1).permutation(max(len(sample), CENTROIDS))[:CENTROIDS] % len(sample)
        centroids = np.empty_like(self._centroids)
        fit_centroids(self._paired(sample, columns), starts, _ITERATIONS, centroids)
        refitted = copy(self)
        refitted._columns, refitted._centroids = columns, centroids
        codes = np.zeros_like(self._codes)
        for first in range(0, self._count, _SAMPLE):
            rows = np.arange(first, min(first + _SAMPLE, self._count))
            refitted._encode(codes, first, self._decoded(rows), threads)
        self._columns, self._centroids, self._codes, self._fitted_on = columns, centroids, codes, total

    def _paired(self, vectors: NDArray[np.float32], columns: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return vectors with their columns in the order of pairs, and a column of zeros if their number is odd."""
        paired = np.zeros((len(vectors), 2 * self._pairs), np.float32)
        paired[:, : self.dimension] = vectors[:, columns]
        return paired

    def _encode(
        self, codes: NDArray[np.uint8], first: int, vectors: NDArray[np.float32], threads: int | None
    ) -> None:
        flat = codes.reshape(-1)

        def work(start: int, stop: int) -> None:
            paired = self._paired(vectors[start:stop], self._columns)
            encode_rows(paired, self._centroids, first + start, self._groups, flat)

        ranges = [(start, min(start + _TILE, len(vectors))) for start in range(0, len(vectors), _TILE)]
        run_in_ranges(work, ranges, threads)

    def can_add(self, labels: NDArray[np.int64]) -> bool:
        """Return True if :meth:`add` would accept all of these labels: each label is used once."""
        above = int(labels.min(initial=self.next_label)) >= self.next_label
        return above or not np.isin(labels, self._labels[: self._count]).any()

    def existing(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return those of `labels` that a search can return, ascending."""
        return np.intersect1d(labels, self.labels())

    def remove(self, labels: NDArray[np.int64]) -> None:
        """Exclude these vectors from later searches; their rows remain until the index is rebuilt."""
        rows = self._rows_of(labels)
        alive = self._alive.copy()
        alive[rows] = 0
        self._alive, self._removed = alive, self._removed + len(rows)

    def _rows_of(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        alive = np.flatnonzero(self._alive[: self._count])
        order = alive[np.argsort(self._labels[alive], kind="stable")]
        stored = self._labels[order]
        positions = np.searchsorted(stored, labels)
        found = positions < len(stored)
        found[found] = stored[positions[found]] == np.asarray(labels)[found]
        if not found.all():
            raise KeyError(f"label {np.asarray(labels)[~found][0]} does not exist.")
        rows: NDArray[np.int64] = order[positions]
        return rows

    # -- searching ------------------------------------------------------------

    def _search(
        self,
        queries: NDArray[np.float32],
        k: int,
        allowed: NDArray[np.int64] | None,
        threads: int | None,
        ef: int | None,
    ) -> Found:
        """Return the k best labels by bytes among the best 2 k by codes; ties go to the vector added first."""
        labels, scores = no_results(len(queries), k)
        mask = self._alive[: self._count]
        if allowed is not None:
            mask = mask * np.isin(self._labels[: self._count], allowed)
        visible = len(self) if allowed is None else int(mask.sum())
        wanted = max(k * max(_BY_BYTES, 256 * _BY_BYTES // self.dimension), _MIN_BY_BYTES)
        if visible <= max(wanted, _FEW):
            rows = np.flatnonzero(mask)
            candidates = [rows] * len(queries)
        else:
            unmasked = allowed is None and not self._removed
            candidates = self._scan(queries, mask[:0] if unmasked else mask, wanted, threads)

        def work(start: int, stop: int) -> None:
            for q in range(start, stop):
                products = self._products(queries[q : q + 1], candidates[q])[:, 0]
                best = best_first(products, k)
                labels[q, : len(best)] = self._labels[candidates[q][best]]
                scores[q, : len(best)] = products[best]

        run_in_ranges(work, _cut(len(queries), _TOGETHER), threads)
        return labels, scores

    def _scan(
        self, queries: NDArray[np.float32], mask: NDArray[np.uint8], wanted: int, threads: int | None
    ) -> list[NDArray[np.int64]]:
        """Return the `wanted` best rows by codes for each query, in ascending order."""
        limit = min(255, MAX_SUM // self._pairs)
        tables = np.empty((len(queries), self._groups * 2 * CENTROIDS), np.uint8)
        scratch = np.empty((self._pairs, CENTROIDS), np.float32)
        for table, query in zip(tables, self._paired(queries, self._columns), strict=True):
            make_tables(query, self._centroids, limit, scratch, table)
        parts = 1 if len(queries) > 1 else min(thread_count(threads), max(1, self._count // _ROWS_PER_THREAD))
        step = -(-self._count // parts // BLOCK) * BLOCK + BLOCK
        shares = [(start, min(start + step, self._count)) for start in range(0, self._count, step)]
        together = min(_TOGETHER, -(-len(queries) // thread_count(threads)))
        tasks = [(share, chunk) for chunk in _cut(len(queries), together) for share in shares]
        codes = read_only_view(self._codes).reshape(-1)
        room = wanted + _ROOM
        sums = np.empty((len(shares), len(queries), room), np.uint16)
        rows = np.empty((len(shares), len(queries), room), np.int64)
        found = np.empty((len(shares), len(queries)), np.int64)

        def work(start: int, stop: int) -> None:
            for (begin, end), (first, last) in tasks[start:stop]:
                share, own = shares.index((begin, end)), slice(first, last)
                scan_codes(
                    codes, self._groups, tables[own], read_only_view(mask), begin, end, _TILE, wanted,
                    sums[share, own], rows[share, own], found[share, own],
                )  # fmt: skip

        run_in_ranges(work, [(i, i + 1) for i in range(len(tasks))], threads)
        results = []
        for q in range(len(queries)):
            ends = found[:, q]
            own_rows = np.concatenate([rows[s, q, :end] for s, end in enumerate(ends)])
            if len(shares) > 1:
                own_sums = np.concatenate([sums[s, q, :end] for s, end in enumerate(ends)])
                own_rows = np.sort(own_rows[np.argsort(-own_sums.astype(np.int64), kind="stable")[:wanted]])
            results.append(own_rows)
        return results

    def _products(self, queries: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the products of the rows' bytes with queries rounded to 16 bits, (n, m)."""
        numbers = np.ascontiguousarray(self._bytes[rows])
        halves = np.zeros((2 * len(queries), numbers.shape[1]), np.uint8)
        query_units = np.empty(len(queries), np.float32)
        split_to_bytes(queries, halves, query_units)
        out = np.empty((len(rows), len(queries)), np.float32)
        multiply_rows(numbers, 0, len(rows), self._sums[rows], self._units[rows], halves, query_units, out)
        return out

    def measure_recall(
        self, queries: NDArray[np.float32], k: int, threads: int | None = None, *, ef: int | None = None
    ) -> float:
        """Return the share of the k best vectors by bytes that :meth:`search` finds, averaged over queries."""
        queries = checked_vectors(queries, self.dimension, "queries")
        k = min(k, len(self))
        if k == 0 or len(queries) == 0:
            return 1.0
        rows = np.flatnonzero(self._alive[: self._count])
        labels, _ = self.search(queries, k, threads=threads)
        shares = np.empty(len(queries))

        def work(start: int, stop: int) -> None:
            for q in range(start, stop):
                best = rows[best_first(self._products(queries[q : q + 1], rows)[:, 0], k)]
                shares[q] = np.isin(self._labels[best], labels[q]).mean()

        run_in_ranges(work, _cut(len(queries), 1), threads)
        return float(shares.mean())

    # -- reading and saving ---------------------------------------------------

    def labels(self) -> NDArray[np.int64]:
        """Return the labels that a search can return, ascending."""
        return np.sort(self._labels[: self._count][self._alive[: self._count] > 0])

    def vectors(self, labels: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the vectors of `labels`, decoded from their bytes."""
        return self._decoded(self._rows_of(labels))

    def _decoded(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        return self._bytes[rows, : self.dimension] * self._units[rows, np.newaxis]

    def info(self) -> dict[str, Any]:
        """Return kind, size and bytes per vector."""
        return {
            "kind": self.kind,
            "vectors": len(self),
            "dimension": self.dimension,
            "bytes_per_vector": scan_bytes(self.dimension),
        }

    def save(self, folder: Path) -> None:
        """Write the codes, the bytes and the centroids as ``.npy``."""
        count = self._count
        save_array(folder / CODES, self._codes[: -(-count // BLOCK)])
        save_array(folder / BYTES, self._bytes[:count])
        save_array(folder / SUMS, self._sums[:count])
        save_array(folder / UNITS, self._units[:count])
        save_array(folder / LABELS, self._labels[:count])
        save_array(folder / CENTROID_FILE, self._centroids)
        save_array(folder / COLUMNS, self._columns)

    @classmethod
    def load(cls, folder: Path, dimension: int, saved: SavedState) -> ScanSearch:
        """Map the files of :meth:`save`.

        Raises
        ------
        ValueError
            For damaged files or files of another dimension.
        """
        loaded = cls(dimension)
        labels = checked_labels(load_npy(folder / LABELS, mmap=False))
        count = len(labels)

        def read(name: str, wanted: NDArray[Any], length: int | None, mmap: bool = False) -> NDArray[Any]:
            array = load_npy(folder / name, mmap=mmap)
            shape = wanted.shape if length is None else (length, *wanted.shape[1:])
            if array.dtype != wanted.dtype or array.shape != shape:
                raise ValueError(
                    f"{folder / name} must be {wanted.dtype} {shape}, got {array.dtype} {array.shape}."
                )
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise ValueError(f"{folder / name} is damaged: it has a NaN or an infinity.")
            return array

        loaded._codes = read(CODES, loaded._codes, -(-count // BLOCK), mmap=True)
        loaded._bytes = read(BYTES, loaded._bytes, count, mmap=True)
        loaded._sums, loaded._units = read(SUMS, loaded._sums, count), read(UNITS, loaded._units, count)
        loaded._centroids = read(CENTROID_FILE, loaded._centroids, None)
        loaded._columns = read(COLUMNS, loaded._columns, None)
        if not np.array_equal(np.sort(loaded._columns), np.arange(dimension)):
            raise ValueError(f"{folder / COLUMNS} must be a permutation of 0 to {dimension - 1}.")
        loaded._labels, loaded._count, loaded._fitted_on = labels, count, count
        loaded.next_label, loaded._written = int(labels.max(initial=-1)) + 1, [count]
        loaded._alive = saved.among(labels).astype(np.uint8)
        loaded._removed = count - int(loaded._alive.sum())
        return loaded


def scan_bytes(dimension: int) -> int:
    """Return the bytes of a vector: code, bytes, their sum and unit, label, and the mark of removal."""
    return -(-dimension // 4) + byte_depth(dimension) + 4 + 4 + 8 + 1


def _cut(count: int, size: int) -> list[tuple[int, int]]:
    """Split 0..count into ranges of at most `size`."""
    return [(start, min(start + size, count)) for start in range(0, count, max(1, size))]
