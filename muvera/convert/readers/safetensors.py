"""safetensors files, parsed here and memory-mapped: no library needed.

The file is an 8-byte little-endian header length, a JSON header ``{name: {dtype, shape,
data_offsets}}`` that may have texts under ``__metadata__``, and the arrays' bytes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

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
    """Say whether `path` is a .safetensors file."""
    return path.is_file() and path.suffix == ".safetensors"


def open_source(path: Path, *, part: str = "docs") -> Source:
    """Return the source of a .safetensors file.

    Parameters
    ----------
    path : Path
        Tensors ``tokens`` and ``offsets`` or ``lengths``, and ids as a tensor ``ids`` or as a
        JSON list under ``ids`` in the metadata; or one tensor (tokens, dim) a document,
        whose name is its id.  BF16 becomes float32.
    part : {"docs", "queries"}
        Which collection, where there are both.
    """
    path = Path(path)
    header, begins = read_header(path)
    metadata = header.pop("__metadata__", None) or {}
    arrays = {key: _tensor(path, key, entry, begins) for key, entry in header.items()}
    ids = _ids(path, metadata)
    if find(names_of(part).tokens, arrays) is None:
        source = per_document(arrays, name=NAME, place=str(path), ids=ids)
        if source is not None:
            return source
    return source_of(arrays, name=NAME, place=str(path), part=part, ids=ids)


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """Return the JSON header and where the arrays' bytes begin."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > min(_LONGEST_HEADER, size - 8):
            raise ValueError(
                f"{path} is truncated or no safetensors file: its header claims {length} of {size} bytes."
            )
        try:
            header = json.loads(stream.read(length))
        except ValueError as error:
            raise ValueError(f"{path} is no safetensors file: its header is not JSON ({error}).") from None
    if not isinstance(header, dict):
        raise ValueError(f"{path} is no safetensors file: its header is not a JSON object.")
    return header, 8 + length


def _tensor(path: Path, key: str, entry: Any, begins: int) -> Rows:
    try:
        kind, shape = entry["dtype"], tuple(entry["shape"])
        start, stop = entry["data_offsets"]
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{path}: the header's entry for {key} is not dtype, shape, data_offsets.") from None
    if kind not in _TYPES:
        raise ValueError(f"{path}: {key} has dtype {kind}, which is not read; convert it to F32 or F16.")
    dtype = np.dtype(_TYPES[kind])
    needed = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if stop - start != needed or start < 0:
        raise ValueError(f"{path}: {key} has {stop - start} bytes, but {shape} of {kind} needs {needed}.")
    size = path.stat().st_size
    if begins + stop > size:
        raise ValueError(
            f"{path} is truncated: {key} ends at byte {begins + stop}, but the file has {size}. "
            "Copy or export it again."
        )
    if not needed:
        array: Any = np.empty(shape, dtype)
    else:
        array = np.memmap(path, dtype, "r", begins + start, shape)
    return Bfloat16Rows(array) if kind == "BF16" else array


def _ids(path: Path, metadata: dict[str, str]) -> Any:
    """Return string ids from the metadata, None where it has none."""
    if "ids" not in metadata:
        return None
    try:
        return json.loads(metadata["ids"])
    except ValueError as error:
        raise ValueError(f"{path}: the ids in its metadata are not a JSON list: {error}.") from None
