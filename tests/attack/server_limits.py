"""Send many kinds of requests to a server.

Measure its memory, and how long another client waits for /health.
"""

import http.client
import json
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from builders.text_encoders import HashEncoder

from attack.processes import CONFIG, HEADERS, kill, start_server
from muvera import TextIndex

MB = 1 << 20


def body(**fields: Any) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode()


#: Requests by name: method and path, and body.  "*" marks requests with the token.
SHAPES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "one long query": ("POST /search", lambda: body(query="ab " * 333_000)),
    "64 long queries": ("POST /search", lambda: body(queries=["ab " * 5_000] * 64)),
    "10,000 hits": ("POST /search", lambda: body(queries=["word1 word2"] * 10, k=1000)),
    "10,000 hits, words": ("POST /search", lambda: body(queries=["word1 word2"] * 10, k=1000, words=0.5)),
    "1,000 sentences": ("POST /search", lambda: body(query="word1", k=1000, unit="sentence")),
    "1,000 explanations": ("POST /explain", lambda: body(query="word1 word2", ids=list(range(1000)))),
    "64 long explanations": ("POST /explain", lambda: body(query="word1 " * 260, ids=list(range(64)))),
    "1 explanation of a long query": ("POST /explain", lambda: body(query="word1 " * 16_000, ids=[1])),
    "vectors": ("POST /search", lambda: body(vectors=[[[1.25] * 8] * 120] * 64, k=100)),
    "300,000 numbers": ("POST /search", lambda: body(vectors=[[[1] * 299_000]])),
    "300,000 wrong numbers": ("POST /search", lambda: body(vectors=[[[*[1] * 298_999, "x"]]])),
    "300,000 lists": ("POST /search", lambda: body(vectors=[[]] * 149_000)),
    "deep": ("POST /search", lambda: b'{"where":' + b"[" * 290_000),
    "a condition of 100,000 values": (
        "POST /search", lambda: body(query="x", where={"n": {"$in": list(range(130_000))}})),
    "a condition of 20,000 parts": (
        "POST /search", lambda: body(query="x", where={"$or": [{"n": i} for i in range(60_000)]})),
    "unknown fields": ("POST /search", lambda: body(**{f"f{i}": 1 for i in range(80_000)})),
    "16 MB without the token": ("POST /documents", lambda: bytes(16 * MB)),
    "a string of 16 MB": ("POST /search*", lambda: body(query="a" * (16 * MB - 20))),
    "escapes of 16 MB": ("POST /search*", lambda: body(query="é" * (16 * MB // 6 - 10))),
    "1,000 documents": ("POST /documents*", lambda: body(texts=["word " + "- " * 7_500] * 1000)),
    "16 documents of 1 MB": ("POST /documents*", lambda: body(texts=["word " + "- " * 490_000] * 16)),
    "answers of 16 documents of 1 MB": ("POST /search", lambda: body(queries=["word"] * 64, k=16)),
    "metadata": (
        "POST /documents*",
        lambda: body(texts=["x"] * 1000, metadata=[{str(i): i for i in range(140)}] * 1000)),
    "12 MB of keys": (
        "POST /documents*", lambda: body(texts=["x"], metadata=[{f"{i:0200}": 1 for i in range(59_000)}])),
    "too many keys": (
        "POST /documents*", lambda: body(texts=["x"], metadata=[{f"{i:040}": 1 for i in range(270_000)}])),
    "410 KB of lists": ("POST /search", lambda: body(vectors=[[]] * 136_000)),
    "as many lists as allowed": ("POST /search", lambda: body(vectors=[[]] * 27_000)),
    "a document of metadata": (
        "POST /documents*", lambda: body(texts=["x"], metadata=[{"a": list(range(290_000))}])),
    "a deletion of wrong ids": ("DELETE /documents*", lambda: body(ids=["x"] * 290_000)),
    "a save": ("POST /save*", lambda: b""),
}  # fmt: skip


def build(folder: Path) -> TextIndex:
    texts = [f"word{i % 50} word{i % 7}. " + "- " * 1000 for i in range(1100)]
    settings: Any = {"vectors": CONFIG, "metadata": [{"n": i} for i in range(1100)], "exact_tokens": 0}
    TextIndex.build(texts, HashEncoder(8), path=folder, threads=1, **settings)
    return TextIndex.open(folder, HashEncoder(8), save_seconds=10**6, save_changes=10**9)


def send(port: int, address: str, content: bytes) -> int:
    """Send a request and return the status.

    0 if the server refused it before the body was sent.
    """
    method, path = address.removesuffix("*").split()
    headers = HEADERS if address.endswith("*") else {"Content-Type": "application/json"}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.request(method, path, content, headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    except OSError:
        return 0
    finally:
        connection.close()


def longest_wait(port: int, ended: threading.Event, waits: list[float]) -> None:
    """Request /health without pause until the event."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    while not ended.is_set():
        begun = time.perf_counter()
        connection.request("GET", "/health")
        connection.getresponse().read()
        waits.append(1000 * (time.perf_counter() - begun))
        time.sleep(0.001)
    connection.close()


def peak(child: int) -> float:
    """Return the most memory that a process had so far, in MB."""
    return int(Path(f"/proc/{child}/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024


def measure(name: str) -> tuple[int, float, float]:
    """Send a request to a new server.

    Return its status, another client's longest wait in ms, and MB of peak memory.
    """
    with tempfile.TemporaryDirectory() as parent:
        child, port = start_server(lambda: build(Path(parent, "index")))
        for _ in range(2):
            send(port, "POST /search", body(query="word1", k=3))
        if name.startswith("answers"):
            send(port, "POST /documents*", SHAPES["16 documents of 1 MB"][1]())
        address, content = SHAPES[name][0], SHAPES[name][1]()

        Path(f"/proc/{child}/clear_refs").write_text("5")  # the peak begins here
        before, ended, waits = peak(child), threading.Event(), list[float]()
        watch = threading.Thread(target=longest_wait, args=(port, ended, waits))
        watch.start()
        status = send(port, address, content)
        time.sleep(0.05)
        ended.set()
        watch.join()
        memory = peak(child) - before
        kill(child)
    return status, max(waits), memory


#: Beginnings of requests whose rest never comes.
_HALVES = (b"", b"GET /hea", b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{")


def answer_of(port: int, path: str = "/health") -> int:
    """Return the status of a request on a new connection; 0 if there is no answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def crowd(count: int, rounds: int) -> tuple[int, int, float]:
    """Open `count` connections at once that never finish a request, `rounds` times.

    Return how many requests of another client were answered, how many were not, and its
    longest wait in ms.
    """
    with tempfile.TemporaryDirectory() as parent:
        child, port = start_server(lambda: build(Path(parent, "index")))
        answer_of(port)  # compiles, which can take longer than the crowd stays
        ended, answers, waits = threading.Event(), list[int](), list[float]()

        def ask() -> None:
            while not ended.is_set():
                begun = time.perf_counter()
                answers.append(answer_of(port))
                waits.append(1000 * (time.perf_counter() - begun))

        watch = threading.Thread(target=ask)
        watch.start()
        for _ in range(rounds):
            hostile = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(count)]
            for number, connection in enumerate(hostile):
                with suppress(OSError):  # it was cut off
                    connection.sendall(_HALVES[number % len(_HALVES)])
            time.sleep(0.5)
            for connection in hostile:
                connection.close()
        ended.set()
        watch.join()
        kill(child)
    return answers.count(200), len(answers) - answers.count(200), max(waits)


def slow_readers(count: int) -> tuple[int, float]:
    """Request answers of 10 MB with `count` clients that never read them.

    Return the status of another client's search meanwhile, and the MB by which they
    raise the peak of memory.  The first search compiles, and the ninth one, which makes
    lists of the texts of each row; both take memory, too.
    """
    with tempfile.TemporaryDirectory() as parent:
        child, port = start_server(lambda: build(Path(parent, "index")))
        for _ in range(10):
            send(port, "POST /search", body(query="word1", k=3))
        send(port, "POST /documents*", SHAPES["16 documents of 1 MB"][1]())
        content = body(query="word -", k=10)
        send(port, "POST /search", content)
        before = peak(child)
        head = f"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n"
        head += "Content-Type: application/json\r\n\r\n"
        clients = []
        for _ in range(count):
            client = socket.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", port))
            client.sendall(head.encode() + content)
            clients.append(client)
        for client in clients:  # until the answer begins
            client.settimeout(120)
            with suppress(OSError):
                client.recv(1)
        status = send(port, "POST /search", content)
        memory = peak(child) - before
        for client in clients:
            client.close()
        kill(child)
    return status, memory
