"""The study's tables in Markdown."""

from typing import Any

from experiments.study import markdown


def stored() -> dict[str, Any]:
    machine = {"processor": "Abacus", "cores": 2, "load": 0.1, "python": "3.11", "numpy": "2.0"}
    tables = [
        ("end_to_end", "End to end: nDCG@10", "bm25"),
        ("end_to_end", "End to end: queries per second (p50 / p95 / p99, ms)", "fast|plaid"),
        ("end_to_end", "End to end: seconds of a build", "slow"),
        ("other", "Other", "alone"),
    ]
    return {
        "manifest": {
            "machine": machine,
            "threads": 1,
            "experiments": {"end_to_end": {"reproduces": "figure 6"}, "other": {}},
        },
        "tables": [
            {
                "experiment": name,
                "title": title,
                "caption": "Said.",
                "header": ["", "a"],
                "rows": [[cell, "1"]],
            }
            for name, title, cell in tables
        ],
    }


def test_the_full_text_has_every_table_once_under_its_experiment() -> None:
    text = markdown.full(stored())
    assert text.count("<details>") == text.count("</details>") == 2
    assert text.index("End to end</summary>") < text.index("| slow | 1 |") < text.index("Other</summary>")
    assert text.count("| --- |") == 4
    assert "| fast/plaid | 1 |" in text
    assert "Said. (figure 6.)" in text and "Abacus, 2 cores (load 0.1" in text


def test_the_short_text_has_one_metric_and_the_speeds() -> None:
    text = markdown.short(stored())
    assert text.count("| --- |") == 2
    assert "nDCG@10:" in text and "queries per second" in text and "slow" not in text
