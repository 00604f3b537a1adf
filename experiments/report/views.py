"""An experiment of a run: its series and plots."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property
from typing import Any, TypeGuard

from .charts import Axis, Mark, Plot, marks_of
from .run_folder import Run

__all__ = ["ExperimentView", "flattened"]

# Measured while an index is built, but used as the axis of plots.
_SIZE = "build.vector_dimension"

# The number of documents, which is not an argument in configurations.
_DOCUMENTS = "build.n"

_TITLES = {_DOCUMENTS: "documents", _SIZE: "vector dimension"}

# Minimum number of a parameter's values, or of a recall's depths, for a line.
_LEAST_VALUES, _LEAST_DEPTHS = 3, 4

# With more lines than this in a plot, only the best line of each series is kept.
_MOST_LINES = 12

# A parameter's axis is logarithmic if its largest and smallest values have at least this ratio.
_LOG_RATIO = 8

Lines = list[list[int]]


class ExperimentView:
    """An experiment of a run; its rows are positions in the run's rows."""

    def __init__(self, run: Run, name: str) -> None:
        self.run, self.name = run, name
        self.configuration: dict[str, Any] = (run.manifest.get("experiments") or {}).get(name) or {}
        self.rows = [i for i, row in enumerate(run.rows) if row["experiment"] == name]
        self.title = str(self.configuration.get("title") or name)
        self.caption = str(self.configuration.get("caption") or "")
        #: True if times can be compared: only timed experiments measure systems alternately.
        self.timed = bool(self.configuration.get("timed")) or "systems" not in self.configuration

    @cached_property
    def measures(self) -> list[str]:
        """Names of the quality measures that have a value here."""
        names = dict.fromkeys(name for i in self.rows for name in self.run.rows[i].get("metrics") or {})
        return [name for name in names if any(self.quality(i, name) is not None for i in self.rows)]

    @cached_property
    def main_measure(self) -> str:
        """The recall that most rows have, otherwise any measure."""
        names = [name for name in self.measures if "recall" in name] or self.measures
        return max(
            names, key=lambda name: sum(self.quality(i, name) is not None for i in self.rows), default=""
        )

    def quality(self, row: int, measure: str) -> float | None:
        """Return the mean of a measure."""
        value = (self.run.rows[row].get("metrics") or {}).get(measure)
        return value.get("mean") if isinstance(value, dict) else None

    @cached_property
    def arguments(self) -> dict[int, dict[str, Any]]:
        """Configured arguments of each row, and its number of documents and vector dimension."""
        known = set(_keys(self.configuration))
        open_ended = "systems" not in known  # the configured arguments are unknown
        return {
            i: {
                name: value
                for name, value in _flat(self.run.rows[i]).items()
                if open_ended or name in _TITLES or name.rpartition(".")[2] in known
            }
            for i in self.rows
        }

    @cached_property
    def series(self) -> dict[int, str]:
        """Name of each row's series: the rows of one system that differ only in numbers."""
        members: dict[str, list[int]] = defaultdict(list)
        for i in self.rows:
            words = {
                name: None if _is_number(value) else value
                for name, value in self.arguments[i].items()
                if name not in _TITLES and (name.startswith("build.") or not _is_number(value))
            }
            members[repr((self.run.rows[i]["system"], sorted(words.items())))].append(i)
        names: dict[int, str] = {}
        for rows in members.values():
            labels = {self.run.rows[i].get("label") or self.run.rows[i]["system"] for i in rows}
            name = str(labels.pop()) if len(labels) == 1 else self._composed(rows[0])
            taken = list(names.values())
            names |= dict.fromkeys(rows, f"{name} ({len(set(taken)) + 1})" if name in taken else name)
        return names

    def _composed(self, row: int) -> str:
        """Name a series by the words that differ among its system's rows."""
        system = self.run.rows[row]["system"]
        others = [self.arguments[i] for i in self.rows if self.run.rows[i]["system"] == system]
        words = [
            f"{name.partition('.')[2]} {value}"
            for name, value in self.arguments[row].items()
            if not _is_number(value) and any(other.get(name) != value for other in others)
        ]
        return ", ".join([system, *words])

    @cached_property
    def marks(self) -> dict[str, Mark]:
        """Color and shape of each series, those of muvera first."""
        order = list(self.run.systems)
        rows = sorted(self.rows, key=lambda i: order.index(self.run.rows[i]["system"]))
        return marks_of({self.series[i]: self.run.rows[i]["family"] for i in rows})

    def plots(self) -> list[Plot]:
        """Return all plots, collection by collection.

        Quality by cost; quality and speed by every numeric argument that varies while all others are equal,
        and by the number of documents and the vector dimension; recall by its depth.
        """
        plots: list[Plot] = []
        for collection in self.run.collections:
            rows = [i for i in self.rows if self.run.rows[i]["collection"] == collection]
            if len({self.arguments[i].get(_DOCUMENTS) for i in rows}) == 1:  # otherwise costs differ by size
                plots += self._tradeoffs(collection, rows)
            names = dict.fromkeys(name for i in rows for name in self.arguments[i])
            for name in names:
                plots += self._sweeps(collection, rows, name)
            plots += self._depths(collection, rows)
        return [plot for plot in plots if plot.points]

    def _tradeoffs(self, collection: str, rows: list[int]) -> Iterator[Plot]:
        quality = Axis(self.main_measure)
        kinds = [("queries_per_second", "queries per second", "more")] if self.timed else []
        for key, title, better in [*kinds, ("total_bytes_per_document", "bytes per document", "less")]:
            points = [
                self._point(i, self.quality(i, self.main_measure), self.run.rows[i].get(key)) for i in rows
            ]
            known = [point for point in points if point and point["y"] > 0]
            if len({point["y"] for point in known}) > 1:
                yield Plot(collection, quality, Axis(title, log=True), known, better, "x")

    def _sweeps(self, collection: str, rows: list[int], parameter: str) -> Iterator[Plot]:
        lines = self._fewer(self._lines(rows, parameter))
        values = [float(self.arguments[i][parameter]) for line in lines for i in line]
        if not lines:
            return
        x = self._axis(_TITLES.get(parameter, parameter.partition(".")[2]), values)
        for quality in (True, False) if self.timed else (True,):
            points = []
            for k, line in enumerate(lines):
                for i in line:
                    row = self.run.rows[i]
                    y = self.quality(i, self.main_measure) if quality else row.get("queries_per_second")
                    points.append(self._point(i, float(self.arguments[i][parameter]), y, line=k))
            y_axis = Axis(self.main_measure) if quality else Axis("queries per second", log=True)
            known = [point for point in points if point and (quality or point["y"] > 0)]
            yield Plot(collection, x, y_axis, known, quality="y" if quality else "")

    def _depths(self, collection: str, rows: list[int]) -> Iterator[Plot]:
        """Recall among the first N by N, if it was measured at enough N."""
        depths: dict[str, dict[str, int]] = defaultdict(dict)
        for measure in self.measures:
            match = re.fullmatch(r"(.*recall)@(\d+)", measure)
            if match:
                depths[match[1]][measure] = int(match[2])
        for title, of_measure in depths.items():
            if len(of_measure) >= _LEAST_DEPTHS:
                points = [
                    self._point(i, float(depth), self.quality(i, measure), line=k, measure=measure)
                    for k, (i,) in enumerate(self._fewer([[i] for i in rows]))
                    for measure, depth in of_measure.items()
                ]
                x = self._axis("N", [float(depth) for depth in of_measure.values()])
                yield Plot(collection, x, Axis(f"{title}@N"), [point for point in points if point])

    def _point(
        self, i: int, x: float | None, y: float | None, line: int = 0, measure: str | None = None
    ) -> dict[str, Any] | None:
        if x is None or y is None:
            return None
        row = self.run.rows[i]
        metrics = row.get("metrics") or {}
        interval = metrics.get(measure or self.main_measure) or {}
        point = {"x": x, "y": y, "low": interval.get("low"), "high": interval.get("high"), "line": line}
        point |= {"series": self.series[i], "system": row["system"]}
        point["name"] = str(row.get("point") or row.get("label") or row["system"])
        if measure is None:  # the reader of the page may choose another measure
            shown = {name: metrics[name] for name in self.measures if metrics.get(name)}
            point["measures"] = {n: [v.get("mean"), v.get("low"), v.get("high")] for n, v in shown.items()}
        return point

    def _lines(self, rows: list[int], parameter: str) -> Lines:
        """Group rows that differ only in `parameter` (and the seed); keep groups with enough values."""
        groups: dict[str, list[int]] = defaultdict(list)
        for i in rows:
            if _is_number(self.arguments[i].get(parameter)):
                others = {
                    name: value
                    for name, value in self.arguments[i].items()
                    if _is_number(value)
                    and name not in (parameter, _SIZE)
                    # The dimension follows from the other build arguments.
                    and not (parameter == _SIZE and name.startswith("build.") and name != _DOCUMENTS)
                }
                groups[repr((self.series[i], sorted(others.items())))].append(i)
        return [
            line
            for line in groups.values()
            if len({self.arguments[i][parameter] for i in line}) >= _LEAST_VALUES
        ]

    def _fewer(self, lines: Lines) -> Lines:
        """Keep only the best line of each series if there are too many lines."""
        if len(lines) <= _MOST_LINES:
            return lines
        best: dict[str, list[int]] = {}

        def quality(line: list[int]) -> float:
            return max(self.quality(i, self.main_measure) or -1.0 for i in line)

        for line in lines:
            name = self.series[line[0]]
            if name not in best or quality(line) > quality(best[name]):
                best[name] = line
        return list(best.values())

    def _axis(self, title: str, values: list[float]) -> Axis:
        return Axis(title, min(values) > 0 and max(values) >= _LOG_RATIO * min(values), values)


def flattened(values: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested dictionaries as one, with dots between the names.

    Examples
    --------
    >>> flattened({"a": 1, "hnsw": {"m": 16, "ef": None}})
    {'a': 1, 'hnsw.m': 16, 'hnsw.ef': None}
    """
    flat: dict[str, Any] = {}
    for name, value in (values or {}).items():
        if isinstance(value, dict):
            flat |= flattened(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    return flattened({"build": row.get("build") or {}, "query": row.get("query") or {}})


def _keys(value: Any) -> Iterator[str]:
    """Yield the keys of nested dictionaries and lists."""
    if isinstance(value, dict):
        yield from value
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from _keys(part)
