"""HNSWSearch: search a graph of hnswlib.

The graph is searched by cosine, because by inner product some vectors become
unreachable.  So that both rank alike, every vector is extended to the same length, the
reach (Bachrach et al., "Speeding up the Xbox recommender system", RecSys 2014, section
3.1): v becomes (v, sqrt(reach**2 - |v|**2)) / reach, and queries get zeros.  The reach
is the 95th percentile of the lengths of the first vectors added.  With the length of a
few very long vectors, all others would be nearly indistinguishable.  A longer vector
gets zeros and is divided by its own length.  The graph then treats it as if it had the
length of the reach, but its inner products are exact.
"""

from __future__ import annotations

from _thread import allocate_lock, start_new_thread
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..utils.arrays import load_npy, save_array
from ..utils.checks import import_extra
from ..utils.locks import ReadersWriterLock, hold_during_fork
from ..utils.parallel import split_by_count, thread_count
from .base import (
    Floats,
    Found,
    Keep,
    Labels,
    OutdatedError,
    Saved,
    SavedState,
    VectorSearch,
    grown,
    score_among,
)
from .hnsw_file import FILLING, check_file, vector_type
from .settings import HNSWSettings

if TYPE_CHECKING:
    import hnswlib

#: Files of a saved search: the reach and the norms, the graph, and the vectors that
#: were added after the graph was written.
NORMS = "vector_norms.npy"
GRAPH = "vectors.hnsw"
ADDED = "vector_added.npy"
ADDED_LABELS = "vector_added_labels.npy"

_ROOM = 1024  # capacity of an empty graph
_NO_VECTOR = np.finfo(np.float32).max  # in the file of norms
_BREADTH = 2  # candidates per result, unless a search gives `ef`
_WITHIN_REACH = 0.95  # quantile of the first vectors' lengths that becomes the reach
_ADDED_PER_THREAD = 32  # vectors that each thread adds at a time; searches run in between

# The whole graph is written again if more than _FEW vectors are new, because each load
# adds them again, and more than 1 in _SHARE, because writing takes time for all of
# them.
_FEW = 1024
_SHARE = 100


