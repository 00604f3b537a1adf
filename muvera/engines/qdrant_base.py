"""QdrantBase: what a Qdrant server and Qdrant's engine in this process have in common."""

from __future__ import annotations

import uuid
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors
from ..data.validation import Ids
from ..metadata.filters import FilterError, build_condition
from ..metadata.values import bound_name, flatten, present_term, value_term
from .base import Description, Engine, EngineError, Found, Rows, SearchOptions

__all__ = ["FDE", "TOKENS", "Models", "Point", "QdrantBase", "found_points", "qdrant_id"]

#: Names of a point's vectors.
FDE, TOKENS = "fde", "tokens"

# Documents of a batch where all tokens are read.
_BATCH = 256

#: Numbers that Qdrant takes in one multivector.
_MULTIVECTOR = 1 << 20


class Models(NamedTuple):
    """Classes of conditions, which a client and the engine have of their own."""

    filter: Any
    field: Any
    match_any: Any
    range: Any


def qdrant_id(name: Any) -> int | str:
    """Return the point id for a document's id: Qdrant accepts unsigned integers and UUIDs.

    Any other id becomes the UUID of version 5 of its text, always the same.
    """
    if isinstance(name, int) and 0 <= name < 1 << 64:
        return name
    try:
        return str(uuid.UUID(str(name)))
    except ValueError:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, str(name)))


def found_points(points: Sequence[Any]) -> tuple[list[Any], NDArray[np.float32]]:
    """Return ids and scores of what a query found."""
    return [one.payload["id"] for one in points], np.array([one.score for one in points], np.float32)


class Point(NamedTuple):
    """What comes back: a payload and tokens, where they were asked for."""

    payload: dict[str, Any]
    tokens: Any


