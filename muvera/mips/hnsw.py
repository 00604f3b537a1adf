"""HNSWSearch: search a graph of hnswlib, and check its files.

hnswlib does not validate a file: it follows links without checking that their targets exist.  So
:func:`check_graph_file` checks them first.

The graph is searched by cosine, because by inner product some vectors become unreachable.  So that both rank
alike, every vector is extended to the same length (Bachrach et al., "Speeding up the Xbox recommender
system", RecSys 2014, section 3.1): v becomes (v, sqrt(reach**2 - |v|**2)) / reach, and queries get zeros.
The reach is the 95th percentile of the lengths of the first vectors added: the length of a few very long
vectors would make all others nearly indistinguishable.  A longer vector gets zeros and is divided by its own
length.  The graph then treats it as if it had the length of the reach, but its inner products are exact.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..kernels.jit import kernel
from ..utils.atomic_files import save_array
from ..utils.checks import has_repeats
from ..utils.npy_files import load_npy
from ..utils.optional_imports import import_extra
from ..utils.parallel import thread_count
from .base import (
    Floats,
    Found,
    Guard,
    Keep,
    Labels,
    Saved,
    SavedState,
    VectorSearch,
    grown,
    no_results,
    score_among,
)
from .settings import HNSWSettings

__all__ = ["GRAPH", "NORMS", "HNSWSearch", "bytes_in_graph"]

GRAPH, NORMS = "vectors.hnsw", "vector_norms.npy"

ADDED, ADDED_LABELS = "vector_added.npy", "vector_added_labels.npy"

#: Extra columns of a graph that make all vectors equally long.
FILLING = 16

# The whole graph is written again after more than this number of new vectors, and more than 1 in _SHARE.
_FEW, _SHARE = 1024, 100

# Candidates per result, unless a search gives `ef`.
_BREADTH = 2

# Capacity of an empty graph.
_ROOM = 1024

# Quantile of the first vectors' lengths that becomes the reach.
_WITHIN_REACH = 0.95

# Vectors that each thread adds at a time; searches run in between.
_ADDED_PER_THREAD = 32

# The fields of a file's header: offset of level 0, capacity, number of vectors, bytes per vector, offsets of the label
# and the floats, highest level, entry point, maximum links above the bottom and at the bottom, m, level factor,
# ef_construction.
_HEADER = struct.Struct("=6QiI3QdQ")

# The byte of a vector whose lowest bit marks it as removed.
_MARK = 2

# Vectors whose links are checked together.
_BLOCK = 1 << 16


@dataclass(frozen=True, eq=False)
class SavedGraph:
    """The file of a graph, and the vectors added since it was written; `most` is their maximum number.

    A graph's file cannot grow in place, and the time to write it is proportional to all vectors.  So a small number of
    new vectors is written to another file, and added to the graph again by each load.
    """

    path: Path
    most: int
    labels: Labels
    vectors: Floats

    def and_more(self, labels: Labels, vectors: Floats) -> SavedGraph | None:
        """Return a copy with more added vectors, or None if the whole graph must be written again."""
        if len(self.labels) + len(labels) > self.most:
            return None
        labels, vectors = np.concatenate([self.labels, labels]), np.concatenate([self.vectors, vectors])
        return replace(self, labels=labels, vectors=vectors)


class SharedGraph:
    """A graph of hnswlib that copies of a search share.

    Parameters
    ----------
    index : hnswlib.Index
    labels : int64 (n,)
        Labels of its vectors.
    marked : int
        Number of vectors that are marked as removed.
    """

    def __init__(self, index: Any, labels: Labels, marked: int = 0) -> None:
        self.index, self._marked = index, marked
        self.next_label = 0  # above all labels that were ever used
        self._used = np.zeros(0, bool)  # by label: may be in the graph without a mark
        self.use(labels)

    @property
    def unmarked(self) -> int:
        """Number of vectors that a search of the graph may return."""
        return int(self.index.get_current_count()) - self._marked

    def use(self, labels: Labels) -> None:
        """Record labels before their vectors are added."""
        self._used = grown(self._used, int(labels.max(initial=-1)) + 1, 0)
        self._used[labels] = True

    def mark_all_but(self, alive: NDArray[np.bool_]) -> None:
        """Mark all labels that are not `alive` as removed."""
        dead = self._used.copy()
        dead[: len(alive)] &= ~alive[: len(dead)]
        for label in np.flatnonzero(dead):
            with suppress(RuntimeError):  # not inserted, or marked already
                self.index.mark_deleted(label)
                self._marked += 1
            self._used[label] = False


class HNSWSearch(VectorSearch):
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

    def __init__(self, dimension: int, settings: HNSWSettings | None = None) -> None:
        self.settings = HNSWSettings() if settings is None else settings
        index = _new_index(dimension)
        index.init_index(
            max_elements=_ROOM,
            ef_construction=self.settings.ef_construction,
            M=self.settings.m,
            random_seed=self.settings.seed,
        )
        index.set_ef(1)
        self._graph = SharedGraph(index, np.empty(0, np.int64))
        super().__init__(dimension)
        self._reach = 0.0  # until the first vectors are added
        #: The graph's file, if the next save can keep it and write only the added vectors.
        self._saved: SavedGraph | None = None
        # The divisor of each vector, by label.
        self._norms = np.empty(0, np.float32)

    @property
    def next_label(self) -> int:
        """A number above all labels that were ever used, also by failed additions."""
        return self._graph.next_label

    @next_label.setter
    def next_label(self, label: int) -> None:
        self._graph.next_label = label

    # -- changing -------------------------------------------------------------

    def _add(self, labels: Labels, rows: Floats, threads: int | None, guard: Guard) -> None:
        """Add a few vectors at a time, so that searches can run in between."""
        lengths = np.sqrt(np.square(rows, dtype=np.float64).sum(axis=1))
        reach = self._reach or float(np.float32(np.quantile(lengths, _WITHIN_REACH))) or 1.0
        norms = np.maximum(lengths, reach).astype(np.float32)
        missing = np.sqrt(np.maximum(1 - np.square(lengths / reach), 0) / FILLING)
        filled = np.empty((len(rows), self.dimension + FILLING), np.float32)
        filled[:, : self.dimension] = rows / norms[:, np.newaxis]
        filled[:, self.dimension :] = missing[:, np.newaxis]
        workers = thread_count(threads)
        step = _ADDED_PER_THREAD * workers
        graph = self._graph

        def reserve() -> None:
            self.settle()  # after a failed addition
            used, room = graph.index.get_current_count(), graph.index.get_max_elements()
            if used + len(labels) > room:
                graph.index.resize_index(max(used + len(labels), room * 3 // 2))
            graph.use(labels)

        guard(reserve)
        for start in range(0, len(labels), step):
            block, numbers = filled[start : start + step], labels[start : start + step].astype(np.uint64)
            guard(partial(graph.index.add_items, block, numbers, num_threads=workers))
        norms_of = grown(self._norms, int(labels.max()) + 1, 1)
        norms_of[labels] = norms
        saved = None if self._saved is None else self._saved.and_more(labels, rows)
        self._norms, self._reach, self._saved = norms_of, reach, saved

    def settle(self) -> None:
        """Mark removed vectors in the graph, which makes searches faster."""
        self._graph.mark_all_but(self._alive)

    # -- searching ------------------------------------------------------------

    def _search(
        self,
        queries: Floats,
        k: int,
        allowed: Labels | None,
        threads: int | None,
        ef: int | None,
    ) -> Found:
        """Search the graph for allowed vectors; if it finds too few, score all allowed vectors."""
        present = None if allowed is None else self.existing(allowed)
        available = len(self) if present is None else len(present)
        k = min(k, available)
        if k == 0:
            return no_results(len(queries), 0)
        filled = np.zeros((len(queries), self.dimension + FILLING), np.float32)
        filled[:, : self.dimension] = queries
        accept: Callable[[int], bool] | None = None
        if present is not None:
            accept = set(present.tolist()).__contains__
        elif (
            self._graph.unmarked != self._count
        ):  # the graph also has removed vectors, or vectors of other copies
            accept = self._may_return
        try:
            # hnswlib keeps max(ef, k) candidates.  Its ef is 1, so k alone decides, and a search does not change a
            # setting that other threads read.  More than k candidates also find vectors that are longer than the reach.
            # Among 24,576 real texts, k candidates missed 7 of the 100 best, twice as many missed 2.
            breadth = max(k, ef) if ef else max(_BREADTH * k, self.settings.ef)
            # With a Python filter one thread is enough: more would wait for the interpreter lock.
            labels, distances = self._graph.index.knn_query(
                filled,
                k=min(breadth, available),
                num_threads=1 if accept else thread_count(threads),
                filter=accept,
            )
        except RuntimeError:  # the graph found fewer
            among = self.labels() if present is None else present
            return score_among(among, lambda a, b: self._stored(among[a:b]), queries, k, threads)
        labels = labels.astype(np.int64)
        products = np.asarray(1 - distances, np.float32) * self._norms[labels]
        order = np.argsort(-products, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(labels, order, 1), np.take_along_axis(products, order, 1)

    def _may_return(self, label: int) -> bool:
        return label < len(self._alive) and bool(self._alive[label])

    def _stored(self, labels: Labels) -> Floats:
        rows = np.asarray(self._graph.index.get_items(labels.tolist(), return_type="numpy"), np.float32)
        return rows[:, : self.dimension] * self._norms[labels, np.newaxis]

    # -- reading and saving ---------------------------------------------------

    def info(self) -> dict[str, Any]:
        """Return kind, size, settings and bytes per vector."""
        return {
            **super().info(),
            "removed": self._graph.index.get_current_count() - len(self),
            "bytes_per_vector": bytes_in_graph(self.dimension, self.settings.m),
            **self.settings.to_dict(),
        }

    def save(self, folder: Path, keep: Keep) -> Saved:
        """Write the norms and the graph; if a saved file of the graph can be kept, write only the added vectors.

        Raises OSError if the file is incomplete.
        """
        norms = grown(self._norms, self.next_label, 1)  # also for vectors of failed additions
        save_array(folder / NORMS, np.concatenate([np.array([self._reach], np.float32), norms]))
        saved = self._saved
        kept = None if saved is None else keep(saved.path)
        if saved is not None and kept is not None:
            exist = self._exist(saved.labels)
            if exist.any():
                save_array(folder / ADDED_LABELS, saved.labels[exist])
                save_array(folder / ADDED, saved.vectors[exist])
            return {}, [kept]
        path = folder / GRAPH
        self._graph.index.save_index(str(path))
        written, needed = path.stat().st_size, self._graph.index.index_file_size()
        if written != needed:
            raise OSError(f"{path} has only {written} of {needed} bytes. Is the disk full?")
        self._saved = None  # until `saved_in`
        return {}, []

    def saved_in(self, folder: Path) -> None:
        """Record that `folder` contains the graph's file, if the last save wrote it."""
        if self._saved is None and len(self):
            self._saved = self._saved_graph(folder / GRAPH)

    def _saved_graph(self, path: Path) -> SavedGraph:
        none = np.empty((0, self.dimension), np.float32)
        return SavedGraph(path, max(_FEW, len(self) // _SHARE), np.empty(0, np.int64), none)

    @classmethod
    def load(cls, folder: Path, dimension: int, saved: SavedState) -> HNSWSearch:
        """Load the files of :meth:`save`; raise ValueError for damaged ones, see :class:`VectorSearch`."""
        loaded = cls(dimension, saved.settings)
        (path,) = saved.kept or [folder / GRAPH]
        labels, marked = check_graph_file(path, dimension, loaded.settings.m)
        live = labels if saved.live is None else labels[np.isin(labels, saved.live)]
        loaded._load_norms(folder, path, labels, live)
        if len(labels) == 0:
            return loaded
        try:
            index = _new_index(dimension)
            index.load_index(str(path), max_elements=len(labels))
        except RuntimeError as error:
            raise ValueError(f"{path} is damaged: {error}.") from error
        index.set_ef(1)
        wrong = np.intersect1d(marked, live)
        if len(wrong):
            raise ValueError(f"{path} has vector {wrong[0]} marked as removed, but it is in use.")
        loaded._graph = SharedGraph(index, labels, len(marked))
        loaded._hold(np.sort(labels), saved)
        loaded.settle()
        loaded._saved = loaded._saved_graph(path)
        if (folder / ADDED).exists():
            added = load_npy(folder / ADDED_LABELS, mmap=False)
            if added.max(initial=-1) >= len(loaded._norms):
                raise ValueError(f"{folder / NORMS} has no norm for vector {added.max()} that was added.")
            loaded.add(added, load_npy(folder / ADDED, mmap=False))
        return loaded

    def _load_norms(self, folder: Path, graph: Path, labels: Labels, live: Labels) -> None:
        """Load the norms that :meth:`save` wrote.

        Raises ValueError if one of `labels` has no norm, or the norm of one of `live` is less than the reach.
        """
        array: NDArray[Any] = load_npy(folder / NORMS, mmap=False)
        if array.dtype != np.float32 or array.ndim != 1 or len(array) == 0:
            raise ValueError(f"{folder / NORMS} is damaged: it holds {array.dtype} {array.shape} for norms.")
        reach, norms = float(array[0]), array[1:]
        if not np.isfinite(array).all() or reach < 0 or not (norms > 0).all():
            raise ValueError(f"{folder / NORMS} is damaged: a norm is not a positive number.")
        if labels.max(initial=-1) >= len(norms):
            raise ValueError(f"{folder / NORMS} has no norm for vector {labels.max()} of {graph}.")
        if len(live) and (reach == 0 or norms[live].min() < reach):
            raise ValueError(f"{folder / NORMS} is damaged: a norm is less than the graph's reach {reach:g}.")
        self._reach, self._norms = reach, norms.copy()


def _new_index(dimension: int) -> Any:
    library = import_extra("hnswlib", "hnsw", "Backend 'hnsw'")
    return library.Index(space="ip", dim=dimension + FILLING)


def bytes_in_graph(floats: int, m: int) -> int:
    """Return the bytes of a vector in the graph: floats, padding, label and bottom links."""
    return 4 * (floats + FILLING) + 8 + 4 * (2 * m + 1)


def check_graph_file(path: Path, dimension: int, m: int) -> tuple[Labels, Labels]:
    """Return the labels of a file's vectors, and the labels marked as removed.

    Raises ValueError if the file is damaged, or if it has another `dimension` (without the padding) or `m`.
    """
    with path.open("rb") as stream:
        head = stream.read(_HEADER.size)
        if len(head) < _HEADER.size:
            raise ValueError(f"{path} is cut off: it has {len(head)} bytes.")
        (
            start,
            room,
            count,
            step,
            label_at,
            floats_at,
            top,
            entry,
            above,
            bottom,
            links,
            multiplier,
            construction,
        ) = _HEADER.unpack(head)
        columns = (label_at - floats_at) // 4 - FILLING
        consistent = (
            start == 0
            and floats_at == 4 * (bottom + 1)
            and (bottom, above) == (2 * links, links)
            and label_at == floats_at + 4 * (columns + FILLING)
            and step == label_at + 8
            and room >= count
            # hnswlib draws the levels of new vectors with this number.
            and links > 1
            and math.isclose(multiplier, 1 / math.log(links), rel_tol=1e-9)
            and construction < 2**31
        )
        if not consistent:
            raise ValueError(f"{path} is damaged, or not a file of hnswlib: its header contradicts itself.")
        if columns != dimension:
            raise ValueError(f"{path} holds vectors of {columns} floats, but {dimension} are expected.")
        if links != m:
            raise ValueError(f"{path} has m={links}, but m={m} is expected.")
        if _HEADER.size + count * (step + 4) > path.stat().st_size:
            raise ValueError(f"{path} is cut off: it is too short for its {count} vectors.")
        if count == 0:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        stream.seek(_HEADER.size + count * step)
        upper = stream.read()
    vectors = np.memmap(path, np.uint8, "r", _HEADER.size, (count, step))
    labels = np.ascontiguousarray(vectors[:, label_at:]).view(np.uint64).ravel()
    if has_repeats(labels) or labels.max() >= 2**63:
        raise ValueError(f"{path} is damaged: it has a label twice, or a label that is too large.")
    for first in range(0, count, _BLOCK):
        lists = np.ascontiguousarray(vectors[first : first + _BLOCK, :floats_at]).view(np.uint32)
        _require_links(path, lists, np.ones(count, bool))
    # Behind the vectors: the link lists of each vector at the levels above the bottom.
    levels, starts = np.zeros(count, np.int64), np.zeros(count, np.int64)
    numbers = np.frombuffer(upper, np.uint32, len(upper) // 4)
    node, position = find_lists(numbers, len(upper), above + 1, levels, starts)
    if node < count:
        raise ValueError(f"{path} is damaged or cut off within the links of vector {node}.")
    if 4 * position != len(upper):
        raise ValueError(f"{path} is damaged: {len(upper) - 4 * position} bytes follow its end.")
    if entry >= count or levels[entry] != top or levels.max() != top:
        raise ValueError(f"{path} is damaged: its entry point {entry} is not at the highest level.")
    for level in range(1, top + 1):
        at = starts[levels >= level] + (level - 1) * (above + 1)
        _require_links(path, numbers[np.add.outer(at, np.arange(above + 1))], levels >= level)
    used = labels.astype(np.int64)
    return used, used[vectors[:, _MARK] & 1 == 1]


@kernel
def find_lists(numbers: Any, size: int, width: int, levels: Any, starts: Any) -> tuple[int, int]:
    """Fill `levels` with the number of lists of each vector, and `starts` with the position of its first list.

    `numbers` are the uint32 values after the vectors in the file.  For each vector, they contain the size of its lists
    in bytes, and then the lists, each of `width` numbers.  `size` is the number of bytes after the vectors; it need not
    be a multiple of 4.  Returns the first vector whose lists are incomplete (the number of vectors if there is none),
    and the position at which reading stopped.
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


def _require_links(path: Path, lists: NDArray[np.uint32], present: NDArray[np.bool_]) -> None:
    """Raise ValueError if a list is too long, or if the target of a link is not `present`.

    Each row of `lists` contains the list's length and then its links.
    """
    # The length has 16 bits; the next byte contains the mark of a removed vector.
    counts, links = lists[:, 0] & 0xFFFF, lists[:, 1:]
    targets = links[np.arange(links.shape[1]) < counts[:, np.newaxis]]
    if (counts > links.shape[1]).any() or (targets >= len(present)).any() or not present[targets].all():
        raise ValueError(f"{path} is damaged: a link's target does not exist.")
