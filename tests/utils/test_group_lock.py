"""GroupLock: who shares, who waits for whom, and that nobody waits for ever."""

import threading
import time
from collections.abc import Callable

import pytest

from muvera.utils.group_lock import GroupLock


def start(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def wait_until(happened: Callable[[], object]) -> None:
    for _ in range(2000):
        if happened():
            return
        time.sleep(0.005)
    raise AssertionError("it did not happen within ten seconds")


def test_one_group_shares_and_others_wait() -> None:
    lock, seen, leave = GroupLock(), [], threading.Event()

    def holds(group: object) -> None:
        with lock.shared(group):
            seen.append(group)
            leave.wait(20)

    threads = [start(lambda: holds("a")), start(lambda: holds("a"))]
    wait_until(lambda: seen == ["a", "a"])
    threads.append(start(lambda: holds("b")))
    wait_until(lambda: len(lock._waiting) == 1)
    assert seen == ["a", "a"]
    leave.set()
    for thread in threads:
        thread.join(20)
    assert seen == ["a", "a", "b"]


def test_who_changes_is_alone_and_served_in_turn() -> None:
    lock, order, leave = GroupLock(), [], threading.Event()

    def reads(name: str) -> None:
        with lock.shared():
            order.append(name)
            leave.wait(20)

    def writes() -> None:
        with lock.exclusive():
            order.append("write")

    threads = [start(lambda: reads("first"))]
    wait_until(lambda: order == ["first"])
    threads.append(start(writes))
    wait_until(lambda: len(lock._waiting) == 1)
    threads += [start(lambda: reads("later")), start(lambda: reads("later"))]
    wait_until(lambda: len(lock._waiting) == 3)
    assert order == ["first"]  # a reader that comes later does not pass the waiting writer
    leave.set()
    for thread in threads:
        thread.join(20)
    assert order == ["first", "write", "later", "later"]


def test_the_same_thread_may_take_it_again_in_the_same_way() -> None:
    lock = GroupLock()
    with lock.shared(3), lock.shared(3):
        start(lambda: lock.exclusive().__enter__())
        wait_until(lambda: len(lock._waiting) == 1)
        with lock.shared(3):  # although a writer waits
            pass
        with pytest.raises(RuntimeError, match="must neither change the index nor search it with another ef"):
            lock.exclusive().__enter__()
        with pytest.raises(RuntimeError, match="must neither change"):
            lock.shared(4).__enter__()


def test_an_error_within_lets_go() -> None:
    lock = GroupLock()
    with pytest.raises(ZeroDivisionError), lock.exclusive():
        raise ZeroDivisionError
    with lock.exclusive(), lock.exclusive():
        pass
    with lock.shared():
        pass
    assert not lock._holders and not lock._waiting


def test_no_update_is_lost_and_no_reader_sees_half() -> None:
    lock, pair, wrong = GroupLock(), [0, 0], []

    def writes() -> None:
        for _ in range(300):
            with lock.exclusive():
                pair[0] += 1
                time.sleep(0)
                pair[1] += 1

    def reads(group: int) -> None:
        for _ in range(300):
            with lock.shared(group):
                if pair[0] != pair[1]:
                    wrong.append(list(pair))

    threads = [start(writes) for _ in range(2)] + [start(lambda g=g: reads(g % 2)) for g in range(4)]  # type: ignore[misc]
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert pair == [600, 600] and wrong == []
