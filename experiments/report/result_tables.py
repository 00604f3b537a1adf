"""Tables of a run: those that its configuration lists under `tables`, and the paired differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..evaluation.statistics import mean_interval, pareto_front, ratio_interval
from ..evaluation.summary import Part, Results
from ..runner.configuration import Entry, Experiment
from .table import Column, Table

__all__ = ["needed_candidates", "result_tables", "seconds_at"]

# Recalls at which speed is interpolated, and recalls for which candidates are counted.
_SPEED_RECALLS, _CANDIDATE_RECALLS = (0.8, 0.9, 0.95, 0.99), (0.8, 0.9, 0.95)

# Tolerance, because a mean of recalls is rounded.
_ROUNDING = 1e-9

_SHARE = "{:.3f}"

#: Name, collection, number of documents.
Key = tuple[str, str, int]


def result_tables(results: Results, parts: Sequence[Part]) -> list[dict[str, Any]]:
    """Return all tables of a run as ``summary.json`` holds them; every cell is text."""
    tables = []
    for name in dict.fromkeys(part.experiment.name for part in parts):
        own = [part for part in parts if part.experiment.name == name]
        experiment = own[0].experiment
        made = chain.from_iterable(_KINDS[kind](results, own) for kind in experiment.tables)
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


def _grid(
    parts: Sequence[Part], title: str, cells: Mapping[Key, Any], format: str = "", first: str = "system"
) -> Table:
    """Return a row for each name and a column for each collection."""
    columns = _columns(parts)
    rows = [
        [name, *(cells.get((name, *column)) for column in columns)]
        for name in dict.fromkeys(name for (name, *_), value in cells.items() if value not in (None, ""))
    ]
    return Table(title, [first, *(Column(heading, format=format) for heading in columns.values())], rows)


def _rows(results: Results, parts: Sequence[Part], by: str) -> dict[Key, dict[str, Any]]:
    """Return the first seed's rows, by "label" or "point"."""
    experiment = parts[0].experiment
    sizes = {part.collection: part.size for part in reversed(parts)}
    return {
        (row[by], row["collection"], row["n"] or sizes[row["collection"]]): row
        for row in results.rows
        if row["experiment"] == experiment.name and row["seed"] == experiment.seeds[0]
    }


def _values(results: Results, parts: Sequence[Part], metric: str) -> dict[Key, NDArray[np.float64]]:
    """Return a metric's values for every query."""
    return {
        (point, collection, size): values[metric]
        for (name, collection, size, point), values in results.values.items()
        if name == parts[0].experiment.name and metric in values
    }


def _metrics(results: Results, parts: list[Part]) -> list[Table]:
    return [
        _grid(parts, m, {k: mean_interval(v) for k, v in _values(results, parts, m).items()}, _SHARE)
        for m in parts[0].experiment.metrics
    ]


def _variance(results: Results, parts: list[Part]) -> list[Table]:
    """Return mean and standard deviation over seeds."""
    experiment = parts[0].experiment
    tables = []
    for metric in experiment.metrics:
        means: dict[tuple[str, str], list[float]] = {}
        for row in results.rows:
            if row["experiment"] == experiment.name and row["metrics"].get(metric) is not None:
                means.setdefault((row["point"], row["collection"]), []).append(row["metrics"][metric]["mean"])
        cells = {
            (*key, size): f"{np.mean(values):.3f} (sd {np.std(values, ddof=1):.4f})"
            for key, values in means.items()
            for collection, size in _columns(parts)
            if collection == key[1] and len(values) > 1
        }
        tables.append(_grid(parts, f"{metric}, {len(experiment.seeds)} seeds", cells))
    return tables


def _speed(results: Results, parts: list[Part]) -> list[Table]:
    cells = {}
    for key, row in _rows(results, parts, "point").items():
        if row["queries_per_second"] is not None:
            speed, times = row["queries_per_second"], row["latency_ms"]
            percentiles = " / ".join(f"{times[name]:.3g}" for name in ("p50", "p95", "p99"))
            cells[key] = f"{speed:,.0f} ({percentiles})" if speed >= 10 else f"{speed:.2g} ({percentiles})"
    return [_grid(parts, "queries per second (p50 / p95 / p99, ms)", cells)]


