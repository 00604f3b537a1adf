"""Charts of a run's page as Vega-Lite specifications."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Axis", "Mark", "Plot", "chart", "config", "marks_of"]

#: Colors of text, lines and background: variables of page.css.
CSS = {name: f"var(--{name})" for name in ("paper", "ink", "muted", "rule")}

# Text of the interval, in Vega's expressions.
_INTERVAL = "isValid(datum.low) ? format(datum.low, '.3f') + ' - ' + format(datum.high, '.3f') : ''"

# Okabe and Ito's colors for color-blind readers (without yellow), and others that are visible on both papers.
_COLORS = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a828c", "#874bd2"),
    *("#78c31e", "#c32d69", "#786900", "#f087ff", "#00c3a5", "#965a5a", "#1e87ff", "#96961e"),
)


# Family -> Vega's shapes and the characters for them in a key: triangles are other people's systems.
_SHAPES = {
    "muvera": {"circle": "\u25cf", "diamond": "\u25c6"},
    "baseline": {"square": "\u25a0", "cross": "\u271a"},
    "peer": {
        "triangle-up": "\u25b2", "triangle-down": "\u25bc", "triangle-right": "\u25b6", "triangle-left": "\u25c0",
    },
}  # fmt: skip


@dataclass(frozen=True)
class Mark:
    """Color and shape of a series, and the shape as a character."""

    color: str
    shape: str
    character: str


def marks_of(series: Mapping[str, str]) -> dict[str, Mark]:
    """Return a mark for each series, given its family; no color is used twice."""
    marks: dict[str, Mark] = {}
    for k, (name, family) in enumerate(series.items()):
        # Past the last color, hues follow the golden angle.
        color = _COLORS[k] if k < len(_COLORS) else f"hsl({k * 137.508 % 360:.1f}, 55%, 50%)"
        used = [mark.shape for mark in marks.values()]
        shape = min(_SHAPES[family], key=used.count)
        marks[name] = Mark(color, shape, _SHAPES[family][shape])
    return marks


@dataclass(frozen=True)
class Axis:
    """An axis; Vega chooses ticks unless some are given."""

    title: str
    log: bool = False
    ticks: Sequence[float] = ()

    def encoding(self, name: str) -> dict[str, Any]:
        """Return the Vega-Lite channel for the field `name`."""
        scale = {"nice": False, "padding": 14, **({"type": "log"} if self.log else {"zero": False})}
        axis: dict[str, Any] = {"format": ",.4~r", "labelOverlap": "greedy", "labelSeparation": 6}
        axis |= {"values": sorted(set(self.ticks))} if self.ticks else {"tickCount": 5}
        return {"field": name, "type": "quantitative", "title": self.title, "scale": scale, "axis": axis}


@dataclass(frozen=True)
class Plot:
    """Data of a chart for one collection."""

    collection: str
    x: Axis
    y: Axis
    #: "x", "y", "series", "name", and, if known, "low" and "high" of the quality, and "line" (points of one line
    #: share it).
    points: list[dict[str, Any]]
    #: "more" or "less" of `y` for a trade-off of quality (x) and cost (y), drawn with its Pareto fronts; else empty.
    better: str = ""
    #: The axis that shows the quality: "x", "y", or empty.
    quality: str = ""

    @property
    def title(self) -> str:
        """Axes of a plot."""
        first, second = (self.x, self.y) if self.better else (self.y, self.x)
        return f"{first.title} by {second.title}"


def chart(plot: Plot, marks: Mapping[str, Mark]) -> dict[str, Any]:
    """Return a plot as Vega-Lite, without size and configuration; `marks` has those of its series."""
    colors, shapes = (
        {"domain": list(marks), "range": [getattr(mark, name) for mark in marks.values()]}
        for name in ("color", "shape")
    )
    line = {"type": "line", "strokeWidth": 1.5}
    if plot.better:
        band = {**line, "strokeWidth": 7, "opacity": 0.16, "strokeCap": "round", "strokeJoin": "round"}
        ink = {"color": {"value": CSS["ink"]}}
        own = {"detail": {"field": "series", "type": "nominal"}}
        lines = [
            {"transform": _front(plot.better, []), "mark": band, "encoding": ink},
            {"transform": _front(plot.better, ["series"]), "mark": line, "encoding": own},
        ]
    else:
        mean = {"aggregate": "mean", "field": "y", "type": "quantitative"}  # over seeds
        lines = [{"mark": line, "encoding": {"y": mean, "detail": {"field": "line", "type": "nominal"}}}]
    if plot.quality:
        ends = {plot.quality: {"field": "low", "type": "quantitative"}, f"{plot.quality}2": {"field": "high"}}
        valid = [{"filter": "isValid(datum.low) && isValid(datum.high)"}]
        lines.append({"transform": valid, "mark": {"type": "rule", "opacity": 0.4}, "encoding": ends})
    tip = [
        {"field": "name", "type": "nominal", "title": "configuration"},
        {"field": "x", "type": "quantitative", "title": plot.x.title, "format": ",.4~r"},
        {"field": "y", "type": "quantitative", "title": plot.y.title, "format": ",.4~r"},
        {"field": "interval", "type": "nominal", "title": "95% interval"},
    ]
    points = {
        "mark": {
            "type": "point",
            "filled": True,
            "opacity": 1,
            "size": 100,
            "stroke": CSS["paper"],
            "strokeWidth": 1,
        },
        "encoding": {"shape": {"field": "series", "type": "nominal", "scale": shapes}, "tooltip": tip},
    }
    color = {"field": "series", "type": "nominal", "scale": colors}
    return {
        "data": {"values": plot.points},
        "transform": [{"calculate": _INTERVAL, "as": "interval"}],
        "encoding": {"x": plot.x.encoding("x"), "y": plot.y.encoding("y"), "color": color},
        "layer": [*lines, points],
        "usermeta": {"quality": plot.quality, "title": plot.title},
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
