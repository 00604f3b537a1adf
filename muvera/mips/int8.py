"""Search of vectors kept in one byte an entry: all are read, a quarter of the floats' bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..kernels.int8 import MAX_QUERY_ENTRY, MAX_VECTOR_ENTRY, integer_products
from ..utils.parallel import run_in_ranges
from .base import SavedState, checked_dimension
from .flat import FlatSearch

__all__ = ["Int8Search", "byte_columns", "int8_products", "quantize", "read_bytes", "write_bytes"]

BYTES, STEPS = "vector_bytes.npy", "vector_steps.npy"

# Bytes of one task.
_TASK_BYTES = 2 << 20


def quantize(
    vectors: NDArray[np.float32], most: int = MAX_VECTOR_ENTRY
) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
    """Return whole numbers within +-`most` and the step of each vector.

    Parameters
    ----------
    vectors : float32 (n, dimension)
        Finite.
    most : int
        Of int16 at most.

    Returns
    -------
    numbers : int16 (n, dimension)
    steps : float32 (n,)
        ``numbers * steps`` is within half a step of `vectors`, but for float32's rounding.
    """
    steps = np.abs(vectors).max(axis=1, initial=0) / np.float32(most)
    # A step that is no normal number has no accurate inverse: such a vector is as good as zero.
    steps[steps < np.finfo(np.float32).tiny] = 0
    inverse = np.divide(1, steps, out=np.zeros_like(steps), where=steps > 0)
    numbers = np.rint(vectors * inverse[:, np.newaxis])
    return np.clip(numbers, -most, most).astype(np.int16), steps


def int8_products(
    numbers: NDArray[np.int8],
    steps: NDArray[np.float32],
    positions: NDArray[np.int64],
    queries: NDArray[np.float32],
    threads: int | None = None,
) -> NDArray[np.float32]:
    """Return the inner products of quantized vectors at `positions` with queries, float32 (n, m).

    Queries are rounded too, to 12 bits; the products of whole numbers are exact.
    """
    asked, query_steps = quantize(queries, MAX_QUERY_ENTRY)
    out = np.empty((len(positions), len(queries)), np.float32)
    step = max(1, _TASK_BYTES // max(1, numbers.shape[1]))
    ranges = [(start, min(start + step, len(positions))) for start in range(0, len(positions), step)]

    def work(start: int, stop: int) -> None:
        part = positions[start:stop]
        products = np.empty((len(part), len(queries)), np.int64)
        integer_products(numbers, part, asked, products)
        out[start:stop] = products * (steps[part, np.newaxis] * query_steps.astype(np.float64))

    run_in_ranges(work, ranges, threads)
    return out


class Int8Search(FlatSearch):
    """Search by inner products of vectors rounded to one byte an entry.

    A quarter of the memory of ``exact`` and of what a search reads.  Each vector has a step of its
    own, its largest entry / 127; no entry is off by more than half of it.

    Parameters
    ----------
    dimension : int
        Floats of a vector.
    """

    kind = "int8"

    def __init__(self, dimension: int) -> None:
        super().__init__(dimension, byte_columns(checked_dimension(dimension)))

    def _write(self, start: int, vectors: NDArray[np.float32], threads: int | None) -> None:
        numbers, steps = self._columns
        write_bytes(numbers, steps, start, vectors, threads)

    def _products(
        self, queries: NDArray[np.float32], picked: NDArray[np.int64] | None, threads: int | None
    ) -> NDArray[np.float32]:
        positions = np.arange(self._count) if picked is None else picked
        numbers, steps = self._columns
        return int8_products(numbers, steps, positions, queries, threads)

    def _read(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        return read_bytes(self._columns[0], self._columns[1], positions)

    @classmethod
    def load(cls, folder: Path, dimension: int, saved: SavedState) -> Int8Search:
        """Read what :meth:`save` wrote.

        Raises
        ------
        ValueError
            For files of another dimension or damaged ones.
        """
        loaded = cls(dimension)
        loaded._restore(folder)
        return loaded

    def info(self) -> dict[str, Any]:
        """Return kind, size, and bytes a vector."""
        return {**super().info(), "bytes_per_vector": self.dimension + 4 + 8}


def byte_columns(dimension: int) -> dict[str, NDArray[Any]]:
    """Return no vectors as bytes and steps, by their files' names."""
    return {BYTES: np.empty((0, dimension), np.int8), STEPS: np.empty(0, np.float32)}


def write_bytes(
    numbers: NDArray[np.int8],
    steps: NDArray[np.float32],
    start: int,
    vectors: NDArray[np.float32],
    threads: int | None,
) -> None:
    """Quantize `vectors` into the rows of `numbers` and `steps` from `start` on."""
    size = max(1, _TASK_BYTES // max(1, numbers.shape[1]))
    ranges = [(first, min(first + size, len(vectors))) for first in range(0, len(vectors), size)]

    def work(first: int, stop: int) -> None:
        rounded, found = quantize(vectors[first:stop])
        numbers[start + first : start + stop] = rounded
        steps[start + first : start + stop] = found

    run_in_ranges(work, ranges, threads)


def read_bytes(
    numbers: NDArray[np.int8], steps: NDArray[np.float32], positions: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return the vectors that the rows at `positions` stand for, float32 (n, dimension)."""
    vectors: NDArray[np.float32] = numbers[positions] * steps[positions, np.newaxis]
    return vectors
