"""Tables of a run.

They are the tables that its configuration lists under `tables`, and the paired
differences.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np

from ..evaluation.statistics import mean_interval, pareto_front, ratio_interval
from ..evaluation.summary import Measured, Part
from ..runner.configuration import Entry
from .table import Column, Table

# Recalls at which speed is interpolated.
_SPEED_RECALLS = (0.8, 0.9, 0.95, 0.99)

# Recalls for which candidates are counted, as in table 1 of the MUVERA paper.
_CANDIDATE_RECALLS = (0.8, 0.85, 0.9, 0.95)

# Tolerance, because a mean of recalls is rounded.
_ROUNDING = 1e-9

_SHARE, _LATENCY = "{:.3f}", "median latency"

# Kinds of tables without times and bytes.
_QUALITY = ("metrics", "candidates", "variance")


def result_tables(parts: Sequence[Part]) -> list[dict[str, Any]]:
    """Return all tables of a run as ``summary.json`` holds them; every cell is text."""
    tables = []
    for name in dict.fromkeys(part.experiment.name for part in parts):
        own = [part for part in parts if part.experiment.name == name]
        experiment = own[0].experiment
        made = chain.from_iterable(_KINDS[kind](own) for kind in experiment.tables)
        for table in (*made, _differences(own)):
            if table.rows:
                title = f"{experiment.title}: {table.title}"
                about = {"experiment": name, "title": title, "caption": experiment.caption}
                tables.append({**about, "header": table.header, "rows": table.cells})
    return tables


def quality_tables(parts: Sequence[Part]) -> list[Table]:
    """Return the tables of one experiment that do not depend on times and bytes."""
    kinds = [kind for kind in parts[0].experiment.tables if kind in _QUALITY]
    tables = [table for kind in kinds for table in _KINDS[kind](list(parts))]
    return [table for table in (*tables, _differences(parts)) if table.rows]


def _grid(
    parts: Sequence[Part], title: str, cell: Callable[[Measured], Any], format: str = "", by: str = "point"
) -> Table:
    """Return a row for each point (or label) and a column for each part."""
    rows: dict[str, list[Any]] = {}
    for k, part in enumerate(parts):
        for measured in part.points.values():
            value = cell(measured)
            if value not in (None, ""):
                rows.setdefault(measured.rows[0][by], [None] * len(parts))[k] = value
    columns = [Column(part.collection, format=format) for part in parts]
    return Table(title, ["system", *columns], [[name, *values] for name, values in rows.items()])


def _metrics(parts: list[Part]) -> list[Table]:
    def cell(metric: str) -> Callable[[Measured], Any]:
        return lambda measured: mean_interval(measured.values[metric]) if metric in measured.values else None

    return [_grid(parts, metric, cell(metric), _SHARE) for metric in parts[0].experiment.metrics]


def _speed(parts: list[Part]) -> list[Table]:
    def cell(measured: Measured) -> str:
        row = measured.rows[0]
        if row["queries_per_second"] is None:
            return ""
        speed, times = row["queries_per_second"], row["latency_ms"]
        percentiles = " / ".join(f"{times[name]:.3g}" for name in ("p50", "p95", "p99"))
        return f"{speed:,.0f} ({percentiles})" if speed >= 10 else f"{speed:.2g} ({percentiles})"

    return [_grid(parts, "queries per second (p50 / p95 / p99, ms)", cell)]


def _size(parts: list[Part]) -> list[Table]:
    def sizes(measured: Measured) -> str:
        row = measured.rows[0]
        return f"{row['bytes_per_document']:,.0f} ({row['total_bytes_per_document']:,.0f})"

    return [
        _grid(parts, "build seconds", lambda measured: measured.rows[0]["build_seconds"], "{:.2f}", "label"),
        _grid(parts, "bytes per document (with token vectors)", sizes, by="label"),
    ]


def _differences(parts: Sequence[Part]) -> Table:
    """Return the differences over the same queries that the configuration lists."""
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for part in parts:
        for comparison in part.experiment.comparisons:
            for name in comparison.what:
                if name in part.points and comparison.to in part.points:
                    own = _compared(part.points[name], part.points[comparison.to], comparison.metrics)
                    for metric, text in own.items():
                        word = "over" if metric == _LATENCY else "minus"
                        key = f"{name} {word} {comparison.to}", metric
                        cells.setdefault(key, {})[part.collection] = text
    headings = list(dict.fromkeys(heading for texts in cells.values() for heading in texts))
    rows = [[*key, *(texts.get(heading) for heading in headings)] for key, texts in cells.items()]
    return Table("paired differences", ["difference", "metric", *headings], rows)


def _compared(first: Measured, second: Measured, metrics: Sequence[str]) -> dict[str, str]:
    """Return the differences of two points by metric.

    If the points were timed alternately, the ratio of their times is added.
    """
    texts = {}
    for metric in metrics:
        if metric in first.values and metric in second.values:
            found = mean_interval(first.values[metric] - second.values[metric])
            if found is not None:
                texts[metric] = "{mean:+.3f} [{low:+.3f}, {high:+.3f}]".format(**found)
    if texts and first.timed_with(second):
        assert first.raw is not None and second.raw is not None
        ratio = ratio_interval(first.raw.seconds, second.raw.seconds)
        texts[_LATENCY] = "{:.3g}x [{:.3g}, {:.3g}]".format(*ratio)
    return texts


def _speed_at_recall(parts: list[Part]) -> list[Table]:
    """Return queries per second at each recall.

    The speedup of the first system is in brackets.
    """
    experiment = parts[0].experiment
    levels = [f"{level:.2f}".removeprefix("0") for level in _SPEED_RECALLS]
    size = Column("bytes per document with tokens", format="{:,.0f}")
    columns: list[Column | str] = ["system", *levels, size, Column("build", format="{:,.1f}", unit="s")]
    tables = []
    for part in parts:
        rows = []
        base: tuple[Measured, list[float | None]] | None = None
        for k, entry in enumerate(experiment.entries):
            own = [part.points[point.name] for point in entry.points() if point.name in part.points]
            if not own:
                continue
            times = _times_at(own, experiment.metrics[0])
            cells = ["" if time is None else f"{1 / time:,.0f}" for time in times]
            if base is not None and base[0].timed_with(own[0]):
                for i, (time, reference) in enumerate(zip(times, base[1], strict=True)):
                    if time is not None and reference is not None:
                        cells[i] += f" ({_times(time / reference)})"
            if k == 0:
                base = own[0], times
            row = own[0].rows[0]
            rows.append([entry.label, *cells, row["total_bytes_per_document"], row["build_seconds"]])
        title = f"queries per second by {experiment.metrics[0]}, {part.collection}"
        tables.append(Table(title, columns, rows))
    return tables


def _times(ratio: float) -> str:
    """Return a ratio with two digits, but without an exponent.

    Examples
    --------
    >>> _times(1.234), _times(137.0)
    ('1.2x', '140x')
    """
    return f"{float(f'{ratio:.2g}'):.0f}x" if ratio >= 10 else f"{ratio:.2g}x"


def _times_at(curve: list[Measured], metric: str) -> list[float | None]:
    """Return the median query's seconds at each recall."""
    points = [
        (float(np.mean(measured.values[metric])), float(np.median(measured.raw.seconds)))
        for measured in curve
        if measured.raw is not None and not np.isnan(measured.raw.seconds).any()
    ]
    return [seconds_at(points, level) for level in _SPEED_RECALLS]