def _size(results: Results, parts: list[Part]) -> list[Table]:
    rows = _rows(results, parts, "label")
    seconds = {key: row["build_seconds"] for key, row in rows.items()}
    sizes = {
        key: f"{row['bytes_per_document']:,.0f} ({row['total_bytes_per_document']:,.0f})"
        for key, row in rows.items()
    }
    return [
        _grid(parts, "build seconds", seconds, "{:.2f}"),
        _grid(parts, "bytes per document (with token vectors)", sizes),
    ]


def _facts(results: Results, parts: list[Part]) -> list[Table]:
    """Return facts about the built indexes and about queries."""
    facts: dict[tuple[str, str], dict[Key, Any]] = {}
    for key, row in _rows(results, parts, "label").items():
        for name, value in row["index"].items():
            if name != "vector_dimension":
                facts.setdefault((name.replace("_", " "), "{:.3g}"), {})[key] = value
    for key, row in _rows(results, parts, "point").items():
        for name, value in row.get("facts", {}).items():
            facts.setdefault((name, _SHARE), {})[key] = value
    return [_grid(parts, name, cells, form) for (name, form), cells in facts.items()]


def _differences(results: Results, experiment: Experiment) -> Table:
    several = len(experiment.documents) > 1
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for row in results.comparisons:
        if row["experiment"] == experiment.name:
            heading = _heading(row["collection"], row["n"] if several else None)
            text = f"{row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"
            cells.setdefault((f"{row['a']} minus {row['b']}", row["metric"]), {})[heading] = text
            if experiment.timed:
                ratio = _time_ratio(results, row)
                cells.setdefault((f"{row['a']} over {row['b']}", "median latency"), {})[heading] = ratio
    headings = list(dict.fromkeys(heading for texts in cells.values() for heading in texts))
    rows = [[*key, *(texts.get(heading) for heading in headings)] for key, texts in cells.items()]
    return Table("paired differences", ["difference", "metric", *headings], rows)


def _time_ratio(results: Results, row: dict[str, Any]) -> str:
    """Return the ratio of two systems' median latency; an empty text unless they were timed together."""
    where = (row["experiment"], row["collection"], row["n"])
    mine, other = results.times.get((*where, row["a"])), results.times.get((*where, row["b"]))
    if mine is None or other is None or mine[0] != other[0] or np.isnan(mine[1]).any():
        return ""
    return "{:.3g}x [{:.3g}, {:.3g}]".format(*ratio_interval(mine[1], other[1]))


# ---- Tables of single experiments


def _candidates(results: Results, parts: list[Part]) -> list[Table]:
    """Return the number of candidates that each system needs, and its ratio to the first system's."""
    entries, metric = parts[0].experiment.entries, parts[0].experiment.metrics[0]
    values = _values(results, parts, metric)
    cells: dict[Key, str] = {}
    for share in _CANDIDATE_RECALLS:
        base: dict[tuple[str, int], float | None] = {}
        for entry in entries:
            for column in _columns(parts):
                keys = {point.query.get("candidates"): (point.name, *column) for point in entry.points()}
                curve = [(n, float(np.mean(values[key]))) for n, key in keys.items() if n and key in values]
                needed, cell = needed_candidates(curve, share)
                first = base.setdefault(column, needed)
                if first is not None and needed is not None and entry is not entries[0]:
                    cell += f" ({needed / first:.1f}x)"
                key = (f"{entry.label}, {share:.2f}".replace("0.", "."), *column)
                cells[key] = cell
    return [_grid(parts, f"candidates needed for a {metric}", cells, first="system, recall")]


