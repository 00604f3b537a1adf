"""Runs with systems made to fail, to be interrupted and to be run again."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from builders.small_runs import CALLS, faulty_system, run, small, summary

from experiments.datasets.discovery import DatasetPath
from experiments.report.result_tables import needed_candidates
from experiments.runner.configuration import load_experiments
from experiments.runner.raw_store import RawStore
from experiments.runner.run import Options, run_experiments

pytestmark = pytest.mark.compiled("searches whole collections")


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    with faulty_system():
        yield


@pytest.mark.parametrize(
    ("fault", "message", "kept"),
    [
        ("build", "RuntimeError: the process ended", False),
        ("search", "RuntimeError: no answer", False),
        ("duplicates", r"returned document \d+ 2 times for query 1", False),
        ("unknown", "returned document 99999, but there are 40", False),
        ("gap", "returned documents behind a -1 for query 0", False),
        ("rising", "returned scores that rise in query 1: best must be first", False),
        ("nan", "returned a score that is not a number", False),
        ("shape", r"returned ids of shape \(12, 1\) instead of \(12, 5\)", False),
        ("few", "returned fewer than 5 documents for 4 queries, at worst 4", True),
        ("scores", "says its scores are exact Chamfer, but 4 of 60 are not: query 0", True),
        ("ways", r"is not timed, for two ways to the same answer differ: 0\.1 is not 0\.2", False),
    ],
)
def test_a_faulty_system_is_named_and_the_rest_goes_on(
    tmp_path: Path, fault: str, message: str, kept: bool
) -> None:
    """Rounds of three queries: a fault in one of a block's shows in all four blocks."""
    systems: list[dict[str, Any]] = [
        {"system": "faulty", "label": "bad", "build": {"fault": fault}},
        {"system": "exhaustive", "label": "good"},
    ]
    failures = run(tmp_path, systems, timed=fault != "shape")
    (failure,) = failures
    assert (failure.experiment, failure.collection, failure.system) == ("mine", "quick-wide", "bad")
    pytest.raises(ValueError, match=message)  # the pattern itself is valid
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(failure.message)
    labels = [row["label"] for row in summary(tmp_path)["rows"]]
    assert labels == (["bad", "good"] if kept else ["good"])
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["failures"] == [vars(failure)]
    assert fault == "build" or CALLS[-1] == f"close {fault}"


def test_a_fault_is_told_once_however_many_points_a_system_has(tmp_path: Path) -> None:
    systems = [
        {
            "system": "faulty",
            "label": "bad",
            "build": {"fault": fault},
            "sweep": {"offset": offsets},
        }
        for fault, offsets in (("ways", [0, 1]), ("none", [2, 3]))
    ]
    (failure,) = run(tmp_path, systems, timed=True)
    assert "two ways" in failure.message
    assert [row["query"] for row in summary(tmp_path)["rows"]] == [{"offset": 2}, {"offset": 3}]


def test_what_is_wrong_with_a_collection_is_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"title": "Mine", "systems": [{"system": "exhaustive"}]}))
    options = Options(tmp_path / "out", tmp_path / "cache", 1, lambda _: None)
    collections: list[Any] = [
        DatasetPath("gone", None, tmp_path),
        replace(small(), problems=["No judgement fits."]),
    ]
    failures = run_experiments(load_experiments([str(path)]), collections, options)
    assert [(failure.collection, failure.system) for failure in failures] == [
        ("gone", "collection"),
        ("quick-wide", "collection"),
    ]
    assert "no embeddings" in failures[0].message and failures[1].message == "No judgement fits."
    assert len(summary(tmp_path)["rows"]) == 1


def test_a_system_that_a_collection_has_nothing_for_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    systems = [{"system": "bm25"}, {"system": "exhaustive"}]
    path.write_text(yaml.safe_dump({"title": "Mine", "systems": systems}))
    options = Options(tmp_path / "out", tmp_path / "cache", 1, lambda _: None)
    bare = replace(small(), document_texts=None)
    assert run_experiments(load_experiments([str(path)]), [bare], options) == []
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert [one["system"] for one in manifest["left_out"]] == ["bm25"]
    assert [row["system"] for row in summary(tmp_path)["rows"]] == ["exhaustive"]


def test_fewer_documents_are_no_fault_where_they_are_allowed(tmp_path: Path) -> None:
    systems = [{"system": "faulty", "build": {"fault": "few"}, "allow_fewer": True}]
    assert run(tmp_path, systems) == []
    assert summary(tmp_path)["rows"][0]["metrics"]["5-recall@5"]["mean"] < 1


