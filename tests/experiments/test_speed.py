"""The speed command's parts without the peers: workers, rounds, ratios, thresholds, tables."""

import importlib
from pathlib import Path

import numpy as np
import pytest

from experiments.bench import speed
from experiments.bench.speed import Job, Line, Sizes
from experiments.peers import environments as peers
from experiments.peers.environments import MUVERA, PEERS, Library, Worker, process_environment, save_texts
from experiments.peers.workers.serve import operations_of

TINY = Sizes(documents=3, equal_documents=4, rounds=2)


def unit(stream: np.random.Generator, *shape: int) -> np.ndarray:
    rows = stream.normal(size=shape).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True))


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    speed.write_inputs(tmp_path, TINY, [unit(np.random.default_rng(1), 9, 128), np.eye(3, 128, dtype="f")])
    return tmp_path


def test_inputs_are_seeded_unit_vectors(inputs: Path, tmp_path: Path) -> None:
    lengths = np.load(inputs / "documents_lengths.npy")
    assert len(lengths) == 3
    assert lengths.min() >= 80
    assert lengths.max() <= 220
    tokens = np.load(inputs / "documents.npy")
    np.testing.assert_allclose(np.linalg.norm(tokens, axis=1), 1, rtol=1e-6)
    assert np.load(inputs / "equal_documents.npy").shape == (4, 150, 128)
    again = tmp_path / "again"
    again.mkdir()
    speed.write_inputs(again, TINY)
    np.testing.assert_array_equal(np.load(again / "documents.npy"), tokens)


def test_a_peers_process_has_one_thread_and_no_checkout_on_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "somewhere")
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    theirs = process_environment(PEERS["muvera-python"])
    assert "PYTHONPATH" not in theirs and "OPENBLAS_CORETYPE" not in theirs
    assert {theirs[name] for name in peers.THREAD_VARIABLES} == {"1"}
    assert process_environment(MUVERA, X="y")["PYTHONPATH"] == str(peers.CHECKOUT)


def test_rounds_of_our_own_worker(inputs: Path) -> None:
    """Of what needs no kernel, whose compilation would take longer than all else."""
    small, large = Job(MUVERA, "sgemm_512", 2), Job(MUVERA, "sgemm_1024")
    said: list[str] = []
    lines = [Line("product", "small / large", small, (large,), "ms", "5x")]
    results = speed.run(lines, inputs, TINY, inputs / "unused", said.append)
    (line,) = results["lines"]
    assert 0 < line["least"] <= line["ratio"] <= line["greatest"]
    assert line["processor_ratio"] > 0
    assert results["checks"] == {}
    assert 0 < results["share"] <= 1.1
    assert any("round 2 of 2" in text for text in said)


def test_a_failing_operation_is_reported_with_its_name(inputs: Path) -> None:
    with (
        Worker(Library("stand-in", "fastembed_jobs"), inputs, inputs) as worker,
        pytest.raises(RuntimeError, match=r"stand-in, nothing: KeyError"),
    ):
        worker.time("nothing")


def test_ratios_are_taken_round_by_round() -> None:
    job, fast, slow = (Job(MUVERA, name) for name in ("chamfer", "sgemm_512", "sgemm_1024"))
    seconds = {
        job.name: np.array([[1.0, 2.0, 4.0], [1, 1, 1]]),
        fast.name: np.array([[0.5, 1.0, 1.0], [1, 1, 1]]),
        slow.name: np.array([[8.0, 4.0, 16.0], [8, 8, 8]]),
    }
    line = Line("chamfer", "Chamfer / peak", job, (fast, slow), "GFLOP/s")
    found = speed._compare(line, seconds, TINY)
    work = 2e-9 * 32 * 4 * 150 * 128
    square = 2e-9 * 512**3
    # In the second round the larger product has the higher rate.
    expected = np.array([0.5 * work / square, 0.5 * work / (2 * square), 0.25 * work / square])
    assert found["ratio"] == pytest.approx(np.median(expected), rel=1e-3)
    assert found["greatest"] == pytest.approx(expected.max(), rel=1e-3)
    assert found["processor_ratio"] == pytest.approx(work / square, rel=1e-3)


def test_slower_lines_say_how_many_times_longer() -> None:
    own, other = Job(MUVERA, "decode"), Job(MUVERA, "fill")
    seconds = {own.name: np.array([[0.3], [0.3]]), other.name: np.array([[0.1], [0.1]])}
    found = speed._compare(Line("decode", "decode / fill", own, (other,), "ms", slower=True), seconds, TINY)
    assert (found["muvera"], found["other"], found["ratio"]) == (300, 100, 3)


def test_every_line_names_operations_that_exist() -> None:
    for line in speed.LINES:
        for job in (line.muvera, *line.others):
            module = importlib.import_module(f"experiments.peers.workers.{job.library.worker}")
            assert job.operation in operations_of(module), job.name


def test_ragged_inputs_come_back(tmp_path: Path) -> None:
    from experiments.peers.workers.serve import Inputs

    texts = [np.ones((2, 3), np.float32), np.zeros((1, 3), np.float32)]
    save_texts(tmp_path, "texts", texts)
    for found, expected in zip(Inputs(tmp_path)["texts"], texts, strict=True):
        np.testing.assert_array_equal(found, expected)
