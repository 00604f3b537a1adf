"""Charts of quality and cost, as Vega-Lite and as SVG.

The page of a run and the pictures of stored results use the same specification.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from muvera.utils.checks import import_extra

Row = dict[str, Any]

# Okabe and Ito's colors for color-blind readers (without yellow), and others that are
# visible on light and dark pages.
_COLORS = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a828c", "#874bd2"),
    *("#78c31e", "#c32d69", "#786900", "#f087ff", "#00c3a5", "#965a5a", "#1e87ff", "#96961e"),
)

# Vega's shapes, and the characters for them in a key.
_SHAPES = (
    *(("circle", "\u25cf"), ("square", "\u25a0"), ("diamond", "\u25c6")),
    *(("triangle-up", "\u25b2"), ("cross", "\u271a"), ("triangle-down", "\u25bc")),
)

# Format of numbers: up to four digits.
_FORMAT = ",.4~r"

# Width and height of a picture without axes and legend.  Text of 13 pixels remains
# readable if a phone shrinks the picture to 360 pixels.
_WIDTH = 400
_HEIGHT = 280

# Characters of a label of which two fit beside each other below a picture.
_SHORT_LABEL = 16

# Colors of text and lines, light and dark, as in page.css.
_STYLE = (
    "<style>:root{--paper:#ffffff;--ink:#1c2127;--muted:#59636e;--rule:#dde1e6}"
    "@media (prefers-color-scheme:dark){"
    ":root{--paper:#0d1117;--ink:#e6e9ee;--muted:#9aa4b0;--rule:#2d343d}}</style>"
)

_FONT = "system-ui, -apple-system, Segoe UI, Roboto, Helvetica Neue, Arial, sans-serif"

#: Vega-Lite's settings of all charts.
CONFIG: Row = {
    "background": "transparent",
    "font": _FONT,
    "view": {"stroke": None},
    "aria": False,  # a page has one description per chart
    "axis": {
        **{"labelColor": "var(--muted)", "titleColor": "var(--ink)"},
        **{"gridColor": "var(--rule)", "tickColor": "var(--muted)"},
        **{"titleFontWeight": "normal", "domain": False, "titlePadding": 8, "labelBound": 4},
        **{"labelFontSize": 11, "titleFontSize": 12},
    },
    "axisX": {"titleLimit": 280},
    "axisY": {"titleLimit": 210},
    "legend": {"disable": True},
}


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


def marks_of(labels: Iterable[str]) -> dict[str, Mark]:
    """Return color and shape of each label; no color is used twice."""
    marks: dict[str, Mark] = {}
    for k, label in enumerate(dict.fromkeys(labels)):
        # Past the last color, hues follow the golden angle.
        color = _COLORS[k] if k < len(_COLORS) else f"hsl({k * 137.508 % 360:.1f}, 55%, 50%)"
        marks[label] = Mark(color, *_SHAPES[k % len(_SHAPES)])
    return marks


def specification(plot: Plot) -> Row:
    """Return a plot as Vega-Lite, which a page fits to its width.

    A cost of which more is better, such as queries per second, is drawn upwards by
    quality.  Other costs are drawn to the right, with quality upwards.
    """
    names = list(plot.marks)
    room = {"nice": False, "padding": 14}
    axis = {"format": _FORMAT, "labelOverlap": "greedy", "labelSeparation": 6, "tickCount": 5}
    quality, cost = ("x", "y") if plot.better == "more" else ("y", "x")
    line = {"type": "line", "strokeWidth": 1.5}
    rounded = {"strokeCap": "round", "strokeJoin": "round"}
    band = {**line, "strokeWidth": 7, "opacity": 0.16, **rounded}
    point = {"type": "point", "filled": True, "opacity": 1, "size": 100}
    order = {"order": _quantitative("x")}
    interval = "isValid(datum.low) ? format(datum.low, '.3f') + ' - ' + format(datum.high, '.3f') : ''"
    tooltip = [
        _nominal("name", title="configuration"),
        _quantitative("x", title=plot.quality, format=_FORMAT),
        _quantitative("y", title=plot.cost, format=_FORMAT),
        _nominal("interval", title="95% interval"),
    ]

    def scale(values: list[str]) -> Row:
        return {"domain": names, "range": values}

    return {
        "width": "container",
        "height": 260,
        "autosize": {"type": "fit", "contains": "padding"},
        "data": {"values": plot.points},
        "transform": [{"calculate": interval, "as": "interval"}],
        "encoding": {
            quality: _quantitative("x", title=plot.quality, scale={**room, "zero": False}, axis=axis),
            cost: _quantitative("y", title=plot.cost, scale={**room, "type": "log"}, axis=axis),
            "color": _nominal("label", scale=scale([mark.color for mark in plot.marks.values()])),
        },
        "layer": [
            {
                "transform": _front(plot.better, []),
                "mark": band,
                "encoding": {"color": {"value": "var(--ink)"}, **order},
            },
            {
                "transform": _front(plot.better, ["label"]),
                "mark": line,
                "encoding": {"detail": _nominal("label"), **order},
            },
            {
                "transform": [{"filter": "isValid(datum.low) && isValid(datum.high)"}],
                "mark": {"type": "rule", "opacity": 0.4},
                "encoding": {quality: _quantitative("low"), f"{quality}2": {"field": "high"}},
            },
            {
                "mark": {**point, "stroke": "var(--paper)", "strokeWidth": 1},
                "encoding": {
                    "shape": _nominal("label", scale=scale([mark.shape for mark in plot.marks.values()])),
                    "tooltip": tooltip,
                },
            },
        ],
    }


def picture(plot: Plot) -> str:
    """Return a plot with a legend as SVG, for light and dark pages.

    Raises
    ------
    ImportError
        Without vl_convert, which the extra ``experiments`` installs.
    """
    vl_convert = import_extra("vl_convert", "experiments", "A chart")
    legend = {
        "columns": 2 if max(map(len, plot.marks)) <= _SHORT_LABEL else 1,
        "disable": False,
        "labelColor": "var(--ink)",
        "labelFontSize": 13,
        "labelLimit": _WIDTH,
        "orient": "bottom",
        "symbolOpacity": 1,
        "symbolSize": 90,
        "symbolStrokeColor": "transparent",
        "title": None,
    }
    axis = {**CONFIG["axis"], "labelFontSize": 13, "titleFontSize": 13}
    # The converter measures text in a font that it contains.
    config = {**CONFIG, "axis": axis, "legend": legend, "font": "Arial, sans-serif"}
    sized = {**specification(plot), "width": _WIDTH, "height": _HEIGHT, "autosize": "pad"}
    newest = vl_convert.get_vegalite_versions()[-1]
    text: str = vl_convert.vegalite_to_svg(sized, vl_version=newest, config=config)
    start = text.index(">", text.index("<svg")) + 1
    return f"{text[:start]}{_STYLE}{text[start:]}\n"


def _nominal(field: str, **more: Any) -> Row:
    return {"field": field, "type": "nominal", **more}


def _quantitative(field: str, **more: Any) -> Row:
    return {"field": field, "type": "quantitative", **more}


def _front(better: str, groupby: list[str]) -> list[Row]:
    """Keep the points of each group that no point of better quality beats in cost.

    In the order of descending quality, a point is kept if it improves on the best one
    before it.
    """
    sort = [{"field": "x", "order": "descending"}, {"field": "gain", "order": "descending"}]
    window = {"frame": [None, 0], "sort": sort, "groupby": groupby}
    return [
        {"calculate": "datum.y" if better == "more" else "-datum.y", "as": "gain"},
        {"window": [{"op": "max", "field": "gain", "as": "reached"}], **window},
        {"window": [{"op": "lag", "field": "reached", "as": "before"}], **window},
        {"filter": "!isValid(datum.before) || datum.gain > datum.before"},
    ]