def test_exact_chamfer_has_perfect_recall_and_times_of_every_query(tmp_path: Path) -> None:
    assert run(tmp_path, [{"system": "exhaustive"}], timed=True) == []
    (row,) = summary(tmp_path)["rows"]
    assert row["metrics"]["5-recall@5"] == {"mean": 1.0, "low": 1.0, "high": 1.0, "n": 12}
    tokens = small().documents
    assert row["bytes_per_document"] == 0
    assert row["total_bytes_per_document"] == round(tokens.tokens.nbytes / len(tokens), 1)
    assert row["queries_per_second"] > 0
    assert row["latency_ms"]["p50"] <= row["latency_ms"]["p95"] <= row["latency_ms"]["p99"]
    (path,) = (tmp_path / "out" / "raw").rglob("*.npz")
    raw = RawStore(tmp_path).load(path)
    assert raw is not None
    assert raw.ids.shape == raw.scores.shape == raw.chamfer.shape == (12, 5)
    assert (raw.seconds > 0).all()
    np.testing.assert_allclose(raw.scores, raw.chamfer, rtol=1e-6)


def test_systems_take_turns_and_another_one_begins_each(tmp_path: Path) -> None:
    systems = [{"system": "faulty", "label": name, "build": {"fault": name}} for name in ("a", "b", "c", "d")]
    run(tmp_path, systems, timed=True)
    asked = [call.split()[1] for call in CALLS if call.startswith("search")]
    assert asked == ["a", "b", "c", "d", *"abcd", *"bcda", *"cdab", *"dabc"]  # first they warm up


def test_finished_work_is_not_done_again(tmp_path: Path) -> None:
    systems = [{"system": "faulty", "sweep": {"offset": [0, 1]}}]
    run(tmp_path, systems)
    first = summary(tmp_path)
    CALLS.clear()
    run(tmp_path, systems)
    assert CALLS == []
    assert summary(tmp_path) == first
    run(tmp_path, [{"system": "faulty", "sweep": {"offset": [0, 1, 2]}}])
    assert sum(call.startswith("search") for call in CALLS) == 1


def test_an_interrupted_run_goes_on_where_it_was(tmp_path: Path) -> None:
    systems = [
        {"system": "faulty", "label": name, "build": {"fault": name}} for name in ("none", "interrupt")
    ]
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, systems)
    assert CALLS[-1] == "close interrupt"
    assert not (tmp_path / "out" / "summary.json").exists()
    CALLS.clear()
    systems[1]["build"] = {"fault": "late"}
    assert run(tmp_path, systems) == []
    assert not any("none" in call for call in CALLS)
    assert [row["label"] for row in summary(tmp_path)["rows"]] == ["none", "interrupt"]


def test_a_result_that_is_not_whole_is_measured_again(tmp_path: Path) -> None:
    run(tmp_path, [{"system": "faulty"}])
    (path,) = (tmp_path / "out" / "raw").rglob("*.npz")
    path.write_bytes(path.read_bytes()[:100])
    CALLS.clear()
    run(tmp_path, [{"system": "faulty"}])
    assert "build none" in CALLS
    assert len(summary(tmp_path)["rows"]) == 1


def test_seeds_and_sizes_have_rows_of_their_own(tmp_path: Path) -> None:
    system = {"system": "fde", "build": {"num_repetitions": 2, "num_simhash_projections": 2}}
    assert run(tmp_path, [system], seeds=2, documents=[20, "all"], tables=["metrics", "variance"]) == []
    rows = summary(tmp_path)["rows"]
    assert [(row["build"]["n"], row["seed"]) for row in rows] == [(20, 42), (20, 1042), (40, 42), (40, 1042)]
    assert {row["build"]["vector_dimension"] for row in rows} == {2 * 4 * 16 + 128 + 1}
    assert rows[0]["queries_per_second"] is None
    titles = [table["title"] for table in summary(tmp_path)["tables"]]
    assert titles == [
        "Mine: 5-recall@5",
        "Mine: nDCG@5",
        "Mine: 5-recall@5, 2 seeds",
        "Mine: nDCG@5, 2 seeds",
    ]


