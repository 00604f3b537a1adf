"""Tables of a run: what its configuration lists under `tables`, and the paired differences."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from ..evaluation.statistics import mean_interval, pareto_front, ratio_interval
from ..evaluation.summary import Part, Results
from ..runner.configuration import Entry, Experiment
from ..runner.scaling import RECALL
from .table import Column, Table

__all__ = ["crossing", "needed_candidates", "result_tables", "seconds_at"]

# Recalls that speed is interpolated at, and recalls that candidates are counted for.
_SPEED_RECALLS, _CANDIDATE_RECALLS = (0.8, 0.9, 0.95, 0.99), (0.8, 0.9, 0.95)

# A mean of recalls is rounded.
_ROUNDING = 1e-9

_SHARE = "{:.3f}"

Cell = Callable[[str, str, int], Any]


def result_tables(results: Results, parts: Sequence[Part]) -> list[dict[str, Any]]:
    """Return all tables of a run as ``summary.json`` holds them; every cell is text.

    Parameters
    ----------
    results : Results
    parts : sequence of Part
        Everything that was measured.
    """
    tables = []
    for name in dict.fromkeys(part.experiment.name for part in parts):
        own = [part for part in parts if part.experiment.name == name]
        experiment = own[0].experiment
        made = [table for kind in experiment.tables for table in _KINDS[kind](results, own)]
        for table in (*made, _differences(results, experiment)):
            if table.rows:
                title = f"{experiment.title}: {table.title}" if table.title else experiment.title
                about = {"experiment": name, "title": title, "caption": experiment.caption}
                tables.append({**about, "header": table.header, "rows": table.cells})
    return tables


def _columns(parts: Sequence[Part]) -> dict[tuple[str, int], str]:
    """Map collection and number of documents to a heading."""
    several = len(parts[0].experiment.documents) > 1
    return {(p.collection, p.size): _heading(p.collection, p.size if several else None) for p in parts}


def _heading(collection: str, size: int | None) -> str:
    return collection if size is None else f"{collection}, n={size:,}"


def _grid(parts: Sequence[Part], title: str, names: Iterable[str], cell: Cell, format: str = "") -> Table:
    """Return a row for each name and a column for each collection, without empty rows."""
    columns = _columns(parts)
    rows = [[name, *(cell(name, *column) for column in columns)] for name in names]
    headings = [Column(heading, format=format) for heading in columns.values()]
    return Table(title, ["system", *headings], [row for row in rows if any(v is not None for v in row[1:])])


def _by_point(parts: Sequence[Part], title: str, cell: Cell, format: str = "") -> Table:
    return _grid(parts, title, [point.name for point in parts[0].experiment.points()], cell, format)


def _by_row(
    results: Results, parts: Sequence[Part], title: str, value: Callable[[dict[str, Any]], Any],
    by: str = "label", format: str = "",
) -> Table:  # fmt: skip
    """Return a table of the first seed's rows, by "label" or "point"."""
    experiment, columns = parts[0].experiment, _columns(parts)
    sized = len(experiment.documents) > 1
    sizes = dict(reversed(list(columns)))
    rows = {
        (row[by], row["collection"], row["build"]["n"] if sized else sizes[row["collection"]]): row
        for row in results.rows
        if row["experiment"] == experiment.name and row["seed"] == experiment.seeds[0]
    }

    def cell(*key: Any) -> Any:
        return value(rows[key]) if key in rows else None

    return _grid(parts, title, dict.fromkeys(key[0] for key in rows), cell, format)


def _metrics(results: Results, parts: list[Part]) -> list[Table]:
    def cell(metric: str) -> Cell:
        def value(point: str, collection: str, size: int) -> Any:
            values = results.values.get((parts[0].experiment.name, collection, size, point), {}).get(metric)
            return None if values is None else mean_interval(values)

        return value

    return [_by_point(parts, name, cell(name), _SHARE) for name in parts[0].experiment.metrics]


def _variance(results: Results, parts: list[Part]) -> list[Table]:
    """Return mean and standard deviation over seeds."""
    experiment = parts[0].experiment

    def cell(metric: str) -> Cell:
        def value(point: str, collection: str, _: int) -> Any:
            means = [
                row["metrics"][metric]["mean"]
                for row in results.rows
                if row["experiment"] == experiment.name
                and (row["collection"], row["point"]) == (collection, point)
                and row["metrics"].get(metric) is not None
            ]
            return f"{np.mean(means):.3f} (sd {np.std(means, ddof=1):.4f})" if len(means) > 1 else None

        return value

    return [_by_point(parts, f"{m}, {len(experiment.seeds)} seeds", cell(m)) for m in experiment.metrics]


