"""Reader of a table in a SQLite file, with a row per document.

A cell is a .npy file's bytes as ``numpy.save`` writes them, raw little-endian floats
whose number per token is `dimension`, or the JSON text of a list of lists.  Null is a
document without tokens.
"""

from __future__ import annotations

import io
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from ...utils.arrays import read_npy_header
from ...utils.checks import require_choice, require_int
from ...utils.hints import Argument, Message
from ..parsing import open_sqlite, open_table, quoted, starts_with, table_columns
from ..sources import IF_TEXTS, Document, Reader, ReadError, RowSource, Source, choose, naming_errors

_MAGIC = b"SQLite format 3\0"
_NPY = b"\x93NUMPY"

_TOKENS = ("tokens", "embeddings", "embedding", "vectors", "vector", "colbert_vecs", "colbert", "multivector")
_IDS = ("id", "_id", "doc_id", "docid", "document_id", "pid", "key")

_DTYPES = {"float32": "<f4", "float16": "<f2", "float64": "<f8"}


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
    `dtype` ("float16", "float32" or "float64") are those of raw floats.
    """
    require_choice("dtype", dtype, _DTYPES)
    if dimension is not None:
        dimension = require_int("dimension", int(dimension), 1)
    with closing(open_sqlite(path, "the program that wrote it")) as connection:
        found = _candidates(connection)
        if not found:
            raise ReadError(f"it has no table with a column of token vectors. {IF_TEXTS}")
        table = choose(table, found, "token table", "table")
        column = choose(column, found[table], "token column", "column", _TOKENS)
        columns = table_columns(connection, table)
    if id_column is None:
        id_column = next((name for name in _IDS if name in columns), None)
    else:
        id_column = choose(id_column, columns, "column", "id_column")
    used = [column] if id_column is None else [column, id_column]

    def documents() -> Iterator[Document]:
        with closing(open_table(path, table, used, "the program that wrote it")) as opened:
            query = f"SELECT {', '.join(map(quoted, used))} FROM {quoted(table)}"
            for number, (cell, *ids) in enumerate(opened.execute(query)):
                where = f"row {number}"
                with naming_errors(where, "sqlite"):
                    tokens = _tokens(cell, dimension, dtype)
                    if ids and (isinstance(ids[0], (bytes, float)) or ids[0] is None):
                        raise ReadError(f"its id is {ids[0]!r}, but an id must be an integer or a string.")
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
                if isinstance(value, bytes) or (isinstance(value, str) and value.lstrip().startswith("[[")):
                    found.setdefault(table, []).append(column)
    return found


def _tokens(cell: Any, dimension: int | None, dtype: str) -> Any:
    """Return the token vectors in a cell, (t, dimension)."""
    if cell is None or cell in (b"", "", "[]"):
        return np.empty((0, 0), np.float32)
    if isinstance(cell, str):
        return _floats(np.asarray(json.loads(cell)))
    if not isinstance(cell, bytes):
        raise ReadError(f"it has the {type(cell).__name__} {cell!r}, but token vectors are bytes or JSON.")
    if cell.startswith(_NPY):
        header = read_npy_header(io.BytesIO(cell), "a cell")
        header.require_bytes(len(cell) - header.begins, "a cell")
        return _floats(np.load(io.BytesIO(cell), allow_pickle=False))
    if dimension is None:
        raise ReadError(
            Message(
                f"it has {len(cell)} bytes of raw floats. Give the number of floats of a token with ",
                Argument("dimension", ""),
                ".",
            )
        )
    code = np.dtype(_DTYPES[dtype])
    if len(cell) % (dimension * code.itemsize):
        raise ReadError(
            f"it has {len(cell)} bytes, but tokens of {dimension} floats of {dtype} need a multiple of "
            f"{dimension * code.itemsize}."
        )
    return _floats(np.frombuffer(cell, code).reshape(-1, dimension))


def _floats(array: Any) -> Any:
    """Return token vectors as float32 or float16; raise ReadError for other arrays."""
    if array.ndim != 2 or array.dtype.kind not in "if":
        raise ReadError(
            f"it has {array.dtype} of shape {array.shape}, but token vectors have shape (tokens, dimension)."
        )
    with np.errstate(over="ignore"):  # the document is refused later, with its number
        return array if array.dtype == np.float16 else array.astype(np.float32)


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