def needed_candidates(curve: Sequence[tuple[int, float]], share: float) -> tuple[float | None, str]:
    """Return the number of candidates that reach a recall of `share`, as a number and as text.

    The curve has pairs of candidates and recall, and is interpolated over the logarithm of the candidates.

    Examples
    --------
    >>> needed_candidates([(10, 0.5), (100, 0.9)], 0.7)
    (31.6, '32')
    >>> needed_candidates([(10, 0.5), (100, 0.9)], 0.95)
    (None, 'over 100')
    """
    if not curve:
        return None, ""
    counts, recalls = map(np.array, zip(*sorted(curve), strict=True))
    best = np.maximum.accumulate(recalls)
    if best[0] >= share:
        return None, f"at most {counts[0]}"
    if best[-1] < share:
        return None, f"over {counts[-1]}"
    needed = float(np.exp(np.interp(share, best, np.log(counts))))
    return round(needed, 1), f"{needed:.0f}"


def _speed_at_recall(results: Results, parts: list[Part]) -> list[Table]:
    """Return queries per second at each recall, and in brackets the speedup of the first system."""
    experiment = parts[0].experiment
    several = len({(part.collection, part.size) for part in parts}) > len({part.collection for part in parts})
    levels = [f"{level:.2f}".removeprefix("0") for level in _SPEED_RECALLS]
    size = Column("bytes per document with tokens", format="{:,.0f}")
    columns: list[Column | str] = ["system", *levels, size, Column("build", format="{:,.1f}", unit="s")]
    tables = []
    for part in parts:
        rows = []
        turns, base = _times_at(results, part, experiment.entries[0])
        for entry in experiment.entries:
            built = _rows(results, parts, "label").get((entry.label, part.collection, part.size))
            if built is None:
                continue
            own_turns, times = _times_at(results, part, entry)
            cells = ["" if time is None else f"{1 / time:,.0f}" for time in times]
            if entry is not experiment.entries[0] and own_turns == turns:
                for k, (time, reference) in enumerate(zip(times, base, strict=True)):
                    if time is not None and reference is not None:
                        cells[k] += f" ({time / reference:.2g}x)"
            rows.append([entry.label, *cells, built["total_bytes_per_document"], built["build_seconds"]])
        heading = _heading(part.collection, part.size if several else None)
        tables.append(Table(f"queries per second by {experiment.metrics[0]}, {heading}", columns, rows))
    return tables


def _times_at(results: Results, part: Part, entry: Entry) -> tuple[str | None, list[float | None]]:
    """Return the id of the group that an entry was measured in, and its median query's seconds at each recall."""
    curve, turns = [], None
    for point in entry.points():
        key = (part.experiment.name, part.collection, part.size, point.name)
        if key in results.times and key in results.values and not np.isnan(results.times[key][1]).any():
            turns, seconds = results.times[key]
            quality = results.values[key][part.experiment.metrics[0]]
            curve.append((float(np.mean(quality)), float(np.median(seconds))))
    return turns, [seconds_at(curve, level) for level in _SPEED_RECALLS]


def seconds_at(curve: Sequence[tuple[float, float]], recall: float) -> float | None:
    """Return the seconds in which a curve reaches a recall, or None if it does not.

    The curve has pairs of recall and seconds, and is interpolated linearly between neighbors on its Pareto
    front.  A curve that begins above the recall has its first point's seconds.

    Examples
    --------
    >>> seconds_at([(0.8, 1.0), (0.9, 3.0)], 0.85)
    2.0
    >>> seconds_at([(0.8, 1.0), (0.9, 3.0)], 0.7)
    1.0
    >>> seconds_at([(0.8, 1.0), (0.9, 3.0)], 0.95) is None
    True
    """
    front = np.array([curve[i] for i in pareto_front(curve)]).reshape(-1, 2)
    if not len(front) or front[-1, 0] < recall - _ROUNDING:
        return None
    return round(float(np.interp(recall, front[:, 0], front[:, 1])), 9)


_KINDS: dict[str, Callable[[Results, list[Part]], list[Table]]] = {
    "metrics": _metrics,
    "speed": _speed,
    "size": _size,
    "facts": _facts,
    "variance": _variance,
    "candidates": _candidates,
    "speed_at_recall": _speed_at_recall,
}
