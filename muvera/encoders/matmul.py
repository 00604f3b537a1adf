"""Matrix products and eigenvectors that are bit-identical for any number of threads.

BLAS splits a product by the number of threads, which changes the order of the sums: maps fitted on two cores
would differ from maps fitted on four.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from threading import Lock
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from ..utils.locks import renew_after_fork
from ..utils.parallel import run_in_ranges

# Rows of a task: BLAS is nearly as fast as on whole matrices.
_TASK_ROWS = 512

# Columns that are transposed together: they stay in the cache.
_COPIED = 128

# Extra columns of the subspace iteration, and its rounds.
_EXTRA, _ROUNDS = 64, 4


def product(
    left: NDArray[np.float32], right: NDArray[np.float32], threads: int | None = None
) -> NDArray[np.float32]:
    """Return ``left @ right``, float32 (n, m).  The blocks of rows do not depend on the number of threads."""
    out = np.empty((len(left), right.shape[1]), np.float32)

    def work(start: int, stop: int) -> None:
        np.matmul(left[start:stop], right, out=out[start:stop])

    _run_in_blocks(work, len(left), threads)
    return out


def gram(
    rows: NDArray[np.float32], threads: int | None = None, other: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Return ``rows @ rows.T``, float32 (n, n), in half the operations of :func:`product`.

    With `other` (n, m) it is ``rows @ other.T + other @ rows.T``.
    """
    out = np.empty((len(rows), len(rows)), np.float32)

    def work(start: int, stop: int) -> None:
        for begin, end in ((0, start), (start, stop)):
            block = out[start:stop, begin:end]
            if other is None:
                np.matmul(rows[start:stop], rows[begin:end].T, out=block)
            else:
                np.matmul(rows[start:stop], other[begin:end].T, out=block)
                block += other[start:stop] @ rows[begin:end].T
        for first in range(0, start, _COPIED):
            last = min(first + _COPIED, start)
            out[first:last, start:stop] = out[start:stop, first:last].T

    _run_in_blocks(work, len(rows), threads)
    return out


def _run_in_blocks(work: Callable[[int, int], object], count: int, threads: int | None) -> None:
    starts = range(0, count, _TASK_ROWS)
    with one_blas_thread():
        run_in_ranges(work, [(start, min(start + _TASK_ROWS, count)) for start in starts], threads)


def leading_eigenvectors(
    matrix: NDArray[np.float32], count: int, stream: np.random.Generator, threads: int | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return up to `count` leading eigenvalues and eigenvectors of a symmetric matrix.

    Parameters
    ----------
    matrix : float32 (n, n)
        Symmetric, positive semi-definite.
    stream : Generator
        Draws the columns that the subspace iteration starts from.

    Returns
    -------
    values : float32 (c,)
        In descending order.
    vectors : float32 (n, c)
        In columns.
    """
    size = len(matrix)
    count = min(count, size)
    largest = float(np.abs(matrix).max())
    scale = largest if largest > 0 else 1.0
    scaled = matrix / np.float32(scale)
    basis = stream.standard_normal((size, min(size, count + _EXTRA)), np.float32)
    for _ in range(_ROUNDS):
        basis = scipy.linalg.qr(product(scaled, basis, threads), mode="economic", check_finite=False)[0]
    inner = basis.T @ product(scaled, basis, threads)
    # Eigenvectors of this small matrix in float32 are orthogonal to 1e-5 only.
    values, vectors = scipy.linalg.eigh((inner + inner.T).astype(np.float64) / 2)
    values, vectors = values.astype(np.float32), vectors.astype(np.float32)
    order = slice(None, -count - 1, -1)
    return values[order] * np.float32(scale), basis @ vectors[:, order]


class Ridge:
    """Ridge regressions with one symmetric matrix K: solutions of (K + amount I) @ X = targets.

    Parameters
    ----------
    matrix : float32 (n, n)
    ridge : float
        The amount in units of the mean of K's diagonal.
    """

    def __init__(self, matrix: NDArray[np.float32], ridge: float) -> None:
        self.amount = np.float32(ridge * max(float(np.trace(matrix)) / len(matrix), 1e-30))
        shifted = matrix.copy()
        shifted.flat[:: len(matrix) + 1] += self.amount
        # The transposed matrix is the same, in the order of LAPACK.
        self._factor = scipy.linalg.cho_factor(shifted.T, lower=True, overwrite_a=True, check_finite=False)

    def solution(self, targets: NDArray[np.float32], threads: int | None = None) -> NDArray[np.float32]:
        """Return X of targets (n, c), float32 (n, c), in the order of their memory."""
        out = np.empty_like(targets)

        def work(start: int, stop: int) -> None:
            columns = slice(start, stop)
            out[:, columns] = scipy.linalg.cho_solve(self._factor, targets[:, columns], check_finite=False)

        _run_in_blocks(work, targets.shape[1], threads)
        return out


class _BlasLimit:
    """Limit shared by all threads of the process."""

    def __init__(self) -> None:
        self.inside = 0
        self.limits: Any = None
        self._renew_locks()
        renew_after_fork(self)

    def _renew_locks(self) -> None:
        self.lock = Lock()


_LIMIT = _BlasLimit()


@lru_cache(maxsize=1)
def _libraries(num_modules: int) -> ThreadpoolController:
    # Searching for the loaded libraries takes longer than a small product, so it is repeated only after an import.
    return ThreadpoolController()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limit BLAS to one thread inside the context; the last thread to leave restores the former limit.

    The limit applies to the whole process, so concurrent threads share it.
    """
    with _LIMIT.lock:
        if not _LIMIT.inside:
            _LIMIT.limits = _libraries(len(sys.modules)).limit(limits=1, user_api="blas")
        _LIMIT.inside += 1
    try:
        yield
    finally:
        with _LIMIT.lock:
            _LIMIT.inside -= 1
            if not _LIMIT.inside:
                _LIMIT.limits.restore_original_limits()
