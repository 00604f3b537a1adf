"""LanceDB tables and Qdrant collections that their own embedded clients built."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.token_collections import assert_same, collection, everything

from muvera.convert.readers import lancedb as lancedb_reader
from muvera.convert.readers import qdrant as qdrant_reader

DOCS = collection([3, 0, 1, 2], ids=["a", "b", "c", "d"])


@pytest.fixture
def lancedb() -> Any:
    return pytest.importorskip("lancedb", reason="the lancedb extra is not installed")


@pytest.fixture
def qdrant() -> Any:
    return pytest.importorskip("qdrant_client", reason="the qdrant extra is not installed")


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
    with pytest.raises(ValueError, match=r"broken\.lance cannot be opened by LanceDB"):
        lancedb_reader.open_source(tmp_path, table="broken")


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
    with pytest.raises(RuntimeError, match="db is in use by another Qdrant client"):
        qdrant_reader.open_source(tmp_path / "db")
    other.close()


def test_missing_extras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "docs.lance").mkdir()
    (tmp_path / "collection").mkdir()
    config = {"size": 2, "multivector_config": {"comparator": "max_sim"}}
    (tmp_path / "meta.json").write_text(
        repr({"collections": {"docs": {"vectors": config}}}).replace("'", '"')
    )
    for name, reader, extra in (
        ("lancedb", lancedb_reader, "lancedb"),
        ("qdrant_client", qdrant_reader, "qdrant"),
    ):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(ImportError, match=rf"{name}.*pip install 'muvera-toolkit\[{extra}\]'"):
            reader.open_source(tmp_path)
