"""The study's tables for the READMEs."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from ..report import markdown_table

__all__ = ["full", "short"]

#: The experiment that the project's own README shows.
_MAIN = "end_to_end"


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
    """Return the first table of the end-to-end comparison and its speeds."""
    tables = [table for table in stored["tables"] if table["experiment"] == _MAIN]
    shown = [tables[0], *(table for table in tables if "queries per second" in table["title"])]
    parts = [f"{_caption(tables[0], stored)} {_measured_on(stored['manifest'])}"]
    parts += [f"{_heading(table)}\n\n{_markdown(table)}" for table in shown]
    return "\n\n".join(parts)


def _heading(table: dict[str, Any]) -> str:
    title, _, what = table["title"].partition(": ")
    return f"{what or title}:"


def _markdown(table: dict[str, Any]) -> str:
    rows = [[cell.replace("|", "/") for cell in row] for row in table["rows"]]
    return markdown_table(table["header"], rows)


def _measured_on(manifest: dict[str, Any]) -> str:
    machine = manifest["machine"]
    return (
        f"Measured on {machine['processor']}, {machine['cores']} cores (load {machine['load']} at the "
        f"start), Python {machine['python']}, NumPy {machine['numpy']}; threads: {manifest['threads']}; in "
        "brackets 95% intervals over queries."
    )


def _caption(table: dict[str, Any], stored: dict[str, Any]) -> str:
    content = stored["manifest"]["experiments"].get(table["experiment"], {})
    source = f" ({content['reproduces']}.)" if content.get("reproduces") else ""
    return f"{table['caption']}{source}"