def test_differences_are_taken_over_the_same_queries(tmp_path: Path) -> None:
    systems: list[dict[str, Any]] = [
        {"system": "exhaustive"},
        {"system": "faulty", "build": {"fault": "few"}, "allow_fewer": True},
    ]
    compare = [{"to": "faulty", "metrics": ["5-recall@5"]}]
    run(tmp_path, systems, timed=True, compare=compare)
    (one,) = summary(tmp_path)["comparisons"]
    assert (one["a"], one["b"], one["collection"]) == ("exhaustive", "faulty", "quick-wide")
    assert one["difference"] == pytest.approx(4 * 0.2 / 12)
    assert 0 <= one["low"] < one["difference"] < one["high"]
    (rows,) = [t["rows"] for t in summary(tmp_path)["tables"] if t["title"].endswith("paired differences")]
    times = {row["point"]: row["latency_ms"]["p50"] for row in summary(tmp_path)["rows"]}
    assert rows[1][:2] == ["exhaustive over faulty", "median latency"]
    # Times are kept to a tenth of a microsecond.
    ratio = float(rows[1][2].partition("x [")[0])
    assert ratio == pytest.approx(times["exhaustive"] / times["faulty"], rel=0.02)
    # One of them measured later, alone: no ratio of times.
    (path,) = (tmp_path / "out" / "raw").rglob("faulty-*.npz")
    path.unlink()
    run(tmp_path, systems, timed=True, compare=compare)
    (rows,) = [t["rows"] for t in summary(tmp_path)["tables"] if t["title"].endswith("paired differences")]
    assert rows[1][2] == ""


def test_candidates_are_counted_for_a_recall(tmp_path: Path) -> None:
    sweep = {"candidates": [5, 10, 20, 40]}
    build = {"backend": "exact", "num_simhash_projections": 1, "projection_dimension": 4}
    systems = [
        {"system": "muvera", "label": label, "build": {**build, "num_repetitions": count}, "sweep": sweep}
        for label, count in (("long", 20), ("short", 1))
    ]
    assert run(tmp_path, systems, tables=["candidates"]) == []
    (table,) = summary(tmp_path)["tables"]
    assert table["title"] == "Mine: candidates needed for a 5-recall@5"
    labels = [row[0] for row in table["rows"]]
    assert labels == [f"{name}, .{share}" for share in ("80", "90", "95") for name in ("long", "short")]
    assert float(table["rows"][5][1].split(" ")[0]) <= 40  # all forty documents are enough
    means = {
        row["query"]["candidates"]: row["metrics"]["5-recall@5"]["mean"]
        for row in summary(tmp_path)["rows"][4:]
    }
    needed, written = needed_candidates(list(means.items()), 0.9)
    assert needed is not None and table["rows"][3][1].split(" ")[0] == written


def test_unseen_documents_and_facts_are_kept_with_the_results(tmp_path: Path) -> None:
    build = {"num_repetitions": 2, "num_simhash_projections": 2}
    systems = [
        {"system": "fde", "build": {**build, "fit_on": 0.25}},
        {"system": "reranking", "build": build, "query": {"candidates": 20}},
    ]
    metrics = ["5-recall@10", "5-recall@10 unseen"]
    assert run(tmp_path, systems, k=30, metrics=metrics, tables=["metrics", "facts"]) == []
    first, ranked = summary(tmp_path)["rows"]
    assert 0 < first["metrics"]["5-recall@10 unseen"]["mean"] <= 1
    assert ranked["metrics"]["5-recall@10 unseen"] is None  # it was fitted on all
    assert 0 < ranked["facts"]["products made"]["mean"] <= 1
    raw = RawStore(tmp_path).load(next((tmp_path / "out" / "raw").rglob("fde-*.npz")))
    assert raw is not None and len(raw.fitted_on) == 10
    titles = [table["title"] for table in summary(tmp_path)["tables"]]
    assert titles == ["Mine: 5-recall@10", "Mine: 5-recall@10 unseen", "Mine: products made"]


def test_too_short_rankings_for_unseen_documents_fail_by_name(tmp_path: Path) -> None:
    system = {"system": "fde", "build": {"num_repetitions": 2, "fit_on": 0.75}}
    failures = run(tmp_path, [system], k=5, metrics=["5-recall@5 unseen"])
    assert [failure.system for failure in failures] == ["fde"]
    assert "Raise k" in failures[0].message and summary(tmp_path)["rows"] == []


def test_training_queries_are_not_asked(tmp_path: Path) -> None:
    assert run(tmp_path, [{"system": "exhaustive"}], training_queries=0.25) == []
    (row,) = summary(tmp_path)["rows"]
    assert row["metrics"]["5-recall@5"]["n"] == 9


def test_crossings_are_told_by_collection(tmp_path: Path) -> None:
    systems: list[dict[str, Any]] = [
        {"system": "exhaustive", "label": "all tokens"},
        {"system": "faulty", "label": "all FDEs"},
        {"system": "faulty", "label": "graph", "build": {"fault": "other"}},
    ]
    assert run(tmp_path, systems, timed=True, documents=[20, "all"], tables=["crossover"]) == []
    (table,) = summary(tmp_path)["tables"]
    assert [row[0] for row in table["rows"]] == ["quick-wide"]
    assert table["header"][1] == "tokens from which all FDEs is faster than all tokens"
