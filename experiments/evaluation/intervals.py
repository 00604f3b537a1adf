"""Confidence intervals over queries: the paired percentile bootstrap."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["mean_interval", "ratio_interval"]

# Resamples, and the level.
_TIMES, _LEVEL = 2000, 0.95


def mean_interval(values: NDArray[np.float64]) -> dict[str, float] | None:
    """Return the mean and its 95% interval.

    The same resamples serve every call with as many queries, so that a difference of two systems,
    taken query by query, is compared on the same queries each time.

    Parameters
    ----------
    values : float64 (n,)
        One a query; NaN does not count.

    Returns
    -------
    dict
        "mean", "low", "high" and "n", how many queries count; None where none does.
    """
    counted = ~np.isnan(values)
    if not counted.any():
        return None
    picked = _resamples(len(values))
    sums = picked @ np.where(counted, values, 0)
    weights = picked @ counted.astype(np.float64)
    means = sums[weights > 0] / weights[weights > 0]
    low, high = np.quantile(means, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    mean = float(values[counted].mean())
    return {"mean": mean, "low": float(low), "high": float(high), "n": int(counted.sum())}


def ratio_interval(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    statistic: Callable[..., NDArray[np.float64]] = np.median,
) -> tuple[float, float, float]:
    """Return the ratio of two medians or means over the same queries, and its 95% interval.

    Parameters
    ----------
    first, second : float64 (n,)
        One a query, such as its seconds.
    statistic : callable
        ``numpy.median`` or ``numpy.mean``.
    """
    drawn = np.random.default_rng(0).integers(0, len(first), (_TIMES, len(first)))
    ratios = statistic(first[drawn], axis=1) / statistic(second[drawn], axis=1)
    low, high = np.quantile(ratios, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return float(statistic(first) / statistic(second)), float(low), float(high)


@lru_cache(maxsize=8)
def _resamples(count: int) -> NDArray[np.float64]:
    """How often each of `count` queries is drawn in each resample, float64 (times, count)."""
    stream = np.random.default_rng(0)
    drawn: NDArray[np.float64] = stream.multinomial(count, np.full(count, 1 / count), _TIMES).astype(
        np.float64
    )
    return drawn
