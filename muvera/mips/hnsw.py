"""HNSW search through hnswlib, which checks nothing: everything is checked here first."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
from .hnsw_file_check import check_graph_file
from .settings import HNSWSettings

__all__ = ["HNSWSearch"]

FILE = "vectors.hnsw"
NORMS = "vector_norms.npy"

# Vectors read back at a time for exact scores.
_BLOCK_BYTES = 32 << 20

# Vectors that an empty graph has room for.
_ROOM = 1024

# Vectors that each thread adds before searches may come between.
_ADDED_PER_THREAD = 32


class HNSWSearch(VectorSearch):
    """Approximate search in a navigable small-world graph.

    Parameters
    ----------
    dimension : int
        Floats of a vector.
    settings : HNSWSettings, optional
        How the graph is built and searched.

    Raises
    ------
    ImportError
        Where hnswlib is not installed.
    """

    kind = "hnsw"

    def __init__(self, dimension: int, settings: HNSWSettings | None = None) -> None:
        super().__init__(dimension)
        self.settings = HNSWSettings() if settings is None else settings
        self._removed: set[int] = set()
        self._labels: set[int] = set()
        self._norms = np.empty(0, np.float32)  # by label; 1 where unknown
        self._index = self._empty(_ROOM)

    def _empty(self, room: int) -> Any:
        index, how = self._graph(), self.settings
        index.init_index(
            max_elements=room, ef_construction=how.ef_construction, M=how.m, random_seed=how.seed
        )
        index.set_ef(how.ef)
        return index

    def _graph(self) -> Any:
        library = import_extra("hnswlib", "hnswlib", "Backend 'hnsw'")
        return library.Index(space="ip", dim=self.dimension)

    def __len__(self) -> int:
        return len(self._labels)

    # -- changing -------------------------------------------------------------

    def add(
        self,
        labels: NDArray[np.int64],
        vectors: NDArray[np.float32],
        threads: int | None = None,
        guard: Guard = nullcontext,
    ) -> None:
        """Add vectors under labels that were never used, some at a time, so that searches come between."""
        vectors = checked_vectors(vectors, self.dimension)
        labels = checked_labels(labels, len(vectors))
        if not self.can_add(labels):
            used = (label for label in labels.tolist() if label in self._labels or label in self._removed)
            raise ValueError(f"label {min(used)} was used already.")
        if len(labels) == 0:
            return
        norms = np.ones(len(labels), np.float32)
        if self.settings.space == "cosine":
            norms = np.sqrt(np.square(vectors, dtype=np.float64).sum(axis=1)).astype(np.float32)
            norms[norms == 0] = 1  # a zero vector stays one
            vectors = vectors / norms[:, np.newaxis]
        workers = thread_count(threads)
        step = _ADDED_PER_THREAD * workers
        try:
            with guard():
                self._make_room(labels, norms)
            for start in range(0, len(labels), step):
                part = labels[start : start + step]
                with guard():
                    self._index.add_items(
                        vectors[start : start + step], part.astype(np.uint64), num_threads=workers
                    )
                    self._labels.update(part.tolist())
        except BaseException:
            with guard():
                self._retire_rows(labels)
            raise

    def _make_room(self, labels: NDArray[np.int64], norms: NDArray[np.float32]) -> None:
        used, room = self._index.get_current_count(), self._index.get_max_elements()
        if used + len(labels) > room:
            self._index.resize_index(max(used + len(labels), room * 3 // 2))
        if self.settings.space == "cosine":
            needed = int(labels.max()) + 1
            if needed > len(self._norms):
                grown = np.ones(max(needed, len(self._norms) * 3 // 2), np.float32)
                grown[: len(self._norms)] = self._norms
                self._norms = grown
            self._norms[labels] = norms

    def _retire_rows(self, labels: NDArray[np.int64]) -> None:
        """Remove what got into the graph; these labels are spent."""
        for label in labels.tolist():
            self._labels.discard(label)
            with suppress(RuntimeError):  # this one did not get in
                self._index.mark_deleted(label)
                self._removed.add(label)

    def can_add(self, labels: NDArray[np.int64]) -> bool:
        """Whether :meth:`add` would take all of these labels: a graph takes a label once."""
        return not any(label in self._labels or label in self._removed for label in labels.tolist())

    def existing(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return those of `labels` that a search can return, ascending."""
        return np.array(sorted(self._labels.intersection(labels.tolist())), np.int64)

    def remove(self, labels: NDArray[np.int64]) -> None:
        """Mark vectors as removed; they still guide the search, and keep their memory."""
        known = checked_labels(labels).tolist()
        missing = [label for label in known if label not in self._labels]
        if missing:
            raise KeyError(f"label {min(missing)} is not here.")
        for label in known:
            self._index.mark_deleted(label)
            self._labels.discard(label)
            self._removed.add(label)

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

        A restricted search walks the same graph and keeps what is allowed; where the graph
        gives fewer than there are, the allowed vectors are scored one by one.
        """
        queries = checked_queries(queries, self.dimension, k)
        ef = self.settings.ef if ef is None else require_int("ef", ef, 1)
        accept = None
        available = len(self)
        if allowed is not None:
            present = self._labels.intersection(checked_allowed(allowed).tolist())
            available = len(present)
            accept = present.__contains__
        wanted = min(k, available)
        found, scores = none_found(queries, k)
        if wanted == 0 or len(queries) == 0:
            return found, scores
        cosine = self.settings.space == "cosine"
        fetched = min(max(wanted, ef), available) if cosine else wanted
        if self._index.ef != ef:
            self._index.set_ef(ef)
        try:
            # hnswlib walks with max(ef, k): an answer does not depend on the k of searches beside it.
            # A Python filter needs the interpreter lock: several threads would wait in turn.
            labels, distances = self._index.knn_query(
                queries, k=fetched, num_threads=1 if accept else thread_count(threads), filter=accept
            )
        except RuntimeError:  # the graph led to fewer than were asked for
            candidates = self.labels() if allowed is None else np.array(sorted(present), np.int64)
            return self._search_among(candidates, queries, k, threads)
        labels = labels.astype(np.int64)
        products = np.asarray(1 - distances, np.float32)
        if cosine:
            products *= self._norms[labels]
            order = np.argsort(-products, axis=1, kind="stable")[:, :wanted]
            labels, products = np.take_along_axis(labels, order, 1), np.take_along_axis(products, order, 1)
        found[:, :wanted], scores[:, :wanted] = labels, products
        return found, scores

    def _search_among(
        self,
        labels: NDArray[np.int64],
        queries: NDArray[np.float32],
        k: int,
        threads: int | None = None,
    ) -> Found:
        return score_among(labels, self._stored, queries, k, self.dimension, _BLOCK_BYTES, threads)

    def labels(self) -> NDArray[np.int64]:
        """Return the labels that a search can return, ascending."""
        return np.array(sorted(self._labels), np.int64)

    def vectors(self, labels: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the stored vectors of `labels`."""
        labels = np.asarray(labels, np.int64)
        missing = [label for label in labels.tolist() if label not in self._labels]
        if missing:
            raise KeyError(f"label {min(missing)} is not here.")
        return self._stored(labels)

    def _stored(self, labels: NDArray[np.int64]) -> NDArray[np.float32]:
        if len(labels) == 0:
            return np.empty((0, self.dimension), np.float32)
        rows = np.asarray(self._index.get_items(labels.tolist(), return_type="numpy"), np.float32)
        return rows * self._norms[labels, np.newaxis] if self.settings.space == "cosine" else rows

    def measure_recall(
        self, queries: NDArray[np.float32], k: int, threads: int | None = None, *, ef: int | None = None
    ) -> float:
        """Return which share of the exact k best the graph finds, averaged over `queries`."""
        queries = checked_queries(queries, self.dimension, k)
        k = min(k, len(self))
        if k == 0 or len(queries) == 0:
            return 1.0
        exact, _ = self._search_among(self.labels(), queries, k, threads)
        found, _ = self.search(queries, k, threads=threads, ef=ef)
        hits = [len(np.intersect1d(a, b)) for a, b in zip(exact, found, strict=True)]
        return float(np.mean(hits)) / k

    # -- keeping --------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Write the graph in hnswlib's format, and the vectors' norms.

        Raises
        ------
        OSError
            Where the file could not be written whole: hnswlib itself says nothing then.
        """
        path = folder / FILE
        self._index.save_index(str(path))
        written, needed = path.stat().st_size, self._index.index_file_size()
        if written != needed:
            raise OSError(
                f"{path} has {written} of its {needed} bytes: it was not written whole. Is the disk full?"
            )
        save_array(folder / NORMS, self._norms)

    @classmethod
    def load(cls, folder: Path, dimension: int, saved: SavedState) -> HNSWSearch:
        """Read what :meth:`save` wrote.

        Raises
        ------
        ValueError
            For a file of another dimension or a damaged one.
        """
        loaded = cls(dimension, saved.settings)
        path = folder / FILE
        count, marked = check_graph_file(path, dimension, loaded.settings.m)
        loaded._norms = load_npy(folder / NORMS, mmap=False)
        if not (np.isfinite(loaded._norms).all() and (loaded._norms > 0).all()):
            raise ValueError(f"{folder / NORMS} is damaged: a norm is no positive number.")
        if count == 0:
            return loaded
        try:
            loaded._index = loaded._graph()
            loaded._index.load_index(str(path), max_elements=count)
        except RuntimeError as error:
            raise ValueError(f"{path} is damaged: {error}.") from error
        loaded._index.set_ef(loaded.settings.ef)  # hnswlib forgets it
        labels = {int(label) for label in loaded._index.get_ids_list()}
        if loaded.settings.space == "cosine" and max(labels) >= len(loaded._norms):
            raise ValueError(f"{folder / NORMS} has no norm for vector {max(labels)} of {path}.")
        loaded._removed = set(saved.removed.tolist()) & labels
        wrong = set(marked.tolist()) - loaded._removed
        if wrong:
            raise ValueError(f"{path} has vector {min(wrong)} marked as removed, but it is in use.")
        for label in loaded._removed:
            with suppress(RuntimeError):  # the file remembers the mark
                loaded._index.mark_deleted(label)
        loaded._labels = labels - loaded._removed
        return loaded

    def info(self) -> dict[str, Any]:
        """Return kind, size, settings and bytes a vector."""
        return {
            "kind": self.kind,
            "vectors": len(self),
            "removed": len(self._removed),
            "dimension": self.dimension,
            "bytes_per_vector": 4 * self.dimension + 8 + 4 * (2 * self.settings.m + 1),
            **self.settings.to_dict(),
        }