def _speed(results: Results, parts: list[Part]) -> list[Table]:
    def rate(row: dict[str, Any]) -> str | None:
        speed, times = row["queries_per_second"], row["latency_ms"]
        if speed is None:
            return None
        percentiles = " / ".join(f"{times[name]:.3g}" for name in ("p50", "p95", "p99"))
        return f"{speed:,.0f} ({percentiles})" if speed >= 10 else f"{speed:.2g} ({percentiles})"

    return [_by_row(results, parts, "queries per second (p50 / p95 / p99, ms)", rate, "point")]


def _size(results: Results, parts: list[Part]) -> list[Table]:
    def size(row: dict[str, Any]) -> str:
        return f"{row['bytes_per_document']:,.0f} ({row['total_bytes_per_document']:,.0f})"

    build = _by_row(results, parts, "build seconds", lambda row: row["build_seconds"], format="{:.2f}")
    return [build, _by_row(results, parts, "bytes per document (with token vectors)", size)]


def _facts(results: Results, parts: list[Part]) -> list[Table]:
    """Return facts about the built indexes (those not configured), and facts about queries."""
    experiment = parts[0].experiment
    known = {name for point in experiment.points() for name in point.entry.build} | {"n", "vector_dimension"}
    rows = [row for row in results.rows if row["experiment"] == experiment.name]
    of_index = dict.fromkeys(name for row in rows for name in row["build"] if name not in known)
    of_queries = dict.fromkeys(name for row in rows for name in row.get("facts", {}))
    return [
        *(
            _by_row(
                results, parts, name.replace("_", " "), lambda r, n=name: r["build"].get(n), format="{:.3g}"
            )  # type: ignore[misc]
            for name in of_index
        ),
        *(
            _by_row(results, parts, name, lambda r, n=name: r.get("facts", {}).get(n), "point", _SHARE)  # type: ignore[misc]
            for name in of_queries
        ),
    ]


def _differences(results: Results, experiment: Experiment) -> Table:
    several = len(experiment.documents) > 1
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for one in results.comparisons:
        if one["experiment"] != experiment.name:
            continue
        heading = _heading(one["collection"], one["n"] if several else None)
        text = f"{one['difference']:+.3f} [{one['low']:+.3f}, {one['high']:+.3f}]"
        cells.setdefault((f"{one['a']} minus {one['b']}", one["metric"]), {})[heading] = text
        if experiment.timed:
            ratio = _time_ratio(results, one)
            cells.setdefault((f"{one['a']} over {one['b']}", "median latency"), {})[heading] = ratio
    headings = list(dict.fromkeys(heading for row in cells.values() for heading in row))
    rows = [[*key, *(row.get(heading) for heading in headings)] for key, row in cells.items()]
    return Table("paired differences", ["difference", "metric", *headings], rows)


def _time_ratio(results: Results, one: dict[str, Any]) -> str:
    """Return the ratio of two systems' median latency; nothing unless they were timed in the same turns."""
    where = (one["experiment"], one["collection"], one["n"])
    mine, other = results.times.get((*where, one["a"])), results.times.get((*where, one["b"]))
    if mine is None or other is None or mine[0] != other[0] or np.isnan(mine[1]).any():
        return ""
    return "{:.3g}x [{:.3g}, {:.3g}]".format(*ratio_interval(mine[1], other[1]))


# ---- Tables of single experiments


def _losses(results: Results, parts: list[Part]) -> list[Table]:
    """Return what is lost by FDEs, by ranking fewer candidates and by the graph; the three add up.

    The configuration has one system with exact inner products of FDEs and one with a graph of them, both at
    several numbers of candidates.
    """
    experiment = parts[0].experiment
    metric, points = experiment.metrics[0], list(experiment.points())
    rows = []
    for (collection, size), heading in _columns(parts).items():
        found = {
            point.name: values[metric]
            for point in points
            if (values := results.values.get((experiment.name, collection, size, point.name))) is not None
        }
        exact = {
            point.query["candidates"]: found[point.name]
            for point in points
            if point.entry.build.get("backend") == "exact" and point.name in found
        }
        for point in points:
            candidates = point.query.get("candidates")
            if (
                point.entry.build.get("backend") != "hnsw"
                or point.name not in found
                or candidates not in exact
            ):
                continue
            deepest, same, graph = exact[max(exact)], exact[candidates], found[point.name]
            lost = (1 - deepest, deepest - same, same - graph, 1 - graph)
            rows.append([heading, point.query.get("ef"), candidates, *map(mean_interval, lost)])
    titles = ("lost by FDEs", "lost by fewer candidates", "lost by the graph", "total")
    shares = [Column(title, format=_SHARE) for title in titles]
    return [Table(metric, ["collection", "ef", "candidates", *shares], rows)]


