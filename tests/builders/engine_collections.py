"""Fixtures that open collections in every engine that is installed."""

import importlib.util
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from builders.postgres import binaries, running_server

#: The package of each engine.
NEEDS = {
    "lancedb": "lancedb",
    "qdrant-edge": "qdrant_edge",
    "qdrant": "qdrant_client",
    "pgvector": "psycopg",
    "milvus": "milvus_lite",
}


def missing(kind: str) -> str | None:
    """Return why an engine cannot be tested here, or None."""
    if importlib.util.find_spec(NEEDS[kind]) is None:
        return f"{NEEDS[kind]} is not installed"
    if kind == "pgvector" and binaries() is None:
        return "PostgreSQL with pgvector is not installed (Debian: postgresql-17-pgvector)"
    return None


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """URL of a server's database."""
    if (reason := missing("pgvector")) is not None:
        pytest.skip(reason)
    with running_server() as url:
        yield url


class Collections:
    """Opens collections of one engine by name, and closes and drops them at the end."""

    def __init__(self, kind: str, url: str) -> None:
        self.kind, self._url = kind, url
        self._client: Any = None
        self.opened: dict[str, list[Any]] = {}

    def __call__(self, name: str) -> Any:
        from muvera.engines import open_engine

        opened = self.opened.setdefault(name, [])
        if self.kind == "qdrant":  # the client's local mode, which reads all vectors
            from qdrant_client import QdrantClient

            from muvera.engines.qdrant import QdrantEngine

            self._client = self._client or QdrantClient(":memory:")
            engine: Any = QdrantEngine(f"qdrant://memory#{name}", self._client)
        else:
            if self.kind == "qdrant-edge" and opened:
                opened[-1].close()  # one process may open a folder only once
            engine = open_engine(f"{self._url}#{name}")
        opened.append(engine)
        return engine

    def close(self) -> None:
        for name, opened in self.opened.items():
            if self.kind == "pgvector":
                self(name).drop()
            for engine in opened:
                engine._close()  # also of an engine that a test closed without its connection


@pytest.fixture(scope="module", params=list(NEEDS))
def collections(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Collections of one engine, for all tests of a module."""
    kind = str(request.param)
    if (reason := missing(kind)) is not None:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp(kind)
    url = f"milvus:{folder}/lite.db" if kind == "milvus" else f"{kind}:{folder}"
    opener = Collections(kind, request.getfixturevalue("postgres") if kind == "pgvector" else url)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the local mode warns that it has no indexes
        yield opener
        opener.close()
    opener.opened.clear()  # a connection that a test left open fails this module, not a later test
