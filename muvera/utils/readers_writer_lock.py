"""ReadersWriterLock: a lock for several readers or one writer, built from plain locks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import count

from .fork import renew_after_fork

__all__ = ["ReadersWriterLock"]

# Maximum number of readers at a time, and the slot of each thread.
_SLOTS = 32
_numbers, _thread = count(), threading.local()


class ReadersWriterLock:
    """A lock that several readers share and a writer holds alone; no reader overtakes a waiting writer.

    A reader holds one of several plain locks; a writer holds all of them.  Plain locks are safe from interrupts: a
    ``with`` statement always releases them.  A lock that Python code releases could stay held after an interrupt.

    The lock is not reentrant: a thread that holds it must not acquire it again.
    """

    def __init__(self) -> None:
        self._renew_locks()
        renew_after_fork(self)

    def _renew_locks(self) -> None:
        self._entrance, *self._slots = self._locks = [threading.Lock() for _ in range(1 + _SLOTS)]

    def shared(self) -> threading.Lock:
        """Return the plain lock that this thread must hold as a reader."""
        if not hasattr(_thread, "slot"):
            _thread.slot = next(_numbers) % _SLOTS
        with self._entrance:  # wait behind a waiting writer
            slot: threading.Lock = self._slots[_thread.slot]
        return slot

    def alone(self, work: Callable[[], object], held: int = 0) -> None:
        """Call `work` while no other thread holds the lock; the first `held` plain locks are held already."""
        if held == len(self._locks):
            work()
            return
        with self._locks[held]:
            self.alone(work, held + 1)
