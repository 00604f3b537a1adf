"""Products of tokens with vectors in bytes: a document's maxima at landmarks, a query's sums of features."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.multivectors import MultiVectors, as_kernel_arrays
from ...kernels.byte_tile import pack_bytes
from ...kernels.landmark_maxima import largest_products
from ...kernels.relu_features import sum_features
from ...kernels.tile import LANES
from ...numerics.int8_matmul import quantize_columns
from ...numerics.matmul import product
from ...utils.parallel import run_in_ranges, split_by_weight

__all__ = ["Features", "Landmarks"]

# Tokens of a task.
_TASK_TOKENS = 16384


class _RoundedVectors(ABC):
    """Vectors in bytes, and what is subtracted from tokens before these are rounded.

    Parameters
    ----------
    vectors : float32 (n, d)
    center : float32 (d,)
    """

    def __init__(self, vectors: NDArray[np.float32], center: NDArray[np.float32]) -> None:
        self._count, dimension = vectors.shape
        width = -(-dimension // LANES) * LANES
        rounded, self._units = quantize_columns(np.ascontiguousarray(vectors.T))
        self._packed = pack_bytes(np.pad(rounded, ((0, width - dimension), (0, 0))))
        self._sums = (128 * rounded.sum(axis=0, dtype=np.int64)).astype(np.int32)
        self._center = np.zeros(width, np.float32)
        self._center[:dimension] = center

    @abstractmethod
    def write(
        self, floats: Any, halves: Any, offsets: Any, start: int, stop: int, out: NDArray[np.float32]
    ) -> None:
        """Write what texts start..stop have with the vectors to `out` (stop - start, n)."""

    def values_of(self, texts: MultiVectors, threads: int | None) -> NDArray[np.float32]:
        """Return what texts have with the vectors, float32 (len(texts), n)."""
        out = np.empty((len(texts), self._count), np.float32)
        floats, halves = as_kernel_arrays(texts)

        def work(start: int, stop: int) -> None:
            self.write(floats, halves, texts.offsets, start, stop, out[start:stop])

        run_in_ranges(work, split_by_weight(texts.offsets, _TASK_TOKENS, max(1, len(texts))), threads)
        return out


class Landmarks(_RoundedVectors):
    """Largest inner products of a document's tokens with landmarks, less the center's."""

    def write(
        self, floats: Any, halves: Any, offsets: Any, start: int, stop: int, out: NDArray[np.float32]
    ) -> None:
        """Write the largest products of documents start..stop to `out`; zeros where there are no tokens."""
        largest_products(
            floats, halves, offsets, start, stop, self._center, self._packed, self._sums, self._units, out
        )


class Features(_RoundedVectors):
    """Sums over a text's tokens of their positive products with the features' directions."""

    def __init__(self, directions: NDArray[np.float32], center: NDArray[np.float32]) -> None:
        super().__init__(directions, center)
        self._start = product(center[np.newaxis], np.ascontiguousarray(directions.T))[0]

    def write(
        self, floats: Any, halves: Any, offsets: Any, start: int, stop: int, out: NDArray[np.float32]
    ) -> None:
        """Write the sums of texts start..stop to `out`."""
        sum_features(
            floats, halves, offsets, start, stop, self._center, self._packed, self._sums, self._units,
            self._start, out,
        )  # fmt: skip
