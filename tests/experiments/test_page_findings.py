"""The findings that a page opens with: sentences whose numbers are the run's."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.run_folders import row, spread, write_run
from hypothesis import given
from hypothesis import strategies as st

from experiments.evaluation.pareto import TimedPoint, pareto_front, speedups
from experiments.report.assembly import page_of
from experiments.report.experiment_view import ExperimentView
from experiments.report.findings import Finding, findings
from experiments.report.run_folder import load_run


def found(folder: Path, rows: list[dict[str, Any]], timed: bool = True, **summary: Any) -> Finding:
    """Return the findings of one experiment, "a", of these rows."""
    configured = {"a": {"title": "A", "timed": timed, "systems": [{"sweep": {"candidates": []}}]}}
    run = load_run(write_run(folder, rows, experiments=configured, **summary))
    return findings(ExperimentView(run, "a"))


def timed_row(collection: str, system: str, recall: float, speed: float, **rest: Any) -> dict[str, Any]:
    return row("a", collection, system, recall, queries_per_second=speed, **rest)


# ---- The front and the ratios


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 5)), max_size=12))
def test_the_front_is_what_nothing_beats(grid: list[tuple[int, int]]) -> None:
    points = [(quality / 4, float(cost)) for quality, cost in grid]
    front = [points[i] for i in pareto_front(points)]
    assert front == sorted(
        {
            point
            for point in points
            if not any(other != point and other[0] >= point[0] and other[1] <= point[1] for other in points)
        }
    )


def timed_point(
    series: str, quality: float, seconds: float, turns: str = "t", system: str = "muvera"
) -> TimedPoint:
    jitter = np.linspace(0.9, 1.1, 20)
    return TimedPoint(f"{series}@{seconds}", series, system, quality, turns, seconds * jitter)


def test_the_fastest_of_each_target_is_compared_with_the_next_series_and_exact_search() -> None:
    points = [
        timed_point("ours", 0.85, 1.0),
        timed_point("ours", 0.96, 2.0),
        timed_point("other", 0.97, 3.0),
        timed_point("exact", 1.0, 10.0, system="exhaustive"),
        timed_point("apart", 1.0, 0.1, turns="measured later"),
    ]
    answers = {one["target"]: one for one in speedups(points)}
    assert list(answers) == [0.8, 0.9, 0.95, 0.99]
    assert [one["fastest"] for one in answers.values()] == ["ours@1.0", "ours@2.0", "ours@2.0", "exact@10.0"]
    assert [one["point"] for one in answers[0.95]["over"]] == ["other@3.0", "exact@10.0"]
    assert [round(one["ratio"], 6) for one in answers[0.95]["over"]] == [1.5, 5.0]
    assert all(one["low"] <= one["ratio"] <= one["high"] for one in answers[0.95]["over"])
    assert answers[0.99]["over"] == []
    assert speedups([]) == []


# ---- Sentences


def test_each_collection_has_its_front_and_its_ratios(tmp_path: Path) -> None:
    rows = [
        timed_row("one", "muvera", 0.8, 400.0, point="muvera, few"),
        timed_row("one", "muvera", 0.96, 200.0, point="muvera, many"),
        timed_row("one", "bm25", 0.5, 100.0),
        timed_row("one", "exhaustive", 1.0, 10.0),
    ]
    rows[3]["metrics"]["10-recall@10"] = {"mean": 1.0, "low": 1.0, "high": 1.0}
    over = [{"point": "exhaustive", "ratio": 20.0, "low": 18.5, "high": 21.5}]
    one = {"experiment": "a", "collection": "one", "n": 9, "measure": "10-recall@10"}
    answers = [one | {"target": target, "fastest": "muvera, many", "over": over} for target in (0.9, 0.95)]
    finding = found(tmp_path, rows, speedups=answers)
    assert finding.details == []
    assert finding.sentences == [
        "On one, the Pareto front of 10-recall@10 and queries per second is, from the fastest to the best: "
        '"muvera, few" (0.800 [0.788, 0.811], 400 queries/s); "muvera, many" (0.960 [0.948, 0.971], 200 '
        "queries/s); and exhaustive (1.000, 10.0 queries/s).",
        'Where 10-recall@10 must be at least 0.95, "muvera, many" (0.960 [0.948, 0.971]) is the fastest with '
        "200 queries/s: 20.0 times [18.5, 21.5] as many as exact search.",
    ]


def test_several_collections_are_summed_up(tmp_path: Path) -> None:
    rows, answers = [], []
    for name, ratio in (("one", 2.0), ("two", 3.0), ("three", 1.5)):
        rows += [timed_row(name, "muvera", 0.97, 300.0), timed_row(name, "bm25", 0.96, 300.0 / ratio)]
        over = [{"point": "bm25", "ratio": ratio, "low": ratio - 0.1, "high": ratio + 0.1}]
        one = {"experiment": "a", "collection": name, "n": 9, "measure": "10-recall@10", "target": 0.95}
        answers.append(one | {"fastest": "muvera", "over": over})
    finding = found(tmp_path, rows, speedups=answers)
    assert finding.sentences == [
        "The Pareto front of 10-recall@10 and queries per second (what no other configuration beats in both) "
        "holds muvera on all 3 collections (0.970).",
        "Where 10-recall@10 must be at least 0.95, the fastest is muvera on all 3 collections. It answers 1.50 "
        "times [1.40, 1.60] (three) to 3.00 times [2.90, 3.10] (two) as many as the fastest of the other series.",
    ]
    assert len(finding.details) == 6


def test_differences_say_where_their_interval_excludes_zero(tmp_path: Path) -> None:
    rows = [row("a", name, system, 0.5) for name in ("one", "two") for system in ("muvera", "bm25")]
    shared = {"experiment": "a", "metric": "10-recall@10", "a": "bm25", "b": "muvera"}
    differences = [
        shared | {"collection": "one", "difference": -0.2, "low": -0.25, "high": -0.15},
        shared | {"collection": "two", "difference": 0.01, "low": -0.01, "high": 0.03},
        shared | {"collection": "two", "metric": "nDCG@10", "difference": 0.5, "low": 0.4, "high": 0.6},
    ]
    finding = found(tmp_path, rows, timed=False, comparisons=differences)
    assert finding.sentences == [
        "10-recall@10 of bm25 minus that of muvera: -0.200 [-0.250, -0.150] (one) to +0.010 [-0.010, +0.030] "
        "(two); the interval excludes 0 on 1 of 2 collections."
    ]


def test_without_comparisons_the_best_on_the_mean_is_named(tmp_path: Path) -> None:
    values = {"muvera": (0.9, 0.7), "bm25": (0.5, 0.8)}
    rows = [
        row("a", name, system, values[system][k])
        for k, name in enumerate(("one", "two"))
        for system in values
    ]
    assert found(tmp_path, rows, timed=False, comparisons=[]).sentences == [
        "Of 2 configurations, muvera has the highest 10-recall@10 on the mean over 2 collections: 0.800 (0.700 to "
        "0.900)."
    ]


def test_growth_is_said_of_every_series(tmp_path: Path) -> None:
    rows = [
        timed_row("one", "muvera", 0.9, speed, build={"n": size})
        for size, speed in ((500, 300.0), (2000, 100.0))
    ]
    assert found(tmp_path, rows).sentences == [
        "On one, muvera answers 300 queries per second with 500 documents and 100 with 2,000: 4 times the documents "
        "take 3.00 times as long."
    ]


def test_what_was_not_measured_has_no_findings(tmp_path: Path) -> None:
    assert found(tmp_path, [row("a", "one", "muvera", None)]) == Finding()
    assert found(tmp_path, [row("a", "one", "muvera", 0.5)], timed=False, comparisons=[]) == Finding()


@pytest.mark.parametrize("quick", [True, False])
def test_a_page_says_that_its_run_was_quick_before_its_findings(tmp_path: Path, quick: bool) -> None:
    rows = [row("a", "one", name, 0.5, metrics={"10-recall@10": spread(0.5)}) for name in ("muvera", "bm25")]
    page = page_of(load_run(write_run(tmp_path, rows, quick=quick)))
    assert ("This was a quick run." in page) is quick
    order = [page.index(f'<section id="{name}"') for name in ("findings", "experiment-0", "what")]
    assert order == sorted(order)
    if quick:
        assert page.index("This was a quick run.") < order[0]
    assert re.search(r'<li><a href="#findings">Findings</a></li>', page)
