"""The server under load: many connections search while another client writes."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any
from urllib.request import Request, urlopen

import typer

from muvera import TextIndex
from muvera.data.demo_sample import load_demo_sample
from muvera.encoders.matmul import one_blas_thread

from .plumbing import AsJson

__all__ = ["TOKEN", "Writer", "load", "load_test", "sentences"]

#: Token of a server that runs only during a test.
TOKEN = "load-test"

# The library alone runs before and after the server, each for this share of the time.
_SHARE_ALONE = 0.25

_SCRIPT = """\
local bodies = {{{bodies}}}
local at = 0
request = function()
  at = at % #bodies + 1
  return wrk.format("POST", "/search", {{["Content-Type"] = "application/json"}}, bodies[at])
end
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('{{"requests": %d, "microseconds": %d, "p50": %d, "p95": %d, "p99": %d, "errors": %d}}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(95), latency:percentile(99),
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""


def load_test(
    seconds: float, connections: int, writes_per_second: float, threads: int, encoder: str, copies: int
) -> dict[str, Any]:
    """Serve the demo's texts `copies` times, search with wrk, write at the same time, and count what is lost.

    Milliseconds are of searches; ``library_per_second`` is the rate of the same searches without a server, and
    ``lost_writes`` counts acknowledged changes that the saved index does not have.
    """
    sample = load_demo_sample()
    texts = [f"{text} {i}" if i else text for i in range(copies) for text in sample.texts]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "index"
        index = TextIndex.build(texts, encoder, ids=[f"t{i}" for i in range(len(texts))], path=folder)
        before = _alone(index, sample.query_texts, threads, seconds * _SHARE_ALONE)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port: int = free.getsockname()[1]
        with _server(folder, port, threads, encoder):
            writer = Writer(f"http://127.0.0.1:{port}", texts, writes_per_second)
            writer.start()
            try:
                counts = _run_wrk(port, sample.query_texts, connections, seconds)
            finally:
                writer.stop()
        after = _alone(index, sample.query_texts, threads, seconds * _SHARE_ALONE)
        lost = writer.lost(TextIndex.load(folder, encoder))
    duration = counts["microseconds"] / 1e6
    return {
        "connections": connections,
        "threads": threads,
        "seconds": duration,
        "requests": counts["requests"],
        "errors": counts["errors"],
        **{name: counts[name] / 1000 for name in ("p50", "p95", "p99")},
        "requests_per_second": counts["requests"] / duration,
        "library_per_second": (before + after) / 2,
        "writes": writer.requests,
        "failed_writes": writer.failed,
        "lost_writes": lost,
    }


def sentences(found: dict[str, Any]) -> str:
    """Return a text of the results."""
    share = found["requests_per_second"] / found["library_per_second"]
    return (
        "{connections} connections for {seconds:.0f} s: {requests:,} searches, {errors} errors\n"
        "latency: p50 {p50:.1f} ms, p95 {p95:.1f} ms, p99 {p99:.1f} ms\n"
        "{requests_per_second:.0f} requests per second, {share:.0%} of the library alone in {threads} threads "
        "({library_per_second:.0f} searches per second)\n"
        "{writes:,} writes at the same time: {failed_writes} failed, {lost_writes} lost"
    ).format(**found, share=share)


def _run_wrk(port: int, queries: Sequence[str], connections: int, seconds: float) -> dict[str, int]:
    """Search with wrk, and return its counts and percentiles in microseconds."""
    bodies = ", ".join(f"[==[{json.dumps({'query': query, 'k': 10})}]==]" for query in queries)
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_SCRIPT.format(bodies=bodies))
        script.flush()
        address = f"http://127.0.0.1:{port}"
        command = ["wrk", "-t1", f"-c{connections}", f"-d{round(seconds)}s", "--timeout", "30s", "-s"]
        try:
            done = subprocess.run(
                [*command, script.name, address], capture_output=True, text=True, check=True
            )
        except FileNotFoundError:
            raise FileNotFoundError("wrk is not installed. Debian and Ubuntu: apt-get install wrk.") from None
    counts: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return counts


