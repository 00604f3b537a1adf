"""Token vectors in the cells of a database's table.

A cell is a .npy file's bytes as ``numpy.save`` writes them, raw little-endian floats
whose number per token is `dimension`, the JSON text of a list of lists, or such a list.
Null is a document without tokens.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..utils.arrays import read_npy_header
from ..utils.checks import require_choice, require_int
from ..utils.hints import Argument, Message
from .sources import IF_TEXTS, ReadError, choose

_NPY = b"\x93NUMPY"

#: Names of columns that are chosen without being named, the preferred one first.
TOKEN_NAMES = (
    *("tokens", "embeddings", "embedding", "vectors", "vector", "colbert_vecs", "colbert", "multivector"),
)
ID_NAMES = ("id", "_id", "doc_id", "docid", "document_id", "pid", "key")

#: Types of raw floats.
DTYPES = {"float32": "<f4", "float16": "<f2", "float64": "<f8"}


def require_raw_floats(dimension: int | None, dtype: str) -> int | None:
    """Return the checked number of raw floats of a token, or raise ValueError.

    `dtype` must be a key of :data:`DTYPES`.
    """
    require_choice("dtype", dtype, DTYPES)
    return None if dimension is None else require_int("dimension", int(dimension), 1)


def choose_columns(
    found: Mapping[str, list[str]],
    columns: Callable[[str], list[str]],
    table: str | None,
    column: str | None,
    id_column: str | None,
) -> tuple[str, list[str]]:
    """Return the table to read, and its columns of token vectors and, if any, of ids.

    `found` has the columns that may have token vectors, by table.  `columns` returns
    all columns of a table.  The others are the reader's options.
    """
    if not found:
        raise ReadError(f"it has no table with a column of token vectors. {IF_TEXTS}")
    table = choose(table, list(found), "token table", "table")
    column = choose(column, found[table], "token column", "column", TOKEN_NAMES)
    names = columns(table)
    if id_column is not None:
        return table, [column, choose(id_column, names, "column", "id_column")]
    usual = next((name for name in ID_NAMES if name in names), None)
    return table, [column] if usual is None else [column, usual]


def may_be_tokens(value: object) -> bool:
    """Return True if a cell may hold token vectors."""
    if isinstance(value, str):
        return value.lstrip().startswith("[[")
    if isinstance(value, list):
        return bool(value) and isinstance(value[0], (list, tuple))
    return isinstance(value, bytes)


def require_id(*ids: object) -> None:
    """Raise ReadError for an id that is neither an integer nor a string."""
    for id in ids:
        if isinstance(id, bool) or not isinstance(id, (int, str)):
            raise ReadError(f"its id is {id!r}, but an id must be an integer or a string.")


def tokens_of_cell(cell: object, dimension: int | None, dtype: str) -> Any:
    """Return the token vectors (t, dimension) in a cell.

    A cell is the bytes of a ``.npy`` file, raw floats, JSON, or a list of lists of
    floats.  Raw floats have `dimension` numbers per token, of a `dtype` in
    :data:`DTYPES`.  Raise ReadError or ValueError for anything else.
    """
    if cell is None or cell in (b"", "", "[]", []):
        return np.empty((0, 0), np.float32)
    if isinstance(cell, list):
        return _floats(np.asarray(cell))
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
    code = np.dtype(DTYPES[dtype])
    if len(cell) % (dimension * code.itemsize):
        raise ReadError(
            f"it has {len(cell)} bytes, but tokens of {dimension} floats of {dtype} need a multiple of "
            f"{dimension * code.itemsize}."
        )
    return _floats(np.frombuffer(cell, code).reshape(-1, dimension))


def _floats(array: NDArray[Any]) -> Any:
    """Return token vectors as float32 or float16; raise ReadError for other arrays."""
    if array.ndim != 2 or array.dtype.kind not in "if":
        raise ReadError(
            f"it has {array.dtype} of shape {array.shape}, but token vectors have shape (tokens, dimension)."
        )
    with np.errstate(over="ignore"):  # the document is refused later, with its number
        return array if array.dtype == np.float16 else array.astype(np.float32)
