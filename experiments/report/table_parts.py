"""The model of a table of results, and what most tables are made with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from ..evaluation.statistics import mean_interval
from ..evaluation.summary import Part, Results
from ..runner.configuration import Experiment

__all__ = ["Column", "Table", "columns_of", "make_table", "table_of_points", "table_of_rows", "with_interval"]

#: A column of results: collection, number of documents, heading.
Column = tuple[str, int, str]


class Table(TypedDict):
    """A table as ``summary.json`` and the stored results have it; all cells are strings."""

    experiment: str
    title: str
    caption: str
    header: list[str]
    rows: list[list[str]]


def make_table(experiment: Experiment, title: str, header: Sequence[str], rows: list[list[str]]) -> Table:
    """Return a table under an experiment's title."""
    return Table(
        experiment=experiment.name,
        title=f"{experiment.title}: {title}" if title else experiment.title,
        caption=experiment.caption,
        header=list(header),
        rows=rows,
    )


def columns_of(parts: Sequence[Part]) -> list[Column]:
    """Return a column for each collection, and each size where an experiment has several."""
    several = len(parts[0].experiment.documents) > 1
    columns = [
        (part.collection, part.size, f"{part.collection}, n={part.size:,}" if several else part.collection)
        for part in parts
    ]
    return list(dict.fromkeys(columns))


def table_of_points(parts: Sequence[Part], title: str, cell: Callable[[str, int, str], str]) -> Table:
    """Return a table of one row a point; rows without any number are left out.

    Parameters
    ----------
    parts : sequence of Part
        Of one experiment.
    title : str
    cell : callable
        Returns the text for a collection, a number of documents and a point's name.
    """
    experiment, columns = parts[0].experiment, columns_of(parts)
    rows = []
    for point in experiment.points():
        cells = [cell(name, size, point.name) for name, size, _ in columns]
        if any(cells):
            rows.append([point.name, *cells])
    return make_table(experiment, title, ["system", *(heading for _, _, heading in columns)], rows)


def table_of_rows(
    results: Results,
    parts: Sequence[Part],
    title: str,
    cell: Callable[[dict[str, Any]], str],
    by: str = "point",
) -> Table:
    """Return a table of what `cell` says of the first seed's rows.

    Parameters
    ----------
    results : Results
    parts : sequence of Part
        Of one experiment.
    title : str
    cell : callable
        Returns the text for a row of the results.
    by : {"point", "label"}
        What a row of the table stands for.
    """
    experiment, columns = parts[0].experiment, columns_of(parts)
    several = len(experiment.documents) > 1
    found: dict[str, dict[tuple[str, int], str]] = {}
    for row in results.rows:
        if row["experiment"] == experiment.name and row["seed"] == experiment.seeds[0]:
            collection = row["collection"]
            size = row["build"]["n"] if several else next(s for name, s, _ in columns if name == collection)
            found.setdefault(row[by], {})[(collection, size)] = cell(row)
    rows = [
        [name, *(cells.get((collection, size), "") for collection, size, _ in columns)]
        for name, cells in found.items()
        if any(cells.values())
    ]
    return make_table(experiment, title, ["system", *(heading for _, _, heading in columns)], rows)


def with_interval(values: NDArray[np.float64]) -> str:
    """Return the mean and its interval as text."""
    found = mean_interval(values)
    return "" if found is None else f"{found['mean']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"
