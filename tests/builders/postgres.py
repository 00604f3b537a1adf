"""A PostgreSQL server with pgvector in a temporary folder, on 127.0.0.1, as an unprivileged user."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PASSWORD = "s3cret-of-the-tests"

#: User that runs the server if the tests run as root, because PostgreSQL refuses root.
USER = "postgres"


def binaries() -> Path | None:
    """Return the folder of the newest installed PostgreSQL with pgvector, or None."""
    found = [
        folder
        for folder in Path("/usr/lib/postgresql").glob("*/bin")
        if (folder / "initdb").exists()
        and Path(f"/usr/share/postgresql/{folder.parent.name}/extension/vector.control").exists()
    ]
    return max(found, key=lambda folder: int(folder.parent.name), default=None)


@contextmanager
def running_server() -> Iterator[str]:
    """Start a server, and yield the URL of its database, with the password."""
    programs = binaries()
    assert programs is not None
    root = Path(tempfile.mkdtemp(prefix="muvera-postgres-"))
    as_user: list[str] = []
    if os.geteuid() == 0:
        shutil.chown(root, USER, USER)
        as_user = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]

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
