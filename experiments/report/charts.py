"""The plots' drawings in Vega-Lite, the same for the page and for figures.

Data have the fields x, y, low, high (of the quality, with its interval), series, family, variant and,
where no marks are given, color and shape.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from .appearance import Mark, Theme

__all__ = ["DASHES", "FONT", "sweep_chart", "themed", "tradeoff_chart"]

FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'

#: Strokes of the lines of one series; the first is solid.
DASHES = ((1, 0), (6, 3), (2, 2), (9, 3, 2, 3), (14, 4), (1, 4))

#: Ticks of logarithmic axes; those outside a plot's range are not drawn.
_TICKS = [float(f"{digit}e{power}") for power in range(-2, 9) for digit in (1, 2, 5)]

#: Short, for a title must not be longer than its axis.
_COSTS = {"speed": "queries per second", "size": "bytes per document, with tokens"}

#: By how many pixels a tick's label may reach over its axis; others are left out.
_BOUND = 4

#: Longest titles in pixels: of the axis up in a plot of the least height, and of the one across on a phone.
_LONGEST_UP, _LONGEST_ACROSS = 210, 280

#: Below this size (bytes) the axis of sizes is linear, so that zero has a place.
_LINEAR_BYTES = 1000

#: By how much the least and the greatest value are exceeded; an axis of costs then has a tick at least.
_COST_STRETCH, _QUALITY_STRETCH = 1.25, 1.002

#: Areas of points in square pixels: the library's own, and others'.
_MUVERA, _OTHERS = 110, 62


def tradeoff_chart(
    kind: str,
    quality_title: str,
    marks: Mapping[str, Mark] | None,
    theme: Theme,
    data: alt.InlineData | None = None,
    legend: alt.Legend | None = None,
) -> alt.LayerChart:
    """Quality against a cost, with each series' frontier and that of all.

    Parameters
    ----------
    kind : {"speed", "size"}
        Queries per second (more is better) or bytes per document (fewer is better).
    quality_title : str
        Label of the horizontal axis.
    marks : dict, optional
        Name of a series -> color and shape; left out where the data bring them.
    theme : Theme
    data : altair.InlineData, optional
        Left out in the page, which brings its own.
    legend : altair.Legend, optional
        Left out in the page, whose filters are one.
    """
    across = alt.Scale(zero=False, nice=False, padding=14)
    x = alt.X("x:Q", title=quality_title, scale=across, axis=alt.Axis(tickCount=6, labelBound=_BOUND))
    y = _cost_axis("y:Q", kind)
    color = _color(marks, legend)
    base = alt.Chart(data if data is not None else alt.NamedData("points")).transform_calculate(
        gain="datum.y" if kind == "speed" else "-datum.y"
    )
    overall = (
        _frontier(base, [])
        .mark_line(strokeWidth=7, opacity=0.16, color=theme.ink, strokeCap="round", strokeJoin="round")
        .encode(x=x, y=y)
    )
    own = (
        _frontier(base, ["series"])
        .mark_line(strokeWidth=1.4)
        .encode(x=x, y=y, color=color, detail="series:N")
    )
    spread = (
        base.transform_filter("isValid(datum.low) && isValid(datum.high)")
        .mark_rule(strokeWidth=1.2, opacity=0.4)
        .encode(x=alt.X("low:Q", title=quality_title), x2="high:Q", y=y, color=color)
    )
    return alt.LayerChart(
        layer=[
            _room(base, x, y, _COST_STRETCH),
            overall,
            spread,
            own,
            _points(base, x, y, marks, theme, legend),
        ]
    )


def sweep_chart(
    x_title: str,
    x_ticks: str,
    y_title: str,
    marks: Mapping[str, Mark] | None,
    theme: Theme,
    *,
    logarithmic: bool,
    speed: bool,
    variants: Sequence[str] = (),
    data: alt.InlineData | None = None,
    legend: alt.Legend | None = None,
) -> alt.LayerChart:
    """Quality, or queries per second, against one parameter: a line for each setting of all else.

    Parameters
    ----------
    x_title, y_title : str
        Labels of the axes.
    x_ticks : str
        The parameter's values as a Vega expression, such as ``"[1, 2, 4]"``: ticks stand there.
    marks : dict, optional
        Name of a series -> color and shape; left out where the data bring them.
    theme : Theme
    logarithmic : bool
        Whether the parameter's axis is.
    speed : bool
        Queries per second instead of quality.
    variants : sequence of str
        Names of the lines of one series for a legend; the data's `variant` is a position in it.
    data : altair.InlineData, optional
        Left out in the page, which brings its own.
    legend : altair.Legend, optional
        Left out in the page, whose filters are one.
    """
    scale = (
        alt.Scale(type="log", nice=False, padding=14)
        if logarithmic
        else alt.Scale(zero=False, nice=False, padding=14)
    )
    ticks = alt.Axis(
        values=alt.ExprRef(x_ticks), format=",~f", labelOverlap="greedy", labelSeparation=6, labelBound=_BOUND
    )
    x = alt.X("x:Q", title=x_title, scale=scale, axis=ticks)
    color = _color(marks, legend)

    def y(field: str) -> alt.Y:
        if speed:
            return _cost_axis(field, "speed")
        up = alt.Scale(zero=False, padding=14)
        return alt.Y(field, title=y_title, scale=up, axis=alt.Axis(tickCount=6, labelBound=_BOUND))

    base = alt.Chart(data if data is not None else alt.NamedData("points"))
    line = base.mark_line(strokeWidth=1.6).encode(
        x=x, y=y("mean(y):Q"), color=color, detail="series:N", strokeDash=_dashes(variants)
    )
    layers: list[alt.Chart] = [_room(base, x, y("y:Q"), _COST_STRETCH if speed else _QUALITY_STRETCH), line]
    if not speed:
        spread = (
            base.transform_filter("isValid(datum.low) && isValid(datum.high)")
            .mark_rule(strokeWidth=1.2, opacity=0.4)
            .encode(x=x, y=y("low:Q"), y2="high:Q", color=color)
        )
        layers.append(spread)
    return alt.LayerChart(layer=[*layers, _points(base, x, y("y:Q"), marks, theme, legend)])


def themed(chart: alt.TopLevelMixin, theme: Theme) -> dict[str, Any]:
    """Return the chart as Vega-Lite, with the theme's lines and letters."""
    text = {"labelColor": theme.muted, "titleColor": theme.ink, "labelFont": FONT, "titleFont": FONT}
    specification: dict[str, Any] = chart.to_dict()
    specification["config"] = {
        "background": "transparent",
        "aria": False,  # the page and the documents describe a plot as a whole
        "font": FONT,
        "view": {"stroke": None},
        "axis": {
            **text,
            "labelFontSize": 11,
            "titleFontSize": 12,
            "titleFontWeight": "normal",
            "titlePadding": 8,
            "gridColor": theme.rule,
            "gridOpacity": 0.8,
            "domainColor": theme.muted,
            "tickColor": theme.muted,
            "tickSize": 4,
            "domain": False,
        },
        "axisX": {"titleLimit": _LONGEST_ACROSS},
        "axisY": {"titleLimit": _LONGEST_UP},
        "legend": {
            **text,
            "labelColor": theme.ink,
            "labelFontSize": 12,
            "titleFontSize": 12,
            "labelLimit": 400,
            "symbolOpacity": 1,
        },
        "title": {"color": theme.ink, "font": FONT, "fontSize": 13, "anchor": "start", "fontWeight": 600},
    }
    return specification


