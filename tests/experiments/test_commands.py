"""Commands: two tiny configurations run, are checked and recorded; `python -m experiments quick` runs all."""

import json
from pathlib import Path
from typing import Any

import pytest
from builders.small_runs import command, configured

TIMED: dict[str, Any] = {
    "k": 10,
    "timed": True,
    "metrics": ["10-recall@10"],
    "tables": ["metrics", "speed", "size"],
    "systems": [
        {"system": "exhaustive"},
        {"system": "muvera", "build": {"preset": "mean"}, "sweep": {"candidates": [10, 30, 300]}},
        {"system": "plaid"},
    ],
    "compare": [{"to": "exhaustive"}],
}
UNTIMED: dict[str, Any] = {
    "seeds": 3,
    "metrics": ["10-recall@50"],
    "systems": [
        {"system": "fde", "build": {"preset": "mean"}},
        {"system": "pooled", "query": {"rerank": False}},
    ],
}

#: Points of the quick run: the ends of sweeps; a peer without an environment is skipped.
POINTS = {
    ("timed", "exhaustive"),
    *(("timed", f"muvera, candidates={candidates}") for candidates in (10, 300)),
    *(("untimed", system) for system in ("fde", "pooled")),
}


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quick")
    names = [configured(folder, "timed", **TIMED), configured(folder, "untimed", **UNTIMED)]
    score = {
        "experiment": "timed",
        "collection": "quick-wide",
        "point": "exhaustive",
        "metric": "10-recall@10",
    }
    expected = folder / "expected.jsonl"
    expected.write_text(json.dumps({**score, "value": 1, "tolerance": 0}))
    where = ["--cache", folder / "cache", "--out", folder / "run", "--expected", expected]
    code, output = command("quick", *names, *where)
    assert code == 0 and "1 OK, 0 FAIL" in output, output
    return folder / "run"


def test_a_quick_run_writes_all_results(quick: Path) -> None:
    manifest = json.loads((quick / "manifest.json").read_text())
    summary = json.loads((quick / "summary.json").read_text())
    assert manifest["failures"] == [] and manifest["quick"]
    assert list(manifest["collections"]) == ["quick-wide", "quick-cone"]
    assert {(row["experiment"], row["point"]) for row in summary["rows"]} == POINTS
    exact = [row["metrics"] for row in summary["rows"] if row["point"].endswith(("exhaustive", "=300"))]
    assert [metrics["10-recall@10"]["mean"] for metrics in exact] == [1] * 4
    assert {table["experiment"] for table in summary["tables"]} == {"timed", "untimed"}


def test_a_run_is_recorded_and_checked(quick: Path, tmp_path: Path) -> None:
    recorded = tmp_path / "mine.jsonl"

    def check(rows: list[dict[str, Any]] | None = None) -> Any:
        if rows is not None:
            recorded.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        return command("check", quick, "--expected", recorded)

    assert command("check", quick, "--record", recorded)[0] == check()[0] == 0
    rows = [json.loads(line) for line in recorded.read_text().splitlines()[:2]]
    rows[0]["value"] += 0.5
    rows[1]["point"] = "nobody"
    elsewhere = [{**rows[0], "collection": "not-here"}, {**rows[0], "experiment": "not_here"}]
    code, output = check(rows + elsewhere)
    assert code == 1 and output.count("FAIL timed") == 2
    assert "nobody" in output and "0 OK, 2 FAIL" in output
    assert check(elsewhere)[0] == 2
    recorded.write_text("[]")
    assert "line 1" in check()[1]


def test_wrong_names_end_a_command_before_anything_is_measured(tmp_path: Path) -> None:
    out = ["--out", tmp_path / "r"]
    code, output = command("run", "end_to_ent", *out)
    assert code == 2 and "end_to_end" in output
    assert command("run", "--data", tmp_path, *out)[0] == command("check", tmp_path)[0] == 2
    assert not (tmp_path / "r").exists()
    (tmp_path / "data" / "news").mkdir(parents=True)
    for name in ("corpus", "queries"):
        (tmp_path / "data" / "news" / f"{name}.jsonl").write_text('{"_id": "1", "text": "t"}')
    data = ["--data", tmp_path / "data", "--cache", tmp_path / "c"]
    for name in ("tokens", "dial", "grow"):
        code, output = command(name, *data, "--collection", "new")
        assert code == 2 and "'news'" in output, name
    assert command("vectors", "mixed", "nothing", *data)[0] == 2
    code, output = command("run", "end_to_end", *data, *out)
    assert code == 1 and "FAILED all, news, collection: news has texts" in output
    code, output = command("check", tmp_path / "r")  # a collection that could not be read fails the check
    assert code == 1 and "FAIL news: news has texts" in output
