"""The study's tables for the READMEs."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from .stored_results import markdown_table

__all__ = ["MAIN", "full", "short"]

#: The experiments that the project's own README shows.
MAIN = ("end_to_end", "plaid", "token_search")


def full(stored: dict[str, Any]) -> str:
    """Return every table of a stored study, those of an experiment folded under its title."""
    parts = [_measured_on(stored["manifest"])]
    for _, group in groupby(stored["tables"], key=lambda table: table["experiment"]):
        tables = list(group)
        title = tables[0]["title"].partition(": ")[0]
        parts.append(f"<details><summary>{title}</summary>\n\n{_caption(tables[0], stored)}")
        parts += [f"{_heading(table)}\n\n{_markdown(table)}" for table in tables]
        parts.append("</details>")
    return "\n\n".join(parts)


def short(stored: dict[str, Any]) -> str:
    """Return one table each of MAIN's experiments: the points that their configurations compare."""
    parts = [_brief(stored, name) for name in MAIN if name in stored["manifest"]["experiments"]]
    return "\n\n".join([_measured_on(stored["manifest"], brackets=False), *parts])


def _brief(stored: dict[str, Any], name: str) -> str:
    """Return the compared points' qualities and queries per second in one table."""
    content = stored["manifest"]["experiments"][name]
    compared = content["compare"][0]
    tables = {
        table["title"].partition(": ")[2]: {row[0]: row[1:] for row in table["rows"]}
        for table in stored["tables"]
        if table["experiment"] == name
    }
    header = next(table["header"] for table in stored["tables"] if table["experiment"] == name)
    metrics = [metric for metric in content["metrics"] if metric in tables][:2]
    shown = {metric: tables[metric] for metric in metrics}
    speeds = next((rows for title, rows in tables.items() if title.startswith("queries per second")), {})
    rows = []
    for point in dict.fromkeys([compared["to"], *compared["what"]]):
        cells = []
        for place in range(len(header) - 1):
            values = [rows[point][place] for rows in (*shown.values(), speeds) if point in rows]
            cells.append(" / ".join(value.partition(" ")[0].removeprefix("0") for value in values if value))
        if any(cells):
            rows.append([point, *cells])
    table = markdown_table(["", *(name.removeprefix("plaid-") for name in header[1:])], rows)
    what = " / ".join([*metrics, "queries per second"])
    caption = " ".join(content.get("caption", "").split())
    return f"**{content['title']}** ({what}). {caption}\n\n{table}"


def _heading(table: dict[str, Any]) -> str:
    title, _, what = table["title"].partition(": ")
    return f"{what or title}:"


def _markdown(table: dict[str, Any]) -> str:
    rows = [[cell.replace("|", "/") for cell in row] for row in table["rows"]]
    return markdown_table(table["header"], rows)


def _measured_on(manifest: dict[str, Any], brackets: bool = True) -> str:
    machine = manifest["machine"]
    intervals = "; in brackets 95% intervals over queries" if brackets else ""
    return (
        f"Measured on {machine['processor']}, {machine['cores']} cores (load {machine['load']} at the "
        f"start), Python {machine['python']}, NumPy {machine['numpy']}; threads: "
        f"{manifest['threads']}{intervals}."
    )


def _caption(table: dict[str, Any], stored: dict[str, Any]) -> str:
    content = stored["manifest"]["experiments"].get(table["experiment"], {})
    source = f" ({content['reproduces']}.)" if content.get("reproduces") else ""
    return f"{table['caption']}{source}"
