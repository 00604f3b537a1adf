"""Configurations and commands; `python -m experiments quick` runs all."""

import json
from pathlib import Path
from typing import Any

import pytest
from builders.small_runs import command, configured

from experiments.runner.check import EXPECTED
from experiments.runner.configuration import CONFIGS, Experiment, load_experiments
from experiments.runner.quick import quick_experiment


def load(folder: Path, **content: Any) -> Experiment:
    return load_experiments([configured(folder, **content)])[0]


def test_the_study_has_every_configuration_and_every_expected_score(tmp_path: Path) -> None:
    study = load_experiments(["study"])
    assert {experiment.name for experiment in study} == {path.stem for path in CONFIGS.glob("*.yaml")} - {
        "study"
    }
    for experiment in study:
        assert 1 <= len(quick_experiment(experiment, tmp_path).points()) <= len(experiment.points())
    points = {(experiment.name, point.name) for experiment in study for point in experiment.points()}
    for path in EXPECTED.glob("*.jsonl"):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        assert {(row["experiment"], row["point"]) for row in rows} <= points, path


def test_points_seeds_and_comparisons(tmp_path: Path) -> None:
    build: dict[str, Any] = {"preset": "paper", "center": True}
    variants = [{"num_repetitions": 2}, {"num_repetitions": 4, "label": "four at {center}"}]
    systems = [
        {"system": "muvera", "query": {"ef": 50}, "sweep": {"candidates": [10, 20]}},
        {"system": "fde", "build": build, "variants": variants},
        {"system": "bm25"},
    ]
    compare = [{"to": "bm25"}]
    experiment = load(tmp_path, k=10, systems=systems, seeds=3, metrics=["nDCG@10"], compare=compare)
    points = experiment.points()
    names = ("muvera, candidates=10", "muvera, candidates=20", "fde, num_repetitions=2", "four at True")
    assert tuple(point.name for point in points) == (*names, "bm25")
    assert points[1].query == {"ef": 50, "candidates": 20}
    assert experiment.entries[2].build == {**build, "num_repetitions": 4}
    assert experiment.seeds == (42, 1042, 2042)  # their difference exceeds the number of repetitions
    assert experiment.comparisons[0].what == names


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"system": []}, "mine: There is no key of an experiment 'system'. Did you mean 'systems'?"),
        ({"systems": [{"system": "muvra"}]}, "'muvra'. Did you mean 'muvera'?"),
        ({"systems": [{"system": "qqq"}]}, "There is no system 'qqq'. There are: exhaustive, "),
        ({"systems": [{"system": "bm25", "swep": {}}]}, "'swep'. Did you mean 'sweep'?"),
        ({"systems": [{"system": "muvera", "build": {"num_repetition": 3}}]}, "mean 'num_repetitions'?"),
        ({"systems": [{"system": "muvera", "query": {"candidate": 3}}]}, "Did you mean 'candidates'?"),
        ({"systems": [{"system": "bm25", "sweep": {"candidates": 12}}]}, "got 12"),
        ({"systems": [{"system": "bm25", "label": "{k2}"}]}, "'k2'"),
        ({"systems": [{"system": "bm25"}, {"system": "bm25"}]}, "'bm25'"),
        ({"metrics": ["10-recall@200"]}, "k=100"),
        ({"metrics": ["recal@10"]}, "'recal@10'"),
        ({"metrics": ["0-recall@10"]}, "at least 1"),
        ({"k": 0}, "k must be an int of at least 1, got 0"),
        (
            {"k": 50, "systems": [{"system": "muvera", "sweep": {"candidates": [20, 50]}}]},
            "muvera: candidates=20 is below k=50",
        ),
        ({"tables": ["speeed"]}, "Did you mean 'speed'?"),
        ({"collections": "small"}, "got 'small'"),
        ({"systems": [{"system": "bm25"}], "compare": [{"to": "bm26"}]}, "Did you mean 'bm25'?"),
    ],
)
def test_a_fault_is_named(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        load(tmp_path, **content)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"), [("a: [", "a.yaml"), ("- 1", "got list"), ("k: 3", "title is missing")]
)
def test_files_that_are_no_configuration(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_experiments([str(tmp_path / "a.yaml")])


def test_a_misspelled_experiment_is_guessed() -> None:
    with pytest.raises(ValueError, match="Did you mean 'end_to_end'"):
        load_experiments(["end_to_ends"])


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

#: Points of the quick run: the ends of sweeps; a peer without an environment is
#: skipped.
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


def test_wrong_names_of_experiments_and_folders_end_a_command(tmp_path: Path) -> None:
    out = ["--out", tmp_path / "r"]
    code, output = command("run", "end_to_ent", *out)
    assert code == 2 and "end_to_end" in output
    assert command("run", "--data", tmp_path, *out)[0] == command("check", tmp_path)[0] == 2
    assert not (tmp_path / "r").exists()


@pytest.fixture
def news(tmp_path: Path) -> list[Any]:
    """Options for a folder with texts that are not encoded."""
    (tmp_path / "data" / "news").mkdir(parents=True)
    for name in ("corpus", "queries"):
        (tmp_path / "data" / "news" / f"{name}.jsonl").write_text('{"_id": "1", "text": "t"}')
    return ["--data", tmp_path / "data", "--cache", tmp_path / "c"]


@pytest.mark.parametrize("name", ["tokens", "dial", "grow"])
def test_wrong_names_of_collections_end_a_command(news: list[Any], name: str) -> None:
    code, output = command(name, *news, "--collection", "new")
    assert code == 2 and "'news'" in output


def test_wrong_names_of_tables_end_a_command(news: list[Any]) -> None:
    assert command("vectors", "mixed", "nothing", *news)[0] == 2


def test_a_collection_without_embeddings_fails_the_run_and_the_check(news: list[Any], tmp_path: Path) -> None:
    code, output = command("run", "end_to_end", *news, "--out", tmp_path / "r")
    assert code == 1 and "FAILED all, news, collection: news has texts" in output
    code, output = command("check", tmp_path / "r")
    assert code == 1 and "FAIL news: news has texts" in output
