"""Orders in which vectors enter a graph, and their local intrinsic dimension.

The recall of an HNSW graph depends on the order of insertion, most if the intrinsic dimension is high.
Descending local dimension has the highest recall (Elliott and Clark, arXiv 2405.17813).
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..known_names import require_known

__all__ = ["Order", "insertion_order", "intrinsic_dimension"]

Order = Literal["given", "random", "rising_dimension", "falling_dimension"]

# Number of neighbors for estimating a local dimension, and of vectors compared at a time.
_NEIGHBORS, _BLOCK = 50, 512


def insertion_order(order: Order, dimension: NDArray[np.float64], seed: int) -> NDArray[np.int64]:
    """Return the positions of vectors in the order to insert them, by their local intrinsic `dimension`."""
    require_known(order, get_args(Order), "order")
    if order == "random":
        return np.random.default_rng(seed).permutation(len(dimension))
    if order == "given":
        return np.arange(len(dimension))
    return np.argsort(dimension if order.startswith("rising") else -dimension, kind="stable")


def intrinsic_dimension(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the local intrinsic dimension at each of at least three vectors, float64 (n,).

    The maximum-likelihood estimate from distances to the nearest neighbors on the unit sphere (Levina and
    Bickel, 2004): the inverse of the mean logarithm of the farthest distance over the others.
    """
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1e-12))
    count = min(_NEIGHBORS, len(unit) - 2)
    out = np.empty(len(unit))
    for start in range(0, len(unit), _BLOCK):
        squared = np.maximum(2 - 2 * (unit[start : start + _BLOCK] @ unit.T).astype(np.float64), 0)
        squared[np.arange(len(squared)), np.arange(start, start + len(squared))] = np.inf  # not itself
        near = np.sort(np.sqrt(np.partition(squared, count, axis=1)[:, : count + 1]))
        near = np.maximum(near, 1e-6)  # copies of a text
        logarithms = np.log(near[:, -1:] / near[:, :-1]).mean(axis=1)
        out[start : start + _BLOCK] = 1 / np.maximum(logarithms, 1e-9)
    return out
