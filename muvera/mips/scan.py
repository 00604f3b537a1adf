"""ScanSearch: scan compact codes, then reorder the best vectors by int8 products.

A code has 4 bits per pair of floats.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.ranking import best_first
from ..data.validation import read_only_view
from ..kernels.byte_product import split_to_bytes
from ..kernels.scan import (
    BLOCK,
    CENTROIDS,
    ROOM,
    find_best,
    keep_best,
    make_tables,
    multiply_rows_at,
    scan_codes,
)
from ..utils.arrays import load_npy, save_array
from ..utils.parallel import SMALL, run_in_ranges, split_by_count, thread_count
from .base import (
    Floats,
    Found,
    Keep,
    Labels,
    Saved,
    SavedState,
    VectorSearch,
    checked_labels,
)
from .codebook import Codebook, are_columns
from .exact import byte_depth, rounded

#: Files of a saved search.
CODES = "vector_codes.npy"
BYTES = "vector_bytes.npy"
SUMS = "vector_sums.npy"
UNITS = "vector_units.npy"
LABELS = "vector_labels.npy"
CENTROID_FILE = "vector_centroids.npy"
COLUMNS = "vector_columns.npy"

# Number of vectors to fit the centroids on.
_SAMPLE = 16_384

# The centroids are fitted again each time the number of vectors has grown by this
# factor, until a full sample was used.
_GROWTH = 4

# From this number of vectors on, columns with little variance get no codes.  Reading
# the codes then takes most of the time, and the saved time outweighs the lost recall.
_MANY = 262_144

# Number of vectors to order by bytes per requested vector of 256 floats.  Shorter
# vectors get more, because their codes are less accurate.
_BY_BYTES = 2

# _BY_BYTES is multiplied by this factor if only some columns are coded.  On Debian's
# descriptions by `static`, 43,844 texts, 4 loses .003 of the recall at 500 candidates.
_BY_BYTES_OF_PART = 6

# Smallest number of vectors to order by bytes.
_MIN_BY_BYTES = 256

# The same if only some columns are coded.  With 256, the same texts lose .019 of the
# recall at 50 candidates.
_MIN_BY_BYTES_OF_PART = 2048

# Maximum number of queries per pass over the codes.
_TOGETHER = 16

# Blocks per task if several threads share one query.
_BLOCKS_PER_TASK = 1 << 12

# Table lookups that take as long as one multiplication and addition.
_PER_MULTIPLICATION = 2

# Codes of at most this many bytes stay in the cache, so reading them once for several
# queries saves nothing.
_CACHED = 1 << 20

# Up to this many rows, all rows are ordered by bytes.
_FEW = 2048

# Merge a part if it has at most this many times the rows of the parts after it.
_MERGED = 2


@dataclass(frozen=True, eq=False)
class Part:
    """The codes and the bytes of consecutive rows."""

    #: First row.
    first: int
    #: (blocks, bytes, BLOCK), see :meth:`Codebook.new_codes`.
    codes: NDArray[np.uint8]
    #: Rounded vectors (n, depth).
    bytes: NDArray[np.int8]
    #: Folder with the saved files; None if they are not saved yet.
    folder: Path | None = None

    @property
    def count(self) -> int:
        """Number of rows."""
        return len(self.bytes)


@dataclass(frozen=True, eq=False)
class _Searched:
    """The rows that a search can return."""

    parts: tuple[Part, ...]
    #: True for each label that is not removed; with `parts`, the key of the cache.
    alive: NDArray[np.bool_]
    #: True for each row that the search can return.
    visible: NDArray[np.bool_]
    #: Number of visible rows.
    count: int
    #: The same as `visible` for each part, one bit per row.
    words: list[NDArray[np.uint64]]


class ScanSearch(VectorSearch):
    """Search by reading a short code of every vector.

    A code has 4 bits per pair of columns, which has 16 centroids.  The best by codes
    are reordered by their int8 vectors.  Results are bit-identical for any number of
    threads.  The centroids are fitted again each time the number of vectors has
    quadrupled, until they were fitted on 16,384, and once there are 262,144; all
    vectors then get new codes.  From 262,144 vectors on, only half of the columns (or a
    quarter, and so on) are coded, if these have 97% of the squared variances.
    Otherwise, adding and removing vectors is cheap.  A save writes new codes and bytes,
    and 16 bytes per stored vector.
    """

    kind = "scan"

    def __init__(self, dimension: int) -> None:
        super().__init__(dimension)
        self._depth = byte_depth(self.dimension)
        #: Columns in pairs and their centroids; replaced by each fit.
        self.codebook = Codebook.empty(self.dimension)
        self._fitted_on = 0
        self._parts: tuple[Part, ...] = ()
        # By row: its label, 128 times the sum of its bytes, and their unit.
        self._labels: Labels = np.empty(0, np.int64)
        self._sums: NDArray[np.int32] = np.empty(0, np.int32)
        self._units: NDArray[np.float32] = np.empty(0, np.float32)
        self._cached: _Searched | None = None

    # -- changing -------------------------------------------------------------

    def _add(self, labels: Labels, rows: Floats, threads: int | None) -> None:
        first = len(self._labels)
        count = len(rows)
        total = first + count
        grown = self._fitted_on < _SAMPLE and total >= _GROWTH * self._fitted_on
        if grown or self._fitted_on < _MANY <= total:
            self._fit(rows, threads)
        numbers, sums, units, _ = rounded(rows, threads)
        codes = self.codebook.new_codes(count)
        self.codebook.encode(codes, 0, rows, threads)
        parts = (*self._parts, Part(first, codes, numbers))
        parts = self._merged(parts, len(parts) - 1, lambda part: part.folder is None)
        labels = np.append(self._labels, labels)
        sums = np.append(self._sums, sums)
        units = np.append(self._units, units)
        self._parts, self._labels, self._sums, self._units = parts, labels, sums, units

    def _merged(self, parts: tuple[Part, ...], first: int, may: Callable[[Part], bool]) -> tuple[Part, ...]:
        """Merge the parts from `first` on into one.

        Include small earlier parts for which ``may(part)`` is true.
        """
        rows = sum(part.count for part in parts[first:])
        while rows and first and may(parts[first - 1]) and parts[first - 1].count <= _MERGED * rows:
            first -= 1
            rows += parts[first].count
        rest = parts[first:]
        if len(rest) < 2:
            return parts
        codes = self.codebook.new_codes(rows)
        width = codes.shape[1]
        by_row = np.zeros((len(codes) * BLOCK, width), np.uint8)
        for part in rest:
            start = part.first - rest[0].first
            coded = part.codes.transpose(0, 2, 1).reshape(-1, width)
            by_row[start : start + part.count] = coded[: part.count]
        codes[:] = by_row.reshape(-1, BLOCK, width).transpose(0, 2, 1)
        return (*parts[:first], Part(rest[0].first, codes, np.concatenate([part.bytes for part in rest])))

    def _fit(self, vectors: Floats, threads: int | None) -> None:
        """Fit the codebook on a sample of stored and new vectors.

        Encode the stored vectors again.
        """
        stored = len(self._labels)
        total = stored + len(vectors)
        picked = np.sort(np.random.default_rng(0).permutation(total)[:_SAMPLE])
        old, new = picked[picked < stored], picked[picked >= stored] - stored
        sample = np.concatenate([self._decoded(old), vectors[new]])
        codebook = Codebook.fit(sample, many=total >= _MANY)
        parts = []
        for part in self._parts:
            codes = codebook.new_codes(part.count)
            for start in range(0, part.count, _SAMPLE):
                rows = np.arange(start, min(start + _SAMPLE, part.count)) + part.first
                codebook.encode(codes, start, self._decoded(rows), threads)
            parts.append(replace(part, codes=codes, folder=None))
        self.codebook = codebook
        self._parts = tuple(parts)
        self._fitted_on = total

    # -- searching ------------------------------------------------------------

    def _search(
        self, queries: Floats, best: Found, allowed: Labels | None, threads: int | None, ef: int | None
    ) -> None:
        """Reorder the best candidates by their int8 vectors and write the top labels.

        Ties go to the vector added first.
        """
        labels, scores = best
        searched = self._searched(allowed)
        k = labels.shape[1]
        wanted = max(k * max(_BY_BYTES, 256 * _BY_BYTES // self.dimension), _MIN_BY_BYTES)
        if len(self.codebook.columns) < self.dimension:
            wanted = max(k * _BY_BYTES * _BY_BYTES_OF_PART, _MIN_BY_BYTES_OF_PART)
        if searched.count > max(wanted, _FEW) and self._is_one_task(queries, searched, threads):
            for q in range(len(queries)):
                at = slice(q, q + 1)
                self._search_one(queries[at], (labels[at], scores[at]), searched, wanted)
            return
        if searched.count <= max(wanted, _FEW):
            candidates = [np.flatnonzero(searched.visible)] * len(queries)
        else:
            candidates = self._scan(queries, searched, wanted, threads)
        halves = np.zeros((2 * len(queries), self._depth), np.uint8)
        units = np.empty(len(queries), np.float32)
        split_to_bytes(queries, halves, units)

        def work(start: int, stop: int) -> None:
            for q in range(start, stop):
                rows = candidates[q]
                products = np.empty(len(candidates[q]), np.float32)
                for part in searched.parts:
                    inside = slice(*np.searchsorted(rows, (part.first, part.first + part.count)).tolist())
                    multiply_rows_at(
                        read_only_view(part.bytes), part.first, rows[inside], self._sums, self._units,
                        halves[2 * q : 2 * q + 2], units[q], products[inside],
                    )  # fmt: skip
                first = best_first(products, k)
                labels[q, : len(first)] = self._labels[rows[first]]
                scores[q, : len(first)] = products[first]

        products_of = len(candidates[0]) * self._depth * len(queries)
        run_in_ranges(work, split_by_count(len(queries), _TOGETHER), threads, products_of)

    def _is_one_task(self, queries: Floats, searched: _Searched, threads: int | None) -> bool:
        """Return True for one part with codes in the cache, and enough for one thread.

        One query reads the codes only once, so they need not be cached.
        """
        if len(searched.parts) > 1 or (len(queries) > 1 and searched.parts[0].codes.nbytes > _CACHED):
            return False
        lookups = len(self._labels) * self.codebook.pairs * len(queries)
        return threads == 1 or lookups // _PER_MULTIPLICATION < SMALL

    def _search_one(self, query: Floats, best: Found, searched: _Searched, wanted: int) -> None:
        """Search one part for one query in a single compiled call.

        So threads rarely wait for the interpreter's lock.
        """
        codebook = self.codebook
        part = searched.parts[0]
        rows = np.empty(best[0].shape[1], np.int64)
        found = find_best(
            read_only_view(part.codes), searched.words[0], codebook.columns, codebook.centroids,
            read_only_view(part.bytes), self._sums, self._units, query, wanted, rows, best[1][0],
        )  # fmt: skip
        best[0][0, :found] = self._labels[rows[:found]]

    def _searched(self, allowed: Labels | None) -> _Searched:
        """Return the rows that a search may return.

        These are the rows of `allowed` labels, or all that are not removed.
        """
        parts = self._parts
        alive = self._alive
        cached = self._cached
        if allowed is None and cached is not None and cached.parts is parts and cached.alive is alive:
            return cached
        if allowed is None:
            visible = alive[self._labels]
        else:
            visible = np.zeros(len(self._labels), bool)
            visible[np.searchsorted(self._labels, self.existing(allowed))] = True
        words = []
        for part in parts:
            bits = np.zeros(len(part.codes) * BLOCK, bool)
            bits[: part.count] = visible[part.first : part.first + part.count]
            words.append(np.packbits(bits, bitorder="little").view("<u8").astype(np.uint64, copy=False))
        searched = _Searched(parts, alive, visible, int(np.count_nonzero(visible)), words)
        if allowed is None:
            self._cached = searched
        return searched

    def _scan(
        self, queries: Floats, searched: _Searched, wanted: int, threads: int | None
    ) -> list[NDArray[np.int64]]:
        """Return the `wanted` best rows by codes for each query, in ascending order."""
        codebook = self.codebook
        tables = np.empty((len(queries), codebook.pairs * CENTROIDS), np.uint8)
        scratch = np.empty((codebook.pairs, CENTROIDS), np.float32)
        for table, query in zip(tables, codebook.paired(queries), strict=True):
            make_tables(query, codebook.centroids, scratch, table)
        pieces = [
            (part, words, start, stop)
            for part, words in zip(searched.parts, searched.words, strict=True)
            for start, stop in split_by_count(len(part.codes), _BLOCKS_PER_TASK)
        ]
        # Several threads divide the queries, or the blocks of a single query.
        workers = thread_count(threads)
        share = -(-len(pieces) // (workers if len(queries) == 1 else 1))
        shares = [pieces[a:b] for a, b in split_by_count(len(pieces), share)]
        together = min(_TOGETHER, -(-len(queries) // workers))
        tasks = [(i, *chunk) for chunk in split_by_count(len(queries), together) for i in range(len(shares))]
        shape = (len(shares), len(queries))
        sums, rows = (np.empty((*shape, wanted + ROOM), kind) for kind in (np.uint16, np.int64))
        bounds = np.zeros(shape, np.uint16)
        found = np.zeros(shape, np.int64)

        def work(begin: int, end: int) -> None:
            for i, first, last in tasks[begin:end]:
                at = (i, slice(first, last))
                flat = tables[first:last].reshape(-1)
                for part, words, start, stop in shares[i]:
                    scan_codes(
                        read_only_view(part.codes).reshape(-1), codebook.steps, flat, words, start, stop,
                        part.first, wanted, bounds[at], sums[at], rows[at], found[at],
                    )  # fmt: skip

        lookups = len(self._labels) * codebook.pairs * len(queries)
        run_in_ranges(work, split_by_count(len(tasks), 1), threads, lookups // _PER_MULTIPLICATION)
        results = []
        for q in range(len(queries)):
            ends = list(enumerate(found[:, q]))
            found_sums = np.concatenate([sums[i, q, :end] for i, end in ends])
            found_rows = np.concatenate([rows[i, q, :end] for i, end in ends])
            if len(found_rows) > wanted:
                keep_best(found_sums, found_rows, len(found_rows), wanted)
            results.append(found_rows[:wanted])
        return results

    # -- reading and saving ---------------------------------------------------

    def _stored(self, labels: Labels) -> Floats:
        return self._decoded(np.searchsorted(self._labels, labels))

    def _decoded(self, rows: NDArray[np.int64]) -> Floats:
        numbers = np.empty((len(rows), self.dimension), np.int8)
        for part in self._parts:
            inside = (rows >= part.first) & (rows < part.first + part.count)
            numbers[inside] = part.bytes[rows[inside] - part.first, : self.dimension]
        return numbers * self._units[rows, np.newaxis]

    def info(self) -> dict[str, Any]:
        """Return kind, size and bytes per vector."""
        # Code, bytes, their sum and unit, label, and the mark of removal.
        return {**super().info(), "bytes_per_vector": self.codebook.pairs // 2 + self._depth + 4 + 4 + 8 + 1}

    def save(self, folder: Path, keep: Keep) -> Saved:
        """Write parts that are not saved yet, and all other arrays, as ``.npy``.

        Keep saved parts in their folders.
        """
        saved = [part.folder is not None and keep(part.folder / BYTES) is not None for part in self._parts]
        first = saved.index(False) if False in saved else len(saved)
        self._parts = self._merged(self._parts, first, lambda part: True)
        kept = []
        for part in self._parts:
            names = [] if part.folder is None else [keep(part.folder / name) for name in (CODES, BYTES)]
            if names and None not in names:
                kept += [name for name in names if name is not None]
            else:
                save_array(folder / CODES, part.codes)
                save_array(folder / BYTES, part.bytes)
        for name, array in ((LABELS, self._labels), (SUMS, self._sums), (UNITS, self._units)):
            save_array(folder / name, array)
        save_array(folder / CENTROID_FILE, self.codebook.centroids)
        save_array(folder / COLUMNS, self.codebook.columns)
        return {"parts": [part.count for part in self._parts], "fitted_on": self._fitted_on}, kept

    def saved_in(self, folder: Path) -> None:
        """Record that parts without a folder are now saved in `folder`."""
        self._parts = tuple(
            part if part.folder is not None else replace(part, folder=folder) for part in self._parts
        )

    def read(self, folder: Path, saved: SavedState) -> None:
        """Map the codes and the bytes, and read all other arrays."""
        labels = load_npy(folder / LABELS, mmap=False)
        self._labels = checked_labels(labels, len(labels))
        columns = load_npy(folder / COLUMNS, mmap=False)
        if not are_columns(columns, self.dimension):
            raise ValueError(
                f"{folder / COLUMNS} must have column numbers from 0 to {self.dimension - 1}, each once."
            )
        centroids = _read_array(folder / CENTROID_FILE, Codebook.empty(len(columns)).centroids)
        self.codebook = Codebook(columns, centroids)
        counts = saved.state["parts"]
        files = [*saved.kept, folder / CODES, folder / BYTES]
        no_codes = self.codebook.new_codes(0)
        no_bytes = np.empty((0, self._depth), np.int8)
        first = 0
        parts: list[Part] = []
        for count, codes, numbers in zip(counts, files[::2], files[1::2], strict=False):
            mapped_codes = _read_array(codes, no_codes, -(-count // BLOCK), mmap=True)
            mapped_bytes = _read_array(numbers, no_bytes, count, mmap=True)
            parts.append(Part(first, mapped_codes, mapped_bytes, codes.parent))
            first += count
        if len(parts) != len(counts) or first != len(labels):
            raise ValueError(f"{folder} has codes of {first} vectors, but {len(labels)} labels.")
        self._parts = tuple(parts)
        self._sums = _read_array(folder / SUMS, self._sums, len(labels))
        self._units = _read_array(folder / UNITS, self._units, len(labels))
        self._fitted_on = int(saved.state["fitted_on"])
        self._hold(self._labels, saved)


def _read_array(
    path: Path, like: NDArray[Any], length: int | None = None, *, mmap: bool = False
) -> NDArray[Any]:
    """Read an array with the dtype and the shape of `like`, or of another `length`."""
    array = load_npy(path, mmap=mmap)
    shape = like.shape if length is None else (length, *like.shape[1:])
    if array.dtype != like.dtype or array.shape != shape:
        raise ValueError(f"{path} must be {like.dtype} {shape}, got {array.dtype} {array.shape}.")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"{path} is damaged: it contains a NaN or an infinity.")
    return array
