"""The commands: every experiment's whole path on tiny collections, checked against expected scores."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from experiments.__main__ import app
from experiments.runner.check import EXPECTED
from experiments.runner.configuration import load_experiments

runner = CliRunner()


def words(output: str) -> str:
    """What was printed, without the frame and the line ends that depend on the terminal's width."""
    return " ".join(output.replace("│", " ").split())


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quick run of everything; peers are left out, for the cache has no environments."""
    folder = tmp_path_factory.mktemp("quick")
    found = runner.invoke(
        app, ["run", "--quick", "--cache", str(folder / "cache"), "--out", str(folder / "r")]
    )
    assert found.exit_code == 0, found.output
    return folder / "r"


@pytest.mark.compiled("runs every experiment")
def test_quick_runs_every_experiment_on_two_collections(quick: Path) -> None:
    manifest = json.loads((quick / "manifest.json").read_text())
    summary = json.loads((quick / "summary.json").read_text())
    assert manifest["failures"] == []
    assert list(manifest["collections"]) == ["quick-wide", "quick-cone"]
    names = {experiment.name for experiment in load_experiments(["study"])}
    assert set(manifest["experiments"]) == names
    assert {row["experiment"] for row in summary["rows"]} == names
    assert {table["experiment"] for table in summary["tables"]} == names
    for table in summary["tables"]:
        assert all(len(row) == len(table["header"]) for row in table["rows"]), table["title"]
        assert all(isinstance(cell, str) for row in table["rows"] for cell in row)
    assert {row["family"] for row in summary["rows"]} == {"muvera", "baseline"}  # no peer is installed there
    exhaustive = [row for row in summary["rows"] if row["system"] == "exhaustive"]
    assert exhaustive and all(row["metrics"]["10-recall@10"]["mean"] == 1 for row in exhaustive)
    own = [row for row in summary["rows"] if row["system"] == "muvera"]
    assert own and all(row["bytes_per_document"] > 0 for row in own)  # none reads all tokens instead


@pytest.mark.compiled("runs every experiment")
def test_a_quick_run_finds_the_expected_scores(quick: Path) -> None:
    found = runner.invoke(app, ["check", str(quick), "--expected", str(EXPECTED / "quick.jsonl")])
    *lines, counts = found.output.splitlines()
    failed = [line for line in lines if not line.startswith("OK")]
    assert found.exit_code == 0 and not failed, "\n".join(failed)
    assert len(lines) > 50
    assert counts == f"{len(lines)} expected scores: {len(lines)} OK, 0 FAIL."


@pytest.mark.compiled("runs every experiment")
def test_another_score_or_a_missing_one_fails(quick: Path, tmp_path: Path) -> None:
    recorded = tmp_path / "mine.jsonl"

    def write(scores: list[dict[str, Any]]) -> None:
        recorded.write_text("".join(f"{json.dumps(one)}\n" for one in scores))

    assert runner.invoke(app, ["check", str(quick), "--record", str(recorded)]).exit_code == 0
    assert runner.invoke(app, ["check", str(quick), "--expected", str(recorded)]).exit_code == 0
    content = [json.loads(line) for line in recorded.read_text().splitlines()[:2]]
    content[0]["value"] += 0.5
    content[1]["point"] = "nobody"
    elsewhere = [{**content[0], "collection": "not-here"}, {**content[0], "experiment": "not_here"}]
    write(content + elsewhere)
    found = runner.invoke(app, ["check", str(quick), "--expected", str(recorded)])
    assert found.exit_code == 1
    *lines, counts = found.output.splitlines()
    assert [line.split()[0] for line in lines] == ["FAIL", "FAIL"]
    assert counts == "2 expected scores: 0 OK, 2 FAIL."
    assert "nobody" in lines[1] and "not measured" in lines[1]
    write(elsewhere)
    found = runner.invoke(app, ["check", str(quick), "--expected", str(recorded)])
    assert found.exit_code == 2 and "No expected score is of anything" in words(found.output)


def test_a_collection_that_could_not_be_read_fails_the_check(tmp_path: Path) -> None:
    failure = {"experiment": "all", "collection": "news", "system": "collection", "message": "no embeddings."}
    manifest = {"experiments": {}, "collections": {}, "failures": [failure]}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "summary.json").write_text('{"rows": []}')
    found = runner.invoke(app, ["check", str(tmp_path)])
    assert found.exit_code == 1
    assert found.output == "FAIL news: no embeddings.\n1 expected scores: 0 OK, 1 FAIL.\n"


def test_an_expected_score_that_is_no_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"experiments": {}, "collections": {}, "failures": []}')
    (tmp_path / "summary.json").write_text('{"rows": []}')
    (tmp_path / "mine.jsonl").write_text("[]")
    found = runner.invoke(app, ["check", str(tmp_path), "--expected", str(tmp_path / "mine.jsonl")])
    assert found.exit_code == 2
    assert "line 1: an expected score must be a JSON object, got '[]'." in words(found.output)


def test_what_is_no_run_is_not_checked(tmp_path: Path) -> None:
    found = runner.invoke(app, ["check", str(tmp_path)])
    assert found.exit_code == 2 and "summary.json" in words(found.output)


def test_wrong_names_end_a_run_before_anything_is_measured(tmp_path: Path) -> None:
    found = runner.invoke(app, ["run", "end_to_ent", "--out", str(tmp_path / "r")])
    assert found.exit_code == 2 and "end_to_end" in words(found.output)
    found = runner.invoke(app, ["run", "--data", str(tmp_path), "--out", str(tmp_path / "r")])
    assert found.exit_code == 2 and "holds no collection" in words(found.output)
    assert not (tmp_path / "r").exists()


def test_a_collection_without_embeddings_is_a_failure_by_name(tmp_path: Path) -> None:
    texts = tmp_path / "data" / "news"
    texts.mkdir(parents=True)
    for name in ("corpus", "queries"):
        (texts / f"{name}.jsonl").write_text('{"_id": "1", "text": "t"}')
    data = ["--data", str(tmp_path / "data"), "--cache", str(tmp_path / "c"), "--out", str(tmp_path / "r")]
    found = runner.invoke(app, ["run", "end_to_end", *data])
    assert found.exit_code == 1
    assert "FAILED all, news, collection: news has texts" in words(found.output)
    found = runner.invoke(app, ["run", "end_to_end", *data, "--collection", "new"])
    assert found.exit_code == 2 and "'news'" in words(found.output)
