"""HNSW search through hnswlib, which checks nothing: everything is checked here first."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import hnswlib
import numpy as np
from numpy.typing import NDArray

from ..kernels.tile import LANES
from ..utils.atomic_files import read_array
from ..utils.parallel import thread_count
from .base import (
    Found,
    checked_allowed,
    checked_dimension,
    checked_labels,
    checked_queries,
    checked_vectors,
)
from .exact import score_all
from .hnsw_file_check import check_graph_file

__all__ = ["HNSWSearch"]

Space = Literal["cosine", "inner_product"]

FILE = "vectors.hnsw"
NORMS = "vector_norms.npy"

# Vectors read back at a time for exact scores.
_BLOCK_BYTES = 32 << 20

# Vectors that an empty graph has room for.
_ROOM = 1024


class HNSWSearch:
    """Approximate search in a navigable small-world graph.

    Parameters
    ----------
    dimension : int
        Floats of a vector.
    space : {"cosine", "inner_product"}
        What the graph is built by; results are always ordered by inner product.
        "cosine": vectors of length 1, their norms kept beside; the `ef` nearest are ordered
        by inner product.  Every vector is reachable; right while norms differ by some ten
        per cent, as those of FDEs do.  "inner_product": hnswlib's own, for norms that differ
        by factors; parts of its graph can become unreachable, which a larger `ef` does not
        mend and a larger `m` may.
    m : int
        Links a node.  More raise recall, memory (8 bytes each at the bottom, doubled) and
        build time.
    ef_construction : int
        Candidates while building.  More raise recall and build time.
    ef : int
        Candidates while searching, at least k.  More raise recall and time.
    seed : int
        Of the nodes' levels.  With one thread a build is reproducible; with several the
        graph depends on their timing.
    """

    kind = "hnsw"

    def __init__(
        self,
        dimension: int,
        *,
        space: Space = "cosine",
        m: int = 16,
        ef_construction: int = 200,
        ef: int = 200,
        seed: int = 42,
    ) -> None:
        if space not in ("cosine", "inner_product"):
            raise ValueError(f"space must be 'cosine' or 'inner_product', got {space!r}.")
        least_values = (
            ("m", m, 2),
            ("ef_construction", ef_construction, 1),
            ("ef", ef, 1),
            ("seed", seed, 0),
        )
        for name, value, least in least_values:
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be an int of at least {least}, got {value!r}.")
        self.dimension = checked_dimension(dimension)
        self.space: Space = space
        self.m, self.ef_construction, self.ef, self.seed = m, ef_construction, ef, seed
        self._removed: set[int] = set()
        self._labels: set[int] = set()
        self._norms = np.empty(0, np.float32)  # by label; 1 where unknown
        self._index = self._empty(_ROOM)

    def _empty(self, room: int) -> Any:
        index = hnswlib.Index(space="ip", dim=self.dimension)
        index.init_index(
            max_elements=room, ef_construction=self.ef_construction, M=self.m, random_seed=self.seed
        )
        index.set_ef(self.ef)
        return index

    def __len__(self) -> int:
        return len(self._labels)

    # -- changing -------------------------------------------------------------

    def add(
        self, labels: NDArray[np.int64], vectors: NDArray[np.float32], threads: int | None = None
    ) -> None:
        """Add vectors under labels that were never used."""
        vectors = checked_vectors(vectors, self.dimension)
        labels = checked_labels(labels, len(vectors))
        if not self.can_add(labels):
            used = (label for label in labels.tolist() if label in self._labels or label in self._removed)
            raise ValueError(f"label {min(used)} was used already.")
        if len(labels) == 0:
            return
        used_room, room = self._index.get_current_count(), self._index.get_max_elements()
        if used_room + len(labels) > room:
            self._index.resize_index(max(used_room + len(labels), room * 3 // 2))
        if self.space == "cosine":
            norms = np.sqrt(np.square(vectors, dtype=np.float64).sum(axis=1)).astype(np.float32)
            norms[norms == 0] = 1  # a zero vector stays one
            self._keep_norms(labels, norms)
            vectors = vectors / norms[:, np.newaxis]
        try:
            self._index.add_items(vectors, labels.astype(np.uint64), num_threads=thread_count(threads))
            self._labels.update(labels.tolist())
        except BaseException:
            self._retire_rows(labels)
            raise

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

    def _keep_norms(self, labels: NDArray[np.int64], norms: NDArray[np.float32]) -> None:
        needed = int(labels.max()) + 1
        if needed > len(self._norms):
            grown = np.ones(max(needed, len(self._norms) * 3 // 2), np.float32)
            grown[: len(self._norms)] = self._norms
            self._norms = grown
        self._norms[labels] = norms

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

    def set_ef(self, ef: int) -> None:
        """Let searches from now on keep `ef` candidates; not while another thread searches."""
        if isinstance(ef, bool) or not isinstance(ef, int) or ef < 1:
            raise ValueError(f"ef must be an int of at least 1, got {ef!r}.")
        self.ef = ef
        self._index.set_ef(ef)

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        allowed: NDArray[np.int64] | None = None,
        threads: int | None = None,
    ) -> Found:
        """Return about the k best labels and their inner products.

        A restricted search walks the same graph and keeps what is allowed; where the graph
        gives fewer than there are, the allowed vectors are scored one by one.
        """
        queries = checked_queries(queries, self.dimension, k, len(self))
        accept = None
        available = len(self)
        if allowed is not None:
            present = self._labels.intersection(checked_allowed(allowed).tolist())
            available = len(present)
            accept = present.__contains__
        wanted = min(k, available)
        found = np.full((len(queries), k), -1, np.int64)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        if wanted == 0 or len(queries) == 0:
            return found, scores
        fetched = wanted if self.space == "inner_product" else min(max(wanted, self.ef), available)
        try:
            # hnswlib walks with max(ef, k), so ef stays as it is: an answer must not depend on
            # searches before it or beside it.
            # A Python filter needs the interpreter lock: several threads would wait in turn.
            labels, distances = self._index.knn_query(
                queries, k=fetched, num_threads=1 if accept else thread_count(threads), filter=accept
            )
        except RuntimeError:  # the graph led to fewer than were asked for
            candidates = self.labels() if allowed is None else np.array(sorted(present), np.int64)
            return self._search_among(candidates, queries, k, threads)
        labels = labels.astype(np.int64)
        products = np.asarray(1 - distances, np.float32)
        if self.space == "cosine":
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
        """Score the vectors of `labels` one by one, a block at a time."""
        found = np.full((len(queries), k), -1, np.int64)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        width = -(-self.dimension // LANES) * LANES
        padded = np.zeros((len(queries), width), np.float32)
        padded[:, : self.dimension] = queries
        step = max(1, _BLOCK_BYTES // (4 * width))
        for start in range(0, len(labels), step):
            part = labels[start : start + step]
            rows = np.zeros((len(part), width), np.float32)
            rows[:, : self.dimension] = self._stored(part)
            products = score_all(rows, padded, threads).T
            merged = np.concatenate([scores, products], axis=1)
            names = np.concatenate([found, np.broadcast_to(part, products.shape)], axis=1)
            best = np.argsort(-merged, axis=1, kind="stable")[:, :k]
            scores, found = np.take_along_axis(merged, best, 1), np.take_along_axis(names, best, 1)
        return found, scores

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
        return rows * self._norms[labels, np.newaxis] if self.space == "cosine" else rows

    def measure_recall(self, queries: NDArray[np.float32], k: int, threads: int | None = None) -> float:
        """Return which share of the exact k best the graph finds, averaged over `queries`."""
        queries = checked_queries(queries, self.dimension, k, len(self))
        exact, _ = self._search_among(self.labels(), queries, k, threads)
        found, _ = self.search(queries, k, threads=threads)
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
        np.save(folder / NORMS, self._norms)

    def settings(self) -> dict[str, Any]:
        """Return what :meth:`load` needs beside the file."""
        return {
            "space": self.space,
            "m": self.m,
            "ef_construction": self.ef_construction,
            "ef": self.ef,
            "seed": self.seed,
        }

    @classmethod
    def load(
        cls, folder: Path, dimension: int, removed: NDArray[np.int64], settings: dict[str, Any]
    ) -> HNSWSearch:
        """Read what :meth:`save` wrote; `removed` are the labels marked as such.

        Raises
        ------
        ValueError
            For a file of another dimension or a damaged one.
        """
        loaded = cls(dimension, **settings)
        path = folder / FILE
        count = check_graph_file(path, dimension, loaded.m)
        loaded._norms = read_array(folder / NORMS)
        if count == 0:
            return loaded
        try:
            loaded._index = hnswlib.Index(space="ip", dim=dimension)
            loaded._index.load_index(str(path), max_elements=count)
        except RuntimeError as error:
            raise ValueError(f"{path} is damaged: {error}.") from error
        loaded._index.set_ef(loaded.ef)  # hnswlib forgets it
        labels = {int(label) for label in loaded._index.get_ids_list()}
        if loaded.space == "cosine" and max(labels) >= len(loaded._norms):
            raise ValueError(f"{folder / NORMS} has no norm for vector {max(labels)} of {path}.")
        loaded._removed = set(removed.tolist()) & labels
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
            "bytes_per_vector": 4 * self.dimension + 8 + 4 * (2 * self.m + 1),
            **self.settings(),
        }
