"""Document FDEs times a compact map, both in bytes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ...kernels.byte_product import multiply_bytes, round_to_bytes
from ...kernels.byte_tile import STEP, pack_bytes
from .compact_maps import CompactMaps

__all__ = ["CompactProduct"]

# Long vectors that are made before they are rounded: few enough to stay in a cache.
_ROUNDED_TEXTS = 12


class CompactProduct:
    """The documents' side of compact maps, packed for the kernel.

    Parameters
    ----------
    maps : CompactMaps
    """

    def __init__(self, maps: CompactMaps) -> None:
        self._long = len(maps.documents)
        self._depth = -(-self._long // STEP) * STEP
        padded = np.pad(maps.documents, ((0, self._depth - self._long), (0, 0)))
        self._packed = pack_bytes(padded)
        self._per_unit = np.float32(127 / maps.reach[0])
        self._sums = (128 * maps.documents.sum(axis=0, dtype=np.int64)).astype(np.int32)
        self._scales = maps.scales / self._per_unit
        self._start = -maps.offset

    def write(
        self,
        write_long: Callable[[int, int, NDArray[np.float32]], None],
        start: int,
        stop: int,
        out: NDArray[np.float32],
    ) -> None:
        """Write the compact vectors of texts start..stop to `out` (stop - start, D).

        Parameters
        ----------
        write_long : callable
            ``write_long(first, last, block)`` writes the long vectors of texts first..last.
        start, stop : int
        out : float32 (stop - start, D)
        """
        rows = np.zeros((stop - start, self._depth), np.uint8)
        block = np.empty((min(_ROUNDED_TEXTS, stop - start), self._long), np.float32)
        for first in range(start, stop, _ROUNDED_TEXTS):
            last = min(first + _ROUNDED_TEXTS, stop)
            part = block[: last - first]
            write_long(first, last, part)
            round_to_bytes(part, self._per_unit, rows[first - start : last - start])
        multiply_bytes(rows, self._packed, self._sums, self._scales, self._start, out)
