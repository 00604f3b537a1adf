"""Benches on tiny inputs: every way has a row, and the numbers follow from the definitions."""

import importlib
import json
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from builders.system_inputs import collection_of
from builders.text_encoders import HashEncoder
from typer.testing import CliRunner

import muvera
from experiments.__main__ import app
from experiments.bench import (
    cold,
    dial,
    distractors,
    first_stage,
    growth,
    load_test,
    mixed,
    plumbing,
    pruning,
    searches,
    speed,
    tokens,
    vectors,
)
from experiments.bench.grown_documents import BLOCK, LONGEST, SHORTEST, GrownDocuments
from experiments.datasets.collection import Collection
from experiments.datasets.synthetic import synthetic_collection
from experiments.peers.environments import MUVERA
from experiments.peers.workers import first_call
from experiments.peers.workers.serve import operations_of
from experiments.report.studies import study_text
from muvera import LearnedConfig, MultiVectors, TextIndex, chamfer_matrix
from muvera.encoders.registry import preset_config

pytestmark = pytest.mark.compiled("measures compiled kernels")

MACHINE = {"processor": "x", "cores": 2, "load": 0, "python": "3", "numpy": "2", "numba": "0"}


@pytest.fixture(scope="module")
def real() -> MultiVectors:
    """Documents whose tokens vary less within a document than across documents."""
    rng = np.random.default_rng(0)
    centers = np.repeat(rng.standard_normal((250, 8)), 9, axis=0)
    centers[:, 0] += 2
    rows = centers + 0.7 * rng.standard_normal((2250, 8))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return MultiVectors.from_flat(rows.astype(np.float32), [9] * 250)


def test_jobs_take_turns_after_a_round_that_does_not_count() -> None:
    calls: list[str] = []

    def job(name: str) -> Any:
        return lambda: (calls.append(name), (len(calls), 1.0))[1]  # type: ignore[func-returns-value]

    seconds = plumbing.interleaved({name: job(name) for name in "abc"}, 2, lambda: calls.append("|"))
    assert "".join(calls) == "|abc|abc|bca"
    assert seconds["a"].tolist() == [[6, 12], [1, 1]]


def test_every_codec_and_every_way_to_skip_candidates_has_a_row(real: MultiVectors) -> None:
    collection = collection_of(real)
    found = tokens.measure([collection], rounds=1)
    codecs = ["int8", "4bit", "2bit", "1bit"]
    assert [row["codec"] for row in found["quality"]] == [*codecs, *tokens.PLAID]
    assert all(0 < row["recall_10"] <= row["recall_20"] <= 1 for row in found["quality"])
    ways = {(row["way"], row["checked"]) for row in found["speed"]}
    assert ways == {("float32", False), ("float16", False), *((c, x) for c in codecs for x in (False, True))}
    assert "small, 2bit" in study_text("tokens", {**found, "machine": MACHINE, "rounds": 1})
    rows = pruning.measure([collection], rounds=1, cache=None)
    by_way = {row["way"]: row for row in rows}
    assert list(by_way)[:2] == ["all products", pruning.BASE] and len(by_way) == 9
    for name in (pruning.BASE, "bounds, int8 codes' order", "bounds, 1bit codes' order"):
        assert by_way[name]["same"] == 1 and 0 < by_way[name]["products"] <= 1
    assert by_way["bounds, alpha 0.1"]["same"] <= by_way["bounds, alpha 0.5"]["same"] <= 1
    assert "small, all products" in study_text("pruning", {"rows": rows, "machine": MACHINE, "rounds": 1})


def test_dial_beside_fixed_numbers(real: MultiVectors) -> None:
    rows = dial.measure([collection_of(real)], rounds=1, kinds=("float32",))
    assert [row["target"] for row in rows] == [0.9, 0.95, 0.98, 0.99]
    assert all(row["recall"] > row["target"] - 0.1 and row["fixed"] <= 250 for row in rows)
    assert "small, float32" in study_text("dial", {"rows": rows, "machine": MACHINE, "rounds": 1})


