"""Queries in bytes, as the kernel multiplies them with unpacked codes."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ...kernels.byte_product import pack_bytes
from ...kernels.tile import LANES
from .base import CodeQuery

__all__ = ["packed_query", "power_of_two"]

_MOST = 127


def power_of_two(value: float) -> float:
    """Return the power of two nearest below `value`; 1 where it is not positive."""
    return 2.0 ** math.floor(math.log2(value)) if value > 0 else 1.0


def packed_query(
    tokens: NDArray[np.float32],
    depth: int,
    zero: float,
    unit: float,
    *,
    shifts: NDArray[np.float32] | None = None,
    constants: NDArray[np.float32] | None = None,
) -> CodeQuery:
    """Round each token to 127ths of its largest entry.

    Parameters
    ----------
    tokens : float32 (m, n)
        At most `depth` columns; those that are missing are zero.
    depth : int
        Bytes of an unpacked row.
    zero : float
        What an unpacked byte has where it stands for 0.
    unit : float
        What a code's factor is multiplied with.
    shifts : float32 (m,), optional
        Added to the product with an unpacked row, before the factor.
    constants : float32 (m,), optional
        Added to the product after the factor.
    """
    count = len(tokens)
    steps = np.abs(tokens).max(axis=1) / np.float32(_MOST)
    steps[steps == 0] = 1
    rounded = np.zeros((count, depth), np.int8)
    rounded[:, : tokens.shape[1]] = np.rint(tokens / steps[:, np.newaxis])
    biases = np.zeros(-(-count // LANES) * LANES, np.float32)
    biases[:count] = zero * rounded.sum(axis=1, dtype=np.int64)
    if shifts is not None:
        biases[:count] -= shifts / steps
    none = np.zeros(count, np.float32)
    return CodeQuery(
        pack_bytes(np.ascontiguousarray(rounded.T)),
        biases,
        steps * np.float32(unit),
        none if constants is None else constants,
    )
