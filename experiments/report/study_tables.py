"""Tables of a study, as lists of strings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..evaluation.intervals import mean_interval, ratio_interval
from ..evaluation.summary import Part, Study
from ..runner.configuration import Experiment
from ..runner.scaling import RECALL

__all__ = ["study_tables"]

Table = dict[str, Any]

# Recall that candidates are counted for.
_SHARES = (0.8, 0.9, 0.95)


def study_tables(study: Study, parts: Sequence[Part]) -> list[Table]:
    """Return the tables that the configurations ask for, and one of the differences of each.

    Parameters
    ----------
    study : Study
    parts : sequence of Part
        All that was measured.

    Returns
    -------
    list of dict
        "experiment", "title", "caption", "header" and "rows", all cells strings.
    """
    makers: dict[str, Callable[[Study, list[Part]], list[Table]]] = {
        "metrics": _metrics,
        "speed": _speed,
        "size": _size,
        "losses": _losses,
        "candidates": _candidates,
        "facts": _facts,
        "variance": _variance,
        "scaling": _scaling,
    }
    tables: list[Table] = []
    for name in dict.fromkeys(part.experiment.name for part in parts):
        own = [part for part in parts if part.experiment.name == name]
        for kind in own[0].experiment.tables:
            tables += makers[kind](study, own)
        tables += _differences(study, own[0].experiment)
    return [table for table in tables if table["rows"]]


def _table(experiment: Experiment, title: str, header: Sequence[str], rows: list[list[str]]) -> Table:
    return {
        "experiment": experiment.name,
        "title": f"{experiment.title}: {title}" if title else experiment.title,
        "caption": experiment.caption,
        "header": list(header),
        "rows": rows,
    }


def _places(parts: list[Part]) -> list[tuple[str, int, str]]:
    """Return (collection, size, heading) of each column."""
    several = len(parts[0].experiment.documents) > 1
    places = []
    for part in parts:
        name, size = part.collection.name, len(part.collection.document_ids)
        places.append((name, size, f"{name}, n={size:,}" if several else name))
    return list(dict.fromkeys(places))


def _pivot(
    parts: list[Part], title: str, cell: Callable[[str, int, str], str], first: str = "system"
) -> list[Table]:
    """One row a point, one column a collection; rows without any number are left out."""
    experiment, places = parts[0].experiment, _places(parts)
    rows = []
    for point in experiment.points():
        cells = [cell(name, size, point.name) for name, size, _ in places]
        if any(cells):
            rows.append([point.name, *cells])
    return [_table(experiment, title, [first, *(heading for _, _, heading in places)], rows)]


def _metrics(study: Study, parts: list[Part]) -> list[Table]:
    experiment = parts[0].experiment
    tables: list[Table] = []
    for metric in experiment.metrics:

        def cell(collection: str, size: int, point: str, metric: str = metric) -> str:
            values = study.values.get((experiment.name, collection, size, point), {}).get(metric)
            return "" if values is None else _with_interval(values)

        tables += _pivot(parts, metric, cell)
    return tables


def _speed(study: Study, parts: list[Part]) -> list[Table]:
    def rate(row: dict[str, Any]) -> str:
        if row["queries_per_second"] is None:
            return ""
        times = row["latency_ms"]
        return (
            f"{_rate(row['queries_per_second'])} "
            f"({times['p50']:.3g} / {times['p95']:.3g} / {times['p99']:.3g})"
        )

    return _of_rows(study, parts, "queries per second (p50 / p95 / p99, ms)", rate)


def _size(study: Study, parts: list[Part]) -> list[Table]:
    def seconds(row: dict[str, Any]) -> str:
        return "" if row["build_seconds"] is None else f"{row['build_seconds']:.2f}"

    def size(row: dict[str, Any]) -> str:
        return f"{row['bytes_per_document']:,.0f} ({row['total_bytes_per_document']:,.0f})"

    return [
        *_of_rows(study, parts, "seconds of a build", seconds, by="label"),
        *_of_rows(
            study, parts, "bytes of a document (with the token vectors that are read)", size, by="label"
        ),
    ]


def _of_rows(
    study: Study, parts: list[Part], title: str, cell: Callable[[dict[str, Any]], str], by: str = "point"
) -> list[Table]:
    experiment, places = parts[0].experiment, _places(parts)
    several = len(experiment.documents) > 1
    found: dict[str, dict[tuple[str, int], str]] = {}
    for row in study.rows:
        if row["experiment"] == experiment.name and row["seed"] == experiment.seeds[0]:
            size = row["build"]["n"] if several else next(s for n, s, _ in places if n == row["collection"])
            found.setdefault(row[by], {})[(row["collection"], size)] = cell(row)
    rows = [
        [name, *(cells.get((collection, size), "") for collection, size, _ in places)]
        for name, cells in found.items()
        if any(cells.values())
    ]
    return [_table(experiment, title, ["system", *(heading for _, _, heading in places)], rows)]


def _variance(study: Study, parts: list[Part]) -> list[Table]:
    """Mean and standard deviation over seeds."""
    experiment = parts[0].experiment
    tables: list[Table] = []
    for metric in experiment.metrics:

        def cell(collection: str, size: int, point: str, metric: str = metric) -> str:
            means = [
                row["metrics"][metric]["mean"]
                for row in study.rows
                if (row["experiment"], row["collection"], row["point"])
                == (experiment.name, collection, point)
                and row["metrics"].get(metric) is not None
            ]
            if len(means) < 2:
                return ""
            return f"{np.mean(means):.3f} (sd {np.std(means, ddof=1):.4f})"

        tables += _pivot(parts, f"{metric}, {len(experiment.seeds)} seeds", cell)
    return tables


def _losses(study: Study, parts: list[Part]) -> list[Table]:
    """What is lost by FDEs, by the depth of reranking and by the graph; the three add up.

    The configuration has one system with exact inner products of FDEs and one with a graph of the same,
    both at several numbers of candidates.
    """
    experiment = parts[0].experiment
    metric = experiment.metrics[0]
    exact = [point for point in experiment.points() if point.entry.build.get("backend") == "exact"]
    graphs = [point for point in experiment.points() if point.entry.build.get("backend") == "hnsw"]
    rows = []
    for name, size, heading in _places(parts):

        def values(point: str, name: str = name, size: int = size) -> NDArray[np.float64] | None:
            return study.values.get((experiment.name, name, size, point), {}).get(metric)

        scanned = {point.query["candidates"]: values(point.name) for point in exact}
        deepest = scanned[max(scanned)] if scanned else None
        for point in graphs:
            depth = point.query["candidates"]
            whole, found = scanned.get(depth), values(point.name)
            if deepest is None or whole is None or found is None:
                continue
            losses = (1 - deepest, deepest - whole, whole - found, 1 - found)
            rows.append([heading, str(point.query.get("ef", "")), str(depth), *map(_with_interval, losses)])
    header = ["collection", "ef", "candidates", "lost by FDEs", "by the depth", "by the graph", "together"]
    return [_table(experiment, metric, header, rows)]


def _candidates(study: Study, parts: list[Part]) -> list[Table]:
    """How many candidates each system needs, and how many times as many as the first system.

    Between the numbers that were asked for, recall is taken to rise with their logarithm.
    """
    experiment = parts[0].experiment
    metric = experiment.metrics[0]
    rows = []
    for share in _SHARES:
        first: dict[tuple[str, int], float | None] = {}
        for entry in experiment.entries:
            cells = []
            for name, size, _ in _places(parts):
                curve = [
                    (point.query["candidates"], float(np.mean(values[metric])))
                    for point in entry.points()
                    if "candidates" in point.query
                    and (values := study.values.get((experiment.name, name, size, point.name))) is not None
                ]
                needed, cell = needed_candidates(curve, share)
                mine = first.setdefault((name, size), needed)
                if mine is not None and needed is not None and entry is not experiment.entries[0]:
                    cell += f" ({needed / mine:.1f}x)"
                cells.append(cell)
            if any(cells):
                rows.append([f"{entry.label}, {share:.2f}".replace("0.", "."), *cells])
    header = ["system, recall to be reached", *(heading for _, _, heading in _places(parts))]
    return [_table(experiment, f"{metric}: candidates that reach it", header, rows)]


def needed_candidates(curve: Sequence[tuple[int, float]], share: float) -> tuple[float | None, str]:
    """Return how many candidates reach a recall of `share`, and how that is written.

    Parameters
    ----------
    curve : sequence of (candidates, recall)
    share : float

    Examples
    --------
    >>> needed_candidates([(10, 0.5), (100, 0.9)], 0.7)
    (31.6, '32')
    >>> needed_candidates([(10, 0.5), (100, 0.9)], 0.95)
    (None, 'over 100')
    """
    ordered = sorted(curve)
    if not ordered:
        return None, ""
    before = ordered[0]
    if before[1] >= share:
        return None, f"at most {before[0]}"
    for count, recall in ordered[1:]:
        if recall >= share:
            part = (share - before[1]) / (recall - before[1])
            needed = float(np.exp(np.log(before[0]) + part * np.log(count / before[0])))
            return round(needed, 1), f"{needed:.0f}"
        before = (count, recall)
    return None, f"over {ordered[-1][0]}"


def _facts(study: Study, parts: list[Part]) -> list[Table]:
    """Numbers about the built indexes, but for the FDE's size."""
    experiment = parts[0].experiment
    known = {name for point in experiment.points() for name in point.entry.build} | {"n", "vector_dimension"}
    names = [
        name
        for row in study.rows
        if row["experiment"] == experiment.name
        for name in row["build"]
        if name not in known
    ]

    def maker(name: str) -> Callable[[dict[str, Any]], str]:
        return lambda row: f"{row['build'][name]:.3g}" if name in row["build"] else ""

    tables: list[Table] = []
    for name in dict.fromkeys(names):
        tables += _of_rows(study, parts, name.replace("_", " "), maker(name), by="label")
    return tables


