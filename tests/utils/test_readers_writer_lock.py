"""ReadersWriterLock: sharing, the order of requests, and interrupted waits."""

import threading
import time
from functools import partial

import pytest

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
