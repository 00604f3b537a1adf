"""The files of a run: rankings, numbers, the manifest with failures by name."""

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from builders.small_runs import faulty_system, run, small, summary
from filelock import FileLock

from experiments.report.page import page_of
from experiments.report.run_folder import load_run
from experiments.systems.registry import SYSTEMS

pytestmark = pytest.mark.compiled("searches whole collections")

EXACT = [{"system": "exhaustive"}]


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    with faulty_system():
        yield


def test_rankings_numbers_and_manifest_are_written(tmp_path: Path) -> None:
    collection = small()
    collection = replace(
        collection, document_ids=[f"<{i} {name}>" for i, name in enumerate(collection.document_ids)]
    )
    run(tmp_path, EXACT, collection, timed=True, documents=[20, "all"])
    out = tmp_path / "out"
    folders = out / "runs" / "mine"
    assert sorted(path.name for path in folders.iterdir()) == ["quick-wide-n=20", "quick-wide-n=40"]
    lines = (folders / "quick-wide-n=40" / "exhaustive.trec").read_text().splitlines()
    assert len(lines) == 12 * 5
    query, iteration, document, rank, score, tag = lines[0].split()  # no spaces within an id
    assert (query, iteration, rank, tag) == ("q0", "Q0", "1", "exhaustive")
    assert document.startswith("<") and float(score) > float(lines[1].split()[4])
    with (out / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["system"], row["collection"], float(row["5-recall@5"])) for row in rows] == [
        ("exhaustive", "quick-wide", 1),
        ("exhaustive", "quick-wide", 1),
    ]
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["experiments"]["mine"]["title"] == "Mine"
    about = {"documents": 40, "queries": 12, "dimension": 128, "judged": True}
    assert manifest["collections"]["quick-wide"].items() >= about.items()
    assert [one["documents"] for one in manifest["asked"]] == [20, 40]
    assert manifest["measured"][0]["machine"]["cores"] >= 1
    assert {"muvera", "numpy", "commit"} <= manifest["versions"].keys()
    assert (manifest["threads"], manifest["seed"], len(manifest["config_hash"])) == (1, 42, 16)
    assert "quick-wide, n=40" in page_of(load_run(out))


def test_failures_are_named_and_the_rest_is_kept(tmp_path: Path) -> None:
    (failure,) = run(tmp_path, EXACT, collections=["quick-wild"])
    assert failure.collection == "quick-wild" and "'quick-wide'" in failure.message
    scaling = {"sizes": [50], "build": {"num_repetitions": -1}}
    (failure,) = run(tmp_path, [], kind="scaling", scaling=scaling, metrics=[])
    assert failure.experiment == "mine" and "num_repetitions" in failure.message
    SYSTEMS.register("absent", "no_such_file:Nothing")
    try:
        failures = run(tmp_path, [{"system": "absent"}, *EXACT])
    finally:
        SYSTEMS.unregister("absent")
    assert failures[0].system == "absent" and "muvera-toolkit[experiments]" in failures[0].message
    assert len(summary(tmp_path)["rows"]) == 1


def test_wrong_configurations_and_a_locked_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'sizes'"):
        run(tmp_path, [], kind="scaling", scaling={"size": [50]}, metrics=[])
    with pytest.raises(ValueError, match="'al'"):
        run(tmp_path, EXACT, documents=[20, "al"])
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / ".lock"), pytest.raises(RuntimeError, match="--out"):
        run(tmp_path, EXACT)
