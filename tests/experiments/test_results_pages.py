"""Stored results, and the pages and the short table that are made of them."""

import json
from pathlib import Path
from typing import Any

from builders.run_folders import row

from experiments.report import results_pages
from experiments.report.markdown import markdown_table, text_table
from experiments.report.results_pages import SUBJECTS, experiment_section, short_table, write_pages
from experiments.report.stored_results import RESULTS, default_encoders, load_results, save_results, save_run
from experiments.runner.configuration import load_experiments

MACHINE = {"processor": "Abacus", "cores": 2, "load": 0.1, "python": "3.11", "numpy": "2.0"}


def table(title: str, *rows: list[str]) -> dict[str, Any]:
    header = ["system", "a", "plaid-b"][: len(rows[0])]
    return {"experiment": "end_to_end", "title": title, "caption": "", "header": header, "rows": list(rows)}


def stored(**content: Any) -> dict[str, Any]:
    configuration = {
        "title": "End to end",
        "caption": "One\n  thread.",
        "metrics": ["10-recall@10", "nDCG@10", "R@10"],
        "compare": [{"to": "muvera", "what": ["bm25", "nowhere"]}],
        **content,
    }
    tables = [
        table(
            "End to end: 10-recall@10", ["muvera", "0.987 [0.9, 1.0]", ""], ["bm25", "1.000 [1, 1]", "0.500"]
        ),
        table("End to end: nDCG@10", ["muvera", "0.300 [0.2, 0.4]", ""], ["bm25", "0.200", "0.100"]),
        table(
            "End to end: queries per second (p50 / p95 / p99, ms)",
            ["muvera", "1,234 (1 / 2 / 3)", ""],
            ["bm25", "7 (1 / 2 / 3)", "8 (1 / 2 / 3)"],
            ["other", "5", "6"],
        ),
    ]
    return {"configuration": configuration, "machine": MACHINE, "threads": 1, "tables": tables}


def test_a_section_says_how_it_was_measured_and_has_every_table() -> None:
    text = experiment_section(
        stored(reproduces="figure 6", documents=[1000, "all"], seeds=3, training_queries=0.5)
    )
    assert text.startswith("## End to end\n\nOne thread. (figure 6.)\n\n")
    assert "Documents: a random sample of 1,000, and all." in text
    assert "at most 300 of each collection, judged ones first, of which none of the 50% that were" in text
    assert "Seeds: 3." in text and "Abacus, 2 cores (load 0.1" in text
    assert text.count("<details markdown>") == text.count("</details>") == text.count("| --- |") == 3
    assert "<summary>nDCG@10</summary>" in text


def test_results_of_former_defaults_say_so() -> None:
    former = "Measured before FDEs and learned vectors had their present defaults"
    assert former in experiment_section(stored()) and former in short_table(stored())
    assert former not in experiment_section({**stored(), "defaults": default_encoders()})
    assert former in experiment_section({**stored(), "defaults": ["0", "1"]})


def test_the_short_table_has_the_compared_points_alone() -> None:
    text = short_table(stored())
    assert text.startswith("**End to end** (10-recall@10 / nDCG@10 / queries per second). One thread. Abacus")
    assert text.splitlines()[-4:] == [
        "|  | a | b |",
        "| --- | ---: | ---: |",
        "| muvera | .987 / .300 / 1,234 |  |",
        "| bm25 | 1.000 / .200 / 7 | .500 / .100 / 8 |",
    ]


def test_pages_are_written_of_what_is_stored(tmp_path: Path) -> None:
    save_results("end_to_end", stored(), tmp_path / "results")
    written = write_pages(tmp_path / "pages", tmp_path / "results")
    assert [path.name for path in written] == ["systems.md", "index.md"]
    page, index = (path.read_text() for path in written)
    assert "<details markdown>" in page
    assert "- [Against other systems](systems.md)" in index
    assert "| muvera | .987" in index and "figures/end_to_end-speed.svg" in index


def test_every_experiment_has_a_page() -> None:
    shown = [name for _, names in SUBJECTS.values() for name in names]
    assert sorted(shown) == sorted(experiment.name for experiment in load_experiments(["study"]))


def test_the_stored_results_are_those_of_the_pages(tmp_path: Path) -> None:
    known = {
        "speed",
        "tokens",
        "growth",
        "distractors",
        "mixed_streams",
        "cold",
        "pruning",
        *(name for _, names in SUBJECTS.values() for name in names),
    }
    assert {path.stem for path in RESULTS.glob("*.json")} <= known
    root = RESULTS.parents[1]
    for path in write_pages(tmp_path / "pages", RESULTS):
        kept = root / "docs" / "results" / path.name
        assert path.read_text() == kept.read_text(), f"{kept}: run python -m experiments results"


def test_a_finished_run_is_stored_by_experiment(tmp_path: Path) -> None:
    manifest = {
        "experiments": {"end_to_end": {"title": "End to end"}, "failed": {"title": "Failed"}},
        "machine": MACHINE,
        "threads": 1,
        "measured": [{"commit": "b"}, {"commit": "a"}, {"commit": "b"}],
    }
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    rows = [row("end_to_end", "a", system, share) for system, share in (("muvera", 0.9), ("bm25", 0.5))]
    summary = {"rows": rows, "tables": stored()["tables"]}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    assert save_run(tmp_path, tmp_path / "results") == ["end_to_end"]
    found = load_results("end_to_end", tmp_path / "results")
    assert found["commits"] == ["a", "b"] and len(found["tables"]) == 3
    assert load_results("failed", tmp_path / "results") == {}


def test_results_are_stored_a_line_an_entry(tmp_path: Path) -> None:
    values = {"a": 1, "rows": [{"b": 2}, {"b": 3}], "cells": [["x", "y"], ["z", "w"]]}
    save_results("some", values, tmp_path)
    assert load_results("some", tmp_path) == values
    lines = (tmp_path / "some.json").read_text().splitlines()
    assert '  {"b": 2},' in lines and '  ["x", "y"],' in lines


def test_cells_do_not_end_a_table() -> None:
    assert "| a/b | 1 |" in markdown_table(["", "n"], [["a|b", "1"]])
    assert text_table(["", "n"], [["a", "1"]]).splitlines()[-1] == "a  1"


def test_the_main_experiment_is_compared() -> None:
    (experiment,) = load_experiments([results_pages.MAIN])
    assert experiment.comparisons and experiment.timed
