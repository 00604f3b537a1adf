"""Matrices in 8 bits: for products with rows in 16 bits, and with tokens in 8 bits."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors
from ..kernels.byte_product import multiply_split, split_to_bytes
from ..kernels.byte_tile import STEP, pack_bytes
from ..kernels.learned import largest_products, sum_features
from ..kernels.tile import LANES
from .base import KernelArrays, run_tasks

#: Number of document tokens per task: each task reads the matrix once.
TASK_TOKENS = 16384

#: A matrix rounded to int8, and the unit of each column.
Quantized = tuple[NDArray[np.int8], NDArray[np.float32]]


def quantize_columns(matrix: NDArray[np.float32]) -> Quantized:
    """Return `matrix` rounded to int8, and the unit of each column: ``int8 * units`` approximates it."""
    units = np.abs(matrix).max(axis=0) / np.float32(127)
    units[units == 0] = 1
    return np.rint(matrix / units).astype(np.int8), units


class Int8Matrix:
    """A matrix (L, D) in 8 bits, packed for the byte kernels.

    For a single query, reading the matrix takes most of the time.  8 bits are a quarter of float32.

    Parameters
    ----------
    matrix : int8 (L, D)
        L is at most 65,536, so that sums are exact.
    units : float32 (D,)
        Unit of each column, as :func:`quantize_columns` returns it.
    multiple : int
        The packed matrix has L rows, rounded up to a multiple of this.
    """

    def __init__(self, matrix: NDArray[np.int8], units: NDArray[np.float32], multiple: int = STEP) -> None:
        self.units = units
        #: Rows of the packed matrix.
        self.depth = -(-len(matrix) // multiple) * multiple
        #: The matrix as :func:`muvera.kernels.byte_tile.pack_bytes` packs it.
        self.panels = pack_bytes(np.pad(matrix, ((0, self.depth - len(matrix)), (0, 0))))
        #: 128 times the sum of each column: rows are stored with an offset of 128.
        self.sums = (128 * matrix.sum(axis=0, dtype=np.int64)).astype(np.int32)

    def multiply(self, block: NDArray[np.float32], out: NDArray[np.float32]) -> None:
        """Write the product of `block` (b, L) with the matrix to `out` (b, D), float32.

        The sums are exact integers: a row's product does not depend on the other rows.
        """
        rows = np.zeros((2 * len(block), self.depth), np.uint8)
        rows[::2, block.shape[1] :] = 128  # a high byte of 128 means zero
        units = np.empty(len(block), np.float32)
        split_to_bytes(block, rows, units)
        multiply_split(rows, self.panels, self.sums, units, self.units, out)


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
        packed = Int8Matrix(matrix, units, LANES)
        padded = np.zeros(packed.depth, np.float32)
        padded[: len(center)] = center
        self._arguments = padded, packed.panels, packed.sums, units

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
