"""Confidence intervals of means."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

# Bootstrap samples.
_TIMES = 1000

# Standard errors in half of a 95% interval.
_Z = 1.96


def share_interval(shares: NDArray[np.float64], seed: int = 0) -> tuple[float, float]:
    """Return the 95% interval of the mean of shares (n,), by the percentile bootstrap.

    Wilson's interval if all shares are equal, because bootstrap samples of these do not
    vary.  For other shares it is too wide: it is made for outcomes that are 0 or 1.
    """
    if np.ptp(shares) == 0:
        return _wilson(float(shares[0]), len(shares))
    stream = np.random.default_rng(seed)
    # One sample at a time, because all of them can exceed the memory.
    means = [shares[stream.integers(0, len(shares), len(shares))].mean() for _ in range(_TIMES)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def _wilson(mean: float, count: int) -> tuple[float, float]:
    square = _Z**2 / count
    center = (mean + square / 2) / (1 + square)
    half = _Z * math.sqrt(mean * (1 - mean) / count + square / (4 * count)) / (1 + square)
    # The mean is an end of its interval if it is 0 or 1, but for rounding.
    return min(mean, max(0.0, center - half)), max(mean, min(1.0, center + half))
