"""What every reader returns: batches of token vectors in bounded memory.

A format is one module with four names::

    NAME: str                                     # "plaid"
    DESCRIPTION: str                                # "metadata.json with centroids.pt"
    def detects(path: Path) -> bool: ...          # cheap, never raises
    def open_source(path: Path, **options: Any) -> Source: ...

and a writer one with two::

    NAME: str                                     # "npy"
    def write(batches: Iterator[MultiVectors], target: Path, *, overwrite: bool) -> None: ...
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import numpy as np

from ...data.multivectors import MultiVectors

__all__ = ["CollectionSource", "Source", "cut"]


@runtime_checkable
class Source(Protocol):
    """Token vectors somewhere, read in batches.  Plain attributes or properties will do."""

    @property
    def name(self) -> str:
        """The format's name, such as ``"plaid"``."""

    @property
    def dimension(self) -> int:
        """Width of a token vector."""

    @property
    def num_documents(self) -> int | None:
        """How many texts there are; None where only reading tells."""

    @property
    def num_tokens(self) -> int | None:
        """How many token vectors there are; None where only reading tells."""

    @property
    def lossy(self) -> bool:
        """Whether the stored vectors are approximations of the encoder's (quantized)."""

    @property
    def nbits(self) -> int | None:
        """Bits a coordinate where quantized."""

    def batches(self, max_tokens: int) -> Iterator[MultiVectors]:
        """Yield the texts in order, whole, at most `max_tokens` tokens at a time.

        One text alone may exceed `max_tokens`.  Ids are explicit in every batch or in none:
        they are given whenever the format has any.
        """


class CollectionSource:
    """A collection in memory, or memory-mapped, as a source.

    Parameters
    ----------
    collection : MultiVectors
        Its ids go along only where some were given.
    name : str
        The format it came from.
    lossy, nbits
        As in :class:`Source`.
    """

    def __init__(
        self, collection: MultiVectors, name: str = "memory", *, lossy: bool = False, nbits: int | None = None
    ) -> None:
        self.collection = collection
        self.name = name
        self.lossy = lossy
        self.nbits = nbits
        self.dimension = collection.dimension
        self.num_documents: int | None = len(collection)
        self.num_tokens: int | None = collection.num_tokens

    def batches(self, max_tokens: int) -> Iterator[MultiVectors]:
        """Yield slices that share memory with the collection."""
        return cut(self.collection, max_tokens)


def cut(collection: MultiVectors, max_tokens: int) -> Iterator[MultiVectors]:
    """Yield consecutive slices of whole texts, at most `max_tokens` tokens each.

    A text longer than that stands alone, and no texts at all are one empty slice, which
    carries the dimension on.  Slices share memory with `collection`.
    """
    if max_tokens < 1:
        raise ValueError(f"max_tokens must be at least 1, got {max_tokens}.")
    offsets = collection.offsets
    start = 0
    if len(collection) == 0:
        yield collection
    while start < len(collection):
        stop = int(np.searchsorted(offsets, offsets[start] + max_tokens, side="right")) - 1
        # A run of empty texts weighs nothing: without this cap it would be one batch.
        stop = min(max(stop, start + 1), start + max_tokens)
        part = offsets[start : stop + 1]
        yield MultiVectors(
            collection.tokens[part[0] : part[-1]],
            part - part[0],
            collection.ids[start:stop] if collection.has_ids else None,
        )
        start = stop
