"""hnswlib's file, checked before hnswlib reads it.

hnswlib follows the links of a file without looking whether they lead anywhere, so a damaged
file ends the process.  The layout of version 0.8, native sizes: a header; for every vector
its links at the bottom (a count and `2 m` numbers), its floats and its label; then for every
vector the bytes of its upper links and, level by level, a count and `m` numbers.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..kernels.graph_lists import find_lists
from ..utils.checks import has_repeats
from .saved_graph import FILLING

__all__ = ["check_graph_file"]

# offset of level 0, room, vectors, bytes a vector, offsets of label and floats; highest level,
# entry point; m above, m at the bottom, m; level factor; ef while building.
_HEADER = struct.Struct("=6QiI3QdQ")

# Of a vector's bytes, the one whose lowest bit says that it was removed.
_MARK = 2

# Vectors whose links are looked at together.
_BLOCK = 1 << 16


def check_graph_file(path: Path, dimension: int, m: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the labels of the vectors in the file, and those marked as removed, or raise ValueError.

    Parameters
    ----------
    path : Path
    dimension : int
        Floats a vector must have, beside those that fill it up.
    m : int
        Links a node must have.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(_HEADER.size)
    if len(head) < _HEADER.size:
        raise ValueError(f"{path} is cut off: it has {len(head)} bytes.")
    start, room, count, step, label_at, floats_at, top, entry, above, bottom, links, _, _ = _HEADER.unpack(
        head
    )
    columns = (label_at - floats_at) // 4 - FILLING
    consistent = (
        start == 0
        and floats_at == 4 * (bottom + 1)
        and (bottom, above) == (2 * links, links)
        and label_at == floats_at + 4 * (columns + FILLING)
        and step == label_at + 8
        and room >= count
    )
    if not consistent:
        raise ValueError(f"{path} is damaged, or not a file of hnswlib: its header contradicts itself.")
    if columns != dimension:
        raise ValueError(f"{path} holds vectors of {columns} floats, but {dimension} are wanted.")
    if links != m:
        raise ValueError(f"{path} has m={links}, but m={m} is wanted.")
    if _HEADER.size + count * (step + 4) > size:
        raise ValueError(f"{path} is cut off: it is too short for its {count} vectors.")
    if count == 0:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    bottom_bytes = np.memmap(path, np.uint8, "r", _HEADER.size, (count, step))
    for first in range(0, count, _BLOCK):
        block = np.ascontiguousarray(bottom_bytes[first : first + _BLOCK, :floats_at]).view(np.uint32)
        # The count is 16 bits; the mark of a removed vector stands beside it.
        _require_links(path, block[:, 0] & 0xFFFF, block[:, 1:], count)
    labels = np.ascontiguousarray(bottom_bytes[:, label_at:]).view(np.uint64).ravel()
    if has_repeats(labels) or labels.max() >= 2**63:
        raise ValueError(f"{path} is damaged: it has a label twice, or too large a one.")
    with path.open("rb") as stream:
        stream.seek(_HEADER.size + count * step)
        upper = stream.read()
    levels, lists = _upper_lists(path, upper, count, above)
    if entry >= count or levels[entry] != top or levels.max() != top:
        raise ValueError(f"{path} is damaged: its entry point {entry} is not at the highest level.")
    for level, block in enumerate(lists, start=1):
        _require_links(path, block[:, 0] & 0xFFFF, block[:, 1:], count, levels >= level)
    numbers = labels.astype(np.int64)
    return numbers, numbers[bottom_bytes[:, _MARK] & 1 == 1]


def _upper_lists(
    path: Path, upper: bytes, count: int, above: int
) -> tuple[NDArray[np.int64], list[NDArray[np.uint32]]]:
    """Return every vector's level, and the lists of links of each level above the bottom."""
    width = above + 1
    levels, starts = np.zeros(count, np.int64), np.zeros(count, np.int64)
    numbers = np.frombuffer(upper, np.uint32, len(upper) // 4)
    node, position = find_lists(numbers, len(upper), width, levels, starts)
    if node < count:
        raise ValueError(f"{path} is damaged or cut off within the links of vector {node}.")
    if 4 * position != len(upper):
        raise ValueError(f"{path} is damaged: {len(upper) - 4 * position} bytes follow its end.")
    lists = []
    for level in range(1, int(levels.max()) + 1):
        at = starts[levels >= level] + (level - 1) * width
        lists.append(numbers[np.add.outer(at, np.arange(width))])
    return levels, lists


def _require_links(
    path: Path,
    used: NDArray[Any],
    links: NDArray[np.uint32],
    count: int,
    reached: NDArray[np.bool_] | None = None,
) -> None:
    """Raise where a list is longer than its room or a link leads to no vector of its level."""
    valid = np.arange(links.shape[1]) < used[:, np.newaxis]
    targets = links[valid]
    if (
        (used > links.shape[1]).any()
        or (targets >= count).any()
        or (reached is not None and not reached[targets].all())
    ):
        raise ValueError(f"{path} is damaged: it has links that lead nowhere.")
