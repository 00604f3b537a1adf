"""The page's tables: all measurements, comparisons, the run's own tables, the collections."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .experiment_view import ExperimentView
from .numbers import MISSING, compact_arguments, interval, number, quality
from .run_folder import Row, Run

__all__ = ["Cell", "Table", "TableRow", "collections", "comparisons", "measurements", "own_tables"]


@dataclass(frozen=True)
class Cell:
    """What stands in a cell.

    Parameters
    ----------
    text : str
    spread : str
        The interval behind a mean, in smaller letters.
    """

    text: str
    spread: str = ""


@dataclass(frozen=True)
class TableRow:
    """Cells, and by which collections and systems (positions in the run) the row is filtered."""

    cells: list[Cell]
    collections: list[int] = field(default_factory=list)
    systems: list[int] = field(default_factory=list)
    identity: str = ""


@dataclass(frozen=True)
class Table:
    """A table with its caption.

    Parameters
    ----------
    title, caption : str
    header : list of str
    rows : list of TableRow
    numeric : list of bool
        Which columns are set to the right.
    column_collections : list of list of int
        By which collections a column is filtered.
    """

    title: str
    caption: str
    header: list[str]
    rows: list[TableRow]
    numeric: list[bool]
    column_collections: list[list[int]]


def measurements(view: ExperimentView) -> Table | None:
    """Return everything that was measured in an experiment, one row a configuration."""
    run = view.run
    chosen = [(i, run.rows[i]) for i in view.rows]
    columns: dict[str, Callable[[Row], Cell]] = {
        "collection": lambda row: Cell(row["collection"]),
        "system": lambda row: Cell(row["system"]),
        "configuration": lambda row: Cell(str(row.get("point") or row.get("label") or "")),
    }
    for name in view.measures:
        columns[name] = lambda row, name=name: _interval_cell((row.get("metrics") or {}).get(name))  # type: ignore[misc]
    columns["queries/s"] = lambda row: Cell(number(row.get("queries_per_second")))
    for name in ("mean", "p50", "p95", "p99"):
        columns[f"{name}, ms"] = lambda row, name=name: Cell(  # type: ignore[misc]
            number((row.get("latency_ms") or {}).get(name))
        )
    columns["build, s"] = lambda row: Cell(number(row.get("build_seconds")))
    columns["bytes/document"] = lambda row: Cell(number(row.get("bytes_per_document")))
    columns["with tokens"] = lambda row: Cell(number(row.get("total_bytes_per_document")))
    columns["seed"] = lambda row: Cell(number(row.get("seed")))
    columns["built with"] = lambda row: Cell(compact_arguments(row.get("build")))
    columns["asked with"] = lambda row: Cell(compact_arguments(row.get("query")))
    rows = [
        TableRow(
            [cell(row) for cell in columns.values()],
            [run.collections.index(row["collection"])],
            [list(run.systems).index(row["system"])],
            f"row-{i}",
        )
        for i, row in chosen
    ]
    if not rows:
        return None
    words = {"collection", "system", "configuration", "built with", "asked with"}
    caption = "Each measure as its mean and, in brackets, its confidence interval; times are of one query."
    title = f"All {len(rows):,} measurements" if len(rows) > 1 else "The one measurement"
    return _without_empty_columns(_table(title, caption, list(columns), rows, words))


def comparisons(view: ExperimentView) -> Table | None:
    """Return an experiment's paired differences."""
    run = view.run
    systems, of_label = list(run.systems), _systems_of_labels(view)
    rows = []
    for one in run.comparisons:
        if one["experiment"] != view.name:
            continue
        low, high = one.get("low"), one.get("high")
        clear = MISSING if low is None or high is None else number(low > 0 or high < 0)
        size = one.get("n")
        sides = [str(one.get("a", MISSING)), str(one.get("b", MISSING))]
        rows.append(
            TableRow(
                [
                    Cell(str(one["collection"]) if size is None else f"{one['collection']}, n={size:,}"),
                    Cell(str(one.get("metric", MISSING))),
                    *map(Cell, sides),
                    Cell(quality(one.get("difference"), signed=True), _spread(low, high, signed=True)),
                    Cell(clear),
                ],
                _positions([one["collection"]], run.collections),
                sorted({systems.index(of_label[side]) for side in sides if side in of_label}),
            )
        )
    if not rows:
        return None
    header = ["collection", "measure", "a", "b", "a - b", "interval excludes 0"]
    caption = "Differences over the same queries, with their confidence intervals in brackets."
    return _table("Paired comparisons", caption, header, rows, {*header} - {"a - b"})


