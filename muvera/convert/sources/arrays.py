"""Sources over arrays on the disk: flat tokens with offsets, and padded batches.

An array here is anything with ``shape``, ``dtype`` and row slices: a memory map, an HDF5
or zarr array, a member of a zip file.  Only the rows of one batch are read at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...data.batches import token_batches
from ...data.multivectors import MultiVectors
from ...data.validation import Ids
from .base import Source

__all__ = ["Bfloat16Rows", "FlatSource", "JoinedSource", "PaddedSource", "Rows", "require_finite"]


class Rows(Protocol):
    """Array whose rows are read by slices."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape, whose first axis are the rows."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the numbers in a slice."""

    def __getitem__(self, key: slice, /) -> Any:
        """Return the rows of a slice."""


class Bfloat16Rows:
    """Rows of bfloat16 bit patterns, read as float32."""

    def __init__(self, bits: Rows) -> None:
        self.bits = bits
        self.shape = bits.shape
        self.dtype = np.dtype(np.float32)

    def __getitem__(self, key: slice) -> NDArray[np.float32]:
        bits = np.asarray(self.bits[key], np.uint32)
        floats: NDArray[np.float32] = np.left_shift(bits, np.uint32(16)).view(np.float32)
        return floats


def require_finite(batch: MultiVectors, place: str, first: int) -> MultiVectors:
    """Return `batch` after :meth:`MultiVectors.require_finite`, which names the document.

    Parameters
    ----------
    batch : MultiVectors
        Some consecutive documents.
    place : str
        The file they are from.
    first : int
        How many documents of the file came before the batch.

    Raises
    ------
    ValueError
        For a number that is not finite, or too large.
    """
    batch.require_finite(first=first, place=place)
    return batch


class FlatSource:
    """Source over flat tokens with the texts' offsets.

    Parameters
    ----------
    tokens : rows (n_tokens, dimension)
        Floating point.
    offsets : int64 (n + 1,)
        From 0 to n_tokens, not falling.
    ids : Ids, optional
        One a text.
    name : str
        The format's name.
    place : str
        The file, for messages.
    lossy, nbits
        As in :class:`~muvera.convert.sources.base.Source`.
    """

    def __init__(
        self,
        tokens: Rows,
        offsets: NDArray[np.int64],
        ids: Ids | None,
        *,
        name: str,
        place: str,
        lossy: bool = False,
        nbits: int | None = None,
    ) -> None:
        self.tokens = tokens
        self.offsets = offsets
        self.ids = ids
        self.name = name
        self.place = place
        self.lossy = lossy
        self.nbits = nbits
        self.dimension = int(tokens.shape[1])
        self.num_documents: int | None = len(offsets) - 1
        self.num_tokens: int | None = int(offsets[-1])

    def batches(self, max_tokens: int) -> Iterator[MultiVectors]:
        """Yield the texts in order; a memory map's slices stay unread until used."""
        for first, stop in token_batches(self.offsets, max_tokens):
            bounds = self.offsets[first : stop + 1]
            # A member of a zip file may lie at an odd address, which kernels do not take.
            tokens = np.require(self.tokens[int(bounds[0]) : int(bounds[-1])], requirements="A")
            ids = None if self.ids is None else self.ids[first:stop]
            yield require_finite(MultiVectors(tokens, bounds - bounds[0], ids), self.place, first)


class PaddedSource:
    """Source over a padded batch (n, longest, dimension), of which only the real rows are returned.

    Parameters
    ----------
    array : rows (n, longest, dimension)
        Floating point.
    mask : rows (n, longest), optional
        True for real tokens.
    lengths : int64 (n,), optional
        The first ``lengths[i]`` rows of text i are real.
    ids, name, place
        As in :class:`FlatSource`.

    Attributes
    ----------
    dropped_rows : int
        Rows left out as padding by the batches so far.  With neither mask nor lengths
        those are the rows that are entirely zero, which would score 0 where every real
        token scores less.
    """

    lossy = False
    nbits: int | None = None
    num_tokens: int | None = None

    def __init__(
        self,
        array: Rows,
        ids: Ids | None,
        *,
        name: str,
        place: str,
        mask: Rows | None = None,
        lengths: NDArray[np.int64] | None = None,
    ) -> None:
        self.array = array
        self.mask = mask
        self.lengths = lengths
        self.ids = ids
        self.name = name
        self.place = place
        self.dimension = int(array.shape[2])
        self.num_documents: int | None = int(array.shape[0])
        self.dropped_rows = 0

    def batches(self, max_tokens: int) -> Iterator[MultiVectors]:
        """Yield the texts in order, without their padding."""
        count, longest = self.array.shape[:2]
        self.dropped_rows = 0
        for first, stop in token_batches(np.arange(count + 1, dtype=np.int64) * longest, max_tokens):
            padded = np.asarray(self.array[first:stop])
            if self.lengths is not None:
                mask: Any = np.arange(longest) < self.lengths[first:stop, None]
            else:
                mask = None if self.mask is None else np.asarray(self.mask[first:stop])
            ids = None if self.ids is None else self.ids[first:stop]
            batch = MultiVectors.from_padded(padded, mask, ids)
            self.dropped_rows += padded.shape[0] * longest - batch.num_tokens
            yield require_finite(batch, self.place, first)


class JoinedSource:
    """Source over several sources of one format, one after the other."""

    def __init__(self, parts: Sequence[Source]) -> None:
        self.parts = parts
        self.name = parts[0].name
        self.dimension = parts[0].dimension
        self.lossy = any(part.lossy for part in parts)
        self.nbits = parts[0].nbits
        documents = [part.num_documents for part in parts]
        tokens = [part.num_tokens for part in parts]
        self.num_documents = _total(documents)
        self.num_tokens = _total(tokens)

    def batches(self, max_tokens: int) -> Iterator[MultiVectors]:
        """Yield every part's batches."""
        for part in self.parts:
            yield from part.batches(max_tokens)


def _total(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None
