"""Stored results, and the pages that are made from them."""

import json
from pathlib import Path
from typing import Any

from builders.run_folders import row

from experiments.report.results_pages import SUBJECTS, experiment_section, update_readme, write_pages
from experiments.report.stored_results import RESULTS, load_results, save_results, save_run
from experiments.runner.configuration import load_experiments

MACHINE = {"processor": "Abacus", "cores": 2, "load": 0.1, "python": "3.11", "numpy": "2.0", "numba": "1.0"}


def stored(**content: Any) -> dict[str, Any]:
    cells = {
        "10-recall@10": [["muvera", "0.987 [0.9, 1.0]", ""], ["bm25", "1.000 [1, 1]", "0.500"]],
        "nDCG@10": [["muvera", "0.300 [0.2, 0.4]", ""], ["bm25", "0.200", "0.100"]],
        "queries per second (p50 / p95 / p99, ms)": [
            ["muvera", "1,234 (1 / 2 / 3)", ""],
            ["bm25", "7 (1 / 2 / 3)", "8 (1 / 2 / 3)"],
            ["other", "5", "6"],
        ],
    }
    tables = [
        {
            "experiment": "headline",
            "title": f"Mine: {title}",
            "caption": "",
            "header": ["system", "a", "plaid-b"],
            "rows": rows,
        }
        for title, rows in cells.items()
    ]
    configuration = {
        "title": "Mine",
        "caption": "One\n  thread.",
        "metrics": ["10-recall@10", "nDCG@10", "R@10"],
    }
    return {
        "experiment": "headline",
        "configuration": configuration | content,
        "machine": MACHINE,
        "threads": 1,
        "tables": tables,
    }


def test_a_section_has_its_conditions_and_every_table() -> None:
    section = experiment_section(stored(reproduces="figure 6", seeds=3))
    for part in (
        "One thread.",
        "figure 6",
        "300 per",
        "Seeds: 3",
        "Abacus, 2 cores",
    ):
        assert part in section
    assert "`python -m experiments run headline`" in section
    assert section.count("<details markdown>") == section.count("</details>") == 2
    assert section.count("| --- |") == 3


def test_compared_points_come_first_in_one_table() -> None:
    section = experiment_section(stored(compare=[{"to": "muvera", "what": ["bm25", "nowhere"]}]))
    assert section.count("<details markdown>") == 3
    assert section.partition("<details")[0].rstrip().splitlines()[-6:] == [
        "**10-recall@10 / nDCG@10 / queries per second**",
        "",
        "| system | a | b |",
        "| --- | ---: | ---: |",
        "| muvera | .987 / .300 / 1,234 |  |",
        "| bm25 | 1.000 / .200 / 7 | .500 / .100 / 8 |",
    ]


def test_the_stored_results_are_those_of_the_pages(tmp_path: Path) -> None:
    shown = [name for _, _, names in SUBJECTS.values() for name in names]
    assert len(shown) == len(set(shown))
    assert {path.stem for path in RESULTS.glob("*.json")} <= set(shown)
    assert {experiment.name for experiment in load_experiments(["study"])} <= set(shown)
    root = RESULTS.parents[1]
    paths = write_pages(tmp_path, RESULTS)
    assert {path.name for path in paths} == {path.name for path in (root / "docs" / "results").iterdir()}
    for path in paths:
        kept = root / "docs" / "results" / path.name
        assert path.read_text() == kept.read_text(), f"{kept}: run python -m experiments results"
    readme = (root / "README.md").read_text()
    assert update_readme(readme, RESULTS) == readme, "README.md: run python -m experiments results"


def test_a_finished_run_is_stored_by_experiment(tmp_path: Path) -> None:
    manifest = {
        "experiments": {"headline": {"title": "Mine"}, "failed": {"title": "Failed"}},
        "machine": MACHINE,
        "threads": 1,
        "failures": [],
        "measured": [{"commit": "b"}, {"commit": "a"}, {"commit": "b"}],
    }
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    summary = {"rows": [row("headline", "a", "muvera", 0.9)], "tables": stored()["tables"]}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    save_run(tmp_path, tmp_path / "results")
    found = load_results("headline", tmp_path / "results")
    assert found["commits"] == ["a", "b"] and len(found["tables"]) == 3
    assert load_results("failed", tmp_path / "results") == {}
    lines = [line.strip() for line in (tmp_path / "results" / "headline.json").read_text().splitlines()]
    assert '["muvera", "0.300 [0.2, 0.4]", ""],' in lines  # one entry per line
    save_results("other", stored(), tmp_path / "results")
    assert [path.name for path in write_pages(tmp_path / "pages", tmp_path / "results")] == [
        "systems.md",
        "index.md",
    ]
