"""Tables: one model, rendered to Markdown and to HTML."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Any


@dataclass(frozen=True)
class Column:
    """A column."""

    title: str
    #: Of rows that are dictionaries: the key of the value, or a function of the row.
    #: Default: the title.
    key: str | Callable[[dict[str, Any]], Any] = ""
    #: A template of ``str.format`` for numbers, such as ``"{:.2f}x"``.  Default:
    #: :func:`number`.
    format: str = ""
    #: Printed after the title.
    unit: str = ""

    @property
    def heading(self) -> str:
        """Title and unit."""
        return f"{self.title}, {self.unit}" if self.unit else self.title

    def value(self, row: dict[str, Any]) -> Any:
        """Return the column's value of a row."""
        return row.get(self.key or self.title) if isinstance(self.key, str) else self.key(row)

    def cell(self, value: Any) -> str:
        """Return a value as text.

        None is empty; a dictionary with a mean and an interval shows both.
        """
        if value is None or isinstance(value, str):
            return value or ""
        if isinstance(value, Mapping):
            mean, low, high = (self.cell(value.get(name)) for name in ("mean", "low", "high"))
            return f"{mean} [{low}, {high}]" if low and high else mean
        return self.format.format(value) if self.format else number(value)


@dataclass(frozen=True)
class Table:
    """A table.

    Its cells are numbers, texts, None, or dictionaries of "mean", "low" and "high".
    """

    title: str
    columns: Sequence[Column | str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""

    @classmethod
    def of(
        cls, title: str, columns: Sequence[Column], rows: Iterable[dict[str, Any]], caption: str = ""
    ) -> Table:
        """Make a table from rows that are dictionaries.

        Parameters
        ----------
        title : str
            Heading of the table.
        columns : Sequence[Column]
            Columns, each of which reads its value from a row.
        rows : Iterable[dict[str, Any]]
            Rows, top to bottom.
        caption : str
            Explanation of the table.

        Returns
        -------
        Table
        """
        return cls(title, columns, [[column.value(row) for column in columns] for row in rows], caption)

    @property
    def header(self) -> list[str]:
        """Headings of the columns."""
        return [column if isinstance(column, str) else column.heading for column in self.columns]

    @property
    def cells(self) -> list[list[str]]:
        """All rows as text."""
        columns = [Column(column) if isinstance(column, str) else column for column in self.columns]
        return [[column.cell(v) for column, v in zip(columns, row, strict=True)] for row in self.rows]

    @property
    def numeric(self) -> list[bool]:
        """For each column, True if it contains only numbers and is right-aligned.

        Never the first.
        """
        filled = [[cell for cell in column if cell] for column in zip(*self.cells, strict=True)]
        return [
            k > 0 and all(cell.lstrip(".+-[")[:1].isdigit() for cell in column)
            for k, column in enumerate(filled or [[]] * len(self.columns))
        ]

    def without_empty_columns(self) -> Table:
        """Drop the columns in which no row has a value."""
        kept = [k for k, column in enumerate(zip(*self.cells, strict=True)) if any(column)]
        rows = [[row[k] for k in kept] for row in self.rows]
        return replace(self, columns=[self.columns[k] for k in kept], rows=rows)


def number(value: Any) -> str:
    """Return three significant digits of a float, and thousands separators.

    Examples
    --------
    >>> [number(value) for value in (12345.6, 12345, 12.345, 0.00012345, True, "a")]
    ['12,346', '12,345', '12.3', '0.000123', 'yes', 'a']
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 99.95 else f"{value:#.3g}"
    return str(value)


def markdown(table: Table) -> str:
    """Return the table without title and caption.

    Examples
    --------
    >>> print(markdown(Table("", ["what", Column("time", unit="ms")], [["a|b", 1.5]])))
    | what | time, ms |
    | --- | ---: |
    | a/b | 1.50 |
    """
    rule = ["---:" if numeric else "---" for numeric in table.numeric]
    rows = [[cell.replace("|", "/") for cell in row] for row in (table.header, *table.cells)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (rows[0], rule, *rows[1:]))


def html(table: Table) -> str:
    """Return the table as HTML, in a box that scrolls."""
    sides = ["" if numeric else ' class="t"' for numeric in table.numeric]
    title = f"<b>{escape(table.title)}</b> " if table.title else ""
    head = "".join(
        f'<th scope="col"{side}>{escape(name)}</th>' for side, name in zip(sides, table.header, strict=True)
    )
    body = "".join(
        "<tr>" + "".join(f"<td{s}>{escape(c)}</td>" for s, c in zip(sides, row, strict=True)) + "</tr>\n"
        for row in table.cells
    )
    return (
        f'<div class="scroll" tabindex="0"><table><caption>{title}{escape(table.caption)}</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div>"
    )
