"""Worker processes: options, one call a text, and what is said when one ends."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from experiments.peers import environments as peers
from experiments.peers.environments import Library, Worker, save_texts

STAND_IN = """
import os
import sys

calls = []


def scaled(inputs, factor=1):
    calls.append(("prepared", factor))
    return lambda text: text.sum(axis=0) * factor


def count(inputs):
    return lambda: len(calls)


def end(inputs, words=""):
    def work():
        sys.stderr.write(words)
        sys.stderr.flush()
        os._exit(3)

    return work


OPERATIONS = {"scaled": scaled, "count": count, "end": end}
"""

TEXTS = [np.ones((2, 3), np.float32), np.full((1, 3), 5, np.float32)]


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    """A worker of a library that stands in for a real one, in this environment."""
    folder = tmp_path / "workers"
    folder.mkdir()
    shutil.copy(peers.WORKERS / "serve.py", folder)
    (folder / "stand_in_jobs.py").write_text(STAND_IN)
    monkeypatch.setattr(peers, "WORKERS", folder)
    save_texts(tmp_path, "texts", TEXTS)
    with Worker(Library("stand-in", "stand_in_jobs"), tmp_path, tmp_path) as made:
        yield made


def test_an_operation_is_called_with_each_text(worker: Worker, tmp_path: Path) -> None:
    results, seconds = worker.each("scaled", "texts", tmp_path, factor=3)
    np.testing.assert_array_equal(results, [[6, 6, 6], [15, 15, 15]])
    assert seconds.shape == (2, 2)
    assert (seconds[0] > 0).all()
    assert not list(tmp_path.glob("result-*"))


def test_texts_are_read_anew_and_operations_prepared_once_an_option(worker: Worker, tmp_path: Path) -> None:
    worker.each("scaled", "texts", tmp_path, factor=2)
    save_texts(tmp_path, "texts", TEXTS[1:])
    results, _ = worker.each("scaled", "texts", tmp_path, factor=2)
    np.testing.assert_array_equal(results, [[10, 10, 10]])
    worker.each("scaled", "texts", tmp_path)
    assert worker.result("count", tmp_path) == 2


def test_a_worker_that_ends_says_its_last_words(worker: Worker) -> None:
    with pytest.raises(RuntimeError, match=r"^stand-in, end: the process ended: out of luck$"):
        worker.time("end", words="first\nout of luck\n")
    # And nothing hangs afterwards.
    with pytest.raises(RuntimeError, match=r"^stand-in, count: the process ended: out of luck$"):
        worker.time("count")


def test_a_silent_end_gives_the_exit_code(worker: Worker) -> None:
    with pytest.raises(RuntimeError, match=r"the process ended: exit code 3$"):
        worker.time("end")


def test_a_missing_library_is_named(tmp_path: Path) -> None:
    with (
        Worker(Library("nothing", "nothing_jobs"), tmp_path, tmp_path) as worker,
        pytest.raises(
            RuntimeError, match=r"nothing, x: the process ended: ModuleNotFoundError: .*nothing_jobs"
        ),
    ):
        worker.time("x")
