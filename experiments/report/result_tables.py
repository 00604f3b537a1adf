"""Tables of a run's results that any experiment may have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..evaluation.statistics import ratio_interval
from ..evaluation.summary import Part, Results
from ..runner.configuration import Experiment
from .special_tables import candidates, crossover, losses, scaling
from .speed_at_recall import speed_at_recall
from .table_parts import Table, make_table, table_of_points, table_of_rows, with_interval

__all__ = ["result_tables"]


def result_tables(results: Results, parts: Sequence[Part]) -> list[Table]:
    """Return the tables that the configurations ask for, and one of the differences of each.

    Parameters
    ----------
    results : Results
    parts : sequence of Part
        All that was measured.
    """
    makers: dict[str, Callable[[Results, list[Part]], list[Table]]] = {
        "metrics": _metrics,
        "speed": _speed,
        "size": _size,
        "facts": _facts,
        "variance": _variance,
        "losses": losses,
        "candidates": candidates,
        "scaling": scaling,
        "crossover": crossover,
        "speed_at_recall": speed_at_recall,
    }
    tables: list[Table] = []
    for name in dict.fromkeys(part.experiment.name for part in parts):
        own = [part for part in parts if part.experiment.name == name]
        for kind in own[0].experiment.tables:
            tables += makers[kind](results, own)
        tables.append(_differences(results, own[0].experiment))
    return [table for table in tables if table["rows"]]


def _metrics(results: Results, parts: list[Part]) -> list[Table]:
    experiment = parts[0].experiment

    def cell(metric: str) -> Callable[[str, int, str], str]:
        def text(collection: str, size: int, point: str) -> str:
            values = results.values.get((experiment.name, collection, size, point), {}).get(metric)
            return "" if values is None else with_interval(values)

        return text

    return [table_of_points(parts, metric, cell(metric)) for metric in experiment.metrics]


def _speed(results: Results, parts: list[Part]) -> list[Table]:
    def rate(row: dict[str, Any]) -> str:
        if row["queries_per_second"] is None:
            return ""
        times = row["latency_ms"]
        return (
            f"{_rate(row['queries_per_second'])} "
            f"({times['p50']:.3g} / {times['p95']:.3g} / {times['p99']:.3g})"
        )

    return [table_of_rows(results, parts, "queries per second (p50 / p95 / p99, ms)", rate)]


def _size(results: Results, parts: list[Part]) -> list[Table]:
    def seconds(row: dict[str, Any]) -> str:
        return "" if row["build_seconds"] is None else f"{row['build_seconds']:.2f}"

    def size(row: dict[str, Any]) -> str:
        return f"{row['bytes_per_document']:,.0f} ({row['total_bytes_per_document']:,.0f})"

    title = "bytes of a document (with the token vectors that are read)"
    return [
        table_of_rows(results, parts, "seconds of a build", seconds, by="label"),
        table_of_rows(results, parts, title, size, by="label"),
    ]


def _variance(results: Results, parts: list[Part]) -> list[Table]:
    """Mean and standard deviation over seeds."""
    experiment = parts[0].experiment

    def cell(metric: str) -> Callable[[str, int, str], str]:
        def text(collection: str, size: int, point: str) -> str:
            means = [
                row["metrics"][metric]["mean"]
                for row in results.rows
                if (row["experiment"], row["collection"], row["point"])
                == (experiment.name, collection, point)
                and row["metrics"].get(metric) is not None
            ]
            if len(means) < 2:
                return ""
            return f"{np.mean(means):.3f} (sd {np.std(means, ddof=1):.4f})"

        return text

    seeds = len(experiment.seeds)
    return [table_of_points(parts, f"{metric}, {seeds} seeds", cell(metric)) for metric in experiment.metrics]


def _facts(results: Results, parts: list[Part]) -> list[Table]:
    """Facts about the built indexes, but for the FDE's size, and facts about queries."""
    experiment = parts[0].experiment
    known = {name for point in experiment.points() for name in point.entry.build} | {"n", "vector_dimension"}
    rows = [row for row in results.rows if row["experiment"] == experiment.name]
    of_index = dict.fromkeys(name for row in rows for name in row["build"] if name not in known)
    of_queries = dict.fromkeys(name for row in rows for name in row.get("facts", {}))

    def index_fact(name: str) -> Callable[[dict[str, Any]], str]:
        def text(row: dict[str, Any]) -> str:
            value = row["build"].get(name, "")
            return value if isinstance(value, str) else f"{value:.3g}"

        return text

    def query_fact(name: str) -> Callable[[dict[str, Any]], str]:
        def text(row: dict[str, Any]) -> str:
            value = row.get("facts", {}).get(name)
            return "" if value is None else f"{value['mean']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"

        return text

    return [
        *(
            table_of_rows(results, parts, name.replace("_", " "), index_fact(name), by="label")
            for name in of_index
        ),
        *(table_of_rows(results, parts, name, query_fact(name)) for name in of_queries),
    ]


def _differences(results: Results, experiment: Experiment) -> Table:
    found = [one for one in results.comparisons if one["experiment"] == experiment.name]
    several = len(experiment.documents) > 1
    header = ["difference", "metric", *dict.fromkeys(_heading(one, several) for one in found)]
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for one in found:
        text = f"{one['difference']:+.3f} [{one['low']:+.3f}, {one['high']:+.3f}]"
        key = (f"{one['a']} minus {one['b']}", one["metric"])
        cells.setdefault(key, {})[_heading(one, several)] = text
        if experiment.timed:
            key = (f"{one['a']} over {one['b']}", "median time of a query")
            cells.setdefault(key, {})[_heading(one, several)] = _time_ratio(results, one)
    rows = [[*key, *(row.get(heading, "") for heading in header[2:])] for key, row in cells.items()]
    return make_table(experiment, "differences over the same queries", header, rows)


def _time_ratio(results: Results, one: dict[str, Any]) -> str:
    """Return how many times as long the median query of a comparison's first system took.

    Nothing where the two were not asked in the same turns, as when one failed and was measured later, or
    were not timed.
    """
    where = (one["experiment"], one["collection"], one["n"])
    mine, other = results.times.get((*where, one["a"])), results.times.get((*where, one["b"]))
    if mine is None or other is None or mine[0] != other[0] or np.isnan(mine[1]).any():
        return ""
    ratio, low, high = ratio_interval(mine[1], other[1])
    return f"{ratio:.3g}x [{low:.3g}, {high:.3g}]"


def _heading(one: dict[str, Any], several: bool) -> str:
    return f"{one['collection']}, n={one['n']:,}" if several else str(one["collection"])


def _rate(queries_per_second: float) -> str:
    return f"{queries_per_second:,.0f}" if queries_per_second >= 10 else f"{queries_per_second:.2g}"
