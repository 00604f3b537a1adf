"""Check of usearch's file before usearch reads it.

usearch follows a file's links without checking that their targets exist, so a damaged file ends the process.  The
layout of version 2, little-endian: the numbers of rows and of bytes per row (uint32 each) and the rows; 64 bytes
with the types of numbers; 40 bytes with the graph's sizes; for every node its level (int16); then node after node
its key (uint64), level, a count and `2 m` slots at the bottom, and for each level above a count and `m` slots.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..utils.checks import has_repeats
from .saved_graph import FILLING

__all__ = ["check_usearch_file"]

_SHAPE = struct.Struct("<2I")

# Name, version; types of metric, number, key and slot; vectors, removed vectors, dimension, several per key.
_HEAD = struct.Struct("<7s3H4B3Q?")
_HEAD_SIZE = 64

# Nodes, links above, links at the bottom, highest level, entry point.
_GRAPH = struct.Struct("<5Q")

# usearch's names of number types, with their numbers in a file and their bits.
_KINDS = {"f32": 11, "bf16": 4, "i8": 23}
_BITS = {"f32": 32, "bf16": 16, "i8": 8}

# The metric "cos", keys of 64 and slots of 32 bits.
_COSINE, _KEY, _SLOT = 99, 14, 15

# The key of a removed node.
_REMOVED = np.uint64(2**64 - 1)

# Bytes of a node's key and level.
_NODE = 8 + 2


def check_usearch_file(path: Path, dimension: int, m: int, precision: str) -> NDArray[np.int64]:
    """Return the keys of a file's vectors.

    Parameters
    ----------
    path : Path
    dimension : int
        Floats that a vector must have, without the filling.
    m : int
        Links that a node must have.
    precision : str
        usearch's name of the type of numbers.

    Raises
    ------
    ValueError
        For a damaged file, or a file of other vectors.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(_SHAPE.size)
        if len(start) < _SHAPE.size:
            raise ValueError(f"{path} is cut off: it has {len(start)} bytes.")
        rows, width = _SHAPE.unpack(start)
        at = _SHAPE.size + rows * width
        if at + _HEAD_SIZE + _GRAPH.size > size:
            raise ValueError(f"{path} is cut off: it is too short for its {rows} vectors.")
        stream.seek(at)
        head = stream.read(_HEAD_SIZE)
        sizes = stream.read(_GRAPH.size)
    name, major, _, _, metric, number, key, slot, present, removed, columns, many = _HEAD.unpack_from(head)
    nodes, above, bottom, top, entry = _GRAPH.unpack(sizes)
    if name != b"usearch" or major != 2 or (key, slot, many) != (_KEY, _SLOT, False):
        raise ValueError(f"{path} is damaged, or not a file of usearch 2: its header contradicts itself.")
    if columns != dimension + FILLING:
        raise ValueError(f"{path} holds vectors of {columns - FILLING} floats, but {dimension} are expected.")
    if number != _KINDS[precision] or metric != _COSINE:
        raise ValueError(f"{path} has another number type or metric than its settings.")
    if above != m:
        raise ValueError(f"{path} has m={above}, but m={m} is expected.")
    if (
        nodes != rows
        or present + removed != nodes
        or bottom != 2 * m
        or width != -(-columns * _BITS[precision] // 8)
    ):
        raise ValueError(f"{path} is damaged, or not a file of usearch 2: its header contradicts itself.")
    if nodes == 0:
        return np.empty(0, np.int64)
    begin = at + _HEAD_SIZE + _GRAPH.size
    if begin + 2 * nodes > size:
        raise ValueError(f"{path} is cut off: it is too short for its {nodes} vectors.")
    levels = np.fromfile(path, "<i2", nodes, offset=begin).astype(np.int64)
    if levels.min() < 0 or levels.max() != top or entry >= nodes or levels[entry] != top:
        raise ValueError(f"{path} is damaged: its entry point {entry} is not at the highest level.")
    first = begin + 2 * nodes
    lengths = _NODE + 4 + 4 * bottom + levels * (4 + 4 * above)
    if first + int(lengths.sum()) != size:
        wrong = size - first - int(lengths.sum())
        what = f"{wrong} bytes follow its end" if wrong > 0 else f"{-wrong} bytes are missing"
        raise ValueError(f"{path} is damaged or cut off: {what}.")
    tape = np.memmap(path, np.uint8, "r", first)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    keys: NDArray[np.uint64] = _gather(tape, starts, 8).view("<u8").ravel()
    if (_gather(tape, starts + 8, 2).view("<i2").ravel() != levels).any():
        raise ValueError(f"{path} is damaged: its nodes disagree with its list of levels.")
    _require_links(path, _gather(tape, starts + _NODE, 4 + 4 * bottom), levels, 0)
    for level in range(1, top + 1):
        there = np.flatnonzero(levels >= level)
        where = starts[there] + _NODE + 4 + 4 * bottom + (level - 1) * (4 + 4 * above)
        _require_links(path, _gather(tape, where, 4 + 4 * above), levels, level)
    alive: NDArray[np.uint64] = keys[keys != _REMOVED]
    if len(alive) != present or has_repeats(alive) or (alive >= 2**63).any():
        raise ValueError(f"{path} is damaged: it has a label twice, or too many labels.")
    return alive.astype(np.int64)


def _gather(tape: NDArray[np.uint8], starts: NDArray[np.int64], width: int) -> NDArray[np.uint8]:
    """Return `width` bytes from each of `starts`, uint8 (n, width)."""
    windows = np.lib.stride_tricks.sliding_window_view(tape, width)
    gathered: NDArray[np.uint8] = np.ascontiguousarray(windows[starts], np.uint8)
    return gathered


def _require_links(path: Path, lists: NDArray[np.uint8], levels: NDArray[np.int64], level: int) -> None:
    """Raise ValueError if a list is too long, or a link's target does not exist at its level."""
    numbers = lists.view("<u4")
    used, links = numbers[:, 0], numbers[:, 1:]
    targets = links[np.arange(links.shape[1]) < used[:, np.newaxis]]
    if (used > links.shape[1]).any() or (targets >= len(levels)).any() or (levels[targets] < level).any():
        raise ValueError(f"{path} is damaged: a link's target does not exist.")
