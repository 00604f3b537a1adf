"""A sample of documents over Parquet files, to fit the one encoder of all workers on."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..data.multivectors import MultiVectors
from ..data.sampling import MAX_FIT_DOCUMENTS
from ..utils.checks import require_int
from ..utils.optional_imports import import_extra

__all__ = ["sample_files"]


def sample_files(
    paths: Sequence[str | os.PathLike[str]],
    column: str = "tokens",
    *,
    count: int = MAX_FIT_DOCUMENTS,
    seed: int = 0,
) -> MultiVectors:
    """Return documents that are drawn evenly from all rows of Parquet files.

    Only the row groups that have some of them are read, and of these the one column.

    Parameters
    ----------
    paths : sequence of paths
    column : str
        Of lists of fixed-size lists of floats, a list a document.
    count : int
        Documents at most.
    seed : int
        Which ones.

    Raises
    ------
    ValueError
        For no files, files without rows, or without the column.
    """
    require_int("count", count, 1)
    pq = import_extra("pyarrow.parquet", "parquet", "Reading Parquet")
    files = [pq.ParquetFile(path) for path in paths]
    if not files:
        raise ValueError("There are no files to draw documents from. Give at least one path.")
    groups = [
        (file, number, file.metadata.row_group(number).num_rows)
        for file in files
        for number in range(file.metadata.num_row_groups)
    ]
    total = sum(rows for _, _, rows in groups)
    if total == 0:
        raise ValueError("The files have no rows, so that nothing can be drawn. Give files with documents.")
    picked = np.sort(np.random.default_rng(seed).permutation(total)[:count])
    parts = list(_read(groups, picked, column))
    for file in files:
        file.close()
    return MultiVectors.concatenate(parts)


def _read(groups: list[tuple[Any, int, int]], picked: Any, column: str) -> Iterator[MultiVectors]:
    start = 0
    for file, number, rows in groups:
        inside = picked[(picked >= start) & (picked < start + rows)] - start
        start += rows
        if not len(inside):
            continue
        if column not in file.schema_arrow.names:
            raise ValueError(
                f"A file has no column {column!r}. It has: {', '.join(file.schema_arrow.names)}."
            )
        table = file.read_row_group(number, columns=[column])
        yield MultiVectors.from_arrow(table[column].take(inside))
