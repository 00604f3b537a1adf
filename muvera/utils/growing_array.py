"""GrowingArray: an array to append to, whose copies are cheap."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class GrowingArray:
    """An array whose capacity grows by half, so that appending rows takes linear time.

    A copy (:func:`copy.copy`) shares the buffer: values that are appended to it are invisible to the original.  Only
    one of both can append into the shared buffer, the other one copies it.  The first values decide the dtype.
    """

    def __init__(self, values: NDArray[Any]) -> None:
        self._buffer = values
        self._count = len(values)
        self._written = [self._count]  # values in the buffer, shared by copies

    def __len__(self) -> int:
        return self._count

    @property
    def values(self) -> NDArray[Any]:
        """The values, as a view that later appends do not change."""
        return self._buffer[: self._count]

    def extend(self, values: NDArray[Any]) -> None:
        """Append values."""
        needed = self._count + len(values)
        dtype = np.result_type(self._buffer, values) if self._count else values.dtype
        if needed > len(self._buffer) or dtype != self._buffer.dtype or self._written != [self._count]:
            grown = np.zeros((max(needed, self._count * 3 // 2), *values.shape[1:]), dtype)
            grown[: self._count] = self.values
            self._buffer, self._written = grown, [self._count]
        self._written[0] = needed
        self._buffer[self._count : needed] = values
        self._count = needed
