"""Colors of both themes, and the color and shape of each series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

__all__ = ["DARK", "LIGHT", "SHAPES", "VARIABLES", "Mark", "Theme", "css_variables", "marks_of"]

# Okabe and Ito's colors, told apart by color-blind readers; their yellow is too pale on white.
_BLUE, _VERMILLION, _GREEN, _PURPLE = "#0072b2", "#d55e00", "#009e73", "#cc79a7"
_ORANGE, _SKY = "#e69f00", "#56b4e9"

_CIRCLE = "M1,0A1,1,0,1,1,-1,0A1,1,0,1,1,1,0Z"
_SQUARE = "M-0.9,-0.9H0.9V0.9H-0.9Z"
_TRIANGLE = "M0,-1.1L1.1,0.85H-1.1Z"
_DIAMOND = "M0,-1.25L1.25,0L0,1.25L-1.25,0Z"
_CROSS = "M-0.4,-1.1H0.4V-0.4H1.1V0.4H0.4V1.1H-0.4V0.4H-1.1V-0.4H-0.4Z"
_WEDGE = "M0,1.1L1.1,-0.85H-1.1Z"

#: Shapes of a family's series: the second only where its colors have run out.
SHAPES = {"ours": (_CIRCLE, _DIAMOND), "baseline": (_SQUARE, _CROSS), "peer": (_TRIANGLE, _WEDGE)}


@dataclass(frozen=True)
class Theme:
    """Colors of one theme, as CSS understands them.

    Parameters
    ----------
    paper, raised, ink, muted, rule, accent, alarm : str
        Background, background of boxes, text, lesser text, lines, what can be clicked, what failed.
    series_0 ... series_6 : str
        Colors of series.
    """

    paper: str
    raised: str
    ink: str
    muted: str
    rule: str
    accent: str
    alarm: str
    series_0: str
    series_1: str
    series_2: str
    series_3: str
    series_4: str
    series_5: str
    series_6: str

    @property
    def series(self) -> tuple[str, ...]:
        """Colors of series, in the order in which they are given out."""
        return tuple(getattr(self, field.name) for field in fields(self) if field.name.startswith("series"))


_SERIES = {
    "series_0": _BLUE,
    "series_1": _VERMILLION,
    "series_2": _GREEN,
    "series_3": _PURPLE,
    "series_4": _ORANGE,
    "series_5": _SKY,
}

# Papers are those of GitHub's two themes, so that figures sit in its pages without a seam.
LIGHT = Theme(
    paper="#ffffff",
    raised="#f6f7f9",
    ink="#1c2127",
    muted="#59636e",
    rule="#dde1e6",
    accent="#0b5cad",
    alarm="#a3320b",
    series_6="#3a3f46",
    **_SERIES,
)
DARK = Theme(
    paper="#0d1117",
    raised="#161b22",
    ink="#e6e9ee",
    muted="#9aa4b0",
    rule="#2d343d",
    accent="#6cb6ff",
    alarm="#ff9a76",
    series_6="#c9d1d9",
    **_SERIES,
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
    """How a series looks.

    Parameters
    ----------
    color : int
        Position in a theme's series.
    shape : str
        SVG path within the square from -1 to 1.
    """

    color: int
    shape: str


def marks_of(experiments: Sequence[Mapping[str, str]]) -> list[dict[str, Mark]]:
    """Give the series of each experiment pairs of color and shape.

    The shape says the family, so that it is readable without colors.  Within an experiment no pair comes
    twice (up to 14 series a family), nor a color as long as there are others; from one experiment
    to the next a series keeps its pair where that is free.

    Parameters
    ----------
    experiments : sequence of dict
        Name of a series -> family.

    Examples
    --------
    >>> first, second = marks_of([{"muvera": "ours", "bm25": "baseline"}, {"bm25": "baseline"}])
    >>> first["muvera"].color, first["bm25"].color, first["bm25"] == second["bm25"]
    (0, 1, True)
    """
    known: dict[str, Mark] = {}
    found = []
    for families in experiments:
        kept = {name: known[name] for name in families if name in known}
        taken = list(kept.values())
        for name, family in families.items():
            if name not in kept:
                kept[name] = _free(family, taken)
                taken.append(kept[name])
        known = kept | known
        found.append({name: kept[name] for name in families})
    return found


def _free(family: str, taken: list[Mark]) -> Mark:
    """Return the pair whose shape and then color are the least used."""
    pairs = [Mark(color, shape) for shape in SHAPES[family] for color in range(len(LIGHT.series))]
    used = [mark.color for mark in taken]
    return min(
        pairs,
        key=lambda mark: (taken.count(mark), SHAPES[family].index(mark.shape), used.count(mark.color)),
    )
