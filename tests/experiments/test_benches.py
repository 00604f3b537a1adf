"""Benches on tiny inputs: every way has a row, and the numbers follow from the definitions."""

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.small_runs import collection_of

from experiments.bench import first_stage, growth, plumbing, searches, speed, tokens, vectors
from experiments.bench.grown_documents import BLOCK, LONGEST, SHORTEST, GrownDocuments
from experiments.datasets.collection import Collection
from experiments.peers.environments import MUVERA, PEERS
from experiments.peers.workers.serve import operations_of
from experiments.report.table import Table
from muvera import MultiVectors, chamfer_matrix


@pytest.fixture(scope="module")
def real() -> MultiVectors:
    """Documents whose tokens vary less within a document than across documents."""
    rng = np.random.default_rng(0)
    centers = np.repeat(rng.standard_normal((250, 8)), 9, axis=0)
    centers[:, 0] += 2
    rows = centers + 0.7 * rng.standard_normal((2250, 8))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return MultiVectors.from_flat(rows.astype(np.float32), [9] * 250)


def column(table: Table, name: str) -> list[Any]:
    return [row[table.header.index(name)] for row in table.rows]


def test_jobs_take_turns_after_a_round_that_does_not_count() -> None:
    calls: list[str] = []

    def job(name: str) -> Any:
        return lambda: (calls.append(name), (len(calls), 1.0))[1]  # type: ignore[func-returns-value]

    seconds = plumbing.interleaved({name: job(name) for name in "abc"}, 2)
    assert "".join(calls) == "abcabcbca"
    assert seconds["a"].tolist() == [[4, 9], [1, 1]]


def test_every_codec_has_a_row(real: MultiVectors) -> None:
    table = tokens.measure([collection_of(real)])
    names = ["int8", "4bit", "2bit", "1bit", *tokens.PLAID]
    assert column(table, "collection, codec") == [f"small, {name}" for name in names]
    recalls = zip(column(table, "10-recall@10"), column(table, "@20"), strict=True)
    assert all(0 < first <= second <= 1 for first, second in recalls)


def test_dial_and_fixed_numbers(real: MultiVectors) -> None:
    table = searches.measure_dial([collection_of(real)], rounds=1, kinds=("float32",))
    assert column(table, "`recall=`") == [0.9, 0.95, 0.98, 0.99]
    for target, recall in zip(column(table, "`recall=`"), column(table, "10-recall@10"), strict=True):
        assert recall > target - 0.1
    assert max(column(table, "fixed number with that recall")) <= 250


def test_searches_at_equal_recall_and_in_all_ways(real: MultiVectors) -> None:
    codecs, ways = searches.measure([collection_of(real)], rounds=1, kinds=("float32", "int8"))
    rows = {tuple(row[:2]): row for row in codecs.rows}
    assert rows["small, float32", 0.9][5] == 1 and rows["small, int8", 0.9][3] >= 0.9
    assert set(column(ways, "index")) == {"20 documents", "small, float32", "small, int8"}


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
    whole = MultiVectors.concatenate(list(GrownDocuments(real).batches(3000)))
    exact = np.argsort(-chamfer_matrix(collection.queries, whole), axis=1, kind="stable")
    for count in (300, 3000):
        best = growth.best_documents(collection, collection.queries, count, tmp_path / "best")
    np.testing.assert_array_equal(best, exact[:, : growth.K])
    assert sorted(path.name for path in (tmp_path / "best").iterdir()) == ["300.json", "3000.json"]
    monkeypatch.setattr(growth, "load_collection", lambda path: path)
    monkeypatch.setattr(growth, "in_new_process", lambda work, *arguments: work(*arguments))
    settings = growth.GrowthSettings("small", encoder="mean", judged=3)
    rows = [growth.measure_size(collection, settings, count, tmp_path) for count in (400, 800)]
    again = growth.measure_size(collection, settings, 800, tmp_path)
    assert again == rows[1] == json.loads(json.dumps(rows[1]))
    assert not list(tmp_path.glob("*.index"))
    assert rows[1]["fast_recall"] > 0.9 and rows[1]["save_bytes"] > 0
    table = growth.growth_table(settings, rows, real=False)
    assert table.header == ["quantity", "400", "800"] and len(table.cells) == 24


