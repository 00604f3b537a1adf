"""Tables for the terminal and for Markdown, results as files, and the READMEs' generated blocks."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

__all__ = ["RESULTS", "fill_block", "load_results", "machine", "markdown_table", "save_results", "text_table"]

#: Stored results, from which the READMEs' tables are written.
RESULTS = Path(__file__).parents[1] / "results"


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return an aligned table; the first column to the left, the others to the right.

    Examples
    --------
    >>> print(text_table(["what", "ms"], [["one", "1.5"], ["three", "10"]]))
    what    ms
    -----  ---
    one    1.5
    three   10
    """
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join("  ".join(_aligned(row, widths)).rstrip() for row in lines)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))


def fill_block(text: str, name: str, content: str) -> str:
    """Replace what stands between the markers ``<!-- name:begin -->`` and ``<!-- name:end -->``.

    Raises
    ------
    ValueError
        Where one of the markers is missing.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, found_begin, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        raise ValueError(
            f"The text has no block between {begin} and {end}. Put the two lines where it belongs."
        )
    return f"{before}{begin}\n{content.strip()}\n{end}{after}"


def load_results(name: str, folder: Path = RESULTS) -> dict[str, Any]:
    """Return stored results, an empty dictionary where there are none."""
    path = folder / f"{name}.json"
    if not path.exists():
        return {}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def save_results(name: str, values: dict[str, Any], folder: Path = RESULTS) -> None:
    """Store results, one entry of the lists in them a line, so that changes can be read."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(_lines(values) + "\n", encoding="utf-8")


def machine() -> dict[str, Any]:
    """Say what the times were measured on."""
    information = Path("/proc/cpuinfo")
    models = [
        line.partition(":")[2].strip()
        for line in (information.read_text(encoding="utf-8").splitlines() if information.exists() else [])
        if line.startswith("model name")
    ]
    return {
        "processor": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        **{name: version(name) for name in ("numpy", "numba", "scipy")},
    }


def _aligned(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [
        cell.ljust(width) if i == 0 else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]


def _lines(value: Any, indent: int = 0) -> str:
    inner = " " * (indent + 1)
    if isinstance(value, dict) and any(isinstance(part, (dict, list)) for part in value.values()):
        parts = [f"{inner}{json.dumps(key)}: {_lines(part, indent + 1)}" for key, part in value.items()]
        return "{\n" + ",\n".join(parts) + "\n" + " " * indent + "}"
    if isinstance(value, list) and any(isinstance(part, dict) for part in value):
        parts = [inner + json.dumps(part, ensure_ascii=False) for part in value]
        return "[\n" + ",\n".join(parts) + "\n" + " " * indent + "]"
    return json.dumps(value, ensure_ascii=False)
