"""Send many requests to a server, and measure its memory, handles and threads."""

from __future__ import annotations

import http.client
import json
import tempfile
from pathlib import Path
from typing import Any

from builders.text_encoders import HashEncoder

from attack.processes import CONFIG, HEADERS, kill, start_server
from muvera import TextIndex


def _resources(child: int) -> tuple[float, int, int]:
    """Return the resident MB of a process, its open handles, and its threads."""
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{child}/status").read_text().splitlines() if ":" in line
    )
    handles = len(list(Path(f"/proc/{child}/fd").iterdir()))
    return int(status["VmRSS"].split()[0]) / 1024, handles, int(status["Threads"])


def send(count: int, writes: bool) -> dict[str, list[float]]:
    """Send requests one after another, and return the resources after each tenth.

    Searches, explanations, wrong requests and connections that end early; with `writes`
    also additions and deletions of the same texts.
    """
    searches: list[tuple[str, str, Any]] = [
        ("POST", "/search", {"query": f"word{i} number{7 * i}", "k": 5, "words": (0, 0.3)[i % 2]})
        for i in range(50)
    ]
    wrong: list[tuple[str, str, Any]] = [
        ("POST", "/search", {"query": 3}),
        ("GET", "/nothing", None),
        ("POST", "/search", {"k": 5}),
    ]
    explain: list[tuple[str, str, Any]] = [("POST", "/explain", {"query": "word1", "ids": [1, 2]})]
    with tempfile.TemporaryDirectory() as parent:
        texts = [f"word{i % 50} number{i}" for i in range(500)]
        TextIndex.build(texts, HashEncoder(8), vectors=CONFIG, path=Path(parent, "index"), threads=1)
        child, port = start_server(lambda: TextIndex.open(Path(parent, "index"), HashEncoder(8)))
        try:
            measured = []
            client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            for i in range(count):
                work = (searches, searches, wrong, explain)[i % 4]
                method, path, body = work[i // 4 % len(work)]
                if writes and i % 20 == 0:
                    method, path, body = "POST", "/documents", {"texts": ["a new text"], "ids": ["new"]}
                if writes and i % 20 == 10:
                    method, path, body = "DELETE", "/documents", {"ids": ["new"], "missing": "ignore"}
                client.request(method, path, None if body is None else json.dumps(body), HEADERS)
                if i % 97 == 0:  # do not read the answer
                    client.close()
                    continue
                with client.getresponse() as answer:
                    answer.read()
                    assert answer.status < 500, f"{method} {path}: {answer.status}"
                if i % (count // 10) == count // 10 - 1:
                    measured.append(_resources(child))
            client.close()
        finally:
            kill(child)
    names = ("MB", "handles", "threads")
    return {name: [round(float(row[i]), 1) for row in measured] for i, name in enumerate(names)}
