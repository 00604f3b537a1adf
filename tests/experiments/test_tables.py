"""Tables: the model and its renderers, the numbers of the studies, and tables of single experiments."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.paths import ROOT

from experiments.evaluation.summary import Part, Results
from experiments.report import studies
from experiments.report.machines import Machine, machine_table, query_ms, scan_cost
from experiments.report.old_names import plain
from experiments.report.result_tables import needed_candidates, result_tables, seconds_at
from experiments.report.stored_results import load_results
from experiments.report.table import Column, Table, html, markdown, text
from experiments.runner.configuration import load_experiments

INTERVAL = {"mean": 0.5, "low": 0.25, "high": 0.75, "n": 3}


def test_one_table_has_the_same_cells_in_every_form() -> None:
    columns: list[Column | str] = [
        "system",
        "words",
        Column("recall", format="{:.2f}"),
        Column("time", unit="ms"),
        "empty",
    ]
    table = Table(
        "Title", columns, [["<a|b>", "x", INTERVAL, 1234.5, None], ["c", "1", None, 0.001234, None]]
    )
    assert table.header == ["system", "words", "recall", "time, ms", "empty"]
    assert table.cells == [["<a|b>", "x", "0.50 [0.25, 0.75]", "1,234", ""], ["c", "1", "", "0.00123", ""]]
    assert table.numeric[:4] == [False, False, True, True]
    assert table.without_empty_columns().header == table.header[:4]
    assert markdown(table).splitlines()[2] == "| <a/b> | x | 0.50 [0.25, 0.75] | 1,234 |  |"
    assert text(table).splitlines()[0] == "Title" and "0.50 [0.25, 0.75]     1,234" in text(table)
    page = html(table)
    assert "&lt;a|b&gt;" in page and "<a|b>" not in page
    assert page.count("<td") == 10 and page.count("<th") - page.count("<thead") == 5


@pytest.mark.parametrize("name", [name for name in studies.STUDIES if load_results(name)])
def test_stored_studies_have_tables_of_every_measured_row(name: str) -> None:
    results = load_results(name)
    tables = studies.STUDIES[name][1](plain(results))
    counts = {
        "speed": [len(results.get("lines", [])), len(results.get("first_calls", [])), 3],
        "tokens": [len(results.get("quality", [])), len(results.get("speed", []))],
        "cold": [6, 3, 6, 3],
        "growth": [
            n for run in results.get("runs", []) for n in ([25, 2] if len(run.get("rows", ())) > 1 else [25])
        ],
        "first_stage": [len(results.get("rows", [])) // 2] * 2,
        "distractors": [4, 4],
        "dial": [len(results.get("rows", []))],
        "searches": [len(results.get("codecs", [])), len(results.get("ways", []))],
        "pruning": [len(results.get("rows", []))],
    }[name]
    assert [len(table.rows) for table in tables] == counts
    for table in tables:
        assert all(len(row) == len(table.header) for row in table.cells)
        assert text(table) in studies.study_text(name, results)
        assert markdown(table) in studies.study_markdown(name, results)


def test_growth_is_extrapolated() -> None:
    row = {
        "resident_bytes": 1_100_000, "empty_process_bytes": 100_000, "disk_bytes": 10**6, "exact_bytes": 0,
        "build_processor_seconds": 0.36, "thorough_p50": 1.0, "documents": 1000,
    }  # fmt: skip
    table = studies._outlook([{**row, "documents": 500}, row])
    assert [line[:5] for line in table.cells] == [
        ["100,000,000", "100", "0.1", "2", "50"],
        ["10,000,000,000", "10,000", "10.0", "105", "95"],
    ]


def test_old_names_are_mapped() -> None:
    old = {
        "way": "cold, asked first",
        "a": ["muvera default, candidates=5 minus default", "compact_covariance"],
    }
    assert plain(old) == {"way": "cold, prefetched", "a": ["muvera fde, candidates=5 minus fde", "moments"]}
    assert plain({"asked first": 1.5}) == {"prefetched": 1.5}
    assert plain("the default, not at the start") == "the default, not at the start"


# ---- Machines


def test_machines_are_counted_from_stored_costs() -> None:
    machine, cost = Machine(memory_gb=64, cores=8, rate=5000, share=0.5), scan_cost()
    ((_, _, shards, each, _, ms, rate, copies, machines),) = machine_table([10**9], machine).rows
    most = min(32e9 / cost.memory, 100 * cost.documents / cost.ms)
    assert (shards - 1) * most < 1e9 <= shards * most and each == 1e9 / shards
    assert ms == pytest.approx(each * cost.ms / cost.documents + query_ms()) and rate == pytest.approx(
        8000 / ms
    )
    assert machines == shards * copies and (copies - 1) * rate < 5000 <= copies * rate


def test_the_documents_have_the_commands_table() -> None:
    assert markdown(machine_table([10**8, 10**10], Machine())) in (ROOT / "docs" / "scale.md").read_text(
        encoding="utf-8"
    )


# ---- Tables of single experiments

CONFIGURATION = """
title: Mine
timed: true
documents: [300, all]
metrics: [10-recall@10]
tables: [speed_at_recall, candidates]
systems:
  - {system: muvera, label: ours, sweep: {candidates: [20, 50]}}
  - {system: pooled, label: theirs, sweep: {candidates: [20, 50]}}
