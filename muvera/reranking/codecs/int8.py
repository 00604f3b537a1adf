"""Int8Codec: a byte a coordinate about the mean token, and a factor a token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ...data.validation import read_only_view
from ...kernels.byte_tile import STEP
from ...kernels.token_codes import FACTOR_BYTES
from .base import CodeLayout, CodeQuery, TokenCodec, factor_bytes
from .query_bytes import packed_query, power_of_two

__all__ = ["Int8Codec"]

# Entries of a token minus the mean token are whole numbers of factors up to this, plus _ZERO.
_MOST, _ZERO = 127, 128

# Of a typical token's factor, 1 to 2: with smaller steps float32 would round what is decoded to others of them.
_LEAST_FACTOR = np.float32(2.0**-10)


class Int8Codec(TokenCodec):
    """Codec of ``dimension + 2`` bytes a token, whose error does not change a ranking noticeably.

    Encoding what was decoded gives the same codes.

    Parameters
    ----------
    center : float32 (dimension,)
        What is subtracted from every token: it has no error then.
    unit : float
        What a factor of 1 stands for.

    Raises
    ------
    ValueError
        For numbers that are not finite, or a unit that is not positive.
    """

    kind: ClassVar[str] = "int8"

    def __init__(self, center: NDArray[np.float32], unit: float) -> None:
        super().__init__(len(center))
        if center.dtype != np.float32 or center.ndim != 1 or not np.isfinite(center).all():
            raise ValueError("The codec's center must be finite float32 numbers, one a coordinate.")
        if not (np.isfinite(unit) and unit > 0):
            raise ValueError(f"The codec's unit must be a positive number, got {unit}.")
        self._center, self._unit = read_only_view(center), np.float32(unit)
        self._ones = read_only_view(np.ones(len(center), np.float32))
        depth = -(-self.dimension // STEP) * STEP
        none = np.empty(0, np.uint8)
        self._layout = CodeLayout(0, none, none, none, depth, depth)

    @classmethod
    def fit(cls, tokens: NDArray[np.float32], threads: int | None = None) -> Int8Codec:
        """Return the codec for tokens like these (n, dimension), at least one."""
        center = tokens.mean(axis=0, dtype=np.float64).astype(np.float32)
        peaks = np.abs(tokens - center).max(axis=1)
        return cls(center, power_of_two(float(np.median(peaks)) / _MOST))

    @property
    def name(self) -> str:
        """What users call it."""
        return "int8"

    @property
    def bytes_per_token(self) -> int:
        """Bytes of a code."""
        return self.dimension + FACTOR_BYTES

    @property
    def layout(self) -> CodeLayout:
        """What the scoring kernel reads besides codes."""
        return self._layout

    def _encode(self, tokens: NDArray[np.float32], out: NDArray[np.uint8]) -> None:
        centered = tokens - self._center
        factors = np.maximum(np.abs(centered).max(axis=1) / (_MOST * self._unit), _LEAST_FACTOR)
        out[:, :FACTOR_BYTES] = factor_bytes(factors)
        steps = out[:, :FACTOR_BYTES].copy().view("<f2").astype(np.float32) * self._unit
        rounded = np.clip(np.rint(centered / steps), -_MOST, _MOST)
        out[:, FACTOR_BYTES:] = (rounded + _ZERO).astype(np.uint8)

    def _decode(self, codes: NDArray[np.uint8], out: NDArray[np.float32]) -> None:
        steps = codes[:, :FACTOR_BYTES].copy().view("<f2").astype(np.float32) * self._unit
        out[:] = (codes[:, FACTOR_BYTES:].astype(np.float32) - _ZERO) * steps + self._center

    def query(self, tokens: NDArray[np.float32]) -> CodeQuery:
        """Return a query, float32 (m, dimension), rounded to bytes."""
        return packed_query(
            tokens,
            self._ones,
            self._center,
            self._layout.depth,
            float(_ZERO),
            self._unit,
            shift_before_factor=False,
        )

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return what was learned, by name."""
        return {"center": self._center, "unit": np.array([self._unit], np.float32)}

    @classmethod
    def from_arrays(cls, read: Callable[[str], NDArray[Any]], dimension: int) -> Int8Codec:
        """Return the codec of the arrays that `read` returns by name.

        Raises
        ------
        ValueError
            For arrays that do not fit each other or the dimension, or are not finite.
        """
        center, unit = read("center"), read("unit")
        if center.shape != (dimension,) or unit.shape != (1,):
            raise ValueError(
                f"The codec's center has shape {center.shape}, but the tokens have dimension={dimension}."
            )
        return cls(center, float(unit[0]))
