"""USearchSearch: a graph through usearch, in 16 or 8 bits a float, mapped from its file.

usearch checks little and is not safe for two searches at once from Python: everything is checked here,
and one lock is held for each call.
"""

from __future__ import annotations

from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..kernels.int8 import MAX_VECTOR_ENTRY
from ..utils.checks import require_int
from ..utils.optional_imports import import_extra
from ..utils.parallel import thread_count
from .base import Found, SavedState, checked_allowed, checked_labels, checked_queries, none_found
from .graph import GraphSearch
from .int8 import quantize
from .label_states import FREE, USED
from .saved_graph import FILLING
from .settings import USearchSettings
from .usearch_file_check import check_usearch_file

__all__ = ["USearchSearch"]

# usearch's names of how numbers are kept, and their bytes.
_KEPT = {"bfloat16": ("bf16", 2), "int8": ("i8", 1), "float32": ("f32", 4)}

# A filter that keeps less than this share is answered by scoring what it keeps, one by one.
_SCORED_SHARE = 0.1


class USearchSearch(GraphSearch):
    """Approximate search in a navigable small-world graph of usearch.

    A loaded search reads its file as it is needed; the first change reads all of it.

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
    file = "vectors.usearch"

    def __init__(self, dimension: int, settings: USearchSettings | None = None) -> None:
        super().__init__(dimension)
        self.settings = USearchSettings() if settings is None else settings
        self._lock = RLock()
        self._mapped = False
        self._index = self._empty()

    def _empty(self) -> Any:
        library = import_extra("usearch.index", "usearch", "Backend 'usearch'")
        how = self.settings
        return library.Index(
            ndim=self.dimension + FILLING,
            metric="cos",
            dtype=_KEPT[how.precision][0],
            connectivity=how.m,
            expansion_add=how.ef_construction,
            expansion_search=how.ef,
        )

    @property
    def mapped(self) -> bool:
        """Whether the graph is read from its file as it is needed."""
        return self._mapped

    # -- changing -------------------------------------------------------------

    def _prepare(self, count: int) -> None:
        self._make_writable()

    def _insert(self, labels: NDArray[np.int64], rows: NDArray[np.float32], threads: int) -> None:
        with self._lock:
            self._index.add(labels.astype(np.uint64), self._kept(rows), threads=threads)

    def _retire(self, labels: NDArray[np.int64]) -> None:
        with self._lock:
            self._states.put(labels, FREE)
            for label in labels.tolist():
                self._index.remove(label)  # no error where it did not get in

    def _kept(self, vectors: NDArray[np.float32]) -> NDArray[Any]:
        """Return vectors or queries as usearch is to take them: its own rounding to int8 is coarser."""
        if self.settings.precision == "int8":
            return quantize(vectors, MAX_VECTOR_ENTRY)[0].astype(np.int8)
        return vectors

    def _make_writable(self) -> None:
        """Read a mapped graph into memory: usearch ends the process where a mapped one is changed."""
        with self._lock:
            if self._mapped:
                # From what is mapped, not from the file: another process may have removed that.
                whole = self._empty()
                whole.load(self._index.save())
                self._index, self._mapped = whole, False
                self._index.expansion_search = self.settings.ef

    def remove(self, labels: NDArray[np.int64]) -> None:
        """Remove vectors; later ones take their room."""
        known = checked_labels(labels)
        self._require(known)
        if len(known) == 0:
            return
        with self._lock:
            self._make_writable()
            self._index.remove(known.astype(np.uint64))
            self._states.put(known, FREE)

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
            found = self._index.search(self._kept(self._asked(queries)), count, threads=thread_count(threads))
        shape = (len(queries), -1)
        return (
            np.asarray(found.keys).reshape(shape).astype(np.int64),
            np.asarray(found.distances, np.float32).reshape(shape),
            np.atleast_1d(np.asarray(getattr(found, "counts", len(found)), np.int64)),
        )

    # -- looking --------------------------------------------------------------

    def _stored(self, labels: NDArray[np.int64]) -> NDArray[np.float32]:
        with self._lock:
            rows = np.array(self._index.get(labels.astype(np.uint64)), np.float32)
        if self.settings.precision == "int8":
            lengths = np.sqrt(np.square(rows, dtype=np.float64).sum(axis=1)).astype(np.float32)
            lengths[lengths == 0] = 1
            rows /= lengths[:, np.newaxis]
        return self._given(labels, rows)

    def info(self) -> dict[str, Any]:
        """Return kind, size, settings and bytes a vector."""
        kept = _KEPT[self.settings.precision][1] * (self.dimension + FILLING)
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
        path = folder / self.file
        with self._lock:
            try:
                self._index.save(str(path))
            except RuntimeError as error:
                raise OSError(f"{path} was not written whole ({error}). Is the disk full?") from error
            needed = self._index.serialized_length
        self._require_whole(path, needed)
        self._save_norms(folder)

    @classmethod
    def load(cls, folder: Path, dimension: int, saved: SavedState) -> USearchSearch:
        """Map what :meth:`save` wrote.

        Raises
        ------
        ValueError
            For a file of another dimension or of other settings, and for a damaged one.
        """
        loaded = cls(dimension, saved.settings)
        path = saved.graph or folder / cls.file
        how = loaded.settings
        kept = check_usearch_file(path, dimension, how.m, _KEPT[how.precision][0])
        loaded._load_norms(folder, path, kept)
        if len(kept) == 0:
            return loaded
        try:
            loaded._index.view(str(path))
        except RuntimeError as error:
            raise ValueError(f"{path} is damaged: {error}.") from error
        loaded._mapped = True
        loaded._states.put(kept, USED)
        gone = loaded.existing(saved.removed)
        if len(gone):
            loaded.remove(gone)
        loaded._add_saved(path, folder)
        return loaded
