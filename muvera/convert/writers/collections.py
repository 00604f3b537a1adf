"""Writers of token embeddings as arrays: npy folders, and npz, safetensors and Parquet files.

All take the same arguments:

batches : iterator of MultiVectors
    In order; only one at a time is in memory.
target : Path
    The file or folder, which appears when it is complete.
overwrite : bool
    Replace an existing file or folder.
place : str
    Where the batches come from, for messages.

All raise FileExistsError if `target` exists and `overwrite` is False, or it contains something else;
ValueError or TypeError if the batches do not fit each other (dimensions, kinds of ids, repeated
ids); and OSError, naming the target, if it cannot be written.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.multivectors import MULTIVECTORS_FILES, MultiVectors
from ...data.offsets import running_total
from ...data.validation import Ids
from ...utils.atomic_files import save_array, write_json
from ...utils.optional_imports import import_extra
from .base import NpyStream, atomic_file, gather, new_folder, packed_strings, scratch_beside

__all__ = ["write_npy", "write_npz", "write_parquet", "write_safetensors"]

_SAFETENSORS_TYPES = {
    np.dtype("<f2"): "F16", np.dtype("<f4"): "F32", np.dtype("<i8"): "I64", np.dtype("u1"): "U8",
}  # fmt: skip

# Longer string ids do not go into the header of a safetensors file, which may have 100 MB.
_MAX_METADATA_IDS = 16_000_000


def write_npy(
    batches: Iterator[MultiVectors], target: Path, *, overwrite: bool, place: str = "the source"
) -> None:
    """Write the folder that :meth:`MultiVectors.load` maps: ``tokens.npy``, ``lengths.npy``, ``ids.json``."""
    gathered, batches = gather(batches, place)
    with new_folder(target, overwrite, MULTIVECTORS_FILES) as folder:
        with (folder / "tokens.npy").open("wb") as stream:
            tokens = NpyStream(stream, gathered.dimension, gathered.dtype)
            for batch in batches:
                tokens.add(batch.tokens)
            tokens.finish()
        save_array(folder / "lengths.npy", gathered.lengths)
        ids = gathered.ids
        if ids is not None:
            write_json(folder / "ids.json", ids.tolist())


def write_npz(
    batches: Iterator[MultiVectors], target: Path, *, overwrite: bool, place: str = "the source"
) -> None:
    """Write the members ``tokens``, ``lengths`` and ``ids``, uncompressed: token vectors hardly compress.

    String ids are an array of NumPy strings; if one is much longer than the others, they are the
    members ``ids_utf8`` and ``ids_offsets``.  While writing, the tokens take twice their size on disk.
    """
    gathered, batches = gather(batches, place)
    with atomic_file(target, overwrite) as file, scratch_beside(target) as scratch:
        tokens = NpyStream(scratch, gathered.dimension, gathered.dtype)
        for batch in batches:
            tokens.add(batch.tokens)
        tokens.finish()
        scratch.seek(0)
        arrays: dict[str, NDArray[Any]] = {"lengths": gathered.lengths}
        ids = gathered.ids
        if ids is not None:
            arrays |= packed_strings(ids.tolist()) if ids.dtype == object else {"ids": ids}
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            # ZipInfo has no date, so the same documents make the same bytes.
            with archive.open(zipfile.ZipInfo("tokens.npy"), "w", force_zip64=True) as member:
                shutil.copyfileobj(scratch, member, 1 << 20)
            for name, values in arrays.items():
                with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, values, allow_pickle=False)


def write_safetensors(
    batches: Iterator[MultiVectors], target: Path, *, overwrite: bool, place: str = "the source"
) -> None:
    """Write the tensors ``tokens`` and ``offsets``, and the ids; needs no library.

    Integer ids are the tensor ``ids``; string ids a JSON list under ``ids`` in the metadata, or if
    they are very long, tensors.  While writing, the tokens take twice their size on disk.
    """
    gathered, batches = gather(batches, place)
    with atomic_file(target, overwrite) as file, scratch_beside(target) as scratch:
        for batch in batches:
            scratch.write(np.ascontiguousarray(batch.tokens).data)
        scratch.seek(0)
        tensors, metadata = _safetensors_ids(gathered.ids)
        wide = {"offsets": running_total(gathered.lengths)}
        wide |= {name: array for name, array in tensors.items() if array.dtype != np.uint8}
        narrow = {name: array for name, array in tensors.items() if array.dtype == np.uint8}
        # Wide types first, bytes last: every tensor begins at a multiple of its item size.
        layout: list[tuple[str, np.dtype[Any], tuple[int, ...]]] = [
            *((name, array.dtype, array.shape) for name, array in wide.items()),
            ("tokens", gathered.dtype, (gathered.num_tokens, gathered.dimension)),
            *((name, array.dtype, array.shape) for name, array in narrow.items()),
        ]
        header: dict[str, Any] = {"__metadata__": {"format": "np", **metadata}}
        start = 0
        for name, dtype, shape in layout:
            stop = start + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
            header[name] = {
                "dtype": _SAFETENSORS_TYPES[dtype], "shape": list(shape), "data_offsets": [start, stop],
            }  # fmt: skip
            start = stop
        text = json.dumps(header, ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        with file.open("wb") as stream:
            stream.write(len(text).to_bytes(8, "little") + text)
            stream.writelines(array.tobytes() for array in wide.values())
            shutil.copyfileobj(scratch, stream, 1 << 20)
            stream.writelines(array.tobytes() for array in narrow.values())


def _safetensors_ids(ids: Ids | None) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Return ids as tensors and as metadata; one of the two is empty."""
    if ids is None:
        return {}, {}
    if ids.dtype.kind == "i":
        return {"ids": ids.astype("<i8")}, {}
    text = json.dumps(ids.tolist(), ensure_ascii=False)
    return ({}, {"ids": text}) if len(text) <= _MAX_METADATA_IDS else (packed_strings(ids.tolist()), {})


def write_parquet(
    batches: Iterator[MultiVectors], target: Path, *, overwrite: bool, place: str = "the source"
) -> None:
    """Write the columns ``tokens`` (lists of fixed-size lists) and ``id``, a row group per batch.

    Needs ``muvera-toolkit[parquet]``.
    """
    pa = import_extra("pyarrow", "parquet", "Writing Parquet")
    pq = import_extra("pyarrow.parquet", "parquet", "Writing Parquet")
    gathered, batches = gather(batches, place)
    first = next(batches)
    schema = _arrow_table(pa, first).schema
    with atomic_file(target, overwrite) as file, pq.ParquetWriter(file, schema) as writer:
        writer.write_table(_arrow_table(pa, first), max(len(first), 1))
        for batch in batches:
            table = _arrow_table(pa, batch)
            if table.schema != schema:
                raise TypeError("Documents with int ids and with str ids cannot be in one file.")
            writer.write_table(table, max(len(batch), 1))
        _ = gathered.ids  # raises if an id is repeated


def _arrow_table(pa: Any, batch: MultiVectors) -> Any:
    """Return a batch as an Arrow table, without copying its numbers."""
    columns = {"tokens": batch.to_arrow()}
    if batch.has_ids:
        kind = pa.int64() if batch.ids.dtype.kind == "i" else pa.string()
        columns = {"id": pa.array(batch.ids.tolist(), kind), **columns}
    return pa.table(columns)
