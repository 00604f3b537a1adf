"""LanceDB tables and Qdrant collections that their own embedded clients built."""

from __future__ import annotations

import base64
import datetime
import json
import os
import pickle
import sqlite3
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.token_collections import assert_same, collection, everything

from muvera import convert
from muvera.convert.readers import lancedb as lancedb_reader
from muvera.convert.readers import qdrant as qdrant_reader

# qdrant-client leaves a database in memory open, of which Python 3.13 warns whenever it is collected.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

DOCS = collection([3, 0, 1, 2], ids=["a", "b", "c", "d"])


@pytest.fixture
def lancedb() -> Any:
    return pytest.importorskip("lancedb", reason="the lancedb extra is not installed")


@pytest.fixture
def qdrant() -> Any:
    return pytest.importorskip("qdrant_client", reason="qdrant-client is not installed")


def lance_table(pa: Any, number: Any, docs: Any = DOCS) -> Any:
    values = pa.array(docs.tokens.reshape(-1)).cast(number)
    inner = pa.FixedSizeListArray.from_arrays(values, docs.dimension)
    column = pa.ListArray.from_arrays(pa.array(docs.offsets, pa.int32()), inner)
    return pa.table({"id": docs.ids.tolist(), "text": ["x"] * len(docs), "vector": column})


@pytest.mark.parametrize("number", ["float32", "float64"])
def test_lancedb(tmp_path: Path, lancedb: Any, number: str) -> None:
    import pyarrow as pa

    table = lancedb.connect(str(tmp_path)).create_table("docs", lance_table(pa, getattr(pa, number)()))
    more = collection([2, 1], ids=["e", "f"], seed=1)
    table.add(lance_table(pa, getattr(pa, number)(), more))
    table.delete("id = 'c'")
    for path in (tmp_path, tmp_path / "docs.lance"):
        assert lancedb_reader.matches(path)
        source = lancedb_reader.open_source(path)
        assert (source.dimension, source.num_documents) == (4, 5)
        for max_tokens in (1, 4, 100):
            got = everything(source, max_tokens)
            assert got.ids.tolist() == ["a", "b", "d", "e", "f"]
            assert got.lengths.tolist() == [3, 0, 2, 2, 1]
            np.testing.assert_array_equal(got.tokens[:3], DOCS[0])
            np.testing.assert_array_equal(got.tokens[-3:], more.tokens)


def test_lancedb_halves_and_long_tables(tmp_path: Path, lancedb: Any) -> None:
    import pyarrow as pa

    docs = collection([1, 2, 3] * 400, ids=list(range(1200)), dtype=np.float16)
    lancedb.connect(str(tmp_path)).create_table("docs", lance_table(pa, pa.float16(), docs))
    assert_same(everything(lancedb_reader.open_source(tmp_path), 500), docs)


def test_lancedb_which_table(tmp_path: Path, lancedb: Any) -> None:
    import pyarrow as pa

    with pytest.raises(ValueError, match=r"has the tables none"):
        lancedb_reader.open_source(tmp_path)
    db = lancedb.connect(str(tmp_path))
    db.create_table("left", lance_table(pa, pa.float32()))
    db.create_table("right", pa.table({"vector": [[1.0]]}))
    with pytest.raises(ValueError, match=r"has the tables left, right\. Say which with table="):
        lancedb_reader.open_source(tmp_path)
    with pytest.raises(ValueError, match="has no table 'up', but the tables left, right"):
        lancedb_reader.open_source(tmp_path, table="up")
    with pytest.raises(ValueError, match=r"right\.lance has no column of token vectors"):
        lancedb_reader.open_source(tmp_path, table="right")
    assert_same(everything(lancedb_reader.open_source(tmp_path, table="left")), DOCS)
    (tmp_path / "broken.lance").mkdir()
    with pytest.raises(ValueError, match=r" is damaged, or is not in the format 'lancedb' \(.*broken"):
        convert.open_source(tmp_path, table="broken")


