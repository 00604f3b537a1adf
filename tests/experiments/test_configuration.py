"""Configurations: their expansion, and a message for every fault."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from experiments.known_names import require_known
from experiments.runner.check import EXPECTED
from experiments.runner.configuration import CONFIGS, Experiment, load_experiments


def load(folder: Path, **content: Any) -> Experiment:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({"title": "Mine", **content}))
    return load_experiments([str(path)])[0]


def test_the_study_has_every_configuration() -> None:
    names = {path.stem for path in CONFIGS.glob("*.yaml")} - {"study"}
    study = load_experiments(["study"])
    assert {experiment.name for experiment in study} == names
    assert all(experiment.points() for experiment in study)


def test_expected_scores_are_of_configured_points() -> None:
    points = {(run.name, point.name) for run in load_experiments(["study"]) for point in run.points()}
    for path in EXPECTED.glob("*.jsonl"):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        assert {(row["experiment"], row["point"]) for row in rows} <= points, path


def test_variants_are_labelled(tmp_path: Path) -> None:
    system = {
        "system": "fde",
        "build": {"preset": "paper", "center": True},
        "variants": [{"num_repetitions": 2}, {"num_repetitions": 4, "label": "four at {center}"}],
    }
    entries = load(tmp_path, systems=[system]).entries
    assert [entry.label for entry in entries] == ["fde, num_repetitions=2", "four at True"]
    assert entries[1].build == {"preset": "paper", "center": True, "num_repetitions": 4}


def test_points_seeds_and_comparisons(tmp_path: Path) -> None:
    system = {"system": "muvera", "query": {"ef": 50}, "sweep": {"candidates": [10, 20]}}
    compare = [{"to": "bm25"}]
    experiment = load(
        tmp_path, systems=[system, {"system": "bm25"}], seeds=3, metrics=["nDCG@10"], compare=compare
    )
    points = experiment.points()
    assert [point.name for point in points] == ["muvera, candidates=10", "muvera, candidates=20", "bm25"]
    assert points[1].query == {"ef": 50, "candidates": 20}
    assert experiment.seeds == (42, 1042, 2042)  # their difference exceeds the number of repetitions
    (comparison,) = experiment.comparisons
    assert comparison.what == ("muvera, candidates=10", "muvera, candidates=20")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"system": []}, "mine: There is no key of an experiment 'system'. Did you mean 'systems'?"),
        ({"systems": [{"system": "muvra"}]}, "'muvra'. Did you mean 'muvera'?"),
        ({"systems": [{"system": "bm25", "swep": {}}]}, "'swep'. Did you mean 'sweep'?"),
        (
            {"systems": [{"system": "muvera", "build": {"num_repetition": 3}}]},
            "Did you mean 'num_repetitions'?",
        ),
        ({"systems": [{"system": "muvera", "query": {"candidate": 3}}]}, "Did you mean 'candidates'?"),
        ({"systems": [{"system": "bm25", "sweep": {"candidates": 12}}]}, "got 12"),
        ({"systems": [{"system": "bm25", "label": "{k2}"}]}, "'k2'"),
        ({"systems": [{"system": "bm25"}, {"system": "bm25"}]}, "'bm25'"),
        ({"metrics": ["10-recall@200"]}, "k=100"),
        ({"metrics": ["recal@10"]}, "'recal@10'"),
        ({"metrics": ["0-recall@10"]}, "at least 1"),
        ({"k": 0}, "k must be an int of at least 1, got 0"),
        ({"tables": ["speeed"]}, "Did you mean 'speed'?"),
        ({"collections": "small"}, "got 'small'"),
        ({"systems": [{"system": "bm25"}], "compare": [{"to": "bm26"}]}, "Did you mean 'bm25'?"),
    ],
)
def test_a_fault_is_named(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        load(tmp_path, **content)
    assert message in str(caught.value)


def test_files_that_are_no_configuration(tmp_path: Path) -> None:
    for name, text, message in (
        ("a", "a: [", "a.yaml"),
        ("b", "- 1", "got list"),
        ("c", "k: 3", "title is missing"),
    ):
        (tmp_path / f"{name}.yaml").write_text(text)
        with pytest.raises(ValueError, match=message):
            load_experiments([str(tmp_path / f"{name}.yaml")])
    with pytest.raises(ValueError, match="Did you mean 'end_to_end'"):
        load_experiments(["end_to_ends"])
    with pytest.raises(ValueError, match=r"There is no system 'qqq'\. There are: a, b\."):
        require_known("qqq", ["a", "b"], "system")
