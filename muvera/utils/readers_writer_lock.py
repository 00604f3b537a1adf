"""ReadersWriterLock: several readers, or one writer."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from .fork import renew_after_fork

__all__ = ["ReadersWriterLock"]


class ReadersWriterLock:
    """Lock for several readers or one writer, granted in the order of requests.

    The lock is not reentrant: a thread that holds it must not acquire it again.
    """

    def __init__(self) -> None:
        self._renew_locks()
        renew_after_fork(self)

    def _renew_locks(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()
        self._readers: set[object] = set()
        self._writer: object | None = None

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Hold the lock as a reader, together with other readers."""
        me = object()
        try:
            with self._changed:
                self._wait_for_turn(me, alone=False)
                self._readers.add(me)
            yield
        finally:
            self._leave(me)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the lock as the only holder."""
        me = object()
        try:
            with self._changed:
                self._wait_for_turn(me, alone=True)
                self._writer = me
            yield
        finally:
            self._leave(me)

    def _wait_for_turn(self, me: object, alone: bool) -> None:
        self._waiting.append(me)
        while self._waiting[0] is not me or self._writer is not None or (alone and self._readers):
            self._changed.wait()
        self._waiting.popleft()
        self._changed.notify_all()  # the next one may also be a reader

    def _leave(self, me: object) -> None:
        """Remove a holder, also one whose wait was interrupted."""
        with self._changed:
            if me in self._waiting:
                self._waiting.remove(me)
            self._readers.discard(me)
            if self._writer is me:
                self._writer = None
            self._changed.notify_all()
