"""GroupLock: many may hold it who want the same, one alone who changes something."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Hashable
from threading import get_ident

__all__ = ["GroupLock"]


class GroupLock:
    """A readers-writer lock whose readers come in groups.

    Holders of one group share the lock, holders of different groups exclude each other, and an
    exclusive holder excludes everybody.  Who comes first is served first, so that nobody waits for
    ever.  A thread that holds the lock may take it again in the same way.
    """

    def __init__(self) -> None:
        self._state = threading.Lock()  # held for the moments in which what follows is looked at
        self._waiting: deque[tuple[Hashable, threading.Event]] = deque()
        self._holders: dict[int, int] = {}  # how often each thread holds it
        self._group: Hashable = None

    def shared(self, group: Hashable = None) -> _Hold:
        """Return what holds the lock, in a ``with`` statement, together with others of this group.

        Entering it raises RuntimeError where this thread holds the lock in another way already: it would
        wait for itself.
        """
        return _Hold(self, ("shared", group))

    def exclusive(self) -> _Hold:
        """Return what holds the lock, in a ``with`` statement, alone.

        Entering it raises RuntimeError where this thread holds the lock in another way already: it would
        wait for itself.
        """
        return _Hold(self, ("exclusive", get_ident()))

    def _acquire(self, group: Hashable) -> None:
        me = get_ident()
        with self._state:
            if me in self._holders:
                if group != self._group:
                    raise RuntimeError(
                        "A function that a search calls, such as a filter, must neither change the index nor "
                        "search it with another ef. Do that before or after the search."
                    )
                self._holders[me] += 1
                return
            if not self._waiting and (not self._holders or group == self._group):
                self._group = group
                self._holders[me] = 1
                return
            turn = threading.Event()
            place = (group, turn)
            self._waiting.append(place)
        try:
            turn.wait()
        except BaseException:
            with self._state:
                if place in self._waiting:
                    self._waiting.remove(place)
                    self._admit()
                else:  # admitted meanwhile
                    self._leave(None)
            raise
        with self._state:  # take over what stands there for who was admitted
            self._leave(None, admit=False)
            self._holders[me] = 1

    def _release(self) -> None:
        with self._state:
            self._leave(get_ident())

    def _leave(self, holder: int | None, admit: bool = True) -> None:
        key = -1 if holder is None else holder
        self._holders[key] -= 1
        if not self._holders[key]:
            del self._holders[key]
        if admit:
            self._admit()

    def _admit(self) -> None:
        """Wake the first who wait, as many as may hold the lock together; they stand under -1 until they run."""
        while self._waiting and (not self._holders or self._waiting[0][0] == self._group):
            self._group, turn = self._waiting.popleft()
            self._holders[-1] = self._holders.get(-1, 0) + 1
            turn.set()


class _Hold:
    __slots__ = ("_group", "_lock")

    def __init__(self, lock: GroupLock, group: Hashable) -> None:
        self._lock, self._group = lock, group

    def __enter__(self) -> None:
        self._lock._acquire(self._group)

    def __exit__(self, *_: object) -> None:
        self._lock._release()
