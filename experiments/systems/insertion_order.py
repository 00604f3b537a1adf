"""Orders of adding vectors to a graph.

The recall of an HNSW graph depends on the order of insertion, and most if the intrinsic
dimension is high (Elliott and Clark, arXiv 2405.17813).
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..known_names import require_known

Order = Literal["given", "random", "rising_dimension", "falling_dimension"]

# Neighbors from which a local dimension is estimated.
_NEIGHBORS = 50

# Vectors that are compared with all others at a time.
_BLOCK = 512


def insertion_order(order: Order, vectors: NDArray[np.float32], seed: int) -> NDArray[np.int64]:
    """Return the positions of `vectors` (n, d) in the order to add them.

    `seed` is the seed of a random order.
    """
    require_known(order, get_args(Order), "order")
    if order == "given":
        return np.arange(len(vectors))
    if order == "random":
        return np.random.default_rng(seed).permutation(len(vectors))
    dimension = intrinsic_dimension(vectors)
    return np.argsort(dimension if order == "rising_dimension" else -dimension, kind="stable")


def intrinsic_dimension(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the local intrinsic dimension at each of `vectors` (n, d), n at least 3.

    This is the maximum-likelihood estimate from distances to the nearest neighbors
    (Levina and Bickel, 2004): the inverse of the mean logarithm of the farthest
    distance divided by the others.  Distances are those of directions, because the
    graph compares cosines.
    """
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1e-12))
    count = min(_NEIGHBORS, len(unit) - 2)
    estimates = np.empty(len(unit))
    for start in range(0, len(unit), _BLOCK):
        squared = np.maximum(2 - 2 * (unit[start : start + _BLOCK] @ unit.T).astype(np.float64), 0)
        rows = np.arange(len(squared))
        squared[rows, start + rows] = np.inf  # a vector is not its own neighbor
        near = np.sort(np.sqrt(np.partition(squared, count, axis=1)[:, : count + 1]))
        near = np.maximum(near, 1e-6)  # copies of a text
        logarithms = np.log(near[:, -1:] / near[:, :-1]).mean(axis=1)
        estimates[start : start + _BLOCK] = 1 / np.maximum(logarithms, 1e-9)
    return estimates
