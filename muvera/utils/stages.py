"""Stages of long work, told to whoever shows its progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["listening", "stage"]

_LISTENER: ContextVar[Callable[[str], object] | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Callable[[str], object]) -> Iterator[None]:
    """Call `listener` with each :func:`stage` inside the context, and with "" when a stage ends."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Tell the listener, if there is one, that this thread is in the stage `name` inside the context."""
    listener = _LISTENER.get()
    if listener is not None:
        listener(name)
    try:
        yield
    finally:
        if listener is not None:
            listener("")