def _candidates(results: Results, parts: list[Part]) -> list[Table]:
    """Return how many candidates each system needs, and how many times as many as the first system."""
    experiment = parts[0].experiment
    metric = experiment.metrics[0]
    first: dict[tuple[str, int, float], float | None] = {}
    cells: dict[tuple[str, str, int], str | None] = {}
    for share in _CANDIDATE_RECALLS:
        for entry in experiment.entries:
            for collection, size in _columns(parts):
                curve = [
                    (point.query["candidates"], float(np.mean(values[metric])))
                    for point in entry.points()
                    if "candidates" in point.query
                    and (values := results.values.get((experiment.name, collection, size, point.name)))
                ]
                needed, cell = needed_candidates(curve, share)
                base = first.setdefault((collection, size, share), needed)
                if base is not None and needed is not None and entry is not experiment.entries[0]:
                    cell += f" ({needed / base:.1f}x)"
                name = f"{entry.label}, {share:.2f}".replace("0.", ".")
                cells[name, collection, size] = cell or None
    names = dict.fromkeys(name for name, _, _ in cells)
    table = _grid(parts, f"candidates needed for a {metric}", names, lambda *key: cells[key])
    return [Table(table.title, ["system, recall", *table.columns[1:]], table.rows)]


def needed_candidates(curve: Sequence[tuple[int, float]], share: float) -> tuple[float | None, str]:
    """Return how many candidates reach a recall of `share`, as a number and as text.

    Between measured numbers, recall is interpolated over the logarithm of the candidates.

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
            needed = float(before[0] * (count / before[0]) ** part)
            return round(needed, 1), f"{needed:.0f}"
        before = (count, recall)
    return None, f"over {ordered[-1][0]}"


def _scaling(results: Results, parts: list[Part]) -> list[Table]:
    """Return time and memory of adding and searching by number of FDEs."""
    ms, whole = "{:.3f}", "{:,.0f}"
    columns = [
        *("search", "documents", Column("build", "s", "{:.2f}"), Column("build", "us/document", "{:.1f}")),
        *(Column("bytes/document", format=whole), Column("resident bytes", format=whole)),
        *(Column("p50", "ms", ms), Column("p95", "ms", ms), Column(RECALL, format=_SHARE)),
    ]
    rows = []
    for row in results.rows:
        if row["experiment"] == parts[0].experiment.name:
            n, seconds, recall = row["build"]["n"], row["build_seconds"], row["metrics"][RECALL]
            size = (row["bytes_per_document"], row["build"]["resident_bytes"])
            times = (row["latency_ms"]["p50"], row["latency_ms"]["p95"])
            rows.append(
                [row["label"], n, seconds, seconds / n * 1e6, *size, *times, recall and recall["mean"]]
            )
    return [Table(f"FDEs of {parts[0].collection}, then synthetic ones", columns, rows)]


def _crossover(results: Results, parts: list[Part]) -> list[Table]:
    """Return from which size on the second system is faster than the first, and the third than the second.

    The configuration lists three systems by the size that they are for: all tokens, all vectors, a graph of
    vectors.  Times are those of the median query, interpolated between measured sizes.
    """
    experiment = parts[0].experiment
    points = [point.name for point in experiment.points()]
    rows = []
    for name in dict.fromkeys(part.collection for part in parts):
        own = sorted((part for part in parts if part.collection == name), key=lambda part: part.size)
        keys = [[(experiment.name, name, part.size, point) for part in own] for point in points]
        if all(key in results.times for line in keys for key in line):
            medians = [[float(np.median(results.times[key][1])) for key in line] for line in keys]
            tokens, sizes = [part.tokens for part in own], [part.size for part in own]
            cells = (crossing(tokens, *medians[:2]), crossing(sizes, *medians[1:]))
            rows.append([name, *cells, f"{sizes[-1]:,} documents, {tokens[-1]:,} tokens"])
    header = [
        "collection",
        f"tokens from which {points[1]} is faster than {points[0]}",
        f"documents from which {points[2]} is faster than {points[1]}",
        "measured up to",
    ]
    return [Table("crossover", header, rows)]


def crossing(sizes: Sequence[int], small: Sequence[float], large: Sequence[float]) -> str:
    """Return the size from which the times `large` stay below the times `small`.

    Examples
    --------
    >>> crossing([10, 20], [1.0, 3.0], [2.0, 2.0])
    '15'
    >>> crossing([10, 20], [1.0, 2.0], [2.0, 2.0])
    'over 20'
    >>> crossing([10, 20], [3.0, 4.0], [2.0, 2.0])
    'at most 10'
    """
    lead = np.array(small) - np.array(large)  # positive where `large` is faster
    behind = np.flatnonzero(lead <= 0)
    if not len(behind):
        return f"at most {sizes[0]:,}"
    last = int(behind[-1])
    if last + 1 == len(sizes):
        return f"over {sizes[-1]:,}"
    share = -lead[last] / (lead[last + 1] - lead[last])
    return f"{sizes[last] + share * (sizes[last + 1] - sizes[last]):,.0f}"


def _speed_at_recall(results: Results, parts: list[Part]) -> list[Table]:
    """Return queries per second at each recall; in brackets how many times as many the first system has."""
    experiment = parts[0].experiment
    several = len({(part.collection, part.size) for part in parts}) > len({part.collection for part in parts})
    levels = [f"{level:.2f}".removeprefix("0") for level in _SPEED_RECALLS]
    columns = ["system", *levels, Column("bytes per document with tokens", format="{:,.0f}")]
    columns += [Column("build", "s", "{:,.1f}")]
    tables = []
    for part in parts:
        builds = {
            row["label"]: row
            for row in results.rows
            if (row["experiment"], row["collection"]) == (experiment.name, part.collection)
            and row["seed"] == experiment.seeds[0]
            and (experiment.documents == (None,) or row["build"].get("n") == part.size)
        }
        turns, base = _times_at(results, part, experiment.entries[0])
        rows = []
        for entry in experiment.entries:
            if entry.label not in builds:
                continue
            own_turns, times = _times_at(results, part, entry)
            compared = entry is not experiment.entries[0] and own_turns == turns
            cells = []
            for time, reference in zip(times, base, strict=True):
                cell = "" if time is None else f"{1 / time:,.0f}"
                if compared and time is not None and reference is not None:
                    cell += f" ({time / reference:.2g}x)"
                cells.append(cell)
            built = builds[entry.label]
            rows.append([entry.label, *cells, built["total_bytes_per_document"], built["build_seconds"]])
        heading = _heading(part.collection, part.size if several else None)
        title = f"queries per second by {experiment.metrics[0]}, {heading}"
        tables.append(Table(title, columns, rows))
    return tables


def _times_at(results: Results, part: Part, entry: Entry) -> tuple[str | None, list[float | None]]:
    """Return the turns that an entry was measured in, and its median query's seconds at each recall."""
    experiment = part.experiment
    curve, turns = [], None
    for point in entry.points():
        key = (experiment.name, part.collection, part.size, point.name)
        if key in results.times and key in results.values and not np.isnan(results.times[key][1]).any():
            turns, seconds = results.times[key]
            curve.append(
                (float(np.mean(results.values[key][experiment.metrics[0]])), float(np.median(seconds)))
            )
    return turns, [seconds_at(curve, level) for level in _SPEED_RECALLS]


