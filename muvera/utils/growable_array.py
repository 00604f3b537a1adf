"""GrowingArray: appending without copying everything each time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["GrowingArray"]


class GrowingArray:
    """A flat array with room to grow by half, so that appending one by one is linear.

    Parameters
    ----------
    values : array (n,)
        Its first values; while there are none, the first appended ones decide the dtype.
    """

    def __init__(self, values: NDArray[Any]) -> None:
        self._buffer = values
        self._count = len(values)

    def __len__(self) -> int:
        return self._count

    @property
    def values(self) -> NDArray[Any]:
        """The values, a view: it stays what it is when more are appended."""
        return self._buffer[: self._count]

    def extend(self, values: NDArray[Any]) -> None:
        """Append `values`; longer strings widen all."""
        if self._count == 0:
            self._buffer = np.array(values)
            self._count = len(values)
            return
        needed = self._count + len(values)
        dtype = np.result_type(self._buffer, values)
        if needed > len(self._buffer) or dtype != self._buffer.dtype:
            grown = np.zeros(max(needed, self._count * 3 // 2), dtype)
            grown[: self._count] = self.values
            self._buffer = grown
        self._buffer[self._count : needed] = values
        self._count = needed
