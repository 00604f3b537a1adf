"""Reader of a table in a DuckDB file, with a row per document.

:mod:`muvera.convert.table_cells` describes the cells.  DuckDB's library reads the file,
without access to any other file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...utils.checks import import_extra
from ..parsing import quoted
from ..sources import Document, Reader, ReadError, RowSource, Source, naming_errors
from ..table_cells import (
    choose_columns,
    may_be_tokens,
    require_id,
    require_raw_floats,
    tokens_of_cell,
)

if TYPE_CHECKING:
    import duckdb

# Bytes of a file's header, after a checksum of 8 bytes.
_MAGIC = b"DUCK"
_MAGIC_BYTES = slice(8, 12)

# A file can neither read other files nor load extensions.
_CONFIGURATION = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "enable_external_access": "false",
    "lock_configuration": "true",
}

# Rows that are fetched together.
_ROWS = 64


def _open(
    path: Path,
    *,
    table: str | None = None,
    column: str | None = None,
    id_column: str | None = None,
    dimension: int | None = None,
    dtype: str = "float32",
) -> Source:
    """Open a DuckDB file.

    `table` is by default the only one with token vectors.  `column` with the token
    vectors and `id_column` are detected by their names and values.  `dimension` and
    `dtype` ("float16", "float32" or "float64") describe raw floats.
    """
    dimension = require_raw_floats(dimension, dtype)
    with closing(_connected(path)) as connection:
        columns = _columns(connection)
        found = _candidates(connection, columns)
    source, used = choose_columns(found, columns.__getitem__, table, column, id_column)

    def documents() -> Iterator[Document]:
        with closing(_connected(path)) as opened:
            result = opened.execute(f"SELECT {', '.join(map(quoted, used))} FROM {quoted(source)}")
            number = 0
            while rows := result.fetchmany(_ROWS):
                for cell, *ids in rows:
                    where = f"row {number}"
                    with naming_errors(where, "duckdb"):
                        tokens = tokens_of_cell(cell, dimension, dtype)
                        require_id(*ids)
                    yield Document(tokens, where, ids[0] if ids else None)
                    number += 1

    return RowSource(documents, name="duckdb")


def _connected(path: Path) -> Any:
    """Open a file for reading; raise ReadError if DuckDB refuses it."""
    library = import_extra("duckdb", "duckdb", "Reading DuckDB")
    try:
        return library.connect(str(path), read_only=True, config=_CONFIGURATION)
    except library.Error as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ReadError(f"DuckDB cannot open it: {reason}. Copy or export it again.") from error


def _columns(connection: duckdb.DuckDBPyConnection) -> dict[str, list[str]]:
    """Return the columns of each table of the schema "main"; views are not tables."""
    columns: dict[str, list[str]] = {}
    rows = connection.execute(
        "SELECT table_name, column_name FROM duckdb_columns() WHERE schema_name = 'main' AND table_name IN "
        "(SELECT table_name FROM duckdb_tables() WHERE schema_name = 'main') ORDER BY table_oid, column_index"
    ).fetchall()
    for table, column in rows:
        columns.setdefault(table, []).append(column)
    return columns


def _candidates(connection: duckdb.DuckDBPyConnection, columns: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return the columns that may have token vectors, by table."""
    found: dict[str, list[str]] = {}
    for table, names in columns.items():
        for name in names:
            query = f"SELECT {quoted(name)} FROM {quoted(table)} WHERE {quoted(name)} IS NOT NULL LIMIT 1"
            if any(may_be_tokens(value) for (value,) in connection.execute(query).fetchall()):
                found.setdefault(table, []).append(name)
    return found


def _matches(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(_MAGIC_BYTES.stop)[_MAGIC_BYTES] == _MAGIC
    except OSError:
        return False


READERS = (
    Reader(
        "duckdb",
        _matches,
        _open,
        "docs.duckdb -o table=docs",
        "a DuckDB file with a table of one row per document, whose token vectors are a list (FLOAT[][]), a "
        "BLOB (a .npy file's bytes or raw floats) or JSON",
    ),
)
