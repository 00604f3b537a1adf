"""What the index's lock costs: searches a second with it and without it, in alternation."""

from __future__ import annotations

import threading
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from muvera import MuveraIndex

from ..evaluation.statistics import ratio_interval
from .threads import STABLE, query_of, settings_of, small_index

__all__ = ["Throughput", "measure_throughput", "throughput_table"]


@dataclass
class Throughput:
    """Searches a second of some threads together, a number a round.

    Parameters
    ----------
    locked, unlocked : float64 (rounds,)
    """

    locked: NDArray[np.float64]
    unlocked: NDArray[np.float64]

    @property
    def ratio(self) -> tuple[float, float, float]:
        """Searches with the lock for each one without it, median of the rounds, and its 95% interval.

        The halves of a round follow each other at once, so that other work on the machine slows both.
        """
        return ratio_interval(self.locked / self.unlocked, np.ones(len(self.locked)))


class _NoLock:
    """Holds nothing, as an index that no thread may change while another one searches."""

    def shared(self, group: object = None) -> AbstractContextManager[None]:
        return nullcontext()

    def exclusive(self) -> AbstractContextManager[None]:
        return nullcontext()


def measure_throughput(
    backend: str, *, threads: int = 2, rounds: int = 40, seconds: float = 0.25, seed: int = 0
) -> Throughput:
    """Search a small index from some threads, with its lock and without it.

    The smaller the index, the more of a search is the lock: each one takes less than a millisecond here.

    Parameters
    ----------
    backend : str
        One of :data:`~experiments.attack.threads.BACKENDS`.
    threads : int
    rounds : int
        Each searches for `seconds` with the lock and for as long without it, in changing order.
    seconds : float
    seed : int
    """
    index, bases = small_index(seed, **settings_of(backend))
    queries = [query_of(bases, i) for i in range(STABLE)]
    lock: Any = index._contents.lock
    rates: dict[bool, list[float]] = {True: [], False: []}
    for number in range(-1, rounds):  # the first is not counted
        for locked in (True, False) if number % 2 else (False, True):
            contents: Any = index._contents
            contents.lock = lock if locked else _NoLock()
            rate = _searches_a_second(index, queries, threads, seconds)
            if number >= 0:
                rates[locked].append(rate)
    return Throughput(np.array(rates[True]), np.array(rates[False]))


def _searches_a_second(
    index: MuveraIndex, queries: list[NDArray[np.float32]], threads: int, seconds: float
) -> float:
    counts = [0] * threads
    together = threading.Barrier(threads + 1)
    ended = threading.Event()

    def work(number: int) -> None:
        together.wait()
        while not ended.is_set():
            index.search(queries[counts[number] % len(queries)], 5, candidates=40, threads=1)
            counts[number] += 1

    workers = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(threads)]
    for worker in workers:
        worker.start()
    together.wait()
    began = time.perf_counter()
    time.sleep(seconds)
    ended.set()
    for worker in workers:
        worker.join()
    return sum(counts) / (time.perf_counter() - began)


def throughput_table(found: dict[str, Throughput]) -> str:
    """Return a Markdown table, a row a backend."""
    heads = ("backend", "searches/s with the lock", "without it", "ratio", "95% interval")
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for backend, each in found.items():
        ratio, low, high = each.ratio
        rates = f"{np.median(each.locked):,.0f} | {np.median(each.unlocked):,.0f}"
        lines.append(f"| {backend} | {rates} | {ratio:.3f} | {low:.3f} to {high:.3f} |")
    return "\n".join(lines)
