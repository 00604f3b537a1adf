"""Charts of quality and cost, as Vega-Lite and as SVG.

The page of a run and the pictures of stored results use the same specification.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil, floor, log10
from typing import Any, NamedTuple

from muvera.utils.checks import import_extra

from .chart_labels import Text, name_lines, name_points

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

# Width and height of a picture without axes and names, and sizes of its texts.  On a
# phone, which shrinks a picture to about 360 pixels, names have 10 pixels.
_WIDTH = 350
_HEIGHT = 330
_NAME_SIZE = 16
_TEXT_SIZE = 14

# Height of a page's plot, and the width that its ticks are chosen for.
_PAGE_HEIGHT = 260
_PAGE_WIDTH = 400

# Labels with more characters are broken into two lines.
_LONG_LABEL = 15

# Ticks of a recall, the more important ones first.
_TICKS = (
    *(1.0, 0.9, 0.5, 0.95, 0.8, 0.99, 0.98, 0.7, 0.2, 0.6, 0.3, 0.4, 0.995, 0.0, 0.1, 0.998, 0.85, 0.75),
    *(0.65, 0.55, 0.45, 0.35, 0.25, 0.92, 0.94, 0.96, 0.97, 0.985),
)

# Smallest distance of ticks above each other.
_UP = 26

# Smallest distance from 1 that a recall is drawn at.
_CLOSEST = 0.0005

# Ticks of a cost are its values if there are at most this many.
_FEW = 9

# Colors of a picture's lines and their names, light and dark: each has a contrast of at
# least 4.5 to the page.
_LIGHT = ("#0060a8", "#b84300", "#00714f", "#a2387a", "#8a5a00", "#55606d")
_DARK = ("#58aeff", "#ff8a4c", "#3ecf9b", "#f08cc8", "#f0b429", "#a7b1bd")

#: Most lines of a picture.
MOST_LINES = len(_LIGHT)


def _variables(colors: Sequence[str]) -> str:
    return "".join(f"--line-{k}:{color};" for k, color in enumerate(colors))


# Colors of text and lines, light and dark, as in page.css.
_STYLE = (
    f"<style>:root{{{_variables(_LIGHT)}--paper:#ffffff;--ink:#1c2127;--muted:#59636e;--rule:#dde1e6}}"
    f"@media (prefers-color-scheme:dark){{:root{{{_variables(_DARK)}"
    "--paper:#0d1117;--ink:#e6e9ee;--muted:#9aa4b0;--rule:#2d343d}}</style>"
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
    """A trade-off of quality and cost on one collection."""

    collection: str
    quality: str
    cost: str
    #: "more" or "less" of the cost.
    better: str
    #: "x" (quality), "y" (cost), "label", "system", "name", "low" and "high" of the
    #: quality, and "knob", the value that varies along a line.
    points: list[Row]
    #: Marks of the points' labels.
    marks: dict[str, Mark]
    #: What the knobs are.
    knobs: str = ""


class Axis(NamedTuple):
    """A scale with its smallest and largest value."""

    #: "linear", "log", or "recall", which opens toward 1.
    kind: str
    low: float
    high: float
    #: A recall of 1 is drawn this far from 1.
    closest: float = _CLOSEST

    @classmethod
    def of(cls, kind: str, values: Sequence[float], room: float) -> Axis:
        """Make a scale of the values with some room on both sides."""
        below = [1 - value for value in values if value < 1]
        axis = cls(kind, 0, 1, max(_CLOSEST, min(below, default=0.1) / 2))
        shown = [axis.stretched(value) for value in values]
        spread = max(shown) - min(shown)
        space = room * spread if spread else 0.1
        return axis._replace(low=min(shown) - space, high=max(shown) + space)

    def stretched(self, value: float) -> float:
        """Return a value as Vega's linear scale draws it; of "log", its logarithm.

        Examples
        --------
        >>> Axis("recall", 0, 3).stretched(0.9), Axis("log", 0, 3).stretched(100)
        (1.0, 2.0)
        """
        if self.kind == "recall":
            return round(-log10(max(1 - value, self.closest)), 9)
        return log10(value) if self.kind == "log" else value

    def share(self, value: float) -> float:
        """Return where a value is on the axis, from 0 to 1."""
        return (self.stretched(value) - self.low) / (self.high - self.low)

    def value(self, share: float) -> float:
        """Return the value that Vega draws at a share of the axis."""
        stretched = self.low + share * (self.high - self.low)
        return float(10**stretched) if self.kind == "log" else stretched

    def encoding(self, field: str, title: str, ticks: Sequence[float] | None) -> Row:
        """Return the encoding of a field by this scale."""
        axis: Row = {"format": _FORMAT}
        if ticks is None:
            axis |= {"tickCount": 5, "labelOverlap": "greedy", "labelSeparation": 6}
        else:
            values = [tick if self.kind == "log" else self.stretched(tick) for tick in sorted(ticks)]
            axis |= {"values": values, "labelOverlap": False}
        if self.kind == "recall":
            top = self.stretched(1.0) - 1e-6
            axis["labelExpr"] = f"datum.value > {top} ? '1' : format(1 - pow(10, -datum.value), '.3~f')"
        scale: Row = {"domain": [self.value(0), self.value(1)], "nice": False}
        scale |= {"type": "log"} if self.kind == "log" else {"zero": False}
        return _quantitative(field, title=title, scale=scale, axis=axis)


def _axes(plot: Plot) -> tuple[Axis, Axis]:
    """Return the scales of quality and cost."""
    kind = "recall" if _is_recall(plot.quality) else "linear"
    quality = Axis.of(kind, [point["x"] for point in plot.points], 0.06)
    return quality, Axis.of("log", [point["y"] for point in plot.points], 0.06)


def _recall_ticks(axis: Axis) -> list[float]:
    return [tick for tick in _TICKS if 0 <= axis.share(tick) <= 1]


def _cost_ticks(axis: Axis, costs: Iterable[float]) -> list[float]:
    """Return the costs if they are few whole numbers, or else 1, 2, 5, 10, 20, ..."""
    whole = sorted(cost for cost in set(costs) if cost == int(cost))
    if 1 < len(whole) <= _FEW:
        return [whole[0], whole[-1], *whole[1:-1]]
    powers = range(floor(axis.low), ceil(axis.high) + 1)
    ticks = [digit * 10.0**power for digit in (1, 5, 2) for power in powers]
    return [tick for tick in ticks if 0 <= axis.share(tick) <= 1]


def _apart(axis: Axis, ticks: Iterable[float], size: float, across: bool) -> list[float] | None:
    """Return the ticks that have room beside those before them, or None if too few."""
    kept: list[float] = []
    for tick in ticks:
        distances = {other: abs(axis.share(tick) - axis.share(other)) * size for other in kept}
        if all(gap >= (_across(tick, other) if across else _UP) for other, gap in distances.items()):
            kept.append(tick)
    return kept if len(kept) > 1 else None


def _across(first: float, second: float) -> float:
    """Return how far apart two ticks must be for their labels."""
    return 4 + 0.28 * _TEXT_SIZE * (len(f"{first:,.4g}") + len(f"{second:,.4g}"))


def _is_recall(quality: str) -> bool:
    return "recall" in quality or quality.startswith("@")


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
    quality.  Other costs are drawn to the right, with quality upwards.  A line connects
    the points of a label that no other point of the label beats.
    """
    point = {"type": "point", "filled": True, "opacity": 1, "size": 100}
    interval = "isValid(datum.low) ? format(datum.low, '.3f') + ' - ' + format(datum.high, '.3f') : ''"
    tooltip = [
        _nominal("name", title="configuration"),
        _quantitative("x", title=plot.quality, format=_FORMAT),
        _quantitative("y", title=plot.cost, format=_FORMAT),
        _nominal("interval", title="95% interval"),
    ]
    quality = "x" if plot.better == "more" else "y"
    return {
        "width": "container",
        "height": _PAGE_HEIGHT,
        "autosize": {"type": "fit", "contains": "padding"},
        "data": {"values": [_drawn(plot, row) for row in plot.points]},
        "transform": [{"calculate": interval, "as": "interval"}],
        "encoding": _encoding(plot, _PAGE_WIDTH, _PAGE_HEIGHT, [mark.color for mark in plot.marks.values()]),
        "layer": [
            {
                "transform": _front(plot.better),
                "mark": {"type": "line", "strokeWidth": 1.5},
                "encoding": {"detail": _nominal("label"), "order": _quantitative("x")},
            },
            {
                "transform": [{"filter": "isValid(datum.low) && isValid(datum.high)"}],
                "mark": {"type": "rule", "opacity": 0.4},
                "encoding": {quality: _quantitative("low_at"), f"{quality}2": {"field": "high_at"}},
            },
            {
                "mark": {**point, "stroke": "var(--paper)", "strokeWidth": 1},
                "encoding": {"shape": _shape(plot), "tooltip": tooltip},
            },
        ],
    }


