"""Tables of SQLite with a row per document."""

import io
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.token_collections import assert_same, collection, everything

from muvera.convert import open_source, read

DOCS = collection([3, 0, 1, 2], ids=["a", "b", "c", "d"])


def npy(tokens: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, tokens)
    return out.getvalue()


#: Functions that make a cell of token vectors, and options to read it.
CELLS: dict[str, tuple[Callable[[np.ndarray], Any], dict[str, Any]]] = {
    "npy": (npy, {}),
    "raw": (lambda tokens: tokens.astype("<f4").tobytes(), {"dimension": 4}),
    "raw doubles": (lambda tokens: tokens.astype("<f8").tobytes(), {"dimension": 4, "dtype": "float64"}),
    "json": (lambda tokens: json.dumps(tokens.tolist()), {}),
    "null": (lambda tokens: npy(tokens) if len(tokens) else None, {}),
}


def table(path: Path, rows: list[tuple[Any, ...]], *, definition: str = "id, title, colbert") -> Path:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f'CREATE TABLE "my table" ({definition})')
        marks = ", ".join("?" * len(rows[0]))
        connection.executemany(f'INSERT INTO "my table" VALUES ({marks})', rows)
        connection.commit()
    return path


@pytest.mark.parametrize("kind", CELLS)
def test_cells_of_every_kind(tmp_path: Path, kind: str) -> None:
    cell, options = CELLS[kind]
    rows = [(name, "x", cell(np.asarray(tokens))) for name, tokens in zip("abcd", DOCS, strict=True)]
    source = open_source(table(tmp_path / "docs.db", rows), **options)
    assert source.name == "sqlite"
    for max_tokens in (1, 100):
        assert_same(everything(source, max_tokens), DOCS, exact_dtype=False)


def test_options_choose_table_column_and_ids(tmp_path: Path) -> None:
    rows = [
        (str(i), i, npy(np.ones((1, 2), np.float32)), npy(np.zeros((1, 3), np.float32))) for i in range(3)
    ]
    path = table(tmp_path / "docs.db", rows, definition='"an id", n, "left", "right ""x"""')
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE other (colbert)")
        connection.execute("INSERT INTO other VALUES (?)", [npy(np.ones((1, 5), np.float32))])
        connection.commit()
    with pytest.raises(ValueError, match=r"token tables my table, other\. Choose one with table="):
        read(path)
    with pytest.raises(ValueError, match=r'token columns left, right "x"\. Choose one with column='):
        read(path, table="my table")
    documents = read(path, table="my table", column='right "x"', id_column="an id")
    assert (documents.dimension, documents.ids.tolist()) == (3, ["0", "1", "2"])


@pytest.mark.parametrize(
    ("cell", "options", "message"),
    [
        (bytes(32), {}, "row 0: it has 32 bytes of raw floats.* dimension="),
        (bytes(30), {"dimension": 4}, "row 0: it has 30 bytes, .* multiple of 16"),
        (npy(np.array([[1, "a"]], object)), {}, "row 0"),
        (npy(np.ones(3, np.float32)), {}, r"row 0: it has float32 of shape \(3,\)"),
        (npy(np.ones((3, 4), np.float32))[:-5], {}, "row 0"),
        ('[["a"]]', {}, "row 0: it has <U1 of shape"),
        ("[[1, 2", {}, "row 0"),
    ],
)
def test_bad_cells(tmp_path: Path, cell: Any, options: dict[str, Any], message: str) -> None:
    path = table(tmp_path / "docs.db", [("a", "x", cell)])
    with pytest.raises(ValueError, match=message) as caught:
        read(path, **options)
    assert str(path) in str(caught.value)


def test_a_view_is_not_read(tmp_path: Path) -> None:
    path = table(tmp_path / "docs.db", [("a", "x", "y")])
    with closing(sqlite3.connect(path)) as connection:
        endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT x'00' AS c FROM n"
        connection.execute(f"CREATE VIEW tokens AS {endless} WHERE i < 0")
        connection.commit()
    with pytest.raises(ValueError, match="no table with a column of token vectors"):
        read(path)