def test_searches_at_equal_recall_and_in_all_ways(real: MultiVectors) -> None:
    found = searches.measure([collection_of(real)], rounds=1, kinds=("float32", "int8"))
    rows = {(row["kind"], row["target"]): row for row in found["codecs"]}
    assert rows["float32", 0.9]["share"] == 1 and rows["int8", 0.9]["recall"] >= 0.9
    assert {row["name"] for row in found["ways"]} == {"20 documents", "small, float32", "small, int8"}
    assert "small, int8" in study_text("searches", {**found, "machine": MACHINE, "rounds": 1})


@pytest.mark.parametrize("kind", distractors.KINDS)
def test_candidates_do_not_fall_as_distractors_are_added(kind: distractors.Kind) -> None:
    collection = synthetic_collection("quick-cone")
    few, more = (
        MultiVectors.concatenate(list(distractors.documents_of(collection.documents, kind, 0, stop)))
        for stop in (200, 600)
    )
    np.testing.assert_array_equal(few[:150].tokens, collection.documents.tokens.astype(few.tokens.dtype))
    if kind == "made":
        np.testing.assert_array_equal(few.tokens, more[:200].tokens)
    else:  # the mean and the covariance of the tokens
        noise, own = (texts.tokens.astype(np.float64) for texts in (more[150:], collection.documents))
        assert np.linalg.norm(noise.mean(axis=0) - own.mean(axis=0)) < 0.05
        assert np.linalg.norm(np.cov(noise.T) - np.cov(own.T)) < 0.35 * np.linalg.norm(np.cov(own.T))
    encoders = distractors.fitted_encoders(collection.documents, ["mean"])
    before, after = distractors.measure(collection, [150, 600], encoders, kind)
    assert (before["floats"], before["distractors"]) == (129, 0)
    assert 10 <= before["candidates"] <= 150 and after["candidates"] <= 600
    assert kind == "made" or before["candidates"] <= after["candidates"]
    with pytest.raises(ValueError, match=r"at least 150, .* got 20"):
        distractors.measure(collection, [20], encoders)
    with pytest.raises(ValueError, match="There is no encoder 'means'"):
        distractors.fitted_encoders(collection.documents, ["means"])
    assert distractors.needed_rank(np.array([[1, 2, 3, 100]]), 0.75) == 3
    assert distractors.needed_rank(np.array([[1, 2, 3, 100]]), 0.76) == 100


def test_a_made_document_is_a_function_of_its_number_and_varies_as_real_ones(real: MultiVectors) -> None:
    documents = GrownDocuments(real)

    def joined(stop: int, start: int = 0) -> MultiVectors:
        return MultiVectors.concatenate(list(documents.batches(stop, start)))

    few, many = joined(BLOCK + 3), joined(BLOCK + 40, start=7)
    assert few.ids.tolist() == list(range(BLOCK + 3)) and many.ids.tolist() == list(range(7, BLOCK + 40))
    for a, b in zip(few[7:], many, strict=False):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(np.asarray(few[3], np.float32), real[3], atol=1e-3)
    assert set(few.lengths[250:].tolist()) == set(range(SHORTEST, LONGEST + 1))
    other = next(GrownDocuments(real, seed=1).batches(300, 260))
    assert not np.array_equal(other[0][:5], few[260][:5])

    def variances(texts: MultiVectors) -> tuple[float, float]:
        means = np.stack([np.asarray(text, np.float32).mean(axis=0) for text in texts])
        within = [((np.asarray(t, np.float32) - m) ** 2).sum() for t, m in zip(texts, means, strict=True)]
        return float(means.var(axis=0).sum()), float(np.sum(within) / texts.num_tokens)

    # Generated documents have eight times the tokens, and length 1 again.
    np.testing.assert_allclose(variances(joined(4000)[250:]), variances(real), rtol=0.25)


