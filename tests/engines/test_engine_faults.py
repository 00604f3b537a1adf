"""What stands in an engine's way is said in one sentence, and nothing is half written."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from builders.postgres import PASSWORD
from builders.realistic_collections import CONFIG, DIM, documents_like_real

from muvera import FDEConfig, FDEEncoder
from muvera.engines import EngineError, EngineIndex, open_engine
from muvera.engines.base import encoder_parts
from muvera.engines.engine_index import _from_bytes, _hash, _to_bytes

DOCUMENTS = documents_like_real(40, ids=[f"text {i}" for i in range(40)], dtype=np.float16)
ENCODER = FDEEncoder(CONFIG).fit(DOCUMENTS)


def filled(engine: Any) -> EngineIndex:
    index = EngineIndex(engine, encoder=ENCODER)
    index.add(DOCUMENTS)
    return index


def refused(url: str) -> str:
    with pytest.raises(EngineError) as caught:
        open_engine(url).describe()
    message = str(caught.value)
    assert PASSWORD not in message and "wr0ng" not in message and "\n" not in message
    return message


def test_servers_that_cannot_be_reached(postgres: str) -> None:
    assert "password authentication failed" in refused(postgres.replace(PASSWORD, "wr0ng") + "#x")
    host, _, _ = postgres.rpartition(":")
    assert "cannot be reached" in refused(f"{host}:9/postgres#x")
    assert "cannot be reached" in refused(f"{postgres}?sslmode=require#x")
    pytest.importorskip("qdrant_client", reason="qdrant-client is not installed")
    with pytest.warns(UserWarning, match="insecure"):
        assert "cannot be read" in refused(f"qdrant://:{PASSWORD}@127.0.0.1:9#x")


@pytest.fixture
def without_extension(postgres: str) -> Iterator[tuple[str, str]]:
    """URLs of a database without pgvector: of a user who may make tables alone, and of its administrator."""
    import psycopg

    server = postgres.rpartition("/")[0]
    admin = f"{server}/plain"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("CREATE DATABASE plain")
        connection.execute(f"CREATE USER guest PASSWORD '{PASSWORD}'")
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute("GRANT CREATE ON SCHEMA public TO guest")
    yield f"{admin.replace('tester', 'guest')}", admin
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("DROP DATABASE plain WITH (FORCE)")
        connection.execute("DROP USER guest")


def test_a_database_without_the_extension(without_extension: tuple[str, str]) -> None:
    import psycopg

    url, admin = without_extension
    with EngineIndex(f"{url}#docs", encoder=ENCODER) as index:
        with pytest.raises(EngineError) as caught:
            index.add(DOCUMENTS)
        message = str(caught.value)
        assert (
            'has no extension vector, and it cannot be made: permission denied to create extension "vector"'
            in message
        )
        assert message.endswith("or let its administrator run CREATE EXTENSION vector.")
        assert PASSWORD not in message and "\n" not in message
        with psycopg.connect(admin, autocommit=True) as connection:
            tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
            assert connection.execute(tables).fetchone() == (0,), "nothing is half written"
            connection.execute("CREATE EXTENSION vector")
        index.add(DOCUMENTS)  # the administrator's extension is enough
        assert len(index) == int((DOCUMENTS.lengths > 0).sum())


def test_a_server_without_pgvector(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another extension's name stands for pgvector, which this server has."""
    import psycopg

    execute: Any = psycopg.Cursor.execute

    def renamed(cursor: Any, query: Any, *values: Any, **options: Any) -> Any:
        if query == "CREATE EXTENSION IF NOT EXISTS vector":
            query = "CREATE EXTENSION IF NOT EXISTS not_installed"
        return execute(cursor, query, *values, **options)

    with EngineIndex(f"{postgres}#nowhere", encoder=ENCODER) as index:
        monkeypatch.setattr(psycopg.Cursor, "execute", renamed)
        message = r"cannot be made: .*not_installed.*\. Install pgvector on the server \(Debian: "
        with pytest.raises(EngineError, match=message) as caught:
            index.add(DOCUMENTS)
        assert PASSWORD not in str(caught.value) and "\n" not in str(caught.value)
        assert index.engine.describe() is None


def test_tables_of_something_else_are_left_alone(postgres: str) -> None:
    import psycopg

    engine: Any = open_engine(f"{postgres}#mine")
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("CREATE TABLE mine (a int)")
        with pytest.raises(EngineError, match=r"is a table of something else\. Give another name"):
            engine.describe()
        connection.execute("DROP TABLE mine")
    engine.close()


def test_a_changed_table_is_noticed(postgres: str) -> None:
    import psycopg

    index = filled(f"{postgres}#changed")
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("ALTER TABLE changed DROP COLUMN terms")
        with pytest.raises(EngineError, match="has no column 'terms': its table was changed"):
            EngineIndex(f"{postgres}#changed")
        with pytest.raises(EngineError, match="did not take documents"):
            index.add(DOCUMENTS)
        connection.execute("ALTER TABLE changed ADD COLUMN terms jsonb NOT NULL DEFAULT '[]'")
        connection.execute("DROP INDEX changed_graph")
        connection.execute("ALTER TABLE changed ALTER embedding TYPE vector")
        with pytest.raises(EngineError, match=r"has vector in its column 'embedding', not halfvec\(\d+\)"):
            EngineIndex(f"{postgres}#changed")
    index.drop()
    index.close()


def test_a_batch_that_fails_is_not_half_written(postgres: str) -> None:
    with filled(f"{postgres}#whole") as index:
        names = [f"new {i}" for i in range(39)] + ["a \0 b"]
        with pytest.raises(EngineError, match="has a NUL"):
            index.add(DOCUMENTS.with_ids(names))
        assert len(index) == int((DOCUMENTS.lengths > 0).sum())
        index.drop()


def test_vectors_that_an_engine_does_not_take_are_refused_before(postgres: str) -> None:
    with EngineIndex(f"{postgres}#long", FDEConfig(dimension=DIM)) as index:
        message = r"takes at most 4000 dimensions in half precision.*Presets that fit: learned"
        with pytest.raises(ValueError, match=message):
            index.add(DOCUMENTS)
        assert index.engine.describe() is None


def test_a_changed_encoder_is_refused(postgres: str) -> None:
    import psycopg

    filled(f"{postgres}#tampered").close()
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("UPDATE tampered_encoder SET content = '\\x00' WHERE part = 1")
    with EngineIndex(f"{postgres}#tampered") as index:
        with pytest.raises(ValueError, match=r"it was changed or is incomplete\. Load the documents"):
            index.search([np.ones((2, DIM), np.float32)])
        index.drop()


def test_an_encoder_has_the_same_bytes_again() -> None:
    content = encoder_to_bytes(ENCODER)
    assert content == encoder_to_bytes(ENCODER) and b"".join(parts_of(content)) == content
    again = encoder_from_bytes(content, encoder_hash(content), "here")
    np.testing.assert_array_equal(again.encode_documents(DOCUMENTS), ENCODER.encode_documents(DOCUMENTS))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://host/x", "begins with one of postgresql:"),
        ("lancedb:#x", "names no folder"),
        ("qdrant-edge:", "names no folder"),
        ("milvus:folder", r"a file that ends in \.db"),
        ("lancedb:x#a-b", "'a-b' is no name of a collection"),
        ("postgresql://host:99999/x", "URL of the engine is wrong: Port out of range"),
    ],
)
def test_wrong_urls(url: str, message: str) -> None:
    with pytest.raises((ValueError, ImportError), match=rf"{message}|which does not import here"):
        open_engine(url)
