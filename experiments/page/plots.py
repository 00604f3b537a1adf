"""Which plots an experiment gets, and which rows stand in each."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeGuard

from .numbers import flattened, interval, number
from .run_folder import Row, Run

__all__ = ["Kind", "Plot", "plots_of"]

Kind = Literal["speed", "size", "sweep", "sweep-speed"]

#: Values that a parameter must take, all else being equal, before it gets a line plot.
_LEAST_VALUES = 3

#: Lines in a plot; where there were more, each system has the one through its best point.
_MOST_LINES = 8

#: Ratio of the greatest to the least value from which a parameter's axis is logarithmic.
_LOG_RATIO = 8

#: Label of the axis of a collection's size.
_SIZE_OF_COLLECTION = "documents in the collection"


@dataclass(frozen=True)
class Plot:
    """One plot: quality against what it costs, or against one parameter.

    Parameters
    ----------
    experiment : str
    group : str
        Collection, or what the names of collections of several sizes share.
    kind : {"speed", "size", "sweep", "sweep-speed"}
        Quality against queries per second or bytes per document; quality or queries per second
        against a parameter.
    rows : list of int
        Positions of the rows in the run.
    parameter : str
        What a sweep varies.
    values : list of float
        The parameter's value of each row.
    lines : list of str
        Name of the line of each row: the system and all else that differs within the plot.
    logarithmic : bool
        Whether the parameter's axis is.
    """

    experiment: str
    group: str
    kind: Kind
    rows: list[int]
    parameter: str = ""
    values: list[float] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    logarithmic: bool = False


def plots_of(run: Run, experiment: str) -> list[Plot]:
    """Return an experiment's plots, those of one collection beside each other."""
    rows = [i for i, row in enumerate(run.rows) if row["experiment"] == experiment]
    plots = []
    for collection in run.collections:
        here = [i for i in rows if run.rows[i]["collection"] == collection]
        plots += _tradeoffs(run, experiment, collection, here)
        plots += [plot for name in _parameters(run, here) for plot in _sweeps(run, here, name, collection)]
    return plots + _size_sweeps(run, rows)


def _tradeoffs(run: Run, experiment: str, collection: str, rows: list[int]) -> list[Plot]:
    found: list[Plot] = []
    kinds: list[tuple[Kind, str]] = [("speed", "queries_per_second"), ("size", "bytes_per_document")]
    for kind, name in kinds:
        # A logarithm has no zero; sizes of zero (nothing beside the tokens) have their place.
        known = [i for i in rows if _has_quality(run.rows[i]) and _is_number(run.rows[i].get(name))]
        known = [i for i in known if run.rows[i][name] > 0 or kind == "size"]
        if known:
            found.append(Plot(experiment, collection, kind, known))
    return found


def _sweeps(run: Run, rows: list[int], parameter: str, collection: str) -> list[Plot]:
    groups = _fewer(run, _lines(run, rows, parameter))
    kept = [i for group in groups for i in group]
    values = [float(_arguments(run.rows[i])[parameter]) for i in kept]
    title = parameter.partition(".")[2]  # without "build" or "query"
    return _sweep_plots(run, kept, collection, title, values, _line_names(run, groups, parameter))


def _size_sweeps(run: Run, rows: list[int]) -> list[Plot]:
    """Return plots against the size of a collection, where its name comes in three sizes at least."""
    described = run.manifest.get("collections") or {}
    sizes = {name: (described.get(name) or {}).get("documents") for name in run.collections}
    stems: dict[str, list[int]] = defaultdict(list)
    for i in rows:
        stem = re.sub(r"[-_@:/ ]?\d[\d,_]*[kKM]?$", "", run.rows[i]["collection"])
        if _is_number(sizes[run.rows[i]["collection"]]):
            stems[stem].append(i)
    plots = []
    for stem, members in stems.items():
        by_line: dict[str, list[int]] = defaultdict(list)
        for i in members:
            by_line[repr((run.rows[i]["system"], _arguments(run.rows[i])))].append(i)
        groups = [
            line for line in by_line.values() if _distinct(sizes[run.rows[i]["collection"]] for i in line)
        ]
        kept = [i for line in groups for i in line]
        values = [float(sizes[run.rows[i]["collection"]] or 0) for i in kept]
        plots += _sweep_plots(run, kept, stem, _SIZE_OF_COLLECTION, values, _line_names(run, groups, ""))
    return plots


