"""USearchSearch: a graph through usearch, in 16 or 8 bits a float, mapped from its file.

usearch checks little and is not safe for two searches at once from Python: everything is checked here,
and one lock is held for each call.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..kernels.int8 import MAX_VECTOR_ENTRY
from ..utils.atomic_files import save_array
from ..utils.checks import require_int
from ..utils.npy_files import load_npy
from ..utils.optional_imports import import_extra
from ..utils.parallel import thread_count
from .base import (
    Found,
    Guard,
    SavedState,
    VectorSearch,
    checked_allowed,
    checked_labels,
    checked_queries,
    checked_vectors,
    none_found,
)
from .exact import score_among
from .int8 import quantize
from .settings import USearchSettings
from .usearch_file_check import check_usearch_file

__all__ = ["USearchSearch"]

FILE = "vectors.usearch"
NORMS = "vector_norms.npy"

# usearch's names of how numbers are kept, and their bytes.
_KEPT = {"bfloat16": ("bf16", 2), "int8": ("i8", 1), "float32": ("f32", 4)}

# Vectors read back at a time for exact scores.
_BLOCK_BYTES = 32 << 20

# Vectors that each thread adds before searches may come between.
_ADDED_PER_THREAD = 32

# A filter that keeps less than this share is answered by scoring what it keeps, one by one.
_SCORED_SHARE = 0.1


class USearchSearch(VectorSearch):
    """Approximate search in a navigable small-world graph of usearch.

    Vectors are kept with length 1 and their norms beside them, as in space "cosine" of
    :class:`muvera.mips.HNSWSearch`; results are ordered by inner product.  A loaded search reads its
    file as it is needed; the first change reads all of it.

    Parameters
    ----------
    dimension : int
        Floats of a vector.
    settings : USearchSettings, optional
        How the graph is built, kept and searched.

    Raises
    ------
    ImportError
        Where usearch is not installed.
    """

    kind = "usearch"

    def __init__(self, dimension: int, settings: USearchSettings | None = None) -> None:
        super().__init__(dimension)
        self.settings = USearchSettings() if settings is None else settings
        self._labels: set[int] = set()
        self._norms = np.empty(0, np.float32)  # by label; 1 where unknown
        self._lock = RLock()
        self._mapped = False
        self._index = self._empty()

    def _empty(self) -> Any:
        library = import_extra("usearch.index", "usearch", "Backend 'usearch'")
        how = self.settings
        return library.Index(
            ndim=self.dimension,
            metric="cos",
            dtype=_KEPT[how.precision][0],
            connectivity=how.m,
            expansion_add=how.ef_construction,
            expansion_search=how.ef,
        )

    def __len__(self) -> int:
        return len(self._labels)

    @property
    def mapped(self) -> bool:
        """Whether the graph is read from its file as it is needed."""
        return self._mapped

    # -- changing -------------------------------------------------------------

    def add(
        self,
        labels: NDArray[np.int64],
        vectors: NDArray[np.float32],
        threads: int | None = None,
        guard: Guard = nullcontext,
    ) -> None:
        """Add vectors under new labels, some at a time, so that searches come between."""
        vectors = checked_vectors(vectors, self.dimension)
        labels = checked_labels(labels, len(vectors))
        if not self.can_add(labels):
            raise ValueError(f"label {self.existing(labels)[0]} is in use.")
        if len(labels) == 0:
            return
        norms = np.sqrt(np.square(vectors, dtype=np.float64).sum(axis=1)).astype(np.float32)
        norms[norms == 0] = 1  # a zero vector stays one
        kept = self._kept(vectors / norms[:, np.newaxis])
        workers = thread_count(threads)
        step = _ADDED_PER_THREAD * workers
        try:
            with guard():
                self._make_writable()
                self._make_room(labels, norms)
            for start in range(0, len(labels), step):
                part = labels[start : start + step]
                with guard(), self._lock:
                    self._index.add(part.astype(np.uint64), kept[start : start + step], threads=workers)
                    self._labels.update(part.tolist())
        except BaseException:
            with guard(), self._lock:
                for label in labels.tolist():
                    self._labels.discard(label)
                    self._index.remove(label)  # no error where it did not get in
            raise

    def _kept(self, vectors: NDArray[np.float32]) -> NDArray[Any]:
        """Return vectors or queries as usearch is to take them: its own rounding to int8 is coarser."""
        if self.settings.precision == "int8":
            return quantize(vectors, MAX_VECTOR_ENTRY)[0].astype(np.int8)
        return vectors

    def _make_room(self, labels: NDArray[np.int64], norms: NDArray[np.float32]) -> None:
        needed = int(labels.max()) + 1
        if needed > len(self._norms):
            grown = np.ones(max(needed, len(self._norms) * 3 // 2), np.float32)
            grown[: len(self._norms)] = self._norms
            self._norms = grown
        elif not self._norms.flags.writeable:
            self._norms = self._norms.copy()
        self._norms[labels] = norms

    def _make_writable(self) -> None:
        """Read a mapped graph into memory: usearch ends the process where a mapped one is changed."""
        with self._lock:
            if self._mapped:
                # From what is mapped, not from the file: another process may have removed that.
                whole = self._empty()
                whole.load(self._index.save())
                self._index, self._mapped = whole, False
                self._index.expansion_search = self.settings.ef

    def can_add(self, labels: NDArray[np.int64]) -> bool:
        """Whether :meth:`add` would take all of these labels."""
        return self._labels.isdisjoint(labels.tolist())

    def existing(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return those of `labels` that a search can return, ascending."""
        return np.array(sorted(self._labels.intersection(labels.tolist())), np.int64)

    def remove(self, labels: NDArray[np.int64]) -> None:
        """Remove vectors; later ones take their room."""
        known = checked_labels(labels)
        self._require(known)
        if len(known) == 0:
            return
        with self._lock:
            self._make_writable()
            self._index.remove(known.astype(np.uint64))
            self._labels.difference_update(known.tolist())

    def _require(self, labels: NDArray[np.int64]) -> None:
        missing = [label for label in labels.tolist() if label not in self._labels]
        if missing:
            raise KeyError(f"label {min(missing)} is not here.")

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
        """Return about the k best labels and their inner products.

        A search that is restricted to few labels scores them one by one; one restricted to many walks
        the graph for more than `k`, and scores one by one where too few of those are allowed.
        """
        queries = checked_queries(queries, self.dimension, k)
        ef = self.settings.ef if ef is None else require_int("ef", ef, 1)
        present = None if allowed is None else self.existing(checked_allowed(allowed))
        available = len(self) if present is None else len(present)
        wanted = min(k, available)
        found, scores = none_found(queries, k)
        if wanted == 0 or len(queries) == 0:
            return found, scores
        fetched = min(max(wanted, ef), len(self))
        if present is not None:
            if available <= max(wanted, _SCORED_SHARE * len(self)):
                return self._search_among(present, queries, k, threads)
            # Twice as many as hold `fetched` allowed ones where these are spread evenly.
            fetched = min(2 * -(-fetched * len(self) // available), len(self))
        labels, distances, counts = self._walk(queries, fetched, max(ef, fetched), threads)
        for i, count in enumerate(counts.tolist()):
            row = labels[i, :count]
            products = (1 - distances[i, :count]) * self._norms[row]
            if present is not None:
                inside = np.isin(row, present)
                row, products = row[inside], products[inside]
            if len(row) < wanted:  # the graph led to fewer than there are
                among = self.labels() if present is None else present
                found[i], scores[i] = (
                    a[0] for a in self._search_among(among, queries[i : i + 1], k, threads)
                )
                continue
            best = np.argsort(-products, kind="stable")[:wanted]
            length = np.linalg.norm(queries[i].astype(np.float64))
            found[i, :wanted], scores[i, :wanted] = row[best], products[best] * length
        return found, scores

    def _walk(
        self, queries: NDArray[np.float32], count: int, ef: int, threads: int | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
        with self._lock:
            self._index.expansion_search = ef
            # A zero vector of int8 must stay one, and a query's length does not change the order.
            found = self._index.search(self._kept(queries), count, threads=thread_count(threads))
        shape = (len(queries), -1)
        return (
            np.asarray(found.keys).reshape(shape).astype(np.int64),
            np.asarray(found.distances, np.float32).reshape(shape),
            np.atleast_1d(np.asarray(getattr(found, "counts", len(found)), np.int64)),
        )

    def _search_among(
        self, labels: NDArray[np.int64], queries: NDArray[np.float32], k: int, threads: int | None = None
    ) -> Found:
        return score_among(labels, self._stored, queries, k, self.dimension, _BLOCK_BYTES, threads)

    def measure_recall(
        self, queries: NDArray[np.float32], k: int, threads: int | None = None, *, ef: int | None = None
    ) -> float:
        """Return which share of the k best of all kept vectors the graph finds, averaged over `queries`."""
        queries = checked_queries(queries, self.dimension, k)
        k = min(k, len(self))
        if k == 0 or len(queries) == 0:
            return 1.0
        exact, _ = self._search_among(self.labels(), queries, k, threads)
        found, _ = self.search(queries, k, threads=threads, ef=ef)
        return float(np.mean([len(np.intersect1d(a, b)) for a, b in zip(exact, found, strict=True)])) / k

    # -- looking --------------------------------------------------------------

    def labels(self) -> NDArray[np.int64]:
        """Return the labels that a search can return, ascending."""
        return np.array(sorted(self._labels), np.int64)

    def vectors(self, labels: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the stored vectors of `labels`, as exactly as they are kept."""
        labels = np.asarray(labels, np.int64)
        self._require(labels)
        return self._stored(labels)

    def _stored(self, labels: NDArray[np.int64]) -> NDArray[np.float32]:
        if len(labels) == 0:
            return np.empty((0, self.dimension), np.float32)
        with self._lock:
            rows = np.array(self._index.get(labels.astype(np.uint64)), np.float32)
        if self.settings.precision == "int8":
            lengths = np.sqrt(np.square(rows, dtype=np.float64).sum(axis=1)).astype(np.float32)
            lengths[lengths == 0] = 1
            rows /= lengths[:, np.newaxis]
        return np.asarray(rows * self._norms[labels, np.newaxis], np.float32)

    def info(self) -> dict[str, Any]:
        """Return kind, size, settings and bytes a vector."""
        kept = _KEPT[self.settings.precision][1] * self.dimension
        return {
            "kind": self.kind,
            "vectors": len(self),
            "dimension": self.dimension,
            "bytes_per_vector": kept + 4 + 8 + 2 + 4 + 4 * 2 * self.settings.m,
            **self.settings.to_dict(),
        }

    # -- keeping --------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Write the graph in usearch's format, and the vectors' norms.

        Raises
        ------
        OSError
            Where the file could not be written whole.
        """
        path = folder / FILE
        with self._lock:
            try:
                self._index.save(str(path))
            except RuntimeError as error:
                raise OSError(f"{path} was not written whole ({error}). Is the disk full?") from error
            written, needed = path.stat().st_size, self._index.serialized_length
        if written != needed:
            raise OSError(
                f"{path} has {written} of its {needed} bytes: it was not written whole. Is the disk full?"
            )
        save_array(folder / NORMS, self._norms)

    @classmethod
    def load(cls, folder: Path, dimension: int, saved: SavedState) -> USearchSearch:
        """Map what :meth:`save` wrote.

        Raises
        ------
        ValueError
            For a file of another dimension or of other settings, and for a damaged one.
        """
        loaded = cls(dimension, saved.settings)
        path = folder / FILE
        how = loaded.settings
        kept = check_usearch_file(path, dimension, how.m, _KEPT[how.precision][0])
        loaded._norms = load_npy(folder / NORMS, mmap=False)
        if len(kept) == 0:
            return loaded
        if int(kept.max()) >= len(loaded._norms):
            raise ValueError(f"{folder / NORMS} has no norm for vector {int(kept.max())} of {path}.")
        try:
            loaded._index.view(str(path))
        except RuntimeError as error:
            raise ValueError(f"{path} is damaged: {error}.") from error
        loaded._mapped, loaded._labels = True, set(kept.tolist())
        gone = loaded.existing(saved.removed)
        if len(gone):
            loaded.remove(gone)
        return loaded
