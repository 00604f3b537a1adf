"""Configurations: what they expand to, and every wrong one by name."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from experiments.known_names import require_known
from experiments.runner.configuration import CONFIGS, Experiment, load_experiments


def load(folder: Path, **content: Any) -> Experiment:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({"title": "Mine", **content}))
    return load_experiments([str(path)])[0]


def test_every_configuration_of_the_project_is_valid_and_in_the_study() -> None:
    names = {path.stem for path in CONFIGS.glob("*.yaml")} - {"study"}
    study = load_experiments(["study"])
    assert {experiment.name for experiment in study} == names
    for experiment in study:
        assert experiment.kind == "scaling" or experiment.points(), experiment.name


def test_variants_and_grids_are_multiplied_and_labelled(tmp_path: Path) -> None:
    system = {
        "system": "fde",
        "build": {"preset": "paper", "center": True},
        "variants": [{"num_repetitions": 2}, {"num_repetitions": 4, "label": "four at {center}"}],
        "grid": {"center": [True, False]},
    }
    entries = load(tmp_path, systems=[system]).entries
    assert [entry.label for entry in entries] == [
        "fde, num_repetitions=2, center=True",
        "fde, num_repetitions=2, center=False",
        "four at True",
        "four at False",
    ]
    assert entries[3].build == {"preset": "paper", "center": False, "num_repetitions": 4}


def test_points_are_named_by_what_changes_along_the_curve(tmp_path: Path) -> None:
    system = {"system": "muvera", "query": {"ef": 50}, "sweep": {"candidates": [10, 20]}}
    points = load(tmp_path, systems=[system]).points()
    assert [point.name for point in points] == ["muvera, candidates=10", "muvera, candidates=20"]
    assert points[1].query == {"ef": 50, "candidates": 20}
    assert load(tmp_path, systems=[{"system": "muvera"}]).points()[0].name == "muvera"


def test_seeds_are_farther_apart_than_an_fde_has_repetitions(tmp_path: Path) -> None:
    assert load(tmp_path, seeds=3).seeds == (42, 1042, 2042)


def test_a_comparison_is_with_all_other_points_by_default(tmp_path: Path) -> None:
    systems = [{"system": "exhaustive"}, {"system": "bm25"}, {"system": "pooled"}]
    experiment = load(tmp_path, systems=systems, metrics=["nDCG@10"], compare=[{"to": "bm25"}])
    (comparison,) = experiment.comparisons
    assert (comparison.what, comparison.metrics) == (("exhaustive", "pooled"), ("nDCG@10",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"system": []}, "mine: There is no key of an experiment 'system'. Did you mean 'systems'?"),
        ({"systems": [{"system": "muvra"}]}, "There is no system 'muvra'. Did you mean 'muvera'?"),
        ({"systems": [{"system": "bm25", "swep": {}}]}, "no key of a system 'swep'. Did you mean 'sweep'?"),
        (
            {"systems": [{"system": "muvera", "build": {"num_repetition": 3}}]},
            "no build argument of muvera 'num_repetition'. Did you mean 'num_repetitions'?",
        ),
        (
            {"systems": [{"system": "muvera", "query": {"candidate": 3}}]},
            "no query argument of muvera 'candidate'. Did you mean 'candidates'?",
        ),
        ({"systems": [{"system": "bm25", "grid": {"k1": 1.2}}]}, "k1 must be a list of values"),
        ({"systems": [{"system": "bm25", "label": "{k2}"}]}, "no build argument of the label 'k2'"),
        ({"systems": [{"system": "bm25"}, {"system": "bm25"}]}, "Two points are called 'bm25'"),
        ({"metrics": ["10-recall@200"]}, "10-recall@200 looks at more documents than k=100"),
        ({"metrics": ["recal@10"]}, "There is no metric 'recal@10'"),
        ({"metrics": ["0-recall@10"]}, "both numbers must be at least 1"),
        ({"k": 0}, "k must be an int of at least 1, got 0"),
        ({"tables": ["speeed"]}, "There is no table 'speeed'. Did you mean 'speed'?"),
        ({"training_queries": 2}, "training_queries must be a share of the queries below 1, got 2"),
        ({"metrics": ["10-recall@200 unseen"]}, "looks at more documents than k=100"),
        (
            {"systems": [{"system": "bm25"}], "tables": ["crossover"]},
            "The table 'crossover' needs three systems of one point each",
        ),
        ({"collections": "small"}, "collections must be a list of names, or 'largest', got 'small'"),
        (
            {"systems": [{"system": "bm25"}], "compare": [{"to": "bm26"}]},
            "There is no point 'bm26'. Did you mean 'bm25'?",
        ),
        ({"kind": "scalign"}, "There is no kind of experiment 'scalign'. Did you mean 'scaling'?"),
    ],
)
def test_a_wrong_configuration_names_what_is_wrong(
    tmp_path: Path, content: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError) as caught:
        load(tmp_path, **content)
    assert message in str(caught.value)


def test_an_unknown_configuration_offers_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"no configuration 'end_to_ends'\. Did you mean 'end_to_end'"):
        load_experiments(["end_to_ends"])


def test_what_is_not_yaml_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: [")
    with pytest.raises(ValueError, match=r"a\.yaml is not YAML"):
        load_experiments([str(tmp_path / "a.yaml")])
    (tmp_path / "b.yaml").write_text("- 1")
    with pytest.raises(ValueError, match="must hold keys and values, got list"):
        load_experiments([str(tmp_path / "b.yaml")])
    (tmp_path / "c.yaml").write_text("k: 3")
    with pytest.raises(ValueError, match="title is missing"):
        load_experiments([str(tmp_path / "c.yaml")])


def test_a_name_like_nothing_gets_no_guess() -> None:
    with pytest.raises(ValueError, match=r"There is no system 'qqq'\. There are: a, b\."):
        require_known("qqq", ["a", "b"], "system")