class SharedGraph:
    """A graph of hnswlib that copies of a search share.

    `labels`, int64 (n,), are the labels in it that are not marked as removed.
    """

    def __init__(self, index: hnswlib.Index, labels: Labels) -> None:
        index.set_ef(1)
        self.index = index
        #: Every call that reads the graph shares it, and every change holds it alone.
        #: A fork holds it alone, too: the child would wait forever for a mutex of
        #: hnswlib that another thread held.
        self.calls = ReadersWriterLock()
        hold_during_fork(self.calls.locks, last=True)
        self.num_unmarked = 0
        #: True for each label that is not marked as removed.
        self.unmarked = np.zeros(0, bool)
        #: Number of additions so far.
        self.additions = 0
        #: Number of times that a copy was settled.
        self.settled = 0
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

    def mark_removed(self, alive: NDArray[np.bool_]) -> None:
        """Mark the vectors of labels that are not `alive`.

        No other thread may search meanwhile.
        """
        dead = self.unmarked.copy()
        dead[: len(alive)] &= ~alive[: len(dead)]
        for label in np.flatnonzero(dead):
            with suppress(RuntimeError):  # its addition failed
                self.index.mark_deleted(label)
            self.unmarked[label] = False
            self.num_unmarked -= 1


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
        self._settled = 0  # the graph's number when this copy, or the one it is of, was settled
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

    def _add(self, labels: Labels, rows: Floats, threads: int | None) -> None:
        """Add a few vectors at a time, so that searches can run in between."""
        lengths = np.sqrt(np.square(rows, dtype=np.float64).sum(axis=1))
        reach = self._reach or float(np.float32(np.quantile(lengths, _WITHIN_REACH))) or 1.0
        norms = np.maximum(lengths, reach).astype(np.float32)
        missing = np.sqrt(np.maximum(1 - np.square(lengths / reach), 0) / FILLING)
        filled = np.empty((len(rows), self.dimension + FILLING), np.float32)
        filled[:, : self.dimension] = rows / norms[:, np.newaxis]
        filled[:, self.dimension :] = missing[:, np.newaxis]
        workers = thread_count(threads)
        graph = self._graph
        saved = self._saved

        def reserve() -> None:
            graph.mark_removed(self._alive)  # after a failed addition
            used, room = graph.index.get_current_count(), graph.index.get_max_elements()
            if used + len(labels) > room:
                graph.index.resize_index(max(used + len(labels), room * 3 // 2))
            if self._addition < graph.additions:
                graph.abandoned.append(range(self._addition + 1, graph.additions + 1))
            graph.additions += 1
            graph.use(labels)

        graph.calls.alone(reserve)
        for start, stop in split_by_count(len(labels), _ADDED_PER_THREAD * workers):
            block = filled[start:stop]
            numbers = labels[start:stop].astype(np.uint64)
            graph.calls.alone(partial(graph.index.add_items, block, numbers, num_threads=workers))
        norms_of = grown(self._norms, int(labels.max()) + 1, 1)
        norms_of[labels] = norms
        if saved is not None and len(saved.labels) + len(labels) <= saved.most:
            added = np.append(saved.labels, labels), np.concatenate([saved.vectors, rows])
            self._saved = SavedGraph(saved.path, saved.most, *added)
        else:
            self._saved = None
        self._norms, self._reach, self._addition = norms_of, reach, graph.additions

    def settle(self) -> None:
        """Mark removed vectors in the graph, which makes searches faster.

        Earlier copies miss these vectors, so they can no longer be searched.
        """
        graph = self._graph

        def mark() -> None:
            self._settled = graph.settled + 1  # first: an interrupt in between outdates no copy
            graph.settled = self._settled
            graph.mark_removed(self._alive)

        graph.calls.alone(mark)

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
        filled = np.zeros((len(queries), self.dimension + FILLING), np.float32)
        filled[:, : self.dimension] = queries
        accept: Callable[[int], bool] | None = None
        if present is not None:
            accept = set(present.tolist()).__contains__
        try:
            # hnswlib keeps max(ef, k) candidates.  Its ef is 1, so k alone decides, and
            # a search does not change a setting that other threads read.  More than k
            # candidates also find vectors that are longer than the reach.  Among 24,576
            # real texts, k candidates missed 7 of the 100 best, twice as many missed 2.
            breadth = max(k, ef) if ef else max(_BREADTH * k, self.settings.ef)
            with self._graph.calls.shared():
                self._require_latest()
                if accept is None and self._graph.num_unmarked != self._count:
                    # Also removed vectors, or vectors of other copies.
                    accept = grown(self._alive, len(self._graph.unmarked), 0).item
                # With a Python filter one thread is enough: more would wait for the
                # interpreter lock.
                workers = 1 if accept else thread_count(threads)
                labels, distances = self._graph.index.knn_query(
                    filled, k=min(breadth, available), num_threads=workers, filter=accept
                )
        except OutdatedError:
            raise
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

    def _require_latest(self) -> None:
        """Raise OutdatedError if another copy was settled after this one."""
        if self._settled < self._graph.settled:
            raise OutdatedError("This copy of a graph is outdated. Search the copy that was settled last.")

    def _stored(self, labels: Labels) -> Floats:
        with self._graph.calls.shared():
            self._require_latest()
            items = self._graph.index.get_items(labels.tolist(), return_type="numpy")
        rows = np.asarray(items, np.float32)
        return rows[:, : self.dimension] * self._norms[labels, np.newaxis]

    # -- reading and saving ---------------------------------------------------

    def info(self) -> dict[str, Any]:
        """Return kind, size, settings and bytes per vector."""
        return {
            **super().info(),
            "removed": self._graph.index.get_current_count() - len(self),
            "bytes_per_vector": vector_type(self.dimension, self.settings.m).itemsize,
            **self.settings.to_dict(),
        }

    def save(self, folder: Path, keep: Keep) -> Saved:
        """Write the norms and the graph.

        If a saved file of the graph can be kept, write only the added vectors.
        """
        self._require_current()
        index = self._graph.index
        saved = self._saved
        count = max(len(self._graph.unmarked), len(self._norms), len(self._alive))
        # For vectors that this copy lacks, such as those of failed additions: their
        # labels can be the labels of documents without tokens.
        norms = np.where(grown(self._alive, count, 0), grown(self._norms, count, 1), _NO_VECTOR)
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
        labels, marked = check_file(path, self.dimension, self.settings.m)
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
        live = self._load_norms(folder, path, labels, live)
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

    def _load_norms(self, folder: Path, graph: Path, labels: Labels, live: Labels) -> Labels:
        """Load the norms, and return which of `live` have a vector.

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
        live = live[norms[live] < _NO_VECTOR]
        if len(live) and (reach == 0 or norms[live].min() < reach):
            raise ValueError(f"{folder / NORMS} is damaged: a norm is less than the graph's reach {reach:g}.")
        self._reach, self._norms = reach, np.where(norms < _NO_VECTOR, norms, np.float32(1))
        return live


def _new_index(dimension: int) -> Any:
    """Return an object of hnswlib that has no graph yet."""
    library = _hnswlib()
    _require_hnswlib(library)
    return library.Index(space="ip", dim=dimension + FILLING)


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
