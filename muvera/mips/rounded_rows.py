"""Rounded rows: vectors in signed bytes, each in a unit of its own, and their products with queries.

Kept are, a row of each a vector: the bytes, 128 times their sum, the unit, and the error: for every query q
the product by bytes differs from the exact one, and from that of a float32 kernel, by no more than the error
times the length of q.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..kernels.byte_product import multiply_rows, round_rows, split_to_bytes
from ..kernels.byte_tile import SPAN
from ..utils.parallel import run_in_ranges

__all__ = ["bytes_of_rounded", "round_into", "rounded_columns", "rounded_products"]

# Bytes of one task.
_TASK_BYTES = 1 << 20


def rounded_columns(dimension: int) -> tuple[NDArray[Any], ...]:
    """Return no vectors: bytes int8 (0, depth), sums int32 (0,), units float32 (0,), errors float32 (0,)."""
    return (
        np.empty((0, _depth(dimension)), np.int8),
        np.empty(0, np.int32),
        np.empty(0, np.float32),
        np.empty(0, np.float32),
    )


def bytes_of_rounded(dimension: int) -> int:
    """Return the bytes of a row of all columns."""
    return _depth(dimension) + 4 + 4 + 4


def _depth(dimension: int) -> int:
    return -(-dimension // SPAN) * SPAN


def round_into(
    columns: Sequence[NDArray[Any]], start: int, vectors: NDArray[np.float32], threads: int | None
) -> None:
    """Round `vectors` (n, dimension), finite, into the rows of `columns` from `start` on."""
    slack = _slack(vectors.shape[1])

    def work(first: int, stop: int) -> None:
        round_rows(vectors[first:stop], slack, *(column[start + first : start + stop] for column in columns))

    run_in_ranges(work, _ranges(len(vectors), 4 * vectors.shape[1]), threads)


def _slack(dimension: int) -> float:
    """Return what else a vector's error has, in units of its length.

    A query's entries are off by half of 1/32,767 of the greatest, times the rounded vector, which may be
    longer than the vector is; sums of float32 by half a unit in the last place for each entry, of which there
    are twice as many here, and some more.
    """
    root = float(np.sqrt(dimension))
    return root / 65_000 * (1 + root / 254) + (dimension + 16) * 2.0**-23


def rounded_products(
    columns: Sequence[NDArray[Any]], count: int, queries: NDArray[np.float32], threads: int | None
) -> NDArray[np.float32]:
    """Return the products of the first `count` rounded vectors with all queries, float32 (count, m).

    Queries (m, dimension) are rounded to 16 bits; the products of whole numbers are exact.
    """
    numbers, sums, units = columns[:3]
    asked = np.zeros((2 * len(queries), numbers.shape[1]), np.uint8)
    query_units = np.empty(len(queries), np.float32)
    split_to_bytes(queries, asked, query_units)
    out = np.empty((count, len(queries)), np.float32)

    def work(start: int, stop: int) -> None:
        multiply_rows(numbers, start, stop, sums, units, asked, query_units, out[start:stop])

    run_in_ranges(work, _ranges(count, numbers.shape[1]), threads)
    return out


def _ranges(count: int, row_bytes: int) -> list[tuple[int, int]]:
    step = max(1, _TASK_BYTES // row_bytes)
    return [(start, min(start + step, count)) for start in range(0, count, step)]