"""


def results(turns: dict[str, str]) -> Results:
    """Two points of each label on one collection of 300 documents."""
    made = Results()
    times = {"ours": [0.001, 0.002], "theirs": [0.004, 0.005]}
    recalls = {"ours": [0.9, 0.99], "theirs": [0.8, 0.92]}
    for label, seconds in times.items():
        for i, candidates in enumerate((20, 50)):
            key = ("mine", "some", 300, f"{label}, candidates={candidates}")
            made.times[key] = (turns[label], np.array([seconds[i], seconds[i], 100.0]))
            made.values[key] = {"10-recall@10": np.full(3, recalls[label][i])}
        row: dict[str, Any] = {"experiment": "mine", "collection": "some", "seed": 42, "label": label}
        row |= {"build": {"n": 300}, "build_seconds": 1.25, "total_bytes_per_document": 12345.6}
        made.rows.append(row)
    return made


def test_speed_at_a_recall_is_interpolated_and_compared(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(CONFIGURATION)
    (experiment,) = load_experiments([str(path)])
    part = Part(experiment, "some", [""] * 300, [""] * 3, 900, "", "")
    speed, needed = result_tables(results({"ours": "1", "theirs": "1"}), [part])
    assert speed["header"][1:5] == [".80", ".90", ".95", ".99"]
    assert speed["rows"] == [
        ["ours", "1,000", "1,000", "643", "500", "12,346", "1.2"],
        ["theirs", "250 (4x)", "207 (4.8x)", "", "", "12,346", "1.2"],
    ]
    assert needed["rows"][2:4] == [["ours, .90", "at most 20"], ["theirs, .90", "43"]]
    apart = result_tables(results({"ours": "1", "theirs": "2"}), [part])[0]  # not measured together
    assert apart["rows"][1][1:3] == ["250", "207"]
    other = replace(part, document_ids=[""] * 500)  # nothing was measured at this size
    assert result_tables(results({"ours": "1", "theirs": "1"}), [other]) == []


def test_curves_are_interpolated() -> None:
    curve = [(0.99, 8.0), (0.8, 1.0), (0.85, 9.0), (0.9, 3.0)]
    assert [seconds_at(curve, level) for level in (0.8, 0.85, 0.99, 0.995)] == [1.0, 2.0, 8.0, None]
    assert seconds_at([], 0.5) is None
    assert needed_candidates([(10, 0.5), (1000, 0.9)], 0.7) == (100.0, "100")
