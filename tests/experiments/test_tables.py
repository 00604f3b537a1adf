"""Tables: the model and its renderers, the numbers of the studies, and tables of single experiments."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.paths import ROOT
from builders.small_runs import configured

from experiments.evaluation.summary import Measured, Part
from experiments.report.machines import Machine, machine_table, query_ms, scan_cost
from experiments.report.result_tables import result_tables
from experiments.report.stored_results import load_results, save_tables
from experiments.report.table import Column, Table, html, markdown
from experiments.runner.configuration import Experiment, load_experiments
from experiments.runner.raw_store import Raw

INTERVAL = {"mean": 0.5, "low": 0.25, "high": 0.75, "n": 3}


def test_one_table_has_the_same_cells_in_every_form() -> None:
    numbers = (Column("recall", format="{:.2f}"), Column("time", unit="ms"))
    rows: list[Any] = [["<a|b>", "x", INTERVAL, 1234.5, None], ["c", "1", None, 0.001234, None]]
    table = Table("Title", ["system", "words", *numbers, "empty"], rows)
    assert table.header == ["system", "words", "recall", "time, ms", "empty"]
    assert table.cells == [["<a|b>", "x", "0.50 [0.25, 0.75]", "1,234", ""], ["c", "1", "", "0.00123", ""]]
    assert table.numeric[:4] == [False, False, True, True]
    assert table.without_empty_columns().header == table.header[:4]
    assert markdown(table).splitlines()[2] == "| <a/b> | x | 0.50 [0.25, 0.75] | 1,234 |  |"
    page = html(table)
    assert "&lt;a|b&gt;" in page and "<a|b>" not in page
    assert page.count("<td") == 10 and page.count("<th") - page.count("<thead") == 5


def test_saved_tables_replace_those_of_the_same_title(tmp_path: Path) -> None:
    old = Table("Times", ["system", "ms"], [["a", 1], ["b", 2]])
    save_tables("mine", "Mine", [old, Table("Sizes", ["system"], [["a"]])], tmp_path)
    save_tables("mine", "Mine", [Table("Times", ["system", "ms"], [["b", 3]], "Now.")], tmp_path)
    times, sizes = load_results("mine", tmp_path)["tables"]
    assert times["rows"] == [["a", "1"], ["b", "3"]] and "earlier" in times["caption"]
    assert sizes["rows"] == [["a"]]
    save_tables("mine", "Mine", [Table("Times", ["system", "s"], [["b", 3]])], tmp_path)
    assert load_results("mine", tmp_path)["tables"][0]["rows"] == [["b", "3"]]


def test_machines_are_counted_from_stored_costs() -> None:
    machine, cost = Machine(memory_gb=64, cores=8, rate=5000, share=0.5), scan_cost()
    ((_, _, shards, each, _, ms, rate, copies, machines),) = machine_table([10**9], machine).rows
    most = min(32e9 / cost.memory, 100 * cost.documents / cost.ms)
    assert (shards - 1) * most < 1e9 <= shards * most and each == 1e9 / shards
    assert (ms, rate) == pytest.approx((each * cost.ms / cost.documents + query_ms(), 8000 / ms))
    assert machines == shards * copies and (copies - 1) * rate < 5000 <= copies * rate


def test_the_documents_have_the_commands_table() -> None:
    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    assert markdown(machine_table([10**8, 10**10], Machine())) in page


#: Label, candidates, seconds and recall of the points of a timed experiment.
POINTS = [
    ("ours", 20, 0.001, 0.9),
    ("ours", 50, 0.002, 0.99),
    ("theirs", 20, 0.004, 0.8),
    ("theirs", 30, 0.009, 0.85),  # another point is faster and better
    ("theirs", 50, 0.005, 0.92),
]


def part(experiment: Experiment, **turns: str) -> Part:
    """Return the points on one collection."""
    made = Part(experiment, "some")
    for label, candidates, seconds, recall in POINTS:
        row = {"label": label, "build_seconds": 1.25, "total_bytes_per_document": 12345.6}
        none: Any = np.empty(0)
        raw = Raw(none, none, np.array([seconds, seconds, 100.0]), {"turns": turns[label]})
        values = {"10-recall@10": np.full(3, recall)}
        made.points[f"{label}, candidates={candidates}"] = Measured([row], values, raw)
    return made


def test_speed_at_a_recall_is_interpolated_and_compared(tmp_path: Path) -> None:
    sweep = {"candidates": [20, 30, 50]}
    systems = [{"system": "muvera", "label": label, "sweep": sweep} for label in ("ours", "theirs")]
    content: dict[str, Any] = {"timed": True, "metrics": ["10-recall@10"], "systems": systems}
    content["tables"] = ["speed_at_recall"]
    (experiment,) = load_experiments([configured(tmp_path, **content)])
    (speed,) = result_tables([part(experiment, ours="1", theirs="1")])
    assert speed["header"][1:5] == [".80", ".90", ".95", ".99"]
    assert speed["rows"] == [
        ["ours", "1,000", "1,000", "643", "500", "12,346", "1.2"],
        ["theirs", "250 (4x)", "207 (4.8x)", "", "", "12,346", "1.2"],
    ]
    apart = result_tables([part(experiment, ours="1", theirs="2")])[0]  # not measured together
    assert apart["rows"][1][1:3] == ["250", "207"]
    assert result_tables([Part(experiment, "some")]) == []  # nothing was measured
