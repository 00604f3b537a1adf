"""``muvera serve --writable`` as a process: signals, the exit status, and a second writer."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from builders.paths import ROOT
from builders.text_encoders import HashEncoder

from muvera import TextIndex

pytest.importorskip("uvicorn", reason="the serve extra is not installed")
pytest.importorskip("fastapi", reason="the serve extra is not installed")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends signals")

# The command line with another encoder, and with saves that fail on request.
PROGRAM = """
import sys
from builders.text_encoders import HashEncoder
from muvera.cli.app import main
from muvera.texts.database import DocumentDatabase
from muvera.texts.encoders import registry

def fail(*_):
    raise OSError("The disk is full.")

registry.load_text_encoder = lambda name: HashEncoder(8, name)
if sys.argv.pop() == "fail":
    DocumentDatabase.save = fail
main()
"""


def started(folder: Path, port: int, saves: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", PROGRAM, "serve", str(folder), "--encoder", "words", "--writable"]
    variables = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "MUVERA_TOKEN": "x" * 20}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [*command, "--port", str(port), saves], env=variables, stdout=pipe, stderr=pipe, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # nohup ignores it
    )  # fmt: skip


@pytest.mark.parametrize(
    ("number", "saves", "status"),
    [(signal.SIGTERM, "fail", 1), (signal.SIGHUP, "save", 0), (signal.SIGKILL, "save", -9)],
)
def test_signals(tmp_path: Path, number: signal.Signals, saves: str, status: int) -> None:
    folder, encoder = tmp_path / "index", HashEncoder(8, "words")
    TextIndex.build(["one"], encoder, path=folder)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = started(folder, port, saves)
    assert server.stdout is not None and "1 document at" in server.stdout.readline()
    headers = {"Authorization": f"Bearer {'x' * 20}", "Content-Type": "application/json"}
    request = Request(f"http://127.0.0.1:{port}/documents", json.dumps({"texts": ["two"]}).encode(), headers)
    with urlopen(request, timeout=60) as answer:
        assert json.load(answer) == {"ids": [1]}
    if number == signal.SIGHUP:
        second = started(folder, port + 1, saves)
        error = second.communicate(timeout=60)[1]
        assert (
            second.returncode == 2
            and "Another process or an open TextIndex is writing" in error
            and error.count("\n") == 1
        )
    server.send_signal(number)
    error = server.communicate(timeout=60)[1]
    assert server.returncode == status, error
    assert ("journal keeps all changes" in error) == (saves == "fail") and "Traceback" not in error
    assert len(list(folder.glob("journal-*"))) == (status != 0)
    assert [document.text for document in TextIndex.load(folder, encoder)] == ["one", "two"]