def own_tables(view: ExperimentView) -> list[Table]:
    """Return the tables that the run made for an experiment."""
    run = view.run
    systems, of_label = list(run.systems), _systems_of_labels(view)
    found = []
    for table in run.tables:
        if table["experiment"] != view.name:
            continue
        header = [str(name) for name in table["header"]]
        # The section's heading and text say this already.
        title = str(table.get("title") or "").removeprefix(f"{view.title}: ")
        caption = str(table.get("caption") or "")
        formats = [_format([row[k : k + 1] for row in table["rows"]]) for k in range(len(header))]
        rows = []
        for values in table["rows"]:
            texts = [str(value) for value in values]
            named = [part for text in texts for part in text.split(" minus ")]
            rows.append(
                TableRow(
                    [Cell(show(value)) for show, value in zip(formats, values, strict=False)],
                    _positions(texts, run.collections),
                    sorted({systems.index(of_label[text]) for text in named if text in of_label}),
                )
            )
        words = {
            name
            for k, name in enumerate(header)
            if not all(_is_numeric(r, k) for r in table["rows"]) or not k
        }
        made = _table(title, "" if caption == view.caption else caption, header, rows, words)
        columns = [_positions([name], run.collections) for name in header]
        found.append(Table(made.title, made.caption, header, rows, made.numeric, columns))
    return found


def collections(run: Run) -> Table:
    """Return what the collections are."""
    described: Mapping[str, Any] = run.manifest.get("collections") or {}
    header = ["collection", "documents", "tokens", "queries", "dimension", "judged", "checksum"]
    rows = []
    for name in dict.fromkeys([*described, *run.collections]):
        about = described.get(name) or {}
        cells = [Cell(number(about.get(key))) for key in header[1:]]
        rows.append(TableRow([Cell(name), *cells], _positions([name], run.collections)))
    caption = "Documents and queries as token vectors; judged ones come with relevance judgements."
    return _table("Collections", caption, header, rows, {"collection", "judged", "checksum"})


def _table(title: str, caption: str, header: list[str], rows: list[TableRow], words: set[str]) -> Table:
    return Table(title, caption, header, rows, [name not in words for name in header], [[] for _ in header])


def _without_empty_columns(table: Table) -> Table:
    """Leave out columns in which nothing was measured."""
    kept = [
        k
        for k in range(len(table.header))
        if any(row.cells[k].text not in ("", MISSING) for row in table.rows)
    ]
    rows = [
        TableRow([row.cells[k] for k in kept], row.collections, row.systems, row.identity)
        for row in table.rows
    ]
    return Table(
        title=table.title,
        caption=table.caption,
        header=[table.header[k] for k in kept],
        rows=rows,
        numeric=[table.numeric[k] for k in kept],
        column_collections=[table.column_collections[k] for k in kept],
    )


def _interval_cell(value: Any) -> Cell:
    found = interval(value)
    return Cell(quality(found.mean), _spread(found.low, found.high))


def _spread(low: float | None, high: float | None, *, signed: bool = False) -> str:
    if low is None or high is None:
        return ""
    return f"[{quality(low, signed=signed)}, {quality(high, signed=signed)}]"


def _systems_of_labels(view: ExperimentView) -> dict[str, str]:
    """Return which system a name in a table means: its own or that of one of its configurations."""
    rows = [view.run.rows[i] for i in view.rows]
    names = {str(row[key]): row["system"] for row in rows for key in ("label", "point") if row.get(key)}
    return names | {name: name for name in view.run.systems}


def _positions(names: Iterable[Any], known: list[str]) -> list[int]:
    """Return which of the known collections are named, alone or with a size: "NAME, n=1,000"."""
    found = {str(name).partition(", n=")[0] for name in names}
    return sorted(known.index(name) for name in found if name in known)


def _format(column: list[list[Any]]) -> Callable[[Any], str]:
    """Return how a column is written: shares and their differences with three decimals."""
    floats = [value for cell in column for value in cell if isinstance(value, float)]
    if floats and max(map(abs, floats)) <= 1:
        return lambda value: quality(value) if isinstance(value, float) else number(value)
    return number


def _is_numeric(row: list[Any], column: int) -> bool:
    """Whether a cell holds a number, nothing, or a text that begins like a number."""
    value = row[column] if column < len(row) else None
    if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)):
        return True
    return str(value).strip()[:1] in set("0123456789.+-[") or str(value).strip() in ("", MISSING)
