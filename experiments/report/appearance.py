"""Colors of both themes, and the color and the shape of each series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import count

from .shapes import SHAPES

__all__ = [
    "DARK",
    "LIGHT",
    "SERIES",
    "VARIABLES",
    "Mark",
    "Theme",
    "css_variables",
    "marks_of",
    "series_color",
]

#: Colors of series in the order in which they are given out: Okabe and Ito's, told apart by color-blind readers
#: (without their yellow, which is too pale on white), a gray, and then always the color that is the farthest in
#: OKLab from all before it.  All can be seen on both themes' papers.
SERIES = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a828c", "#874bd2"),
    *("#78c31e", "#c32d69", "#786900", "#f087ff", "#9687ff", "#a5b496", "#96961e", "#ff8778"),
    *("#1e87ff", "#007869", "#008700", "#965a5a", "#00c3a5", "#c3a5e1", "#c34bb4", "#0f96c3"),
    *("#b48769", "#875a96", "#f05a69", "#4ba500", "#ff69b4", "#7878c3", "#69a5a5", "#9696c3"),
)


def series_color(position: int) -> str:
    """Return the color of the series at a position; past the last of SERIES, hues by the golden angle."""
    if position < len(SERIES):
        return SERIES[position]
    return f"hsl({position * 137.508 % 360:.3f}, 55%, 50%)"


@dataclass(frozen=True)
class Theme:
    """Colors of one theme, as CSS understands them.

    Parameters
    ----------
    paper, raised, ink, muted, rule, accent, alarm : str
        Background, background of boxes, text, lesser text, lines, what can be clicked, what failed.
    """

    paper: str
    raised: str
    ink: str
    muted: str
    rule: str
    accent: str
    alarm: str


# Papers are those of GitHub's two themes, so that figures sit in its pages without a seam.
LIGHT = Theme(
    paper="#ffffff",
    raised="#f6f7f9",
    ink="#1c2127",
    muted="#59636e",
    rule="#dde1e6",
    accent="#0b5cad",
    alarm="#a3320b",
)
DARK = Theme(
    paper="#0d1117",
    raised="#161b22",
    ink="#e6e9ee",
    muted="#9aa4b0",
    rule="#2d343d",
    accent="#6cb6ff",
    alarm="#ff9a76",
)


def _variable(name: str) -> str:
    return f"--{name.replace('_', '-')}"


#: The theme whose colors the page's style sheet fills in, so that a plot follows it without being redrawn.
VARIABLES = Theme(**{field.name: f"var({_variable(field.name)})" for field in fields(Theme)})


def css_variables(theme: Theme) -> str:
    """Return the declarations that give the variables a theme's colors."""
    return " ".join(f"{_variable(field.name)}: {getattr(theme, field.name)};" for field in fields(theme))


@dataclass(frozen=True)
class Mark:
    """Color and shape of a series.

    Parameters
    ----------
    color : str
        As CSS understands it.
    shape : str
        SVG path around the origin.
    """

    color: str
    shape: str


def marks_of(experiments: Sequence[Mapping[str, str]]) -> list[dict[str, Mark]]:
    """Give the series of each experiment colors and shapes.

    Within an experiment no color comes twice, and no shape as long as the family has others; from one experiment
    to the next a series keeps its color and its shape where both are free.  The shape also shows the family, so
    that it can be read without colors.

    Parameters
    ----------
    experiments : sequence of dict
        Name of a series -> family.

    Examples
    --------
    >>> first, second = marks_of([{"muvera": "muvera", "bm25": "baseline"}, {"bm25": "baseline"}])
    >>> first["muvera"].color, first["bm25"].color, first["bm25"] == second["bm25"]
    ('#0072b2', '#d55e00', True)
    """
    known: dict[str, Mark] = {}
    found = []
    for families in experiments:
        kept: dict[str, Mark] = {}
        for name in families:
            taken = {part for mark in kept.values() for part in (mark.color, mark.shape)}
            if name in known and not taken & {known[name].color, known[name].shape}:
                kept[name] = known[name]
        for name, family in families.items():
            if name not in kept:
                kept[name] = _free(family, list(kept.values()))
        known |= kept
        found.append({name: kept[name] for name in families})
    return found


def _free(family: str, taken: list[Mark]) -> Mark:
    """Return the first color that is not taken, and the first of the family's shapes that is the least used."""
    colors = {mark.color for mark in taken}
    color = next(color for color in map(series_color, count()) if color not in colors)
    used = [mark.shape for mark in taken]
    return Mark(color, min(SHAPES[family], key=used.count))