class QdrantBase(Engine):
    """Base class of collections in Qdrant.

    A point has the vector "fde", the multivector "tokens" in half precision, and as payload the id, the
    metadata, its terms and its least and greatest numbers, which are indexed: Qdrant's graph loses
    documents under a condition on what is not.
    """

    kind = "qdrant"
    keeps_tokens = True
    reranks = True
    precisions: ClassVar[tuple[Literal["float32", "float16"], ...]] = ("float32", "float16")

    _models: Models
    _description: Description | None = None

    # -- what differs ---------------------------------------------------------

    @abstractmethod
    def _upsert(self, points: list[tuple[Any, dict[str, Any], dict[str, Any]]]) -> None:
        """Store (point id, vectors, payload) each."""

    @abstractmethod
    def _retrieve(self, ids: list[Any], fields: list[str], tokens: bool) -> list[Point]:
        """Return points by their ids."""

    @abstractmethod
    def _scroll(self, limit: int, offset: Any) -> tuple[list[Point], Any]:
        """Return some points with tokens, and where to go on."""

    @abstractmethod
    def _query(
        self,
        vectors: NDArray[np.float32],
        queries: MultiVectors | None,
        limit: int,
        condition: Any,
        options: SearchOptions,
    ) -> Found:
        """Return the best documents by vectors; ordered by tokens where there are queries."""

    @abstractmethod
    def _remove(self, ids: list[Any]) -> None:
        """Remove points."""

    @abstractmethod
    def _index_field(self, name: str, numbers: bool) -> None:
        """Make an index of a payload's field; nothing happens where there is one."""

    # -- documents ------------------------------------------------------------

    def _there(self) -> Description:
        if self._description is None:
            raise EngineError(f"There is nothing in {self.location}.")
        return self._description

    def add(self, rows: Rows) -> None:
        """Store documents, in place of those with the same ids."""
        points = []
        fields: set[str] = set()
        for i, (name, values) in enumerate(zip(rows.ids.tolist(), rows.metadata, strict=True)):
            flat = flatten(values)
            # Qdrant orders numbers alone.
            bounds = {
                side: {key: value for key, value in getattr(flat, side).items() if key.startswith("number_")}
                for side in ("low", "high")
            }
            fields.update(f"{side}.{key}" for side, found in bounds.items() for key in found)
            vectors: dict[str, Any] = {FDE: rows.vectors[i].tolist()}
            if rows.tokens is not None:
                if rows.tokens[i].size > _MULTIVECTOR:
                    raise ValueError(
                        f"Document {name!r} has {len(rows.tokens[i])} tokens: Qdrant takes "
                        f"{_MULTIVECTOR // rows.tokens.dimension} of {rows.tokens.dimension} numbers. Pool them, as "
                        "`muvera convert --pool` does, or cut the document."
                    )
                vectors[TOKENS] = rows.tokens[i].astype(np.float32).tolist()
            payload = {"id": name, "metadata": dict(values), "terms": flat.terms, **bounds}
            points.append((qdrant_id(name), vectors, payload))
        for name in sorted(fields):
            self._index_field(name, True)
        self._upsert(points)

    def existing(self, ids: Ids) -> set[Any]:
        """Return those of some ids that are there."""
        found = self._retrieve([qdrant_id(name) for name in ids.tolist()], ["id"], False)
        return {point.payload["id"] for point in found}

    def delete(self, ids: Ids) -> None:
        """Remove documents."""
        if len(ids):
            self._remove([qdrant_id(name) for name in ids.tolist()])

    def metadata(self, ids: Sequence[Any]) -> dict[Any, dict[str, Any]]:
        """Return the metadata of documents by id."""
        found = self._retrieve([qdrant_id(name) for name in ids], ["id", "metadata"], False)
        return {point.payload["id"]: point.payload["metadata"] for point in found}

    def tokens(self, ids: Sequence[Any]) -> MultiVectors:
        """Return the tokens of those documents that are there."""
        return self._texts(self._retrieve([qdrant_id(name) for name in ids], ["id"], True))

    def all_tokens(self) -> Iterator[MultiVectors]:
        """Yield the tokens of all documents."""
        offset: Any = None
        while True:
            points, offset = self._scroll(_BATCH, offset)
            if points:
                yield self._texts(points)
            if offset is None:
                return

    def _texts(self, points: list[Point]) -> MultiVectors:
        width = self._there().token_dimension
        arrays = [np.asarray(point.tokens, np.float16).reshape(-1, width) for point in points]
        ids = [point.payload["id"] for point in points]
        return MultiVectors.from_arrays(arrays, ids=ids or None, dimension=width)

    # -- searching ------------------------------------------------------------

    def search(self, vectors: NDArray[np.float32], options: SearchOptions) -> Found:
        """Return the documents of the largest inner products for each query."""
        return self._query(vectors, None, options.count, self._condition(options), options)

    def search_and_rank(
        self, vectors: NDArray[np.float32], queries: MultiVectors, k: int, options: SearchOptions
    ) -> Found:
        """Return the `k` best by Chamfer similarity of what the vectors propose, in one call."""
        if not self._there().tokens:
            raise EngineError(f"{self.location} keeps no tokens to rank by. Use rerank=None.")
        return self._query(vectors, queries, k, self._condition(options), options)

    def _condition(self, options: SearchOptions) -> Any:
        return build_condition(options.where, _Conditions(self._models)) if options.where else None


class _Conditions:
    """Builds Qdrant's filters; each is a whole filter, which may stand inside another."""

    def __init__(self, models: Models) -> None:
        self._models = models

    def all_of(self, parts: list[Any]) -> Any:
        return self._models.filter(must=parts)

    def any_of(self, parts: list[Any]) -> Any:
        # An empty "should" holds always.
        return self._models.filter(should=parts) if parts else self._has_any(["nothing has this term"])

    def negation(self, part: Any) -> Any:
        return self._models.filter(must_not=[part])

    def exists(self, field: str) -> Any:
        return self._has_any([present_term(field)])

    def any_equal(self, field: str, values: list[Any]) -> Any:
        return self._has_any([value_term(field, value) for value in values]) if values else self.any_of([])

    def _has_any(self, terms: list[str]) -> Any:
        condition = self._models.field(key="terms", match=self._models.match_any(any=terms))
        return self._models.filter(must=[condition])

    def order(self, field: str, name: str, value: Any) -> Any:
        if isinstance(value, str):
            raise FilterError(
                f"Qdrant orders numbers, and {name} of {field!r} is given a string. Store a number, such as a year."
            )
        side = "high" if name in ("$gt", "$gte") else "low"
        limits = self._models.range(**{name[1:]: float(value)})
        condition = self._models.field(key=f"{side}.{bound_name(field, value)}", range=limits)
        return self._models.filter(must=[condition])
