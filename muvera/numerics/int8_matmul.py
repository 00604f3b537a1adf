"""ByteMap: a map of queries in bytes.

A single query's product with a float map is the time of reading the map.  In bytes that is a quarter,
and the processor adds four products at once; the query itself keeps 16 bits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..kernels.byte_product import STEP, multiply_split, pack_bytes, split_to_bytes

__all__ = ["ByteMap", "columns_in_bytes"]


class ByteMap:
    """A map (L, D), each column rounded to 127ths of its greatest entry.

    Parameters
    ----------
    matrix : float32 (L, D)
        L at most 65,536, so that sums are exact.
    """

    def __init__(self, matrix: NDArray[np.float32]) -> None:
        rounded, self._scales = columns_in_bytes(matrix)
        self._depth = -(-len(matrix) // STEP) * STEP
        self._packed = pack_bytes(np.pad(rounded, ((0, self._depth - len(matrix)), (0, 0))))
        self._sums = (128 * rounded.sum(axis=0, dtype=np.int64)).astype(np.int32)

    def multiply(self, block: NDArray[np.float32], out: NDArray[np.float32]) -> None:
        """Write the product of `block` (b, L) with the map to `out` (b, D).

        The sums are exact integers: a row's product does not depend on the rows beside it.
        """
        rows = np.zeros((2 * len(block), self._depth), np.uint8)
        rows[::2, block.shape[1] :] = 128  # nothing, as the high byte has it
        units = np.empty(len(block), np.float32)
        split_to_bytes(block, rows, units)
        multiply_split(rows, self._packed, self._sums, units, self._scales, out)


def columns_in_bytes(matrix: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return a matrix in bytes and each column's unit: ``bytes * units`` is near the matrix."""
    units = np.abs(matrix).max(axis=0) / np.float32(127)
    units[units == 0] = 1
    return np.rint(matrix / units).astype(np.int8), units
