"""What the page's script draws from: drawings to fill in, rows, and what each plot shows."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from .appearance import VARIABLES, Mark
from .charts import sweep_chart, themed, tradeoff_chart
from .experiment_view import ExperimentView, marks_of_views
from .numbers import interval
from .plots import Plot
from .points import variants_of
from .run_folder import Row

__all__ = ["page_data"]

#: Names that the script replaces in a drawing.
_QUALITY, _PARAMETER, _TICKS = "__quality__", "__parameter__", "__ticks__"


def page_data(views: list[ExperimentView], plots: list[list[Plot]]) -> dict[str, Any]:
    """Return the data of all experiments' plots; names are replaced by their positions in lists.

    Parameters
    ----------
    views : list of ExperimentView
        All of one run.
    plots : list of list of Plot
        Those of each experiment.
    """
    run = views[0].run
    systems, measures = list(run.systems), run.measures
    series_of_row: dict[int, int] = {}
    for view in views:
        names = [series.name for series in view.series]
        series_of_row |= {i: names.index(view.series_of(i).name) for i in view.rows}
    return {
        "drawings": _drawings(),
        "measures": measures,
        "families": list(run.systems.values()),
        "experiments": [
            _experiment(view, marks) for view, marks in zip(views, marks_of_views(views), strict=True)
        ],
        "rows": [
            {
                "system": systems.index(row["system"]),
                "collection": run.collections.index(row["collection"]),
                "series": series_of_row[i],
                "measures": _measures(row, measures),
                "speed": _rounded([row.get("queries_per_second")])[0],
                "size": _rounded([row.get("total_bytes_per_document")])[0],
            }
            for i, row in enumerate(run.rows)
        ],
        "plots": [
            {
                "experiment": position,
                "drawing": _drawing_name(plot),
                "kind": plot.kind,
                "parameter": plot.parameter,
                "title": plot.title,
                "rows": plot.rows,
                "values": plot.values,
                "variants": [variants_of([plot]).index(name) for name in plot.variants],
                "measures": [measures.index(name) for name in plot.measures],
            }
            for position, own in enumerate(plots)
            for plot in own
        ],
    }


def _experiment(view: ExperimentView, marks: dict[str, Mark]) -> dict[str, Any]:
    measures = view.run.measures
    return {
        "measures": [measures.index(name) for name in view.measures],
        "measure": measures.index(view.main_measure) if view.main_measure else None,
        "series": [{"name": name, "color": mark.color, "shape": mark.shape} for name, mark in marks.items()],
    }


def _drawings() -> dict[str, str]:
    found = {}
    for kind in ("speed", "size"):
        found[kind] = themed(tradeoff_chart(kind, _QUALITY, None, VARIABLES), VARIABLES)
    for kind in ("sweep", "sweep-speed"):
        for suffix in ("", "-log"):
            chart = sweep_chart(
                _PARAMETER,
                _TICKS,
                _QUALITY,
                None,
                VARIABLES,
                logarithmic=bool(suffix),
                speed=kind == "sweep-speed",
            )
            found[f"{kind}{suffix}"] = themed(chart, VARIABLES)
    return {name: json.dumps(drawing, separators=(",", ":")) for name, drawing in found.items()}


def _drawing_name(plot: Plot) -> str:
    kind = "sweep" if plot.kind == "depth" else plot.kind
    return f"{kind}-log" if plot.logarithmic else kind


def _measures(row: Row, names: list[str]) -> dict[int, list[float | None]]:
    """Return position of a measure -> mean, low, high, of those that the row has."""
    found = {names.index(name): interval(value) for name, value in (row.get("metrics") or {}).items()}
    return {position: _rounded(one) for position, one in found.items() if one.mean is not None}


def _rounded(values: Iterable[float | None]) -> list[float | None]:
    """Five digits are more than a plot shows."""
    return [None if value is None else float(f"{value:.5g}") for value in values]
