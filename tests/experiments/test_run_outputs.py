"""What a run leaves: rankings and numbers for other programs, its manifest, and failures by name."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders.small_runs import faulty_system, run, summary
from filelock import FileLock

from experiments.runner.outputs import _field
from experiments.systems.registry import SYSTEMS

pytestmark = pytest.mark.compiled("searches whole collections")


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    with faulty_system():
        yield


def test_rankings_and_numbers_are_written_for_other_programs(tmp_path: Path) -> None:
    run(tmp_path, [{"system": "exhaustive"}], timed=True)
    lines = (tmp_path / "out" / "runs" / "mine" / "quick-wide" / "exhaustive.trec").read_text().splitlines()
    assert len(lines) == 12 * 5
    query, iteration, document, rank, score, tag = lines[0].split()
    assert (query, iteration, rank, tag) == ("q0", "Q0", "1", "exhaustive")
    assert document.startswith("d") and float(score) > float(lines[1].split()[4])
    with (tmp_path / "out" / "results.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["system"], row["collection"], float(row["5-recall@5"])) == ("exhaustive", "quick-wide", 1)


def test_the_manifest_says_what_was_run_on_what(tmp_path: Path) -> None:
    run(tmp_path, [{"system": "exhaustive"}])
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["experiments"]["mine"]["title"] == "Mine"
    collection = manifest["collections"]["quick-wide"]
    assert (collection["documents"], collection["queries"], collection["dimension"]) == (40, 12, 128)
    assert collection["judged"] is True
    assert manifest["asked"][0] | {"checksum": ""} == {
        "experiment": "mine", "collection": "quick-wide", "documents": 40, "queries": 12, "checksum": ""
    }  # fmt: skip
    assert manifest["measured"][0]["machine"]["cores"] >= 1
    assert {"muvera", "numpy", "commit"} <= manifest["versions"].keys()
    assert (manifest["threads"], manifest["seed"], len(manifest["config_hash"])) == (1, 42, 16)


def test_a_collection_that_is_not_there_is_a_failure_by_name(tmp_path: Path) -> None:
    (failure,) = run(tmp_path, [{"system": "exhaustive"}], collections=["quick-wild"])
    assert failure.collection == "quick-wild" and "Did you mean 'quick-wide'?" in failure.message


def test_what_cannot_be_grown_is_a_failure_and_the_rest_is_kept(tmp_path: Path) -> None:
    scaling = {"sizes": [50], "build": {"num_repetitions": -1}}
    (failure,) = run(tmp_path, [], kind="scaling", scaling=scaling, metrics=[])
    assert failure.experiment == "mine" and "num_repetitions" in failure.message
    assert summary(tmp_path)["rows"] == []
    with pytest.raises(ValueError, match=r"There is no key of scaling 'size'\. Did you mean 'sizes'\?"):
        run(tmp_path, [], kind="scaling", scaling={"size": [50]}, metrics=[])
    with pytest.raises(ValueError, match="documents must be a list of numbers and 'all', got 'al'"):
        run(tmp_path, [{"system": "exhaustive"}], documents=[20, "al"])


def test_rankings_of_samples_stand_apart_and_ids_are_kept(tmp_path: Path) -> None:
    run(tmp_path, [{"system": "exhaustive"}], timed=True, documents=[20, "all"])
    folders = sorted(path.name for path in (tmp_path / "out" / "runs" / "mine").iterdir())
    assert folders == ["quick-wide-n=20", "quick-wide-n=40"]
    assert _field("<dbpedia:Foo bar>") == "<dbpedia:Foo_bar>"


def test_two_runs_do_not_write_to_one_folder(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with (
        FileLock(tmp_path / "out" / ".lock"),
        pytest.raises(RuntimeError, match=r"Another run is writing to .*Give another folder with --out"),
    ):
        run(tmp_path, [{"system": "exhaustive"}])


def test_a_missing_library_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    SYSTEMS.register("absent", "no_such_file:Nothing")
    try:
        failures = run(tmp_path, [{"system": "absent"}, {"system": "exhaustive"}])
    finally:
        SYSTEMS.unregister("absent")
    assert failures[0].system == "absent"
    assert "pip install 'muvera-toolkit[experiments]'" in failures[0].message
    assert len(summary(tmp_path)["rows"]) == 1