def _frontier(base: alt.Chart, groups: list[str]) -> alt.Chart:
    """Keep the points that nothing of as good a quality beats, of each group alone."""
    # In the order of falling quality, a point is kept where it gains on the best before it.
    order: list[alt.SortField | dict[str, str]] = [
        alt.SortField("x", order="descending"),
        alt.SortField("gain", order="descending"),
    ]
    kept: alt.Chart = (
        base.transform_window(reached="max(gain)", frame=[None, 0], sort=order, groupby=groups)
        .transform_window(before="lag(reached)", frame=[None, 0], sort=order, groupby=groups)
        .transform_filter("!isValid(datum.before) || datum.gain > datum.before")
    )
    return kept


def _cost_axis(field: str, kind: str) -> alt.Y:
    if kind == "speed":
        scale, ticks = alt.Scale(type="log", nice=False, padding=14), _TICKS
    else:
        scale = alt.Scale(type="symlog", constant=_LINEAR_BYTES, zero=False, nice=False, padding=14)
        ticks = [0, *(tick for tick in _TICKS if tick >= _LINEAR_BYTES)]
    axis = alt.Axis(values=ticks, format=",~f", labelOverlap="greedy", labelSeparation=6, labelBound=_BOUND)
    return alt.Y(field, title=_COSTS[kind], scale=scale, axis=axis)


def _color(marks: Mapping[str, Mark] | None, legend: alt.Legend | None) -> alt.Color:
    if marks is None:
        return alt.Color("color:N", scale=None)
    colors = [mark.color for mark in marks.values()]
    return alt.Color("series:N", scale=alt.Scale(domain=list(marks), range=colors), legend=legend)


def _shape(marks: Mapping[str, Mark] | None, legend: alt.Legend | None) -> alt.Shape:
    if marks is None:
        return alt.Shape("shape:N", scale=None)
    shapes = [mark.shape for mark in marks.values()]
    return alt.Shape("series:N", scale=alt.Scale(domain=list(marks), range=shapes), legend=legend)


def _room(base: alt.Chart, x: alt.X, y: alt.Y, stretch: float) -> alt.Chart:
    """Widen the axes by what is not seen: values that are all the same would span no axis."""
    corners: alt.Chart = (
        base.transform_aggregate(x_least="min(x)", x_most="max(x)", y_least="min(y)", y_most="max(y)")
        .transform_calculate(x="datum.x_least * 0.998", y=f"datum.y_least / {stretch}")
        .transform_calculate(x2="datum.x_most * 1.002", y2=f"max(datum.y_most * {stretch}, 1e-3)")
        .mark_rule(opacity=0)
        .encode(x=x, x2="x2:Q", y=y, y2="y2:Q")
    )
    return corners


def _dashes(variants: Sequence[str]) -> alt.StrokeDash:
    scale = alt.Scale(domain=list(range(len(DASHES))), range=[list(dash) for dash in DASHES])
    legend = None
    if len(variants) > 1:
        names = json.dumps(list(variants))
        shown = list(range(min(len(variants), len(DASHES))))
        legend = alt.Legend(title=None, orient="bottom", values=shown, labelExpr=f"{names}[datum.value]")
    return alt.StrokeDash("variant:O", scale=scale, legend=legend)


def _points(
    base: alt.Chart,
    x: alt.X,
    y: alt.Y,
    marks: Mapping[str, Mark] | None,
    theme: Theme,
    legend: alt.Legend | None,
) -> alt.Chart:
    points = base.mark_point(filled=True, opacity=1, stroke=theme.paper, strokeWidth=0.8)
    encoded: alt.Chart = points.encode(
        x=x,
        y=y,
        color=_color(marks, legend),
        size=alt.condition("datum.family === 'muvera'", alt.value(_MUVERA), alt.value(_OTHERS)),
        shape=_shape(marks, legend),
    )
    return encoded
