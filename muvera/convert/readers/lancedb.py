"""LanceDB tables with a column of token vectors, through the embedded client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...data.multivectors import MultiVectors
from ...utils.optional_imports import import_extra
from ..parsing.lance_files import require_sound_table
from ..sources import arrow_columns
from ..sources.base import Source

__all__ = ["DESCRIPTION", "NAME", "matches", "open_source"]

NAME = "lancedb"
DESCRIPTION = "a LanceDB folder with <table>.lance in it, or a .lance folder"

_ROWS = 256


def matches(path: Path) -> bool:
    """Say whether `path` is a .lance folder, or has some."""
    return path.is_dir() and (path.suffix == ".lance" or any(path.glob("*.lance")))


def open_source(
    path: Path, *, table: str | None = None, column: str | None = None, id_column: str | None = None
) -> Source:
    """Return the source of a LanceDB table; needs ``muvera-toolkit[lancedb]``.

    Parameters
    ----------
    path : Path
        The database's folder, or the ``<table>.lance`` in it.
    table : str, optional
        Which table.  Default: the one that `path` is, or the only one.
    column : str, optional
        The multi-vector column.  Default: the only one that can be.
    id_column : str, optional
        The column of ids.  Default: ``id``, ``_id``, ``doc_id`` or the like, if any.

    Raises
    ------
    ValueError
        Where there is no such table, it is damaged, has no column of token vectors, or keeps
        rows outside its folder.
    ImportError
        Where LanceDB or pyarrow is missing.
    """
    path = Path(path)
    if path.suffix == ".lance":
        path, table = path.parent, table or path.stem
    tables = sorted(folder.stem for folder in path.glob("*.lance"))
    if table is None and len(tables) == 1:
        table = tables[0]
    if table not in tables:
        wrong = "" if table is None else f" no table {table!r}, but"
        listed = ", ".join(tables) or "none"
        raise ValueError(f"{path} has{wrong} the tables {listed}. Say which with table=.")
    return LanceSource(path, table, column, id_column)


class LanceSource:
    """Source of the rows of a LanceDB table, in the table's order."""

    lossy = False
    nbits: int | None = None
    name = NAME
    num_tokens: int | None = None

    def __init__(self, path: Path, table: str, column: str | None, id_column: str | None) -> None:
        lancedb = import_extra("lancedb", "lancedb", "Reading LanceDB")
        self._pa = arrow_columns.import_pyarrow("lancedb", "Reading LanceDB")
        self.place = f"{path}/{table}.lance"
        require_sound_table(path / f"{table}.lance")
        self._table = lancedb.connect(str(path)).open_table(table)
        schema = self._table.schema
        self.num_documents: int | None = int(self._table.count_rows())
        self.column, self.id_column = arrow_columns.columns(self._pa, schema, column, id_column, self.place)
        dimension = arrow_columns.dimension_of(self._pa, schema.field(self.column).type)
        if dimension is None:
            raise ValueError(
                f"{self.place}: the column {self.column!r} has tokens of varying width, but LanceDB's "
                "multi-vectors are lists of fixed-size lists. Export it to Parquet and read that."
            )
        self.dimension = dimension

    def batches(self, max_tokens: int) -> Iterator[MultiVectors]:
        """Yield the rows in order."""
        yield from arrow_columns.batches_of(
            self._pa, self._tables(), self.column, self.id_column, self.dimension, self.place, max_tokens
        )

    def _tables(self) -> Iterator[Any]:
        columns = [name for name in (self.id_column, self.column) if name is not None]
        yield from self._table.search().select(columns).to_batches(_ROWS)