def seconds_at(curve: Sequence[tuple[float, float]], recall: float) -> float | None:
    """Return the seconds in which a curve reaches a recall, or None if it does not.

    The curve has pairs of recall and seconds, and is interpolated linearly between
    neighbors on its Pareto front.  A curve that begins above the recall has its first
    point's seconds.

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


def _floats(parts: list[Part]) -> list[Table]:
    """Return the bytes of each system's vector."""
    return [
        _grid(parts, "bytes per vector", lambda measured: measured.rows[0]["bytes_per_document"], "{:,.0f}")
    ]


def _candidates(parts: list[Part]) -> list[Table]:
    """Return the smallest measured number of candidates that reaches each recall."""
    experiment = parts[0].experiment
    metric = experiment.metrics[0]
    rows = []
    for entry in experiment.entries:
        for level in _CANDIDATE_RECALLS:
            cells = [_needed(part, entry, metric, level) for part in parts]
            if any(cells):
                rows.append([entry.label, f"{level:.2f}".removeprefix("0"), *cells])
    columns = [Column(part.collection) for part in parts]
    return [Table(f"candidates that reach a {metric}", ["system", "recall", *columns], rows)]


def _needed(part: Part, entry: Entry, metric: str, recall: float) -> str:
    """Return the number of candidates as text, "more" if none reaches the recall."""
    reached = [
        point.query["candidates"]
        for point in entry.points()
        if point.name in part.points
        and "candidates" in point.query
        and np.mean(part.points[point.name].values[metric]) >= recall - _ROUNDING
    ]
    if reached:
        return f"{min(reached):,}"
    measured = any(point.name in part.points for point in entry.points() if "candidates" in point.query)
    return "more" if measured else ""


def _variance(parts: list[Part]) -> list[Table]:
    """Return each metric's mean and standard deviation over seeds."""

    def cell(metric: str) -> Callable[[Measured], Any]:
        def text(measured: Measured) -> str | None:
            means = [row["metrics"][metric]["mean"] for row in measured.rows if row["metrics"].get(metric)]
            if len(means) < 2:
                return None
            return f"{np.mean(means):.3f} +- {np.std(means, ddof=1):.4f}"

        return text

    return [_grid(parts, metric, cell(metric)) for metric in parts[0].experiment.metrics]


_KINDS: dict[str, Callable[[list[Part]], list[Table]]] = {
    "metrics": _metrics,
    "speed": _speed,
    "size": _size,
    "speed_at_recall": _speed_at_recall,
    "floats": _floats,
    "candidates": _candidates,
    "variance": _variance,
}
