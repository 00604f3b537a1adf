"""Writer of one Parquet file: a column of ids and one of lists of fixed-size lists."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...data.multivectors import MultiVectors
from ...utils.optional_imports import import_extra
from .base import atomic_file, gather

__all__ = ["NAME", "write"]

NAME = "parquet"


def write(
    batches: Iterator[MultiVectors], target: Path, *, overwrite: bool, place: str = "the source"
) -> None:
    """Write the columns ``tokens`` and, where there are ids, ``id``; a row group a batch.

    Needs ``muvera-toolkit[parquet]``.

    Parameters and errors are those of every writer: see :class:`muvera.convert.registry.Writer`.
    """
    pa = import_extra("pyarrow", "parquet", "Writing Parquet")
    pq = import_extra("pyarrow.parquet", "parquet", "Writing Parquet")
    gathered, passing = gather(batches, place)
    first = next(passing)
    schema = _table(pa, first).schema
    with atomic_file(target, overwrite) as file, pq.ParquetWriter(file, schema) as writer:
        writer.write_table(_table(pa, first), max(len(first), 1))
        for batch in passing:
            table = _table(pa, batch)
            if table.schema != schema:
                raise TypeError("Documents with int ids and with str ids cannot be in one file.")
            writer.write_table(table, max(len(batch), 1))
        _ = gathered.ids  # raises where batches share an id


def _table(pa: Any, batch: MultiVectors) -> Any:
    """Return a batch as an Arrow table; its numbers are not copied."""
    columns = {"tokens": batch.to_arrow()}
    if batch.has_ids:
        kind = pa.int64() if batch.ids.dtype.kind == "i" else pa.string()
        columns = {"id": pa.array(batch.ids.tolist(), kind), **columns}
    return pa.table(columns)
