"""Places for the texts of a chart: names at the ends of lines, and knobs at points."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

Point = tuple[float, float]

# Width of a character, relative to the size of the font.
_CHARACTER = 0.57

# Radius of a point's mark, and distance of boxes along a line.
_RADIUS = 6
_STEP = 7


class Box(NamedTuple):
    """A rectangle in pixels; y grows downward."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: Box) -> float:
        """Return the area that two boxes share."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(0.0, width) * max(0.0, height)


class Text(NamedTuple):
    """A text with the pixel of the middle of its left edge."""

    text: str
    x: float
    y: float

    def box(self, size: float) -> Box:
        """Return the rectangle that the text fills."""
        lines = self.text.split("\n")
        half = 0.62 * size * len(lines)
        width = _CHARACTER * size * max(map(len, lines))
        return Box(self.x, self.y - half, self.x + width, self.y + half)


def obstacles_of(lines: Iterable[Sequence[Point]]) -> list[Box]:
    """Return boxes that cover the points and the segments of lines.

    Examples
    --------
    >>> len(obstacles_of([[(0, 0), (70, 0)]]))
    11
    """
    return [box for line in lines for box in _covered(line)]


def name_lines(names: Sequence[str], lines: Sequence[Sequence[Point]], size: float) -> list[Text]:
    """Return a place for each line's name at its end, the higher line first.

    A name is beside the last point if it fits there, or else above or below it.
    """
    obstacles = obstacles_of(lines)
    placed: dict[str, Text] = {}
    for name, line in sorted(zip(names, lines, strict=True), key=lambda one: one[1][-1][1]):
        x, y = line[-1]
        steps = [0.0] + [sign * step * size / 2 for step in range(1, 9) for sign in (-1, 1)]
        texts = [Text(name, x + _RADIUS + 5, y + step) for step in steps]
        if x > 5 * size:  # over or under the last point
            back = Text(name, 0, 0).box(size).right
            texts += [Text(name, x - back, y + sign * 1.3 * size) for sign in (-1, 1)]
        taken = [text.box(size) for text in placed.values()]
        placed[name] = min(
            texts,
            key=lambda text: (
                20 * _crowded(text.box(size), taken)
                + _crowded(text.box(size), obstacles)
                + 3 * abs(text.y - line[-1][1])
            ),
        )
    return [placed[name] for name in names]


def name_points(
    knobs: Sequence[Sequence[str]],
    lines: Sequence[Sequence[Point]],
    names: Sequence[Text],
    size: float,
    name_size: float,
) -> list[list[Text]]:
    """Return the knobs for which there is room above or below their points."""
    obstacles = obstacles_of(lines) + [text.box(name_size) for text in names]
    shown = []
    for values, line in zip(knobs, lines, strict=True):
        kept = []
        for value, (x, y) in zip(values, line, strict=True):
            half = Text(value, 0, 0).box(size).right / 2
            texts = [Text(value, x - half, y + sign * (size * 0.62 + _RADIUS + 2)) for sign in (-1, 1)]
            best = min(texts, key=lambda text: _crowded(text.box(size), obstacles))
            if value and _crowded(best.box(size), obstacles) < 0.12 * size * size:
                kept.append(best)
                obstacles.append(best.box(size))
        shown.append(kept)
    return shown


def _covered(line: Sequence[Point]) -> Iterator[Box]:
    for (x, y), (to_x, to_y) in pairwise(line):
        steps = max(1, int(max(abs(to_x - x), abs(to_y - y)) / _STEP))
        for k in range(1, steps):
            along_x, along_y = x + (to_x - x) * k / steps, y + (to_y - y) * k / steps
            yield Box(along_x - 2, along_y - 2, along_x + 2, along_y + 2)
    for x, y in line:
        yield Box(x - _RADIUS, y - _RADIUS, x + _RADIUS, y + _RADIUS)


def _crowded(box: Box, others: Iterable[Box]) -> float:
    return sum(box.overlap(other) for other in others)
