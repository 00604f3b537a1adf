"""Reader of safetensors files, which needs no library and maps them into memory.

The file is an 8-byte little-endian header length, a JSON header ``{name: {dtype, shape,
data_offsets}}`` that may have texts under ``__metadata__``, and the arrays' bytes.
"""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...utils.checks import require_int
from ..parsing.json_values import parse_json
from ..sources.arrays import Bfloat16Rows, Rows
from ..sources.base import Source
from ..sources.named_arrays import find, names_of, per_document, source_of

__all__ = ["DESCRIPTION", "NAME", "matches", "open_source", "read_header"]

NAME = "safetensors"
DESCRIPTION = "a .safetensors file with tokens and offsets or lengths, or one tensor a document"

_TYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2",
    "I8": "i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?",
}  # fmt: skip

#: The format's own limit on its header.
_LONGEST_HEADER = 100_000_000


def matches(path: Path) -> bool:
    """Return whether `path` is a .safetensors file."""
    return path.is_file() and path.suffix == ".safetensors"


def open_source(path: Path, *, part: str = "docs") -> Source:
    """Return the source of a .safetensors file.

    Parameters
    ----------
    path : Path
        Tensors ``tokens`` and ``offsets`` or ``lengths``, and ids as a tensor ``ids`` or as a
        JSON list under ``ids`` in the metadata; or one tensor (tokens, dimension) a document,
        whose name is its id.  BF16 becomes float32.
    part : {"docs", "queries"}
        Which collection, where there are both.

    Raises
    ------
    ValueError
        Where the file is truncated, its header does not describe it, or nothing in it is token
        vectors.
    """
    path = Path(path)
    header, begins = read_header(path)
    metadata = header.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict):
        raise ValueError(f"{path}: __metadata__ in the header is not a JSON object.")
    arrays = {entry.key: _array(path, entry, begins) for entry in _entries(path, header, begins)}
    ids = _ids(path, metadata)
    if find(names_of(part).tokens, arrays) is None:
        source = per_document(arrays, name=NAME, place=str(path), ids=ids)
        if source is not None:
            return source
    return source_of(arrays, name=NAME, place=str(path), part=part, ids=ids)


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """Return the JSON header and where the arrays' bytes begin.

    Raises
    ------
    ValueError
        Where the file is truncated, or its header is no JSON object.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > min(_LONGEST_HEADER, size - 8):
            raise ValueError(
                f"{path} is truncated or no safetensors file: its header claims {length} of {size} bytes."
            )
        try:
            header = parse_json(stream.read(length))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is no safetensors file: its header is not JSON ({error}).") from None
    if not isinstance(header, dict):
        raise ValueError(f"{path} is no safetensors file: its header is not a JSON object.")
    return header, 8 + length


class _Entry(NamedTuple):
    """What the header says of one tensor, checked."""

    key: str
    kind: str
    shape: tuple[int, ...]
    start: int
    stop: int


def _entry(path: Path, key: str, entry: Any, available: int) -> _Entry:
    try:
        start, stop = entry["data_offsets"]
        shape = tuple(require_int("size", size, 0) for size in entry["shape"])
        found = _Entry(
            key, entry["dtype"], shape, require_int("start", start, 0), require_int("stop", stop, 0)
        )
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{path}: the header's entry for {key} is not dtype, shape, data_offsets.") from None
    if not isinstance(found.kind, str) or found.kind not in _TYPES:
        raise ValueError(
            f"{path}: {key} has dtype {found.kind}, which is not read; convert it to F32 or F16."
        )
    needed = math.prod(shape) * np.dtype(_TYPES[found.kind]).itemsize
    if found.stop - found.start != needed:
        raise ValueError(
            f"{path}: {key} has {found.stop - found.start} bytes, but {shape} of {found.kind} needs {needed}."
        )
    if found.stop > available:
        raise ValueError(
            f"{path} is truncated: {key} ends at byte {found.stop} of the tensors, but there are {available}. "
            "Copy or export it again."
        )
    return found


def _entries(path: Path, header: dict[str, Any], begins: int) -> list[_Entry]:
    """Return the tensors in the header's order; no two may share bytes, of which many could be made."""
    available = path.stat().st_size - begins
    entries = [_entry(path, key, entry, available) for key, entry in header.items()]
    for before, after in pairwise(sorted(entries, key=lambda entry: (entry.start, entry.stop))):
        if after.start < before.stop:
            raise ValueError(f"{path}: {before.key} and {after.key} share bytes. Export it again.")
    return entries


def _array(path: Path, entry: _Entry, begins: int) -> Rows:
    dtype = np.dtype(_TYPES[entry.kind])
    array: Any = np.empty(entry.shape, dtype)
    if entry.stop > entry.start:
        array = np.memmap(path, dtype, "r", begins + entry.start, entry.shape)
    return Bfloat16Rows(array) if entry.kind == "BF16" else array


def _ids(path: Path, metadata: dict[str, str]) -> Any:
    """Return string ids from the metadata, None where it has none."""
    if "ids" not in metadata:
        return None
    try:
        return parse_json(metadata["ids"])
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: the ids in its metadata are not a JSON list: {error}.") from None