def test_growth_measures_each_step_once_and_continues(
    real: MultiVectors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection: Any = collection_of(real)
    (tmp_path / "best").mkdir()
    monkeypatch.setattr(growth, "_KEPT_AFTER", 1)
    whole = chamfer_matrix(
        collection.queries, MultiVectors.concatenate(list(GrownDocuments(real).batches(3000)))
    )
    growth.best_documents(collection, collection.queries, 300, tmp_path / "best")
    best = growth.best_documents(collection, collection.queries, 3000, tmp_path / "best")
    np.testing.assert_array_equal(best, np.argsort(-whole, axis=1, kind="stable")[:, : growth.K])
    assert sorted(path.name for path in (tmp_path / "best").iterdir()) == ["300.npz", "3000.npz"]
    monkeypatch.setattr(growth, "load_collection", lambda path: path)
    monkeypatch.setattr(growth, "in_new_process", lambda work, *arguments: work(*arguments))
    settings = growth.GrowthSettings("small", encoder="mean", judged=3)
    rows = [growth.measure_size(collection, settings, count, tmp_path) for count in (400, 800)]
    again = growth.measure_size(collection, settings, 800, tmp_path)
    assert again == rows[1] == json.loads(json.dumps(rows[1]))
    assert not list(tmp_path.glob("*.index"))
    assert rows[1]["quick_recall"] > 0.9 and rows[1]["save_bytes"] > 0
    shown = {"collection": "small", "real": True, "encoder": "mean", "backend": "scan", "codec": "2bit"}
    run = {**shown, "keep_exact": True, "judged": 3, "rows": rows}
    assert "10-recall@10" in study_text("growth", {"runs": [run]})


def test_first_stage_compares_searches_of_the_same_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_stage, "COUNTS", (20,))
    monkeypatch.setattr(first_stage, "_BLOCK", 2000)
    own = np.random.default_rng(0).standard_normal((3000, 16)).astype(np.float32)
    vectors = partial(first_stage.made_vectors, own)
    np.testing.assert_array_equal(np.concatenate([vectors(0, 2000), vectors(2000, 4000)])[:3000], own)
    rows = list(first_stage.measure("small", vectors, own[:20], {3000: True, 4000: False}, 3000))
    graphs = [f"hnsw, ef={20 * breadth}" for breadth in (1, 2, 4)]
    assert [row["search"] for row in rows] == ["exact", "scan", *graphs, "exact", "scan"]
    assert rows[0]["recall"] == rows[5]["recall"] == 1 and min(row["recall"] for row in rows) > 0.5
    assert "4,000 made" in study_text("first_stage", {"machine": MACHINE, "rows": rows})


def test_encoders_of_another_collection_find_less_until_they_are_rebuilt() -> None:
    def part(name: str, axes: slice, seed: int) -> Any:
        """Documents of unit tokens in some of the axes alone."""
        rng = np.random.default_rng(seed)
        rows = np.zeros((900, 16), np.float32)
        width = rows[:, axes].shape[1]
        rows[:, axes] = np.repeat(rng.standard_normal((150, width)), 6, axis=0)
        rows[:, axes] += rng.standard_normal((900, width))
        documents = MultiVectors.from_flat(rows / np.linalg.norm(rows, axis=1, keepdims=True), [6] * 150)
        queries = MultiVectors.from_arrays([documents[i][:3] for i in range(0, 150, 5)])
        return collection_of(documents, queries, name=name)

    learned = LearnedConfig(
        dimension=16, vector_dimension=24, num_landmarks=256, num_features=64, training_epochs=0
    )
    encoders: dict[str, Any] = {"mean": preset_config("mean", 16), "learned": learned}
    first, second = part("low", slice(0, 8), 0), part("high", slice(8, 16), 1)
    header, rows = mixed.measure(first, second, encoders)
    table = {row[0]: [float(cell) if cell else 0.0 for cell in row[2:]] for row in rows}
    assert header[2] == "low, then high: before" and rows[0][1] == "17"
    # 30 queries of ten: a share is known to .03.
    before, rebuilt, before_2, rebuilt_2 = table["learned"]
    assert rebuilt > before + 0.1 and rebuilt_2 > before_2 + 0.1
    assert table["mean"][0] > table["mean"][1] - 0.1
    assert mixed.mixed_results(header, rows)["tables"][0]["rows"] == rows
    assert {config.kind for config in mixed.mixed_encoders(64).values()} == {"fde", "moments", "learned"}


