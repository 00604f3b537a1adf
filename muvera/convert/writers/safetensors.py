"""Writer of one .safetensors file, which does not need its library."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.multivectors import MultiVectors
from ...data.offsets import running_total
from ...data.validation import Ids
from .base import atomic_file, gather, packed_strings, scratch_beside

__all__ = ["NAME", "write"]

NAME = "safetensors"

_KINDS = {np.dtype("<f2"): "F16", np.dtype("<f4"): "F32", np.dtype("<i8"): "I64", np.dtype("u1"): "U8"}

#: String ids stand as JSON in the header, whose format allows 100 MB, up to this size; beyond
#: it as tensors of their UTF-8 bytes.
_METADATA_IDS = 16_000_000


def write(
    batches: Iterator[MultiVectors], target: Path, *, overwrite: bool, place: str = "the source"
) -> None:
    """Write the tensors ``tokens`` and ``offsets``, and ids where there are some.

    Integer ids are the tensor ``ids``; string ids a JSON list under ``ids`` in the metadata.
    While it is written, the tokens take twice their size on the disk.

    Parameters and errors are those of every writer: see :class:`muvera.convert.registry.Writer`.
    """
    gathered, passing = gather(batches, place)
    with atomic_file(target, overwrite) as file, scratch_beside(target) as scratch:
        for batch in passing:
            scratch.write(np.ascontiguousarray(batch.tokens).data)
        scratch.seek(0)
        offsets = running_total(gathered.lengths)
        small, metadata = _ids(gathered.ids)
        small = {"offsets": offsets, **small}
        header: dict[str, Any] = {"__metadata__": {"format": "np", **metadata}}
        position = 0
        # Wide types first, bytes last: every tensor lies at a multiple of its item's size.
        for name, array in small.items():
            if array.dtype != np.uint8:
                position = _entry(header, name, array.dtype, array.shape, position)
        position = _entry(
            header, "tokens", gathered.dtype, (gathered.num_tokens, gathered.dimension), position
        )
        for name, array in small.items():
            if array.dtype == np.uint8:
                position = _entry(header, name, array.dtype, array.shape, position)
        text = json.dumps(header, ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        with file.open("wb") as stream:
            stream.write(len(text).to_bytes(8, "little") + text)
            stream.writelines(a.tobytes() for a in small.values() if a.dtype != np.uint8)
            shutil.copyfileobj(scratch, stream, 1 << 20)
            stream.writelines(a.tobytes() for a in small.values() if a.dtype == np.uint8)


def _entry(
    header: dict[str, Any], name: str, dtype: np.dtype[Any], shape: tuple[int, ...], start: int
) -> int:
    """Add a tensor to the header and return where it ends."""
    stop = start + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    header[name] = {"dtype": _KINDS[dtype], "shape": list(shape), "data_offsets": [start, stop]}
    return stop


def _ids(ids: Ids | None) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Return ids as tensors, or as metadata."""
    if ids is None:
        return {}, {}
    if ids.dtype.kind == "i":
        return {"ids": ids.astype("<i8")}, {}
    text = json.dumps(ids.tolist(), ensure_ascii=False)
    if len(text) <= _METADATA_IDS:
        return {}, {"ids": text}
    return packed_strings(ids.tolist()), {}
