"""Confidence intervals over queries, latency, and the Pareto front."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Bootstrap resamples, and the quantiles of a 95% interval.
_TIMES, _ENDS = 2000, (0.025, 0.975)


def mean_interval(values: NDArray[np.float64]) -> dict[str, float] | None:
    """Return the mean and its 95% interval by the percentile bootstrap.

    Calls with the same number of queries use the same resamples, so paired differences
    are compared on the same queries.  NaN is ignored; None if every value is NaN.
    """
    counted = ~np.isnan(values)
    if not counted.any():
        return None
    picked = _resamples(len(values))
    sums, weights = picked @ np.where(counted, values, 0), picked @ counted.astype(np.float64)
    low, high = np.quantile(sums[weights > 0] / weights[weights > 0], _ENDS)
    mean = float(values[counted].mean())
    return {"mean": mean, "low": float(low), "high": float(high), "n": int(counted.sum())}


def ratio_interval(first: NDArray[np.float64], second: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return the ratio of two medians over the same queries.

    Both ends of its 95% interval follow it.
    """
    drawn = np.random.default_rng(0).integers(0, len(first), (_TIMES, len(first)))
    low, high = np.quantile(np.median(first[drawn], axis=1) / np.median(second[drawn], axis=1), _ENDS)
    return float(np.median(first) / np.median(second)), float(low), float(high)


def latency(seconds: Iterable[float]) -> dict[str, Any]:
    """Return queries per second and latency percentiles.

    None if times were not measured.
    """
    times = np.asarray(list(seconds), np.float64)
    if len(times) == 0 or np.isnan(times).any():
        return {"queries_per_second": None, "latency_ms": None}
    percentiles = np.percentile(times, [50, 95, 99]) * 1000
    return {
        "queries_per_second": round(len(times) / max(float(times.sum()), 1e-12), 2),
        "latency_ms": {
            **{f"p{p}": round(float(ms), 4) for p, ms in zip((50, 95, 99), percentiles, strict=True)},
            "mean": round(float(times.mean()) * 1000, 4),
        },
    }


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the positions of the points (quality, cost) that no other point beats.

    They are sorted by ascending quality.

    Only the first of identical points is returned.

    Examples
    --------
    >>> pareto_front([(0.9, 3.0), (0.5, 1.0), (0.8, 4.0), (1.0, 9.0)])
    [1, 0, 3]
    """
    front: list[int] = []
    least = np.inf
    for i in sorted(range(len(points)), key=lambda i: (-points[i][0], points[i][1], i)):
        if points[i][1] < least:
            front.append(i)
            least = points[i][1]
    return front[::-1]


@lru_cache(maxsize=8)
def _resamples(count: int) -> NDArray[np.float64]:
    """How often each of `count` queries is drawn in each resample.

    The result is float64 (times, count).
    """
    drawn = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), _TIMES)
    return np.asarray(drawn, np.float64)
