"""Leading eigenvectors of large symmetric matrices, by subspace iteration."""

from __future__ import annotations

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from .matmul import product

__all__ = ["leading_eigenvectors"]

# Number of extra columns that the iteration carries, and number of its rounds.
_EXTRA, _ROUNDS = 64, 4


def leading_eigenvectors(
    matrix: NDArray[np.float32], count: int, start: np.random.SeedSequence, threads: int | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return up to `count` leading eigenvalues and eigenvectors of a symmetric matrix.

    Parameters
    ----------
    matrix : float32 (n, n)
        Symmetric, positive semi-definite.
    count : int
        Number of eigenvectors; at most n are returned.
    start : SeedSequence
        Seed of the random columns that the iteration starts from.
    threads : int, optional
        Default: all usable cores.

    Returns
    -------
    values : float32 (c,)
        Eigenvalues in descending order.
    vectors : float32 (n, c)
        Eigenvectors in columns.
    """
    size = len(matrix)
    count = min(count, size)
    largest = float(np.abs(matrix).max())
    scale = largest if largest > 0 else 1.0
    scaled = matrix / np.float32(scale)
    stream = np.random.default_rng(start)
    basis = stream.standard_normal((size, min(size, count + _EXTRA)), np.float32)
    for _ in range(_ROUNDS):
        basis = scipy.linalg.qr(product(scaled, basis, threads), mode="economic", check_finite=False)[0]
    inner = basis.T @ product(scaled, basis, threads)
    values, vectors = scipy.linalg.eigh((inner + inner.T) / 2)
    order = slice(None, -count - 1, -1)
    return values[order] * np.float32(scale), basis @ vectors[:, order]
