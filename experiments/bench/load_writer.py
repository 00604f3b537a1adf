"""A client that changes documents at a steady pace and remembers what the server acknowledged."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Sequence
from typing import Any
from urllib.request import Request, urlopen

from muvera import TextIndex

__all__ = ["TOKEN", "Writer"]

#: Of a server that lives as long as a test.
TOKEN = "load-test"


class Writer:
    """Adds, replaces and deletes documents in turns, in a thread.

    Parameters
    ----------
    address : str
        ``http://127.0.0.1:PORT``.
    texts : sequence of str
        What is written, over and over.
    per_second : float
        Requests.
    """

    def __init__(self, address: str, texts: Sequence[str], per_second: float) -> None:
        self._address, self._texts, self._pause = address, texts, 1 / per_second
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self._choose = random.Random(0)
        # Documents as the server acknowledged them; None: deleted.
        self._expected: dict[str, str | None] = {}
        self._uncertain: set[str] = set()
        self.requests = self.failed = 0

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self) -> None:
        """End after the request that is under way."""
        self._stopped.set()
        self._thread.join()

    def lost(self, index: TextIndex) -> int:
        """Return how many acknowledged changes a saved index does not have."""
        names = [name for name in self._expected if name not in self._uncertain]
        there = {one.id: one.text for one in index.get(names, missing="ignore")}
        return sum(there.get(name) != self._expected[name] for name in names)

    def _work(self) -> None:
        due = time.monotonic()
        while not self._stopped.is_set():
            self._change()
            due += self._pause
            self._stopped.wait(max(0.0, due - time.monotonic()))

    def _change(self) -> None:
        number = self.requests
        live = [name for name, text in self._expected.items() if text is not None]
        kind = ("add", "update", "delete")[number % 3] if len(live) > 5 else "add"
        text = f"{self._choose.choice(self._texts)} written {number}"
        name = f"w{number}" if kind == "add" else self._choose.choice(live)
        if kind == "delete":
            done = self._send("DELETE", {"ids": [name]})
        else:
            body = {"ids": [name], "texts": [text], "metadata": [{"number": number}]}
            done = self._send("POST" if kind == "add" else "PUT", body)
        self.requests += 1
        if done:
            self._expected[name] = None if kind == "delete" else text
        else:
            self.failed += 1
            self._uncertain.add(name)

    def _send(self, method: str, body: dict[str, Any]) -> bool:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"}
        data = json.dumps(body).encode()
        request = Request(f"{self._address}/documents", data, headers, method=method)
        try:
            with urlopen(request, timeout=60) as response:
                return bool(response.status < 300)
        except OSError:
            return False
