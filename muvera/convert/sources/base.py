"""Interface of sources, which every reader returns: batches of token vectors in bounded memory.

A format is one module with four names::

    NAME: str                                     # "plaid"
    DESCRIPTION: str                                # "metadata.json with centroids.pt"
    def matches(path: Path) -> bool: ...            # cheap, never raises
    def open_source(path: Path, **options: Any) -> Source: ...

and a writer one with two::

    NAME: str                                     # "npy"
    def write(batches: Iterator[MultiVectors], target: Path, *, overwrite: bool) -> None: ...
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ...data.multivectors import MultiVectors
from ...utils.checks import require_int

__all__ = ["CollectionSource", "Source", "collection_batches", "token_batches"]


@runtime_checkable
class Source(Protocol):
    """Token vectors that are read in batches.  Plain attributes serve as well as properties."""

    @property
    def name(self) -> str:
        """The format's name, such as ``"plaid"``."""

    @property
    def dimension(self) -> int:
        """Width of a token vector."""

    @property
    def num_documents(self) -> int | None:
        """Number of texts; None where it is known only after reading."""

    @property
    def num_tokens(self) -> int | None:
        """Number of token vectors; None where it is known only after reading."""

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
    """Source over a collection in memory, or memory-mapped.

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
        return collection_batches(self.collection, max_tokens)


def token_batches(offsets: NDArray[np.int64], max_tokens: int) -> Iterator[tuple[int, int]]:
    """Yield (first, stop) of consecutive runs of texts with at most `max_tokens` tokens.

    A longer text stands alone.  No texts at all are one empty run, so that its batch carries the
    dimension on.

    Parameters
    ----------
    offsets : int64 (n + 1,)
        Where each text begins.
    max_tokens : int
        At least 1.

    Raises
    ------
    TypeError, ValueError
        Where `max_tokens` is no such number.
    """
    require_int("max_tokens", max_tokens, 1)
    count = len(offsets) - 1
    if count == 0:
        yield 0, 0
    first = 0
    while first < count:
        stop = int(np.searchsorted(offsets, offsets[first] + max_tokens, side="right")) - 1
        # Empty texts weigh nothing: without this cap a run of them would be one batch.
        stop = min(max(stop, first + 1), first + max_tokens)
        yield first, stop
        first = stop


def collection_batches(collection: MultiVectors, max_tokens: int) -> Iterator[MultiVectors]:
    """Yield consecutive slices of whole texts, as :func:`token_batches` cuts them.

    The slices share memory with `collection`, and have ids only where it has some.

    Raises
    ------
    TypeError, ValueError
        As :func:`token_batches`.
    """
    for first, stop in token_batches(collection.offsets, max_tokens):
        bounds = collection.offsets[first : stop + 1]
        ids = collection.ids[first:stop] if collection.has_ids else None
        yield MultiVectors(collection.tokens[bounds[0] : bounds[-1]], bounds - bounds[0], ids)
