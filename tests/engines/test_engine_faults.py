"""Faults of engines: one sentence without the password, and nothing half written."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import closing, nullcontext
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from builders.engine_collections import PASSWORD
from builders.realistic_collections import CONFIG, DIM, documents_like_real

from muvera import FDEConfig, FDEEncoder
from muvera.engines import EngineError, EngineIndex, open_engine
from muvera.engines.base import _from_bytes
from muvera.engines.pgvector import PgVectorEngine
from muvera.engines.qdrant import QdrantEngine

psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed")

DOCUMENTS = documents_like_real(40, ids=[f"text {i}" for i in range(40)], dtype=np.float16)
ENCODER = FDEEncoder(CONFIG).fit(DOCUMENTS)
COUNT = int((DOCUMENTS.lengths > 0).sum())


@pytest.fixture
def filled(postgres: str) -> Iterator[EngineIndex]:
    with EngineIndex(f"{postgres}#filled", ENCODER) as index:
        index.add(DOCUMENTS)
        yield index
        index.drop()


def require_sentence(error: BaseException) -> None:
    message = str(error)
    assert not any(part in message for part in (PASSWORD, "wr0ng", "\n")) and re.search(
        r"[^.?][.?]$", message
    )


def test_servers_that_cannot_be_reached(postgres: str) -> None:
    server = postgres.rpartition(":")[0]
    pytest.importorskip("qdrant_client", reason="qdrant-client is not installed")
    for url in (
        postgres.replace(PASSWORD, "wr0ng") + "#x",
        f"{server}:9/postgres#x",
        f"{postgres}?sslmode=require#x",
        f"qdrant://:{PASSWORD}@127.0.0.1:9#x",
    ):
        insecure = pytest.warns(UserWarning) if url.startswith("qdrant") else nullcontext()
        with insecure, pytest.raises(EngineError) as caught:
            open_engine(url).describe()
        require_sentence(caught.value)


def execute(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def test_a_database_without_the_extension(postgres: str) -> None:
    admin = f"{postgres.rpartition('/')[0]}/plain"
    execute(postgres, "CREATE DATABASE plain", f"CREATE USER guest PASSWORD '{PASSWORD}'")
    execute(admin, "GRANT CREATE ON SCHEMA public TO guest")
    with EngineIndex(f"{admin.replace('tester', 'guest')}#docs", ENCODER) as index:
        with pytest.raises(EngineError, match="CREATE EXTENSION vector") as caught:
            index.add(DOCUMENTS)
        require_sentence(caught.value)
        with psycopg.connect(admin) as connection:
            tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
            assert connection.execute(tables).fetchone() == (0,)
        execute(admin, "CREATE EXTENSION vector")
        index.add(DOCUMENTS)
        assert len(index) == COUNT


def test_a_url_with_settings_of_the_connection(postgres: str) -> None:
    with closing(PgVectorEngine(f"{postgres}?options=-c+search_path%3Dpublic&connect_timeout=3#x")) as engine:
        assert engine._run("SHOW search_path") == [("public",)]
        assert engine._connection.info.get_parameters()["connect_timeout"] == "3"


def test_something_elses_table_is_left_alone(postgres: str) -> None:
    execute(postgres, "CREATE TABLE mine (a int)")
    with closing(open_engine(f"{postgres}#mine")) as engine:
        for call in (engine.describe, engine.drop):
            with pytest.raises(EngineError, match="not made by muvera"):
                call()
    execute(postgres, "DROP TABLE mine")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("DROP TABLE filled", "has lost its documents"),
        ("UPDATE filled_encoder SET content = '{\"old\": 1}' WHERE part = 0", "filled by another version"),
        ("UPDATE filled_encoder SET content = '\\x00' WHERE part = 1", "checksum"),
    ],
)
def test_a_changed_collection_is_refused(
    postgres: str, filled: EngineIndex, change: str, message: str
) -> None:
    execute(postgres, change)
    with pytest.raises(ValueError, match=message) as caught, EngineIndex(f"{postgres}#filled") as index:
        index.search([np.ones((2, DIM), np.float32)])
    require_sentence(caught.value)


def test_qdrant_answers_with_few_points_at_a_time() -> None:
    """The tokens of 500 documents in one answer would exceed the time limit."""
    pytest.importorskip("qdrant_client", reason="qdrant-client is not installed")
    client = Mock(
        retrieve=lambda name, ids, **_: [Mock(payload={"id": id}, vector={"tokens": [[id]]}) for id in ids]
    )
    client.retrieve = Mock(side_effect=client.retrieve)
    found = dict(QdrantEngine("qdrant://memory#docs", client)._read(list(range(150)), "tokens", 0))
    assert found == {id: [[id]] for id in range(150)}
    assert [len(call.args[1]) for call in client.retrieve.call_args_list] == [64, 64, 22]


def test_a_batch_that_fails_is_not_half_written(filled: EngineIndex) -> None:
    with pytest.raises(EngineError, match="has a NUL, which PostgreSQL cannot store"):
        filled.add(DOCUMENTS.with_ids([*(f"new {i}" for i in range(39)), "a \0 b"]))
    with pytest.raises(EngineError, match="'text 0' has a NUL"):
        filled.update(DOCUMENTS[:1], texts=["a\0b"])
    assert len(filled) == COUNT and filled.documents(["a \0 b"], missing="ignore") == []
    filled.update(DOCUMENTS[:1], texts=["a backslash: \\u0000"])
    assert filled.documents(["text 0"])[0].text == "a backslash: \\u0000"


@pytest.mark.parametrize("kind", ["lancedb", "qdrant-edge"])
def test_a_collection_that_does_not_exist_leaves_no_folder(kind: str, tmp_path: Path) -> None:
    pytest.importorskip(kind.replace("-", "_"), reason=f"{kind} is not installed")
    with EngineIndex(f"{kind}:{tmp_path}/new#docs") as index:
        for call in (lambda: index.search([np.ones((2, DIM))]), lambda: index.encoder):
            with pytest.raises(EngineError, match="docs does not exist"):
                call()
        index.drop()
    assert not any(tmp_path.iterdir())


def test_a_folder_that_is_open_is_not_opened_again(tmp_path: Path) -> None:
    pytest.importorskip("qdrant_edge", reason="qdrant-edge is not installed")
    url = f"qdrant-edge:{tmp_path}#docs"
    with EngineIndex(url, ENCODER) as index:
        index.add(DOCUMENTS)
        with pytest.raises(EngineError, match="is open in another process or by another object"):
            EngineIndex(url)
    with EngineIndex(url) as index:
        assert len(index) == COUNT


def test_long_vectors_are_refused_before_anything_is_created(postgres: str) -> None:
    with EngineIndex(f"{postgres}#long", FDEConfig.preset("simhash", DIM)) as index:
        with pytest.raises(ValueError, match="4000"):
            index.add(DOCUMENTS)
        assert index.engine.describe() is None


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("qdrant-edge:", "FOLDER"),
        ("milvus:folder", "FILE.db"),
        ("postgresql://host:99999/x", "valid host and port"),
        ("postgresql://user:wr0ng/word@host/x", "%2F"),  # the port would be a part of the password
    ],
)
def test_wrong_urls(url: str, message: str) -> None:
    with pytest.raises(EngineError, match=message) as caught:
        open_engine(url)
    require_sentence(caught.value)


@pytest.mark.parametrize(
    "content",
    [b"x", b"[1]\n", b'{"a.npy": "b"}\n', b'{"a.npy": 1e30}\n', b'{"../../a.npy": 1}\nx', b"[" * 100_000],
)
def test_a_hostile_encoder_in_a_database_is_one_sentence(content: bytes) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=r"\.$") as caught:
        _from_bytes(content, hashlib.sha256(content).hexdigest(), "postgresql://x")
    assert "\n" not in str(caught.value)
