"""The load test: findings in sentences, and a writer that notices what gets lost."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest
from builders.text_encoders import HashEncoder

from experiments.bench.load_test import LoadFindings
from experiments.bench.load_writer import TOKEN, Writer
from muvera import TextIndex


class Server(BaseHTTPRequestHandler):
    """Acknowledges everything and keeps nothing."""

    status: ClassVar[int] = 200
    seen: ClassVar[list[tuple[str, str | None]]] = []

    def _answer(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.append((self.command, self.headers["Authorization"]))
        self.send_response(self.status)
        self.end_headers()

    do_POST = do_PUT = do_DELETE = _answer  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    Server.status = 200
    Server.seen.clear()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def write(address: str, requests: int) -> Writer:
    writer = Writer(address, ["a red apple", "the sky"], per_second=1000)
    writer.start()
    while writer.requests < requests:
        pass
    writer.stop()
    return writer


def test_what_was_acknowledged_and_is_not_there_is_lost(address: str) -> None:
    writer = write(address, 30)
    assert writer.failed == 0
    assert {method for method, _ in Server.seen} == {"POST", "PUT", "DELETE"}
    assert {token for _, token in Server.seen} == {f"Bearer {TOKEN}"}
    live = {name: text for name, text in writer._expected.items() if text is not None}
    kept = TextIndex.build(list(live.values()), HashEncoder(), ids=list(live))
    assert writer.lost(kept) == 0
    first, second = list(live)[:2]
    kept.delete([first])
    kept.update(["another text"], ids=[second])
    assert writer.lost(kept) == 2


def test_a_refused_write_fails_and_is_not_counted_as_lost(address: str) -> None:
    Server.status = 500
    writer = write(address, 3)
    assert writer.failed == writer.requests
    assert writer.lost(TextIndex.build([], HashEncoder())) == 0


def test_findings_are_sentences() -> None:
    found = LoadFindings(64, 2, 60.0, 6000, 0, 10.0, 20.0, 30.0, 100.0, 125.0, 300, 0, 1)
    assert found.text.splitlines() == [
        "64 connections for 60 s: 6,000 searches, 0 errors",
        "latency: p50 10.0 ms, p95 20.0 ms, p99 30.0 ms",
        "100 requests a second, 80% of the library alone in 2 threads (125 searches a second)",
        "300 writes beside: 0 failed, 1 lost",
    ]
    assert found.to_dict()["p95"] == 20.0
