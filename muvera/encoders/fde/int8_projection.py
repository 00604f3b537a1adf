"""Document FDEs times a compact map, both in bytes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...kernels.byte_product import STEP, multiply_bytes, pack_bytes, round_to_bytes
from .compact_maps import CompactMaps

__all__ = ["CompactProduct"]


class CompactProduct:
    """The documents' side of compact maps, packed for the kernel.

    Parameters
    ----------
    maps : CompactMaps
    """

    def __init__(self, maps: CompactMaps) -> None:
        long, _ = maps.documents.shape
        self._depth = -(-long // STEP) * STEP
        padded = np.pad(maps.documents, ((0, self._depth - long), (0, 0)))
        self._packed = pack_bytes(padded)
        self._per_unit = np.float32(127 / maps.reach[0])
        self._sums = (128 * maps.documents.sum(axis=0, dtype=np.int64)).astype(np.int32)
        self._scales = maps.scales / self._per_unit
        self._start = -maps.offset

    def room(self, count: int) -> NDArray[np.uint8]:
        """Return an array for `count` rounded FDEs, uint8 (count, depth)."""
        return np.zeros((count, self._depth), np.uint8)

    def round(self, block: NDArray[np.float32], out: NDArray[np.uint8]) -> None:
        """Round long FDEs (b, L) into rows of :meth:`room`."""
        round_to_bytes(block, self._per_unit, out)

    def write(self, rows: NDArray[np.uint8], out: NDArray[np.float32]) -> None:
        """Write the compact FDEs of rounded rows to `out` (b, D)."""
        multiply_bytes(rows, self._packed, self._sums, self._scales, self._start, out)
