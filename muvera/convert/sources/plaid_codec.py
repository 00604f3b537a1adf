"""Decoder of centroids with packed residuals, which all relatives of PLAID store in chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ...data.batches import token_batches
from ...data.multivectors import MultiVectors
from ...data.offsets import running_total
from ...data.validation import Ids, TokenArray, as_ids, read_only_view
from ...kernels.residuals import byte_table, decode_residuals
from ...utils.parallel import run_in_ranges, thread_count

__all__ = ["Chunk", "Codec", "QuantizedSource"]

_BLOCK = 2048  # tokens decoded at a time where the result is float16: 1 MB at 128 dimensions


@dataclass(frozen=True)
class Chunk:
    """Consecutive documents of one pair of files.

    Attributes
    ----------
    name : str
        The file of the codes, for error messages.
    lengths : int64 (n,)
        Tokens of each document.
    load : callable
        Returns the codes (n_tokens,) and the packed residuals (n_tokens, width), both
        usually memory maps.
    """

    name: str
    lengths: NDArray[np.int64]
    load: Callable[[], tuple[NDArray[Any], NDArray[Any]]]


class Codec:
    """Decoder of codes and packed residuals into vectors, on several threads.

    Parameters
    ----------
    folder : Path
        The index, for error messages.
    centroids : float (k, dimension)
    weights : float (2 ** nbits,)
        What each bucket adds to a coordinate.
    nbits : int
        1, 2, 4 or 8.
    normalize : bool
        Bring each vector to norm 1 again, as the engines do before they score.
    table : float32 (256, 8 // nbits), optional
        Weights of each byte, for layouts other than PLAID's.
    dtype : float32 or float16
        Of the decoded vectors.  float16 takes half the memory and some time to round.
    threads : int, optional
        Default: all usable cores.

    Raises
    ------
    ValueError
        Where the arrays do not fit each other, or hold numbers that are not finite.
    """

    def __init__(
        self,
        folder: Path,
        centroids: NDArray[Any],
        weights: NDArray[Any],
        nbits: Any,
        *,
        normalize: bool = True,
        table: NDArray[np.float32] | None = None,
        dtype: DTypeLike = np.float32,
        threads: int | None = None,
    ) -> None:
        if nbits not in (1, 2, 4, 8) or isinstance(nbits, bool):
            raise ValueError(f"{folder} has nbits={nbits!r}, but residuals of 1, 2, 4 or 8 bits are read.")
        if centroids.ndim != 2 or not centroids.size:
            raise ValueError(f"{folder} has centroids of shape {centroids.shape}; (k, dimension) is needed.")
        self.folder = folder
        self.nbits = int(nbits)
        self.dimension = int(centroids.shape[1])
        if self.dimension * self.nbits % 8:
            raise ValueError(
                f"{folder} has dimension={self.dimension} at nbits={nbits}, which does not fill whole bytes."
            )
        if weights.shape != (2**self.nbits,):
            raise ValueError(
                f"{folder} has {weights.size} bucket weights, but nbits={nbits} needs {2**self.nbits}. "
                "Its files are of different builds: copy the whole folder again."
            )
        for name, array in (("centroids", centroids), ("bucket weights", weights)):
            bad = np.argwhere(~np.isfinite(array))
            if len(bad):
                raise ValueError(
                    f"The {name} of {folder} have {array[tuple(bad[0])]} at {bad[0].tolist()}: every number "
                    "must be finite. Build the index anew, or copy it again."
                )
        self._dtype = np.dtype(dtype)
        if self._dtype not in (np.dtype(np.float32), np.dtype(np.float16)):
            raise ValueError(f"dtype must be float32 or float16, got {self._dtype}.")
        self._centroids = read_only_view(np.ascontiguousarray(centroids, np.float32))
        self._table = read_only_view(
            byte_table(np.asarray(weights, np.float32), self.nbits) if table is None else table
        )
        self.weights = np.asarray(weights, np.float32)
        self._normalize = normalize
        self._threads = thread_count(threads)

    @property
    def width(self) -> int:
        """Bytes of residuals a token."""
        return self.dimension * self.nbits // 8

    @property
    def num_centroids(self) -> int:
        """Number of centroids."""
        return len(self._centroids)

    @property
    def centroids(self) -> NDArray[np.float32]:
        """Centroids, float32 (k, dimension)."""
        return self._centroids

    def decode(self, codes: NDArray[Any], packed: NDArray[Any], name: str) -> TokenArray:
        """Return the vectors (n, dimension).

        Parameters
        ----------
        codes : integers (n,)
            Centroid of each token.
        packed : uint8 (n, width)
            Residuals of each token.
        name : str
            The file of the codes, for the error about a code out of range.

        Raises
        ------
        ValueError
            For a code that is no centroid's.
        """
        if len(codes):
            least, most = int(codes.min()), int(codes.max())
            if least < 0 or most >= self.num_centroids:
                raise ValueError(
                    f"{name} has code {least if least < 0 else most}, but {self.folder} has "
                    f"{self.num_centroids} centroids. Its files are of different builds: copy it again."
                )
        codes = read_only_view(codes if codes.dtype in (np.int32, np.int64) else codes.astype(np.int64))
        packed = read_only_view(np.ascontiguousarray(packed))
        out = np.empty((len(codes), self.dimension), self._dtype)

        def work(start: int, stop: int) -> None:
            if self._dtype == np.float32:
                self._run(codes[start:stop], packed[start:stop], out[start:stop])
                return
            block = np.empty((min(_BLOCK, stop - start), self.dimension), np.float32)
            for first in range(start, stop, _BLOCK):
                last = min(first + _BLOCK, stop)
                self._run(codes[first:last], packed[first:last], block[: last - first])
                out[first:last] = block[: last - first]

        share = max(4096, -(-len(codes) // (4 * self._threads)))
        ranges = [(i, min(i + share, len(codes))) for i in range(0, len(codes), share)]
        run_in_ranges(work, ranges, self._threads)
        return out

    def _run(self, codes: NDArray[Any], packed: NDArray[Any], out: NDArray[np.float32]) -> None:
        decode_residuals(codes, packed, self._centroids, self._table, self._normalize, out)


class QuantizedSource:
    """Source over a quantized index, decoded batch by batch.

    Parameters
    ----------
    name : str
        The format's name.
    codec : Codec
    chunks : sequence of Chunk
        In order.
    ids : sequence of int or of str, optional
        One a document.
    note : str, optional
        What a person should know, such as that exact vectors lie beside.
    """

    lossy = True

    def __init__(
        self,
        name: str,
        codec: Codec,
        chunks: Sequence[Chunk],
        ids: Any = None,
        note: str | None = None,
    ) -> None:
        self.name = name
        self.note = note
        self.dimension = codec.dimension
        self.nbits: int | None = codec.nbits
        self.codec = codec
        self.centroids = codec.centroids
        self.bucket_weights = codec.weights
        self._chunks = list(chunks)
        self.num_documents: int | None = sum(len(chunk.lengths) for chunk in self._chunks)
        self.num_tokens: int | None = int(sum(chunk.lengths.sum() for chunk in self._chunks))
        self._ids: Ids | None = (
            None if ids is None else as_ids(ids, self.num_documents, f"The ids of {codec.folder}")
        )

    def batches(self, max_tokens: int) -> Iterator[MultiVectors]:
        """Yield the documents in order; one batch never spans two chunks."""
        for documents, _, _ in self.coded_batches(max_tokens):
            yield documents

    def coded_batches(
        self, max_tokens: int
    ) -> Iterator[tuple[MultiVectors, NDArray[Any], NDArray[np.uint8]]]:
        """Yield the documents, their tokens' centroids (n_tokens,) and packed residuals (n_tokens, width)."""
        done = 0
        for chunk in self._chunks:
            codes, packed = self._load(chunk)
            offsets = running_total(chunk.lengths)
            for start, stop in token_batches(offsets, max_tokens):
                bounds = offsets[start : stop + 1]
                rows = slice(int(bounds[0]), int(bounds[-1]))
                tokens = self.codec.decode(codes[rows], packed[rows], chunk.name)
                ids = None if self._ids is None else self._ids[done + start : done + stop]
                yield MultiVectors(tokens, bounds - bounds[0], ids), codes[rows], packed[rows]
            done += len(chunk.lengths)

    def _load(self, chunk: Chunk) -> tuple[NDArray[Any], NDArray[Any]]:
        total = int(chunk.lengths.sum())
        if total == 0:  # NumPy cannot map an empty file, and there is nothing to read
            return np.empty(0, np.int64), np.empty((0, self.codec.width), np.uint8)
        codes, packed = chunk.load()
        where = f"{self.codec.folder}: {chunk.name}"
        if codes.ndim != 1 or codes.dtype.kind not in "iu":
            raise ValueError(
                f"{where} must hold one integer a token, got {codes.dtype} of shape {codes.shape}."
            )
        if len(codes) != total or len(packed) != total:
            raise ValueError(
                f"{where} has {len(codes)} codes and {len(packed)} residuals, but its lengths add "
                f"up to {total} tokens. The chunk is incomplete: copy its files again."
            )
        if packed.dtype != np.uint8 or packed.ndim != 2 or packed.shape[1] != self.codec.width:
            raise ValueError(
                f"{where} has residuals {packed.dtype} of shape {packed.shape}, but dimension={self.dimension} at "
                f"nbits={self.nbits} needs uint8 with {self.codec.width} columns. Correct nbits in "
                "metadata.json, or copy the folder again."
            )
        return codes, packed
