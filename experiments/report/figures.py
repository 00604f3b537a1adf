"""Figures for documents, drawn from the stored results as SVG for light and dark pages."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from muvera.utils.atomic_files import write_bytes

from .charts import DARK, LIGHT, Axis, Plot, concat, marks_of
from .old_names import plain
from .stored_results import load_results

__all__ = ["candidates_plot", "speed_plots", "write_figures"]

# Attributes that viewers do not need, and numbers with more digits than they show.
_NEEDLESS = re.compile(r' (?:aria-[a-z]+|role|class|pointer-events)="[^"]*"')
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")


def write_figures(folder: Path, results: Path) -> list[Path]:
    """Write NAME.svg and NAME-dark.svg into `folder` for every figure whose results are stored."""
    import vl_convert  # imported here, so that other commands do not need it

    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, experiment, plots_of in (
        ("end_to_end-speed", "end_to_end", speed_plots),
        ("distractors", "distractors", candidates_plot),
    ):
        stored = plain(load_results(experiment, results))
        plots = plots_of(stored) if stored else []
        series = dict.fromkeys(point["series"] for plot in plots for point in plot.points)
        marks = marks_of(
            {s: "muvera" if name == "distractors" or "muvera" in s else "baseline" for s in series}
        )
        for theme, suffix in ((LIGHT, ""), (DARK, "-dark")):
            if plots:
                path = folder / f"{name}{suffix}.svg"
                svg = _NEEDLESS.sub("", vl_convert.vegalite_to_svg(concat(plots, marks, theme)))
                svg = _LONG_NUMBER.sub(lambda match: f"{float(match[0]):.4g}", svg)
                write_bytes(path, svg.encode())
                paths.append(path)
    return paths


def speed_plots(stored: dict[str, Any]) -> list[Plot]:
    """Return recall by queries per second, a plot per collection, from a timed experiment's tables."""
    tables = {table["title"].rpartition(": ")[2]: table for table in stored["tables"]}
    recall = next(table for title, table in tables.items() if "recall@" in title)
    speed = next(table for title, table in tables.items() if title.startswith("queries per second"))
    speeds = {row[0]: row for row in speed["rows"]}
    quality, points = recall["title"].rpartition(": ")[2], defaultdict(list)
    for row in recall["rows"]:
        for k, collection in enumerate(recall["header"][1:], start=1):
            if row[k] and row[0] in speeds:
                mean, low, high = map(float, re.findall(r"[\d.]+", row[k]))
                rate = float(speeds[row[0]][k].partition(" ")[0].replace(",", ""))
                series = row[0].partition(", candidates=")[0]
                point = {"x": mean, "y": rate, "low": low, "high": high, "series": series, "name": row[0]}
                points[collection].append(point)
    return [
        Plot(name, Axis(quality), Axis("queries per second", log=True), own, "more", "x")
        for name, own in points.items()
    ]


def candidates_plot(stored: dict[str, Any]) -> list[Plot]:
    """Return candidates needed by number of documents, with distractors made of the real documents."""
    rows = next(iter(stored["kinds"].values()))
    sizes = [row["documents"] for row in rows]
    points = [
        {"x": row["documents"], "y": row["candidates"], "series": row["encoder"], "line": row["encoder"]}
        for row in rows
    ]
    y = Axis("candidates for a 10-recall of .95", log=True)
    return [Plot(stored["collection"], Axis("documents", True, sizes), y, points)]
