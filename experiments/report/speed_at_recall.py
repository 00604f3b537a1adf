"""Table of queries per second at given recalls, interpolated over the points of each system's curve."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..evaluation.statistics import pareto_front
from ..evaluation.summary import Part, Results
from ..runner.configuration import Entry
from .table_parts import Table, make_table

__all__ = ["seconds_at", "speed_at_recall"]

#: Recalls that each system's speed is interpolated at.
TARGETS = (0.8, 0.9, 0.95, 0.99)

# Means of recalls are rounded.
_ROUNDING = 1e-9

#: A point of a curve: recall and the median query's seconds.
CurvePoint = tuple[float, float]


def speed_at_recall(results: Results, parts: list[Part]) -> list[Table]:
    """Return for each collection how many queries a second each system answers at each recall.

    In brackets: how many times as many the first system answers.  Beside them stand what a document
    takes, with the tokens that are read, and the seconds of the build.
    """
    experiment = parts[0].experiment
    metric = experiment.metrics[0]
    sizes = {(part.collection, part.size) for part in parts}
    tables = []
    for part in parts:
        builds = {
            row["label"]: row
            for row in results.rows
            if (row["experiment"], row["collection"]) == (experiment.name, part.collection)
            and row["seed"] == experiment.seeds[0]
            and (experiment.documents == (None,) or row["build"].get("n") == part.size)
        }
        first = _times_at(results, part, experiment.entries[0])
        rows = []
        for entry in experiment.entries:
            built = builds.get(entry.label)
            if built is None:
                continue
            turns, times = _times_at(results, part, entry)
            cells = []
            for time, reference in zip(times, first[1], strict=True):
                cell = "" if time is None else f"{1 / time:,.0f}"
                other = entry is not experiment.entries[0] and turns == first[0]
                if other and time is not None and reference is not None:
                    cell += f" ({time / reference:.2g}x)"
                cells.append(cell)
            size = f"{built['total_bytes_per_document']:,.0f}"
            rows.append([entry.label, *cells, size, f"{built['build_seconds']:,.1f}"])
        heading = part.collection if len(sizes) == len({name for name, _ in sizes}) else _sized(part)
        title = f"queries per second at a {metric} of ..., {heading}"
        levels = [f"{level:.2f}".removeprefix("0") for level in TARGETS]
        header = ["system", *levels, "bytes of a document with its tokens", "build, s"]
        tables.append(make_table(experiment, title, header, rows))
    return tables


def _sized(part: Part) -> str:
    return f"{part.collection}, n={part.size:,}"


def _times_at(results: Results, part: Part, entry: Entry) -> tuple[str | None, list[float | None]]:
    """Return the turns that an entry was measured in, and its median query's seconds at each recall."""
    experiment = part.experiment
    curve: list[CurvePoint] = []
    turns = None
    for point in entry.points():
        where = (experiment.name, part.collection, part.size, point.name)
        timed, values = results.times.get(where), results.values.get(where)
        if timed is None or values is None or np.isnan(timed[1]).any():
            continue
        turns = timed[0]
        curve.append((float(np.mean(values[experiment.metrics[0]])), float(np.median(timed[1]))))
    return turns, [seconds_at(curve, level) for level in TARGETS]


def seconds_at(curve: Sequence[CurvePoint], recall: float) -> float | None:
    """Return the seconds in which a curve reaches a recall; None where it does not.

    Between neighboring points of the curve's Pareto front, seconds are taken to rise evenly with recall.
    A curve that begins above the recall has its first point's seconds.

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
