"""The figure of the main experiment, drawn from its stored results as SVG for light and dark pages."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from muvera.utils.atomic_files import write_bytes

from .charts import DARK, LIGHT, Axis, Plot, concat, marks_of
from .stored_results import load_results

__all__ = ["speed_plots", "write_figures"]

# Attributes that viewers do not need, and numbers with more digits than they show.
_NEEDLESS = re.compile(r' (?:aria-[a-z]+|role|class|pointer-events)="[^"]*"')
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")


def write_figures(folder: Path, results: Path) -> list[Path]:
    """Write the figure into `folder`, once for light and once for dark pages."""
    import vl_convert  # imported here, so that other commands do not need it

    folder.mkdir(parents=True, exist_ok=True)
    plots = speed_plots(load_results("end_to_end", results))
    series = dict.fromkeys(point["series"] for plot in plots for point in plot.points)
    marks = marks_of({name: "muvera" if "muvera" in name else "baseline" for name in series})
    paths = []
    for theme, suffix in ((LIGHT, ""), (DARK, "-dark")):
        svg = _NEEDLESS.sub("", vl_convert.vegalite_to_svg(concat(plots, marks, theme)))
        paths.append(folder / f"end_to_end-speed{suffix}.svg")
        write_bytes(paths[-1], _LONG_NUMBER.sub(lambda match: f"{float(match[0]):.4g}", svg).encode())
    return paths


def speed_plots(stored: dict[str, Any]) -> list[Plot]:
    """Return recall by queries per second, a plot per collection, from a timed experiment's tables."""
    tables = {table["title"].rpartition(": ")[2]: table for table in stored["tables"]}
    quality = next(title for title in tables if "recall@" in title)
    speed = next(table for title, table in tables.items() if title.startswith("queries per second"))
    speeds, points = {row[0]: row for row in speed["rows"]}, defaultdict(list)
    for row in tables[quality]["rows"]:
        for k, collection in enumerate(tables[quality]["header"][1:], start=1):
            if row[k] and row[0] in speeds:
                mean, low, high = map(float, re.findall(r"[\d.]+", row[k]))
                rate = float(speeds[row[0]][k].partition(" ")[0].replace(",", ""))
                series = row[0].partition(", candidates=")[0]
                point = {"x": mean, "y": rate, "low": low, "high": high, "series": series, "name": row[0]}
                points[collection].append(point)
    rates = Axis("queries per second", log=True)
    return [Plot(name, Axis(quality), rates, own, "more", "x") for name, own in points.items()]
