"""Linear algebra with the same bits for any number of threads; matrices in bytes.

BLAS splits a product by the number of threads, which changes the order of the sums.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from threading import Lock
from typing import Any

import numpy as np
import scipy  # scipy.linalg is imported when a fit uses it, as that takes long
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from ..kernels.byte_tile import STEP, pack_bytes, pack_half_bytes
from ..kernels.nearest import CHUNK
from ..kernels.tile import LANES
from ..utils.locks import renew_after_fork
from ..utils.parallel import run_in_ranges, split_by_count
from .landmark_kernels import ByteColumns, Directions

#: Number of document tokens per task: each task reads a matrix of bytes once.
TASK_TOKENS = 16384

# Rows of a task: BLAS is nearly as fast as on whole matrices.
_TASK_ROWS = 512

# Columns that are transposed together: they stay in the cache.
_COPIED = 128

# Extra columns of the subspace iteration, and its rounds.
_EXTRA, _ROUNDS = 64, 4

# Entries above a limit are clipped: limits to compare, in shares of a column's largest
# number.
_SHARES = (0.4, 0.5, 0.6, 0.7, 0.85, 1.0)

#: A matrix rounded to int8, and the unit of each column.
Quantized = tuple[NDArray[np.int8], NDArray[np.float32]]


def product(
    left: NDArray[np.float32], right: NDArray[np.float32], threads: int | None = None
) -> NDArray[np.float32]:
    """Return ``left @ right``.

    The rows of `left` are multiplied in blocks that do not depend on `threads`.
    """
    out = np.empty((len(left), right.shape[1]), np.float32)

    def work(start: int, stop: int) -> None:
        np.matmul(left[start:stop], right, out=out[start:stop])

    _run_in_blocks(work, len(left), threads)
    return out


def gram(
    rows: NDArray[np.float32], threads: int | None = None, other: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Return ``rows @ rows.T``, in half the operations of `product`.

    With `other`, return ``rows @ other.T + other @ rows.T``.
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
    with one_blas_thread():
        run_in_ranges(work, split_by_count(count, _TASK_ROWS), threads)


def leading_eigenvectors(
    matrix: NDArray[np.float32], count: int, stream: np.random.Generator, threads: int | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the leading eigenvalues (c,), descending, and eigenvectors (n, c).

    The matrix is symmetric and positive semi-definite; `count` is at most n.  `stream`
    draws the start of a subspace iteration.
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
    """Ridge regressions: solutions of (K + amount I) @ X = targets, K symmetric.

    The amount is `ridge` times the mean of K's diagonal.
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
        renew_after_fork(self._renew_locks)

    def _renew_locks(self) -> None:
        self.lock = Lock()


_LIMIT = _BlasLimit()


@lru_cache(maxsize=1)
def _libraries(num_modules: int) -> ThreadpoolController:
    # Searching for the loaded libraries takes longer than a small product, so it is
    # repeated only after an import.
    return ThreadpoolController()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limit BLAS to one thread inside the context.

    The limit applies to the whole process, so concurrent threads share it.  The last
    thread to leave restores the former limit.
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


def quantize_columns(matrix: NDArray[np.float32]) -> Quantized:
    """Return `matrix` rounded to int8, and the unit of each column.

    The product of both approximates `matrix`.
    """
    units = np.abs(matrix).max(axis=0, initial=0) / np.float32(127)
    units[units == 0] = 1
    return np.rint(matrix / units).astype(np.int8), units


