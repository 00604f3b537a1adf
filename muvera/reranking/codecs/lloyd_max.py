"""Lloyd-Max quantizer of the standard normal distribution: the levels of least squared error."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

__all__ = ["normal_levels", "thresholds_between"]

# Rounds of the fixed-point iteration, which then has converged to float64 for 16 levels.
_ROUNDS = 4000


@lru_cache(maxsize=8)
def _half_levels(count: int) -> tuple[float, ...]:
    """Return the positive half of 2 * `count` levels, ascending."""
    levels = np.linspace(0, 3, 2 * count + 1)[1::2]
    for _ in range(_ROUNDS):
        edges = np.concatenate([[0.0], (levels[1:] + levels[:-1]) / 2, [np.inf]])
        density = np.exp(-0.5 * edges**2) / np.sqrt(2 * np.pi)
        levels = (density[:-1] - density[1:]) / (ndtr(edges[1:]) - ndtr(edges[:-1]))
    return tuple(levels.tolist())


def normal_levels(bits: int) -> NDArray[np.float32]:
    """Return the 2 ** `bits` levels, ascending, float32; each is the mean of the values nearest to it.

    Examples
    --------
    >>> normal_levels(1).round(4)
    array([-0.7979,  0.7979], dtype=float32)
    """
    half = np.array(_half_levels(2 ** (bits - 1)), np.float32)
    return np.concatenate([-half[::-1], half])


def thresholds_between(levels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the middles between ascending levels: what lies above i of them is nearest to level i."""
    middles: NDArray[np.float32] = ((levels[1:] + levels[:-1]) / 2).astype(np.float32)
    return middles
