"""Queries in bytes, as the kernel multiplies them with unpacked codes."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ...kernels.query_bytes import round_query
from ...kernels.tile import LANES
from .base import CodeQuery

__all__ = ["packed_query", "power_of_two"]


def power_of_two(value: float) -> float:
    """Return the power of two nearest below `value`; 1 where it is not positive."""
    return 2.0 ** math.floor(math.log2(value)) if value > 0 else 1.0


def packed_query(
    tokens: NDArray[np.float32],
    scales: NDArray[np.float32],
    shift: NDArray[np.float32],
    depth: int,
    zero: float,
    unit: np.float32,
    *,
    shift_before_factor: bool,
) -> CodeQuery:
    """Round each scaled token to 127ths of its largest entry.

    Parameters
    ----------
    tokens : float32 (m, n)
    scales : float32 (n,)
        A token is multiplied by them.
    shift : float32 (n,)
        Added to what the bytes of a document token stand for.
    depth : int
        Bytes of an unpacked row.
    zero : float
        What an unpacked byte has where it stands for 0.
    unit : float
        What a code's factor is multiplied with.
    shift_before_factor : bool
        Whether the shift, too, is multiplied by the code's factor.
    """
    count = len(tokens)
    padded = -(-count // LANES) * LANES
    packed, biases = np.zeros(padded * depth, np.int8), np.zeros(padded, np.float32)
    steps, products = np.empty(count, np.float32), np.empty(count, np.float32)
    round_query(np.ascontiguousarray(tokens), scales, shift, zero, depth, packed, biases, steps, products)
    if shift_before_factor:
        biases[:count] -= products / steps
        products = np.zeros(count, np.float32)
    return CodeQuery(packed, biases, steps * unit, products)
