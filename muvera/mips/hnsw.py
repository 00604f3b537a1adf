"""HNSWSearch: a graph of hnswlib, which checks nothing itself."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..utils.optional_imports import import_extra
from ..utils.parallel import thread_count
from .base import Found, SavedState, no_results
from .graph import FREE, SPENT, USED, GraphSearch
from .hnsw_file_check import check_graph_file
from .saved_graph import FILLING
from .settings import HNSWSettings

__all__ = ["HNSWSearch", "bytes_in_graph"]

# Capacity of an empty graph.
_ROOM = 1024


class HNSWSearch(GraphSearch):
    """Approximate search in a graph of hnswlib.

    Parameters
    ----------
    dimension : int
        Floats of a vector.
    settings : HNSWSettings, optional

    Raises
    ------
    ImportError
        If hnswlib is not installed.
    """

    kind = "hnsw"
    file = "vectors.hnsw"

    def __init__(self, dimension: int, settings: HNSWSettings | None = None) -> None:
        super().__init__(dimension)
        self.settings = HNSWSettings() if settings is None else settings
        self._index = self._graph()
        self._index.init_index(
            max_elements=_ROOM,
            ef_construction=self.settings.ef_construction,
            M=self.settings.m,
            random_seed=self.settings.seed,
        )
        self._index.set_ef(1)

    def _graph(self) -> Any:
        library = import_extra("hnswlib", "hnswlib", "Backend 'hnsw'")
        return library.Index(space="ip", dim=self.dimension + FILLING)

    def _prepare(self, count: int) -> None:
        used, room = self._index.get_current_count(), self._index.get_max_elements()
        if used + count > room:
            self._index.resize_index(max(used + count, room * 3 // 2))

    def _insert(self, labels: NDArray[np.int64], rows: NDArray[np.float32], threads: int) -> None:
        self._index.add_items(rows, labels.astype(np.uint64), num_threads=threads)

    def _retire(self, labels: NDArray[np.int64]) -> None:
        self._states.put(labels, FREE)
        for label in labels:
            with suppress(RuntimeError):  # this label was not inserted
                self._index.mark_deleted(label)
                self._states.put(label[np.newaxis], SPENT)

    def remove(self, labels: NDArray[np.int64]) -> None:
        """Mark vectors as removed; they still guide searches and keep their memory."""
        self._require(labels)
        for label in labels:
            self._index.mark_deleted(label)
            self._states.put(label[np.newaxis], SPENT)

    def _search(
        self,
        queries: NDArray[np.float32],
        k: int,
        allowed: NDArray[np.int64] | None,
        threads: int | None,
        ef: int | None,
    ) -> Found:
        """Search the graph, and keep what is allowed; if it finds too few, score the allowed vectors one by one."""
        present = None if allowed is None else self.existing(allowed)
        available = len(self) if present is None else len(present)
        k = min(k, available)
        if k == 0:
            return no_results(len(queries), 0)
        accept = None if present is None else set(present.tolist()).__contains__
        try:
            # hnswlib keeps max(ef, k) candidates.  Its ef is 1, so k alone decides, and a search does not change a
            # setting that other threads read.  More than k also finds vectors that are longer than the reach.
            # With a Python filter one thread is enough: more would wait for the interpreter lock.
            labels, distances = self._index.knn_query(
                self._filled(queries),
                k=min(max(k, ef or self.settings.ef), available),
                num_threads=1 if accept else thread_count(threads),
                filter=accept,
            )
        except RuntimeError:  # the graph found fewer
            among = self.labels() if present is None else present
            return self._search_among(among, queries, k, threads)
        labels = labels.astype(np.int64)
        products = np.asarray(1 - distances, np.float32) * self._norms[labels]
        order = np.argsort(-products, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(labels, order, 1), np.take_along_axis(products, order, 1)

    def _stored(self, labels: NDArray[np.int64]) -> NDArray[np.float32]:
        rows = np.asarray(self._index.get_items(labels.tolist(), return_type="numpy"), np.float32)
        return self._original(labels, rows)

    def info(self) -> dict[str, Any]:
        """Return kind, size, settings and bytes per vector."""
        return {
            "kind": self.kind,
            "vectors": len(self),
            "removed": self._states.count(SPENT),
            "dimension": self.dimension,
            "bytes_per_vector": bytes_in_graph(self.dimension, self.settings.m),
            **self.settings.to_dict(),
        }

    def save(self, folder: Path) -> None:
        """Write the graph in hnswlib's format, and the norms; raise OSError if the file is incomplete."""
        path = folder / self.file
        self._index.save_index(str(path))
        self._require_whole(path, self._index.index_file_size())
        self._save_norms(folder)

    @classmethod
    def load(cls, folder: Path, dimension: int, saved: SavedState) -> HNSWSearch:
        """Read what :meth:`save` wrote, or raise ValueError, see :class:`VectorSearch`."""
        loaded = cls(dimension, saved.settings)
        path = saved.graph or folder / cls.file
        labels, marked = check_graph_file(path, dimension, loaded.settings.m)
        loaded._load_norms(folder, path, labels)
        if len(labels) == 0:
            return loaded
        try:
            loaded._index = loaded._graph()
            loaded._index.load_index(str(path), max_elements=len(labels))
        except RuntimeError as error:
            raise ValueError(f"{path} is damaged: {error}.") from error
        loaded._index.set_ef(1)
        loaded._states.put(labels, USED)
        removed = loaded.existing(saved.removed)
        wrong = np.setdiff1d(marked, removed)
        if len(wrong):
            raise ValueError(f"{path} has vector {wrong[0]} marked as removed, but it is in use.")
        for label in removed:
            with suppress(RuntimeError):  # it is marked in the file
                loaded._index.mark_deleted(label)
        loaded._states.put(removed, SPENT)
        loaded._add_saved(path, folder)
        return loaded


def bytes_in_graph(floats: int, m: int) -> int:
    """Return the bytes of a vector in the graph: floats, filling, label and bottom links."""
    return 4 * (floats + FILLING) + 8 + 4 * (2 * m + 1)
