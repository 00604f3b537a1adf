"""docs/papers.md: what papers claim, and what is measured here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from .stored_results import RESULTS, load_results
from .table import Table, markdown

#: The list of papers.
PAPERS = Path(__file__).parents[1] / "papers.yaml"

_INTRODUCTION = """\
# Papers

What each paper claims, where its method is, the command that shows it on the data of this repository, and the
number that came out. `python -m experiments results` writes this page from the stored results. The figures of the
MUVERA paper have [a page of their own](results/paper.md)."""


def papers_page(results: Path = RESULTS, papers: Path = PAPERS) -> str:
    """Return the page of papers as Markdown.

    Raises
    ------
    ValueError
        If a paper names a stored table or cell that does not exist.
    """
    rows = []
    for entry in yaml.safe_load(papers.read_text(encoding="utf-8")):
        name = f"[{entry['paper']}](https://arxiv.org/abs/{entry['arxiv']})"
        command = f"`python -m experiments {entry['command']}`" if "command" in entry else ""
        numbers = entry.get("number", [])
        places = numbers if isinstance(numbers, list) else [numbers]
        found = "; ".join(stored_number(place, results) for place in places) or entry["why"]
        rows.append([name, entry["claim"], entry["module"], command, found])
    header = ["paper", "claim", "module", "command", "here"]
    return f"{_INTRODUCTION}\n\n{markdown(Table('', header, rows))}\n"


def stored_number(place: dict[str, Any], results: Path = RESULTS) -> str:
    """Return a stored cell with its text and column.

    Parameters
    ----------
    place : dict
        "result", a part of the title of its "table", "row" (its first cell, or the list
        of its first cells), "column", and the "text" after the number.
    results : Path
        Folder of the stored results.
    """
    tables = load_results(place["result"], results).get("tables", [])
    row = [place["row"]] if isinstance(place["row"], str) else place["row"]
    for table in tables:
        if place["table"] in table["title"] and place["column"] in table["header"]:
            for cells in table["rows"]:
                if [cell.replace("*", "") for cell in cells[: len(row)]] == row:
                    number = cells[table["header"].index(place["column"])].partition(" ")[0]
                    where = "" if place["column"].startswith((".", "@")) else f" ({place['column']})"
                    return f"{number} {place['text']}{where}"
    raise ValueError(
        f"papers.yaml names a number that is not stored: {place['result']}, table {place['table']!r}, row "
        f"{place['row']!r}, column {place['column']!r}. Run the command with --save, or correct the entry."
    )
