"""Qdrant collections that its embedded client built, and folders that are incomplete or hostile."""

from __future__ import annotations

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
from builders.token_collections import assert_same, collection, everything

from muvera.convert import open_source, read

qdrant = pytest.importorskip("qdrant_client", reason="qdrant-client is not installed")
models = qdrant.models

# qdrant-client leaves a database in memory open, about which Python 3.13 warns whenever it is collected, and
# its lock file if another client holds the lock.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed (database|file):ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

DOCS = collection([3, 0, 1, 2], ids=["a", "b", "c", "d"])
MAX_SIM = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)


def tokens_of() -> Any:
    return models.VectorParams(size=4, distance="Dot", multivector_config=MAX_SIM)


def make_collection(path: Path, named: bool = True) -> Path:
    """Build a collection in which the document without tokens is a point without the vector."""
    vectors: Any = tokens_of()
    if named:
        vectors = {"colbert": vectors, "fde": models.VectorParams(size=2, distance="Dot")}
    client = qdrant.QdrantClient(path=str(path))
    client.create_collection("docs", vectors_config=vectors)
    points = []
    for i, (name, value) in enumerate(zip(DOCS.ids.tolist(), DOCS, strict=True)):
        vector: Any = value.tolist()
        if named:
            vector = {"fde": [1.0, 2.0], **({"colbert": vector} if vector else {})}
        if vector:
            points.append(models.PointStruct(id=i * 10, vector=vector, payload={"key": name}))
    client.upsert("docs", points)
    client.close()
    return path


@pytest.mark.parametrize("named", [True, False])
def test_collections(tmp_path: Path, named: bool) -> None:
    source = open_source(make_collection(tmp_path, named))
    expected = DOCS if named else DOCS[[0, 2, 3]]
    assert (source.name, source.dimension, source.num_documents) == ("qdrant", 4, len(expected))
    for max_tokens in (1, 100):
        got = everything(source, max_tokens)
        assert got.ids.tolist() == ([0, 10, 20, 30] if named else [0, 20, 30])
        np.testing.assert_array_equal(got.tokens, DOCS.tokens)
    assert_same(read(tmp_path, id_field="key"), expected)


def test_what_the_client_scrolls_is_read(tmp_path: Path) -> None:
    """With sparse vectors, dates, nested payloads and ids of both kinds, in the client's order."""
    client = qdrant.QdrantClient(path=str(tmp_path))
    sparse = {"words": models.SparseVectorParams()}
    client.create_collection("docs", {"colbert": tokens_of()}, sparse_vectors_config=sparse)
    names = ["8f2445d0-91e4-4e13-ab34-8929b619a9d4", 7, "00000000-0000-4000-8000-000000000000", 2**40]
    for i, (name, value) in enumerate(zip(names, DOCS, strict=True)):
        vector: Any = {"words": models.SparseVector(indices=[i], values=[1.0])}
        if len(value):
            vector["colbert"] = value.tolist()
        payload = {
            "key": f"k{i}",
            "when": datetime.datetime(2024, 1, i + 1),
            "deep": [{"a": None}, True, 2.5],
        }
        client.upsert("docs", [models.PointStruct(id=name, vector=vector, payload=payload)])
    points, _ = client.scroll("docs", limit=10, with_vectors=True)
    client.close()
    docs = read(tmp_path, id_field="key")
    assert docs.ids.tolist() == [point.payload["key"] for point in points]
    for point, tokens in zip(points, docs, strict=True):
        np.testing.assert_array_equal(tokens, np.reshape(point.vector.get("colbert", []), (-1, 4)))
    with pytest.raises(ValueError, match="point 7 has a list in the payload's 'deep'"):
        read(tmp_path, id_field="deep")


def test_which_collection_vector_and_id(tmp_path: Path) -> None:
    make_collection(tmp_path)
    for options, message in (
        ({"collection": "up"}, "has no collection 'up', but the collections docs"),
        ({"vector": "fde"}, "has no multi-vector 'fde', but the multi-vectors colbert"),
        ({"id_field": "up"}, "point 0 has a NoneType in the payload's 'up'"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            read(tmp_path, **options)  # type: ignore[arg-type]


def test_a_folder_in_use(tmp_path: Path) -> None:
    make_collection(tmp_path)
    other = qdrant.QdrantClient(path=str(tmp_path))
    with pytest.raises(ValueError, match="is in use by another Qdrant client"):
        read(tmp_path)
    other.close()
    assert len(read(tmp_path)) == 4


def storage(folder: Path) -> Path:
    return folder / "collection" / "docs" / "storage.sqlite"


def change(folder: Path, statement: str, *values: Any) -> None:
    connection = sqlite3.connect(storage(folder))
    connection.execute(statement, values)
    connection.commit()
    connection.close()


@pytest.mark.parametrize("column", ["point", "id"])
def test_points_run_no_code(tmp_path: Path, column: str) -> None:
    folder = make_collection(tmp_path / "db")
    pickled: Any = pickle.dumps(os.system)
    pickled = base64.b64encode(pickled).decode() if column == "id" else pickled
    change(folder, f"UPDATE points SET {column} = ? WHERE rowid = 2", pickled)
    with pytest.raises(pickle.UnpicklingError, match=rf"{folder}.* refers to (posix|nt)\.system"):
        read(folder)


@pytest.mark.parametrize("column", ["vector", "rows", "id"])
def test_nested_lists_are_not_unfolded(tmp_path: Path, column: str) -> None:
    """A hundred bytes would describe an array of 2 ** 40 numbers, and 60 KB one of 25 million."""
    nested: Any = [1.0]
    for _ in range(40):
        nested = [nested, nested]
    folder = make_collection(tmp_path / "db", named=False)
    if column == "id":
        for row in (1, 2):
            key = base64.b64encode(pickle.dumps([row, nested])).decode()
            change(folder, "UPDATE points SET id = ? WHERE rowid = ?", key, row)
    else:
        vector = nested if column == "vector" else [[1.0] * 5000] * 5000
        point = models.PointStruct.model_construct(id=0, vector=vector, payload={})
        change(folder, "UPDATE points SET point = ? WHERE rowid = 1", pickle.dumps(point))
    with pytest.raises(ValueError, match=rf"^{folder}"):
        read(folder)


def test_reading_creates_nothing(tmp_path: Path) -> None:
    make_collection(tmp_path)
    (tmp_path / ".lock").unlink(missing_ok=True)
    change(tmp_path, "PRAGMA journal_mode = wal")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert len(read(tmp_path)) == 4
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


VIEW = (
    "CREATE VIEW points AS WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n) "
    "SELECT id AS rowid, id, id AS point FROM n"
)


def test_folders_that_are_refused(tmp_path: Path) -> None:
    folder = make_collection(tmp_path / "db")
    journal = storage(folder).with_name("storage.sqlite-journal")
    journal.write_bytes(b"x")
    with pytest.raises(ValueError, match=rf"{folder}.*unfinished changes"):
        read(folder)
    journal.unlink()
    change(folder, "DROP TABLE points")
    change(folder, VIEW)
    with pytest.raises(ValueError, match="no table 'points' with the columns id and point"):
        read(folder)
    storage(folder).write_bytes(storage(folder).read_bytes()[:3000])
    with pytest.raises(ValueError, match=r"is damaged.*malformed"):
        read(folder)
    (folder / "meta.json").write_text(json.dumps({"collections": {"../docs": {"vectors": {}}}}))
    with pytest.raises(ValueError, match=r"has the collection '\.\./docs', which is not a folder's name"):
        read(folder)
