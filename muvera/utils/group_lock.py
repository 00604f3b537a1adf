"""GroupLock: many may hold it who want the same, one alone who changes something."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Hashable, Iterator
from contextlib import contextmanager

__all__ = ["GroupLock"]


class GroupLock:
    """A readers-writer lock whose readers come in groups.

    Holders of one group share the lock, holders of different groups exclude each other, and an
    exclusive holder excludes everybody.  Who comes first is served first, so that nobody waits for
    ever.  A thread that holds the lock may take it again in the same way.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._waiting: deque[object] = deque()
        self._holders: dict[int, int] = {}  # how often each thread holds it
        self._group: Hashable = None

    @contextmanager
    def shared(self, group: Hashable = None) -> Iterator[None]:
        """Hold the lock together with others of this group.

        Raises
        ------
        RuntimeError
            Where this thread holds the lock in another way already: it would wait for itself.
        """
        self._acquire(("shared", group))
        try:
            yield
        finally:
            self._release()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the lock alone.

        Raises
        ------
        RuntimeError
            Where this thread holds the lock in another way already: it would wait for itself.
        """
        self._acquire(("exclusive", threading.get_ident()))
        try:
            yield
        finally:
            self._release()

    def _acquire(self, group: Hashable) -> None:
        me = threading.get_ident()
        with self._changed:
            if me in self._holders:
                if group != self._group:
                    raise RuntimeError(
                        "A function that a search calls, such as a filter, must neither change the index nor "
                        "search it with another ef. Do that before or after the search."
                    )
                self._holders[me] += 1
                return
            if self._waiting or not self._is_free_for(group):
                place = object()
                self._waiting.append(place)
                try:
                    self._changed.wait_for(lambda: self._waiting[0] is place and self._is_free_for(group))
                finally:
                    self._waiting.remove(place)
                    self._changed.notify_all()  # the next one may belong to the same group
            self._group = group
            self._holders[me] = 1

    def _is_free_for(self, group: Hashable) -> bool:
        return not self._holders or group == self._group

    def _release(self) -> None:
        me = threading.get_ident()
        with self._changed:
            self._holders[me] -= 1
            if not self._holders[me]:
                del self._holders[me]
                if not self._holders and self._waiting:
                    self._changed.notify_all()
