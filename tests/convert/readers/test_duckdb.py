"""Tables of DuckDB with a row per document."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.token_collections import assert_same, collection, everything

from muvera.convert import open_source, read
from muvera.convert.sources import ReadError

duckdb = pytest.importorskip("duckdb")

DOCS = collection([3, 0, 1, 2], ids=["a", "b", "c", "d"])


def npy(tokens: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, tokens)
    return out.getvalue()


#: Type of the column, functions that make a cell of token vectors, and options.
CELLS: dict[str, tuple[str, Callable[[np.ndarray], Any], dict[str, Any]]] = {
    "list": ("FLOAT[][]", lambda tokens: tokens.tolist(), {}),
    "array": ("FLOAT[4][]", lambda tokens: tokens.tolist(), {}),
    "double": ("DOUBLE[][]", lambda tokens: tokens.tolist() or None, {}),
    "npy": ("BLOB", npy, {}),
    "raw": ("BLOB", lambda tokens: tokens.astype("<f4").tobytes(), {"dimension": 4}),
    "json": ("VARCHAR", lambda tokens: json.dumps(tokens.tolist()), {}),
}


def table(path: Path, kind: str, rows: list[tuple[Any, ...]]) -> Path:
    with duckdb.connect(str(path)) as connection:
        connection.execute(f'CREATE TABLE "my table" (id VARCHAR, title VARCHAR, colbert {kind})')
        connection.executemany('INSERT INTO "my table" VALUES (?, ?, ?)', rows)
    return path


@pytest.mark.parametrize("kind", CELLS)
def test_cells_of_every_kind(tmp_path: Path, kind: str) -> None:
    column, cell, options = CELLS[kind]
    rows = [(name, "x", cell(np.asarray(tokens))) for name, tokens in zip("abcd", DOCS, strict=True)]
    source = open_source(table(tmp_path / "docs.duckdb", column, rows), **options)
    assert source.name == "duckdb"
    for max_tokens in (1, 100):
        assert_same(everything(source, max_tokens), DOCS, exact_dtype=False)


def test_options_choose_table_column_and_ids(tmp_path: Path) -> None:
    path = table(tmp_path / "docs.duckdb", "FLOAT[][]", [("a", "first", [[1.0, 2.0]])])
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE other (n INTEGER, left_one FLOAT[][], right_one FLOAT[][])")
        connection.execute("INSERT INTO other VALUES (7, [[1, 2, 3]], [[1, 2]])")
        connection.execute("CREATE VIEW every AS SELECT * FROM other")
    with pytest.raises(ValueError, match=r"token tables my table, other\. Choose one with table="):
        read(path)
    assert read(path, table="my table", id_column="title").ids.tolist() == ["first"]
    documents = read(path, table="other", column="left_one", id_column="n")
    assert (documents.dimension, documents.ids.tolist()) == (3, [7])
    with pytest.raises(ValueError, match="every"):
        read(path, table="every")


@pytest.mark.parametrize(
    ("column", "cell", "message"),
    [
        ("BLOB", bytes(32), "row 0: it has 32 bytes of raw floats.* dimension="),
        ("FLOAT[][]", [[1.0, 2.0], [3.0]], "row 0"),
        ("FLOAT[][]", [[1.0, None]], "row 0"),
        ("VARCHAR", "[[1, 2", "row 0"),
        ("FLOAT[]", [1.0, 2.0], "no table with a column of token vectors"),
    ],
)
def test_bad_cells(tmp_path: Path, column: str, cell: Any, message: str) -> None:
    path = table(tmp_path / "docs.duckdb", column, [("a", "x", cell)])
    with pytest.raises(ValueError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    path = table(tmp_path / "docs.duckdb", "FLOAT[][]", [("a", "x", [[1.0, 2.0]])])
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ReadError, match=r"DuckDB cannot open it: .*Copy or export it again"):
        read(path)


def test_a_column_cannot_read_other_files(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("[[1.0, 2.0]]")
    path = tmp_path / "docs.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute(f"CREATE MACRO theirs() AS (SELECT content FROM read_text('{secret}'))")
        connection.execute("CREATE TABLE docs (id INTEGER, tokens FLOAT[][])")
        connection.execute("INSERT INTO docs VALUES (1, [[1, 2]])")
        connection.execute(f"CREATE VIEW leak AS SELECT content AS tokens FROM read_text('{secret}')")
    assert read(path).ids.tolist() == [1]
    with pytest.raises(ValueError, match="leak"):
        read(path, table="leak")
