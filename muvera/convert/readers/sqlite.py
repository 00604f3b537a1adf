"""Reader of a table in a SQLite file, with a row per document.

:mod:`muvera.convert.table_cells` describes the cells.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

from ..parsing import open_sqlite, open_table, quoted, starts_with, table_columns
from ..sources import Document, Reader, RowSource, Source, naming_errors
from ..table_cells import (
    choose_columns,
    may_be_tokens,
    require_id,
    require_raw_floats,
    tokens_of_cell,
)

_MAGIC = b"SQLite format 3\0"


def _open(
    path: Path,
    *,
    table: str | None = None,
    column: str | None = None,
    id_column: str | None = None,
    dimension: int | None = None,
    dtype: str = "float32",
) -> Source:
    """Open a SQLite file.

    `table` is by default the only one with token vectors.  `column` with the token
    vectors and `id_column` are detected by their names and values.  `dimension` and
    `dtype` ("float16", "float32" or "float64") describe raw floats.
    """
    dimension = require_raw_floats(dimension, dtype)
    with closing(open_sqlite(path, "the program that wrote it")) as connection:
        columns = partial(table_columns, connection)
        source, used = choose_columns(_candidates(connection), columns, table, column, id_column)

    def documents() -> Iterator[Document]:
        with closing(open_table(path, source, used, "the program that wrote it")) as opened:
            query = f"SELECT {', '.join(map(quoted, used))} FROM {quoted(source)}"
            for number, (cell, *ids) in enumerate(opened.execute(query)):
                where = f"row {number}"
                with naming_errors(where, "sqlite"):
                    tokens = tokens_of_cell(cell, dimension, dtype)
                    require_id(*ids)
                yield Document(tokens, where, ids[0] if ids else None)

    return RowSource(documents, name="sqlite")


def _candidates(connection: sqlite3.Connection) -> dict[str, list[str]]:
    """Return the columns that may have token vectors, by table."""
    found: dict[str, list[str]] = {}
    names = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND sql LIKE 'CREATE TABLE%'"
    )
    for (table,) in names.fetchall():
        for column in table_columns(connection, table):
            query = f"SELECT {quoted(column)} FROM {quoted(table)} WHERE {quoted(column)} IS NOT NULL LIMIT 1"
            for (value,) in connection.execute(query):
                if may_be_tokens(value):
                    found.setdefault(table, []).append(column)
    return found


def _matches(path: Path) -> bool:
    return path.is_file() and starts_with(path, _MAGIC)


READERS = (
    Reader(
        "sqlite",
        _matches,
        _open,
        "docs.db -o table=docs -o dimension=128",
        "a SQLite file with a table of one row per document, whose token vectors are a BLOB (a .npy file's "
        "bytes or raw floats) or JSON",
    ),
)
