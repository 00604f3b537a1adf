"""Threads: ranges that cover everything once, and errors that reach the caller."""

import os
import threading
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muvera.utils.parallel import run_in_ranges, split_by_weight, thread_count


def test_thread_count() -> None:
    assert 1 <= thread_count(None) <= (os.cpu_count() or 1)
    assert thread_count(3) == 3
    assert thread_count(np.int64(2)) == 2


def test_all_cores_are_those_the_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 5, 7}, raising=False)
    assert thread_count(None) == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    assert thread_count(None) == 4
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert thread_count(None) == 1


@pytest.mark.parametrize(
    ("threads", "error", "words"),
    [
        (0, ValueError, "at least 1, got 0. Use None for all cores"),
        (-2, ValueError, "got -2"),
        (2.0, TypeError, "must be an int, got float 2.0. Use None"),
        ("2", TypeError, "got str"),
        (True, TypeError, "got bool"),
    ],
)
def test_thread_count_refuses(threads: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        thread_count(threads)


@given(st.lists(st.integers(0, 30), max_size=60), st.integers(1, 50), st.integers(1, 20))
def test_ranges_cover_all_in_order(weights: list[int], weight: int, most: int) -> None:
    cumulative = np.concatenate([[0], np.cumsum(weights, dtype=np.int64)])
    ranges = split_by_weight(cumulative, weight, most)
    assert [i for start, stop in ranges for i in range(start, stop)] == list(range(len(weights)))
    for start, stop in ranges:
        assert 1 <= stop - start <= most
        # It ended as soon as it weighed enough: without its last item it did not.
        assert sum(weights[start : stop - 1]) < weight
        if stop < len(weights) and stop - start < most:
            assert sum(weights[start:stop]) >= weight


@pytest.mark.parametrize("threads", [1, 2, 7, None])
def test_every_range_is_worked_once(threads: int | None) -> None:
    done = np.zeros(50, np.int64)

    def work(start: int, stop: int) -> None:
        done[start:stop] += 1

    run_in_ranges(work, [(i, i + 5) for i in range(0, 50, 5)], threads)
    assert (done == 1).all()
    run_in_ranges(work, [], threads)


def test_one_range_or_one_thread_stays_in_this_thread() -> None:
    seen = set()

    def work(start: int, stop: int) -> None:
        seen.add(threading.current_thread())

    run_in_ranges(work, [(0, 1)], 8)
    run_in_ranges(work, [(0, 1), (1, 2)], 1)
    assert seen == {threading.current_thread()}


def test_threads_work_at_the_same_time() -> None:
    meet = threading.Barrier(2, timeout=20)
    run_in_ranges(lambda start, stop: meet.wait(), [(0, 1), (1, 2)], 2)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_first_error_is_raised_and_the_rest_dropped(threads: int) -> None:
    done = []

    def work(start: int, stop: int) -> None:
        if start == 0:
            raise KeyError("first")
        time.sleep(0.001)  # time for the caller to drop what has not begun
        done.append(start)

    before = threading.active_count()
    with pytest.raises(KeyError, match="first"):
        run_in_ranges(work, [(i, i + 1) for i in range(2000)], threads)
    assert len(done) < 1999
    assert threading.active_count() == before
