"""Tables of a run: those that its configuration lists under `tables`, and the paired differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np

from ..evaluation.statistics import mean_interval, pareto_front, ratio_interval
from ..evaluation.summary import Measured, Part, paired_differences
from .table import Column, Table

__all__ = ["needed_candidates", "result_tables", "seconds_at"]

# Recalls at which speed is interpolated, and recalls for which candidates are counted.
_SPEED_RECALLS, _CANDIDATE_RECALLS = (0.8, 0.9, 0.95, 0.99), (0.8, 0.9, 0.95)

# Tolerance, because a mean of recalls is rounded.
_ROUNDING = 1e-9

_SHARE = "{:.3f}"


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
    columns = [Column(part.heading, format=format) for part in parts]
    return Table(title, ["system", *columns], [[name, *values] for name, values in rows.items()])


def _metrics(parts: list[Part]) -> list[Table]:
    def cell(metric: str) -> Callable[[Measured], Any]:
        return lambda measured: mean_interval(measured.values[metric]) if metric in measured.values else None

    return [_grid(parts, metric, cell(metric), _SHARE) for metric in parts[0].experiment.metrics]


def _variance(parts: list[Part]) -> list[Table]:
    """Return mean and standard deviation over seeds."""

    def cell(metric: str) -> Callable[[Measured], str]:
        def text(measured: Measured) -> str:
            means = [row["metrics"][metric]["mean"] for row in measured.rows if row["metrics"].get(metric)]
            return f"{np.mean(means):.3f} (sd {np.std(means, ddof=1):.4f})" if len(means) > 1 else ""

        return text

    experiment = parts[0].experiment
    seeds = f"{len(experiment.seeds)} seeds"
    return [_grid(parts, f"{metric}, {seeds}", cell(metric)) for metric in experiment.metrics]


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


def _facts(parts: list[Part]) -> list[Table]:
    """Return facts about the built indexes and about queries."""
    rows = [measured.rows[0] for part in parts for measured in part.points.values()]
    tables = []
    for key, by, form in (("index", "label", "{:.3g}"), ("facts", "point", _SHARE)):
        for name in dict.fromkeys(name for row in rows for name in row[key] if name != "vector_dimension"):
            cell = lambda measured, key=key, name=name: measured.rows[0][key].get(name)  # noqa: E731
            tables.append(_grid(parts, name.replace("_", " "), cell, form, by))
    return tables


def _differences(parts: list[Part]) -> Table:
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for part in parts:
        for row in paired_differences(part):
            text = f"{row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"
            cells.setdefault((f"{row['a']} minus {row['b']}", row["metric"]), {})[part.heading] = text
            first, second = part.points[row["a"]], part.points[row["b"]]
            if first.timed_with(second):
                assert first.raw is not None and second.raw is not None
                ratio = ratio_interval(first.raw.seconds, second.raw.seconds)
                cells.setdefault((f"{row['a']} over {row['b']}", "median latency"), {})[part.heading] = (
                    "{:.3g}x [{:.3g}, {:.3g}]".format(*ratio)
                )
    headings = list(dict.fromkeys(heading for texts in cells.values() for heading in texts))
    rows = [[*key, *(texts.get(heading) for heading in headings)] for key, texts in cells.items()]
    return Table("paired differences", ["difference", "metric", *headings], rows)


# ---- Tables of single experiments


def _candidates(parts: list[Part]) -> list[Table]:
    """Return the number of candidates that each system needs, and its ratio to the first system's."""
    experiment, rows = parts[0].experiment, []
    metric = experiment.metrics[0]
    for share in _CANDIDATE_RECALLS:
        base: list[float | None] = []
        for entry in experiment.entries:
            cells, needed = [], list[float | None]()
            for k, part in enumerate(parts):
                measured = [(p.query.get("candidates"), part.points.get(p.name)) for p in entry.points()]
                curve = [(n, float(np.mean(one.values[metric]))) for n, one in measured if n and one]
                count, cell = needed_candidates(curve, share)
                first = base[k] if base else None
                if first is not None and count is not None:
                    cell += f" ({count / first:.1f}x)"
                needed.append(count)
                cells.append(cell)
            base = base or needed
            rows.append([f"{entry.label}, {share:.2f}".replace("0.", "."), *cells])
    header = ["system, recall", *(part.heading for part in parts)]
    return [Table(f"candidates needed for a {metric}", header, [row for row in rows if any(row[1:])])]


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


def _speed_at_recall(parts: list[Part]) -> list[Table]:
    """Return queries per second at each recall, and in brackets the speedup of the first system."""
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
                        cells[i] += f" ({time / reference:.2g}x)"
            if k == 0:
                base = own[0], times
            row = own[0].rows[0]
            rows.append([entry.label, *cells, row["total_bytes_per_document"], row["build_seconds"]])
        title = f"queries per second by {experiment.metrics[0]}, {part.heading}"
        tables.append(Table(title, columns, rows))
    return tables


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


_KINDS: dict[str, Callable[[list[Part]], list[Table]]] = {
    "metrics": _metrics,
    "speed": _speed,
    "size": _size,
    "facts": _facts,
    "variance": _variance,
    "candidates": _candidates,
    "speed_at_recall": _speed_at_recall,
}
