"""Int8Matrix: products of 16-bit rows with an 8-bit matrix.

The product of a single query with a float32 map takes as long as reading the map.  In 8 bits the map is
a quarter of that, and the processor adds four products at once; the query keeps 16 bits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..kernels.byte_product import multiply_split, split_to_bytes
from ..kernels.byte_tile import STEP, pack_bytes

__all__ = ["Int8Matrix", "quantize_columns"]


class Int8Matrix:
    """A matrix (L, D) in 8 bits, each column rounded to 127ths of its largest absolute entry.

    Parameters
    ----------
    matrix : float32 (L, D)
        L is at most 65,536, so that sums are exact.
    """

    def __init__(self, matrix: NDArray[np.float32]) -> None:
        rounded, self._scales = quantize_columns(matrix)
        self._depth = -(-len(matrix) // STEP) * STEP
        self._packed = pack_bytes(np.pad(rounded, ((0, self._depth - len(matrix)), (0, 0))))
        self._sums = (128 * rounded.sum(axis=0, dtype=np.int64)).astype(np.int32)

    def multiply(self, block: NDArray[np.float32], out: NDArray[np.float32]) -> None:
        """Write the product of `block` (b, L) with the matrix to `out` (b, D), float32.

        The sums are exact integers: a row's product does not depend on the rows beside it.
        """
        rows = np.zeros((2 * len(block), self._depth), np.uint8)
        rows[::2, block.shape[1] :] = 128  # a high byte of 128 stands for zero
        units = np.empty(len(block), np.float32)
        split_to_bytes(block, rows, units)
        multiply_split(rows, self._packed, self._sums, units, self._scales, out)


def quantize_columns(matrix: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return a matrix rounded to int8 and the unit of each column: ``int8 * units`` is close to the matrix."""
    units = np.abs(matrix).max(axis=0) / np.float32(127)
    units[units == 0] = 1
    return np.rint(matrix / units).astype(np.int8), units
