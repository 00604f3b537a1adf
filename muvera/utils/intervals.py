"""Confidence intervals of means, valid however often one looks."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

#: Shares of the capital that are bet, (bets, 1).  Large ones decide after a few shares,
#: small ones after many: these are for ten to a million.
BETS = np.geomspace(0.002, 0.97, 8)[:, np.newaxis]

# Halvings of the range that an end of the interval is looked for in.
_HALVINGS = 40

# Ends below it are 0: nobody can tell them apart, and shares divided by them overflow.
_LEAST = 1e-12

#: Probability that an interval contains the mean.
CONFIDENCE = 0.95

Interval = tuple[float, float]
Shares = NDArray[np.float64]


def share_interval(
    shares: Shares, counts: NDArray[np.int64] | None = None, confidence: float = CONFIDENCE
) -> Interval:
    """Return an interval of the mean of the population that shares were drawn from.

    A confidence sequence by betting (Waudby-Smith and Ramdas, JRSS B 2024, section 4):
    the mean is in the intervals after every number of shares, all at once, with the
    given probability.  For each possible mean, two gamblers bet that the shares are
    higher, or lower.  Nobody can expect to win against the true mean, so means against
    which the capital has reached ``2 / (1 - confidence)`` are left out.

    A gambler bets the mean capital of several constant bets (the paper's hedged "grid
    Kelly", appendix B).  So the order of the shares does not matter, and an interval of
    all shares follows from how often each of them occurred.  If the mean drifts, the
    interval is of the mean over time.  Predictable plug-in bets, which become smaller
    with time, would be of a mean in which early shares count more
    (``python -m experiments meter``).

    Parameters
    ----------
    shares : ndarray (n,), float64
        Numbers from 0 to 1.
    counts : ndarray (n,), int64, optional
        How often each of them occurred.  Default: once.
    confidence : float
        The probability, above 0 and below 1.

    Returns
    -------
    tuple of float
        The ends, which contain the mean of `shares`.  (0, 1) without shares.
    """
    if counts is None:
        shares, counts = np.unique(np.asarray(shares, np.float64), return_counts=True)
    if not counts.sum():
        return 0.0, 1.0
    mean = min(1.0, float(shares @ counts / counts.sum()))
    enough = math.log(2 / (1 - confidence)) + math.log(len(BETS))
    return _lowest(shares, counts, mean, enough), 1 - _lowest(1 - shares, counts, 1 - mean, enough)


def _lowest(shares: Shares, counts: NDArray[np.int64], mean: float, enough: float) -> float:
    """Return the lowest mean that is left: the capital falls as the mean rises."""
    low, high = 0.0, mean
    for _ in range(_HALVINGS if mean > _LEAST else 0):
        middle = (low + high) / 2
        capital = np.log1p(BETS * (shares / middle - 1)) @ counts
        low, high = (middle, high) if np.logaddexp.reduce(capital) > enough else (low, middle)
    return low
