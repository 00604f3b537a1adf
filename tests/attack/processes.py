"""Processes of the attacks: new processes, forks, kills, and servers in forks."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from builders.paths import environment

from muvera import FDEConfig, TextIndex
from muvera.serve import ServerSettings, serve

#: Encoder of tiny indexes.
CONFIG = FDEConfig.preset("simhash", 8, num_repetitions=2, num_simhash_projections=2, projection_dimension=8)

HEADERS = {"Authorization": "Bearer secret", "Content-Type": "application/json"}

_CALL = """
import importlib, json, sys
module, name, *arguments = json.loads(sys.argv[1])
print(json.dumps(getattr(importlib.import_module(f"attack.{module}"), name)(*arguments)))
"""


def run_alone(module: str, name: str, *arguments: object, **variables: str) -> Any:
    """Call a function of this package in a new process; return its result.

    Forks need a process without threads.
    """
    command = [sys.executable, "-c", _CALL, json.dumps([module, name, *arguments], default=str)]
    ended = subprocess.run(command, env=environment(**variables), capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


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


def kill(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def start_server(index: Callable[[], TextIndex]) -> tuple[int, int]:
    """Serve an index in a child process.

    Return its number and port once it accepts connections.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    child = forked(lambda: serve(index(), ServerSettings(writable=True, token="secret"), port=port))
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return child, port
        except OSError:
            time.sleep(0.005)
