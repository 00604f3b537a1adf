"""The one interface of single-vector search, and the checks before any engine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..data.validation import as_array
from ..utils.checks import has_repeats, require_int
from .saved_graph import SavedGraph

__all__ = [
    "Found",
    "Guard",
    "SavedState",
    "VectorSearch",
    "checked_allowed",
    "checked_dimension",
    "checked_labels",
    "checked_queries",
    "checked_vectors",
    "none_found",
]

Found = tuple[NDArray[np.int64], NDArray[np.float32]]


#: Returns what is to be held while vectors of a search are replaced: nobody may search meanwhile.
Guard = Callable[[], AbstractContextManager[Any]]


class VectorSearch(ABC):
    """Base class of searches by largest inner product; vectors are known by the caller's int64 labels.

    Several threads may search at once.  One may add at the same time where every search holds a lock
    that excludes the `guard` of :meth:`add`; :meth:`remove` is to be guarded by the caller.

    Parameters
    ----------
    dimension : int
        Floats of a vector.
    """

    #: The name of this kind, "backend" of an index.
    kind: ClassVar[str]

    #: Where a graph was written, as long as what came since is little enough to be written beside it.
    saved: SavedGraph | None = None

    def __init__(self, dimension: int) -> None:
        self.dimension = checked_dimension(dimension)

    @abstractmethod
    def __len__(self) -> int:
        """Vectors that a search can return."""

    # -- changing -------------------------------------------------------------

    @abstractmethod
    def add(
        self,
        labels: NDArray[np.int64],
        vectors: NDArray[np.float32],
        threads: int | None = None,
        guard: Guard = nullcontext,
    ) -> None:
        """Add vectors, float32 (n, dimension), under new labels (n,); all of them or none."""

    @abstractmethod
    def can_add(self, labels: NDArray[np.int64]) -> bool:
        """Whether :meth:`add` would take all of these labels."""

    @abstractmethod
    def existing(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return those of `labels` that a search can return, ascending."""

    @abstractmethod
    def remove(self, labels: NDArray[np.int64]) -> None:
        """Never return these labels again."""

    @property
    def ready_to_train(self) -> bool:
        """Whether :meth:`train` would learn something."""
        return False

    def train(self, threads: int | None = None) -> None:  # noqa: B027 (most kinds learn nothing)
        """Learn what is to be learned from the vectors that are there, where :attr:`ready_to_train`."""

    # -- searching ------------------------------------------------------------

    @abstractmethod
    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        allowed: NDArray[np.int64] | None = None,
        threads: int | None = None,
        *,
        ef: int | None = None,
    ) -> Found:
        """Return labels and inner products (m, k), best first; label -1 where fewer were found.

        `allowed` restricts the search to these labels.  `ef` is for graphs: how many candidates the
        walk keeps, by default as its settings say; searches with different `ef` exclude each other.
        """

    def measure_recall(
        self, queries: NDArray[np.float32], k: int, threads: int | None = None, *, ef: int | None = None
    ) -> float | None:
        """Return which share of the exact k best is found; None where the exact vectors are not kept."""
        return None

    # -- looking --------------------------------------------------------------

    @abstractmethod
    def labels(self) -> NDArray[np.int64]:
        """Return the labels that a search can return, ascending."""

    @abstractmethod
    def vectors(self, labels: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the stored vectors of `labels`, float32 (n, dimension), as exactly as they are kept."""

    @property
    def fitted_on(self) -> int:
        """How many vectors something was learned from; 0 where nothing was."""
        return 0

    @abstractmethod
    def info(self) -> dict[str, Any]:
        """Return kind, size, settings and bytes a vector."""

    def warnings(self) -> list[str]:
        """Return what a user should know, in sentences."""
        return []

    # -- keeping --------------------------------------------------------------

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write this search's files into `folder`."""

    def save_added(self, folder: Path) -> None:
        """Write what :attr:`saved`'s file lacks into `folder`."""
        raise NotImplementedError(f"{type(self).__name__} is no graph: it is written whole.")

    def saved_in(self, folder: Path) -> None:
        """Take note that what :meth:`save` wrote is in `folder` now."""
        self.saved = None  # but for graphs

    @classmethod
    @abstractmethod
    def load(cls, folder: Path, dimension: int, saved: SavedState) -> VectorSearch:
        """Read what :meth:`save` wrote.

        Raises
        ------
        ValueError
            For files of another dimension or of other settings, and for damaged ones.
        """


@dataclass(frozen=True)
class SavedState:
    """What the files of a search do not say.

    Parameters
    ----------
    settings : HNSWSettings, PQSettings or None
        Of the search.
    fitted_on : int
        How many vectors something was learned from.
    removed : int64 (n,)
        Labels that are never to be returned, whatever the files say.
    graph : Path, optional
        File of a graph that lies elsewhere, to which the folder's vectors are added.
    """

    settings: Any = None
    fitted_on: int = 0
    removed: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    graph: Path | None = None


def checked_vectors(vectors: Any, dimension: int, name: str = "vectors") -> NDArray[np.float32]:
    """Return `vectors` as float32 (n, dimension), finite and C-contiguous, or raise."""
    array = as_array(vectors, name)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name} must be numbers, got dtype {array.dtype}.")
    if array.dtype != np.float32 or not array.flags.c_contiguous:
        with np.errstate(over="ignore"):  # what is too large for float32 is an infinity, refused below
            array = np.ascontiguousarray(array, dtype=np.float32)
    if array.ndim != 2 or array.shape[1] != dimension:
        raise ValueError(f"{name} must have shape (n, {dimension}), got {array.shape}.")
    # A float64 sum of float32 is finite if and only if all its terms are.
    with np.errstate(invalid="ignore"):
        sums = np.asarray(array.sum(axis=1, dtype=np.float64))
    if not np.isfinite(sums).all():
        raise ValueError(f"{name}[{int(np.argmin(np.isfinite(sums)))}] has a NaN or an infinity.")
    return array


