"""HNSWSearch: a graph of hnswlib, which checks nothing itself.

It also follows a file's links without checking that their targets exist, so a damaged file ends the process.  The
layout of a file of version 0.8, native sizes: a header; for every vector its bottom links (a count and `2 m`
numbers), its floats and its label; then for every vector the bytes of its upper links and, level by level, a count
and `m` numbers.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..kernels.jit import kernel
from ..utils.checks import has_repeats
from ..utils.optional_imports import import_extra
from ..utils.parallel import thread_count
from .base import Found, SavedState, no_results
from .graph import FREE, SPENT, USED, GraphSearch
from .saved_graph import FILLING, Floats, Labels
from .settings import HNSWSettings

__all__ = ["HNSWSearch", "bytes_in_graph", "check_graph_file", "find_lists"]

# Capacity of an empty graph.
_ROOM = 1024

# Offset of level 0, capacity, vectors, bytes per vector, offsets of label and floats; highest level, entry point; m
# above, m at the bottom, m; level factor; ef while building.
_HEADER = struct.Struct("=6QiI3QdQ")

# The byte of a vector whose lowest bit marks it as removed.
_MARK = 2

# Vectors whose links are checked together.
_BLOCK = 1 << 16


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

    def _insert(self, labels: Labels, rows: Floats, threads: int) -> None:
        self._index.add_items(rows, labels.astype(np.uint64), num_threads=threads)

    def _retire(self, labels: Labels) -> None:
        self._states.put(labels, FREE)
        for label in labels:
            with suppress(RuntimeError):  # this label was not inserted
                self._index.mark_deleted(label)
                self._states.put(label[np.newaxis], SPENT)

    def remove(self, labels: Labels) -> None:
        """Mark vectors as removed; they still guide searches and keep their memory."""
        self._require(labels)
        for label in labels:
            self._index.mark_deleted(label)
            self._states.put(label[np.newaxis], SPENT)

    def _search(
        self, queries: Floats, k: int, allowed: Labels | None, threads: int | None, ef: int | None
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

    def _stored(self, labels: Labels) -> Floats:
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


# -- files --------------------------------------------------------------------


def check_graph_file(path: Path, dimension: int, m: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the labels of a file's vectors, and the labels marked as removed.

    Raises ValueError for a damaged file, or one whose vectors have another dimension (without the filling) or m.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(_HEADER.size)
    if len(head) < _HEADER.size:
        raise ValueError(f"{path} is cut off: it has {len(head)} bytes.")
    start, room, count, step, label_at, floats_at, top, entry, above, bottom, links, _, _ = _HEADER.unpack(
        head
    )
    columns = (label_at - floats_at) // 4 - FILLING
    consistent = (
        start == 0
        and floats_at == 4 * (bottom + 1)
        and (bottom, above) == (2 * links, links)
        and label_at == floats_at + 4 * (columns + FILLING)
        and step == label_at + 8
        and room >= count
    )
    if not consistent:
        raise ValueError(f"{path} is damaged, or not a file of hnswlib: its header contradicts itself.")
    if columns != dimension:
        raise ValueError(f"{path} holds vectors of {columns} floats, but {dimension} are expected.")
    if links != m:
        raise ValueError(f"{path} has m={links}, but m={m} is expected.")
    if _HEADER.size + count * (step + 4) > size:
        raise ValueError(f"{path} is cut off: it is too short for its {count} vectors.")
    if count == 0:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    vectors = np.memmap(path, np.uint8, "r", _HEADER.size, (count, step))
    for first in range(0, count, _BLOCK):
        block = np.ascontiguousarray(vectors[first : first + _BLOCK, :floats_at]).view(np.uint32)
        # The count has 16 bits; the next byte holds the mark of a removed vector.
        _require_links(path, block[:, 0] & 0xFFFF, block[:, 1:], count)
    labels = np.ascontiguousarray(vectors[:, label_at:]).view(np.uint64).ravel()
    if has_repeats(labels) or labels.max() >= 2**63:
        raise ValueError(f"{path} is damaged: it has a label twice, or a label that is too large.")
    with path.open("rb") as stream:
        stream.seek(_HEADER.size + count * step)
        upper = stream.read()
    levels, lists = _upper_lists(path, upper, count, above)
    if entry >= count or levels[entry] != top or levels.max() != top:
        raise ValueError(f"{path} is damaged: its entry point {entry} is not at the highest level.")
    for level, block in enumerate(lists, start=1):
        _require_links(path, block[:, 0] & 0xFFFF, block[:, 1:], count, levels >= level)
    numbers = labels.astype(np.int64)
    return numbers, numbers[vectors[:, _MARK] & 1 == 1]


def _upper_lists(
    path: Path, upper: bytes, count: int, above: int
) -> tuple[NDArray[np.int64], list[NDArray[np.uint32]]]:
    """Return the level of every vector, and the link lists of each level above the bottom."""
    width = above + 1
    levels, starts = np.zeros(count, np.int64), np.zeros(count, np.int64)
    numbers = np.frombuffer(upper, np.uint32, len(upper) // 4)
    node, position = find_lists(numbers, len(upper), width, levels, starts)
    if node < count:
        raise ValueError(f"{path} is damaged or cut off within the links of vector {node}.")
    if 4 * position != len(upper):
        raise ValueError(f"{path} is damaged: {len(upper) - 4 * position} bytes follow its end.")
    lists = []
    for level in range(1, int(levels.max()) + 1):
        at = starts[levels >= level] + (level - 1) * width
        lists.append(numbers[np.add.outer(at, np.arange(width))])
    return levels, lists


@kernel
def find_lists(numbers: Any, size: int, width: int, levels: Any, starts: Any) -> tuple[int, int]:
    """Write how many lists each vector has to `levels`, and the position of the first one to `starts`.

    `numbers` are the file's uint32 behind the vectors: for each vector the bytes of its lists, and these, of `width`
    numbers each; `size` are their bytes, of which the last may be incomplete.  Returns the first vector whose lists
    are incomplete (or their number), and the position behind the last list.
    """
    position = 0
    for node in range(levels.shape[0]):
        if position >= numbers.shape[0]:
            return node, position
        length = int(numbers[position])
        position += 1
        if length % (4 * width) != 0 or 4 * position + length > size:
            return node, position
        levels[node] = length // (4 * width)
        starts[node] = position
        position += length // 4
    return levels.shape[0], position


def _require_links(
    path: Path,
    counts: NDArray[Any],
    links: NDArray[np.uint32],
    vectors: int,
    reachable: NDArray[np.bool_] | None = None,
) -> None:
    """Raise ValueError if a list is too long, or a link's target does not exist at its level."""
    targets = links[np.arange(links.shape[1]) < counts[:, np.newaxis]]
    if (
        (counts > links.shape[1]).any()
        or (targets >= vectors).any()
        or (reachable is not None and not reachable[targets].all())
    ):
        raise ValueError(f"{path} is damaged: a link's target does not exist.")
