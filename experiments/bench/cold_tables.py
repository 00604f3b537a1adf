"""Tables of ranking candidates whose tokens are on the disk."""

from __future__ import annotations

from typing import Any

from ..report.markdown import markdown_table, text_table

__all__ = ["markdown", "text"]

# What is aimed at: plain mmap's time over that of asking first, by what the disk reads ahead at least.
_TARGETS = ((1024, 10.0), (128, 3.0))

# The same of files that are in memory anyway: asking may cost three hundredths.
_WARM_TARGET = 0.97


def _ways(run: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    times = run["milliseconds"]
    ahead = run["read_ahead_kb"]
    target = next((ratio for least, ratio in _TARGETS if ahead is not None and ahead >= least), None)
    rows = []
    for name, ms in times.items():
        aimed = f"{_WARM_TARGET:.2f}x" if name == "warm, asked first" else ""
        if target is not None and name == "cold, asked first":
            aimed = f"{target:.0f}x"
        rows.append([name, f"{ms:.2f}", f"{times[name.split(',')[0]] / ms:.2f}x", aimed])
    return [f"{run['documents']:,} documents", "ms", "plain mmap / this", "aimed at"], rows


def _limited(run: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    rows = [
        [
            row["way"],
            f"{row['queries']:,}",
            *(f"{row[name]:.2f}" for name in ("p50", "p95", "p99")),
            f"{row['faults']:.0f}",
            "" if row["resident"] is None else f"{row['resident']:.0%}",
        ]
        for row in run["limited"]
    ]
    return ["", "queries", "p50, ms", "p95", "p99", "faults a query", "of the file in memory at last"], rows


def _sections(found: dict[str, Any]) -> list[tuple[str, str, tuple[list[str], list[list[str]]]]]:
    sections = []
    for run in found["runs"]:
        on = run["machine"]
        ahead = "an unknown read-ahead" if run["read_ahead_kb"] is None else f"{run['read_ahead_kb']:,} KB"
        caption = (
            f"100 random documents of {run['tokens']} tokens in half precision out of a file of "
            f"{run['megabytes']:,} MB, one query of 32 tokens, one thread, by the clock; {on['processor']}, "
            f'{on["cores"]} cores (load {on["load"]} at the start). "Codes first": 2 bits a coordinate, in memory, '
            "choose up to 30 whose tokens are read."
        )
        sections.append((f"Read-ahead of {ahead}", caption, _ways(run)))
        if run["limited"]:
            caption = (
                "Distinct queries, one after the other, each with 100 random candidates, 1,000 or as many as 45 "
                f"seconds allow; the process may take {run['memory']:,} MB of memory, its files' pages among it, "
                "beyond what it has before the first."
            )
            sections.append((f"In {run['memory']:,} MB, read-ahead of {ahead}", caption, _limited(run)))
    return sections


def text(found: dict[str, Any]) -> str:
    """Return the tables for the terminal."""
    return "\n\n".join(
        f"{title}\n{text_table(*table)}\n{caption}" for title, caption, table in _sections(found)
    )


def markdown(found: dict[str, Any]) -> str:
    """Return the tables as Markdown."""
    return "\n\n".join(
        f"## {title}\n\n{caption}\n\n{markdown_table(*table)}" for title, caption, table in _sections(found)
    )
