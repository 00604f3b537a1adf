"""Engine: the one interface of vector databases, and what passes through it.

An engine stores what it is given and finds the nearest vectors; encoding, ranking, batching and checks of
input are :class:`muvera.engines.EngineIndex`'s.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors
from ..data.validation import Ids
from ..metadata.filters import Filter
from ..utils.checks import require_int

__all__ = [
    "Description",
    "Engine",
    "EngineError",
    "Found",
    "GraphSettings",
    "Location",
    "Rows",
    "SearchOptions",
    "parts_of",
]

#: Ids, best first, and the engine's scores of them, for each query.
Found = list[tuple[list[Any], NDArray[np.float32]]]

#: Bytes of a part of the encoder: what every engine takes in one value.
PART_BYTES = 1 << 20


class EngineError(ValueError):
    """An engine cannot be reached, refuses, or holds something else; the message never has a password."""


@dataclass(frozen=True)
class GraphSettings:
    """How an engine builds its graph.

    Parameters
    ----------
    m : int
        Links a node.  More raise recall, memory and build time.
    ef_construction : int
        Candidates while building.  More raise recall and build time.
    from_documents : int
        Fewer documents are all read, which finds everything and is as fast; PostgreSQL decides itself.
    """

    m: int = 16
    ef_construction: int = 128
    from_documents: int = 4096

    def __post_init__(self) -> None:
        require_int("m", self.m, 2)
        require_int("ef_construction", self.ef_construction, 4)
        require_int("from_documents", self.from_documents, 1)


@dataclass(frozen=True)
class Description:
    """What a collection in an engine is, as it was created.

    Parameters
    ----------
    vector_dimension : int
        Floats of a vector.
    token_dimension : int
        Columns of a token vector.
    tokens : bool
        Whether the engine keeps the documents' tokens, in half precision.
    integer_ids : bool
        Whether ids are integers; else they are strings.
    precision : {"float32", "float16"}
        Of the vectors, where the engine has both.
    graph : GraphSettings
    config : str
        Hash of the encoder's configuration.
    encoder : str
        SHA-256 of the fitted encoder.
    """

    vector_dimension: int
    token_dimension: int
    tokens: bool
    integer_ids: bool
    precision: Literal["float32", "float16"]
    graph: GraphSettings
    config: str
    encoder: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that :meth:`from_dict` takes."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Description:
        """Return the description that :meth:`to_dict` made."""
        return cls(**{**values, "graph": GraphSettings(**values["graph"])})


@dataclass(frozen=True)
class Rows:
    """Documents on their way to an engine.

    Parameters
    ----------
    ids : int64 or str (n,)
    vectors : float32 (n, vector_dimension)
    metadata : sequence of dict
        Checked.
    tokens : MultiVectors or None
        In half precision, where the engine keeps them.
    """

    ids: Ids
    vectors: NDArray[np.float32]
    metadata: Sequence[Mapping[str, Any]]
    tokens: MultiVectors | None


@dataclass(frozen=True)
class SearchOptions:
    """How an engine searches.

    Parameters
    ----------
    count : int
        Documents a query at most.
    where : mapping, optional
        A condition on the metadata, see :mod:`muvera.metadata.filters`.
    ef : int
        Candidates that the walk through the engine's graph keeps.
    exact : bool
        Read all vectors instead.
    """

    count: int
    where: Filter | None = None
    ef: int = 128
    exact: bool = False


@dataclass(frozen=True)
class Location:
    """Where a collection is.

    Parameters
    ----------
    url : str
        Without a password.
    name : str
        Of the collection or table.
    """

    url: str
    name: str

    def __str__(self) -> str:
        return f"{self.url}#{self.name}"


class Engine(ABC):
    """Interface of one collection in a vector database.

    Every method that changes something is idempotent: what a killed process left can be done again.
    """

    #: Name of the engine.
    kind: ClassVar[str]

    #: Whether documents' tokens can be kept there, and whether it ranks by them itself.
    keeps_tokens: ClassVar[bool] = False
    reranks: ClassVar[bool] = False

    #: How vectors can be kept, the default first.
    precisions: ClassVar[tuple[Literal["float32", "float16"], ...]] = ("float32",)

    def __init__(self, location: Location) -> None:
        self.location = location

    # -- the collection -------------------------------------------------------

    @abstractmethod
    def describe(self) -> Description | None:
        """Return what is there; None where nothing of this name is.

        Raises
        ------
        EngineError
            Where it cannot be reached, or something else has this name.
        """

    @abstractmethod
    def create(self, description: Description, encoder: bytes) -> None:
        """Make an empty collection that keeps the encoder: all of it or nothing.

        Raises
        ------
        EngineError
            Where something of this name is there.
        """

    @abstractmethod
    def read_encoder(self) -> bytes:
        """Return what :meth:`create` kept."""

    @abstractmethod
    def finish(self) -> None:
        """Build the index of what was added, where the engine does not by itself."""

    @abstractmethod
    def drop(self) -> None:
        """Remove the collection, its encoder and its index; nothing happens where there is none."""

    @abstractmethod
    def close(self) -> None:
        """Free connections and files."""

    # -- documents ------------------------------------------------------------

    @abstractmethod
    def add(self, rows: Rows) -> None:
        """Store documents, in place of those with the same ids: all of a call or none of it."""

    @abstractmethod
    def existing(self, ids: Ids) -> set[Any]:
        """Return those of some ids that are there."""

    @abstractmethod
    def delete(self, ids: Ids) -> None:
        """Remove documents; ids that are not there are ignored."""

    @abstractmethod
    def __len__(self) -> int:
        """Documents that are there."""

    @abstractmethod
    def metadata(self, ids: Sequence[Any]) -> dict[Any, dict[str, Any]]:
        """Return the metadata of documents by id; ids that are not there are left out."""

    def tokens(self, ids: Sequence[Any]) -> MultiVectors:
        """Return the tokens of those documents that are there, with ids, in any order."""
        raise EngineError(f"{self.kind} keeps no tokens.")

    def all_tokens(self) -> Iterator[MultiVectors]:
        """Yield the tokens of all documents, with ids, a batch at a time."""
        raise EngineError(f"{self.kind} keeps no tokens.")

    # -- searching ------------------------------------------------------------

    @abstractmethod
    def search(self, vectors: NDArray[np.float32], options: SearchOptions) -> Found:
        """Return the documents of the largest inner products for each query's vector, float32 (m, dimension).

        Raises
        ------
        FilterError
            For a condition that this engine cannot answer.
        """

    def search_and_rank(
        self, vectors: NDArray[np.float32], queries: MultiVectors, k: int, options: SearchOptions
    ) -> Found:
        """Return the `k` best by Chamfer similarity of what :meth:`search` finds, ranked by the engine."""
        raise EngineError(f"{self.kind} does not rank by tokens. Use rerank='here'.")

    def size_bytes(self) -> int | None:
        """Return the bytes of documents and index in the engine; None where it does not say."""
        return None


def parts_of(encoder: bytes) -> list[bytes]:
    """Cut an encoder into parts that every engine takes as one value."""
    return [encoder[start : start + PART_BYTES] for start in range(0, len(encoder), PART_BYTES)]
