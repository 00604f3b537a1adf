"""TokenProducts: products of tokens with fixed vectors, in bytes; and similarities of windows with documents."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors
from ..kernels.learned import largest_products, sum_features
from ..kernels.tile import LANES
from ..utils.parallel import run_in_ranges, split_by_weight
from .base import KernelArrays, run_tasks
from .matmul import PackedBytes, product, quantize_columns
from .moment_blocks import mean_tokens

__all__ = ["TASK_TOKENS", "TokenProducts", "window_similarities"]

#: Number of document tokens per task: each task reads the vectors once.
TASK_TOKENS = 16384


class TokenProducts:
    """Products of tokens with fixed vectors, both rounded to bytes; `center` is first subtracted from the tokens.

    Parameters
    ----------
    vectors : float32 (n, d)
    center : float32 (d,)
    """

    def __init__(self, vectors: NDArray[np.float32], center: NDArray[np.float32]) -> None:
        rounded, self._units = quantize_columns(np.ascontiguousarray(vectors.T))
        self._packed = PackedBytes(rounded, LANES)
        self._center = np.zeros(self._packed.depth, np.float32)
        self._center[: len(center)] = center
        self._center_products = (vectors * center).sum(axis=1, dtype=np.float64).astype(np.float32)

    def write_largest(self, arrays: KernelArrays, start: int, stop: int, out: NDArray[np.float32]) -> None:
        """Write each document's largest products, without those of the center, to `out` (texts, n)."""
        packed = self._packed
        largest_products(*arrays, start, stop, self._center, packed.panels, packed.sums, self._units, out)

    def write_feature_sums(
        self, arrays: KernelArrays, start: int, stop: int, out: NDArray[np.float32]
    ) -> None:
        """Write each text's sums of positive products, including those of the center, to `out` (texts, n)."""
        packed = self._packed
        sum_features(
            *arrays, start, stop, self._center, packed.panels, packed.sums, self._units,
            self._center_products, out,
        )  # fmt: skip

    def largest(self, texts: MultiVectors, threads: int | None) -> NDArray[np.float32]:
        """Return :meth:`write_largest` of all texts, float32 (len(texts), n)."""
        out = np.empty((len(texts), len(self._units)), np.float32)
        return run_tasks(self.write_largest, texts, out, threads, TASK_TOKENS)

    def feature_sums(self, texts: MultiVectors, threads: int | None) -> NDArray[np.float32]:
        """Return :meth:`write_feature_sums` of all texts, float32 (len(texts), n)."""
        out = np.empty((len(texts), len(self._units)), np.float32)
        return run_tasks(self.write_feature_sums, texts, out, threads, TASK_TOKENS)


def window_similarities(
    windows: MultiVectors,
    documents: MultiVectors,
    directions: NDArray[np.float32],
    threads: int | None = None,
) -> NDArray[np.float32]:
    """Return approximate similarities of documents with windows, float32 (m, n).

    Products with a document's mean token are exact.  Products with the deviations from it are computed in bytes, in
    the coordinates of `directions`.

    Parameters
    ----------
    windows, documents : MultiVectors
        Without empty texts.
    directions : float32 (r, d), or (0, 0) for all columns
        Orthonormal rows.
    """
    tokens = np.asarray(windows.tokens, np.float32)
    starts = windows.offsets[:-1]
    means = mean_tokens(documents, threads)
    out = product(means, np.add.reduceat(tokens, starts, axis=0).T, threads)
    turned = product(tokens, directions.T, threads) if directions.size else tokens
    measure = TokenProducts(turned, np.zeros(turned.shape[1], np.float32))
    none = np.empty((0, turned.shape[1]), np.uint16)

    def work(start: int, stop: int) -> None:
        offsets = documents.offsets[start : stop + 1]
        rest = np.asarray(documents.tokens[offsets[0] : offsets[-1]], np.float32)
        rest = rest - np.repeat(means[start:stop], np.diff(offsets), axis=0)
        if directions.size:
            rest = product(rest, directions.T, 1)
        values = np.empty((stop - start, len(turned)), np.float32)
        measure.write_largest((rest, none, offsets - offsets[0]), 0, stop - start, values)
        out[start:stop] += np.add.reduceat(values, starts, axis=1)

    run_in_ranges(work, split_by_weight(documents.offsets, TASK_TOKENS, 256), threads)
    return out
