"""USearchSearch: a graph of usearch, in half the memory of hnswlib's and mapped from its file."""

from __future__ import annotations

from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..utils.optional_imports import import_extra
from ..utils.parallel import thread_count
from .base import Found, SavedState, no_results
from .graph import FREE, USED, GraphSearch
from .saved_graph import FILLING, Floats, Labels
from .settings import USearchSettings
from .usearch_file_check import check_usearch_file

__all__ = ["USearchSearch"]

# usearch's name and the bytes per float of each precision.
_PRECISIONS = {"bfloat16": ("bf16", 2), "int8": ("i8", 1), "float32": ("f32", 4)}

# If fewer than this share of the vectors are allowed, they are scored one by one.
_SCORED_SHARE = 0.1


class USearchSearch(GraphSearch):
    """Approximate search in a graph of usearch.

    A loaded search maps its file; the first change reads all of it into memory.

    Parameters
    ----------
    dimension : int
        Floats of a vector.
    settings : USearchSettings, optional

    Raises
    ------
    ImportError
        If usearch is not installed.
    """

    kind = "usearch"
    file = "vectors.usearch"

    def __init__(self, dimension: int, settings: USearchSettings | None = None) -> None:
        super().__init__(dimension)
        self.settings = USearchSettings() if settings is None else settings
        self._lock = RLock()  # usearch's expansion_search is a setting of the whole graph
        self._mapped = False
        self._index = self._graph()

    def _graph(self) -> Any:
        library = import_extra("usearch.index", "usearch", "Backend 'usearch'")
        return library.Index(
            ndim=self.dimension + FILLING,
            metric="cos",
            dtype=_PRECISIONS[self.settings.precision][0],
            connectivity=self.settings.m,
            expansion_add=self.settings.ef_construction,
            expansion_search=self.settings.ef,
        )

    @property
    def mapped(self) -> bool:
        """Whether the graph is mapped from its file."""
        return self._mapped

    def _prepare(self, count: int) -> None:
        self._make_writable()

    def _insert(self, labels: Labels, rows: Floats, threads: int) -> None:
        with self._lock:
            self._index.add(labels.astype(np.uint64), self._rounded(rows), threads=threads)

    def _retire(self, labels: Labels) -> None:
        with self._lock:
            self._states.put(labels, FREE)
            for label in labels.tolist():
                self._index.remove(label)  # no error if it was not inserted

    def _rounded(self, rows: Floats) -> NDArray[Any]:
        """Return vectors or queries as usearch takes them: its own rounding to int8 is coarser."""
        if self.settings.precision != "int8":
            return rows
        steps = np.abs(rows).max(axis=1, keepdims=True, initial=0) / np.float32(127)
        # Subnormal steps have no accurate inverse: such vectors become zeros.
        steps[steps < np.finfo(np.float32).tiny] = 0
        inverse = np.divide(1, steps, out=np.zeros_like(steps), where=steps > 0)
        rounded: NDArray[np.int8] = np.clip(np.rint(rows * inverse), -127, 127).astype(np.int8)
        return rounded

    def _make_writable(self) -> None:
        """Read a mapped graph into memory: usearch ends the process if a mapped graph is changed."""
        with self._lock:
            if self._mapped:
                # From the mapping, because another process may have removed the file.
                whole = self._graph()
                whole.load(self._index.save())
                self._index, self._mapped = whole, False

    def remove(self, labels: Labels) -> None:
        """Remove vectors; later ones reuse their memory."""
        self._require(labels)
        if len(labels) == 0:
            return
        with self._lock:
            self._make_writable()
            self._index.remove(labels.astype(np.uint64))
            self._states.put(labels, FREE)

    def _search(
        self, queries: Floats, k: int, allowed: Labels | None, threads: int | None, ef: int | None
    ) -> Found:
        """Score few allowed vectors one by one; with many, search the graph for more than k.

        A query that finds too few allowed vectors is answered by scoring those one by one.
        """
        present = None if allowed is None else self.existing(allowed)
        available = len(self) if present is None else len(present)
        k, ef = min(k, available), ef or self.settings.ef
        labels, scores = no_results(len(queries), k)
        if k == 0:
            return labels, scores
        count = min(max(k, ef), len(self))
        if present is not None:
            if available <= max(k, _SCORED_SHARE * len(self)):
                return self._search_among(present, queries, k, threads)
            # Twice as many as contain `count` allowed vectors if these are spread evenly.
            count = min(2 * -(-count * len(self) // available), len(self))
        found, distances, counts = self._walk(queries, count, max(ef, count), threads)
        for i, size in enumerate(counts.tolist()):
            row = found[i, :size]
            products = (1 - distances[i, :size]) * self._norms[row]
            if present is not None:
                inside = np.isin(row, present)
                row, products = row[inside], products[inside]
            if len(row) < k:
                among = self.labels() if present is None else present
                exact = self._search_among(among, queries[i : i + 1], k, threads)
                labels[i], scores[i] = exact[0][0], exact[1][0]
                continue
            best = np.argsort(-products, kind="stable")[:k]
            length = np.linalg.norm(queries[i].astype(np.float64))
            labels[i], scores[i] = row[best], products[best] * length
        return labels, scores

    def _walk(
        self, queries: Floats, count: int, ef: int, threads: int | None
    ) -> tuple[NDArray[np.int64], Floats, NDArray[np.int64]]:
        """Return labels (m, count), cosine distances (m, count), and how many were found (m,)."""
        rows = self._rounded(self._filled(queries))
        with self._lock:
            self._index.expansion_search = ef
            found = self._index.search(rows, count, threads=thread_count(threads))
        shape = (len(queries), -1)
        return (
            np.asarray(found.keys).reshape(shape).astype(np.int64),
            np.asarray(found.distances, np.float32).reshape(shape),
            np.atleast_1d(np.asarray(getattr(found, "counts", len(found)), np.int64)),
        )

    def _stored(self, labels: Labels) -> Floats:
        with self._lock:
            rows = np.array(self._index.get(labels.astype(np.uint64)), np.float32)
        if self.settings.precision == "int8":
            lengths = np.sqrt(np.square(rows, dtype=np.float64).sum(axis=1)).astype(np.float32)
            lengths[lengths == 0] = 1
            rows /= lengths[:, np.newaxis]
        return self._original(labels, rows)

    def info(self) -> dict[str, Any]:
        """Return kind, size, settings and bytes per vector."""
        floats = _PRECISIONS[self.settings.precision][1] * (self.dimension + FILLING)
        return {
            "kind": self.kind,
            "vectors": len(self),
            "dimension": self.dimension,
            "bytes_per_vector": floats + 4 + 8 + 2 + 4 + 4 * 2 * self.settings.m,
            **self.settings.to_dict(),
        }

    def save(self, folder: Path) -> None:
        """Write the graph in usearch's format, and the norms; raise OSError if the file is incomplete."""
        path = folder / self.file
        with self._lock:
            try:
                self._index.save(str(path))
            except RuntimeError as error:
                raise OSError(f"{path} was not written completely ({error}). Is the disk full?") from error
            needed = self._index.serialized_length
        self._require_whole(path, needed)
        self._save_norms(folder)

    @classmethod
    def load(cls, folder: Path, dimension: int, saved: SavedState) -> USearchSearch:
        """Map what :meth:`save` wrote, or raise ValueError, see :class:`VectorSearch`."""
        loaded = cls(dimension, saved.settings)
        path = saved.graph or folder / cls.file
        precision = _PRECISIONS[loaded.settings.precision][0]
        labels = check_usearch_file(path, dimension, loaded.settings.m, precision)
        loaded._load_norms(folder, path, labels)
        if len(labels) == 0:
            return loaded
        try:
            loaded._index.view(str(path))
        except RuntimeError as error:
            raise ValueError(f"{path} is damaged: {error}.") from error
        loaded._mapped = True
        loaded._states.put(labels, USED)
        removed = loaded.existing(saved.removed)
        if len(removed):
            loaded.remove(removed)
        loaded._add_saved(path, folder)
        return loaded
