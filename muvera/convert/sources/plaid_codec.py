"""Codec and QuantizedSource: decode PLAID's codes, and read an index of them in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...data.batches import token_batches
from ...data.multivectors import MultiVectors
from ...data.offsets import running_total
from ...data.validation import Ids, as_ids, read_only_view
from ...kernels.token_codes import byte_table, decode_residuals
from ...utils.parallel import run_in_ranges, thread_count
from .base import Source

__all__ = ["Chunk", "Codec", "QuantizedSource"]

_MIN_TOKENS_PER_TASK = 4096


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
        threads: int | None = None,
    ) -> None:
        if nbits not in (1, 2, 4, 8) or isinstance(nbits, bool):
            raise ValueError(f"nbits={nbits!r}, but must be 1, 2, 4 or 8")
        if centroids.ndim != 2 or not centroids.size or centroids.shape[1] * nbits % 8:
            raise ValueError(f"centroids of shape {centroids.shape} at nbits={nbits}")
        if weights.shape != (2**nbits,):
            raise ValueError(f"{weights.size} bucket weights, but nbits={nbits} needs {2**nbits}")
        self.nbits = int(nbits)
        self.dimension = int(centroids.shape[1])
        self.centroids = read_only_view(np.ascontiguousarray(centroids, np.float32))
        self.weights = np.asarray(weights, np.float32)
        self._table = read_only_view(byte_table(self.weights, self.nbits) if table is None else table)
        self._normalize = normalize
        self._threads = thread_count(threads)

    def decode(self, codes: NDArray[Any], packed: NDArray[Any], name: str) -> NDArray[np.float32]:
        """Return the vectors (n, dimension) of codes (n,) and residuals uint8 (n, dimension * nbits // 8).

        `name` is the file of the codes, for messages.
        """
        width = self.dimension * self.nbits // 8
        if codes.ndim != 1 or codes.dtype.kind not in "iu" or packed.dtype != np.uint8:
            raise ValueError(
                f"{name} must hold integer codes and uint8 residuals, got {codes.dtype} of shape {codes.shape} "
                f"and {packed.dtype}"
            )
        if packed.shape != (len(codes), width):
            raise ValueError(
                f"{name} has residuals of shape {packed.shape}, but {len(codes)} tokens of "
                f"dimension={self.dimension} at nbits={self.nbits} need {(len(codes), width)}"
            )
        if len(codes) and not 0 <= codes.min() <= codes.max() < len(self.centroids):
            wrong = int(codes.min() if codes.min() < 0 else codes.max())
            raise ValueError(f"{name} has code {wrong}, but there are {len(self.centroids)} centroids")
        codes = read_only_view(codes if codes.dtype in (np.int32, np.int64) else codes.astype(np.int64))
        packed = read_only_view(np.ascontiguousarray(packed))
        out = np.empty((len(codes), self.dimension), np.float32)

        def work(start: int, stop: int) -> None:
            rows = slice(start, stop)
            decode_residuals(
                codes[rows], packed[rows], self.centroids, self._table, self._normalize, out[rows]
            )

        share = max(_MIN_TOKENS_PER_TASK, -(-len(codes) // (4 * self._threads)))
        ranges = [(i, min(i + share, len(codes))) for i in range(0, len(codes), share)]
        run_in_ranges(work, ranges, self._threads)
        return out


class Chunk(NamedTuple):
    """Consecutive documents of one pair of files."""

    #: File of the codes, for error messages.
    name: str
    #: Tokens of each document, int64 (n,).
    lengths: NDArray[np.int64]
    #: Return the codes (n_tokens,) and packed residuals (n_tokens, bytes), usually memory maps.
    load: Callable[[], tuple[NDArray[Any], NDArray[Any]]]


class QuantizedSource(Source):
    """Source over a quantized index, decoded batch by batch; a CodedSource of :mod:`muvera.data.batches`."""

    lossy = True

    def __init__(
        self, name: str, codec: Codec, chunks: Sequence[Chunk], ids: Any = None, note: str | None = None
    ) -> None:
        self.name = name
        self.note = note
        self.codec = codec
        self.dimension = codec.dimension
        self.nbits = codec.nbits
        self.centroids = codec.centroids
        self.bucket_weights = codec.weights
        self._chunks = list(chunks)
        self._lengths = np.concatenate([np.zeros(0, np.int64), *(chunk.lengths for chunk in chunks)])
        self.choose(np.ones(len(self._lengths), bool), ids)

    def choose(self, kept: NDArray[np.bool_], ids: Any) -> None:
        """Skip the documents where `kept` (n,) is False; `ids` has one id for each of the others, or is None."""
        self._kept = kept
        self.num_documents = count = int(kept.sum())
        self.num_tokens = int(self._lengths[kept].sum())
        self._ids: Ids | None = None if ids is None else as_ids(ids, count, "The ids")

    def batches(self, max_tokens: int) -> Iterator[MultiVectors]:
        """Yield the documents in order; a batch never spans two chunks."""
        for documents, _, _ in self.coded_batches(max_tokens):
            yield documents

    def coded_batches(
        self, max_tokens: int
    ) -> Iterator[tuple[MultiVectors, NDArray[Any], NDArray[np.uint8]]]:
        """Yield documents, their tokens' centroids (n_tokens,) and packed residuals (n_tokens, bytes)."""
        position = given = 0
        for chunk in self._chunks:
            all_codes, all_packed = self._load(chunk)
            offsets = running_total(chunk.lengths)
            for start, stop in token_batches(offsets, max_tokens):
                rows = slice(int(offsets[start]), int(offsets[stop]))
                codes, packed, lengths = all_codes[rows], all_packed[rows], chunk.lengths[start:stop]
                kept = self._kept[position + start : position + stop]
                if not kept.all():
                    tokens_kept = np.repeat(kept, lengths)
                    codes, packed, lengths = codes[tokens_kept], packed[tokens_kept], lengths[kept]
                tokens = self.codec.decode(codes, packed, chunk.name)
                ids = None if self._ids is None else self._ids[given : given + len(lengths)]
                yield MultiVectors(tokens, running_total(lengths), ids), codes, packed
                given += len(lengths)
            position += len(chunk.lengths)

    def _load(self, chunk: Chunk) -> tuple[NDArray[Any], NDArray[Any]]:
        total = int(chunk.lengths.sum())
        if total == 0:  # empty files cannot be memory-mapped
            width = self.dimension * self.codec.nbits // 8
            return np.empty(0, np.int64), np.empty((0, width), np.uint8)
        codes, packed = chunk.load()
        if len(codes) != total or len(packed) != total:
            raise ValueError(
                f"{chunk.name} has {len(codes)} codes and {len(packed)} residuals, but its lengths add up to {total}"
            )
        return codes, packed
