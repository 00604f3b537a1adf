"""Everything about smaller vectors in one short table, from what other commands stored."""

from __future__ import annotations

from typing import Any

from . import compact, learned
from .measuring import share
from .report.stored_results import markdown_table, text_table

__all__ = ["markdown", "table"]


def table(found: dict[str, dict[str, Any]]) -> str:
    """Return the table for the terminal."""
    return text_table(*_table(found))


def markdown(found: dict[str, dict[str, Any]]) -> str:
    """Return the table as Markdown.

    Parameters
    ----------
    found : dict
        Stored results of ``quality``, ``compact`` and ``learned``.
    """
    return (
        "10-recall@50 of exact Chamfer over all documents. Compact and learned vectors are learned from a "
        "random quarter of the documents, mean over quarters; the others over seeds.\n\n"
        + markdown_table(*_table(found))
    )


def _table(found: dict[str, dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    known = found["learned"]["collections"]
    collections = [name for name in found["compact"]["collections"] if name in known]
    header = ["vectors", "floats", *(name.removeprefix("plaid-") for name in collections)]
    rows = [
        ["FDE, the paper's recipe", "10,240", *(_of_quality(found, name, "paper") for name in collections)],
        ["FDE, default", "10,240", *(_of_runs(found, "compact", name, "long") for name in collections)],
    ]
    for kind, sizes in (
        ("compact", sorted(compact.SIZES, reverse=True)),
        ("learned", sorted((size for group in learned.SIZES.values() for size in group), reverse=True)),
    ):
        for size in sizes:
            cells = [_of_runs(found, kind, name, str(size)) for name in collections]
            rows.append([kind, f"{size:,}", *cells])
    return header, rows


def _of_runs(found: dict[str, dict[str, Any]], kind: str, collection: str, size: str) -> str:
    return share([run["all"][size] for run in found[kind]["collections"][collection]["runs"]])


def _of_quality(found: dict[str, dict[str, Any]], collection: str, name: str) -> str:
    rows = found["quality"].get(collection, {}).get("rows", [])
    return share([value for row in rows if row["name"] == name for value in row["recall"]["50"]])
