"""ReadersWriterLock: sharing, the order of requests, and interrupted waits."""

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from muvera.utils.readers_writer_lock import ReadersWriterLock


def started(work: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_readers_share_and_nobody_overtakes_a_writer() -> None:
    lock, order, leave = ReadersWriterLock(), list[str](), threading.Event()

    def hold(name: str) -> None:
        order.append(name)
        leave.wait(20)

    def read(name: str) -> None:
        with lock.shared():
            hold(name)

    threads = []
    for name in ("reader 1", "reader 2", "writer", "reader 3", "reader 4"):
        if name == "writer":
            threads.append(started(lambda: lock.alone(lambda: hold("writer"))))
        else:
            threads.append(started(partial(read, name)))
        time.sleep(0.02)
    assert order == ["reader 1", "reader 2"]
    leave.set()
    for thread in threads:
        thread.join(20)
    assert order[2] == "writer" and sorted(order[3:]) == ["reader 3", "reader 4"]


def test_changes_are_never_seen_half() -> None:
    lock, pair, wrong = ReadersWriterLock(), [0, 0], list[int]()

    def read() -> None:
        for _ in range(300):
            with lock.shared():
                wrong.append(pair[0] - pair[1])

    def change() -> None:
        pair[0] += 1
        time.sleep(0)
        pair[1] += 1

    def write() -> None:
        for _ in range(100):
            lock.alone(change)

    threads = [started(work) for work in (read, write, read, write)]
    for thread in threads:
        thread.join(60)
    assert pair == [200, 200] and len(wrong) == 600 and not any(wrong)


def test_errors_release_the_lock() -> None:
    lock = ReadersWriterLock()

    def fails() -> None:
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt), lock.shared():
            raise KeyboardInterrupt
        with pytest.raises(KeyboardInterrupt):
            lock.alone(fails)
