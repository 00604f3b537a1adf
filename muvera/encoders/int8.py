"""Matrices in 8 and 4 bits: for products with rows in 16 bits, and with tokens in 8 bits."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors
from ..kernels.byte_tile import STEP, pack_bytes, pack_half_bytes
from ..kernels.learned import largest_products, sum_features
from ..kernels.tile import LANES
from .base import KernelArrays, run_tasks

#: Number of document tokens per task: each task reads the matrix once.
TASK_TOKENS = 16384

# Entries above a limit are clipped: limits to compare, in shares of a column's largest number.
_SHARES = (0.4, 0.5, 0.6, 0.7, 0.85, 1.0)

#: A matrix rounded to int8, and the unit of each column.
Quantized = tuple[NDArray[np.int8], NDArray[np.float32]]


def quantize_columns(matrix: NDArray[np.float32]) -> Quantized:
    """Return `matrix` rounded to int8, and the unit of each column: ``int8 * units`` approximates it."""
    units = np.abs(matrix).max(axis=0) / np.float32(127)
    units[units == 0] = 1
    return np.rint(matrix / units).astype(np.int8), units


def quantize_to_half_bytes(matrix: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Return `matrix` (L, D) in half bytes, two rows in a byte, and the unit of each column.

    See :mod:`muvera.kernels.byte_tile` for the entries.  The largest ones are clipped if this lowers the sum of squared
    errors of their column.
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
    """Return the entries of a matrix of `length` rows from :func:`quantize_to_half_bytes`."""
    pairs = np.stack([halves << 4, halves & 0xF0], axis=1).view(np.int8)
    entries: NDArray[np.int8] = pairs.reshape(-1, halves.shape[1])[:length] | np.int8(8)
    return entries


def half_byte_arguments(
    halves: NDArray[np.uint8], units: NDArray[np.float32], length: int
) -> tuple[NDArray[np.uint8], NDArray[np.int32], NDArray[np.float32]]:
    """Return a matrix of `length` rows from :func:`quantize_to_half_bytes` as arguments of `multiply_by_half_bytes`."""
    entries = half_bytes_to_int8(halves, length)
    packed = pack_half_bytes(np.pad(entries, ((0, -length % (2 * STEP)), (0, 0))))
    return packed, _column_sums(entries), units


def byte_arguments(
    matrix: NDArray[np.int8], units: NDArray[np.float32], multiple: int = STEP
) -> tuple[NDArray[np.int8], NDArray[np.int32], NDArray[np.float32]]:
    """Return `matrix` (L, D) from :func:`quantize_columns` as arguments of `multiply_by_bytes`.

    L is at most 65,536, so that sums are exact.  The packed matrix has L rows, rounded up to a multiple of `multiple`.
    """
    packed = pack_bytes(np.pad(matrix, ((0, -len(matrix) % multiple), (0, 0))))
    return packed, _column_sums(matrix), units


def _column_sums(matrix: NDArray[np.int8]) -> NDArray[np.int32]:
    """Return 128 times the sum of each column, because kernels add 128 to the entries of rows."""
    sums: NDArray[np.int32] = (128 * matrix.sum(axis=0, dtype=np.int64)).astype(np.int32)
    return sums


class TokenProducts:
    """Products of tokens with the columns of a matrix, both in bytes; `center` is first subtracted from the tokens.

    Parameters
    ----------
    matrix : int8 (d, n)
    units : float32 (n,)
    center : float32 (d,)
    """

    def __init__(
        self, matrix: NDArray[np.int8], units: NDArray[np.float32], center: NDArray[np.float32]
    ) -> None:
        padded = np.pad(center, (0, -len(center) % LANES))
        self._arguments = padded, *byte_arguments(matrix, units, LANES)

    def write_largest(self, arrays: KernelArrays, start: int, stop: int, out: NDArray[np.float32]) -> None:
        """Write the largest products of each document's centered tokens to `out` (texts, n)."""
        largest_products(*arrays, start, stop, *self._arguments, out)

    def largest(self, texts: MultiVectors, threads: int | None) -> NDArray[np.float32]:
        """Return :meth:`write_largest` of all texts, float32 (len(texts), n)."""
        out = np.empty((len(texts), len(self._arguments[-1])), np.float32)
        return run_tasks(self.write_largest, texts, out, threads, TASK_TOKENS)

    def write_feature_sums(
        self,
        biases: NDArray[np.float32],
        arrays: KernelArrays,
        start: int,
        stop: int,
        out: NDArray[np.float32],
    ) -> None:
        """Write each text's sums of positive products to `out` (texts, n), each product with its bias added."""
        sum_features(*arrays, start, stop, *self._arguments, biases, out)

    def feature_sums(
        self, biases: NDArray[np.float32], texts: MultiVectors, threads: int | None
    ) -> NDArray[np.float32]:
        """Return :meth:`write_feature_sums` of all texts, float32 (len(texts), n)."""
        out = np.empty((len(texts), len(biases)), np.float32)
        return run_tasks(partial(self.write_feature_sums, biases), texts, out, threads, TASK_TOKENS)
