"""The study's tables in Markdown."""

from typing import Any

from experiments.report import study_markdown as markdown


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


def test_the_short_text_has_the_compared_points_alone() -> None:
    found = stored()
    content = {
        "title": "End to end",
        "caption": "One\n  thread.",
        "metrics": ["10-recall@10", "nDCG@10", "R@10"],
        "compare": [{"to": "ours", "what": ["theirs", "nowhere"]}],
    }
    found["manifest"]["experiments"]["end_to_end"] = content
    cells = {
        "10-recall@10": (["0.987 [0.9, 1.0]", ""], ["1.000 [1.0, 1.0]", "0.500 [0.4, 0.6]"]),
        "nDCG@10": (["0.300 [0.2, 0.4]", ""], ["0.200 [0.1, 0.3]", "0.100 [0.0, 0.2]"]),
        "queries per second (p50 / p95 / p99, ms)": (
            ["1,234 (1 / 2 / 3)", ""],
            ["7 (1 / 2 / 3)", "8 (1 / 2 / 3)"],
        ),
    }
    found["tables"] = [
        {
            "experiment": "end_to_end",
            "title": f"End to end: {title}",
            "caption": "",
            "header": ["system", "a", "plaid-b"],
            "rows": [["ours", *ours], ["theirs", *theirs], ["other", "0.1 [0, 1]", ""]],
        }
        for title, (ours, theirs) in cells.items()
    ]
    text = markdown.short(found)
    assert "**End to end** (10-recall@10 / nDCG@10 / queries per second). One thread." in text
    assert text.splitlines()[-4:] == [
        "|  | a | b |",
        "| --- | ---: | ---: |",
        "| ours | .987 / .300 / 1,234 |  |",
        "| theirs | 1.000 / .200 / 7 | .500 / .100 / 8 |",
    ]
