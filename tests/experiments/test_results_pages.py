"""Stored results, and the pages that are made from them."""

import json
from pathlib import Path
from typing import Any

from experiments.report.results_pages import SUBJECTS, update_readme, write_pages
from experiments.report.stored_results import RESULTS, load_results, save_results, save_run
from experiments.runner.configuration import load_experiments

MACHINE = {"processor": "Abacus", "cores": 2, "load": 0.1, "python": "3.11", "numpy": "2.0", "numba": "1.0"}


def stored() -> dict[str, Any]:
    rows = [["muvera", "0.300 [0.2, 0.4]", ""], ["bm25", "0.200", "0.100"]]
    about = {"experiment": "headline", "caption": "", "header": ["system", "a", "plaid-b"], "rows": rows}
    tables = [{**about, "title": f"Mine: {title}"} for title in ("10-recall@10", "nDCG@10", "R@10")]
    run = {"experiment": "headline", "machine": MACHINE, "threads": 1, "tables": tables}
    return {**run, "configuration": {"title": "Mine", "caption": "One thread."}}


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
    experiments = {"headline": {"title": "Mine"}, "failed": {"title": "Failed"}}
    manifest = {"experiments": experiments, "machine": MACHINE, "threads": 1, "failures": []}
    manifest["measured"] = [{"commit": "b"}, {"commit": "a"}, {"commit": "b"}]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    summary = {"rows": [{"experiment": "headline"}], "tables": stored()["tables"]}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    save_run(tmp_path, tmp_path / "results")
    found = load_results("headline", tmp_path / "results")
    assert found["commits"] == ["a", "b"] and len(found["tables"]) == 3
    assert load_results("failed", tmp_path / "results") == {}
    lines = [line.strip() for line in (tmp_path / "results" / "headline.json").read_text().splitlines()]
    assert '["muvera", "0.300 [0.2, 0.4]", ""],' in lines  # one entry per line
    save_results("other", stored(), tmp_path / "results")
    paths = write_pages(tmp_path / "pages", tmp_path / "results")
    assert [path.name for path in paths] == ["systems.md", "index.md"]
