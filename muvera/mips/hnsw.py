"""HNSWSearch: search a graph of hnswlib, and HNSWSettings.

The graph is searched by cosine, because by inner product some vectors become unreachable.  So that both rank
alike, every vector is extended to the same length, the reach (Bachrach et al., "Speeding up the Xbox recommender
system", RecSys 2014, section 3.1): v becomes (v, sqrt(reach**2 - |v|**2)) / reach, and queries get zeros.
The reach is the 95th percentile of the lengths of the first vectors added.  With the length of a few very long
vectors, all others would be nearly indistinguishable.  A longer vector gets zeros and is divided by its own
length.  The graph then treats it as if it had the length of the reach, but its inner products are exact.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..utils.arrays import load_npy, save_array
from ..utils.checks import given, require_int
from ..utils.parallel import thread_count
from . import graph_file
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

NORMS = "vector_norms.npy"

_ROOM = 1024  # capacity of an empty graph
_BREADTH = 2  # candidates per result, unless a search gives `ef`
_WITHIN_REACH = 0.95  # quantile of the first vectors' lengths that becomes the reach
_ADDED_PER_THREAD = 32  # vectors that each thread adds at a time; searches run in between


@dataclass(frozen=True, kw_only=True)
class HNSWSettings:
    """Settings for building and searching a graph of hnswlib.

    Parameters
    ----------
    m : int
        Links per vector.  More links raise recall, build time and memory (8 bytes per link).
    ef_construction : int
        Candidates while building.  More candidates raise recall and build time.
    ef : int
        Candidates while searching.  A search uses twice the number of results if that is more.  More candidates
        raise recall and time.
    seed : int
        Seed of the vectors' levels.  A build with one thread is reproducible; with several threads the graph
        depends on their timing.
    """

    m: int = 16
    ef_construction: int = 200
    ef: int = 200
    seed: int = 42

    def __post_init__(self) -> None:
        for name, minimum in (("m", 2), ("ef_construction", 1), ("ef", 1), ("seed", 0)):
            object.__setattr__(self, name, require_int(name, getattr(self, name), minimum))

    @classmethod
    def of(cls, value: Any) -> HNSWSettings:
        """Return an HNSWSettings for `value`: an HNSWSettings, a dict of its values, or None for the defaults.

        Raises
        ------
        TypeError, ValueError
            If `value` has another type, or a setting is invalid.
        """
        if isinstance(value, cls):
            return value
        value = {} if value is None else value
        if not isinstance(value, Mapping):
            raise TypeError(f"hnsw must be HNSWSettings or a dict of its values, got {given(value)}.")
        known = [field.name for field in fields(cls)]
        unknown = [key for key in value if key not in known]
        if unknown:
            raise ValueError(f"hnsw has no {unknown[0]!r}. It has: {', '.join(known)}.")
        try:
            return cls(**value)
        except (TypeError, ValueError) as error:
            raise type(error)(f"hnsw: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """Return a dict of the parameters and their values."""
        return asdict(self)


class SharedGraph:
    """A graph of hnswlib that copies of a search share, and the labels that are not marked as removed in it."""

    def __init__(self, index: Any, labels: Labels) -> None:
        index.set_ef(1)
        self.index = index
        self.num_unmarked, self.unmarked = 0, np.zeros(0, bool)  # by label
        #: Number of additions so far, and the ranges of those that failed or that the copy extended last does not have.
        self.additions, self.abandoned = 0, list[range]()
        self.use(labels)

    def use(self, labels: Labels) -> None:
        """Record labels that are not marked as removed."""
        self.unmarked = grown(self.unmarked, int(labels.max(initial=-1)) + 1, 0)
        self.unmarked[labels] = True
        self.num_unmarked += len(labels)

    def mark_all_but(self, alive: NDArray[np.bool_]) -> None:
        """Mark all labels that are not `alive` as removed."""
        dead = self.unmarked.copy()
        dead[: len(alive)] &= ~alive[: len(dead)]
        for label in np.flatnonzero(dead):
            with suppress(RuntimeError):  # its addition failed
                self.index.mark_deleted(label)
            self.unmarked[label] = False
            self.num_unmarked -= 1


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
        index = graph_file.new_index(dimension)
        index.init_index(
            _ROOM, self.settings.m, self.settings.ef_construction, random_seed=self.settings.seed
        )
        self._graph = SharedGraph(index, np.empty(0, np.int64))
        super().__init__(dimension)
        self._addition = 0  # the graph's addition that this copy ends with
        self._reach = 0.0  # until the first vectors are added
        #: The graph's file, if the next save can keep it and write only the added vectors.
        self._saved: graph_file.SavedGraph | None = None
        self._norms = np.empty(0, np.float32)  # the divisor of each vector, by label

    # -- changing -------------------------------------------------------------

    def _add(self, labels: Labels, rows: Floats, threads: int | None, guard: Guard) -> None:
        """Add a few vectors at a time, so that searches can run in between."""
        lengths = np.sqrt(np.square(rows, dtype=np.float64).sum(axis=1))
        reach = self._reach or float(np.float32(np.quantile(lengths, _WITHIN_REACH))) or 1.0
        norms = np.maximum(lengths, reach).astype(np.float32)
        missing = np.sqrt(np.maximum(1 - np.square(lengths / reach), 0) / graph_file.FILLING)
        filled = np.empty((len(rows), self.dimension + graph_file.FILLING), np.float32)
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
            if self._addition < graph.additions:
                graph.abandoned.append(range(self._addition + 1, graph.additions + 1))
            graph.additions += 1
            graph.use(labels)

        guard(reserve)
        for start in range(0, len(labels), step):
            block, numbers = filled[start : start + step], labels[start : start + step].astype(np.uint64)
            guard(partial(graph.index.add_items, block, numbers, num_threads=workers))
        norms_of = grown(self._norms, int(labels.max()) + 1, 1)
        norms_of[labels] = norms
        saved = None if self._saved is None else self._saved.and_more(labels, rows)
        self._norms, self._reach, self._saved, self._addition = norms_of, reach, saved, graph.additions

    def settle(self) -> None:
        """Mark removed vectors in the graph, which makes searches faster."""
        self._graph.mark_all_but(self._alive)

    # -- searching ------------------------------------------------------------

    def _search(
        self, queries: Floats, best: Found, allowed: Labels | None, threads: int | None, ef: int | None
    ) -> None:
        """Search the graph for allowed vectors; if it finds too few, score all allowed vectors."""
        self._require_current()
        present = None if allowed is None else self.existing(allowed)
        available = len(self) if present is None else len(present)
        k = min(best[0].shape[1], available)
        if k == 0:
            return
        filled = np.zeros((len(queries), self.dimension + graph_file.FILLING), np.float32)
        filled[:, : self.dimension] = queries
        accept: Callable[[int], bool] | None = None
        if present is not None:
            accept = set(present.tolist()).__contains__
        elif self._graph.num_unmarked != self._count:  # also removed vectors, or vectors of other copies
            accept = self._may_return
        try:
            # hnswlib keeps max(ef, k) candidates.  Its ef is 1, so k alone decides, and a search does not change a
            # setting that other threads read.  More than k candidates also find vectors that are longer than the reach.
            # Among 24,576 real texts, k candidates missed 7 of the 100 best, twice as many missed 2.
            breadth = max(k, ef) if ef else max(_BREADTH * k, self.settings.ef)
            # With a Python filter one thread is enough: more would wait for the interpreter lock.
            workers = 1 if accept else thread_count(threads)
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
        """Raise RuntimeError if another copy was extended instead of this one, which removed labels of this one."""
        if any(self._addition in numbers for numbers in self._graph.abandoned):
            raise RuntimeError(
                "Another copy of this graph was extended after this one. Copies share the graph, so only the copy "
                "that was extended last can be searched or saved."
            )

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
            "bytes_per_vector": graph_file.bytes_in_graph(self.dimension, self.settings.m),
            **self.settings.to_dict(),
        }

    def save(self, folder: Path, keep: Keep) -> Saved:
        """Write the norms and the graph; if a saved file of the graph can be kept, write only the added vectors.

        Raises OSError if the file is incomplete.
        """
        self._require_current()
        norms = grown(self._norms, len(self._graph.unmarked), 1)  # also for vectors of failed additions
        save_array(folder / NORMS, np.concatenate([np.array([self._reach], np.float32), norms]))
        if self._saved is not None and (kept := keep(self._saved.path)) is not None:
            self._saved.write_added(folder, self._exist(self._saved.labels))
            return {}, [kept]
        graph_file.write_graph(self._graph.index, folder / graph_file.GRAPH)
        self._saved = None  # until `saved_in`
        return {}, []

    def saved_in(self, folder: Path) -> None:
        """Record that `folder` contains the graph's file, if the last save wrote it."""
        if self._saved is None and len(self):
            self._saved = graph_file.SavedGraph.of(folder / graph_file.GRAPH, self.dimension, len(self))

    @classmethod
    def load(cls, folder: Path, dimension: int, saved: SavedState) -> HNSWSearch:
        """Load the files of :meth:`save`; raise ValueError for damaged ones, see :class:`VectorSearch`."""
        loaded = cls(dimension, saved.settings)
        (path,) = saved.kept or [folder / graph_file.GRAPH]
        index, labels, marked = graph_file.read_graph(path, dimension, loaded.settings.m)
        added, vectors = graph_file.read_added(folder, dimension)
        live = labels if saved.live is None else np.intersect1d(labels, saved.live)
        live = np.setdiff1d(
            live, added
        )  # the graph may have a removed vector of a failed addition with such a label
        loaded._load_norms(folder, path, labels, live)
        if index is None:
            return loaded
        wrong = np.intersect1d(labels[marked], live)
        if len(wrong):
            raise ValueError(f"{path} has vector {wrong[0]} marked as removed, but it is in use.")
        loaded._graph = SharedGraph(index, labels[~marked])
        loaded._hold(live, saved)
        loaded.settle()
        loaded._saved = graph_file.SavedGraph.of(path, dimension, len(loaded))
        if added.max(initial=-1) >= len(loaded._norms):
            raise ValueError(f"{folder / NORMS} has no norm for vector {added.max()} that was added.")
        loaded.add(added, vectors)
        return loaded

    def _load_norms(self, folder: Path, graph: Path, labels: Labels, live: Labels) -> None:
        """Load the norms that :meth:`save` wrote.

        Raises ValueError if one of `labels` has no norm, or the norm of one of `live` is less than the reach.
        """
        array: NDArray[Any] = load_npy(folder / NORMS, mmap=False)
        if array.dtype != np.float32 or array.ndim != 1 or len(array) == 0:
            raise ValueError(
                f"{folder / NORMS} is damaged: its norms are a {array.dtype} array of shape {array.shape}."
            )
        reach, norms = float(array[0]), array[1:]
        if not np.isfinite(array).all() or reach < 0 or not (norms > 0).all():
            raise ValueError(f"{folder / NORMS} is damaged: a norm is not a positive number.")
        if labels.max(initial=-1) >= len(norms):
            raise ValueError(f"{folder / NORMS} has no norm for vector {labels.max()} of {graph}.")
        if len(live) and (reach == 0 or norms[live].min() < reach):
            raise ValueError(f"{folder / NORMS} is damaged: a norm is less than the graph's reach {reach:g}.")
        self._reach, self._norms = reach, norms.copy()
