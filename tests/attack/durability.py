"""Kill a process with eight writers at random moments.

Compare its acknowledged changes with its folder.
"""

import http.client
import json
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from builders.text_encoders import HashEncoder, SignTable

from attack.processes import CONFIG, HEADERS, forked, kill, start_server
from muvera import TextEncoder, TextIndex

WRITERS = 8

#: Encoders by attack; with "rows", tokens are rows of a table.
ENCODERS: dict[str, TextEncoder] = {"http": HashEncoder(8), "open": HashEncoder(8), "rows": SignTable()}

#: Texts and metadata by id.
State = dict[str, tuple[str, dict[str, Any]]]

#: A method of TextIndex and its arguments.
Operation = tuple[str, dict[str, Any]]


def operations(writer: int, state: State, stream: random.Random) -> Iterator[tuple[Operation, State]]:
    """Yield changes of up to four documents of one writer.

    Each change has the following state.
    """
    while True:
        state, number, kind = dict(state), stream.randint(1, 4), stream.random()
        own = stream.sample(sorted(state), min(number, len(state)))
        fresh = [f"{writer}-{stream.getrandbits(60)}" for _ in range(number)]
        ids = fresh if kind < 0.4 or not own else own
        metadata = [{"n": stream.randint(0, 9)} for _ in ids]
        texts = [f"word{stream.randint(0, 99)} of {identity}" for identity in ids]
        if ids is own and (kind < 0.6 or len(state) > 30):
            state = {key: kept for key, kept in state.items() if key not in ids}
            yield ("delete", {"ids": ids}), state
        elif ids is own and kind < 0.75:
            state.update({key: (state[key][0], values) for key, values in zip(ids, metadata, strict=True)})
            yield ("update", {"ids": ids, "metadata": metadata}), state
        else:
            state.update(dict(zip(ids, zip(texts, metadata, strict=True), strict=True)))
            name = "add" if ids is fresh else "update"
            yield (name, {"texts": texts, "ids": ids, "metadata": metadata}), state


class Writer:
    """One writer's acknowledged state, and the state after its running operation.

    The second is absent if no operation runs.
    """

    def __init__(self, number: int) -> None:
        self.number, self.state, self.next, self.acknowledged = number, State(), State(), 0

    def run(self, send: Callable[[Operation], bool], seed: str) -> None:
        """Send changes until one is not acknowledged."""
        self.next = self.state
        for operation, after in operations(self.number, self.state, random.Random(f"{seed} {self.number}")):
            self.next = after
            if not send(operation):
                return
            self.state = after
            self.acknowledged += 1

    def wrong(self, found: State) -> tuple[bool, bool]:
        """Return whether a change was lost, and whether one was half applied.

        Continue from what was found.
        """
        before, after, self.state = self.state, self.next, found
        changing = {key for key in {*before, *after} if before.get(key) != after.get(key)}
        left = [{key: each.get(key) for key in changing} for each in (found, before, after)]
        others = {*found, *before} - changing
        return any(found.get(key) != before.get(key) for key in others), left[0] not in left[1:]


def opened(folder: Path, encoder: TextEncoder) -> TextIndex:
    """Open the index with frequent saves, so that kills also hit saves."""
    return TextIndex.open(folder, encoder, save_changes=40, save_seconds=0.3)


def started(work: Callable[[Writer], None], writers: list[Writer]) -> list[threading.Thread]:
    threads = [threading.Thread(target=work, args=(writer,)) for writer in writers]
    for thread in threads:
        thread.start()
    return threads


def over_http(folder: Path, encoder: TextEncoder, writers: list[Writer], seed: str, seconds: float) -> None:
    """Start writers that send changes to a server, and kill it.

    The kill comes some time after the first answer.
    """
    child, port = start_server(lambda: opened(folder, encoder))
    answered = threading.Event()

    def write(writer: Writer) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

        def send(operation: Operation) -> bool:
            name, body = operation
            method = {"add": "POST", "delete": "DELETE"}.get(name, "PUT" if "texts" in body else "PATCH")
            try:
                connection.request(method, "/documents", json.dumps(body), HEADERS)
                answer = connection.getresponse()
            except (OSError, http.client.HTTPException):
                return False
            finally:
                answered.set()
            if answer.status // 100 != 2:
                sys.stderr.write(f"{method} was answered with {answer.status}\n")
                return False
            with suppress(http.client.HTTPException, OSError):
                answer.read()
            return True

        writer.run(send, seed)
        connection.close()

    threads = started(write, writers)
    answered.wait()
    time.sleep(seconds)
    kill(child)
    for thread in threads:
        thread.join()


def through_open(
    folder: Path, encoder: TextEncoder, writers: list[Writer], seed: str, seconds: float
) -> None:
    """Kill a process whose threads change its index.

    It writes one byte for each acknowledged change.
    """
    read, write = os.pipe()

    def work() -> None:
        index = opened(folder, encoder)

        def send(writer: Writer, operation: Operation) -> bool:
            getattr(index, operation[0])(**operation[1])
            return os.write(write, bytes([writer.number])) == 1

        for thread in started(lambda writer: writer.run(partial(send, writer), seed), writers):
            thread.join()

    child = forked(work)
    os.close(write)
    acknowledged = [*os.read(read, 1)]
    time.sleep(seconds)
    kill(child)
    with os.fdopen(read, "rb") as pipe:
        acknowledged += pipe.read()
    for writer in writers:
        left = iter(range(acknowledged.count(writer.number)))
        writer.run(lambda _, left=left: next(left, None) is not None, seed)  # type: ignore[misc]


def contents(folder: Path, encoder: TextEncoder) -> State:
    """Return all documents; check that the tokens match the texts."""
    index = TextIndex.load(folder, encoder)
    found: State = {str(document.id): (document.text, document.metadata) for document in index}
    tokens = index.index.tokens(list(found))
    for vectors, (text, _) in zip(tokens, found.values(), strict=True):
        if not np.array_equal(vectors, encoder.encode_documents([text])[0]):
            raise ValueError(f"the vectors of {text!r} are of another text")
    return found


def kill_writers(count: int, way: str) -> dict[str, int]:
    """Kill repeatedly.

    Return the numbers of changes that were acknowledged, lost and half applied.
    """
    attack = over_http if way == "http" else through_open
    encoder = ENCODERS[way]
    writers = [Writer(number) for number in range(WRITERS)]
    counts = {"lost": 0, "half applied": 0}
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent, "index")
        settings: dict[str, Any] = {
            "exact_tokens": 0,
            "backend": "exact",
            "tokens": "float32",
            "vectors": CONFIG,
        }
        settings = {} if way == "rows" else settings
        TextIndex.build([], encoder, path=folder, threads=1, ids=[], **settings)
        for number in range(count):
            seed = f"{way} {number}"
            attack(folder, encoder, writers, seed, random.Random(seed).uniform(0, 0.6))
            found = contents(folder, encoder)
            for writer in writers:
                own = {key: found[key] for key in found if key.startswith(f"{writer.number}-")}
                for name, wrong in zip(counts, writer.wrong(own), strict=True):
                    counts[name] += wrong
    return {"acknowledged": sum(writer.acknowledged for writer in writers), **counts}