def _alone(index: TextIndex, queries: Sequence[str], threads: int, seconds: float) -> float:
    """Return the searches per second of the library in this process."""
    index.search(queries[0], 10, threads=1)
    start = time.perf_counter()

    def work(offset: int) -> int:
        count = 0
        while time.perf_counter() < start + seconds:
            index.search(queries[(offset + count) % len(queries)], 10, threads=1)
            count += 1
        return count

    with one_blas_thread(), ThreadPoolExecutor(threads) as pool:
        total = sum(pool.map(work, range(threads)))
    return total / (time.perf_counter() - start)


@contextmanager
def _server(folder: Path, port: int, threads: int, encoder: str) -> Iterator[None]:
    """Run ``muvera serve`` in its own process, and stop it gracefully."""
    command = [sys.executable, "-m", "muvera.cli", "serve", str(folder), "--writable"]
    command += ["--port", str(port), "--threads", str(threads), "--encoder", encoder]
    process = subprocess.Popen(command, env={**os.environ, "MUVERA_TOKEN": TOKEN}, stdout=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while True:
        try:
            with urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                break
        except OSError:
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError("The server did not start; its errors are above.") from None
            time.sleep(0.1)
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=120)


class Writer:
    """A client that alternately adds, replaces and deletes documents, and records acknowledged changes."""

    def __init__(self, address: str, texts: Sequence[str], per_second: float) -> None:
        self._address, self._texts, self._pause = address, texts, 1 / per_second
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self._choose = random.Random(0)
        # Acknowledged documents, None for deleted ones; and ids of failed requests.
        self.expected: dict[str, str | None] = {}
        self._uncertain: set[str] = set()
        self.requests = self.failed = 0

    def start(self) -> None:
        """Start to write in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop after the current request."""
        self._stopped.set()
        self._thread.join()

    def lost(self, index: TextIndex) -> int:
        """Return the number of acknowledged changes that are missing from a saved index."""
        names = [name for name in self.expected if name not in self._uncertain]
        stored = {document.id: document.text for document in index.get(names, missing="ignore")}
        return sum(stored.get(name) != self.expected[name] for name in names)

    def _work(self) -> None:
        due = time.monotonic()
        while not self._stopped.is_set():
            self._change()
            due += self._pause
            self._stopped.wait(max(0.0, due - time.monotonic()))

    def _change(self) -> None:
        number = self.requests
        live = [name for name, text in self.expected.items() if text is not None]
        method = ("POST", "PUT", "DELETE")[number % 3] if len(live) > 5 else "POST"
        text: str | None = f"{self._choose.choice(self._texts)} written {number}"
        name = f"w{number}" if method == "POST" else self._choose.choice(live)
        body: dict[str, Any] = {"ids": [name]}
        if method == "DELETE":
            text = None
        else:
            body |= {"texts": [text], "metadata": [{"number": number}]}
        self.requests += 1
        if self._send(method, body):
            self.expected[name] = text
        else:
            self.failed += 1
            self._uncertain.add(name)

    def _send(self, method: str, body: dict[str, Any]) -> bool:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"}
        request = Request(f"{self._address}/documents", json.dumps(body).encode(), headers, method=method)
        try:
            with urlopen(request, timeout=60) as response:
                return bool(response.status < 300)
        except OSError:
            return False


def load(
    seconds: Annotated[float, typer.Option(min=1)] = 60,
    connections: Annotated[int, typer.Option(min=1, help="Concurrent connections for searches.")] = 64,
    writes: Annotated[float, typer.Option(min=0.01, help="Write requests per second.")] = 5,
    threads: Annotated[int, typer.Option(min=1, help="Concurrent searches in the server.")] = 2,
    encoder: Annotated[str, typer.Option(help="Text encoder.")] = "minilm",
    copies: Annotated[int, typer.Option(min=1, help="Number of copies of the demo's texts.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Load `muvera serve` with searches by wrk and writes; fails if a request fails or a write is lost."""
    found = load_test(seconds, connections, writes, threads, encoder, copies)
    typer.echo(json.dumps(found) if as_json else sentences(found))
    if found["errors"] or found["failed_writes"] or found["lost_writes"]:
        raise typer.Exit(1)
