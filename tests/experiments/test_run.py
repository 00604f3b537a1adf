"""Runs: faults by name, turns, resuming, and the files of a run."""

import inspect
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builders.small_runs import CALLS, faulty_system, results, run, small
from filelock import FileLock

from experiments.datasets.discovery import DatasetPath
from experiments.runner.raw_store import load_raw
from experiments.systems.library import FirstStage, Muvera
from muvera.fde.config import DEFAULT_PRESET


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    with faulty_system():
        yield


@pytest.mark.parametrize(
    ("fault", "message", "kept"),
    [
        ("build", "RuntimeError: the process ended", False),
        ("search", "RuntimeError: no answer", False),
        ("duplicates", "document 7 5 times for query 1", False),
        ("unknown", "document 99999, but there are 40", False),
        ("gap", "after a -1 for query 0", False),
        ("rising", "scores that rise in query 1", False),
        ("nan", "not a number", False),
        ("shape", r"ids of shape \(12, 1\) instead of \(12, 5\)", False),
        ("few", "fewer than 5 documents for 4 queries, at worst 4", True),
        ("scores", "exact Chamfer, but 4 of 60 are not: query 0", True),
    ],
)
def test_a_faulty_system_is_named_and_the_rest_goes_on(
    tmp_path: Path, fault: str, message: str, kept: bool
) -> None:
    """There are four blocks of three queries, and a fault in each."""
    bad = {"system": "faulty", "label": "bad", "build": {"fault": fault}}
    (failure,) = run(tmp_path, [bad, {"system": "exhaustive", "label": "good"}], timed=fault != "shape")
    assert (failure.experiment, failure.collection, failure.system) == ("mine", "quick-wide", "bad")
    assert re.search(message, failure.message)
    labels = [row["label"] for row in results(tmp_path)["rows"]]
    assert labels == (["bad", "good"] if kept else ["good"])
    assert results(tmp_path, "manifest")["failures"] == [vars(failure)]
    assert fault == "build" or CALLS[-1] == f"close {fault}"


def test_a_fault_is_reported_once_for_all_points_of_a_system(tmp_path: Path) -> None:
    systems = [
        {"system": "faulty", "label": "bad", "build": {"fault": fault}, "sweep": {"offset": offsets}}
        for fault, offsets in (("search", [0, 1]), ("none", [2, 3]))
    ]
    (failure,) = run(tmp_path, systems, timed=True)
    assert "no answer" in failure.message
    assert [row["query"] for row in results(tmp_path)["rows"]] == [{"offset": 2}, {"offset": 3}]


def test_faults_of_collections_left_out_systems_and_locked_folders(tmp_path: Path) -> None:
    systems = [{"system": "bm25"}, {"system": "exhaustive"}]
    bare = replace(small(), document_texts=None, problems=["No judgement fits."])
    gone, problem = run(tmp_path, systems, [DatasetPath("gone", None, tmp_path), bare])
    assert (gone.collection, gone.system) == ("gone", "collection") and "no embeddings" in gone.message
    assert (problem.collection, problem.message) == ("quick-wide", "No judgement fits.")
    assert [entry["system"] for entry in results(tmp_path, "manifest")["left_out"]] == ["bm25"]
    assert [row["system"] for row in results(tmp_path)["rows"]] == ["exhaustive"]
    (failure,) = run(tmp_path, systems, collections=["quick-wild"])
    assert failure.collection == "quick-wild" and "Did you mean 'quick-wide'?" in failure.message
    with FileLock(tmp_path / "out" / ".lock"), pytest.raises(RuntimeError, match="Another run"):
        run(tmp_path, systems)


def test_collections_that_no_experiment_names_are_not_loaded(tmp_path: Path) -> None:
    others = [DatasetPath("gone", None, tmp_path), replace(small(), name="bad", problems=["No id fits."])]
    assert run(tmp_path, [{"system": "exhaustive"}], [*others, small()], collections=["quick-wide"]) == []
    assert list(results(tmp_path, "manifest")["collections"]) == ["quick-wide"]


