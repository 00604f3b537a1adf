"""HNSWSearch: search a graph of hnswlib.

The graph is searched by cosine, because by inner product some vectors become
unreachable.  So that both rank alike, every vector is extended to the same length, the
reach (Bachrach et al., "Speeding up the Xbox recommender system", RecSys 2014, section
3.1): v becomes (v, sqrt(reach**2 - |v|**2)) / reach, and queries get zeros.  The reach
is the 95th percentile of the lengths of the first vectors added.  With the length of a
few very long vectors, all others would be nearly indistinguishable.  A longer vector
gets zeros and is divided by its own length.  The graph then treats it as if it had the
length of the reach, but its inner products are exact.

hnswlib does not validate a file: it follows links without checking that their targets
exist.  So this module does.
"""

from __future__ import annotations

import math
import struct
from _thread import allocate_lock, start_new_thread
from collections import namedtuple
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..kernels.jit import kernel
from ..utils.arrays import load_npy, save_array
from ..utils.checks import has_repeats, import_extra
from ..utils.locks import ReadersWriterLock, hold_during_fork
from ..utils.parallel import split_by_count, thread_count
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
    score_among,
)
from .settings import HNSWSettings

if TYPE_CHECKING:
    import hnswlib

#: Files of a saved search: the reach and the norms, the graph, and the vectors that
#: were added after the graph was written.
NORMS = "vector_norms.npy"
GRAPH = "vectors.hnsw"
ADDED = "vector_added.npy"
ADDED_LABELS = "vector_added_labels.npy"

_FILLING = 16  # extra columns that make all vectors equally long
_ROOM = 1024  # capacity of an empty graph
_BREADTH = 2  # candidates per result, unless a search gives `ef`
_WITHIN_REACH = 0.95  # quantile of the first vectors' lengths that becomes the reach
_ADDED_PER_THREAD = 32  # vectors that each thread adds at a time; searches run in between
_BLOCK = 1 << 16  # vectors whose links are checked together

# The whole graph is written again if more than _FEW vectors are new, because each load
# adds them again, and more than 1 in _SHARE, because writing takes time for all of
# them.
_FEW = 1024
_SHARE = 100

# The beginning of a file; `label_at` and `floats_at` are offsets within a vector,
# `upper_links` a maximum.
_HEADER = struct.Struct("=6QiI3QdQ")
_Header = namedtuple(
    "_Header",
    "start room vectors vector_bytes label_at floats_at top_level entry_point "
    "upper_links bottom_links m level_factor ef_construction",
)


class SharedGraph:
    """A graph of hnswlib that copies of a search share.

    `labels`, int64 (n,), are the labels in it that are not marked as removed.
    """

    def __init__(self, index: hnswlib.Index, labels: Labels) -> None:
        index.set_ef(1)
        self.index = index
        #: Every call that reads or changes the graph shares it.  A fork holds it alone:
        #: the child would wait forever for a mutex of hnswlib that another thread held.
        self.calls = ReadersWriterLock()
        hold_during_fork(self.calls, last=True)
        self.num_unmarked = 0
        #: True for each label that is not marked as removed.
        self.unmarked = np.zeros(0, bool)
        #: Number of additions so far.
        self.additions = 0
        #: Ranges of additions that failed, or that the copy extended last lacks.
        self.abandoned = list[range]()
        self.use(labels)

    def use(self, labels: Labels) -> None:
        """Record that labels, int64 (n,), are in the graph and not marked as removed.

        They must not be recorded already.
        """
        self.unmarked = grown(self.unmarked, int(labels.max(initial=-1)) + 1, 0)
        self.unmarked[labels] = True
        self.num_unmarked += len(labels)

    def add(self, rows: Floats, labels: NDArray[np.uint64], threads: int) -> None:
        """Add vectors, float32 (n, columns) as the graph stores them."""
        with self.calls.shared():
            self.index.add_items(rows, labels, num_threads=threads)


class SavedGraph(NamedTuple):
    """The file of a graph, and the vectors added since it was written.

    A graph's file cannot grow in place, and the time to write it is proportional to all
    vectors.  So a small number of new vectors is written to another file, and added to
    the graph again by each load.
    """

    path: Path
    #: Maximum number of added vectors.
    most: int
    #: Labels of the added vectors, int64 (n,).
    labels: Labels
    #: The added vectors, float32 (n, dimension).
    vectors: Floats