def test_the_default_vectors_are_measured(real: MultiVectors) -> None:
    documents, other = real[:130], MultiVectors.from_arrays([-text for text in real])
    ids = [str(i) for i in range(len(real))]
    first = Collection("first", documents, documents[:20], "1", ids[:130], ids[:20])
    second = Collection("second", other, other[:0], "2", ids, [])
    wide = vectors.wide_table(first, [12])
    assert [row[0] for row in wide.rows] == ["8", "12"] and min(float(row[-1]) for row in wide.rows) == 1
    assert [row[2] for row in vectors.presets_table([first]).rows] == ["mean", "fde", "moments"]
    chosen = vectors.choice_table([second])
    assert chosen.rows[0][2] == "moments" and float(chosen.rows[0][4]) > 0.5
    added = vectors.added_table([(second, first)], 60)
    assert [row[6] for row in added.rows] == ["no", "no"] and int(added.rows[1][5]) >= 8


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="uses files of Linux")
def test_cold_reads_are_measured_in_every_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        found = cold.measure(tmp_path, megabytes=16, tokens=32, rounds=1)
    except RuntimeError as error:  # a file system in memory cannot drop pages
        pytest.skip(str(error))
    names = ("", ", prefetched", ", 2-bit pre-ranking")
    assert list(found["milliseconds"]) == [f"{state}{name}" for state in ("warm", "cold") for name in names]
    assert found["documents"] == (16 << 20) // (32 * 256)
    run = {**found, "megabytes": 16, "tokens": 32, "memory": 0, "machine": MACHINE, "limited": []}
    assert "cold, prefetched" in study_text("cold", {"runs": [{**run, "read_ahead_kb": 128}]})
    monkeypatch.setattr(cold, "resident_share", lambda array: 0.25)
    with pytest.raises(RuntimeError, match=r"25\.0% of the pages"):
        cold.measure(tmp_path, megabytes=16, tokens=32, rounds=1)


def test_limits_of_memory_and_read_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cold, "_DEVICES", tmp_path)
    with cold.read_ahead_of(tmp_path) as kb:
        assert kb is None
    with pytest.raises(OSError, match="cannot be set"), cold.read_ahead_of(tmp_path, 8):
        pass
    number = tmp_path.stat().st_dev
    device = f"{number >> 8 & 0xFFF}:{number & 0xFF | number >> 12 & 0xFFF00}"
    setting = tmp_path / device / "queue" / "read_ahead_kb"
    setting.parent.mkdir(parents=True)
    setting.write_text("4096\n")
    with cold.read_ahead_of(tmp_path, 128) as kb:
        assert (kb, setting.read_text()) == (128, "128")
    assert setting.read_text() == "4096"
    try:
        with cold.limited_group(200 << 20):
            pass
        rows = cold.under_limit(tmp_path, megabytes=64, tokens=64, memory=24, queries=2)
    except (OSError, RuntimeError):  # no control groups, or nothing can be dropped here
        rows = []
    assert [row["way"] for row in rows] == list(cold.WAYS)[: len(rows)]
    assert all(0 < row["p50"] <= row["p99"] and row["resident"] < 0.5 for row in rows)
    monkeypatch.setattr(cold, "_GROUPS", tmp_path / "missing")
    with pytest.raises(OSError, match="No control group"), cold.limited_group(1):
        pass


