"""The Pareto front of quality and speed, and by how much its points are faster than what stands behind them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .intervals import ratio_interval

__all__ = ["EXACT_SYSTEM", "TARGETS", "TimedPoint", "pareto_front", "speedups"]

#: Qualities for each of which the fastest point that reaches it is compared with others.
TARGETS = (0.8, 0.9, 0.95, 0.99)

#: The system that every query is answered exactly by.
EXACT_SYSTEM = "exhaustive"


@dataclass(frozen=True, eq=False)
class TimedPoint:
    """What one configuration found on one collection, and how long it took.

    Parameters
    ----------
    name : str
    series : str
        What all points of one curve share.
    system : str
    quality : float
        Mean over the queries.
    turns : str
        Which points were measured in the same turns.
    seconds : float64 (n,)
        One a query.
    """

    name: str
    series: str
    system: str
    quality: float
    turns: str
    seconds: NDArray[np.float64]

    @property
    def cost(self) -> float:
        """Mean seconds of a query, the inverse of queries per second."""
        return float(self.seconds.mean())


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the positions of the points (quality, cost) that no other beats, by rising quality.

    Of points that are the same in both, the first is returned.

    Examples
    --------
    >>> pareto_front([(0.9, 3.0), (0.5, 1.0), (0.8, 4.0), (1.0, 9.0)])
    [1, 0, 3]
    """
    found: list[int] = []
    least = np.inf
    for i in sorted(range(len(points)), key=lambda i: (-points[i][0], points[i][1], i)):
        if points[i][1] < least:
            found.append(i)
            least = points[i][1]
    return found[::-1]


def speedups(points: Sequence[TimedPoint]) -> list[dict[str, Any]]:
    """For each target that is reached, compare the fastest point with the next series and exact search.

    Only points that were measured in the same turns are compared: those of the turns that most points share.

    Returns
    -------
    list of dict
        ``target``, ``fastest`` (the name of a point) and ``over``: for the fastest point of any other series
        that reaches the target, and for exact search, its name as ``point`` and how many times as many queries
        the fastest answers in a second as ``ratio``, ``low`` and ``high`` (a 95% interval over queries).
    """
    if not points:
        return []
    turns = Counter(point.turns for point in points).most_common(1)[0][0]
    together = sorted((point for point in points if point.turns == turns), key=lambda point: point.cost)
    exact = [point for point in together if point.system == EXACT_SYSTEM]
    found = []
    for target in TARGETS:
        reaching = [point for point in together if point.quality >= target]
        if not reaching:
            break
        best = reaching[0]
        others = [point for point in reaching if point.series != best.series]
        compared = dict.fromkeys([*others[:1], *(point for point in exact if point is not best)])
        over = [_over(best, point) for point in compared]
        found.append({"target": target, "fastest": best.name, "over": over})
    return found


def _over(best: TimedPoint, other: TimedPoint) -> dict[str, Any]:
    ratio, low, high = ratio_interval(other.seconds, best.seconds, np.mean)
    return {"point": other.name, "ratio": ratio, "low": low, "high": high}
