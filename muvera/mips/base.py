"""The one interface of single-vector search, and the checks before any engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "VectorSearch",
    "checked_allowed",
    "checked_dimension",
    "checked_labels",
    "checked_queries",
    "checked_vectors",
]

Found = tuple[NDArray[np.int64], NDArray[np.float32]]


class VectorSearch(Protocol):
    """Search by largest inner product; vectors are known by int64 labels of the caller's."""

    kind: str
    dimension: int

    def __len__(self) -> int:
        """Vectors that a search can return."""
        ...

    def add(
        self, labels: NDArray[np.int64], vectors: NDArray[np.float32], threads: int | None = None
    ) -> None:
        """Add vectors, float32 (n, dimension), under new labels (n,); all of them or none."""
        ...

    def can_add(self, labels: NDArray[np.int64]) -> bool:
        """Whether :meth:`add` would take all of these labels."""
        ...

    def existing(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return those of `labels` that a search can return, ascending."""
        ...

    def remove(self, labels: NDArray[np.int64]) -> None:
        """Never return these labels again."""
        ...

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        allowed: NDArray[np.int64] | None = None,
        threads: int | None = None,
    ) -> Found:
        """Return labels and inner products (m, k), best first; label -1 where fewer were found.

        `allowed` restricts the search to these labels.
        """
        ...

    def labels(self) -> NDArray[np.int64]:
        """Return the labels that a search can return, ascending."""
        ...

    def vectors(self, labels: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the stored vectors of `labels`, float32 (n, dimension)."""
        ...

    def save(self, folder: Path) -> None:
        """Write this search's files into `folder`."""
        ...

    def info(self) -> dict[str, Any]:
        """Return kind, size, settings and bytes a vector."""
        ...


def checked_vectors(vectors: Any, dimension: int, name: str = "vectors") -> NDArray[np.float32]:
    """Return `vectors` as float32 (n, dimension), finite and C-contiguous, or raise."""
    array = np.asarray(vectors)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name} must be numbers, got dtype {array.dtype}.")
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


def checked_queries(queries: Any, dimension: int, k: Any, size: int) -> NDArray[np.float32]:
    """Return the queries as :func:`checked_vectors` does, having checked k against the size."""
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)):
        raise TypeError(f"k must be an int, got {type(k).__name__}.")
    if size == 0:
        raise ValueError(f"k={k}, but there are no vectors to be found. Add some first.")
    if not 1 <= k <= size:
        raise ValueError(f"k={k} must be between 1 and the {size} vectors that can be found.")
    return checked_vectors(queries, dimension, "queries")


def checked_dimension(dimension: Any) -> int:
    """Return `dimension` where it is an int of at least 1, or raise."""
    if isinstance(dimension, bool) or not isinstance(dimension, (int, np.integer)) or dimension < 1:
        raise ValueError(f"dimension must be an int of at least 1, got {dimension!r}.")
    return int(dimension)


def checked_labels(labels: Any, count: int | None = None) -> NDArray[np.int64]:
    """Return labels as int64 (n,), non-negative and all different, or raise."""
    array = np.asarray(labels)
    if array.size == 0:
        array = array.astype(np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise TypeError(f"labels must be integers (n,), got {array.dtype} {array.shape}.")
    if count is not None and len(array) != count:
        raise ValueError(f"There are {len(array)} labels for {count} vectors.")
    if len(array) and array.min() < 0:
        raise ValueError(f"labels must not be negative, got {array.min()}.")
    if len(np.unique(array)) != len(array):
        raise ValueError("labels must be all different.")
    return array.astype(np.int64)


def checked_allowed(allowed: Any) -> NDArray[np.int64]:
    """Return the labels that a search is restricted to as int64 (n,); unknown ones are harmless."""
    array = np.asarray(allowed)
    if array.ndim != 1 or (array.dtype.kind not in "iu" and array.size):
        raise TypeError(f"allowed must be integer labels (n,), got {array.dtype} {array.shape}.")
    return array.astype(np.int64)
