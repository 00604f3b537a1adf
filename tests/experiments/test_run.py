"""Runs: faults by name, turns, resuming, and the files of a run."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from builders.small_runs import CALLS, faulty_system, run, small, summary
from filelock import FileLock

from experiments.datasets.discovery import DatasetPath
from experiments.runner.configuration import load_experiments
from experiments.runner.raw_store import Session, load_raw
from experiments.runner.run import run_experiments

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
        ("duplicates", r"document \d+ 2 times for query 1", False),
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
    systems: list[dict[str, Any]] = [
        {"system": "faulty", "label": "bad", "build": {"fault": fault}},
        {"system": "exhaustive", "label": "good"},
    ]
    (failure,) = run(tmp_path, systems, timed=fault != "shape")
    assert (failure.experiment, failure.collection, failure.system) == ("mine", "quick-wide", "bad")
    assert re.search(message, failure.message)
    labels = [row["label"] for row in summary(tmp_path)["rows"]]
    assert labels == (["bad", "good"] if kept else ["good"])
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["failures"] == [vars(failure)]
    assert fault == "build" or CALLS[-1] == f"close {fault}"


def test_a_fault_is_reported_once_for_all_points_of_a_system(tmp_path: Path) -> None:
    systems = [
        {"system": "faulty", "label": "bad", "build": {"fault": fault}, "sweep": {"offset": offsets}}
        for fault, offsets in (("search", [0, 1]), ("none", [2, 3]))
    ]
    (failure,) = run(tmp_path, systems, timed=True)
    assert "no answer" in failure.message
    assert [row["query"] for row in summary(tmp_path)["rows"]] == [{"offset": 2}, {"offset": 3}]


def test_faults_of_collections_and_left_out_systems(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        yaml.safe_dump({"title": "Mine", "systems": [{"system": "bm25"}, {"system": "exhaustive"}]})
    )
    session = Session(tmp_path / "out", tmp_path / "cache", 1, lambda _: None)
    bare = replace(small(), document_texts=None, problems=["No judgement fits."])
    failures = run_experiments(
        load_experiments([str(path)]), [DatasetPath("gone", None, tmp_path), bare], session
    )
    assert [(failure.collection, failure.system) for failure in failures] == [
        ("gone", "collection"),
        ("quick-wide", "collection"),
    ]
    assert "no embeddings" in failures[0].message and failures[1].message == "No judgement fits."
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert [entry["system"] for entry in manifest["left_out"]] == ["bm25"]
    assert [row["system"] for row in summary(tmp_path)["rows"]] == ["exhaustive"]


def test_exact_chamfer_has_perfect_recall_and_times_of_every_query(tmp_path: Path) -> None:
    assert run(tmp_path, [{"system": "exhaustive"}], timed=True) == []
    (row,) = summary(tmp_path)["rows"]
    assert row["metrics"]["5-recall@5"] == {"mean": 1.0, "low": 1.0, "high": 1.0, "n": 12}
    tokens = small().documents
    assert row["bytes_per_document"] == 0
    assert row["total_bytes_per_document"] == round(tokens.tokens.nbytes / len(tokens), 1)
    assert row["queries_per_second"] > 0 and row["latency_ms"]["p50"] <= row["latency_ms"]["p99"]
    (path,) = (tmp_path / "out" / "raw").rglob("*.npz")
    raw = load_raw(path)
    assert raw is not None and raw.ids.shape == raw.scores.shape == (12, 5) and (raw.seconds > 0).all()


def test_systems_take_turns_and_another_one_begins_each(tmp_path: Path) -> None:
    systems = [{"system": "faulty", "label": name, "build": {"fault": name}} for name in "abcd"]
    run(tmp_path, systems, timed=True)
    asked = [call.split()[1] for call in CALLS if call.startswith("search")]
    assert asked == [*"abcd", *"abcd", *"bcda", *"cdab", *"dabc"]  # first they warm up


def test_a_run_continues_after_finished_work_an_interruption_and_damage(tmp_path: Path) -> None:
    systems: list[dict[str, Any]] = [{"system": "faulty", "sweep": {"offset": [0, 1]}}]
    run(tmp_path, systems)
    first = summary(tmp_path)
    CALLS.clear()
    run(tmp_path, systems)
    assert CALLS == [] and summary(tmp_path) == first
    path = next((tmp_path / "out" / "raw").rglob("*.npz"))
    path.write_bytes(path.read_bytes()[:-40])
    run(tmp_path, systems)
    assert sum(call.startswith("search") for call in CALLS) == 1  # only the damaged one
    assert summary(tmp_path)["rows"] == first["rows"]
    CALLS.clear()
    interrupted = [*systems, {"system": "faulty", "label": "i", "build": {"fault": "interrupt"}}]
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, [{"system": "faulty", "sweep": {"offset": [2, 3]}}, interrupted[1]])
    assert CALLS[-1] == "close interrupt"
    CALLS.clear()
    run(tmp_path, [{"system": "faulty", "sweep": {"offset": [2, 3]}}])
    assert CALLS == []  # results from before the interruption are kept


def test_differences_are_over_the_same_queries(tmp_path: Path) -> None:
    systems: list[dict[str, Any]] = [
        {"system": "exhaustive"},
        {"system": "faulty", "build": {"fault": "few"}, "allow_fewer": True},
    ]
    compare = [{"to": "faulty", "metrics": ["5-recall@5"]}]
    assert run(tmp_path, systems, timed=True, compare=compare) == []
    table = summary(tmp_path)["tables"][-1]
    quality, latency = table["rows"]
    assert quality[:2] == ["exhaustive minus faulty", "5-recall@5"]
    difference, low, high = map(float, re.findall(r"[-+.\d]+", quality[2]))
    assert difference == round(4 * 0.2 / 12, 3) and 0 <= low < difference < high
    assert latency[:2] == ["exhaustive over faulty", "median latency"]


def test_the_manifest_describes_the_run(tmp_path: Path) -> None:
    run(tmp_path, [{"system": "exhaustive"}], timed=True, collections=["quick-wide"])
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["experiments"]["mine"]["title"] == "Mine"
    described = manifest["collections"]["quick-wide"]
    assert (described["documents"], described["queries"], described["dimension"]) == (40, 12, 128)
    assert manifest["measured"][0]["machine"]["cores"] >= 1
    assert {"muvera", "numpy", "commit"} <= manifest["versions"].keys()
    assert manifest["threads"] == 1


def test_missing_collections_locked_folders_and_encoders_that_fail(tmp_path: Path) -> None:
    (failure,) = run(tmp_path, [{"system": "exhaustive"}], collections=["quick-wild"])
    assert failure.collection == "quick-wild" and "Did you mean 'quick-wide'?" in failure.message
    with FileLock(tmp_path / "out" / ".lock"), pytest.raises(RuntimeError, match="Another run"):
        run(tmp_path, [{"system": "exhaustive"}])
