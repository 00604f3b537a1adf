"""ExperimentView: the rows of one experiment in a run, and the plots drawn from them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property
from typing import Any, TypeGuard

from .charts import Axis, Mark, Plot, marks_of
from .run_folder import Run

__all__ = ["ExperimentView", "series_of"]

# Titles of the axes whose values are no arguments of a configuration.
_TITLES = {"n": "documents", "vector_dimension": "vector dimension"}

# Minimum number of a parameter's values for a line.
_LEAST_VALUES = 3

# With more lines than this in a plot, only the best line of each series is kept.
_MOST_LINES = 12

# A parameter's axis is logarithmic if its largest and smallest values have at least this ratio.
_LOG_RATIO = 8

Row = dict[str, Any]


class ExperimentView:
    """One experiment of a run."""

    def __init__(self, run: Run, name: str) -> None:
        self.run, self.name = run, name
        self.configuration: Row = (run.manifest.get("experiments") or {}).get(name) or {}
        self.rows = [row for row in run.rows if row["experiment"] == name]
        self.title = str(self.configuration.get("title") or name)
        self.caption = str(self.configuration.get("caption") or "")
        #: True if times can be compared: only timed experiments measure systems alternately.
        self.timed = bool(self.configuration.get("timed"))

    @cached_property
    def measures(self) -> list[str]:
        """Names of the quality measures that have a value here."""
        names = dict.fromkeys(name for row in self.rows for name in row.get("metrics") or {})
        return [name for name in names if any(_quality(row, name) is not None for row in self.rows)]

    @cached_property
    def main_measure(self) -> str:
        """The recall that most rows have; without a recall, the measure that most rows have."""
        names = [name for name in self.measures if "recall" in name] or self.measures
        return max(
            names, key=lambda name: sum(_quality(row, name) is not None for row in self.rows), default=""
        )

    @cached_property
    def marks(self) -> dict[str, Mark]:
        """Color and shape of each series, those of muvera first."""
        order = list(self.run.systems)
        rows = sorted(self.rows, key=lambda row: order.index(row["system"]))
        return marks_of({series_of(row): row["family"] for row in rows})

    def plots(self) -> list[Plot]:
        """Return all plots, collection by collection.

        The plots show quality by cost.  They also show quality and speed by each numeric argument that varies while all
        others are equal, by the number of documents, and by the vector dimension.
        """
        plots: list[Plot] = []
        for collection in self.run.collections:
            rows = [row for row in self.rows if row["collection"] == collection]
            if len({row.get("n") for row in rows}) == 1:  # otherwise costs differ by size
                plots += self._tradeoffs(collection, rows)
            for name in dict.fromkeys(name for row in rows for name in _numbers(row)):
                plots += self._sweeps(collection, rows, name)
        return [plot for plot in plots if plot.points]

    def _tradeoffs(self, collection: str, rows: list[Row]) -> Iterator[Plot]:
        kinds = [("queries_per_second", "queries per second", "more")] if self.timed else []
        for key, title, better in [*kinds, ("total_bytes_per_document", "bytes per document", "less")]:
            points = [self._point(row, _quality(row, self.main_measure), row.get(key)) for row in rows]
            known = [point for point in points if point and point["y"] > 0]
            if len({point["y"] for point in known}) > 1:
                yield Plot(collection, Axis(self.main_measure), Axis(title, log=True), known, better, "x")

    def _sweeps(self, collection: str, rows: list[Row], parameter: str) -> Iterator[Plot]:
        lines = self._fewer(_lines(rows, parameter))
        if not lines:
            return
        x = _axis(
            _TITLES.get(parameter, parameter), [_numbers(row)[parameter] for line in lines for row in line]
        )
        for quality in (True, False) if self.timed else (True,):
            points = []
            for k, line in enumerate(lines):
                for row in line:
                    y = _quality(row, self.main_measure) if quality else row.get("queries_per_second")
                    points.append(self._point(row, _numbers(row)[parameter], y, line=k))
            y_axis = Axis(self.main_measure) if quality else Axis("queries per second", log=True)
            known = [point for point in points if point and (quality or point["y"] > 0)]
            yield Plot(collection, x, y_axis, known, quality="y" if quality else "")

    def _point(self, row: Row, x: float | None, y: float | None, line: int = 0) -> Row | None:
        if x is None or y is None:
            return None
        # The reader of the page may choose another measure.
        metrics = {name: value for name, value in (row.get("metrics") or {}).items() if value}
        interval = metrics.get(self.main_measure) or {}
        return {
            "x": x,
            "y": y,
            "low": interval.get("low"),
            "high": interval.get("high"),
            "line": line,
            "series": series_of(row),
            "system": row["system"],
            "name": str(row.get("point") or series_of(row)),
            "measures": {n: [v.get("mean"), v.get("low"), v.get("high")] for n, v in metrics.items()},
        }

    def _fewer(self, lines: list[list[Row]]) -> list[list[Row]]:
        """Keep only the best line of each series if there are too many lines."""
        if len(lines) <= _MOST_LINES:
            return lines
        best: dict[str, list[Row]] = {}

        def quality(line: list[Row]) -> float:
            return max(_quality(row, self.main_measure) or -1.0 for row in line)

        for line in lines:
            name = series_of(line[0])
            if name not in best or quality(line) > quality(best[name]):
                best[name] = line
        return list(best.values())


def series_of(row: Row) -> str:
    """Return the name of a row's series, which contains the rows of one system that differ only in numbers."""
    return str(row.get("series") or row.get("label") or row["system"])


def _quality(row: Row, measure: str) -> float | None:
    """Return the mean of a measure."""
    value = (row.get("metrics") or {}).get(measure)
    return value.get("mean") if isinstance(value, dict) else None


def _numbers(row: Row) -> dict[str, float]:
    """Return the numeric arguments of a row, its number of documents and its vector dimension."""
    size = (row.get("index") or {}).get("vector_dimension")
    values = {
        **(row.get("build") or {}),
        **(row.get("query") or {}),
        "n": row.get("n"),
        "vector_dimension": size,
    }
    return {name: float(value) for name, value in values.items() if _is_number(value)}


def _lines(rows: list[Row], parameter: str) -> list[list[Row]]:
    """Group rows that differ only in `parameter` (and the seed); keep groups with enough values."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        numbers = _numbers(row)
        if parameter in numbers:
            # The vector dimension follows from the build arguments.
            skipped = {
                "vector_dimension",
                *(row["build"] if parameter == "vector_dimension" else [parameter]),
            }
            others = {name: value for name, value in numbers.items() if name not in skipped}
            groups[repr((series_of(row), sorted(others.items())))].append(row)
    return [line for line in groups.values() if len({_numbers(r)[parameter] for r in line}) >= _LEAST_VALUES]


def _axis(title: str, values: list[float]) -> Axis:
    return Axis(title, min(values) > 0 and max(values) >= _LOG_RATIO * min(values), values)


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