class Server(BaseHTTPRequestHandler):
    """Acknowledges everything and keeps nothing."""

    status: ClassVar[int] = 200
    seen: ClassVar[set[tuple[str, str | None]]] = set()

    def _answer(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.add((self.command, self.headers["Authorization"]))
        self.send_response(self.status)
        self.end_headers()

    do_POST = do_PUT = do_DELETE = _answer  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("status", [200, 500])
def test_acknowledged_writes_that_are_missing_are_lost(
    address: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Server, "status", status)
    writer = load_test.Writer(address, ["a red apple", "the sky"], per_second=1000)
    writer.start()
    while writer.requests < 30:
        pass
    writer.stop()
    if status == 500:
        assert writer.failed == writer.requests
        assert writer.lost(TextIndex.build([], HashEncoder())) == 0
        return
    assert writer.failed == 0
    assert Server.seen == {(method, f"Bearer {load_test.TOKEN}") for method in ("POST", "PUT", "DELETE")}
    live = {name: text for name, text in writer.expected.items() if text is not None}
    kept = TextIndex.build(list(live.values()), HashEncoder(), ids=list(live))
    assert writer.lost(kept) == 0
    first, second = list(live)[:2]
    kept.delete([first])
    kept.update(["another text"], ids=[second])
    assert writer.lost(kept) == 2


def test_the_sentences_of_a_load_test() -> None:
    numbers = {"connections": 64, "threads": 2, "seconds": 60.0, "requests": 6000, "errors": 0}
    numbers |= {"p50": 10.0, "p95": 20.0, "p99": 30.0, "requests_per_second": 100.0}
    numbers |= {"library_per_second": 125.0, "writes": 300, "failed_writes": 0, "lost_writes": 1}
    said = load_test.sentences(numbers)
    for part in ("6,000 searches, 0 errors", "p95 20.0 ms", "80% of the library", "0 failed, 1 lost"):
        assert part in said


def test_ratios_of_speed_are_taken_round_by_round() -> None:
    job, fast, slow = (speed.Job(MUVERA, name) for name in ("chamfer", "sgemm_512", "sgemm_1024"))
    seconds = {
        job.name: np.array([[1.0, 2.0, 4.0], [1, 1, 1]]),
        fast.name: np.array([[0.5, 1.0, 1.0], [1, 1, 1]]),
        slow.name: np.array([[8.0, 4.0, 16.0], [8, 8, 8]]),
    }
    sizes = speed.Sizes(documents=3, equal_documents=4)
    line = speed.Line("chamfer", "Chamfer / peak", job, (fast, slow), "GFLOP/s")
    found = speed.compare(line, seconds, sizes)
    work, square = 2e-9 * 32 * 4 * 150 * 128, 2e-9 * 512**3
    # In the second round the larger product has the higher rate.
    expected = np.array([0.5 * work / square, 0.5 * work / (2 * square), 0.25 * work / square])
    assert found["ratio"] == pytest.approx(np.median(expected), rel=1e-3)
    assert found["greatest"] == pytest.approx(expected.max(), rel=1e-3)
    assert found["processor_ratio"] == pytest.approx(work / square, rel=1e-3)
    slower = speed.Line("decode", "decode / fill", job, (fast,), "ms", slower=True)
    assert speed.compare(slower, seconds, sizes)["ratio"] == 2


def test_speed_runs_its_worker_and_names_existing_operations(tmp_path: Path) -> None:
    sizes = speed.Sizes(documents=3, equal_documents=4)
    speed.write_inputs(tmp_path, sizes)
    rows = np.load(tmp_path / "documents.npy")
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-6)
    small, large = speed.Job(MUVERA, "sgemm_512", 2), speed.Job(MUVERA, "sgemm_1024")
    lines = [speed.Line("product", "small / large", small, (large,), "ms", "5x")]
    results = speed.run(lines, tmp_path, sizes, 2, tmp_path / "unused")
    (line,) = results["lines"]
    assert 0 < line["least"] <= line["ratio"] <= line["greatest"] and 0 < results["share"] <= 1.1
    shown = {**results, "machine": MACHINE, "rounds": 2, "first_calls": []}
    assert "small / large" in study_text("speed", shown)
    for line in speed.LINES:
        for job in (line.muvera, *line.others):
            module = importlib.import_module(f"experiments.peers.workers.{job.library.worker}")
            assert job.operation in operations_of(module), job.name
    for work in first_call.calls(muvera).values():
        work()


def test_text_speed_measures_filters_and_spans() -> None:
    result = CliRunner().invoke(app, ["texts", "--documents", "200", "--rounds", "1"])
    assert result.exit_code == 0, result.output
    assert len(result.output.splitlines()) == 6
