"""Names of the stages of long work, for progress bars."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_LISTENER: ContextVar[Callable[[str], object] | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Callable[[str], object]) -> Iterator[None]:
    """Call `listener` with the name of each :func:`stage` in a block, and with "" when the stage ends."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Report to the listener, if one is set, that a block is the stage `name`."""
    listener = _LISTENER.get()
    if listener is not None:
        listener(name)
    try:
        yield
    finally:
        if listener is not None:
            listener("")