def seconds_at(curve: Sequence[tuple[float, float]], recall: float) -> float | None:
    """Return the seconds in which a curve reaches a recall, or None if it does not.

    Seconds are interpolated linearly between neighbors on the curve's Pareto front.  A curve that begins
    above the recall has its first point's seconds.

    Parameters
    ----------
    curve : sequence of (recall, seconds)
    recall : float

    Examples
    --------
    >>> seconds_at([(0.8, 1.0), (0.9, 3.0)], 0.85)
    2.0
    >>> seconds_at([(0.8, 1.0), (0.9, 3.0)], 0.7)
    1.0
    >>> seconds_at([(0.8, 1.0), (0.9, 3.0)], 0.95) is None
    True
    """
    front = [curve[i] for i in pareto_front(curve)]
    reaching = next((i for i, point in enumerate(front) if point[0] >= recall - _ROUNDING), None)
    if reaching is None:
        return None
    if reaching == 0:
        return front[0][1]
    (low, fast), (high, slow) = front[reaching - 1], front[reaching]
    return round(fast + (recall - low) / (high - low) * (slow - fast), 9)


_KINDS: dict[str, Callable[[Results, list[Part]], list[Table]]] = {
    "metrics": _metrics,
    "speed": _speed,
    "size": _size,
    "facts": _facts,
    "variance": _variance,
    "losses": _losses,
    "candidates": _candidates,
    "scaling": _scaling,
    "crossover": _crossover,
    "speed_at_recall": _speed_at_recall,
}
