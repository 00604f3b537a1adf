"""What several measurements share: recall of given scores, the processor's time, how a share is written."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["processor_time", "recall_of_scores", "share", "threads_in_words"]

# Whose exact top so many documents are to be found, and among how many candidates.
_TOP, _DEPTH = 10, 50


def recall_of_scores(exact: NDArray[np.float32], scores: NDArray[np.float32]) -> float:
    """Return 10-recall@50, the share of the exact top ten among the first 50, of (queries, documents)."""
    best = np.argsort(-exact, axis=1, kind="stable")[:, :_TOP]
    first = np.argsort(-scores, axis=1, kind="stable")[:, :_DEPTH]
    return round(float((best[:, :, np.newaxis] == first[:, np.newaxis, :]).any(axis=2).mean()), 5)


def processor_time(work: Callable[[], object]) -> float:
    """Return the seconds of this thread's processor that `work` takes."""
    start = time.thread_time()
    work()
    return time.thread_time() - start


def threads_in_words(threads: int | None) -> str:
    """Return "one thread", "3 threads" or "all cores"."""
    if threads is None:
        return "all cores"
    return "one thread" if threads == 1 else f"{threads} threads"


def share(values: Sequence[float]) -> str:
    """Write the mean of shares as .987; nothing where there are none."""
    return f"{np.mean(values):.3f}".removeprefix("0") if values else ""
