"""Processes of the attacks: scripts of this folder, forks, and servers in forks."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from builders.paths import ROOT

from muvera import TextIndex
from muvera.serve import ServerSettings
from muvera.serve.run import serve

TOKEN = "secret"
HEADERS = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}


def environment(**variables: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", **variables}


def run_script(name: str, *arguments: object, **variables: str) -> str:
    """Run a script of this folder in a new process, because forks need one without threads; return what it prints."""
    command = [sys.executable, str(Path(__file__).with_name(name)), *map(str, arguments)]
    ended = subprocess.run(command, env=environment(**variables), capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def forked(work: Callable[[], object]) -> int:
    """Call `work` in a child process and return its number."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
            os._exit(1)
        os._exit(0)
    return child


def start_server(index: Callable[[], TextIndex]) -> tuple[int, int]:
    """Serve an index in a child process; return its number and port once it accepts connections."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = ServerSettings(writable=True, token=TOKEN)
    child = forked(lambda: serve(index(), settings, port=port))
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return child, port
        except OSError:
            time.sleep(0.005)