def _sweep_plots(
    run: Run, rows: list[int], group: str, parameter: str, values: list[float], lines: list[str]
) -> list[Plot]:
    plots = []
    kinds: list[Kind] = ["sweep", "sweep-speed"]
    for kind in kinds:
        shown = _has_quality if kind == "sweep" else _has_speed
        at = [k for k, i in enumerate(rows) if shown(run.rows[i])]
        if at:
            chosen = [values[k] for k in at]
            plots.append(
                Plot(
                    experiment=run.rows[rows[0]]["experiment"],
                    group=group,
                    kind=kind,
                    rows=[rows[k] for k in at],
                    parameter=parameter,
                    values=chosen,
                    lines=[lines[k] for k in at],
                    logarithmic=min(chosen) > 0 and max(chosen) >= _LOG_RATIO * min(chosen),
                )
            )
    return plots


def _parameters(run: Run, rows: list[int]) -> list[str]:
    """Return names of numeric arguments that vary with all else equal."""
    arguments = [_arguments(run.rows[i]) for i in rows]
    names = dict.fromkeys(name for one in arguments for name, value in one.items() if _is_number(value))
    return [
        name
        for name in names
        if _distinct(one[name] for one in arguments if _is_number(one.get(name))) and _lines(run, rows, name)
    ]


def _lines(run: Run, rows: list[int], parameter: str) -> list[list[int]]:
    """Group rows that differ in `parameter` (and the seed) alone; keep groups of enough values."""
    groups: dict[str, list[int]] = defaultdict(list)
    for i in rows:
        arguments = _arguments(run.rows[i])
        if _is_number(arguments.get(parameter)):
            rest = {name: value for name, value in arguments.items() if name != parameter}
            groups[repr((run.rows[i]["system"], sorted(rest.items(), key=lambda item: item[0])))].append(i)
    return [
        group for group in groups.values() if _distinct(_arguments(run.rows[i])[parameter] for i in group)
    ]


def _fewer(run: Run, groups: list[list[int]]) -> list[list[int]]:
    """Keep the best line of each system where all are too many to be read."""
    if len(groups) <= _MOST_LINES:
        return groups
    by_system: dict[str, list[list[int]]] = defaultdict(list)
    for group in groups:
        by_system[run.rows[group[0]]["system"]].append(group)

    def best(group: list[int]) -> float:
        found = [interval((run.rows[i].get("metrics") or {}).get(run.main_measure)).mean for i in group]
        return max((value for value in found if value is not None), default=-1.0)

    return [max(own, key=best) for own in by_system.values()]


def _line_names(run: Run, groups: Sequence[Sequence[int]], parameter: str) -> list[str]:
    """Return each row's line: the system and the arguments that tell its lines apart."""
    rests = []
    for group in groups:
        arguments = _arguments(run.rows[group[0]])
        rests.append((run.rows[group[0]]["system"], arguments))
    names: list[str] = []
    for group, (system, arguments) in zip(groups, rests, strict=True):
        others = [rest for name, rest in rests if name == system]
        differing = [
            f"{key} {number(value)}"
            for key, value in arguments.items()
            if key != parameter and any(other.get(key) != value for other in others)
        ]
        names += [", ".join([system, *differing])] * len(group)
    return names


def _arguments(row: Row) -> dict[str, Any]:
    return flattened({"build": row.get("build") or {}, "query": row.get("query") or {}})


def _distinct(values: Iterable[Any]) -> bool:
    return len(set(values)) >= _LEAST_VALUES


def _has_quality(row: Row) -> bool:
    return any(interval(value).mean is not None for value in (row.get("metrics") or {}).values())


def _has_speed(row: Row) -> bool:
    return (row.get("queries_per_second") or 0) > 0


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
