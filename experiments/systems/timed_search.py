"""Queries one at a time on the clock, as every system that runs in this process answers them."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from muvera import MultiVectors

from .base import Answers, Ranked

__all__ = ["timed_search"]


def timed_search(queries: MultiVectors, k: int, answer: Callable[[int, MultiVectors], Ranked]) -> Answers:
    """Ask `answer` for one query after the other and time each.

    The first is asked once more before, outside the clock: it compiles kernels and wakes the caches.

    Parameters
    ----------
    queries : MultiVectors
    k : int
        What is returned of an answer at most; a shorter one is filled up with -1.
    answer : callable
        Takes a query's number among `queries` and the query alone; returns positions and scores.
    """
    ids: NDArray[np.int64] = np.full((len(queries), k), -1, np.int64)
    scores: NDArray[np.float32] = np.full((len(queries), k), -np.inf, np.float32)
    seconds = np.empty(len(queries))
    if len(queries):
        answer(0, queries[:1])
    for i in range(len(queries)):
        query = queries[i : i + 1]
        start = time.perf_counter()
        found, values = answer(i, query)
        seconds[i] = time.perf_counter() - start
        count = min(k, len(found))
        ids[i, :count], scores[i, :count] = found[:count], values[:count]
    return Answers(ids, scores, seconds)
