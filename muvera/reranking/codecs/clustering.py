"""Centroids of directions by k-means, with the same bits on any number of threads."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...numerics.matmul import product

__all__ = ["direction_centroids", "nearest_centroids", "unit_rows"]

# Lloyd's rounds: later ones change the error by less than a hundredth.
_ROUNDS = 5

# Products of tokens with centroids in memory at a time.
_PRODUCTS = 1 << 24


def unit_rows(rows: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return the rows scaled to length 1, where they are not zero, and their lengths."""
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    return (rows / np.where(lengths == 0, 1, lengths)[:, np.newaxis]).astype(np.float32), lengths


def nearest_centroids(
    tokens: NDArray[np.float32], centroids: NDArray[np.float32], threads: int | None = None
) -> NDArray[np.int64]:
    """Return the number of the nearest centroid of each token, int64 (n,)."""
    columns, halves = np.ascontiguousarray(centroids.T), np.einsum("ij,ij->i", centroids, centroids) / 2
    rows = max(1, _PRODUCTS // len(centroids))
    numbers = np.empty(len(tokens), np.int64)
    for start in range(0, len(tokens), rows):
        products = product(tokens[start : start + rows], columns, threads)
        products -= halves
        numbers[start : start + rows] = products.argmax(axis=1)
    return numbers


def direction_centroids(
    tokens: NDArray[np.float32], most: int, stream: np.random.Generator, threads: int | None = None
) -> NDArray[np.float32]:
    """Return up to `most` centroids: the means of clusters that were found by their directions.

    Parameters
    ----------
    tokens : float32 (n, dimension)
        Of length 1, or zero.
    most : int
    stream : numpy.random.Generator
        Draws the tokens that the centroids begin as.
    threads : int, optional
    """
    count = min(most, len(tokens))
    centroids = tokens[np.sort(stream.permutation(len(tokens))[:count])]
    for lap in range(_ROUNDS + 1):
        numbers = nearest_centroids(tokens, centroids, threads)
        order = np.argsort(numbers, kind="stable")
        used, starts = np.unique(numbers[order], return_index=True)
        sums = np.add.reduceat(tokens[order].astype(np.float64), starts, axis=0)
        if lap < _ROUNDS:
            divisors = np.sqrt(np.einsum("ij,ij->i", sums, sums))
        else:  # a mean leaves less than its direction does
            divisors = np.diff(np.append(starts, len(tokens))).astype(np.float64)
        moved = divisors > 0
        centroids = centroids.copy()
        centroids[used[moved]] = sums[moved] / divisors[moved, np.newaxis]
    return np.ascontiguousarray(centroids, np.float32)
