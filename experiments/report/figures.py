"""Figures for documents: an experiment's plots as SVG, for light and dark pages."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import altair as alt
import vl_convert

from muvera.utils.atomic_files import write_bytes

from ..known_names import require_known
from .appearance import DARK, LIGHT, Mark, Theme
from .charts import sweep_chart, themed, tradeoff_chart
from .experiment_view import ExperimentView, marks_of_views
from .plots import Plot, plots_of
from .points import points_of, variants_of
from .run_folder import Run

__all__ = ["write_figures"]

#: Pixels across and up of a panel, and panels in a row.
_WIDTH, _HEIGHT, _COLUMNS = 270, 220, 3

#: Pixels of a letter in a wide font, by how much it may be wider than in the font that is measured, and pixels
#: of a legend's symbol with the space around it.
_LETTER, _WIDER, _SYMBOL = 7.5, 1.6, 32

#: What a viewer does not need: roles (figures are described where they are shown) and defaults.
_NEEDLESS = re.compile(r' (?:aria-[a-z]+|role|class|pointer-events)="[^"]*"| opacity="1"')
_FONT_FAMILY = re.compile(r' font-family="([^"]*)"')
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")


def write_figures(run: Run, folder: Path, names: Collection[str] = ()) -> Iterator[Path]:
    """Write a figure for each experiment and kind of plot: all collections beside each other.

    NAME.svg is for light pages (on white, so that it can be read anywhere), NAME-dark.svg for dark ones; a
    ``<picture>`` with ``prefers-color-scheme`` chooses.

    Parameters
    ----------
    run : Run
    folder : Path
        Made where it is missing.
    names : collection of str
        Only these figures, such as ``end_to_end-speed``; all where it is empty.

    Raises
    ------
    ValueError
        Where a name is not one of the run's figures.

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
    for name in names:
        require_known(name, [one for _, _, one, _ in figures], "figure")
    for view, marks, name, plots in figures:
        if names and name not in names:
            continue
        for theme, suffix in ((LIGHT, ""), (DARK, "-dark")):
            drawing = _drawing(view, plots, marks, theme)
            path = folder / f"{name}{suffix}.svg"
            write_bytes(path, _smaller(vl_convert.vegalite_to_svg(drawing, vl_version=version)).encode())
            yield path


def _smaller(svg: str) -> str:
    """Return a figure with hundredths of pixels, its font named once, and without what a viewer does not need."""
    family = _FONT_FAMILY.search(svg)
    svg = _FONT_FAMILY.sub("", _NEEDLESS.sub("", svg))
    svg = _LONG_NUMBER.sub(lambda number: f"{float(number[0]):.2f}".rstrip("0").rstrip("."), svg)
    return svg.replace("<svg ", f"<svg{family[0]} ", 1) if family else svg


def _legend(names: Collection[str]) -> alt.Legend:
    """Return a legend whose columns do not meet where the viewer's font is wider than the measured one."""
    longest = max(map(len, names), default=0)
    columns = int(_COLUMNS * _WIDTH // (longest * _LETTER + _SYMBOL))
    padding = int(longest * _WIDER) + 10
    return alt.Legend(title=None, orient="bottom", columns=max(1, columns), columnPadding=padding)


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
    legend = _legend(marks)
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
