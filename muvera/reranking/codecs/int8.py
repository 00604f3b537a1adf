"""Int8Codec: one byte per coordinate, relative to the mean token, and one factor per token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ...data.validation import read_only_view
from ...kernels.byte_tile import STEP
from ...kernels.token_codes import FACTOR_BYTES, CodeFormat, QueryRounding
from .base import TokenCodec, factors, power_of_two

# Entries of a token minus the mean token are rounded to -_MOST ... _MOST steps and stored plus _ZERO.
_MOST, _ZERO = 127, 128

# Smallest factor; a typical token has a factor of 1 to 2.  With smaller steps, float32 would round a decoded
# entry to another step.
_LEAST_FACTOR = np.float32(2.0**-10)


class Int8Codec(TokenCodec):
    """Codec of one byte per coordinate and a factor of two bytes.  Its error hardly changes a ranking.

    Encoding a decoded token gives the same code.

    Parameters
    ----------
    center : float32 (dimension,)
        Subtracted from every token.
    unit : float
        Size of a step of a token whose factor is 1.

    Raises
    ------
    ValueError
        If a number is not finite or the unit is not positive.
    """

    kind: ClassVar[str] = "int8"

    def __init__(self, center: NDArray[np.float32], unit: float) -> None:
        if center.dtype != np.float32 or center.ndim != 1 or not np.isfinite(center).all():
            raise ValueError("The codec's center must be finite float32 numbers, one per coordinate.")
        if not (np.isfinite(unit) and unit > 0):
            raise ValueError(f"The codec's unit must be a positive number, got {unit}.")
        width = FACTOR_BYTES + -(-len(center) // STEP) * STEP  # bytes after the coordinates are zero
        no_bytes, no_floats = (read_only_view(np.empty(0, kind)) for kind in (np.uint8, np.float32))
        self._center, self._unit = read_only_view(center), np.float32(unit)
        ones = read_only_view(np.ones(len(center), np.float32))
        super().__init__(
            "int8",
            CodeFormat(width, 0, 0, self._unit, self._center, no_floats, ones, no_bytes, no_bytes),
            QueryRounding(ones, self._center, False, float(_ZERO)),
        )

    @classmethod
    def fit(cls, tokens: NDArray[np.float32], threads: int | None = None) -> Int8Codec:
        """Fit the codec to tokens (n, dimension), at least one."""
        center = tokens.mean(axis=0, dtype=np.float64).astype(np.float32)
        peaks = np.abs(tokens - center).max(axis=1)
        return cls(center, power_of_two(float(np.median(peaks)) / _MOST))

    def _encode(self, tokens: NDArray[np.float32], out: NDArray[np.uint8]) -> None:
        centered = tokens - self._center
        peaks = np.abs(centered).max(axis=1)
        halves = factors(np.maximum(peaks / (_MOST * self._unit), _LEAST_FACTOR))
        out[:, :FACTOR_BYTES] = halves.view(np.uint8).reshape(-1, FACTOR_BYTES)
        steps = halves.astype(np.float32)[:, np.newaxis] * self._unit
        rounded = np.clip(np.rint(centered / steps), -_MOST, _MOST)
        out[:, FACTOR_BYTES : FACTOR_BYTES + self.dimension] = (rounded + _ZERO).astype(np.uint8)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the fitted arrays by name."""
        return {"center": self._center, "unit": np.array([self._unit], np.float32)}

    @classmethod
    def from_arrays(cls, read: Callable[[str], NDArray[Any]], dimension: int) -> Int8Codec:
        """Create the codec from its arrays; raise ValueError if their shapes are wrong."""
        center, unit = read("center"), read("unit")
        if center.shape != (dimension,) or unit.shape != (1,):
            raise ValueError(
                f"The codec's center has shape {center.shape}, but the tokens have dimension={dimension}."
            )
        return cls(center, float(unit[0]))
