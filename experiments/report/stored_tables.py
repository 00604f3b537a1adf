"""StoredTables: cells of a stored result by table, row and column."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

#: Collections in the order in which documents show them: real ColBERTv2 first.
COLLECTIONS = ("lotte500-colbertv2", "cosqa-minilm", "scifact-minilm", "cranfield-minilm")


class MissingCellError(LookupError):
    """A stored result lacks a table, row or column; the message names it."""


class StoredTables:
    """The tables of one stored result."""

    def __init__(self, stored: dict[str, Any]) -> None:
        prefix = f"{stored.get('configuration', {}).get('title', '')}: "
        self._tables: list[tuple[str, dict[str, Any]]] = [
            (str(table["title"]).removeprefix(prefix), table) for table in stored.get("tables", ())
        ]

    def table(self, title: str) -> dict[str, Any]:
        """Return the table of this title, or the first whose title contains it."""
        exact = [table for name, table in self._tables if name == title]
        similar = [table for name, table in self._tables if title in name]
        if not exact and not similar:
            raise MissingCellError(f"the table {title!r}")
        return (exact or similar)[0]

    def collections(self, title: str) -> list[str]:
        """Return the columns of a table of collections, real ColBERTv2 first."""
        names = [name for name in self.table(title)["header"][1:] if name not in ("recall", "metric")]
        return sorted(names, key=collection_order)

    def rows(self, title: str) -> list[str]:
        """Return the first cell of each row."""
        return [row[0] for row in self.table(title)["rows"]]

    def cell(self, title: str, row: str | Sequence[str], column: str, *, empty: bool = False) -> str:
        """Return the text of a cell; `row` is the row's first cell, or its first cells.

        Raises
        ------
        MissingCellError
            If the table, row or column does not exist, or the cell is empty and not
            allowed to be.
        """
        table, wanted = self.table(title), [row] if isinstance(row, str) else list(row)
        if column not in table["header"]:
            raise MissingCellError(f"the column {column!r} of the table {title!r}")
        for cells in table["rows"]:
            if [cell.replace("*", "") for cell in cells[: len(wanted)]] == wanted:
                text = str(cells[table["header"].index(column)])
                if text or empty:
                    return text
        raise MissingCellError(f"the row {', '.join(wanted)!r} of the table {title!r} in {column}")

    def shown(self, title: str, row: str | Sequence[str], column: str) -> str:
        """Return a cell's first number as it is stored."""
        return self.cell(title, row, column).partition(" ")[0]

    def value(self, title: str, row: str | Sequence[str], column: str) -> float:
        """Return a cell's first number."""
        return number_of(self.shown(title, row, column))


def collection_order(name: str) -> tuple[int, str]:
    """Return a key that sorts collections: real ColBERTv2 first."""
    return (COLLECTIONS.index(name) if name in COLLECTIONS else len(COLLECTIONS), name)


def number_of(text: str) -> float:
    """Return a number such as ``1,234``, ``+0.012``, ``0.8x`` or ``more`` (infinity).

    Examples
    --------
    >>> [number_of(text) for text in ("1,234", "-0.012", "0.8x", "more")]
    [1234.0, -0.012, 0.8, inf]
    """
    if text == "more":
        return float("inf")
    found = re.match(r"[+-]?[\d,]*\.?\d+", text)
    if found is None:
        raise MissingCellError(f"a number instead of {text!r}")
    return float(found[0].replace(",", ""))


def interval_of(cell: str) -> tuple[float, float]:
    """Return the interval of a cell such as ``+0.003 [-0.002, +0.009]``.

    Examples
    --------
    >>> interval_of("0.901x [0.884, 0.925]")
    (0.884, 0.925)
    """
    low, high = cell.partition("[")[2].rstrip("]").split(", ")
    return number_of(low), number_of(high)
