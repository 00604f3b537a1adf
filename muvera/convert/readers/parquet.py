"""Parquet files with a list of token vectors a row, read a few rows at a time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...data.multivectors import MultiVectors
from ...utils.optional_imports import import_extra
from ..damage import naming_errors
from ..sources import arrow_columns
from ..sources.base import Source

__all__ = ["DESCRIPTION", "NAME", "matches", "open_source"]

NAME = "parquet"
DESCRIPTION = "a .parquet file, or a folder of them, with a column of lists of lists of floats"

#: Rows read at once at most; fewer where documents are long.
_ROWS = 8192

#: Rows of a row group from which the tokens of a row are estimated.
_PROBED = 16

#: Bytes read from the disk at once.
_BUFFER = 1 << 22


def matches(path: Path) -> bool:
    """Say whether `path` is a Parquet file or a folder with some."""
    if path.is_dir():
        return any(path.glob("*.parquet"))
    try:
        with path.open("rb") as stream:
            return stream.read(4) == b"PAR1"
    except OSError:
        return False


def open_source(path: Path, *, column: str | None = None, id_column: str | None = None) -> Source:
    """Return the source of Parquet files; needs ``muvera-toolkit[parquet]``.

    Parameters
    ----------
    path : Path
        A file, or a folder whose .parquet files are read in the order of the numbers in
        their names.
    column : str, optional
        The column of token vectors.  Default: the only one that can be.
    id_column : str, optional
        The column of ids.  Default: ``id``, ``_id``, ``doc_id`` or the like, if any.

    Raises
    ------
    FileNotFoundError
        For a folder without a .parquet file.
    ValueError
        Where a file is damaged, or has no column of token vectors.
    ImportError
        Where pyarrow is missing.
    """
    return ParquetSource(Path(path), column, id_column)


class ParquetSource:
    """Source of the rows of Parquet files.  A null document has no tokens."""

    lossy = False
    nbits: int | None = None
    name = NAME
    num_tokens: int | None = None

    def __init__(self, path: Path, column: str | None, id_column: str | None) -> None:
        self._pa = arrow_columns.import_pyarrow("parquet", "Reading Parquet")
        self._pq = import_extra("pyarrow.parquet", "parquet", "Reading Parquet")
        self.files = sorted(path.glob("*.parquet"), key=_natural) if path.is_dir() else [path]
        if not self.files:
            raise FileNotFoundError(f"{path} has no .parquet file.")
        self.num_documents: int | None = 0
        dimension: int | None = None
        for file in self.files:
            place = str(file)
            with naming_errors(place, NAME), self._open(file) as opened:
                schema = opened.schema_arrow
                self.num_documents += opened.metadata.num_rows
                if file == self.files[0]:
                    self.column, self.id_column = arrow_columns.columns(
                        self._pa, schema, column, id_column, place
                    )
                elif self.column not in schema.names:
                    raise ValueError(f"{file} has no column {self.column!r}, but {self.files[0].name} has.")
                if dimension is None:
                    dimension = arrow_columns.dimension_of(self._pa, schema.field(self.column).type)
                    dimension = self._measure(opened, file) if dimension is None else dimension
        if dimension is None:
            raise ValueError(f"{path} has no document with a token, so that its dimension is unknown.")
        self.dimension = dimension

    def batches(self, max_tokens: int) -> Iterator[MultiVectors]:
        """Yield the rows in order; a row group is decoded piece by piece."""
        for file in self.files:
            with naming_errors(str(file), NAME), self._open(file) as opened:
                yield from arrow_columns.batches_of(
                    self._pa,
                    self._tables(opened, max_tokens),
                    self.column,
                    self.id_column,
                    self.dimension,
                    str(file),
                    max_tokens,
                )

    def _open(self, file: Path) -> Any:
        # As it comes, pyarrow holds a whole row group's bytes, which may exceed memory.
        return self._pq.ParquetFile(file, pre_buffer=False, buffer_size=_BUFFER)

    def _tables(self, opened: Any, max_tokens: int) -> Iterator[Any]:
        columns = [name for name in (self.id_column, self.column) if name is not None]
        for group in range(opened.num_row_groups):
            tokens = self._tokens_a_row(opened, group)
            rows = min(max(int(max_tokens / tokens), 1), _ROWS)
            yield from opened.iter_batches(rows, [group], columns)

    def _tokens_a_row(self, opened: Any, group: int) -> float:
        """Estimate a row's tokens from the first rows of a row group and from its size.

        The metadata of its columns would say it, but a damaged one makes pyarrow end the process.
        """
        metadata = opened.metadata.row_group(group)
        by_size: float = float(metadata.total_byte_size) / max(metadata.num_rows, 1) / (4 * self.dimension)
        for table in opened.iter_batches(_PROBED, [group], [self.column]):
            lengths = arrow_columns.lengths_of(self._pa, table.column(self.column), self.column)
            first: float = max(float(lengths.mean()) if len(lengths) else 0.0, 1.0)
            # The size counts other columns, too: it is believed where the first rows are short ones.
            return by_size if by_size > 2 * first else first
        return max(by_size, 1.0)

    def _measure(self, opened: Any, file: Path) -> int | None:
        """Return the dimension of the first token, or None where there is no token."""
        first = 0
        for table in opened.iter_batches(64, columns=[self.column]):
            tokens, offsets = arrow_columns.documents_of(
                self._pa, table.column(self.column), None, str(file), first
            )
            if tokens is not None:
                return int(tokens.shape[1])
            first += len(offsets) - 1
        return None


def _natural(path: Path) -> list[int | str]:
    """Return a key that sorts part-10 after part-9."""
    return [int(word) if word.isdigit() else word for word in re.split(r"(\d+)", path.name)]
