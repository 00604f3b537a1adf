"""Figures for documents: SVG and PNG of an experiment's plots, for light and dark pages."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import altair as alt
import vl_convert

from muvera.files import write_bytes

from .appearance import DARK, LIGHT, Mark, Theme, marks_of
from .charts import sweep_chart, themed, tradeoff_chart
from .numbers import interval
from .plots import Plot, plots_of
from .run_folder import Run

__all__ = ["write_figures"]

_WIDTH, _HEIGHT, _COLUMNS = 270, 220, 3
_LEGEND_COLUMNS = 4

#: What a plot's vertical axis is, where it is not the quality.
_VERTICAL = {"speed": "queries_per_second", "size": "bytes_per_document", "sweep-speed": "queries_per_second"}

#: Pixels of a PNG for each of the drawing's.
_SHARPNESS = 2


def write_figures(run: Run, folder: Path) -> Iterator[Path]:
    """Write a figure for each experiment and kind of plot: all collections beside each other.

    NAME.svg and NAME.png are for light pages (on white, so that they can be read anywhere), NAME-dark.svg
    and NAME-dark.png for dark ones; a ``<picture>`` with ``prefers-color-scheme`` chooses.

    Yields
    ------
    Path
        Every file, once it is written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    version = vl_convert.get_vegalite_versions()[-1]
    for name, plots in _figures(run).items():
        for theme, suffix in ((LIGHT, ""), (DARK, "-dark")):
            drawing = _drawing(run, plots, theme)
            svg = vl_convert.vegalite_to_svg(drawing, vl_version=version).encode()
            png = vl_convert.vegalite_to_png(drawing, vl_version=version, scale=_SHARPNESS)
            for kind, content in (("svg", svg), ("png", png)):
                path = folder / f"{name}{suffix}.{kind}"
                write_bytes(path, content)
                yield path


def _figures(run: Run) -> dict[str, list[Plot]]:
    found: dict[str, list[Plot]] = {}
    for experiment in run.experiments:
        for plot in plots_of(run, experiment):
            parts = [experiment, plot.kind, plot.parameter]
            name = re.sub(r"[^A-Za-z0-9_]+", "-", " ".join(parts)).strip("-")
            found.setdefault(name, []).append(plot)
    return found


def _drawing(run: Run, plots: list[Plot], theme: Theme) -> dict[str, Any]:
    used = {run.rows[i]["system"] for plot in plots for i in plot.rows}
    marks = {name: mark for name, mark in marks_of(run.systems).items() if name in used}
    panels = [_panel(run, plot, marks, theme) for plot in plots]
    drawing = themed(
        alt.concat(*panels, columns=_COLUMNS).resolve_scale(color="shared", shape="shared"), theme
    )
    drawing["background"] = theme.paper
    drawing["padding"] = 12
    return drawing


def _panel(run: Run, plot: Plot, marks: Mapping[str, Mark], theme: Theme) -> alt.LayerChart:
    measure = run.main_measure
    data = alt.InlineData(values=_points(run, plot, measure))
    legend = alt.Legend(title=None, orient="bottom", columns=_LEGEND_COLUMNS)
    if plot.kind in ("speed", "size"):
        chart = tradeoff_chart(plot.kind, measure, marks, theme, data, legend)
    else:
        chart = sweep_chart(
            plot.parameter,
            json.dumps(sorted(set(plot.values))),
            measure,
            marks,
            theme,
            logarithmic=plot.logarithmic,
            speed=plot.kind == "sweep-speed",
            data=data,
            legend=legend,
        )
    titled: alt.LayerChart = chart.properties(width=_WIDTH, height=_HEIGHT, title=plot.group)
    return titled


def _points(run: Run, plot: Plot, measure: str) -> list[dict[str, Any]]:
    points = []
    for k, i in enumerate(plot.rows):
        row = run.rows[i]
        found = interval((row.get("metrics") or {}).get(measure))
        x = plot.values[k] if plot.values else found.mean
        y = found.mean if plot.kind == "sweep" else row[_VERTICAL[plot.kind]]
        if x is not None and y is not None:
            points.append(
                {
                    "x": x,
                    "y": y,
                    "low": found.low,
                    "high": found.high,
                    "system": row["system"],
                    "family": row["family"],
                    "line": plot.lines[k] if plot.lines else "",
                }
            )
    return points
