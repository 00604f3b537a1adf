"""Arrow IPC files and streams (.arrow, .feather), and folders of Hugging Face datasets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...data.multivectors import MultiVectors
from ..damage import naming_errors
from ..sources import arrow_columns
from ..sources.base import Source

__all__ = ["DESCRIPTION", "NAME", "matches", "open_source"]

NAME = "arrow"
DESCRIPTION = (
    "a .arrow or .feather file, or a saved Hugging Face dataset, with a column of lists of lists of floats"
)


def matches(path: Path) -> bool:
    """Say whether `path` is an Arrow file, or a folder of .arrow files."""
    if path.is_dir():
        return any(path.glob("*.arrow"))
    return path.is_file() and path.suffix in (".arrow", ".feather")


def open_source(path: Path, *, column: str | None = None, id_column: str | None = None) -> Source:
    """Return the source of Arrow files; needs ``muvera-toolkit[parquet]``.

    Parameters
    ----------
    path : Path
        A file, or a folder whose .arrow files are read in the order of their names.
    column, id_column : str, optional
        As for Parquet.

    Raises
    ------
    ValueError
        Where a file is damaged, or has no column of token vectors.
    ImportError
        Where pyarrow is missing.
    """
    return ArrowSource(Path(path), column, id_column)


class ArrowSource:
    """Source of the rows of Arrow files, memory-mapped, one record batch at a time."""

    lossy = False
    nbits: int | None = None
    name = NAME
    num_documents: int | None = None
    num_tokens: int | None = None

    def __init__(self, path: Path, column: str | None, id_column: str | None) -> None:
        self._pa = arrow_columns.import_pyarrow("parquet", "Reading Arrow files")
        self.files = sorted(path.glob("*.arrow")) if path.is_dir() else [path]
        with self._open(self.files[0]) as (schema, tables):
            self.column, self.id_column = arrow_columns.columns(
                self._pa, schema, column, id_column, str(path)
            )
            dimension = arrow_columns.dimension_of(self._pa, schema.field(self.column).type)
            for table in tables if dimension is None else ():
                tokens, _ = arrow_columns.documents_of(
                    self._pa, table.column(self.column), None, str(path), 0
                )
                if tokens is not None:
                    dimension = int(tokens.shape[1])
                    break
        if dimension is None:
            raise ValueError(f"{path} has no document with a token, so that its dimension is unknown.")
        self.dimension = dimension

    def batches(self, max_tokens: int) -> Iterator[MultiVectors]:
        """Yield the rows in order."""
        for file in self.files:
            with self._open(file) as (_, tables):
                yield from arrow_columns.batches_of(
                    self._pa, tables, self.column, self.id_column, self.dimension, str(file), max_tokens
                )

    @contextmanager
    def _open(self, file: Path) -> Iterator[tuple[Any, Iterator[Any]]]:
        """Give the schema and the record batches of a file, of either Arrow format."""
        ipc = self._pa.ipc
        with naming_errors(str(file), NAME), self._pa.memory_map(str(file)) as mapped:
            with file.open("rb") as stream:
                whole = stream.read(6) == b"ARROW1"
            reader = ipc.open_file(mapped) if whole else ipc.open_stream(mapped)
            yield reader.schema, self._tables(reader, whole)

    @staticmethod
    def _tables(reader: Any, whole: bool) -> Iterator[Any]:
        if whole:
            yield from (reader.get_batch(i) for i in range(reader.num_record_batches))
        else:
            yield from reader
