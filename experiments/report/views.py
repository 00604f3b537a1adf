"""ExperimentView: the rows of one experiment in a run, and their plots."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

from ..evaluation.metrics import parse_metric
from .charts import Mark, Plot, Row, marks_of
from .run_folder import Run

# Smallest number of N for which k-recall@N is drawn by N.
_CUTOFFS = 3


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
        """Color and shape of each label."""
        return marks_of(row["label"] for row in self.rows)

    def plots(self) -> Iterator[Plot]:
        """Yield plots of the recall by N, and of the quality by speed and by bytes.

        They follow each other for each collection.
        """
        kinds = [("queries_per_second", "queries per second", "more")] if self.timed else []
        kinds += [("total_bytes_per_document", "bytes per document", "less")]
        for collection in self.run.collections:
            rows = [row for row in self.rows if row["collection"] == collection]
            yield from self._depths(collection, rows)
            for key, title, better in kinds:
                points = [point for row in rows if (point := self._point(row, row[key]))]
                if len({point["y"] for point in points}) > 1:
                    yield Plot(collection, self.main_measure, title, better, points, self._marks_of(points))

    def _depths(self, collection: str, rows: list[Row]) -> Iterator[Plot]:
        """Yield a plot of k-recall@N by N for each k that is measured at several N."""
        cutoffs: dict[int, dict[str, int]] = {}
        for name in self.configuration.get("metrics", ()):
            metric = parse_metric(name)
            if metric.exact:
                cutoffs.setdefault(metric.exact, {})[name] = metric.cutoff
        # A curve needs one row for each label: its first one.
        first = {row["label"]: row for row in reversed(rows)}
        for exact, metrics in cutoffs.items():
            points = [
                {**self._about(row), **_quality(found), "y": n, "name": f"{row['point']}, N={n}"}
                for row in reversed(first.values())
                for name, n in metrics.items()
                if (found := row["metrics"].get(name))
            ]
            if len(metrics) >= _CUTOFFS and points:
                yield Plot(collection, f"{exact}-recall@N", "N", "less", points, self._marks_of(points))

    def _marks_of(self, points: list[Row]) -> dict[str, Mark]:
        shown = {point["label"] for point in points}
        return {label: mark for label, mark in self.marks.items() if label in shown}

    def _about(self, row: Row) -> Row:
        return {"label": row["label"], "system": row["system"], "name": row["point"]}

    def _point(self, row: Row, cost: float | None) -> Row | None:
        """Return a point, or None if its quality or cost is unknown."""
        quality = row["metrics"].get(self.main_measure)
        if not quality or not cost:
            return None
        return {**self._about(row), **_quality(quality), "y": cost}


def _quality(found: Row) -> Row:
    return {"x": found["mean"], "low": found["low"], "high": found["high"]}
