"""Recall against exact answers: the one definition that all measurements use."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["first_unseen", "recall"]


def recall(found: NDArray[np.int64], best: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return for each query which share of the exact best was found, float64 (n_queries,).

    Parameters
    ----------
    found : int64 (n_queries, m)
        Positions of documents; negative ones stand for none.
    best : int64 (n_queries, k)
        Positions of the exact best.

    Examples
    --------
    >>> recall(np.array([[1, 5, 0], [3, 4, -1]]), np.array([[0, 1], [2, 3]]))
    array([1. , 0.5])
    """
    share: NDArray[np.float64] = (best[:, :, np.newaxis] == found[:, np.newaxis, :]).any(axis=2).mean(axis=1)
    return share


def first_unseen(ids: NDArray[np.int64], seen: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return each row's first `count` positions that are not in `seen`, -1 where there are fewer.

    Examples
    --------
    >>> first_unseen(np.array([[4, 2, 7, 1], [2, 7, -1, -1]]), np.array([2, 3]), 2)
    array([[ 4,  7],
           [ 7, -1]])
    """
    out = np.full((len(ids), count), -1, np.int64)
    for row, found in zip(out, ids, strict=True):
        kept = found[(found >= 0) & ~np.isin(found, seen)][:count]
        row[: len(kept)] = kept
    return out
