"""Codec, ChunkedRows and QuantizedSource: decode PLAID's codes, and read an index of them in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.multivectors import MultiVectors
from ...data.offsets import running_total
from ...data.validation import Ids, read_only_view
from ...kernels.token_codes import byte_table, decode_residuals
from ...utils.parallel import run_in_ranges, split_by_count
from .base import FlatSource, LazyRows, Rows

__all__ = ["ChunkedRows", "Codec", "QuantizedSource"]

_TOKENS_PER_TASK = 4096


class Codec:
    """Decoder of codes and packed residuals into float32 vectors.

    `weights` (2 ** nbits,) are the values that the buckets add to a coordinate.  `table` (256, 8 // nbits)
    contains the values for each byte of residuals; give it if the bits are not laid out as in PLAID.  With
    `normalize`, vectors have norm 1, as PLAID scores them.
    """

    def __init__(
        self,
        centroids: NDArray[Any],
        weights: NDArray[Any],
        nbits: Any,
        *,
        normalize: bool = True,
        table: NDArray[np.float32] | None = None,
    ) -> None:
        if nbits not in (1, 2, 4, 8) or isinstance(nbits, bool):
            raise ValueError(f"nbits={nbits!r}, but must be 1, 2, 4 or 8")
        if centroids.ndim != 2 or not centroids.size or centroids.shape[1] * nbits % 8:
            raise ValueError(
                f"centroids must be rows whose codes at nbits={nbits} fill whole bytes, got shape {centroids.shape}"
            )
        if weights.shape != (2**nbits,):
            raise ValueError(f"{weights.size} bucket weights, but nbits={nbits} needs {2**nbits}")
        self.nbits = int(nbits)
        self.dimension = int(centroids.shape[1])
        self.centroids = read_only_view(np.ascontiguousarray(centroids, np.float32))
        self.weights = np.asarray(weights, np.float32)
        self._table = read_only_view(byte_table(self.weights, self.nbits) if table is None else table)
        self._normalize = normalize

    def rows(self, count: int, codes: Rows, packed: Rows) -> LazyRows:
        """Return the vectors of codes and residuals, decoded when they are used."""
        return LazyRows((count, self.dimension), lambda key: self.decode(codes[key], packed[key]))

    def decode(self, codes: NDArray[Any], packed: NDArray[Any]) -> NDArray[np.float32]:
        """Return the vectors (n, dimension) of codes (n,) and residuals uint8 (n, dimension * nbits // 8)."""
        width = self.dimension * self.nbits // 8
        if codes.ndim != 1 or codes.dtype.kind not in "iu" or packed.dtype != np.uint8:
            raise ValueError(
                f"codes must be integers and residuals uint8, got {codes.dtype} of shape {codes.shape} and "
                f"{packed.dtype}"
            )
        if packed.shape != (len(codes), width):
            raise ValueError(
                f"residuals of shape {packed.shape}, but {len(codes)} tokens of dimension={self.dimension} at "
                f"nbits={self.nbits} need {(len(codes), width)}"
            )
        if len(codes) and not 0 <= codes.min() <= codes.max() < len(self.centroids):
            wrong = int(codes.min() if codes.min() < 0 else codes.max())
            raise ValueError(f"code {wrong}, but there are {len(self.centroids)} centroids")
        codes = read_only_view(codes if codes.dtype in (np.int32, np.int64) else codes.astype(np.int64))
        packed = read_only_view(np.ascontiguousarray(packed))
        out = np.empty((len(codes), self.dimension), np.float32)

        def work(start: int, stop: int) -> None:
            rows = slice(start, stop)
            decode_residuals(
                codes[rows], packed[rows], self.centroids, self._table, self._normalize, out[rows]
            )

        run_in_ranges(work, split_by_count(len(codes), _TOKENS_PER_TASK))
        return out


class ChunkedRows:
    """Rows of several arrays, one after another; each array is loaded when its rows are read.

    `load` returns array i, which must have ``counts[i]`` rows.
    """

    def __init__(self, counts: list[int], load: Callable[[int], NDArray[Any]]) -> None:
        self.bounds = running_total(counts)
        self.load = load
        self._last: tuple[int, NDArray[Any]] | None = None

    def __getitem__(self, key: Any) -> NDArray[Any]:
        rows = np.arange(*key.indices(int(self.bounds[-1]))) if isinstance(key, slice) else key
        chunks = np.searchsorted(self.bounds, rows, side="right") - 1
        # For no rows, an empty slice of the first array has the right columns.
        numbers = np.unique(chunks) if len(rows) else [0]
        return np.concatenate([self._chunk(i)[rows[chunks == i] - self.bounds[i]] for i in numbers])

    def _chunk(self, i: int) -> NDArray[Any]:
        if self._last is None or self._last[0] != i:
            array, count = self.load(int(i)), int(self.bounds[i + 1] - self.bounds[i])
            if len(array) != count:
                raise ValueError(
                    f"chunk {i} has {len(array)} codes or residuals, but its lengths add up to {count}"
                )
            self._last = i, array
        return self._last[1]


class QuantizedSource(FlatSource):
    """Source over a quantized index, decoded batch by batch; a CodedSource of :mod:`muvera.data.batches`."""

    lossy = True

    def __init__(
        self,
        codec: Codec,
        codes: Rows,
        packed: Rows,
        offsets: NDArray[np.int64],
        ids: Ids | None = None,
        *,
        name: str,
    ) -> None:
        super().__init__(codec.rows(int(offsets[-1]), codes, packed), offsets, ids, name=name)
        self.codec, self.codes, self.packed = codec, codes, packed
        self.nbits = codec.nbits
        self.centroids, self.bucket_weights = codec.centroids, codec.weights

    def coded_batches(
        self, max_tokens: int
    ) -> Iterator[tuple[MultiVectors, NDArray[Any], NDArray[np.uint8]]]:
        """Yield documents, their tokens' centroids (n_tokens,) and packed residuals (n_tokens, bytes)."""
        for rows, offsets, ids in self._split(max_tokens):
            codes, packed = self.codes[rows], self.packed[rows]
            yield MultiVectors(self.codec.decode(codes, packed), offsets, ids), codes, packed
