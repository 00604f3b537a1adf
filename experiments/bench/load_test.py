"""The server under load: many connections that search, while another client writes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from muvera import TextIndex
from muvera.data.demo_sample import load_demo_sample
from muvera.encoders.matmul import one_blas_thread

from .load_writer import TOKEN, Writer

__all__ = ["LoadFindings", "load_test", "run_wrk"]

# Two passes of the library alone, one before the server and one after it, each so much shorter.
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


@dataclass(frozen=True)
class LoadFindings:
    """What the server did.

    Parameters
    ----------
    connections, threads : int
        Of the generator, and searches at a time in the server.
    seconds : float
    requests, errors : int
        Searches, and those that failed in any way.
    p50, p95, p99 : float
        Milliseconds until the answer.
    requests_per_second : float
    library_per_second : float
        Of the same searches in as many threads without a server, the mean of before and after.
    writes, failed_writes, lost_writes : int
        Requests that changed documents; acknowledged changes that the saved index does not have.
    """

    connections: int
    threads: int
    seconds: float
    requests: int
    errors: int
    p50: float
    p95: float
    p99: float
    requests_per_second: float
    library_per_second: float
    writes: int
    failed_writes: int
    lost_writes: int

    @property
    def text(self) -> str:
        """Everything in sentences."""
        share = self.requests_per_second / self.library_per_second
        return "\n".join(
            [
                f"{self.connections} connections for {self.seconds:.0f} s: {self.requests:,} searches, "
                f"{self.errors} errors",
                f"latency: p50 {self.p50:.1f} ms, p95 {self.p95:.1f} ms, p99 {self.p99:.1f} ms",
                f"{self.requests_per_second:.0f} requests a second, {share:.0%} of the library alone in "
                f"{self.threads} threads ({self.library_per_second:.0f} searches a second)",
                f"{self.writes:,} writes beside: {self.failed_writes} failed, {self.lost_writes} lost",
            ]
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything as values of JSON."""
        return asdict(self)


def load_test(
    seconds: float = 60,
    *,
    connections: int = 64,
    writes_per_second: float = 5,
    threads: int = 2,
    encoder: str = "minilm-demo",
    copies: int = 1,
) -> LoadFindings:
    """Serve the demo's texts, search with a real load generator, write beside, and count what got lost.

    Parameters
    ----------
    seconds : float
    connections : int
    writes_per_second : float
        Requests that add, replace and delete documents in turns.
    threads : int
        Searches at a time in the server.
    encoder : str
    copies : int
        How many times the demo's texts are indexed.
    """
    sample = load_demo_sample()
    texts = [f"{text} {i}" if i else text for i in range(copies) for text in sample.texts]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "index"
        index = TextIndex.build(texts, encoder, ids=[f"t{i}" for i in range(len(texts))], path=folder)
        before = _alone(index, sample.query_texts, threads, seconds * _SHARE_ALONE)
        port = _free_port()
        with _Server(folder, port, threads):
            writer = Writer(f"http://127.0.0.1:{port}", texts, writes_per_second)
            writer.start()
            try:
                found = run_wrk(port, sample.query_texts, connections, seconds)
            finally:
                writer.stop()
        after = _alone(index, sample.query_texts, threads, seconds * _SHARE_ALONE)
        lost = writer.lost(TextIndex.load(folder))
    duration = found["microseconds"] / 1e6
    return LoadFindings(
        connections=connections,
        threads=threads,
        seconds=duration,
        requests=found["requests"],
        errors=found["errors"],
        p50=found["p50"] / 1000,
        p95=found["p95"] / 1000,
        p99=found["p99"] / 1000,
        requests_per_second=found["requests"] / duration,
        library_per_second=(before + after) / 2,
        writes=writer.requests,
        failed_writes=writer.failed,
        lost_writes=lost,
    )


def run_wrk(port: int, queries: Sequence[str], connections: int, seconds: float) -> dict[str, int]:
    """Search with wrk, and return its counts and percentiles in microseconds.

    Raises
    ------
    FileNotFoundError
        Where wrk is not installed.
    """
    bodies = ", ".join(f"[==[{json.dumps({'query': query, 'k': 10})}]==]" for query in queries)
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_SCRIPT.format(bodies=bodies))
        script.flush()
        command = [
            "wrk", "-t1", f"-c{connections}", f"-d{round(seconds)}s", "--timeout", "30s",
            "-s", script.name, f"http://127.0.0.1:{port}",
        ]  # fmt: skip
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        except FileNotFoundError:
            raise FileNotFoundError("wrk is not installed. Debian and Ubuntu: apt-get install wrk.") from None
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


def _alone(index: TextIndex, queries: Sequence[str], threads: int, seconds: float) -> float:
    """Return how many searches a second the library does in this process."""
    index.search(queries[0], 10, threads=1)
    end = time.perf_counter() + seconds

    def work(offset: int) -> int:
        count = 0
        while time.perf_counter() < end:
            index.search(queries[(offset + count) % len(queries)], 10, threads=1)
            count += 1
        return count

    start = time.perf_counter()
    with one_blas_thread(), ThreadPoolExecutor(threads) as pool:
        total = sum(pool.map(work, range(threads)))
    return total / (time.perf_counter() - start)


class _Server:
    """``muvera serve`` in a process of its own, stopped gracefully at the end."""

    def __init__(self, folder: Path, port: int, threads: int) -> None:
        self._command = [
            sys.executable, "-m", "muvera.cli", "serve", str(folder),
            "--port", str(port), "--threads", str(threads), "--writable",
        ]  # fmt: skip
        self._port = port

    def __enter__(self) -> None:
        environment = {**os.environ, "MUVERA_TOKEN": TOKEN}
        self._process = subprocess.Popen(self._command, env=environment, stdout=subprocess.DEVNULL)
        end = time.monotonic() + 120
        while True:
            try:
                with urlopen(f"http://127.0.0.1:{self._port}/health", timeout=5):
                    return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError("The server did not start; its errors are above.") from None
                time.sleep(0.1)

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(timeout=120)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
    return port
