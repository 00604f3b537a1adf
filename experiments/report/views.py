"""ExperimentView: the rows of one experiment in a run, and their plots.

page.js draws the plots.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple

from .run_folder import Run

Row = dict[str, Any]

# Okabe and Ito's colors for color-blind readers (without yellow), and others that are
# visible on both papers.
_COLORS = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a828c", "#874bd2"),
    *("#78c31e", "#c32d69", "#786900", "#f087ff", "#00c3a5", "#965a5a", "#1e87ff", "#96961e"),
)

# Vega's shapes, and the characters for them in a key.
_SHAPES = (
    *(("circle", "\u25cf"), ("square", "\u25a0"), ("diamond", "\u25c6")),
    *(("triangle-up", "\u25b2"), ("cross", "\u271a"), ("triangle-down", "\u25bc")),
)


class Mark(NamedTuple):
    """Color and shape of a curve, and the shape as a character."""

    color: str
    shape: str
    character: str


class Plot(NamedTuple):
    """A trade-off of quality and cost on one collection, with its Pareto fronts."""

    collection: str
    quality: str
    cost: str
    #: "more" or "less" of the cost.
    better: str
    #: "x" (quality), "y" (cost), "label", "system", "name", and "low" and "high" of the
    #: quality.
    points: list[Row]
    #: Marks of the points' labels.
    marks: dict[str, Mark]


class ExperimentView:
    """One experiment of a run."""

    def __init__(self, run: Run, name: str) -> None:
        self.run, self.name = run, name
        self.configuration: Row = run.manifest["experiments"][name]
        self.rows = [row for row in run.rows if row["experiment"] == name]
        self.title: str = self.configuration["title"]
        #: True if times can be compared: only timed experiments measure systems
        #: alternately.
        self.timed = bool(self.configuration.get("timed"))

    @cached_property
    def measures(self) -> dict[str, int]:
        """Quality measures that have a value here, with their number of rows."""
        names = dict.fromkeys(name for row in self.rows for name in row["metrics"])
        counts = {name: sum(bool(row["metrics"].get(name)) for row in self.rows) for name in names}
        return {name: count for name, count in counts.items() if count}

    @cached_property
    def main_measure(self) -> str:
        """The recall that most rows have.

        Without a recall, the measure that most rows have.
        """
        names = [name for name in self.measures if "recall" in name] or list(self.measures)
        return max(names, key=lambda name: self.measures[name], default="")

    @cached_property
    def marks(self) -> dict[str, Mark]:
        """Color and shape of each label; no color is used twice."""
        marks: dict[str, Mark] = {}
        for k, label in enumerate(dict.fromkeys(row["label"] for row in self.rows)):
            # Past the last color, hues follow the golden angle.
            color = _COLORS[k] if k < len(_COLORS) else f"hsl({k * 137.508 % 360:.1f}, 55%, 50%)"
            marks[label] = Mark(color, *_SHAPES[k % len(_SHAPES)])
        return marks

    def plots(self) -> Iterator[Plot]:
        """Yield plots of the quality by speed and by bytes, for each collection."""
        kinds = [("queries_per_second", "queries per second", "more")] if self.timed else []
        kinds += [("total_bytes_per_document", "bytes per document", "less")]
        for collection in self.run.collections:
            rows = [row for row in self.rows if row["collection"] == collection]
            for key, title, better in kinds:
                points = [point for row in rows if (point := self._point(row, row[key]))]
                if len({point["y"] for point in points}) > 1:
                    shown = {point["label"] for point in points}
                    marks = {label: mark for label, mark in self.marks.items() if label in shown}
                    yield Plot(collection, self.main_measure, title, better, points, marks)

    def _point(self, row: Row, cost: float | None) -> Row | None:
        """Return a point, or None if its quality or cost is unknown."""
        quality = row["metrics"].get(self.main_measure)
        if not quality or not cost:
            return None
        about = {"label": row["label"], "system": row["system"], "name": row["point"]}
        return {"x": quality["mean"], "y": cost, "low": quality["low"], "high": quality["high"], **about}
