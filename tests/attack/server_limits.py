"""Send many kinds of requests to a server; measure its memory, and the time of /health for another client.

A script: ``server_limits.py [SHAPE...]`` prints for each shape the status, the longest wait in milliseconds, and by how
many MB the server's peak of memory grew.
"""

import http.client
import json
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from builders.text_encoders import HashEncoder

from muvera import FDEConfig, TextIndex
from muvera.serve import ServerSettings
from muvera.serve.run import serve

TOKEN = {"Authorization": "Bearer secret"}
MB = 1 << 20
CONFIG = FDEConfig(dimension=8, num_repetitions=2, num_simhash_projections=2, projection_dimension=8)


def search(**body: Any) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()


#: Requests by name: method, path, body, and True to send the token.
SHAPES: dict[str, tuple[str, str, Callable[[], bytes], bool]] = {
    "one long query": ("POST", "/search", lambda: search(query="ab " * 333_000), False),
    "64 long queries": ("POST", "/search", lambda: search(queries=["ab " * 5_000] * 64), False),
    "10,000 hits": ("POST", "/search", lambda: search(queries=["word1 word2"] * 10, k=1000), False),
    "10,000 hits, words": (
        "POST", "/search", lambda: search(queries=["word1 word2"] * 10, k=1000, words=0.5), False),
    "1,000 sentences": ("POST", "/search", lambda: search(query="word1", k=1000, unit="sentence"), False),
    "1,000 explanations": (
        "POST", "/explain", lambda: search(query="word1 word2", ids=list(range(1000))), False),
    "64 long explanations": (
        "POST", "/explain", lambda: search(query="word1 " * 260, ids=list(range(64))), False),
    "1 explanation of a long query": (
        "POST", "/explain", lambda: search(query="word1 " * 16_000, ids=[1]), False),
    "vectors": (
        "POST", "/search", lambda: search(vectors=[[[1.25] * 8] * 120] * 64, k=100), False),
    "300,000 numbers": ("POST", "/search", lambda: b'{"vectors":[[[' + b",".join([b"1"] * 299_000) + b"]]]}", False),
    "300,000 wrong numbers": (
        "POST", "/search", lambda: b'{"vectors":[[[' + b",".join([b"1"] * 298_999) + b',"x"]]]}', False),
    "300,000 lists": ("POST", "/search", lambda: b'{"vectors":[' + b",".join([b"[]"] * 149_000) + b"]}", False),
    "deep": ("POST", "/search", lambda: b'{"where":' + b"[" * 290_000, False),
    "a condition of 100,000 values": (
        "POST", "/search", lambda: search(query="x", where={"n": {"$in": list(range(130_000))}}), False),
    "a condition of 20,000 parts": (
        "POST", "/search", lambda: search(query="x", where={"$or": [{"n": i} for i in range(60_000)]}), False),
    "unknown fields": ("POST", "/search", lambda: search(**{f"f{i}": 1 for i in range(80_000)}), False),
    "16 MB without the token": ("POST", "/documents", lambda: bytes(16 * MB), False),
    "a string of 16 MB": ("POST", "/search", lambda: b'{"query":"' + b"a" * (16 * MB - 20) + b'"}', True),
    "escapes of 16 MB": ("POST", "/search", lambda: b'{"query":"' + b"\\u00e9" * (16 * MB // 6 - 10) + b'"}', True),
    "1,000 documents": (
        "POST", "/documents", lambda: search(texts=["word " + "- " * 7_500] * 1000), True),
    "16 documents of 1 MB": ("POST", "/documents", lambda: search(texts=["word " + "- " * 490_000] * 16), True),
    "answers of 16 documents of 1 MB": ("POST", "/search", lambda: search(queries=["word"] * 64, k=16), False),
    "metadata": (
        "POST", "/documents", lambda: search(texts=["x"] * 1000, metadata=[{str(i): i for i in range(140)}] * 1000),
        True),
    "a document of metadata": (
        "POST", "/documents", lambda: search(texts=["x"], metadata=[{"a": list(range(290_000))}]), True),
    "a deletion of wrong ids": (
        "DELETE", "/documents", lambda: search(ids=["x"] * 290_000), True),
    "a save": ("POST", "/save", lambda: b"", True),
}  # fmt: skip


def peak(process: int) -> float:
    """Return the peak memory of a process in MB."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


class Watch:
    """A client that requests /health without pause."""

    def __init__(self, port: int) -> None:
        self.longest, self.running, self._port = 0.0, True, port
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def _ask(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        while self.running:
            begun = time.perf_counter()
            connection.request("GET", "/health")
            connection.getresponse().read()
            self.longest = max(self.longest, time.perf_counter() - begun)
            time.sleep(0.001)
        connection.close()

    def stop(self) -> float:
        """Return the longest wait in milliseconds."""
        self.running = False
        self._thread.join()
        return 1000 * self.longest


def send(port: int, name: str, body: bytes) -> tuple[int, int]:
    """Send a request; return the status and the bytes of the answer."""
    method, path, _, trusted = SHAPES[name]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    headers = {"Content-Type": "application/json", **(TOKEN if trusted else {})}
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, len(answer.read())
    except OSError:  # a refusal before the body was sent
        return 0, 0
    finally:
        connection.close()


def start(folder: Path, port: int, documents: int = 3000) -> int:
    """Start a server in a child process."""
    child = os.fork()
    if child == 0:
        try:
            texts = [f"word{i % 50} word{i % 7}. " + "- " * 1000 for i in range(documents)]
            metadata = [{"n": i} for i in range(documents)]
            TextIndex.build(
                texts,
                HashEncoder(8),
                vectors=CONFIG,
                path=folder,
                metadata=metadata,
                threads=1,
                exact_tokens=0,
            )
            index = TextIndex.open(folder, HashEncoder(8), save_seconds=10**6, save_changes=10**9)
            serve(index, ServerSettings(writable=True, token="secret"), port=port)
        finally:
            os._exit(0)
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return child
        except OSError:
            time.sleep(0.01)


def measure(names: list[str], documents: int = 3000) -> dict[str, tuple[int, float, float]]:
    """Return status, longest wait and growth of memory for each shape."""
    answers: dict[str, tuple[int, float, float]] = {}
    with tempfile.TemporaryDirectory() as parent:
        for name in names:
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = free.getsockname()[1]
            child = start(Path(parent, str(len(answers))), port, documents)
            warm = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
            for _ in range(2):
                warm.request(
                    "POST", "/search", search(query="word1", k=3), {"Content-Type": "application/json"}
                )
                warm.getresponse().read()
            if name.startswith("answers"):
                send(port, "16 documents of 1 MB", SHAPES["16 documents of 1 MB"][2]())
            Path(f"/proc/{child}/clear_refs").write_text("5")  # the peak begins here
            body, before, watch = SHAPES[name][2](), peak(child), Watch(port)
            status, _ = send(port, name, body)
            time.sleep(0.05)
            answers[name] = status, watch.stop(), peak(child) - before
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            print(f"{name}: {status}, {answers[name][1]:.0f} ms, {answers[name][2]:.0f} MB", flush=True)
    return answers


if __name__ == "__main__":
    measure(sys.argv[1:] or list(SHAPES))
