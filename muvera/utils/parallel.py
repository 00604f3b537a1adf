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
from time import perf_counter, thread_time

import numpy as np
from numpy.typing import NDArray

from .checks import require_int
from .hints import Hint, Message

#: Multiply-adds below which other threads are not worth waking: one or two milliseconds
#: of work.
SMALL = 1 << 26

_MOST_THREADS = 1024

# Seconds of work from which threads are worth their cost even if they share cores.
_LONG = 0.02

# Threads that together run less than this many times the wall time gain too little.
_GAIN = 4 / 3

# Share of the wall time that threads must have waited for a core: less is uneven work.
_WAITED = 1 / 4

# After work of w seconds whose threads waited for cores, short work stays on one thread
# for this many times w seconds.  So at most 3% of the time is spent on such work.
_ALONE = 30

# Until this time, short work stays on one thread.
_alone_until = 0.0

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
    """Return a number of threads, which is at least 1.

    None means the number of cores that this process may use.  Raise TypeError or
    ValueError if `threads` is not a positive int.
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


def threads_for_short_work(threads: int | None) -> int | None:
    """Return `threads`, or 1 instead of None while other programs use the cores.

    A thread that waits for a core delays short work by more than it contributes.
    """
    return 1 if threads is None and perf_counter() < _alone_until else threads


def split_by_count(count: int, size: int) -> list[tuple[int, int]]:
    """Split 0..count into ranges (start, stop) of at most `size`, and of at least 1."""
    size = max(1, size)
    return [(start, min(start + size, count)) for start in range(0, count, size)]


def split_for_threads(count: int, least: int, most: int, threads: int | None) -> list[tuple[int, int]]:
    """Split 0..count into ranges of nearly equal size, as many for each thread.

    A range has from `least` to `most` items; the last range may have fewer.  `most`
    should be at least ``2 * least``: fewer than ``2 * least`` items then make one
    range.
    """
    workers = thread_count(threads)
    rounds = -(-count // (workers * most))
    ranges = max(1, min(rounds * workers, count // least))
    return split_by_count(count, min(most, -(-count // ranges)))


def split_by_weight(cumulative: NDArray[np.int64], weight: int, most: int) -> list[tuple[int, int]]:
    """Split items into consecutive non-empty ranges of at most `most` items.

    A range ends once it has the given `weight`.  `cumulative` (n + 1,) has the partial
    sums of the items' weights, like offsets of lengths.
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

    A call must only write to its range.  This thread is one of the `threads`.  If the
    estimated number of multiply-adds of all ranges, `operations`, is below SMALL, it
    does all the work.

    After an exception, waiting ranges are dropped; the exception is raised once the
    running ranges have ended.
    """
    is_small = len(ranges) <= 1 or operations < SMALL
    count = 1 if is_small and threads is None else min(thread_count(threads), len(ranges))
    if count <= 1 or is_small:
        for start, stop in ranges:
            work(start, stop)
        return
    left = deque(ranges)
    # Of each thread: seconds at work, and on a core.
    spans: list[tuple[float, float]] = []

    def drain() -> None:
        begun, ran = perf_counter(), thread_time()
        try:
            while True:
                try:
                    start, stop = left.popleft()
                except IndexError:
                    break
                work(start, stop)
        except BaseException:
            left.clear()
            raise
        spans.append((perf_counter() - begun, thread_time() - ran))

    begun = perf_counter()
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
    if threads is None:
        _judge(perf_counter() - begun, spans)


def _judge(seconds: float, spans: list[tuple[float, float]]) -> None:
    """Keep short work on one thread for a while if its threads waited for cores."""
    global _alone_until
    ran = sum(on_core for _, on_core in spans)
    waited = sum(at_work for at_work, _ in spans) - ran
    # A coarse clock reads 0 for short work.
    if seconds < _LONG and 0 < ran < _GAIN * seconds and (len(spans) == 1 or waited > _WAITED * seconds):
        _alone_until = perf_counter() + _ALONE * seconds


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

# Reports the share of the stage that is done.
_TELL: ContextVar[Callable[[float], object]] = ContextVar("tell", default=lambda share: None)


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
    """Report to the listener, if one is set, that a block is the stage `name`.

    The work calls :func:`share_done` within the block.
    """
    listener = _LISTENER.get()
    token = _TELL.set(lambda share: listener(f"{name} {share:.0%}"))
    try:
        share_done(0)
        yield
    finally:
        _TELL.reset(token)
        listener("")


def share_done(share: float) -> None:
    """Report the share of the current :func:`stage` that is done, if there is one."""
    _TELL.get()(share)