def with_base_path(manifest: bytes, field: bytes) -> bytes:
    """Append a field to the manifest's message, and tell its new length."""
    begins = int.from_bytes(manifest[-16:-8], "little")
    message = manifest[begins + 4 : begins + 4 + int.from_bytes(manifest[begins : begins + 4], "little")]
    changed = message + field
    return manifest[:begins] + len(changed).to_bytes(4, "little") + changed + manifest[-16:]


def test_lancedb_hands_out_no_other_folder(tmp_path: Path, lancedb: Any) -> None:
    import pyarrow as pa

    lancedb.connect(str(tmp_path)).create_table("docs", lance_table(pa, pa.float32()))
    (manifest,) = (tmp_path / "docs.lance" / "_versions").glob("*.manifest")
    content = manifest.read_bytes()
    base = b"\x1a\x00\x22\x0b/etc/secret"  # is_dataset_root and path
    manifest.write_bytes(with_base_path(content, b"\x92\x01" + bytes([len(base)]) + base))
    with pytest.raises(ValueError, match=r"\.manifest names folders outside the table that hold its rows"):
        convert.read(tmp_path)
    for damage in (content[:-3], with_base_path(content, b"\x92"), with_base_path(content, b"\xff" * 11)):
        manifest.write_bytes(damage)
        with pytest.raises(ValueError, match=r"\.manifest is damaged: "):
            convert.read(tmp_path)
    manifest.write_bytes(content)
    assert_same(convert.read(tmp_path), DOCS)


def make_collection(qdrant: Any, path: Path, named: bool, distance: str = "Dot") -> None:
    """Build a collection in which the document without tokens is a point without the vector."""
    models = qdrant.models
    comparator = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    tokens = models.VectorParams(size=4, distance=distance, multivector_config=comparator)
    fde = models.VectorParams(size=2, distance="Dot")
    client = qdrant.QdrantClient(path=str(path))
    client.create_collection("docs", vectors_config={"colbert": tokens, "fde": fde} if named else tokens)
    for i, (name, value) in enumerate(zip(DOCS.ids.tolist(), DOCS, strict=True)):
        vector: Any = value.tolist()
        if named:
            vector = {"fde": [1.0, 2.0], **({"colbert": vector} if vector else {})}
        elif not vector:
            continue
        point = models.PointStruct(id=i * 10, vector=vector, payload={"key": name})
        client.upsert("docs", [point])
    client.close()


@pytest.mark.parametrize("named", [True, False])
def test_qdrant(tmp_path: Path, qdrant: Any, named: bool) -> None:
    make_collection(qdrant, tmp_path / "db", named)
    assert qdrant_reader.matches(tmp_path / "db")
    source = qdrant_reader.open_source(tmp_path / "db")
    wanted = DOCS if named else DOCS[[0, 2, 3]]
    assert (source.dimension, source.num_documents) == (4, len(wanted))
    for max_tokens in (1, 100):
        got = everything(source, max_tokens)
        assert got.ids.tolist() == ([0, 10, 20, 30] if named else [0, 20, 30])
        np.testing.assert_array_equal(got.tokens, DOCS.tokens)
    by_key = qdrant_reader.open_source(tmp_path / "db", id_field="key")
    assert_same(everything(by_key), wanted)


def test_qdrant_with_cosine_keeps_directions(tmp_path: Path, qdrant: Any) -> None:
    """Whether the lengths are kept differs between its versions and from the server."""
    make_collection(qdrant, tmp_path / "db", True, "Cosine")
    got = everything(qdrant_reader.open_source(tmp_path / "db")).tokens
    norms = np.linalg.norm(got, axis=1, keepdims=True)
    wanted = DOCS.tokens / np.linalg.norm(DOCS.tokens, axis=1, keepdims=True)
    np.testing.assert_allclose(got / norms, wanted, rtol=1e-5)  # single precision, twice rounded


def test_qdrant_scrolls_past_one_page(tmp_path: Path, qdrant: Any) -> None:
    models = qdrant.models
    docs = collection([1, 2] * 300)
    comparator = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    client = qdrant.QdrantClient(path=str(tmp_path / "db"))
    client.create_collection(
        "docs", models.VectorParams(size=4, distance="Dot", multivector_config=comparator)
    )
    client.upsert("docs", [models.PointStruct(id=i, vector=t.tolist()) for i, t in enumerate(docs)])
    client.close()
    assert_same(everything(qdrant_reader.open_source(tmp_path / "db")), docs.with_ids(list(range(600))))


