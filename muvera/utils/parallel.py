"""Split work over threads between documents, so that results do not depend on the number of threads."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from .checks import require_int

__all__ = ["run_in_ranges", "split_by_weight", "thread_count"]


def thread_count(threads: int | None) -> int:
    """Return `threads`, at least 1, or by default the number of cores that this process may use."""
    if threads is None:
        if hasattr(os, "sched_getaffinity"):
            return len(os.sched_getaffinity(0))
        return os.cpu_count() or 1
    return require_int("threads", threads, 1, hint="Use None for all cores.")


def split_by_weight(cumulative: NDArray[np.int64], weight: int, most: int) -> list[tuple[int, int]]:
    """Split items into consecutive non-empty ranges (start, stop) of at least `weight` and at most `most` items.

    `cumulative`, int64 (n + 1,), contains the partial sums of the items' weights, like offsets of lengths.
    """
    count = len(cumulative) - 1
    if count == 1:
        return [(0, 1)]
    ranges = []
    start = 0
    while start < count:
        stop = int(np.searchsorted(cumulative, cumulative[start] + weight, side="left"))
        stop = min(max(stop, start + 1), start + most, count)
        ranges.append((start, stop))
        start = stop
    return ranges


def run_in_ranges(
    work: Callable[[int, int], object], ranges: list[tuple[int, int]], threads: int | None = None
) -> None:
    """Call ``work(start, stop)`` for every range, on `threads` threads.

    The first exception is raised after the running ranges have ended; the others are dropped.  `work` must only write
    to its own range.
    """
    count = min(thread_count(threads), len(ranges))
    if count <= 1:
        for start, stop in ranges:
            work(start, stop)
        return
    with ThreadPoolExecutor(count, thread_name_prefix="muvera") as pool:
        futures = [pool.submit(work, start, stop) for start, stop in ranges]
        try:
            for future in futures:
                future.result()
        except BaseException:
            for future in futures:
                future.cancel()
            raise