def test_first_stage_compares_searches_of_the_same_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_stage, "COUNTS", (20,))
    monkeypatch.setattr(first_stage, "_BLOCK", 2000)
    own = np.random.default_rng(0).standard_normal((3000, 16)).astype(np.float32)
    made = [first_stage.made_vectors(own, start, start + 2000) for start in (0, 2000)]
    np.testing.assert_array_equal(np.concatenate(made)[:3000], own)
    rows = list(first_stage.measure("small", own, own[:20], [3000, 4000], 3000))
    kinds = ["exact", "scan", "hnsw, ef=20", "hnsw, ef=40", "hnsw, ef=80", "exact", "scan"]
    assert [row["search"] for row in rows] == kinds
    assert rows[0]["recall"] == rows[5]["recall"] == 1 and min(row["recall"] for row in rows) > 0.5
    (table,) = first_stage.tables_of(rows, "")
    assert table.rows[-1][0] == "4,000 generated"


def test_encoders_of_another_collection_find_less_until_they_are_rebuilt() -> None:
    def part(name: str, first: int) -> Collection:
        """Documents of unit tokens in eight of the axes alone."""
        rng = np.random.default_rng(first)
        rows = np.zeros((1800, 16), np.float32)
        rows[:, first : first + 8] = np.repeat(rng.standard_normal((300, 8)), 6, axis=0)
        rows[:, first : first + 8] += rng.standard_normal((1800, 8))
        documents = MultiVectors.from_flat(rows / np.linalg.norm(rows, axis=1, keepdims=True), [6] * 300)
        queries = MultiVectors.from_arrays([documents[i][:3] for i in range(0, 300, 5)])
        return collection_of(documents, queries, name=name)

    found = vectors.mixed_table(part("low", 0), part("high", 8), ("mean", "moments"))
    assert found.header[2] == "low, then high: before" and found.rows[0][1] == "17"
    shares = {row[0]: [float(cell) for cell in row[2:]] for row in found.rows}
    before, rebuilt, before_2, rebuilt_2 = shares["moments"]
    assert rebuilt > before + 0.05 and rebuilt_2 > before_2 + 0.05
    assert shares["mean"][0] > shares["mean"][1] - 0.1


def test_the_default_vectors_are_measured(real: MultiVectors) -> None:
    documents, other = real[:130], MultiVectors.from_arrays([-text for text in real])
    ids = [str(i) for i in range(len(real))]
    first = Collection("first", documents, documents[:20], "1", ids[:130], ids[:20])
    second = Collection("second", other, other[:0], "2", ids, [])
    wide = vectors.wide_table(first, [12])
    assert [row[0] for row in wide.rows] == ["8", "12"] and min(float(row[-1]) for row in wide.rows) == 1
    table = vectors.encoders_table("Presets", [first], vectors.PLAIN)
    assert column(table, "encoder") == ["mean", "fde", "moments"]
    (fit,) = vectors.fit_table([first]).rows
    assert fit[:2] == ["first", "130"] and float(fit[-1]) == 1
    chosen = vectors.choice_table([second])
    assert chosen.rows[0][2] == "moments" and float(chosen.rows[0][4]) > 0.5
    added = vectors.added_table([(second, first)], 60)
    assert column(added, "warning") == ["no", "no"] and int(added.rows[1][5]) >= 8


def test_ratios_of_speed_are_taken_round_by_round() -> None:
    line = speed.Line("encode / theirs", "documents_batch", "theirs", "documents_single")
    own, other = line.jobs
    seconds = {own: np.array([[1.0, 2.0, 4.0], [1, 1, 1]]), other: np.array([[4.0, 4.0, 4.0], [3, 3, 3]])}
    found = speed.compare(line, seconds, 100)
    assert found[1:] == [50.0, 25.0, "documents/s", "2.00x", "1.00 - 4.00", "3.00x"]
    score = line._replace(own="chamfer")
    found = speed.compare(score, {score.jobs[0]: seconds[own], other: seconds[other]}, 100)
    assert found[1:4] == [2000, 4000, "ms"]


def test_speed_runs_its_worker_and_names_existing_operations(tmp_path: Path) -> None:
    speed.write_inputs(tmp_path, 3, 4)
    lines = [speed.Line("batch / single", "documents_batch", MUVERA.name, "documents_single")]
    (table,) = speed.run(lines, tmp_path, 3, 2, tmp_path / "unused")
    assert table.rows[0][0] == "batch / single"
    for line in speed.LINES:
        for name, operation in line.jobs:
            worker = (MUVERA if name == MUVERA.name else PEERS[name]).worker
            module = importlib.import_module(f"experiments.peers.workers.{worker}")
            assert operation in operations_of(module), operation
