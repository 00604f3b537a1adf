"""SavedGraph: a graph's file and the vectors that were added since it was written.

A graph's file cannot grow in place, and writing it takes time in proportion to all vectors.  So a small
number of new vectors is written beside it and added again when the index is loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from pathlib import Path

import numpy as np

from ..utils.atomic_files import save_array
from ..utils.npy_files import load_npy
from .base import Floats, Labels

__all__ = ["FILLING", "SavedGraph", "read_added"]

ADDED, ADDED_LABELS = "vector_added.npy", "vector_added_labels.npy"

#: Extra columns of a graph that make all vectors equally long.
FILLING = 16

# The whole graph is written once more than this many vectors, and this share (1 in 100) of it, were added.
_FEW, _SHARE = 1024, 100


class SavedGraph:
    """The path of a graph's file, its number of `vectors`, and the vectors added since."""

    def __init__(self, path: Path, vectors: int) -> None:
        self.path = path
        self._most = max(_FEW, vectors // _SHARE)
        self._labels: tuple[Labels, ...] = ()
        self._vectors: tuple[Floats, ...] = ()

    def record(self, labels: Labels, vectors: Floats) -> SavedGraph | None:
        """Return a copy with added vectors, or None if the whole graph should be written again."""
        if sum(map(len, self._labels)) + len(labels) > self._most:
            return None
        recorded = copy(self)
        recorded._labels, recorded._vectors = (
            (*self._labels, labels.copy()),
            (*self._vectors, vectors.copy()),
        )
        return recorded

    def write(self, folder: Path, existing: Callable[[Labels], Labels]) -> None:
        """Write the added vectors, if any; `existing` filters out removed labels."""
        if not self._labels:
            return
        labels = np.concatenate(self._labels)
        keep = np.isin(labels, existing(labels))
        if keep.any():
            save_array(folder / ADDED_LABELS, labels[keep])
            save_array(folder / ADDED, np.concatenate(self._vectors)[keep])


def read_added(folder: Path, dimension: int) -> tuple[Labels, Floats]:
    """Return the labels and vectors of :meth:`SavedGraph.write`; empty arrays without a file."""
    if not (folder / ADDED).exists():
        return np.empty(0, np.int64), np.empty((0, dimension), np.float32)
    vectors, labels = load_npy(folder / ADDED, mmap=False), load_npy(folder / ADDED_LABELS, mmap=False)
    if vectors.dtype != np.float32 or labels.dtype != np.int64 or vectors.shape != (len(labels), dimension):
        raise ValueError(
            f"{folder / ADDED} has {vectors.dtype} {vectors.shape} for {labels.dtype} {labels.shape} labels, but the "
            f"graph has dimension={dimension}. Restore the folder from a copy."
        )
    return labels, vectors