class HNSWSearch(VectorSearch):
    """Approximate search in a graph of hnswlib.

    Raise ImportError if hnswlib is not installed, or too old.
    """

    kind = "hnsw"

    def __init__(self, dimension: int, settings: HNSWSettings | None = None) -> None:
        self.settings = HNSWSettings() if settings is None else settings
        index = _new_index(dimension)
        index.init_index(
            _ROOM, self.settings.m, self.settings.ef_construction, random_seed=self.settings.seed
        )
        self._graph = SharedGraph(index, np.empty(0, np.int64))
        super().__init__(dimension)
        self._addition = 0  # the graph's addition that this copy ends with
        self._reach = 0.0  # until the first vectors are added
        #: The graph's file, if the next save can keep it and write only the added
        #: vectors.
        self._saved: SavedGraph | None = None
        self._norms = np.empty(0, np.float32)  # the divisor of each vector, by label

    @classmethod
    def empty(cls, dimension: int, settings: HNSWSettings | None = None) -> HNSWSearch:
        """Return a search without vectors, whose graph has these settings."""
        return cls(dimension, settings)

    # -- changing -------------------------------------------------------------

    def _add(self, labels: Labels, rows: Floats, threads: int | None, guard: Guard) -> None:
        """Add a few vectors at a time, so that searches can run in between."""
        lengths = np.sqrt(np.square(rows, dtype=np.float64).sum(axis=1))
        reach = self._reach or float(np.float32(np.quantile(lengths, _WITHIN_REACH))) or 1.0
        norms = np.maximum(lengths, reach).astype(np.float32)
        missing = np.sqrt(np.maximum(1 - np.square(lengths / reach), 0) / _FILLING)
        filled = np.empty((len(rows), self.dimension + _FILLING), np.float32)
        filled[:, : self.dimension] = rows / norms[:, np.newaxis]
        filled[:, self.dimension :] = missing[:, np.newaxis]
        workers = thread_count(threads)
        graph = self._graph
        saved = self._saved

        def reserve() -> None:
            self.settle()  # after a failed addition
            used, room = graph.index.get_current_count(), graph.index.get_max_elements()
            if used + len(labels) > room:
                with graph.calls.shared():
                    graph.index.resize_index(max(used + len(labels), room * 3 // 2))
            if self._addition < graph.additions:
                graph.abandoned.append(range(self._addition + 1, graph.additions + 1))
            graph.additions += 1
            graph.use(labels)

        guard(reserve)
        for start, stop in split_by_count(len(labels), _ADDED_PER_THREAD * workers):
            block = filled[start:stop]
            numbers = labels[start:stop].astype(np.uint64)
            guard(partial(graph.add, block, numbers, workers))
        norms_of = grown(self._norms, int(labels.max()) + 1, 1)
        norms_of[labels] = norms
        if saved is not None and len(saved.labels) + len(labels) <= saved.most:
            added = np.append(saved.labels, labels), np.concatenate([saved.vectors, rows])
            self._saved = SavedGraph(saved.path, saved.most, *added)
        else:
            self._saved = None
        self._norms, self._reach, self._addition = norms_of, reach, graph.additions

    def settle(self) -> None:
        """Mark removed vectors in the graph, which makes searches faster."""
        graph = self._graph
        alive = self._alive
        dead = graph.unmarked.copy()
        dead[: len(alive)] &= ~alive[: len(dead)]
        for label in np.flatnonzero(dead):
            with suppress(RuntimeError), graph.calls.shared():  # an error: its addition failed
                graph.index.mark_deleted(label)
            graph.unmarked[label] = False
            graph.num_unmarked -= 1

    # -- searching ------------------------------------------------------------

    def _search(
        self, queries: Floats, best: Found, allowed: Labels | None, threads: int | None, ef: int | None
    ) -> None:
        """Search the graph for allowed vectors.

        If it finds too few, score all allowed vectors.
        """
        self._require_current()
        present = None if allowed is None else self.existing(allowed)
        available = len(self) if present is None else len(present)
        k = min(best[0].shape[1], available)
        if k == 0:
            return
        filled = np.zeros((len(queries), self.dimension + _FILLING), np.float32)
        filled[:, : self.dimension] = queries
        accept: Callable[[int], bool] | None = None
        if present is not None:
            accept = set(present.tolist()).__contains__
        elif self._graph.num_unmarked != self._count:  # also removed vectors, or vectors of other copies
            accept = grown(self._alive, len(self._graph.unmarked), 0).item
        try:
            # hnswlib keeps max(ef, k) candidates.  Its ef is 1, so k alone decides, and
            # a search does not change a setting that other threads read.  More than k
            # candidates also find vectors that are longer than the reach.  Among 24,576
            # real texts, k candidates missed 7 of the 100 best, twice as many missed 2.
            breadth = max(k, ef) if ef else max(_BREADTH * k, self.settings.ef)
            # With a Python filter one thread is enough: more would wait for the
            # interpreter lock.
            workers = 1 if accept else thread_count(threads)
            with self._graph.calls.shared():
                labels, distances = self._graph.index.knn_query(
                    filled, k=min(breadth, available), num_threads=workers, filter=accept
                )
        except RuntimeError:  # the graph found fewer
            among = self.labels() if present is None else present
            score_among(among, lambda a, b: self._stored(among[a:b]), queries, best, threads)
            return
        labels = labels.astype(np.int64)
        products = np.asarray(1 - distances, np.float32) * self._norms[labels]
        order = np.argsort(-products, axis=1, kind="stable")[:, :k]
        best[0][:, :k] = np.take_along_axis(labels, order, 1)
        best[1][:, :k] = np.take_along_axis(products, order, 1)

    def _require_current(self) -> None:
        """Raise RuntimeError if another copy was extended instead of this one.

        The other copy has removed labels of this one.
        """
        if any(self._addition in numbers for numbers in self._graph.abandoned):
            raise RuntimeError(
                "Another copy of this graph was extended after this one. Copies share the graph, so only "
                "the copy that was extended last can be searched or saved."
            )

    def _stored(self, labels: Labels) -> Floats:
        with self._graph.calls.shared():
            items = self._graph.index.get_items(labels.tolist(), return_type="numpy")
        rows = np.asarray(items, np.float32)
        return rows[:, : self.dimension] * self._norms[labels, np.newaxis]

    # -- reading and saving ---------------------------------------------------

    def info(self) -> dict[str, Any]:
        """Return kind, size, settings and bytes per vector."""
        return {
            **super().info(),
            "removed": self._graph.index.get_current_count() - len(self),
            "bytes_per_vector": _vector_type(self.dimension, self.settings.m).itemsize,
            **self.settings.to_dict(),
        }

    def save(self, folder: Path, keep: Keep) -> Saved:
        """Write the norms and the graph.

        If a saved file of the graph can be kept, write only the added vectors.
        """
        self._require_current()
        index = self._graph.index
        saved = self._saved
        norms = grown(self._norms, len(self._graph.unmarked), 1)  # also for vectors of failed additions
        save_array(folder / NORMS, np.concatenate([np.array([self._reach], np.float32), norms]))
        if saved is not None and (kept := keep(saved.path)) is not None:
            added = self._exist(saved.labels)
            if added.any():
                save_array(folder / ADDED_LABELS, saved.labels[added])
                save_array(folder / ADDED, saved.vectors[added])
            return {}, [kept]
        path = folder / GRAPH
        index.save_index(str(path))
        written, needed = path.stat().st_size, index.index_file_size()
        if written != needed:  # hnswlib does not notice
            raise OSError(f"{path} has only {written} of {needed} bytes. Is the disk full?")
        self._saved = None  # until `saved_in`
        return {}, []

    def saved_in(self, folder: Path) -> None:
        """Record that `folder` contains the graph's file, if the last save wrote it."""
        if self._saved is None and len(self):
            self._begin_file(folder / GRAPH)

    def _begin_file(self, path: Path) -> None:
        """Record that the file `path` has all vectors."""
        added = np.empty(0, np.int64), np.empty((0, self.dimension), np.float32)
        self._saved = SavedGraph(path, max(_FEW, len(self) // _SHARE), *added)

    def read(self, folder: Path, saved: SavedState) -> None:
        """Read the graph, the norms, and the vectors added since it was written."""
        (path,) = saved.kept or [folder / GRAPH]
        labels, marked = _check(path, self.dimension, self.settings.m)
        added = np.empty(0, np.int64)
        vectors = np.empty((0, self.dimension), np.float32)
        if (folder / ADDED).exists():
            added, vectors = (load_npy(folder / name, mmap=False) for name in (ADDED_LABELS, ADDED))
        live = labels if saved.live is None else np.intersect1d(labels, saved.live)
        # A failed addition may have left a removed vector in the graph with the label
        # of an added one.
        live = np.setdiff1d(live, added)
        # Or with the label of a document that has no tokens, and so no vector.
        live = np.setdiff1d(live, labels[marked])
        self._load_norms(folder, path, labels, live)
        if not len(labels):
            return
        index = _new_index(self.dimension)
        try:
            index.load_index(str(path), max_elements=len(labels))
        except RuntimeError as error:
            raise ValueError(f"{path} is damaged: {error}.") from error
        self._graph = SharedGraph(index, labels[~marked])
        self._hold(live, saved)
        self.settle()
        self._begin_file(path)
        if added.max(initial=-1) >= len(self._norms):
            raise ValueError(f"{folder / NORMS} has no norm for vector {added.max()} that was added.")
        self.add(added, vectors)

    def _load_norms(self, folder: Path, graph: Path, labels: Labels, live: Labels) -> None:
        """Load the norms.

        Raise ValueError if one of `labels` has none, or one of `live` less than the
        reach.
        """
        array: NDArray[Any] = load_npy(folder / NORMS, mmap=False)
        if array.dtype != np.float32 or array.ndim != 1 or len(array) == 0:
            raise ValueError(
                f"{folder / NORMS} is damaged: its norms are a {array.dtype} array of shape {array.shape}."
            )
        reach = float(array[0])
        norms = array[1:]
        if not np.isfinite(array).all() or reach < 0 or not (norms > 0).all():
            raise ValueError(f"{folder / NORMS} is damaged: a norm is not a positive number.")
        if labels.max(initial=-1) >= len(norms):
            raise ValueError(f"{folder / NORMS} has no norm for vector {labels.max()} of {graph}.")
        if len(live) and (reach == 0 or norms[live].min() < reach):
            raise ValueError(f"{folder / NORMS} is damaged: a norm is less than the graph's reach {reach:g}.")
        self._reach, self._norms = reach, norms.copy()


# -- the file of a graph ------------------------------------------------------


def _list_type(most: int) -> np.dtype[Any]:
    """Return the type of a vector's links on one level.

    The lowest bit of `mark` marks a removed vector.
    """
    return np.dtype([("count", "u2"), ("mark", "u1"), ("unused", "u1"), ("targets", "u4", (most,))])


def _vector_type(dimension: int, m: int) -> np.dtype[Any]:
    """Return the type of a vector at the bottom level."""
    return np.dtype(
        [("links", _list_type(2 * m)), ("floats", "f4", (dimension + _FILLING,)), ("label", "u8")]
    )


def _new_index(dimension: int) -> Any:
    """Return an object of hnswlib that has no graph yet."""
    library = _hnswlib()
    _require_hnswlib(library)
    return library.Index(space="ip", dim=dimension + _FILLING)


def _hnswlib() -> Any:
    """Import hnswlib in another thread, which Ctrl-C does not interrupt.

    After half an import, a process cannot import hnswlib again.  The caller waits for a
    plain lock: Ctrl-C while a Thread or an executor starts or ends can become a
    RuntimeError ("release unlocked lock").
    """
    outcome: Future[Any] = Future()
    done = allocate_lock()

    def work() -> None:
        try:
            outcome.set_result(import_extra("hnswlib", "hnsw", "Backend 'hnsw'"))
        except BaseException as error:
            outcome.set_exception(error)
        finally:
            done.release()

    done.acquire()
    start_new_thread(work, ())
    done.acquire()
    return outcome.result()


def _require_hnswlib(library: ModuleType) -> None:
    """Raise ImportError if another library is installed under the name hnswlib.

    chroma-hnswlib is: it lacks these two features, and it writes other files.
    """
    index = getattr(library, "Index", None)
    missing = [] if hasattr(index, "index_file_size") else ["index_file_size"]
    # pybind11 writes a method's signature into its docstring.
    if "return_type" not in (getattr(getattr(index, "get_items", None), "__doc__", "") or ""):
        missing.append("get_items(return_type=)")
    if missing:
        raise ImportError(
            "Backend 'hnsw' needs hnswlib 0.8 or newer, but the module in "
            f"{getattr(library, '__file__', None)} has no {' and no '.join(missing)}; if chroma-hnswlib "
            "is installed, uninstall it, then run: pip install --force-reinstall hnswlib"
        )


def _check(path: Path, dimension: int, m: int) -> tuple[Labels, NDArray[np.bool_]]:
    """Return the labels of a file's vectors.

    Also return True for each vector that is marked as removed.  Raises ValueError if
    the file is damaged, or if it has another `dimension` (without the padding) or `m`.
    """
    with path.open("rb") as stream:
        head = stream.read(_HEADER.size)
        if len(head) < _HEADER.size:
            raise ValueError(f"{path} is truncated: it has {len(head)} bytes.")
        header = _Header(*_HEADER.unpack(head))
        columns = (header.label_at - header.floats_at) // 4 - _FILLING
        links = header.m
        consistent = (
            header.start == 0
            and header.floats_at == 4 * (header.bottom_links + 1)
            and (header.bottom_links, header.upper_links) == (2 * links, links)
            and header.label_at == header.floats_at + 4 * (columns + _FILLING)
            and header.vector_bytes == header.label_at + 8
            and header.room >= header.vectors
            # hnswlib multiplies random levels of new vectors by this factor.
            and links > 1
            and math.isclose(header.level_factor, 1 / math.log(links), rel_tol=1e-9)
            and header.ef_construction < 2**31
        )
        if not consistent:
            raise ValueError(f"{path} is damaged, or not a file of hnswlib: its header contradicts itself.")
        if columns != dimension:
            raise ValueError(f"{path} contains vectors of {columns} floats, but {dimension} are expected.")
        if links != m:
            raise ValueError(f"{path} has m={links}, but m={m} is expected.")
        count = header.vectors
        if _HEADER.size + count * (header.vector_bytes + 4) > path.stat().st_size:
            raise ValueError(f"{path} is truncated: it is too short for its {count} vectors.")
        if count == 0:
            return np.empty(0, np.int64), np.empty(0, bool)
        stream.seek(_HEADER.size + count * header.vector_bytes)
        upper = stream.read()
    vectors = np.memmap(path, _vector_type(dimension, m), "r", _HEADER.size, (count,))
    labels = np.array(vectors["label"])
    if has_repeats(labels) or labels.max() >= 2**63:
        raise ValueError(f"{path} is damaged: it has a label twice, or a label that is too large.")
    for start, stop in split_by_count(count, _BLOCK):
        _require_targets(path, vectors["links"][start:stop], np.ones(count, bool))
    _check_upper_levels(path, header, upper)
    return labels.astype(np.int64), vectors["links"]["mark"] & 1 == 1


def _check_upper_levels(path: Path, header: _Header, upper: bytes) -> None:
    """Check the links above the bottom level.

    They are in the bytes after the vectors.
    """
    width = header.upper_links + 1
    levels = np.zeros(header.vectors, np.int64)
    starts = np.zeros(header.vectors, np.int64)
    numbers = np.frombuffer(upper, np.uint32, len(upper) // 4)
    node, position = find_lists(numbers, len(upper), width, levels, starts)
    if node < header.vectors:
        raise ValueError(f"{path} is damaged or truncated within the links of vector {node}.")
    if 4 * position != len(upper):
        raise ValueError(f"{path} is damaged: {len(upper) - 4 * position} bytes follow its end.")
    entry = header.entry_point
    top = header.top_level
    if entry >= header.vectors or levels[entry] != top or levels.max() != top:
        raise ValueError(f"{path} is damaged: its entry point {entry} is not at the highest level.")
    for level in range(1, top + 1):
        at = starts[levels >= level] + (level - 1) * width
        lists = numbers[np.add.outer(at, np.arange(width))].view(_list_type(header.upper_links))
        _require_targets(path, lists[:, 0], levels >= level)


@kernel
def find_lists(
    numbers: NDArray[np.uint32], size: int, width: int, levels: NDArray[np.int64], starts: NDArray[np.int64]
) -> tuple[int, int]:
    """Find the lists of each vector above the bottom level.

    Parameters
    ----------
    numbers : uint32
        For each vector the bytes of its lists, and then the lists.
    size : int
        Number of bytes before the file's end, also if not a multiple of 4.
    width : int
        Numbers of a list.
    levels : int64 (n,)
        Receives the number of lists of each vector.
    starts : int64 (n,)
        Receives the position of its first list.

    Returns
    -------
    tuple of int
        The first vector whose lists are incomplete, or n, and the position at which
        reading stopped.
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


def _require_targets(path: Path, lists: NDArray[np.void], present: NDArray[np.bool_]) -> None:
    """Raise ValueError if a list is too long, or a link has no target in `present`."""
    counts = lists["count"]
    links = lists["targets"]
    targets = links[np.arange(links.shape[1]) < counts[:, np.newaxis]]
    if (counts > links.shape[1]).any() or (targets >= len(present)).any() or not present[targets].all():
        raise ValueError(f"{path} is damaged: a link's target does not exist.")
