"""Tables as text and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["markdown_table", "text_table"]


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
    """Return a Markdown table; what would end a cell is written otherwise.

    Examples
    --------
    >>> print(markdown_table(["what", "ms"], [["a|b", "1.5"]]))
    | what | ms |
    | --- | ---: |
    | a/b | 1.5 |
    """
    rule = ["---", *["---:"] * (len(header) - 1)]
    cells = [[cell.replace("|", "/") for cell in row] for row in (header, *rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (cells[0], rule, *cells[1:]))


def _aligned(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [
        cell.ljust(width) if i == 0 else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
