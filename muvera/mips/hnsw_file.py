"""The file of a graph of hnswlib.

hnswlib does not validate a file: it follows links without checking that their targets
exist.  So this module does.
"""

from __future__ import annotations

import math
import struct
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..kernels.jit import kernel
from ..utils.checks import has_repeats
from ..utils.parallel import split_by_count
from .base import Labels

#: Extra columns that make all vectors equally long.
FILLING = 16

# Vectors whose links are checked together.
_BLOCK = 1 << 16

# The beginning of a file; `label_at` and `floats_at` are offsets within a vector,
# `upper_links` a maximum.
_HEADER = struct.Struct("=6QiI3QdQ")
_Header = namedtuple(
    "_Header",
    "start room vectors vector_bytes label_at floats_at top_level entry_point "
    "upper_links bottom_links m level_factor ef_construction",
)


def _list_type(most: int) -> np.dtype[Any]:
    """Return the type of a vector's links on one level.

    The lowest bit of `mark` marks a removed vector.
    """
    return np.dtype([("count", "u2"), ("mark", "u1"), ("unused", "u1"), ("targets", "u4", (most,))])


def vector_type(dimension: int, m: int) -> np.dtype[Any]:
    """Return the type of a vector at the bottom level."""
    return np.dtype([("links", _list_type(2 * m)), ("floats", "f4", (dimension + FILLING,)), ("label", "u8")])


def check_file(path: Path, dimension: int, m: int) -> tuple[Labels, NDArray[np.bool_]]:
    """Return the labels of a file's vectors.

    Also return True for each vector that is marked as removed.  Raises ValueError if
    the file is damaged, or if it has another `dimension` (without the padding) or `m`.
    """
    with path.open("rb") as stream:
        head = stream.read(_HEADER.size)
        if len(head) < _HEADER.size:
            raise ValueError(f"{path} is truncated: it has {len(head)} bytes.")
        header = _Header(*_HEADER.unpack(head))
        columns = (header.label_at - header.floats_at) // 4 - FILLING
        links = header.m
        consistent = (
            header.start == 0
            and header.floats_at == 4 * (header.bottom_links + 1)
            and (header.bottom_links, header.upper_links) == (2 * links, links)
            and header.label_at == header.floats_at + 4 * (columns + FILLING)
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
    vectors = np.memmap(path, vector_type(dimension, m), "r", _HEADER.size, (count,))
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
