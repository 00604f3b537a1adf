"""SavedGraph: a graph's file, and the vectors that were added since it was written.

A graph is one file that cannot grow in place.  Writing it again for every few vectors would take time and
bytes in proportion to all of them, so that few are written beside it, and added again when it is read.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..utils.atomic_files import save_array
from ..utils.npy_files import load_npy

__all__ = ["FILLING", "SavedGraph", "read_added"]

ADDED, ADDED_LABELS = "vector_added.npy", "vector_added_labels.npy"

#: Numbers that fill a vector up in a graph, behind its own.
FILLING = 16

# More vectors than this, and than this part of the graph, are worth writing all of it: adding them again
# takes a millisecond for some.
_FEW, _SHARE = 1024, 100


class SavedGraph:
    """Where a graph was written, and what came since.

    Parameters
    ----------
    path : Path
        Of the graph's file.
    vectors : int
        How many are in it.
    """

    def __init__(self, path: Path, vectors: int) -> None:
        self.path = path
        self._most = max(_FEW, vectors // _SHARE)
        self._labels: list[NDArray[np.int64]] = []
        self._vectors: list[NDArray[np.float32]] = []

    def record(self, labels: NDArray[np.int64], vectors: NDArray[np.float32]) -> SavedGraph | None:
        """Take note of vectors that were added; return None where the graph is to be written again."""
        if sum(map(len, self._labels)) + len(labels) > self._most:
            return None
        self._labels.append(labels.copy())
        self._vectors.append(vectors.copy())
        return self

    def write(self, folder: Path, existing: Callable[[NDArray[np.int64]], NDArray[np.int64]]) -> None:
        """Write what came since, if anything, of the labels that `existing` returns of those it is given."""
        if not self._labels:
            return
        labels = np.concatenate(self._labels)
        kept = np.isin(labels, existing(labels))
        if kept.any():
            save_array(folder / ADDED_LABELS, labels[kept])
            save_array(folder / ADDED, np.concatenate(self._vectors)[kept])


def read_added(folder: Path, dimension: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return labels and vectors that :meth:`SavedGraph.write` wrote; none where there is no file.

    Raises
    ------
    ValueError
        For files that do not fit each other or the dimension.
    """
    if not (folder / ADDED).exists():
        return np.empty(0, np.int64), np.empty((0, dimension), np.float32)
    vectors, labels = load_npy(folder / ADDED, mmap=False), load_npy(folder / ADDED_LABELS, mmap=False)
    if vectors.dtype != np.float32 or labels.dtype != np.int64 or vectors.shape != (len(labels), dimension):
        raise ValueError(
            f"{folder / ADDED} has {vectors.dtype} {vectors.shape} for {labels.dtype} {labels.shape} labels, but the "
            f"graph has dimension={dimension}. Restore the folder from a copy."
        )
    return labels, vectors
