"""A plot's points, as a drawing takes them."""

from __future__ import annotations

from typing import Any

from .experiment_view import ExperimentView
from .numbers import interval
from .plots import COSTS, Plot

__all__ = ["points_of", "variants_of"]


def variants_of(plots: list[Plot]) -> list[str]:
    """Return the names of all variants of lines, in the order of their strokes."""
    return list(dict.fromkeys(name for plot in plots for name in plot.variants))


def points_of(view: ExperimentView, plot: Plot, measure: str, variants: list[str]) -> list[dict[str, Any]]:
    """Return the points of which both coordinates are known.

    Parameters
    ----------
    view : ExperimentView
    plot : Plot
    measure : str
        The quality, unless the plot has one for each point.
    variants : list of str
        From :func:`variants_of`.
    """
    points = []
    for k, i in enumerate(plot.rows):
        row = view.run.rows[i]
        name = plot.measures[k] if plot.measures else measure
        found = interval((row.get("metrics") or {}).get(name))
        x = plot.values[k] if plot.values else found.mean
        y = row[COSTS[plot.kind]] if plot.kind in COSTS else found.mean
        if x is not None and y is not None:
            series = view.series_of(i)
            points.append(
                {
                    "x": x,
                    "y": y,
                    "low": found.low,
                    "high": found.high,
                    "series": series.name,
                    "family": series.family,
                    "variant": variants.index(plot.variants[k]) if plot.variants else 0,
                }
            )
    return points
