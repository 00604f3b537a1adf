"""Qdrant collections that its embedded client built.

Some folders are incomplete or hostile.
"""

import base64
import datetime
import json
import os
import pickle
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.foreign_indexes import write_qdrant
from builders.token_collections import assert_same, collection, everything

from muvera.convert import open_source, read

qdrant = pytest.importorskip("qdrant_client", reason="qdrant-client is not installed")
models = qdrant.models

# qdrant-client leaves a database in memory open, about which Python 3.13 warns whenever
# it is collected, and its lock file if another client holds the lock.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed (database|file):ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

DOCS = collection([3, 0, 1, 2], ids=["a", "b", "c", "d"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_qdrant(tmp_path / "db", DOCS, "colbert")


def test_a_collection_with_a_single_vector(tmp_path: Path) -> None:
    expected = DOCS[[0, 2, 3]]
    source = open_source(write_qdrant(tmp_path, expected))
    assert (source.name, source.dimension, source.num_documents) == ("qdrant", 4, 3)
    for max_tokens in (1, 100):
        assert_same(everything(source, max_tokens), expected.with_ids([0, 1, 2]))
    assert_same(read(tmp_path, id_field="key"), expected)


def test_what_the_client_scrolls_is_read(tmp_path: Path) -> None:
    """With other vectors, dates, nested payloads and ids of both kinds.

    They have the client's order.
    """
    client = qdrant.QdrantClient(path=str(tmp_path))
    multi = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    columns = models.VectorParams(size=4, distance="Dot", multivector_config=multi)
    vectors = {"colbert": columns, "fde": models.VectorParams(size=2, distance="Dot")}
    client.create_collection("docs", vectors, sparse_vectors_config={"words": models.SparseVectorParams()})
    names = ["8f2445d0-91e4-4e13-ab34-8929b619a9d4", 7, "00000000-0000-4000-8000-000000000000", 2**40]
    for i, (name, value) in enumerate(zip(names, DOCS, strict=True)):
        vector: Any = {"words": models.SparseVector(indices=[i], values=[1.0]), "fde": [1.0, 2.0]}
        if len(value):
            vector["colbert"] = value.tolist()
        date = datetime.datetime(2024, 1, i + 1)
        payload = {"key": f"k{i}", "when": date, "deep": [{"a": None}, True, 2.5]}
        client.upsert("docs", [models.PointStruct(id=name, vector=vector, payload=payload)])
    points, _ = client.scroll("docs", limit=10, with_vectors=True)
    client.close()
    docs = read(tmp_path, id_field="key")
    assert docs.ids.tolist() == [point.payload["key"] for point in points]
    for point, tokens in zip(points, docs, strict=True):
        np.testing.assert_array_equal(tokens, np.reshape(point.vector.get("colbert", []), (-1, 4)))
    for options, message in (
        ({"collection": "up"}, "has no collection 'up', but the collections docs"),
        ({"vector": "fde"}, "has no multi-vector 'fde', but the multi-vectors colbert"),
        ({"id_field": "up"}, "point 7 has a NoneType in the payload's 'up'"),
        ({"id_field": "deep"}, "point 7 has a list in the payload's 'deep'"),
    ):
        with pytest.raises(ValueError, match=message):
            read(tmp_path, **options)  # type: ignore[arg-type]


def test_a_folder_in_use(folder: Path) -> None:
    other = qdrant.QdrantClient(path=str(folder))
    with pytest.raises(ValueError, match="is in use by another Qdrant client"):
        read(folder)
    other.close()
    assert len(read(folder)) == 4


def change(folder: Path, statement: str, *values: Any) -> None:
    connection = sqlite3.connect(folder / "collection" / "docs" / "storage.sqlite")
    connection.execute(statement, values)
    connection.commit()
    connection.close()


# A hundred bytes would describe an array of 2 ** 40 numbers, and 60 KB one of 25
# million.
NESTED: Any = [1.0]
for _ in range(40):
    NESTED = [NESTED, NESTED]
MANY = [[1.0] * 5000] * 5000


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("point", [os.system], r".* refers to (posix|nt)\.system"),
        ("id", [os.system], r".* refers to (posix|nt)\.system"),
        ("point", [models.PointStruct.model_construct(id=0, vector=NESTED, payload={})], ""),
        ("point", [models.PointStruct.model_construct(id=0, vector=MANY, payload={})], ".*more numbers"),
        ("id", [[1, NESTED], [2, NESTED]], ".*neither an integer nor a string"),
    ],
    ids=["program", "program as id", "nested", "repeated", "nested ids"],
)
def test_hostile_points_are_refused(folder: Path, column: str, values: list[Any], message: str) -> None:
    for row, value in enumerate(values, 1):
        content = pickle.dumps(value)
        stored = base64.b64encode(content).decode() if column == "id" else content
        change(folder, f"UPDATE points SET {column} = ? WHERE rowid = ?", stored, row)
    with pytest.raises(ValueError, match=f"^{folder}{message}"):
        read(folder)


def test_reading_creates_nothing(folder: Path) -> None:
    (folder / ".lock").unlink(missing_ok=True)
    change(folder, "PRAGMA journal_mode = wal")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert len(read(folder)) == 4
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


VIEW = (
    "CREATE VIEW points AS WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n) "
    "SELECT id AS rowid, id, id AS point FROM n"
)


def test_folders_that_are_refused(folder: Path) -> None:
    storage = folder / "collection" / "docs" / "storage.sqlite"
    journal = storage.with_name("storage.sqlite-journal")
    journal.write_bytes(b"x")
    with pytest.raises(ValueError, match=rf"{folder}.*unfinished changes"):
        read(folder)
    journal.unlink()
    change(folder, "DROP TABLE points")
    change(folder, VIEW)
    with pytest.raises(ValueError, match="no table 'points' with the columns id and point"):
        read(folder)
    storage.write_bytes(storage.read_bytes()[:3000])
    with pytest.raises(ValueError, match=r"is damaged.*malformed"):
        read(folder)
    (folder / "meta.json").write_text(json.dumps({"collections": {"../docs": {"vectors": {}}}}))
    with pytest.raises(ValueError, match=r"has the collection '\.\./docs', which is not a folder's name"):
        read(folder)
