"""ReadersWriterLock: sharing, the order of requests, and errors.

A process that forks while others hold locks.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from typing import Any, Literal

import numpy as np
import pytest
from builders.text_encoders import HashEncoder

from muvera import TextIndex
from muvera.mips.hnsw import HNSWSearch
from muvera.utils.locks import ReadersWriterLock


def started(*works: object) -> list[threading.Thread]:
    """Start a thread for each function, one after another."""
    threads = [threading.Thread(target=work, daemon=True) for work in works]  # type: ignore[arg-type]
    for thread in threads:
        thread.start()
        time.sleep(0.02)
    return threads


def test_readers_share_and_nobody_overtakes_a_writer() -> None:
    lock, order, leave = ReadersWriterLock(), list[str](), threading.Event()

    def hold(name: str) -> None:
        order.append(name)
        leave.wait(20)

    def read(name: str) -> None:
        with lock.shared():
            hold(name)

    first, second, third, fourth = (partial(read, f"reader {i}") for i in range(1, 5))
    threads = started(first, second, lambda: lock.alone(lambda: hold("writer")), third, fourth)
    assert order == ["reader 1", "reader 2"]
    leave.set()
    for thread in threads:
        thread.join(20)
    assert order[2] == "writer" and sorted(order[3:]) == ["reader 3", "reader 4"]


def test_errors_release_the_lock() -> None:
    lock = ReadersWriterLock()

    def fails() -> None:
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt), lock.shared():
            raise KeyboardInterrupt
        with pytest.raises(KeyboardInterrupt):
            lock.alone(fails)


FORKS = (
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
)


def forks(test: Any) -> Any:
    """Mark a test that forks beside threads."""
    for mark in FORKS:
        test = mark(test)
    return test


@forks
@pytest.mark.parametrize("backend", ["scan", "hnsw"])
def test_a_fork_beside_working_threads_does_not_hang(backend: Literal["scan", "hnsw"]) -> None:
    if backend == "hnsw":
        pytest.importorskip("hnswlib")
    index = TextIndex.build(
        [f"word{i} text" for i in range(300)], HashEncoder(), exact_tokens=0, backend=backend
    )
    stop = threading.Event()

    def search() -> None:
        while not stop.is_set():
            index.search("word7", k=3, where={"n": {"$exists": False}}, threads=1)

    def change() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            index.update(["new words"], ids=[1000 + number % 5], threads=1)

    threads = [threading.Thread(target=target) for target in (search, search, change)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(4):
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    signal.alarm(60)  # ends a child that hangs
                    found = index.search("word7", k=1, threads=1)[0].id == 7
                    index.add(["a child's own"], ids=[5000], threads=1)
                    code = 0 if found and 5000 in index else 2
                finally:
                    sys.stderr.flush()
                    os._exit(code)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert 5000 not in index


class SlowGraph:
    """A graph of hnswlib whose searches last until they may leave."""

    def __init__(self, graph: Any) -> None:
        self.graph = graph
        self.entered = threading.Event()
        self.left = threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.graph, name)

    def knn_query(self, *args: Any, **options: Any) -> Any:
        self.entered.set()
        self.left.wait(5)
        return self.graph.knn_query(*args, **options)


@forks
def test_a_fork_waits_for_calls_of_hnswlib() -> None:
    """Which holds mutexes during a call: the child would wait for them forever."""
    pytest.importorskip("hnswlib")
    search = HNSWSearch(8)
    search.add(np.arange(50), np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32))
    slow: Any = SlowGraph(search._graph.index)
    search._graph.index = slow
    (thread,) = started(lambda: search.search(np.ones((1, 8), np.float32), 3))
    assert slow.entered.wait(20)
    timer = threading.Timer(0.2, slow.left.set)
    timer.start()
    child = os.fork()
    if child == 0:
        os._exit(0 if slow.left.is_set() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    for each in (thread, timer):
        each.join(20)


def test_a_program_that_still_has_an_index_ends_silently() -> None:
    program = (
        "import numpy as np, muvera\n"
        "documents = list(np.ones((3, 2, 4), np.float32))\n"
        "index = muvera.MuveraIndex.build(documents, 'mean')\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stderr == ""
