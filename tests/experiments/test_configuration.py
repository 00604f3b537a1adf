"""Configurations: their expansion, and a message for every fault."""

import json
from pathlib import Path
from typing import Any

import pytest
from builders.small_runs import configured

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


def test_variants_are_labelled(tmp_path: Path) -> None:
    build = {"preset": "paper", "center": True}
    variants = [{"num_repetitions": 2}, {"num_repetitions": 4, "label": "four at {center}"}]
    entries = load(tmp_path, systems=[{"system": "fde", "build": build, "variants": variants}]).entries
    assert [entry.label for entry in entries] == ["fde, num_repetitions=2", "four at True"]
    assert entries[1].build == {**build, "num_repetitions": 4}


def test_points_seeds_and_comparisons(tmp_path: Path) -> None:
    systems = [
        {"system": "muvera", "query": {"ef": 50}, "sweep": {"candidates": [10, 20]}},
        {"system": "bm25"},
    ]
    experiment = load(tmp_path, systems=systems, seeds=3, metrics=["nDCG@10"], compare=[{"to": "bm25"}])
    points = experiment.points()
    assert [point.name for point in points] == ["muvera, candidates=10", "muvera, candidates=20", "bm25"]
    assert points[1].query == {"ef": 50, "candidates": 20}
    assert experiment.seeds == (42, 1042, 2042)  # their difference exceeds the number of repetitions
    assert experiment.comparisons[0].what == ("muvera, candidates=10", "muvera, candidates=20")


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
    path = tmp_path / "a.yaml"
    for text, message in (("a: [", "a.yaml"), ("- 1", "got list"), ("k: 3", "title is missing")):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            load_experiments([str(path)])
    with pytest.raises(ValueError, match="Did you mean 'end_to_end'"):
        load_experiments(["end_to_ends"])
