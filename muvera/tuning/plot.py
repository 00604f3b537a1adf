"""Plot of a tuning: held-out recall over bytes per document."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..utils.atomic_files import write_bytes
from ..utils.optional_imports import import_extra
from .result import TunedRow, Tuning

__all__ = ["plot_tuning"]

# Okabe and Ito's colors, which color-blind readers can distinguish.
_COLORS = {"mean": "#e69f00", "moments": "#009e73", "FDE": "#0072b2", "learned": "#d55e00"}

# Pixels per point of a PNG, sharp in print.
_PNG_SCALE = 2


def plot_tuning(tuning: Tuning, path: str | os.PathLike[str]) -> None:
    """Plot held-out recall over bytes of every measured encoder, with a ring around the choice.

    Parameters
    ----------
    tuning : Tuning
    path : path
        Its suffix is .svg or .png.

    Raises
    ------
    ValueError
        If the suffix is another one.
    ImportError
        If the extra "plot" is not installed.
    """
    path = Path(path)
    if path.suffix not in (".svg", ".png"):
        raise ValueError(f"The plot must be .svg or .png, got {path.name}. Rename it.")
    convert = import_extra("vl_convert", "plot", "Drawing a plot")
    chart, version = _chart(tuning), convert.get_vegalite_versions()[-1]
    if path.suffix == ".svg":
        content = convert.vegalite_to_svg(chart, vl_version=version).encode()
    else:
        content = convert.vegalite_to_png(chart, vl_version=version, scale=_PNG_SCALE)
    write_bytes(path, content)


def _chart(tuning: Tuning) -> dict[str, Any]:
    """Return a chart: rows as points, the Pareto front as a line, a ring around the choice."""
    alt = import_extra("altair", "plot", "Drawing a plot")

    def points(rows: Iterable[TunedRow]) -> Any:
        values = [{"kind": row.name.split()[0], "bytes": row.bytes, "recall": row.held_out} for row in rows]
        return alt.Chart(alt.InlineData(values))

    x = alt.X("bytes:Q", scale=alt.Scale(type="log"), title="bytes per document")
    title = f"held-out recall among {tuning.candidates} candidates"
    y = alt.Y("recall:Q", scale=alt.Scale(zero=False), title=title)
    colors = alt.Scale(domain=list(_COLORS), range=list(_COLORS.values()))
    color = alt.Color("kind:N", scale=colors, title=None)
    dots = points(tuning.rows).mark_point(filled=True, size=60).encode(x, y, color=color)
    line = points(tuning.pareto).mark_line(color="#888888", strokeWidth=1).encode(x, y)
    ring = points([tuning.choice]).mark_point(size=260, color="black", shape="circle").encode(x, y)
    chart: dict[str, Any] = alt.layer(line, dots, ring).properties(width=460, height=300).to_dict()
    return chart
