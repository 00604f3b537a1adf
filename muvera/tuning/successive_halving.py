"""Successive halving: many candidates on a small sample, the better half on a larger one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

__all__ = ["better_half", "halve", "pareto_fronts"]

T = TypeVar("T")


def pareto_fronts(sizes: Sequence[float], values: Sequence[float]) -> list[list[int]]:
    """Return positions by Pareto front: the first holds those that no equal or smaller size exceeds.

    Parameters
    ----------
    sizes : sequence of float
        Less is better.
    values : sequence of float
        More is better.

    Returns
    -------
    list of list of int
        Every position once, each front from the smallest size on.  Of two equals the first is in
        the earlier front.

    Examples
    --------
    >>> pareto_fronts([1, 2, 3, 2], [0.5, 0.7, 0.6, 0.4])
    [[0, 1], [3, 2]]
    """
    left = sorted(range(len(sizes)), key=lambda i: (sizes[i], -values[i], i))
    found = []
    while left:
        front: list[int] = []
        for i in left:
            if not front or values[i] > values[front[-1]]:
                front.append(i)
        found.append(front)
        left = [i for i in left if i not in front]
    return found


def better_half(sizes: Sequence[float], values: Sequence[float]) -> list[int]:
    """Return the positions of whole fronts, the best first, until they are at least half."""
    kept: list[int] = []
    for front in pareto_fronts(sizes, values):
        kept += front
        if 2 * len(kept) >= len(sizes):
            break
    return sorted(kept)


def halve(
    candidates: Sequence[T],
    rungs: Sequence[int],
    size: Callable[[T], float],
    measure: Callable[[Sequence[T], int], Sequence[float]],
) -> list[T]:
    """Return the candidates that are left after all rungs.

    Parameters
    ----------
    candidates : sequence
    rungs : sequence of int
        Sizes of the samples to measure on, ascending; after each the better half is kept.
    size : callable
        Returns the size of a candidate; smaller is better.
    measure : callable
        Returns the candidates' values on a sample of a given size.
    """
    left = list(candidates)
    for rung in rungs:
        if len(left) < 2:
            break
        values = measure(left, rung)
        left = [left[i] for i in better_half([size(candidate) for candidate in left], values)]
    return left