def test_qdrant_which_collection_and_vector(tmp_path: Path, qdrant: Any) -> None:
    make_collection(qdrant, tmp_path / "db", True)
    with pytest.raises(ValueError, match="has no collection 'up', but the collections docs"):
        qdrant_reader.open_source(tmp_path / "db", collection="up")
    with pytest.raises(ValueError, match=r"docs has these multi-vectors: 'colbert'\. Say which with vector="):
        qdrant_reader.open_source(tmp_path / "db", vector="fde")
    with pytest.raises(ValueError, match="the point 0 has no 'up' in its payload"):
        everything(qdrant_reader.open_source(tmp_path / "db", id_field="up"))
    (tmp_path / "db" / "meta.json").write_text("{")
    with pytest.raises(ValueError, match=r"meta\.json is damaged"):
        qdrant_reader.open_source(tmp_path / "db")


# The client leaves its lock file open when the lock is another's.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_qdrant_in_use(tmp_path: Path, qdrant: Any) -> None:
    make_collection(qdrant, tmp_path / "db", True)
    other = qdrant.QdrantClient(path=str(tmp_path / "db"))
    with pytest.raises(BlockingIOError, match="db is in use by another Qdrant client"):
        convert.read(tmp_path / "db")
    other.close()
    assert len(convert.read(tmp_path / "db")) == 4


