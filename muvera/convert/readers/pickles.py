"""Readers of arrays that torch.save or pickle wrote.

The forms are the same as in :func:`~muvera.convert.readers.in_memory.open_object`: one
padded array, a list of arrays, a dict of id to array, or a dict with token embeddings
and perhaps "ids" and a mask.  A list of lists of numbers counts as an array.  No code
of a file is run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..parsing import load_arrays, read_torch, starts_with
from ..sources import Reader, ReadError, Source
from .in_memory import TOKEN_FIELDS, open_object

# Bytes of all arrays per byte of the file, at most: bfloat16 becomes float32.  A small
# file can list one array many times.
_GROWTH = 2

# Fields of a dict, at most, whose lists are lists of arrays.
_FIELDS = 16

# Bytes of a number in memory.
_FLOAT_BYTES = 4

_NO_VECTORS = (
    "it must contain token vectors as arrays, tensors or lists of lists of numbers, got {}. Save a list of "
    "arrays, one per document."
)

_IDS = ("ids", "doc_ids", "document_ids")


def _open_torch(path: Path) -> Source:
    """Open a .pt or .pth file of torch 1.6 or newer."""
    return _source(read_torch(path), path, "pt")


def _open_pickle(path: Path) -> Source:
    """Open a .pkl or .pickle file with NumPy arrays."""
    return _source(load_arrays(path.read_bytes(), path.name), path, "pickle")


def _source(value: Any, path: Path, name: str) -> Source:
    """Return the source of embeddings that a file contains."""
    ids = None
    if isinstance(value, dict):
        key = next((key for key in _IDS if key in value and len(value) > 1), None)
        ids = None if key is None else list(value[key])
        value = {field: part for field, part in value.items() if field != key}
    value = _with_arrays(value, _GROWTH * path.stat().st_size)
    parts = list(value.values()) if isinstance(value, dict) else [value]
    for part in list(parts):
        if isinstance(part, (list, tuple)) and len(parts) <= _FIELDS:
            parts += part
    if not any(isinstance(part, np.ndarray) for part in parts):
        raise ReadError(_NO_VECTORS.format(type(value).__name__))
    size = sum(part.nbytes for part in parts if isinstance(part, np.ndarray))
    if size > _GROWTH * path.stat().st_size:
        raise ReadError("its arrays have more bytes than the file. Save each array once.")
    source = open_object(value, ids=ids)
    source.name = name
    return source


def _with_arrays(value: Any, most: int) -> Any:
    """Return embeddings with an array for each document that is a list of lists.

    Raise ReadError if the numbers of all need more than `most` bytes, because a small
    pickle can list one list many times, and for lists of anything else.
    """
    left = most

    def array_of(part: Any, depth: int) -> Any:
        nonlocal left
        if not _is_nested(part):
            return part
        if depth == 0 and _is_nested(part[0]):
            return [array_of(document, 1) for document in part]
        for row in part:
            if not isinstance(row, (list, tuple)) or not all(type(number) in (int, float) for number in row):
                raise ReadError(_NO_VECTORS.format("nested lists of other values"))
            left -= _FLOAT_BYTES * max(1, len(row))
            if left < 0:
                raise ReadError("its lists have more numbers than the file. Save each list once.")
        if len(set(map(len, part))) > 1:
            return part  # refused with its number when it is read
        with np.errstate(over="ignore"):
            return np.array(part, np.float32)

    if isinstance(value, dict):
        fields = set(TOKEN_FIELDS) & set(value) or set(value)
        return {key: array_of(part, 0) if key in fields else part for key, part in value.items()}
    return [array_of(part, 1) for part in value] if isinstance(value, (list, tuple)) else value


def _is_nested(part: Any) -> bool:
    return isinstance(part, (list, tuple)) and bool(part) and isinstance(part[0], (list, tuple))


def _is_torch(path: Path) -> bool:
    return path.suffix in (".pt", ".pth") and starts_with(path, b"PK")


def _is_pickle(path: Path) -> bool:
    return path.suffix in (".pkl", ".pickle") and path.is_file()


READERS = (
    Reader(
        "pt",
        _is_torch,
        _open_torch,
        "docs.pt",
        "a .pt or .pth file of torch with a padded tensor, a list of tensors, or a dict of id to tensor",
    ),
    Reader(
        "pickle",
        _is_pickle,
        _open_pickle,
        "docs.pkl",
        "a .pkl or .pickle file with NumPy arrays, or lists of lists of numbers: a list of them, or a dict "
        "of id to array",
    ),
)
