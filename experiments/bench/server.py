"""Time of answers of ``muvera serve`` on one connection that stays open."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from muvera import TextIndex
from muvera.data.demo_sample import load_demo_sample

from ..report.table import Column, Table
from .plumbing import Save, finish, progress

_REQUESTS = {"/health": "health", "the same search again and again": "same", "other searches": "other"}


@contextmanager
def _served(folder: Path) -> Iterator[http.client.HTTPConnection]:
    """Serve an index in another process, and yield a connection to it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "muvera", "serve", str(folder), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()  # printed once it listens
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
            yield connection
            connection.close()
        finally:
            process.terminate()


def measure(questions: list[str], texts: list[str], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each answer by kind; the kinds take turns."""
    times: dict[str, list[float]] = {kind: [] for kind in _REQUESTS.values()}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "index"
        TextIndex.build(texts, path=folder)
        with _served(folder) as connection:
            for i in range(-1, rounds):  # the first round compiles and does not count
                for kind, seconds in times.items():
                    question = questions[(i if kind == "other" else 0) % len(questions)]
                    body = json.dumps({"query": question})
                    begun = time.perf_counter()
                    if kind == "health":
                        connection.request("GET", "/health")
                    else:
                        connection.request("POST", "/search", body, {"Content-Type": "application/json"})
                    answer = connection.getresponse()
                    answer.read()
                    if i >= 0:
                        seconds.append(time.perf_counter() - begun)
                    assert answer.status == 200, answer.status
    return times


def server(
    rounds: Annotated[int, typer.Option(min=1, help="Requests of each kind.")] = 300, save: Save = False
) -> None:
    """Measure answers of `muvera serve` on one connection that stays open."""
    sample = load_demo_sample()
    progress("serving the demo's texts")
    times = measure(sample.query_texts, sample.texts, rounds)
    rows = [
        {"request": name, "median": 1e3 * np.median(times[kind]), "p95": 1e3 * np.quantile(times[kind], 0.95)}
        for name, kind in _REQUESTS.items()
    ]
    columns = [
        Column("request"),
        Column("median, ms", "median", "{:.2f}"),
        Column("95%, ms", "p95", "{:.2f}"),
    ]
    caption = (
        f"{rounds} requests of each kind, in turn, on one connection to this machine; {len(sample.texts)} texts, "
        "encoder static, 10 hits."
    )
    finish("server", "Answers over HTTP", [Table.of("Time of an answer", columns, rows, caption)], save)