def picture(plot: Plot) -> str:
    """Return a plot with names at its lines as SVG, for light and dark pages.

    Its lines connect all points of a label in the order of the cost.

    Raises
    ------
    ImportError
        Without vl_convert, which the extra ``experiments`` installs.
    """
    vl_convert = import_extra("vl_convert", "experiments", "A chart")
    axis = {**CONFIG["axis"], "labelFontSize": _TEXT_SIZE, "titleFontSize": _TEXT_SIZE + 1}
    # The converter measures text in a font that it contains.
    config = {**CONFIG, "axis": axis, "font": "Arial, sans-serif"}
    newest = vl_convert.get_vegalite_versions()[-1]
    text: str = vl_convert.vegalite_to_svg(picture_specification(plot), vl_version=newest, config=config)
    start = text.index(">", text.index("<svg")) + 1
    return f"{text[:start]}{_STYLE}{text[start:]}\n"


def picture_specification(plot: Plot) -> Row:
    """Return the Vega-Lite of a picture, in which each text has its place."""
    quality, cost = _axes(plot)
    across, up = (quality, cost) if plot.better == "more" else (cost, quality)
    first, second = ("x", "y") if plot.better == "more" else ("y", "x")
    rows: dict[str, list[Row]] = {label: [] for label in plot.marks}
    for row in sorted(plot.points, key=lambda row: (row[first], row[second])):
        rows[row["label"]].append(row)
    lines = [
        [(_WIDTH * across.share(row[first]), _HEIGHT * (1 - up.share(row[second]))) for row in line]
        for line in rows.values()
    ]
    wrapped = [_wrapped(label) for label in rows]
    names = name_lines(wrapped, lines, _NAME_SIZE)
    values = [[str(row.get("knob", "")) for row in line] for line in rows.values()]
    knobs = name_points(values, lines, names, _TEXT_SIZE, _NAME_SIZE)

    def texts(found: Iterable[tuple[str, Text]]) -> list[Row]:
        return [
            {
                "label": label,
                "text": text.text.split("\n"),
                "across": across.value(text.x / _WIDTH),
                "up": up.value(1 - text.y / _HEIGHT),
            }
            for label, text in found
        ]

    def layer(values: list[Row], size: int, weight: str) -> Row:
        mark = {"type": "text", "align": "left", "baseline": "middle", "fontSize": size, "fontWeight": weight}
        where = {"x": _quantitative("across"), "y": _quantitative("up")}
        # Several lines are centered around the place, as Vega does not do itself.
        lifted = {"dy": {"expr": f"-{0.6 * size} * (length(datum.text) - 1)"}, "lineHeight": 1.2 * size}
        return {
            "data": {"values": values},
            "mark": {**mark, **lifted},
            "encoding": {**where, "text": _nominal("text")},
        }

    small = [(label, text) for label, found in zip(rows, knobs, strict=True) for text in found]
    named = list(zip(rows, names, strict=True))
    right = max(text.box(_NAME_SIZE).right for text in names) - _WIDTH
    mark = {"type": "point", "filled": True, "opacity": 1, "size": 90}
    return {
        "width": _WIDTH,
        "height": _HEIGHT,
        "autosize": "pad",
        "padding": {"left": 4, "top": 12, "bottom": 4, "right": max(12, round(right) + 6)},
        "data": {"values": [_drawn(plot, row) for line in rows.values() for row in line]},
        "encoding": _encoding(
            plot, _WIDTH, _HEIGHT, [f"var(--line-{k % MOST_LINES})" for k in range(len(rows))]
        ),
        "layer": [
            {
                "mark": {"type": "line", "strokeWidth": 2.5, "strokeJoin": "round"},
                "encoding": {"detail": _nominal("label"), "order": _quantitative(first)},
            },
            {
                "mark": {**mark, "stroke": "var(--paper)", "strokeWidth": 1},
                "encoding": {"shape": _shape(plot)},
            },
            layer(texts(small), _TEXT_SIZE, "normal"),
            layer(texts(named), _NAME_SIZE, "bold"),
        ],
    }


