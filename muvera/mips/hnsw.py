"""HNSW search through hnswlib, which checks nothing: everything is checked here first."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..utils.checks import require_int
from ..utils.optional_imports import import_extra
from ..utils.parallel import thread_count
from .base import Found, SavedState, checked_allowed, checked_labels, checked_queries, none_found
from .graph import GraphSearch
from .hnsw_file_check import check_graph_file
from .label_states import FREE, SPENT, USED
from .saved_graph import FILLING
from .settings import HNSWSettings

__all__ = ["HNSWSearch", "bytes_in_graph"]

# Vectors that an empty graph has room for.
_ROOM = 1024


class HNSWSearch(GraphSearch):
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
    file = "vectors.hnsw"

    def __init__(self, dimension: int, settings: HNSWSettings | None = None) -> None:
        super().__init__(dimension)
        self.settings = HNSWSettings() if settings is None else settings
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
        return library.Index(space="ip", dim=self.dimension + FILLING)

    # -- changing -------------------------------------------------------------

    def _prepare(self, count: int) -> None:
        used, room = self._index.get_current_count(), self._index.get_max_elements()
        if used + count > room:
            self._index.resize_index(max(used + count, room * 3 // 2))

    def _insert(self, labels: NDArray[np.int64], rows: NDArray[np.float32], threads: int) -> None:
        self._index.add_items(rows, labels.astype(np.uint64), num_threads=threads)

    def _retire(self, labels: NDArray[np.int64]) -> None:
        self._states.put(labels, FREE)
        for label in labels:
            with suppress(RuntimeError):  # this one did not get in
                self._index.mark_deleted(label)
                self._states.put(label[np.newaxis], SPENT)

    def remove(self, labels: NDArray[np.int64]) -> None:
        """Mark vectors as removed; they still guide the search, and keep their memory."""
        known = checked_labels(labels)
        self._require(known)
        for label in known:
            self._index.mark_deleted(label)
            self._states.put(label[np.newaxis], SPENT)

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
            present = self.existing(checked_allowed(allowed))
            available = len(present)
            accept = set(present.tolist()).__contains__
        wanted = min(k, available)
        found, scores = none_found(queries, k)
        if wanted == 0 or len(queries) == 0:
            return found, scores
        fetched = min(max(wanted, ef), available)  # for longer ones than the graph's reach
        if self._index.ef != ef:
            self._index.set_ef(ef)
        try:
            # hnswlib walks with max(ef, k): an answer does not depend on the k of searches beside it.
            # A Python filter needs the interpreter lock: several threads would wait in turn.
            labels, distances = self._index.knn_query(
                self._asked(queries),
                k=fetched,
                num_threads=1 if accept else thread_count(threads),
                filter=accept,
            )
        except RuntimeError:  # the graph led to fewer than were asked for
            candidates = self.labels() if allowed is None else present
            return self._search_among(candidates, queries, k, threads)
        labels = labels.astype(np.int64)
        products = np.asarray(1 - distances, np.float32) * self._norms[labels]
        order = np.argsort(-products, axis=1, kind="stable")[:, :wanted]
        found[:, :wanted] = np.take_along_axis(labels, order, 1)
        scores[:, :wanted] = np.take_along_axis(products, order, 1)
        return found, scores

    def _stored(self, labels: NDArray[np.int64]) -> NDArray[np.float32]:
        rows = np.asarray(self._index.get_items(labels.tolist(), return_type="numpy"), np.float32)
        return self._given(labels, rows)

    # -- keeping --------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Write the graph in hnswlib's format, and the vectors' norms.

        Raises
        ------
        OSError
            Where the file could not be written whole: hnswlib itself says nothing then.
        """
        path = folder / self.file
        self._index.save_index(str(path))
        self._require_whole(path, self._index.index_file_size())
        self._save_norms(folder)

    @classmethod
    def load(cls, folder: Path, dimension: int, saved: SavedState) -> HNSWSearch:
        """Read what :meth:`save` wrote.

        Raises
        ------
        ValueError
            For a file of another dimension or a damaged one.
        """
        loaded = cls(dimension, saved.settings)
        path = saved.graph or folder / cls.file
        kept, marked = check_graph_file(path, dimension, loaded.settings.m)
        loaded._load_norms(folder, path, kept)
        if len(kept) == 0:
            return loaded
        try:
            loaded._index = loaded._graph()
            loaded._index.load_index(str(path), max_elements=len(kept))
        except RuntimeError as error:
            raise ValueError(f"{path} is damaged: {error}.") from error
        loaded._index.set_ef(loaded.settings.ef)  # hnswlib forgets it
        loaded._states.put(kept, USED)
        gone = loaded.existing(saved.removed)
        wrong = np.setdiff1d(marked, gone)
        if len(wrong):
            raise ValueError(f"{path} has vector {wrong[0]} marked as removed, but it is in use.")
        for label in gone:
            with suppress(RuntimeError):  # the file remembers the mark
                loaded._index.mark_deleted(label)
        loaded._states.put(gone, SPENT)
        loaded._add_saved(path, folder)
        return loaded

    def info(self) -> dict[str, Any]:
        """Return kind, size, settings and bytes a vector."""
        return {
            "kind": self.kind,
            "vectors": len(self),
            "removed": self._states.num_spent,
            "dimension": self.dimension,
            "bytes_per_vector": bytes_in_graph(self.dimension, self.settings.m),
            **self.settings.to_dict(),
        }


def bytes_in_graph(floats: int, m: int) -> int:
    """Return the bytes of a vector with what fills it up, its label, and its links at the bottom."""
    return 4 * (floats + FILLING) + 8 + 4 * (2 * m + 1)