@pytest.mark.parametrize("system", [Muvera, FirstStage])
def test_systems_have_the_default_preset(system: Any) -> None:
    assert inspect.signature(system).parameters["preset"].default == DEFAULT_PRESET


@pytest.fixture
def exhaustive(tmp_path: Path) -> Path:
    """The folder of a timed run of exact Chamfer."""
    assert run(tmp_path, [{"system": "exhaustive"}], timed=True, collections=["quick-wide"]) == []
    return tmp_path


def test_exact_chamfer_has_perfect_recall_and_no_vectors(exhaustive: Path) -> None:
    (row,) = results(exhaustive)["rows"]
    assert row["metrics"]["5-recall@5"] == {"mean": 1.0, "low": 1.0, "high": 1.0, "n": 12}
    tokens = small().documents
    assert row["bytes_per_document"] == 0
    assert row["total_bytes_per_document"] == round(tokens.tokens.nbytes / len(tokens), 1)


def test_a_timed_run_has_times_of_every_query(exhaustive: Path) -> None:
    (row,) = results(exhaustive)["rows"]
    assert row["queries_per_second"] > 0 and row["latency_ms"]["p50"] <= row["latency_ms"]["p99"]
    (path,) = (exhaustive / "out" / "raw").rglob("*.npz")
    raw = load_raw(path)
    assert raw is not None and raw.ids.shape == raw.scores.shape == (12, 5) and (raw.seconds > 0).all()


def test_a_run_describes_collections_the_machine_and_versions(exhaustive: Path) -> None:
    manifest = results(exhaustive, "manifest")
    described = manifest["collections"]["quick-wide"]
    assert (described["documents"], described["queries"], manifest["threads"]) == (40, 12, 1)
    assert manifest["measured"][0]["machine"]["cores"] >= 1 and "commit" in manifest["versions"]


def test_systems_take_turns_and_another_one_begins_each(tmp_path: Path) -> None:
    run(
        tmp_path,
        [{"system": "faulty", "label": name, "build": {"fault": name}} for name in "abcd"],
        timed=True,
    )
    asked = [call.split()[1] for call in CALLS if call.startswith("search")]
    assert asked == [*"abcd", *"abcd", *"bcda", *"cdab", *"dabc"]  # first they warm up


def test_a_run_continues_after_finished_work_an_interruption_and_damage(tmp_path: Path) -> None:
    systems: list[dict[str, Any]] = [{"system": "faulty", "sweep": {"offset": [0, 1]}}]
    run(tmp_path, systems)
    first = results(tmp_path)
    CALLS.clear()
    run(tmp_path, systems)
    assert CALLS == [] and results(tmp_path) == first
    path = next((tmp_path / "out" / "raw").rglob("*.npz"))
    path.write_bytes(path.read_bytes()[:-40])
    run(tmp_path, systems)
    assert sum(call.startswith("search") for call in CALLS) == 1  # only the damaged one
    assert results(tmp_path)["rows"] == first["rows"]
    others = [{"system": "faulty", "sweep": {"offset": [2, 3]}}]
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, [*others, {"system": "faulty", "label": "i", "build": {"fault": "interrupt"}}])
    assert CALLS[-1] == "close interrupt"
    CALLS.clear()
    run(tmp_path, others)
    assert CALLS == []  # results from before the interruption are kept


def test_differences_are_over_the_same_queries(tmp_path: Path) -> None:
    few = {"system": "faulty", "build": {"fault": "few"}, "allow_fewer": True}
    compare = [{"to": "faulty", "metrics": ["5-recall@5"]}]
    assert run(tmp_path, [{"system": "exhaustive"}, few], timed=True, compare=compare) == []
    quality, latency = results(tmp_path)["tables"][-1]["rows"]
    assert quality[:2] == ["exhaustive minus faulty", "5-recall@5"]
    difference, low, high = map(float, re.findall(r"[-+.\d]+", quality[2]))
    assert difference == round(4 * 0.2 / 12, 3) and 0 <= low < difference < high
    assert latency[:2] == ["exhaustive over faulty", "median latency"]