def checked_queries(queries: Any, dimension: int, k: Any) -> NDArray[np.float32]:
    """Return the queries as :func:`checked_vectors` does, having checked k."""
    require_int("k", k, 1)
    return checked_vectors(queries, dimension, "queries")


def checked_dimension(dimension: Any) -> int:
    """Return `dimension` where it is an int of at least 1, or raise."""
    return require_int("dimension", dimension, 1)


def none_found(queries: NDArray[np.float32], k: int) -> Found:
    """Return labels of -1 and scores of -inf, (m, k), to be overwritten by what is found."""
    return np.full((len(queries), k), -1, np.int64), np.full((len(queries), k), -np.inf, np.float32)


def checked_labels(labels: Any, count: int | None = None) -> NDArray[np.int64]:
    """Return labels as int64 (n,), non-negative and all different, or raise."""
    array = as_array(labels, "labels")
    if array.size == 0:
        array = array.astype(np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise TypeError(f"labels must be integers (n,), got {array.dtype} {array.shape}.")
    if count is not None and len(array) != count:
        raise ValueError(f"There are {len(array)} labels for {count} vectors.")
    if len(array) and array.min() < 0:
        raise ValueError(f"labels must not be negative, got {array.min()}.")
    if has_repeats(array):
        raise ValueError("labels must be all different.")
    return array.astype(np.int64)


def checked_allowed(allowed: Any) -> NDArray[np.int64]:
    """Return the labels that a search is restricted to as int64 (n,); unknown ones are harmless."""
    array = as_array(allowed, "allowed")
    if array.ndim != 1 or (array.dtype.kind not in "iu" and array.size):
        raise TypeError(f"allowed must be integer labels (n,), got {array.dtype} {array.shape}.")
    return array.astype(np.int64)
