"""VectorSearch: the interface of single-vector search, and the checks of its arrays."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..data.ranking import best_first
from ..data.validation import read_only_view
from ..kernels.rows import first_beyond, inner_products
from ..kernels.tile import LANES
from ..utils.checks import require_int
from ..utils.parallel import run_in_ranges, split_by_count
from .settings import HNSWSettings

_Search = TypeVar("_Search", bound="VectorSearch")

#: Labels of vectors int64 (n,), and vectors float32 (n, dimension).
Labels = NDArray[np.int64]
Floats = NDArray[np.float32]

#: Labels int64 (m, k) and inner products float32 (m, k), best first; label -1 if fewer
#: were found.
Found = tuple[Labels, Floats]

#: For a saved file, returns its name within the index's folder, or None if the next
#: save cannot keep it.
Keep = Callable[[Path], str | None]

#: The state for :meth:`VectorSearch.load`, as JSON, and the names of the kept files.
Saved = tuple[dict[str, Any], list[str]]

# The mask of a float32's bits without the sign, and the bits of infinity.
_FINITE = np.uint32(0x7FFFFFFF), np.uint32(0x7F800000)

# Bytes of vectors per task.
_TASK = 4 << 20

# Bytes of vectors whose products are in memory at a time.
_BLOCK = 32 << 20


class OutdatedError(RuntimeError):
    """A later copy of a graph was settled; search that copy."""


class VectorSearch(ABC):
    """Base class of maximum inner product searches.

    The caller identifies vectors by int64 labels.  Several threads may search at once.
    A copy (:func:`copy.copy`) is cheap, because it shares the vectors.  Changes to a
    copy do not affect the original, even while other threads search it.

    Copies of a graph share the graph, which lets no search run while it changes.  If
    two copies of a graph are extended, only the copy that was extended last can be
    searched; the other raises RuntimeError.  After :meth:`settle` of a copy, earlier
    copies raise OutdatedError.

    `dimension` is the number of columns of the vectors.
    """

    #: Name of this kind: the "backend" of an index.
    kind: ClassVar[str]

    def __init__(self, dimension: int) -> None:
        self.dimension = require_int("dimension", dimension, 1)
        self._alive = np.zeros(0, bool)  # by label, up to the last one
        self._count = 0

    @classmethod
    def empty(cls: type[_Search], dimension: int, settings: HNSWSettings | None = None) -> _Search:
        """Return a search without vectors; only a graph has `settings`."""
        return cls(dimension)

    def __len__(self) -> int:
        """Return the number of vectors that a search can return."""
        return self._count

    def add(self, labels: Labels, vectors: Floats, threads: int | None = None) -> None:
        """Add all or none of some vectors.

        Labels ascend, and are above all earlier labels.  Vectors are finite numbers.
        Raise TypeError or ValueError if the labels do not ascend, or the vectors have
        another shape or numbers that are not finite.
        """
        rows = checked_vectors(vectors, self.dimension)
        names = checked_labels(labels, len(rows))
        if not len(names):
            return
        following = len(self._alive)
        if names[0] < following:
            raise ValueError(
                f"label {names[0]} must be at least {following}: labels are used once and ascend."
            )
        alive = grown(self._alive, int(names[-1]) + 1, 0)
        self._add(names, rows, threads)
        alive[names] = True
        self._alive, self._count = alive, self._count + len(names)

    @abstractmethod
    def _add(self, labels: Labels, rows: Floats, threads: int | None) -> None:
        """Add at least one checked vector."""

    def _hold(self, labels: Labels, saved: SavedState) -> None:
        """Set the labels of loaded vectors, which are ascending.

        Those in `saved.live` can be returned.
        """
        live = labels if saved.live is None else np.intersect1d(labels, saved.live, assume_unique=True)
        self._alive = np.zeros(int(labels.max(initial=-1)) + 1, bool)
        self._alive[live] = True
        self._count = len(live)

    def settle(self) -> None:  # noqa: B027 (only graphs need it)
        """Prepare for searches after changes; a graph then refuses earlier copies."""

    def existing(self, labels: Labels) -> Labels:
        """Return the `labels` that a search can return, ascending and without repeats.

        Some labels may be unknown.
        """
        return np.unique(labels[self._exist(labels)])

    def _exist(self, labels: Labels) -> NDArray[np.bool_]:
        known = (labels >= 0) & (labels < len(self._alive))
        known[known] = self._alive[labels[known]]
        return known

    def _require(self, labels: Labels) -> None:
        missing = labels[~self._exist(labels)]
        if len(missing):
            raise KeyError(f"label {missing.min()} does not exist.")

    def remove(self, labels: Labels) -> None:
        """Skip the vectors with these distinct labels in later searches.

        Raise KeyError if a label does not exist.
        """
        self._require(labels)
        alive = self._alive.copy()
        alive[labels] = False
        self._alive, self._count = alive, self._count - len(labels)

    def search(
        self,
        queries: Floats,
        k: int,
        allowed: Labels | None = None,
        threads: int | None = None,
        *,
        ef: int | None = None,
    ) -> Found:
        """Return the best vectors of each query.

        Parameters
        ----------
        queries : float32 (m, dimension)
            Query vectors of finite numbers.
        k : int
            Number of vectors per query.
        allowed : int64 (a,), optional
            Search only these labels; unknown labels are ignored.  Default: all.
        threads : int, optional
            Number of threads.  Default: all usable cores.
        ef : int, optional
            Number of candidates that a graph search keeps: more candidates find more
            and take more time.  Default: as in its settings.

        Returns
        -------
        tuple of int64 (m, k) and float32 (m, k)
            Labels and inner products, best first; -1 and -inf if fewer were found.

        Raises
        ------
        TypeError, ValueError
            If the queries have another shape or numbers that are not finite.
        """
        rows = checked_vectors(queries, self.dimension, "queries")
        labels, scores = np.empty((len(rows), k), np.int64), np.empty((len(rows), k), np.float32)
        labels.fill(-1)
        scores.fill(-np.inf)
        if len(rows) and len(self):
            possible = slice(len(self))
            self._search(rows, (labels[:, possible], scores[:, possible]), allowed, threads, ef)
        return labels, scores

    @abstractmethod
    def _search(
        self, queries: Floats, best: Found, allowed: Labels | None, threads: int | None, ef: int | None
    ) -> None:
        """Search with at least one checked query.

        Write the results to `best`, which contains -1 and -inf.
        """

    def labels(self) -> Labels:
        """Return the labels that a search can return, ascending."""
        return np.flatnonzero(self._alive)

    def vectors(self, labels: Labels) -> Floats:
        """Return stored vectors by label: as added, or decoded from codes.

        Raise KeyError if a label does not exist.
        """
        self._require(labels)
        return self._stored(labels) if len(labels) else np.empty((0, self.dimension), np.float32)

    @abstractmethod
    def _stored(self, labels: Labels) -> Floats:
        """Return the vectors of at least one existing label."""

    def info(self) -> dict[str, Any]:
        """Return kind, size, settings and bytes per vector."""
        return {"kind": self.kind, "vectors": len(self), "dimension": self.dimension}

    @abstractmethod
    def save(self, folder: Path, keep: Keep) -> Saved:
        """Write this search's files to a folder.

        Files that can be kept are not written again: `keep` returns the name of a saved
        file within the index's folder, or None if it cannot be kept.  Return the state
        for :meth:`load`, as JSON, and the names of the kept files.
        """

    def saved_in(self, folder: Path) -> None:  # noqa: B027 (some keep no files)
        """Record the folder that contains the saved files."""

    @classmethod
    def load(cls: type[_Search], folder: Path, dimension: int, saved: SavedState) -> _Search:
        """Load the files of :meth:`save` from its folder.

        Raise FileNotFoundError or ValueError if a file is missing or damaged, or
        belongs to another dimension or other settings.
        """
        loaded = cls.empty(dimension, saved.settings)
        loaded.read(folder, saved)
        return loaded

    @abstractmethod
    def read(self, folder: Path, saved: SavedState) -> None:
        """Fill this empty search from files, see :meth:`load`."""


@dataclass(frozen=True)
class SavedState:
    """What :meth:`VectorSearch.save` returned, and what loading needs besides."""

    #: State of the search.
    state: dict[str, Any]
    #: Files that were kept.
    kept: list[Path]
    #: Settings of a graph.
    settings: HNSWSettings | None = None
    #: Labels that a search can return, ascending.  Default: all in the files.
    live: Labels | None = None


def checked_vectors(vectors: ArrayLike, dimension: int, name: str = "vectors") -> Floats:
    """Return numbers (n, dimension) of any type as finite, C-contiguous float32.

    Raise TypeError or ValueError if `vectors` has another shape, or entries that are
    not finite numbers.
    """
    array = np.asarray(vectors)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name} must be numbers, got dtype {array.dtype}.")
    if array.dtype != np.float32:
        with np.errstate(over="ignore"):  # the check below refuses the infinities
            array = array.astype(np.float32)
    array = np.ascontiguousarray(array)
    if array.ndim != 2 or array.shape[1] != dimension:
        raise ValueError(f"{name} must have shape (n, {dimension}), got {array.shape}.")
    bits = array.reshape(-1).view(np.uint32)
    # As in all calls of this kernel, which is compiled once.
    bits.flags.writeable = False
    wrong = first_beyond(bits, *_FINITE)
    if wrong >= 0:
        raise ValueError(f"{name}[{wrong // dimension}] has a NaN or an infinity.")
    return array


def checked_labels(labels: ArrayLike, count: int) -> Labels:
    """Return `count` ascending, distinct labels that are not negative as int64.

    Raise TypeError or ValueError if `labels` are anything else.
    """
    array = np.asarray(labels)
    if array.ndim != 1 or (array.dtype.kind not in "iu" and array.size):
        raise TypeError(f"labels must be integers (n,), got {array.dtype} {array.shape}.")
    if len(array) != count:
        raise ValueError(f"There are {len(array)} labels for {count} vectors.")
    if len(array) and (array[0] < 0 or (np.diff(array) <= 0).any()):
        raise ValueError("labels must ascend from 0 or more, without repeats.")
    return array.astype(np.int64)


def grown(array: NDArray[Any], needed: int, value: float) -> NDArray[Any]:
    """Return a copy of an array, filled with `value` to at least `needed` entries."""
    copied = np.full(max(needed, len(array)), value, array.dtype)
    copied[: len(array)] = array
    return copied


def padded(rows: Floats) -> Floats:
    """Return rows with zeros up to a multiple of LANES columns.

    It returns `rows` themselves if no zeros are needed.
    """
    width = -(-rows.shape[1] // LANES) * LANES
    if rows.shape[1] == width:
        return rows
    out = np.zeros((len(rows), width), np.float32)
    out[:, : rows.shape[1]] = rows
    return out


def score_among(
    labels: Labels,
    read: Callable[[int, int], Floats],
    queries: Floats,
    best: Found,
    threads: int | None,
) -> None:
    """Merge the best of some vectors into the results of each query.

    ``read(start, stop)`` returns the vectors of ``labels[start:stop]``, with or without
    padding.  `best` has the labels and inner products (m, k) so far, best first, and is
    changed in place.  Ties go to the vectors that came first.
    """
    queries = padded(queries)
    for start, stop in split_by_count(len(labels), _BLOCK // (4 * queries.shape[1])):
        products = _products(padded(read(start, stop)), queries, threads)
        for names, scores, added in zip(*best, products, strict=True):
            first = best_first(added, len(names))
            merged = np.concatenate([scores, added[first]])
            order = np.argsort(-merged, kind="stable")[: len(names)]
            names[:] = np.concatenate([names, labels[start + first]])[order]
            scores[:] = merged[order]


def _products(vectors: Floats, queries: Floats, threads: int | None) -> Floats:
    """Return the inner products of :func:`padded` queries and vectors.

    The result is float32 (m, n).
    """
    width = vectors.shape[1]
    out = np.empty((len(vectors), len(queries)), np.float32)
    flat = read_only_view(vectors).reshape(-1)
    packed = read_only_view(queries).reshape(-1)

    def work(start: int, stop: int) -> None:
        inner_products(flat, start, stop, width, packed, len(queries), out[start:stop])

    ranges = split_by_count(len(vectors), _TASK // (4 * width))
    run_in_ranges(work, ranges, threads, vectors.size * len(queries))
    return np.ascontiguousarray(out.T)