def _drawn(plot: Plot, row: Row) -> Row:
    """Add the place of a row's quality and of its interval on the axis."""
    quality, _ = _axes(plot)
    places = {"at": "x", "low_at": "low", "high_at": "high"}
    return row | {name: quality.stretched(row[key]) for name, key in places.items() if key in row}


def _encoding(plot: Plot, width: float, height: float, colors: list[str]) -> Row:
    quality, cost = _axes(plot)
    first, second = ("x", "y") if plot.better == "more" else ("y", "x")
    costs = {row["y"] for row in plot.points} if plot.better == "less" else set()
    room = {"x": (width, True), "y": (height, False)}
    ticks = _apart(quality, _recall_ticks(quality), *room[first]) if quality.kind == "recall" else None
    return {
        first: quality.encoding("at", plot.quality, ticks),
        second: cost.encoding("y", plot.cost, _apart(cost, _cost_ticks(cost, costs), *room[second])),
        "color": _nominal("label", scale={"domain": list(plot.marks), "range": colors}),
    }


def _shape(plot: Plot) -> Row:
    shapes = [mark.shape for mark in plot.marks.values()]
    return _nominal("label", scale={"domain": list(plot.marks), "range": shapes})


def _wrapped(label: str) -> str:
    r"""Break a long label at a space near its middle.

    Examples
    --------
    >>> _wrapped("muvera"), _wrapped("single vectors without deduplication")
    ('muvera', 'single vectors\nwithout deduplication')
    """
    spaces = [k for k, character in enumerate(label) if character == " "]
    if len(label) <= _LONG_LABEL or not spaces:
        return label
    middle = min(spaces, key=lambda k: abs(k - len(label) / 2))
    return f"{label[:middle]}\n{label[middle + 1 :]}"


def _nominal(field: str, **more: Any) -> Row:
    return {"field": field, "type": "nominal", **more}


def _quantitative(field: str, **more: Any) -> Row:
    return {"field": field, "type": "quantitative", **more}


def _front(better: str) -> list[Row]:
    """Keep the points of each label that no point of better quality beats in cost.

    In the order of descending quality, a point is kept if it improves on the best one
    before it.
    """
    sort = [{"field": "x", "order": "descending"}, {"field": "gain", "order": "descending"}]
    window = {"frame": [None, 0], "sort": sort, "groupby": ["label"]}
    return [
        {"calculate": "datum.y" if better == "more" else "-datum.y", "as": "gain"},
        {"window": [{"op": "max", "field": "gain", "as": "reached"}], **window},
        {"window": [{"op": "lag", "field": "reached", "as": "before"}], **window},
        {"filter": "!isValid(datum.before) || datum.gain > datum.before"},
    ]
