"""Write the file of hnswlib's graph, check it and read it.

hnswlib does not validate a file: it follows links without checking that their targets exist.
"""

from __future__ import annotations

import math
import struct
from collections import namedtuple
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..kernels.jit import kernel
from ..utils.arrays import load_npy, save_array
from ..utils.checks import has_repeats, import_extra
from .base import Floats, Labels

GRAPH, ADDED, ADDED_LABELS = "vectors.hnsw", "vector_added.npy", "vector_added_labels.npy"

#: Extra columns of a graph that make all vectors equally long.
FILLING = 16

# The whole graph is written again if more than _FEW vectors are new, and more than 1 in _SHARE.
_FEW, _SHARE = 1024, 100

_BLOCK = 1 << 16  # vectors whose links are checked together

# The beginning of a file; `label_at` and `floats_at` are offsets within a vector, `upper_links` a maximum.
_HEADER = struct.Struct("=6QiI3QdQ")
_Header = namedtuple(
    "_Header",
    "start room vectors vector_bytes label_at floats_at top_level entry_point "
    "upper_links bottom_links m level_factor ef_construction",
)


def _list_type(most: int) -> np.dtype[Any]:
    """Return the type of a vector's links on one level; the lowest bit of `mark` marks a removed vector."""
    return np.dtype([("count", "u2"), ("mark", "u1"), ("unused", "u1"), ("targets", "u4", (most,))])


def _vector_type(dimension: int, m: int) -> np.dtype[Any]:
    """Return the type of a vector at the bottom level."""
    return np.dtype([("links", _list_type(2 * m)), ("floats", "f4", (dimension + FILLING,)), ("label", "u8")])


def bytes_in_graph(floats: int, m: int) -> int:
    """Return the bytes of a vector in the graph: floats, padding, label and bottom links."""
    return _vector_type(floats, m).itemsize


def new_index(dimension: int) -> Any:
    """Return an object of hnswlib that has no graph yet."""
    library = import_extra("hnswlib", "hnsw", "Backend 'hnsw'")
    return library.Index(space="ip", dim=dimension + FILLING)


def write_graph(index: Any, path: Path) -> None:
    """Write a graph; raise OSError if the file is incomplete, which hnswlib does not notice."""
    index.save_index(str(path))
    written, needed = path.stat().st_size, index.index_file_size()
    if written != needed:
        raise OSError(f"{path} has only {written} of {needed} bytes. Is the disk full?")


def read_graph(path: Path, dimension: int, m: int) -> tuple[Any, Labels, NDArray[np.bool_]]:
    """Return the graph of a file, the labels of its vectors, and True for each that is marked as removed.

    The graph is None if it has no vectors.  Raises ValueError if the file is damaged, or if it has another `dimension`
    (without the padding) or `m`.
    """
    labels, marked = _check(path, dimension, m)
    if not len(labels):
        return None, labels, marked
    index = new_index(dimension)
    try:
        index.load_index(str(path), max_elements=len(labels))
    except RuntimeError as error:
        raise ValueError(f"{path} is damaged: {error}.") from error
    return index, labels, marked


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

    @classmethod
    def of(cls, path: Path, dimension: int, count: int) -> SavedGraph:
        """Return the file of a graph of `count` vectors, without added vectors."""
        labels, vectors = np.empty(0, np.int64), np.empty((0, dimension), np.float32)
        return cls(path, max(_FEW, count // _SHARE), labels, vectors)

    def and_more(self, labels: Labels, vectors: Floats) -> SavedGraph | None:
        """Return a copy with more added vectors, or None if the whole graph must be written again."""
        if len(self.labels) + len(labels) > self.most:
            return None
        labels, vectors = np.concatenate([self.labels, labels]), np.concatenate([self.vectors, vectors])
        return replace(self, labels=labels, vectors=vectors)

    def write_added(self, folder: Path, chosen: NDArray[np.bool_]) -> None:
        """Write the chosen added vectors to `folder`."""
        if chosen.any():
            save_array(folder / ADDED_LABELS, self.labels[chosen])
            save_array(folder / ADDED, self.vectors[chosen])


def read_added(folder: Path, dimension: int) -> tuple[Labels, Floats]:
    """Return the labels and vectors that :meth:`SavedGraph.write_added` wrote, if any."""
    if not (folder / ADDED).exists():
        return np.empty(0, np.int64), np.empty((0, dimension), np.float32)
    return load_npy(folder / ADDED_LABELS, mmap=False), load_npy(folder / ADDED, mmap=False)


def _check(path: Path, dimension: int, m: int) -> tuple[Labels, NDArray[np.bool_]]:
    with path.open("rb") as stream:
        head = stream.read(_HEADER.size)
        if len(head) < _HEADER.size:
            raise ValueError(f"{path} is truncated: it has {len(head)} bytes.")
        header = _Header._make(_HEADER.unpack(head))
        columns, links = (header.label_at - header.floats_at) // 4 - FILLING, header.m
        consistent = (
            header.start == 0
            and header.floats_at == 4 * (header.bottom_links + 1)
            and (header.bottom_links, header.upper_links) == (2 * links, links)
            and header.label_at == header.floats_at + 4 * (columns + FILLING)
            and header.vector_bytes == header.label_at + 8
            and header.room >= header.vectors
            # hnswlib draws the levels of new vectors with this number.
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
    for first in range(0, count, _BLOCK):
        _require_targets(path, vectors["links"][first : first + _BLOCK], np.ones(count, bool))
    _check_upper_levels(path, header, upper)
    return labels.astype(np.int64), vectors["links"]["mark"] & 1 == 1


def _check_upper_levels(path: Path, header: _Header, upper: bytes) -> None:
    """Check the bytes after the vectors: the links of each vector at the levels above the bottom."""
    width = header.upper_links + 1
    levels, starts = np.zeros(header.vectors, np.int64), np.zeros(header.vectors, np.int64)
    numbers = np.frombuffer(upper, np.uint32, len(upper) // 4)
    node, position = find_lists(numbers, len(upper), width, levels, starts)
    if node < header.vectors:
        raise ValueError(f"{path} is damaged or truncated within the links of vector {node}.")
    if 4 * position != len(upper):
        raise ValueError(f"{path} is damaged: {len(upper) - 4 * position} bytes follow its end.")
    entry, top = header.entry_point, header.top_level
    if entry >= header.vectors or levels[entry] != top or levels.max() != top:
        raise ValueError(f"{path} is damaged: its entry point {entry} is not at the highest level.")
    for level in range(1, top + 1):
        at = starts[levels >= level] + (level - 1) * width
        lists = numbers[np.add.outer(at, np.arange(width))].view(_list_type(header.upper_links))
        _require_targets(path, lists[:, 0], levels >= level)


@kernel
def find_lists(numbers: Any, size: int, width: int, levels: Any, starts: Any) -> tuple[int, int]:
    """Fill `levels` with the number of lists of each vector, and `starts` with the position of its first list.

    For each vector, `numbers` contain the bytes of its lists, and then the lists, each of `width` numbers.  `size` is
    the number of bytes before the file's end, also if not a multiple of 4.  Returns the first vector whose lists are
    incomplete, or the number of vectors, and the position at which reading stopped.
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
    """Raise ValueError if a list is too long, or if the target of a link is not `present`."""
    counts, links = lists["count"], lists["targets"]
    targets = links[np.arange(links.shape[1]) < counts[:, np.newaxis]]
    if (counts > links.shape[1]).any() or (targets >= len(present)).any() or not present[targets].all():
        raise ValueError(f"{path} is damaged: a link's target does not exist.")
