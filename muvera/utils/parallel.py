"""Split work over threads, so that results do not depend on their number.

Name the stages of long work.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import ContextVar

import numpy as np
from numpy.typing import NDArray

from .checks import require_int
from .hints import Hint, Message

#: Multiply-adds below which other threads are not worth waking: one or two milliseconds
#: of work.
SMALL = 1 << 26

_MOST_THREADS = 1024

# What to do about a wrong number of threads.
_HINT = Message(Hint("omit", "Use None"), " for all cores.")


def _new_pool() -> None:
    """Create a new pool of threads; a forked child has none of its parent's threads."""
    global _pool
    _pool = ThreadPoolExecutor(_MOST_THREADS, thread_name_prefix="muvera")


_pool: ThreadPoolExecutor
_new_pool()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_pool)


def thread_count(threads: int | None) -> int:
    """Return a number of threads.

    Parameters
    ----------
    threads : int or None
        At least 1.  None: the number of cores that this process may use.

    Returns
    -------
    int

    Raises
    ------
    TypeError, ValueError
        If `threads` is not a positive int.
    """
    if threads is None:
        if hasattr(os, "sched_getaffinity"):
            return len(os.sched_getaffinity(0))
        return os.cpu_count() or 1
    return require_int("threads", threads, 1, hint=_HINT)


def require_threads(threads: int | None) -> None:
    """Raise TypeError or ValueError unless `threads` is None or a positive int.

    This costs less than :func:`thread_count`, which asks the system for None.
    """
    if threads is not None:
        thread_count(threads)


def split_by_count(count: int, size: int) -> list[tuple[int, int]]:
    """Split 0..count into ranges (start, stop) of at most `size`, and of at least 1.

    Parameters
    ----------
    count : int
        Number of items.
    size : int
        Items of a range; less than 1 counts as 1.

    Returns
    -------
    list of (int, int)
        First item of each range, and the first one after it.
    """
    size = max(1, size)
    return [(start, min(start + size, count)) for start in range(0, count, size)]


def split_by_weight(cumulative: NDArray[np.int64], weight: int, most: int) -> list[tuple[int, int]]:
    """Split items into consecutive non-empty ranges.

    Parameters
    ----------
    cumulative : int64 (n + 1,)
        Partial sums of the items' weights, like offsets of lengths.
    weight : int
        A range ends once it has this weight.
    most : int
        Largest number of items in a range.

    Returns
    -------
    list of (int, int)
        First item of each range, and the first one after it.
    """
    count = len(cumulative) - 1
    ranges = []
    start = 0
    while start < count:
        stop = int(np.searchsorted(cumulative, cumulative[start] + weight, side="left"))
        stop = min(max(stop, start + 1), start + most, count)
        ranges.append((start, stop))
        start = stop
    return ranges


def run_in_ranges(
    work: Callable[[int, int], object],
    ranges: list[tuple[int, int]],
    threads: int | None = None,
    operations: float = np.inf,
) -> None:
    """Call ``work(start, stop)`` for every range, on several threads.

    After an exception, waiting ranges are dropped; the exception is raised once the
    running ranges have ended.

    Parameters
    ----------
    work : callable
        Must only write to its own range.
    ranges : list of (int, int)
        Start and stop of each range.
    threads : int, optional
        Largest number of threads, this one included.  Default: all usable cores.
    operations : float
        Estimated number of multiply-adds of all ranges: below SMALL, this thread does
        all the work.
    """
    is_small = len(ranges) <= 1 or operations < SMALL
    count = 1 if is_small and threads is None else min(thread_count(threads), len(ranges))
    if count <= 1 or is_small:
        for start, stop in ranges:
            work(start, stop)
        return
    left = deque(ranges)

    def drain() -> None:
        try:
            while True:
                try:
                    own = left.popleft()
                except IndexError:
                    return
                work(*own)
        except BaseException:
            left.clear()
            raise

    helpers: list[Future[None]] = []
    try:
        with suppress(RuntimeError):  # no thread starts while the interpreter shuts down
            for _ in range(count - 1):
                helpers.append(_pool.submit(drain))
        drain()
    finally:
        try:
            _end(left, helpers)
        except KeyboardInterrupt:
            _end(left, helpers)
            raise
    for helper in helpers:
        if not helper.cancelled():
            helper.result()


def _end(left: deque[tuple[int, int]], helpers: list[Future[None]]) -> None:
    """Drop the waiting ranges and end the helpers.

    Cancel helpers that have not begun, and wait for the others.
    """
    left.clear()
    for helper in helpers:
        if not helper.cancel():
            helper.exception()


# -- stages of long work, for progress bars -----------------------------------

_LISTENER: ContextVar[Callable[[str], object]] = ContextVar("listener", default=lambda name: None)


@contextmanager
def listening(listener: Callable[[str], object]) -> Iterator[None]:
    """Call `listener` with the name of each :func:`stage` in a block.

    When a stage ends, the name is "".
    """
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Report to the listener, if one is set, that a block is the stage `name`."""
    listener = _LISTENER.get()
    listener(name)
    try:
        yield
    finally:
        listener("")