def quantize_to_half_bytes(matrix: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Return `matrix` (L, D) in half bytes, two rows in a byte, and the columns' units.

    See :mod:`muvera.kernels.byte_tile` for the entries.  The largest ones are clipped
    if this lowers the sum of squared errors of their column.
    """
    peaks = np.abs(matrix).max(axis=0, initial=0)
    relative = matrix / np.where(peaks > 0, peaks, 1)
    shares, least = np.ones_like(peaks), np.full_like(peaks, np.inf)
    halves = np.zeros((len(matrix) + len(matrix) % 2, matrix.shape[1]), np.int8)
    for share in _SHARES:
        numbers = np.clip(np.floor(relative * np.float32(7.5 / share)), -8, 7)
        errors = np.square((numbers + np.float32(0.5)) * np.float32(share / 7.5) - relative).sum(axis=0)
        better = errors < least
        shares[better], least[better] = share, errors[better]
        halves[: len(matrix), better] = numbers[:, better]
    return (halves[::2] & 15 | halves[1::2] << 4).view(np.uint8), peaks * shares / np.float32(120)


def half_bytes_to_int8(halves: NDArray[np.uint8], length: int) -> NDArray[np.int8]:
    """Return the `length` rows of a matrix from :func:`quantize_to_half_bytes`."""
    pairs = np.stack([halves << 4, halves & 0xF0], axis=1).view(np.int8)
    entries: NDArray[np.int8] = pairs.reshape(-1, halves.shape[1])[:length] | np.int8(8)
    return entries


def half_byte_arguments(
    halves: NDArray[np.uint8], units: NDArray[np.float32], length: int
) -> tuple[NDArray[np.uint8], NDArray[np.int32], NDArray[np.float32]]:
    """Return a matrix of half bytes as arguments of `multiply_by_half_bytes`.

    The layout of `halves`, a matrix (length, D), is described by
    :func:`half_bytes_to_int8`.  `units` (D,) are the units of the columns.  Return the
    packed matrix, the sums of its columns, and the units.
    """
    entries = half_bytes_to_int8(halves, length)
    packed = pack_half_bytes(np.pad(entries, ((0, -length % (2 * STEP)), (0, 0))))
    return packed, _column_sums(entries), units


def byte_arguments(
    matrix: NDArray[np.int8], units: NDArray[np.float32], multiple: int = STEP
) -> tuple[NDArray[np.int8], NDArray[np.int32], NDArray[np.float32]]:
    """Return a matrix of bytes as arguments of `multiply_by_bytes`.

    The matrix is int8 (L, D), where L is at most 65,536, so that sums are exact.
    `units` (D,) are the units of the columns.  Return the packed matrix, which has L
    rows rounded up to a multiple of `multiple`, the sums of its columns, and the units.
    """
    packed = pack_bytes(np.pad(matrix, ((0, -len(matrix) % multiple), (0, 0))))
    return packed, _column_sums(matrix), units


def _column_sums(matrix: NDArray[np.int8]) -> NDArray[np.int32]:
    """Return 128 times each column's sum: kernels add 128 to the entries of rows."""
    sums: NDArray[np.int32] = (128 * matrix.sum(axis=0, dtype=np.int64)).astype(np.int32)
    return sums


def token_columns(
    matrix: NDArray[np.int8], units: NDArray[np.float32], center: NDArray[np.float32]
) -> ByteColumns:
    """Return a matrix for kernels, which multiply tokens minus `center` by it.

    The matrix is int8 (d, n), and `units` (n,) are the units of its columns.
    """
    return ByteColumns(np.pad(center, (0, -len(center) % LANES)), *byte_arguments(matrix, units, LANES))


def direction_bytes(matrix: NDArray[np.float64]) -> tuple[NDArray[np.int8], float]:
    """Return `matrix` rounded to int8 with one unit, and the unit."""
    unit = float(np.abs(matrix).max(initial=0)) / 127 or 1.0
    return np.rint(matrix / unit).astype(np.int8), unit


def direction_columns(numbers: NDArray[np.int8], unit: float, center: NDArray[np.float32]) -> Directions:
    """Return :func:`direction_bytes` (d, n) for kernels of cosines."""
    packed, sums, _ = byte_arguments(numbers, np.empty(0, np.float32), LANES)
    padded = np.full(-(-len(sums) // CHUNK) * CHUNK, 2**31 - 1, np.int32)
    padded[: len(sums)] = sums
    return Directions(np.pad(center, (0, -len(center) % LANES)), packed, padded, len(sums), unit)
