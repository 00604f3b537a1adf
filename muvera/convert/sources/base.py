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

from ...data.batches import collection_batches
from ...data.multivectors import MultiVectors

__all__ = ["CollectionSource", "Source"]


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
    """

    lossy = False
    nbits: int | None = None

    def __init__(self, collection: MultiVectors, name: str = "memory") -> None:
        self.collection = collection
        self.name = name
        self.dimension = collection.dimension
        self.num_documents: int | None = len(collection)
        self.num_tokens: int | None = collection.num_tokens

    def batches(self, max_tokens: int) -> Iterator[MultiVectors]:
        """Yield slices that share memory with the collection."""
        return collection_batches(self.collection, max_tokens)
