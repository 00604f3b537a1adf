"""Figures for documents: SVG and PNG of an experiment's plots, for light and dark pages."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import altair as alt
import vl_convert

from muvera.utils.atomic_files import write_bytes

from .appearance import DARK, LIGHT, Mark, Theme
from .charts import sweep_chart, themed, tradeoff_chart
from .experiment_view import ExperimentView, marks_of_views
from .plots import Plot, plots_of
from .points import points_of, variants_of
from .run_folder import Run

__all__ = ["write_figures"]

_WIDTH, _HEIGHT, _COLUMNS = 270, 220, 3
_LEGEND_COLUMNS = 4

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
    views = [ExperimentView(run, name) for name in run.experiments]
    figures = [
        (view, marks, name, plots)
        for view, marks in zip(views, marks_of_views(views), strict=True)
        for name, plots in _figures(view).items()
    ]
    for view, marks, name, plots in figures:
        for theme, suffix in ((LIGHT, ""), (DARK, "-dark")):
            drawing = _drawing(view, plots, marks, theme)
            svg = vl_convert.vegalite_to_svg(drawing, vl_version=version).encode()
            png = vl_convert.vegalite_to_png(drawing, vl_version=version, scale=_SHARPNESS)
            for kind, content in (("svg", svg), ("png", png)):
                path = folder / f"{name}{suffix}.{kind}"
                write_bytes(path, content)
                yield path


def _figures(view: ExperimentView) -> dict[str, list[Plot]]:
    found: dict[str, list[Plot]] = {}
    for plot in plots_of(view):
        parts = [view.name, plot.kind, *([plot.parameter] if plot.kind.startswith("sweep") else [plot.title])]
        name = re.sub(r"[^A-Za-z0-9_]+", "-", " ".join(parts)).strip("-")
        found.setdefault(name, []).append(plot)
    return found


def _drawing(
    view: ExperimentView, plots: list[Plot], marks: Mapping[str, Mark], theme: Theme
) -> dict[str, Any]:
    used = {view.series_of(i).name for plot in plots for i in plot.rows}
    shown = {name: mark for name, mark in marks.items() if name in used}
    variants = variants_of(plots)
    panels = [_panel(view, plot, shown, theme, variants) for plot in plots]
    together = alt.concat(*panels, columns=_COLUMNS)
    drawing = themed(together.resolve_scale(color="shared", shape="shared", strokeDash="shared"), theme)
    drawing["background"] = theme.paper
    drawing["padding"] = 12
    return drawing


def _panel(
    view: ExperimentView, plot: Plot, marks: Mapping[str, Mark], theme: Theme, variants: list[str]
) -> alt.LayerChart:
    measure = plot.title or view.main_measure
    data = alt.InlineData(values=points_of(view, plot, measure, variants))
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
            variants=variants,
            data=data,
            legend=legend,
        )
    titled: alt.LayerChart = chart.properties(width=_WIDTH, height=_HEIGHT, title=plot.collection)
    return titled
