"""Charts of a run's page as Vega-Lite specifications."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Mark", "Plot", "chart", "config", "marks_of"]

#: Colors of text, lines and background: variables of page.css.
CSS = {name: f"var(--{name})" for name in ("paper", "ink", "muted", "rule")}

# Text of the interval, in Vega's expressions.
_INTERVAL = "isValid(datum.low) ? format(datum.low, '.3f') + ' - ' + format(datum.high, '.3f') : ''"

# Okabe and Ito's colors for color-blind readers (without yellow), and others that are visible on both papers.
_COLORS = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a828c", "#874bd2"),
    *("#78c31e", "#c32d69", "#786900", "#f087ff", "#00c3a5", "#965a5a", "#1e87ff", "#96961e"),
)


# Vega's shapes, and the characters for them in a key.
_SHAPES = {
    "circle": "\u25cf",
    "square": "\u25a0",
    "diamond": "\u25c6",
    "triangle-up": "\u25b2",
    "cross": "\u271a",
    "triangle-down": "\u25bc",
}


@dataclass(frozen=True)
class Mark:
    """Color and shape of a curve, and the shape as a character."""

    color: str
    shape: str
    character: str


def marks_of(labels: Iterable[str]) -> dict[str, Mark]:
    """Return a mark for each label; no color is used twice."""
    marks: dict[str, Mark] = {}
    for k, label in enumerate(dict.fromkeys(labels)):
        # Past the last color, hues follow the golden angle.
        color = _COLORS[k] if k < len(_COLORS) else f"hsl({k * 137.508 % 360:.1f}, 55%, 50%)"
        shape = list(_SHAPES)[k % len(_SHAPES)]
        marks[label] = Mark(color, shape, _SHAPES[shape])
    return marks


@dataclass(frozen=True)
class Plot:
    """A trade-off of quality and cost on one collection, drawn with its Pareto fronts."""

    collection: str
    quality: str
    cost: str
    #: "more" or "less" of the cost.
    better: str
    #: "x" (quality), "y" (cost), "label", "name", and, if known, "low" and "high" of the quality.
    points: list[dict[str, Any]]

    @property
    def title(self) -> str:
        """Axes of a plot."""
        return f"{self.quality} by {self.cost}"


def chart(plot: Plot, marks: Mapping[str, Mark]) -> dict[str, Any]:
    """Return a plot as Vega-Lite, without size and configuration; `marks` has those of its labels."""
    colors, shapes = (
        {"domain": list(marks), "range": [getattr(mark, name) for mark in marks.values()]}
        for name in ("color", "shape")
    )
    line = {"type": "line", "strokeWidth": 1.5}
    band = {**line, "strokeWidth": 7, "opacity": 0.16, "strokeCap": "round", "strokeJoin": "round"}
    tip = [
        {"field": "name", "type": "nominal", "title": "configuration"},
        {"field": "x", "type": "quantitative", "title": plot.quality, "format": ",.4~r"},
        {"field": "y", "type": "quantitative", "title": plot.cost, "format": ",.4~r"},
        {"field": "interval", "type": "nominal", "title": "95% interval"},
    ]
    point = {
        "type": "point",
        "filled": True,
        "opacity": 1,
        "size": 100,
        "stroke": CSS["paper"],
        "strokeWidth": 1,
    }
    layers: list[dict[str, Any]] = [
        {"transform": _front(plot.better, []), "mark": band, "encoding": {"color": {"value": CSS["ink"]}}},
        {
            "transform": _front(plot.better, ["label"]),
            "mark": line,
            "encoding": {"detail": {"field": "label", "type": "nominal"}},
        },
        {
            "transform": [{"filter": "isValid(datum.low) && isValid(datum.high)"}],
            "mark": {"type": "rule", "opacity": 0.4},
            "encoding": {"x": {"field": "low", "type": "quantitative"}, "x2": {"field": "high"}},
        },
        {
            "mark": point,
            "encoding": {"shape": {"field": "label", "type": "nominal", "scale": shapes}, "tooltip": tip},
        },
    ]
    return {
        "data": {"values": plot.points},
        "transform": [{"calculate": _INTERVAL, "as": "interval"}],
        "encoding": {
            "x": _axis("x", plot.quality, {"zero": False}),
            "y": _axis("y", plot.cost, {"type": "log"}),
            "color": {"field": "label", "type": "nominal", "scale": colors},
        },
        "layer": layers,
    }


def _axis(field: str, title: str, scale: dict[str, Any]) -> dict[str, Any]:
    axis = {"format": ",.4~r", "labelOverlap": "greedy", "labelSeparation": 6, "tickCount": 5}
    return {
        "field": field,
        "type": "quantitative",
        "title": title,
        "scale": {"nice": False, "padding": 14, **scale},
        "axis": axis,
    }


def config() -> dict[str, Any]:
    """Return Vega-Lite's configuration: colors and sizes of axes."""
    text = {"labelColor": CSS["muted"], "titleColor": CSS["ink"], "titleFontWeight": "normal"}
    look = {"gridColor": CSS["rule"], "tickColor": CSS["muted"], "domain": False, "titlePadding": 8}
    return {
        "background": "transparent",
        "font": "system-ui, -apple-system, Segoe UI, Roboto, Helvetica Neue, Arial, sans-serif",
        "view": {"stroke": None},
        "aria": False,  # the page has one description per chart
        "axis": {**text, **look, "labelFontSize": 11, "titleFontSize": 12, "labelBound": 4},
        "axisX": {"titleLimit": 280},
        "axisY": {"titleLimit": 210},
        "legend": {"disable": True},
    }


def _front(better: str, groups: list[str]) -> list[dict[str, Any]]:
    """Keep the points of each group that no point of equal or better quality beats in cost."""
    order = [{"field": "x", "order": "descending"}, {"field": "gain", "order": "descending"}]
    window = {"frame": [None, 0], "sort": order, "groupby": groups}
    # In the order of descending quality, a point is kept if it improves on the best one before it.
    return [
        {"calculate": "datum.y" if better == "more" else "-datum.y", "as": "gain"},
        {"window": [{"op": "max", "field": "gain", "as": "reached"}], **window},
        {"window": [{"op": "lag", "field": "reached", "as": "before"}], **window},
        {"filter": "!isValid(datum.before) || datum.gain > datum.before"},
    ]
