"""Shapes of the points in plots: for each family of systems its own kind."""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, pi, sin, sqrt

__all__ = ["SHAPES"]

_Point = tuple[float, float]

#: A hole in the middle of a shape, which makes a second shape of it.
_HOLE = "M0.35,0A0.35,0.35,0,0,0,-0.35,0A0.35,0.35,0,0,0,0.35,0Z"


def _polygon(points: Sequence[_Point]) -> str:
    return "M" + "L".join(f"{x:.3g},{y:.3g}" for x, y in points) + "Z"


def _star(tips: int, inner: float, outer: float = 1.15) -> str:
    """Return a star, or a regular polygon where `inner` is the radius of its sides' middles."""
    radii = (outer, inner)
    turns = [(radii[k % 2], pi * k / tips) for k in range(2 * tips)]
    return _polygon([(radius * sin(turn), -radius * cos(turn)) for radius, turn in turns])


def _turned(points: Sequence[_Point], quarters: int) -> list[_Point]:
    for _ in range(quarters):
        points = [(-y, x) for x, y in points]
    return list(points)


_TRIANGLE = [(0.0, -1.1), (1.1, 0.85), (-1.1, 0.85)]
_CHEVRON = [(0.0, -1.0), (1.1, 0.2), (1.1, 1.0), (0.0, 0.0), (-1.1, 1.0), (-1.1, 0.2)]
_BOW = [(-1.1, -0.9), (0.0, -0.2), (1.1, -0.9), (1.1, 0.9), (0.0, 0.2), (-1.1, 0.9)]
_PLUS = [(-0.4, -1.1), (0.4, -1.1), (0.4, -0.4), (1.1, -0.4), (1.1, 0.4), (0.4, 0.4)]
_PLUS += [(-x, -y) for x, y in _PLUS]
_CROSS = [((x - y) / sqrt(2), (x + y) / sqrt(2)) for x, y in _PLUS]
_SAW = "M-1,-1H-0.35V-0.35H0.35V-1H1V1H0.35V0.35H-0.35V1H-1Z"

_ROUND = ["M1,0A1,1,0,1,1,-1,0A1,1,0,1,1,1,0Z", _star(4, 0.88, 1.25), _star(5, 0.55, 1.35)]
_ROUND += [_star(6, 1.0), _star(4, 0.5, 1.35), _star(6, 0.6, 1.25), _star(5, 0.93), _star(3, 0.45, 1.3)]
_SQUARE = ["M-0.9,-0.9H0.9V0.9H-0.9Z", _polygon(_PLUS), _polygon(_CROSS), _SAW]
_SQUARE += ["M-1,-1H1V-0.3H0.35V1H-0.35V-0.3H-1Z", "M-1,-1H-0.3V0.3H1V1H-1Z", "M-1,-1H1V1H0.3V-0.3H-1Z"]
_SQUARE += ["M-0.5,-1.2H0.5V1.2H-0.5Z"]
_POINTED = [_polygon(_turned(_TRIANGLE, quarters)) for quarters in (0, 2, 1, 3)]
_POINTED += [_polygon(_turned(_BOW, quarters)) for quarters in (0, 1)]
_POINTED += [_polygon(_turned(_CHEVRON, quarters)) for quarters in (0, 2)]

#: Family -> shapes of its series as SVG paths around the origin: this library's are round or stars, baselines'
#: have right angles, peers' are triangles and arrows.  The second half are the first half's with a hole.
SHAPES = {
    family: (*shapes, *(shape + _HOLE for shape in shapes))
    for family, shapes in (("muvera", _ROUND), ("baseline", _SQUARE), ("peer", _POINTED))
}
