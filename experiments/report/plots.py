"""Which plots an experiment gets, and which rows stand in each."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from .experiment_view import SIZE, ExperimentView, is_number, short_name
from .numbers import number

__all__ = ["COSTS", "Kind", "Plot", "plots_of"]

Kind = Literal["speed", "size", "sweep", "sweep-speed", "depth"]

#: What costs are called in a row.
COSTS = {
    "speed": "queries_per_second",
    "size": "total_bytes_per_document",
    "sweep-speed": "queries_per_second",
}

#: Values that a parameter must take, all else being equal, before it gets a line plot.
_LEAST_VALUES = 3

#: Depths at which a recall must be known before it gets a line plot.
_LEAST_DEPTHS = 4

#: Lines in a plot and of one series; where there were more, each has the one through its best point.
_MOST_LINES, _MOST_VARIANTS = 8, 6

#: Ratio of the greatest to the least value from which a parameter's axis is logarithmic.
_LOG_RATIO = 8

_NAMES = {"build.n": "documents", SIZE: "FDE dimension"}


@dataclass(frozen=True)
class Plot:
    """One plot: quality against what it costs, against one parameter, or against its own depth.

    Parameters
    ----------
    collection : str
    kind : {"speed", "size", "sweep", "sweep-speed", "depth"}
        Quality against queries per second or bytes per document; quality or queries per second
        against a parameter; recall among the first N against N.
    rows : list of int
        Positions of the rows in the run.
    parameter : str
        What a sweep varies, as the axis says it.
    values : list of float
        The parameter's value of each row.
    variants : list of str
        For each row, what tells its line from other lines of the same series.
    measures : list of str
        Of a "depth" the measure of each row; of others empty, for the reader chooses.
    title : str
        Of a "depth", the quality's name.
    logarithmic : bool
        Whether the parameter's axis is.
    """

    collection: str
    kind: Kind
    rows: list[int]
    parameter: str = ""
    values: list[float] = field(default_factory=list)
    variants: list[str] = field(default_factory=list)
    measures: list[str] = field(default_factory=list)
    title: str = ""
    logarithmic: bool = False


def plots_of(view: ExperimentView) -> list[Plot]:
    """Return an experiment's plots, collection by collection.

    Quality against costs; then lines against every numeric argument that varies with all else equal, the
    number of documents and the size of FDEs among them; and recall against its depth.
    """
    plots = []
    for collection in view.run.collections:
        rows = [i for i in view.rows if view.run.rows[i]["collection"] == collection]
        plots += _tradeoffs(view, collection, rows)
        for name in _parameters(view, rows):
            plots += _sweeps(view, collection, rows, name)
        plots += _cutoffs(view, collection, rows)
    return plots


def _tradeoffs(view: ExperimentView, collection: str, rows: list[int]) -> list[Plot]:
    found: list[Plot] = []
    kinds: list[Kind] = ["speed", "size"] if view.timed else ["size"]
    # Where the collection grows, costs of different sizes are not to be compared.
    if len({view.arguments[i].get("build.n") for i in rows}) > 1:
        return found
    for kind in kinds:
        costs = {i: view.run.rows[i].get(COSTS[kind]) for i in rows if _has_quality(view, i)}
        # A logarithm has no zero; sizes of zero (nothing beside the tokens) have their place.
        known = {i: cost for i, cost in costs.items() if is_number(cost) and (cost > 0 or kind == "size")}
        if len(set(known.values())) > 1:
            found.append(Plot(collection, kind, list(known)))
    return found


def _parameters(view: ExperimentView, rows: list[int]) -> list[str]:
    names = dict.fromkeys(
        name for i in rows for name, value in view.arguments[i].items() if is_number(value) and name != SIZE
    )
    return [name for name in (SIZE, *names) if _lines(view, rows, name)]


def _sweeps(view: ExperimentView, collection: str, rows: list[int], parameter: str) -> list[Plot]:
    lines = _fewer(view, _lines(view, rows, parameter))
    variants = _variants(view, lines, parameter)
    at = [(i, float(_value(view, i, parameter)), variants[i]) for line in lines for i in line]
    plots = []
    kinds: list[Kind] = ["sweep", "sweep-speed"] if view.timed else ["sweep"]
    for kind in kinds:
        kept = [one for one in at if (_has_quality if kind == "sweep" else _has_speed)(view, one[0])]
        if kept:
            values = [value for _, value, _ in kept]
            plots.append(
                Plot(
                    collection=collection,
                    kind=kind,
                    rows=[i for i, _, _ in kept],
                    parameter=_NAMES.get(parameter, short_name(parameter)),
                    values=values,
                    variants=[variant for _, _, variant in kept],
                    logarithmic=_is_wide(values),
                )
            )
    return plots


def _cutoffs(view: ExperimentView, collection: str, rows: list[int]) -> list[Plot]:
    """Return recall among the first N against N, where measures of enough N are known."""
    cutoffs: dict[str, dict[str, float]] = defaultdict(dict)
    for measure in view.measures:
        match = re.fullmatch(r"(.*recall)@(\d+)", measure)
        if match:
            cutoffs[match[1]][measure] = float(match[2])
    plots = []
    lines = _fewer(view, [[i] for i in rows])
    variants = _variants(view, lines, "")
    for title, of_measure in cutoffs.items():
        points = [
            (line[0], measure, depth)
            for line in lines
            for measure, depth in of_measure.items()
            if view.quality(line[0], measure) is not None
        ]
        if len(of_measure) >= _LEAST_DEPTHS and points:
            values = [depth for _, _, depth in points]
            plots.append(
                Plot(
                    collection=collection,
                    kind="depth",
                    rows=[i for i, _, _ in points],
                    parameter="N",
                    values=values,
                    variants=[variants[i] for i, _, _ in points],
                    measures=[measure for _, measure, _ in points],
                    title=f"{title}@N",
                    logarithmic=_is_wide(values),
                )
            )
    return plots


def _lines(view: ExperimentView, rows: list[int], parameter: str) -> list[list[int]]:
    """Group rows that differ in `parameter` (and the seed) alone; keep groups of enough values."""
    groups: dict[str, list[int]] = defaultdict(list)
    for i in rows:
        if is_number(_value(view, i, parameter)):
            groups[repr((view.series_of(i), sorted(_others(view, i, parameter).items())))].append(i)
    return [line for line in groups.values() if _is_enough(_value(view, i, parameter) for i in line)]


def _others(view: ExperimentView, row: int, parameter: str) -> dict[str, float]:
    """Return the numeric arguments beside `parameter`; the size of FDEs follows from those of the build."""
    return {
        name: value
        for name, value in view.arguments[row].items()
        if is_number(value)
        and name not in (parameter, SIZE)
        and not (parameter == SIZE and name.startswith("build.") and name != "build.n")
    }


def _fewer(view: ExperimentView, lines: list[list[int]]) -> list[list[int]]:
    """Keep the best line of each series where all are too many to be read."""
    by_series = defaultdict(list)
    for line in lines:
        by_series[view.series_of(line[0])].append(line)

    def best(line: list[int]) -> float:
        found = [view.quality(i, view.main_measure) for i in line]
        return max((value for value in found if value is not None), default=-1.0)

    if len(lines) <= _MOST_LINES and all(len(own) <= _MOST_VARIANTS for own in by_series.values()):
        return lines
    return [max(own, key=best) for own in by_series.values()]


def _variants(view: ExperimentView, lines: list[list[int]], parameter: str) -> dict[int, str]:
    """Return for each row the numbers that tell its line from the same series' others."""
    others = {line[0]: _others(view, line[0], parameter) for line in lines}
    names: dict[int, str] = {}
    for line in lines:
        of_series = [others[i] for i in others if view.series_of(i) == view.series_of(line[0])]
        differing = [
            f"{short_name(key)} {number(value)}"
            for key, value in others[line[0]].items()
            if any(other.get(key) != value for other in of_series)
        ]
        names |= dict.fromkeys(line, ", ".join(differing))
    return names


def _value(view: ExperimentView, row: int, parameter: str) -> Any:
    return view.sizes[row] if parameter == SIZE else view.arguments[row].get(parameter)


def _is_enough(values: Iterable[Any]) -> bool:
    return len({value for value in values if value is not None}) >= _LEAST_VALUES


def _is_wide(values: list[float]) -> bool:
    return min(values) > 0 and max(values) >= _LOG_RATIO * min(values)


def _has_quality(view: ExperimentView, row: int) -> bool:
    return any(view.quality(row, measure) is not None for measure in view.measures)


def _has_speed(view: ExperimentView, row: int) -> bool:
    return (view.run.rows[row].get("queries_per_second") or 0) > 0