def _scaling(study: Study, parts: list[Part]) -> list[Table]:
    experiment = parts[0].experiment
    header = ["search", "documents", "build, s", "build, us/document", "bytes/document", "resident bytes"]
    header += ["p50, ms", "p95, ms", RECALL]
    rows = []
    for row in study.rows:
        if row["experiment"] != experiment.name:
            continue
        n, resident, recall = (
            row["build"]["n"],
            row["build"]["resident_bytes"],
            row["metrics"][RECALL],
        )
        rows.append(
            [
                row["label"],
                f"{n:,}",
                f"{row['build_seconds']:.2f}",
                f"{row['build_seconds'] / n * 1e6:.1f}",
                f"{row['bytes_per_document']:,.0f}",
                "" if resident is None else f"{resident:,.0f}",
                f"{row['latency_ms']['p50']:.3f}",
                f"{row['latency_ms']['p95']:.3f}",
                "" if recall is None else f"{recall['mean']:.3f}",
            ]
        )
    name = parts[0].collection.name
    return [_table(experiment, f"FDEs of {name}, then synthetic ones", header, rows)]


def _differences(study: Study, experiment: Experiment) -> list[Table]:
    found = [one for one in study.comparisons if one["experiment"] == experiment.name]
    several = len(experiment.documents) > 1
    header = ["difference", "metric", *dict.fromkeys(_heading(one, several) for one in found)]
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for one in found:
        text = f"{one['difference']:+.3f} [{one['low']:+.3f}, {one['high']:+.3f}]"
        key = (f"{one['a']} minus {one['b']}", one["metric"])
        cells.setdefault(key, {})[_heading(one, several)] = text
        if experiment.timed:
            key = (f"{one['a']} over {one['b']}", "median time of a query")
            cells.setdefault(key, {})[_heading(one, several)] = _time_ratio(study, one)
    rows = [[*key, *(row.get(heading, "") for heading in header[2:])] for key, row in cells.items()]
    return [_table(experiment, "differences over the same queries", header, rows)]


def _time_ratio(study: Study, one: dict[str, Any]) -> str:
    """Return how many times as long the median query of a comparison's first system took.

    Nothing where the two were not asked in the same turns, as when one failed and was measured later.
    """
    where = (one["experiment"], one["collection"], one["n"])
    mine, other = study.times.get((*where, one["a"])), study.times.get((*where, one["b"]))
    if mine is None or other is None or mine[0] != other[0]:
        return ""
    ratio, low, high = ratio_interval(mine[1], other[1])
    return f"{ratio:.3g}x [{low:.3g}, {high:.3g}]"


def _heading(one: dict[str, Any], several: bool) -> str:
    return f"{one['collection']}, n={one['n']:,}" if several else str(one["collection"])


def _rate(queries_per_second: float) -> str:
    return f"{queries_per_second:,.0f}" if queries_per_second >= 10 else f"{queries_per_second:.2g}"


def _with_interval(values: NDArray[np.float64]) -> str:
    found = mean_interval(values)
    return "" if found is None else f"{found['mean']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"
