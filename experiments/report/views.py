"""ExperimentView: the rows of one experiment in a run, and the plots drawn from them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

from .charts import Mark, Plot, marks_of
from .run_folder import Run

__all__ = ["ExperimentView"]

Row = dict[str, Any]


class ExperimentView:
    """One experiment of a run."""

    def __init__(self, run: Run, name: str) -> None:
        self.run, self.name = run, name
        self.configuration: Row = run.manifest["experiments"][name]
        self.rows = [row for row in run.rows if row["experiment"] == name]
        self.title: str = self.configuration["title"]
        #: True if times can be compared: only timed experiments measure systems alternately.
        self.timed = bool(self.configuration.get("timed"))

    @cached_property
    def measures(self) -> list[str]:
        """Names of the quality measures that have a value here."""
        names = dict.fromkeys(name for row in self.rows for name in row["metrics"])
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
        """Color and shape of each label."""
        return marks_of(row["label"] for row in self.rows)

    def plots(self) -> Iterator[Plot]:
        """Yield plots of the quality by speed and by bytes, for each collection."""
        kinds = [("queries_per_second", "queries per second", "more")] if self.timed else []
        kinds += [("total_bytes_per_document", "bytes per document", "less")]
        for collection in self.run.collections:
            rows = [row for row in self.rows if row["collection"] == collection]
            for key, title, better in kinds:
                points = [point for row in rows if (point := self._point(row, row[key]))]
                if len({point["y"] for point in points}) > 1:
                    yield Plot(collection, self.main_measure, title, better, points)

    def _point(self, row: Row, cost: float | None) -> Row | None:
        """Return a point, or None if its quality or cost is unknown."""
        quality = _quality(row, self.main_measure)
        if quality is None or not cost:
            return None
        interval = row["metrics"][self.main_measure]
        return {
            "x": quality,
            "y": cost,
            "low": interval["low"],
            "high": interval["high"],
            "label": row["label"],
            "system": row["system"],
            "name": row["point"],
        }


def _quality(row: Row, measure: str) -> float | None:
    """Return the mean of a measure, or None if it is unknown."""
    value = row["metrics"].get(measure)
    return value and float(value["mean"])