class Hostile:
    """A pickle that makes the file `marker` when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


def change(folder: Path, statement: str, *values: Any) -> None:
    connection = sqlite3.connect(folder / "collection" / "docs" / "storage.sqlite")
    connection.execute(statement, values)
    connection.commit()
    connection.close()


@pytest.mark.parametrize("column", ["point", "id"])
def test_a_qdrant_folder_runs_no_code(tmp_path: Path, qdrant: Any, column: str) -> None:
    db, marker = tmp_path / "db", tmp_path / "marker"
    make_collection(qdrant, db, True)
    pickled: Any = pickle.dumps(Hostile(marker))
    if column == "id":
        pickled = base64.b64encode(pickled).decode()
    change(db, f"UPDATE points SET {column} = ? WHERE rowid = 2", pickled)
    with pytest.raises(
        pickle.UnpicklingError, match=rf"{db}.* asks for (posix|nt)\.system, which is not plain"
    ):
        convert.read(db)
    assert not marker.exists()


@pytest.mark.parametrize(
    "replacement",
    [
        "CREATE VIEW points AS WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n) "
        "SELECT id AS rowid, id, id AS point FROM n",
        "CREATE TABLE points (id TEXT, point BLOB AS (zeroblob(1000000000)))",
        "CREATE TABLE points (name TEXT)",
    ],
    ids=["view", "computed", "other"],
)
def test_qdrant_points_must_be_a_plain_table(tmp_path: Path, qdrant: Any, replacement: str) -> None:
    make_collection(qdrant, tmp_path / "db", True)
    change(tmp_path / "db", "DROP TABLE points")
    change(tmp_path / "db", replacement)
    with pytest.raises(
        ValueError, match=r"storage\.sqlite has no table 'points' with the columns id and point"
    ):
        convert.read(tmp_path / "db")


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(p): (p.stat().st_mtime_ns, p.stat().st_size) for p in sorted(folder.rglob("*"))}


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_reading_a_qdrant_folder_creates_nothing(tmp_path: Path, qdrant: Any, mode: str) -> None:
    make_collection(qdrant, tmp_path / "db", True)
    (tmp_path / "db" / ".lock").unlink(missing_ok=True)
    change(tmp_path / "db", f"PRAGMA journal_mode = {mode}")
    before = listing(tmp_path / "db")
    assert len(convert.read(tmp_path / "db")) == 4
    assert listing(tmp_path / "db") == before


def test_an_incomplete_qdrant_folder(tmp_path: Path, qdrant: Any) -> None:
    make_collection(qdrant, tmp_path / "db", True)
    storage = tmp_path / "db" / "collection" / "docs" / "storage.sqlite"
    journal = storage.with_name("storage.sqlite-journal")
    journal.write_bytes(b"changes")
    with pytest.raises(ValueError, match=r"storage\.sqlite-journal holds changes that were not finished"):
        convert.read(tmp_path / "db")
    journal.unlink()
    content = storage.read_bytes()
    storage.write_bytes(content[:3000])
    with pytest.raises(ValueError, match=r"/db is damaged, .*malformed"):
        convert.read(tmp_path / "db")
    storage.unlink()
    with pytest.raises(
        FileNotFoundError, match=r"storage\.sqlite is missing, so the collection has no points"
    ):
        convert.read(tmp_path / "db")
    assert not storage.exists()
    storage.with_suffix(".dbm").touch()
    with pytest.raises(ValueError, match=r"qdrant-client before 1\.1\.7, whose storage\.dbm is not read"):
        convert.read(tmp_path / "db")


@pytest.mark.parametrize(
    ("name", "config", "sentence"),
    [
        ("../docs", {}, r"names the collection '\.\./docs', which is no folder's name"),
        ("docs", [], r"docs has these multi-vectors: none"),
        ("docs", {"size": "x"}, r"the vector '' has size='x', which must be at least 1"),
    ],
)
def test_a_hostile_qdrant_meta(tmp_path: Path, name: str, config: Any, sentence: str) -> None:
    (tmp_path / "collection").mkdir()
    vectors = {**config, "multivector_config": {"comparator": "max_sim"}} if config else config
    (tmp_path / "meta.json").write_text(json.dumps({"collections": {name: {"vectors": vectors}}}))
    with pytest.raises(ValueError, match=sentence):
        convert.read(tmp_path)


def test_qdrant_counts_the_last_spelling_of_a_uuid(tmp_path: Path, qdrant: Any) -> None:
    """Older clients stored each spelling as a point of its own; the newest row is the point."""
    make_collection(qdrant, tmp_path / "db", True)
    models = qdrant.models
    name = "8f2445d0-91e4-4e13-ab34-8929b619a9d4"
    for spelling, value in ((name, 1.0), (name.upper(), 2.0)):
        point = models.PointStruct(id=spelling, vector={"colbert": [[value] * 4]}, payload={})
        key = base64.b64encode(pickle.dumps(spelling)).decode()
        change(tmp_path / "db", "INSERT INTO points VALUES (?, ?)", key, pickle.dumps(point))
    change(tmp_path / "db", "DELETE FROM points WHERE rowid < 5")
    docs = convert.read(tmp_path / "db")
    assert docs.ids.tolist() == [name] and docs.tokens.tolist() == [[2.0] * 4]


def test_what_qdrant_returns_is_what_is_read(tmp_path: Path, qdrant: Any) -> None:
    """Sparse vectors, dates and nested payloads beside, ids of both kinds, in the client's order."""
    models = qdrant.models
    comparator = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    client = qdrant.QdrantClient(path=str(tmp_path))
    client.create_collection(
        "docs",
        {"colbert": models.VectorParams(size=4, distance="Dot", multivector_config=comparator)},
        sparse_vectors_config={"words": models.SparseVectorParams()},
    )
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
    docs = convert.read(tmp_path, id_field="key")
    assert docs.ids.tolist() == [point.payload["key"] for point in points]
    for point, tokens in zip(points, docs, strict=True):
        np.testing.assert_array_equal(tokens, np.reshape(point.vector.get("colbert", []), (-1, 4)))
    with pytest.raises(TypeError, match=r"the point 7 has a (list) in 'deep', but ids must be"):
        convert.read(tmp_path, id_field="deep")


def test_missing_extras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "docs.lance").mkdir()
    monkeypatch.setitem(sys.modules, "lancedb", None)
    with pytest.raises(ImportError, match=r"lancedb.*pip install 'muvera-toolkit\[lancedb\]'"):
        lancedb_reader.open_source(tmp_path)
