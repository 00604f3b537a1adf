"""Tables, section and figure of candidates needed against the number of documents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import altair as alt
import vl_convert

from muvera.utils.atomic_files import write_bytes

from ..report.appearance import DARK, LIGHT, marks_of
from ..report.charts import themed
from ..report.markdown import markdown_table
from .distractors import Needed, slope

__all__ = ["FIGURE", "markdown", "table", "write_figure"]

#: Name of the figure's files.
FIGURE = "distractors"

_WIDTH, _HEIGHT = 560, 300


def table(found: Sequence[Needed]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows: an encoder each, candidates by number of documents, and their slope."""
    sizes = sorted({one.documents for one in found})
    header = ["vectors", "floats", *(f"n={size:,}" for size in sizes), "slope"]
    header += [f"recall of the first hundred, n={sizes[-1]:,}", "distractors among these"]
    rows = []
    for name in dict.fromkeys(one.encoder for one in found):
        own = sorted((one for one in found if one.encoder == name), key=lambda one: one.documents)
        exponent = slope([one.documents for one in own], [one.candidates for one in own])
        rows.append(
            [
                name,
                f"{own[0].floats:,}",
                *(f"{one.candidates:,}" for one in own),
                "" if exponent is None else f"{exponent:.2f}",
                f"{own[-1].recall:.3f}",
                f"{own[-1].distractors:.3f}",
            ]
        )
    return header, rows


def markdown(stored: dict[str, Any]) -> str:
    """Return the section of stored measurements."""
    machine = stored["machine"]
    parts = [
        "Candidates that hold 95% of exact Chamfer's ten best as distractors are added to "
        f"{stored['collection']} ({stored['queries']} queries), for encoders that were fitted on the real documents. "
        "The slope is the exponent of growth: candidates grow with the number of documents to this power. Distractors "
        'are made of the real documents ("made"), or their tokens are drawn with the mean and covariance of the real '
        f'ones ("noise"). {machine["processor"]}, {machine["cores"]} cores; recall does not depend on the machine.'
    ]
    for kind, values in stored["kinds"].items():
        parts.append(f"**{kind}**\n\n{markdown_table(*table([Needed(**one) for one in values]))}")
    parts.append(
        f"![Candidates needed against the number of documents](figures/{FIGURE}.svg#only-light)\n"
        f"![Candidates needed against the number of documents](figures/{FIGURE}-dark.svg#only-dark)"
    )
    return "\n\n".join(parts)


def write_figure(found: Sequence[Needed], folder: Path) -> list[Path]:
    """Write candidates against documents, both logarithmic, for light and dark pages."""
    folder.mkdir(parents=True, exist_ok=True)
    version = vl_convert.get_vegalite_versions()[-1]
    written = []
    for theme, suffix in ((LIGHT, ""), (DARK, "-dark")):
        path = folder / f"{FIGURE}{suffix}.svg"
        drawing = themed(_chart(found), theme)
        drawing["background"], drawing["padding"] = theme.paper, 12
        write_bytes(path, vl_convert.vegalite_to_svg(drawing, vl_version=version).encode())
        written.append(path)
    return written


def _chart(found: Sequence[Needed]) -> alt.Chart:
    names = list(dict.fromkeys(one.encoder for one in found))
    (marks,) = marks_of([dict.fromkeys(names, "muvera")])
    values = [
        {"documents": one.documents, "candidates": one.candidates, "vectors": one.encoder} for one in found
    ]
    sizes = sorted({one.documents for one in found})
    color = alt.Color(
        "vectors:N",
        scale=alt.Scale(domain=names, range=[marks[name].color for name in names]),
        legend=alt.Legend(title=None, orient="right"),
    )
    chart: alt.Chart = (
        alt.Chart(alt.InlineData(values=values))
        .mark_line(point=True, strokeWidth=2)
        .encode(
            x=alt.X(
                "documents:Q",
                scale=alt.Scale(type="log", nice=False),
                axis=alt.Axis(title="documents", values=sizes, format=",d"),
            ),
            y=alt.Y(
                "candidates:Q",
                scale=alt.Scale(type="log"),
                axis=alt.Axis(title="candidates for 10-recall of .95", format=",d"),
            ),
            color=color,
        )
        .properties(width=_WIDTH, height=_HEIGHT)
    )
    return chart
