"""ReadersWriterLock, and locks in a process that forks while other threads hold them.

A child process has only the thread that forked, so a lock of another thread would never
be released.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Iterable
from itertools import count
from typing import Any
from weakref import WeakMethod

#: Methods that renew locks.
_renew: set[WeakMethod[Callable[[], None]]] = set()
#: Methods that return the locks that a fork acquires first, and last.
_first: set[WeakMethod[Callable[[], Iterable[Any]]]] = set()
_last: set[WeakMethod[Callable[[], Iterable[Any]]]] = set()
_held: list[Any] = []


@atexit.register
def _forget_all() -> None:
    # A WeakMethod whose object dies after it, as at the end of a program, would print
    # an AttributeError of its callback.
    for methods in (_renew, _first, _last):
        methods.clear()


# Seconds that a fork waits for a lock.
_PATIENCE = 10

# Maximum number of readers at a time, a multiple of 8.
_SLOTS = 32

# The slot of each thread: threads get the numbers in turn.
_numbers = count()
_thread = threading.local()


def renew_after_fork(renew: Callable[[], None]) -> None:
    """Call the method `renew` in every child process.

    Its object is not kept alive.
    """
    _renew.add(WeakMethod(renew, _renew.discard))


def hold_during_fork(locks: Callable[[], Iterable[Any]], *, last: bool = False) -> None:
    """Hold the locks that the method `locks` returns during a fork.

    The library that they protect has locks, too, which must be free in the child.  With
    `last`, they are acquired after other locks: a thread that holds other locks may
    wait for them.  The method's object is not kept alive.  It renews the locks in the
    child, see :func:`renew_after_fork`.
    """
    methods = _last if last else _first
    methods.add(WeakMethod(locks, methods.discard))


def _before() -> None:
    for weak in (*_first, *_last):
        locks = weak()
        if locks is not None:
            _held.extend(lock for lock in locks() if lock.acquire(timeout=_PATIENCE))


def _in_parent() -> None:
    while _held:
        _held.pop().release()


def _in_child() -> None:
    _held.clear()
    for weak in list(_renew):
        renew = weak()
        if renew is not None:
            renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)


class ReadersWriterLock:
    """A lock that several readers share and a writer holds alone.

    No reader overtakes a waiting writer.  A reader holds one of several plain locks; a
    writer holds all of them.  Plain locks are safe from interrupts: a ``with``
    statement always releases them.  A lock that Python code releases could stay held
    after an interrupt.

    The lock is not reentrant: a thread that holds it must not acquire it again.
    """

    def __init__(self) -> None:
        self._renew_locks()
        renew_after_fork(self._renew_locks)

    def _renew_locks(self) -> None:
        self._entrance, *self._slots = self._locks = [threading.Lock() for _ in range(1 + _SLOTS)]

    def locks(self) -> list[threading.Lock]:
        """Return all plain locks, in the order in which a writer acquires them."""
        return self._locks

    def shared(self) -> threading.Lock:
        """Return the plain lock that this thread must hold as a reader."""
        if not hasattr(_thread, "slot"):
            _thread.slot = next(_numbers) % _SLOTS
        with self._entrance:  # wait behind a waiting writer
            slot: threading.Lock = self._slots[_thread.slot]
        return slot

    def alone(self, work: Callable[[], object]) -> None:
        """Call `work` while no other thread holds the lock."""
        with self._entrance:
            self._hold(self._slots, work)

    def _hold(self, slots: list[threading.Lock], work: Callable[[], object]) -> None:
        """Call `work` while this thread holds all slots, eight by eight."""
        a, b, c, d, e, f, g, h, *others = slots
        with a, b, c, d, e, f, g, h:
            if others:
                self._hold(others, work)
            else:
                work()
