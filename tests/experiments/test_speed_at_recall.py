"""Queries per second at a recall, interpolated over the points of a curve."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from experiments.evaluation.summary import Part, Results
from experiments.report.speed_at_recall import seconds_at, speed_at_recall
from experiments.runner.configuration import load_experiments

CONFIGURATION = """
title: Mine
timed: true
documents: [300, all]
metrics: [10-recall@10]
tables: [speed_at_recall]
systems:
  - {system: muvera, label: ours, sweep: {candidates: [20, 50]}}
  - {system: pooled, label: theirs, sweep: {candidates: [20, 50]}}
"""


def test_a_curve_is_interpolated_on_its_front() -> None:
    curve = [(0.99, 8.0), (0.8, 1.0), (0.85, 9.0), (0.9, 3.0)]
    assert seconds_at(curve, 0.8) == 1.0
    assert seconds_at(curve, 0.85) == pytest.approx(2.0)  # the slow point at .85 does not count
    assert seconds_at(curve, 0.99) == 8.0
    assert seconds_at(curve, 0.995) is None
    assert seconds_at([], 0.5) is None


def results(times: dict[str, list[float]], recalls: dict[str, list[float]], turns: dict[str, str]) -> Results:
    """Results of two points of each label on one collection of 300 documents."""
    made = Results()
    for label, seconds in times.items():
        for i, candidates in enumerate((20, 50)):
            where = ("mine", "some", 300, f"{label}, candidates={candidates}")
            made.times[where] = (turns[label], np.array([seconds[i], seconds[i], 100.0]))
            made.values[where] = {"10-recall@10": np.full(3, recalls[label][i])}
        made.rows.append(
            {
                "experiment": "mine",
                "collection": "some",
                "seed": 42,
                "label": label,
                "build": {"n": 300},
                "build_seconds": 1.25,
                "total_bytes_per_document": 12345.6,
            }
        )
    return made


def test_the_table_has_speeds_ratios_bytes_and_seconds(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(CONFIGURATION)
    (experiment,) = load_experiments([str(path)])
    part = Part(experiment, "some", [""] * 300, [""] * 3, 900, "", "")
    times = {"ours": [0.001, 0.002], "theirs": [0.004, 0.005]}
    recalls = {"ours": [0.9, 0.99], "theirs": [0.8, 0.92]}
    (table,) = speed_at_recall(results(times, recalls, {"ours": "1", "theirs": "1"}), [part])
    assert table["header"][1:5] == [".80", ".90", ".95", ".99"]
    assert table["rows"] == [
        ["ours", "1,000", "1,000", "643", "500", "12,346", "1.2"],
        ["theirs", "250 (4x)", "207 (4.8x)", "", "", "12,346", "1.2"],
    ]
    # What was not asked in the same turns is not compared.
    (apart,) = speed_at_recall(results(times, recalls, {"ours": "1", "theirs": "2"}), [part])
    assert apart["rows"][1][1:3] == ["250", "207"]
    # A size of which nothing was measured has no table's rows.
    (other,) = speed_at_recall(
        results(times, recalls, {"ours": "1", "theirs": "1"}), [replace(part, document_ids=[""] * 500)]
    )
    assert other["rows"] == []
