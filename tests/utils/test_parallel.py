"""Threads: ranges that cover everything once, and errors that reach the caller."""

import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muvera.utils import parallel
from muvera.utils.parallel import (
    SMALL,
    run_in_ranges,
    split_by_count,
    split_by_weight,
    split_for_threads,
    thread_count,
    threads_for_short_work,
)


def test_thread_count(monkeypatch: pytest.MonkeyPatch) -> None:
    assert thread_count(3) == 3 and thread_count(np.int64(2)) == 2
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 5, 7}, raising=False)
    assert thread_count(None) == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert thread_count(None) == 1


@pytest.mark.parametrize("threads", [0, 2.0])
def test_wrong_thread_counts(threads: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=f"threads .*{threads}.*None"):
        thread_count(threads)


@settings(max_examples=30)
@given(st.lists(st.integers(0, 4), max_size=40), st.integers(1, 9), st.integers(1, 12))
def test_ranges_cover_all_in_order(weights: list[int], weight: int, most: int) -> None:
    cumulative = np.concatenate([[0], np.cumsum(weights, dtype=np.int64)])
    ranges = split_by_weight(cumulative, weight, most)
    assert [i for start, stop in ranges for i in range(start, stop)] == list(range(len(weights)))
    for start, stop in ranges:
        assert 1 <= stop - start <= most
        # A range ends as soon as it is heavy enough: without its last item it is too
        # light.
        assert sum(weights[start : stop - 1]) < weight
        if stop < len(weights) and stop - start < most:
            assert sum(weights[start:stop]) >= weight


def test_ranges_of_one_size() -> None:
    assert split_by_count(5, 2) == [(0, 2), (2, 4), (4, 5)]
    assert split_by_count(2, 0) == [(0, 1), (1, 2)] and split_by_count(0, 3) == []


@given(st.integers(0, 400), st.integers(1, 20), st.integers(0, 20), st.integers(1, 9))
def test_threads_get_ranges_of_one_size(count: int, least: int, more: int, threads: int) -> None:
    ranges = split_for_threads(count, least, least + more, threads)
    sizes = [stop - start for start, stop in ranges]
    assert [i for start, stop in ranges for i in range(start, stop)] == list(range(count))
    assert len(set(sizes[:-1])) <= 1 and max(sizes, default=0) <= max(least + more, 0)
    assert len(ranges) <= 1 or sizes[0] >= least
    # No thread works on more than one range above its share.
    if ranges and count >= least * threads:
        assert -(-len(ranges) // threads) * sizes[0] <= count / threads + 2 * sizes[0]


def test_300_queries_are_as_many_for_each_of_two_threads() -> None:
    assert split_for_threads(300, 8, 16, 2) == split_by_count(300, 15)
    assert split_for_threads(20, 8, 16, 2) == [(0, 10), (10, 20)]
    assert split_for_threads(15, 8, 16, 2) == [(0, 15)] and split_for_threads(300, 8, 16, 1)[0] == (0, 16)


def meet_twice() -> None:
    """Two ranges run at the same time on two threads."""
    meet = threading.Barrier(2, timeout=20)
    run_in_ranges(lambda start, stop: meet.wait(), [(0, 1), (1, 2)], 2)


@pytest.mark.parametrize("threads", [1, 2, 7, None])
def test_every_range_is_worked_once(threads: int | None) -> None:
    done = np.zeros((8, 8), np.int64)

    def work(start: int, stop: int) -> None:
        def inside(first: int, last: int) -> None:
            done[start, first:last] += 1

        run_in_ranges(inside, [(i, i + 2) for i in range(0, 8, 2)], threads)

    # Ranges within ranges do not wait for each other.
    run_in_ranges(work, [(i, i + 1) for i in range(8)], threads)
    assert (done == 1).all()
    run_in_ranges(work, [], threads)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_first_error_is_raised_and_the_rest_dropped(threads: int) -> None:
    done = []

    def work(start: int, stop: int) -> None:
        if start == 0:
            raise KeyError("first")
        time.sleep(0.001)  # time for the caller to drop the rest
        done.append(start)

    with pytest.raises(KeyError, match="first"):
        run_in_ranges(work, [(i, i + 1) for i in range(1000)], threads)
    dropped = len(done)
    assert dropped < 999
    time.sleep(0.02)
    assert len(done) == dropped  # no thread works on


def test_small_work_stays_on_the_calling_thread_and_threads_are_kept() -> None:
    workers = set()

    def work(start: int, stop: int) -> None:
        workers.add(threading.get_ident())
        time.sleep(0.002)

    ranges = [(i, i + 1) for i in range(20)]
    run_in_ranges(work, ranges, 2, SMALL - 1)
    run_in_ranges(work, ranges[:1], 2)
    assert workers == {threading.get_ident()}
    run_in_ranges(work, ranges, 2, SMALL)
    threads = threading.active_count()
    for _ in range(5):
        run_in_ranges(work, ranges, 2)
    assert len(workers) > 1 and threading.active_count() == threads


def test_short_work_stays_alone_after_its_threads_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "_alone_until", 0.0)
    monkeypatch.setattr(parallel, "_LONG", 60.0)

    def work(start: int, stop: int) -> None:
        time.sleep(0.01)  # like a thread that waits for a core
        sum(range(1000))

    run_in_ranges(work, [(0, 1), (1, 2)], 2)
    assert threads_for_short_work(None) is None
    run_in_ranges(work, [(0, 1), (1, 2)], None)
    waits = thread_count(None) > 1
    assert threads_for_short_work(None) == (1 if waits else None) and threads_for_short_work(2) == 2
    monkeypatch.setattr(parallel, "_alone_until", time.perf_counter())
    assert threads_for_short_work(None) is None


@pytest.mark.parametrize(
    ("seconds", "spans", "alone"),
    [
        (0.002, [(0.002, 0.001), (0.001, 0.001)], True),  # two threads shared a core
        (0.003, [(0.001, 0.001), (0.003, 0.001)], True),  # one waited for a core
        (0.002, [(0.002, 0.002)], True),  # the other did not even begin
        (0.002, [(0.002, 0.0019), (0.0019, 0.0019)], False),
        (0.002, [(0.002, 0.002), (0.0004, 0.0004)], False),  # uneven work
        (0.2, [(0.2, 0.1), (0.1, 0.1)], False),  # long work has its share of each core
        (0.002, [(0.002, 0.0), (0.002, 0.0)], False),  # a coarse clock
    ],
)
def test_which_threads_waited(
    monkeypatch: pytest.MonkeyPatch, seconds: float, spans: list[tuple[float, float]], alone: bool
) -> None:
    monkeypatch.setattr(parallel, "_alone_until", 0.0)
    parallel._judge(seconds, spans)
    assert (parallel._alone_until > time.perf_counter()) == alone


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own() -> None:
    meet_twice()
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        meet_twice()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_without_new_threads_the_caller_works_alone() -> None:
    script = (
        "import atexit\n"
        "from muvera.utils.parallel import run_in_ranges\n"
        "atexit.register(lambda: run_in_ranges(lambda start, stop: print(start), [(0, 1), (1, 2)], 2))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "0\n1\n" and done.stderr == ""
