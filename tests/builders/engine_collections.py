"""Engines that are here, each with a way to open collections of its own."""

import importlib.util
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from builders.postgres import binaries, running_server

#: What each engine needs here, and the reason to skip it.
NEEDS = {
    "lancedb": "lancedb",
    "qdrant-edge": "qdrant_edge",
    "qdrant": "qdrant_client",
    "pgvector": "psycopg",
    "milvus": "milvus_lite",
}

#: Opens a collection of this name, again and again the same.
Open = Callable[[str], Any]


def missing(kind: str) -> str | None:
    """Why an engine cannot be tested here; None where it can."""
    if importlib.util.find_spec(NEEDS[kind]) is None:
        return f"{NEEDS[kind]} is not installed"
    if kind == "pgvector" and binaries() is None:
        return "PostgreSQL with pgvector is not installed (Debian: postgresql-17-pgvector)"
    return None


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Name the engines that were tested, and why others were not."""
    ran = any(
        report.nodeid.startswith("tests/engines/") for report in terminalreporter.stats.get("passed", [])
    )
    found = [f"{kind} ({reason})" if (reason := missing(kind)) else kind for kind in NEEDS]
    if ran:
        terminalreporter.write_line(f"Engines: {', '.join(found)}.")


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """URL of a server's database."""
    if (reason := missing("pgvector")) is not None:
        pytest.skip(reason)
    with running_server() as url:
        yield url


@pytest.fixture(params=list(NEEDS))
def kind(request: pytest.FixtureRequest) -> str:
    """Name of an engine that is here."""
    if (reason := missing(request.param)) is not None:
        pytest.skip(reason)
    return str(request.param)


@pytest.fixture
def url(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """Where collections of a test are, without a name."""
    if kind == "pgvector":
        return str(request.getfixturevalue("postgres"))
    return f"milvus:{tmp_path}/lite.db" if kind == "milvus" else f"{kind}:{tmp_path}"


@pytest.fixture
def open_collection(kind: str, url: str) -> Iterator[Open]:
    """Open a collection; what was opened is dropped and closed after the test."""
    from muvera.engines import Engine, open_engine

    opened: list[Engine] = []
    client: list[Any] = []

    def opens(name: str) -> Engine:
        if kind == "qdrant":
            # A server cannot be had here: the client's own imitation of one, which reads all vectors.
            from qdrant_client import QdrantClient

            from muvera.engines.qdrant import QdrantEngine

            client.extend([] if client else [QdrantClient(":memory:")])
            opened.append(QdrantEngine(client[0], name))
        else:
            for before in opened if kind == "qdrant-edge" else []:
                before.close()  # one opening at a time
            opened.append(open_engine(f"{url}#{name}"))
        return opened[-1]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the imitation: it has no indexes
        yield opens
        for engine in reversed(opened):
            engine.close()
    if kind == "pgvector":
        for engine in opened:
            again = open_engine(f"{url}#{engine.location.name}")
            again.drop()
            again.close()
