"""ReadersWriterLock: sharing, the order of requests, and interrupted waits."""

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

from muvera.utils.readers_writer_lock import ReadersWriterLock


def started(work: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_readers_share_and_nobody_overtakes_a_writer() -> None:
    lock, order, leave = ReadersWriterLock(), list[str](), threading.Event()

    def hold(name: str, take: Callable[[], AbstractContextManager[None]]) -> None:
        with take():
            order.append(name)
            leave.wait(20)

    threads = []
    for name, take in (
        ("reader 1", lock.shared),
        ("reader 2", lock.shared),
        ("writer", lock.exclusive),
        ("reader 3", lock.shared),
        ("reader 4", lock.shared),
    ):
        threads.append(started(lambda name=name, take=take: hold(name, take)))  # type: ignore[misc]
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

    def write() -> None:
        for _ in range(100):
            with lock.exclusive():
                pair[0] += 1
                time.sleep(0)
                pair[1] += 1

    threads = [started(work) for work in (read, write, read, write)]
    for thread in threads:
        thread.join(60)
    assert pair == [200, 200] and len(wrong) == 600 and not any(wrong)


def test_an_interrupted_wait_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    lock = ReadersWriterLock()

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    for held, wanted in ((lock.shared, lock.exclusive), (lock.exclusive, lock.shared)):
        with held(), monkeypatch.context() as patch:
            patch.setattr(lock._changed, "wait", interrupted)
            with pytest.raises(KeyboardInterrupt), wanted():
                raise AssertionError("the lock is held")
        with pytest.raises(ZeroDivisionError), wanted():
            raise ZeroDivisionError
        with lock.exclusive():
            pass
