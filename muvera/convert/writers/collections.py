"""Writers of token embeddings as arrays: npy folders, and npz, safetensors and Parquet files."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.multivectors import MultiVectors
from ...utils.arrays import save_array
from ...utils.atomic_files import write_json
from ...utils.checks import import_extra
from .base import Gathered, packed_strings, spooled, write_rows

_SAFETENSORS_TYPES = {
    np.dtype("<f2"): "F16", np.dtype("<f4"): "F32", np.dtype("<i8"): "I64", np.dtype("u1"): "U8",
}  # fmt: skip


def write_npy(documents: Gathered, folder: Path, *, column: str = "tokens") -> None:
    """Write the folder that :meth:`MultiVectors.load` maps: ``tokens.npy``, ``lengths.npy``, ``ids.json``.

    With ``column="vectors"`` each document has one token, so there are no lengths.
    """
    blocks = (batch.tokens for batch in documents)
    # Written instead of memory-mapped: a full disk would kill a process that writes through a map.
    write_rows(folder / f"{column}.npy", blocks, documents.dimension, documents.dtype)
    if column == "tokens":
        save_array(folder / "lengths.npy", documents.lengths)
    ids = documents.ids
    if ids is not None:
        write_json(folder / "ids.json", ids.tolist())


def write_npz(gathered: Gathered, file: Path) -> None:
    """Write the members ``tokens``, ``lengths`` and ``ids``, uncompressed: token vectors hardly compress.

    String ids are an array of NumPy strings; if one is much longer than the others, they are the
    members ``ids_utf8`` and ``ids_offsets``.  While writing, the tokens take twice their size on disk.
    """
    with spooled(gathered, file) as documents:
        arrays: dict[str, NDArray[Any]] = {"tokens": documents.tokens, "lengths": documents.lengths}
        if documents.has_ids:
            ids = documents.ids
            arrays |= packed_strings(ids.tolist()) if ids.dtype == object else {"ids": ids}
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for name, values in arrays.items():
                # ZipInfo has no date, so the same documents make the same bytes.
                with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, values, allow_pickle=False)


def write_safetensors(gathered: Gathered, file: Path) -> None:
    """Write the tensors ``tokens`` and ``offsets``, and the ids; needs no library.

    Integer ids are the tensor ``ids``; string ids the tensors ``ids_utf8`` and ``ids_offsets``, because the header
    is limited to 100 MB.  While writing, the tokens take twice their size on disk.
    """
    with spooled(gathered, file) as documents:
        tensors: dict[str, NDArray[Any]] = {"offsets": documents.offsets, "tokens": documents.tokens}
        if documents.has_ids:
            integers = documents.ids.dtype.kind == "i"
            tensors |= {"ids": documents.ids} if integers else packed_strings(documents.ids.tolist())
        # Wide types first: every tensor begins at a multiple of its item size.
        ordered = sorted(tensors.items(), key=lambda item: -item[1].itemsize)
        header: dict[str, Any] = {"__metadata__": {"format": "np"}}
        start = 0
        for name, array in ordered:
            header[name] = {
                "dtype": _SAFETENSORS_TYPES[array.dtype], "shape": list(array.shape),
                "data_offsets": [start, start + array.nbytes],
            }  # fmt: skip
            start += array.nbytes
        encoded = json.dumps(header, ensure_ascii=False).encode()
        encoded += b" " * (-len(encoded) % 8)
        with file.open("wb") as stream:
            stream.write(len(encoded).to_bytes(8, "little") + encoded)
            for _, array in ordered:
                stream.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def write_parquet(documents: Gathered, file: Path, *, column: str = "tokens") -> None:
    """Write the columns ``id`` and `column`, a row group per batch.

    Cells of ``tokens`` are lists of fixed-size lists, those of ``vector`` a fixed-size list, of one token.

    Needs ``muvera-toolkit[parquet]``.
    """
    pa = import_extra("pyarrow", "parquet", "Writing Parquet")
    pq = import_extra("pyarrow.parquet", "parquet", "Writing Parquet")
    batches = iter(documents)
    first = _arrow_table(pa, next(batches), column)
    with pq.ParquetWriter(file, first.schema) as writer:
        writer.write_table(first, max(len(first), 1))
        del first
        for batch in batches:
            table = _arrow_table(pa, batch, column)
            if table.schema != writer.schema:
                raise TypeError("Documents with int ids and with str ids cannot be in one file.")
            writer.write_table(table, max(len(batch), 1))
        _ = documents.ids  # raises if an id is repeated


def _arrow_table(pa: Any, batch: MultiVectors, column: str) -> Any:
    """Return a batch as an Arrow table, without copying its numbers."""
    cells = batch.to_arrow()
    columns = {column: cells if column == "tokens" else cells.flatten()}
    if batch.has_ids:
        kind = pa.int64() if batch.ids.dtype.kind == "i" else pa.string()
        columns = {"id": pa.array(batch.ids.tolist(), kind), **columns}
    return pa.table(columns)
