"""QdrantEngine and QdrantEdgeEngine: a Qdrant server, and Qdrant's engine in this process."""

from __future__ import annotations

import base64
import os
import shutil
import uuid
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import SplitResult, unquote

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors
from ..metadata.filters import FilterError, build_condition
from ..metadata.values import bound_name, flatten, present_term, value_term
from ..utils.atomic_files import atomic_folder
from ..utils.optional_imports import import_extra
from .base import Description, Engine, EngineError, Hits, Metadata, SearchOptions, encoder_parts, folder_of

__all__ = ["QdrantEdgeEngine", "QdrantEngine", "qdrant_id"]

# Names of a point's vectors.
_FDE, _TOKENS = "fde", "tokens"

# Points per upsert, documents per batch when all tokens are read, and seconds of one request.
_POINTS, _BATCH, _TIMEOUT = 64, 256, 60

# Numbers in one multivector, at most.
_MULTIVECTOR = 1 << 20

# Files of a Qdrant Edge collection.
_DESCRIPTION, _ENCODER, _SHARD = "collection.json", "encoder.bin", "shard"


def qdrant_id(id: Any) -> int | str:
    """Return the point id of a document's id: an unsigned integer or a UUID.

    Other ids become the UUID of version 5 of their text.
    """
    if isinstance(id, int) and 0 <= id < 1 << 64:
        return id
    try:
        return str(uuid.UUID(str(id)))
    except ValueError:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, str(id)))


class _Models(NamedTuple):
    """Condition classes, which client and engine define separately."""

    filter: Any
    field: Any
    match_any: Any
    range: Any
    has_id: Any


class _Qdrant(Engine):
    """Base class of both engines.

    A point has the vector "fde", the multivector "tokens" in half precision, and as payload the id, the metadata,
    its terms and its least and greatest numbers.  These are indexed, because Qdrant's graph loses documents under
    a condition on unindexed fields.
    """

    kind = "qdrant"
    keeps_tokens = True
    reranks = True
    precisions = {"float32": 65_535, "float16": 65_535}  # noqa: RUF012 (Qdrant: FAQ)

    _models: _Models

    def __init__(self, url: str, name: str, secret: str | None = None) -> None:
        super().__init__(url, name, secret)
        self._indexed: set[str] = set()

    # -- differences between server and Edge ----------------------------------

    @abstractmethod
    def _upsert(self, points: list[tuple[Any, dict[str, Any], dict[str, Any]]]) -> None: ...

    @abstractmethod
    def _retrieve(self, ids: list[Any], column: str) -> list[Any]: ...

    @abstractmethod
    def _scroll(self, offset: Any) -> tuple[list[Any], Any]: ...

    @abstractmethod
    def _query(
        self,
        vectors: NDArray[np.float32],
        options: SearchOptions,
        queries: MultiVectors | None,
        condition: Any,
    ) -> Hits: ...

    @abstractmethod
    def _remove(self, ids: list[Any]) -> None: ...

    @abstractmethod
    def _index_field(self, name: str, numbers: bool) -> None: ...

    # -- documents ------------------------------------------------------------

    def add(
        self, ids: list[Any], vectors: NDArray[np.float32], metadata: Metadata, tokens: MultiVectors | None
    ) -> None:
        """Store documents and replace those with the same ids."""
        points = []
        fields: set[str] = set()
        for i, (id, values) in enumerate(zip(ids, metadata, strict=True)):
            flat = flatten(values)
            # Qdrant orders numbers only.
            bounds = {
                side: {
                    name: value for name, value in getattr(flat, side).items() if name.startswith("number_")
                }
                for side in ("low", "high")
            }
            fields.update(f"{side}.{name}" for side, numbers in bounds.items() for name in numbers)
            named: dict[str, Any] = {_FDE: vectors[i].tolist()}
            if tokens is not None:
                own = tokens[i]
                if own.size > _MULTIVECTOR:
                    raise ValueError(
                        f"Document {id!r} has {len(own)} tokens, but Qdrant takes at most "
                        f"{_MULTIVECTOR // own.shape[1]} of {own.shape[1]} columns. Pool them with `muvera "
                        "convert --pooling`, or split the document."
                    )
                named[_TOKENS] = own.astype(np.float32).tolist()
            payload = {"id": id, "metadata": dict(values), "terms": flat.terms, **bounds}
            points.append((qdrant_id(id), named, payload))
        with self._errors("did not accept documents"):
            for name in sorted(fields - self._indexed):
                self._index_field(name, True)
                self._indexed.add(name)
            self._upsert(points)

    def delete(self, ids: list[Any]) -> None:
        """Delete documents."""
        with self._errors("did not delete documents"):
            self._remove([qdrant_id(id) for id in ids])

    def _read(self, ids: list[Any], column: str) -> list[tuple[Any, Any]]:
        with self._errors("cannot be read"):
            return [
                _value(record, column) for record in self._retrieve([qdrant_id(id) for id in ids], column)
            ]

    def _token_batches(self) -> Iterator[list[tuple[Any, Any]]]:
        offset: Any = None
        while True:
            with self._errors("cannot be read"):
                records, offset = self._scroll(offset)
            yield [_value(record, _TOKENS) for record in records]
            if offset is None:
                return

    # -- searching ------------------------------------------------------------

    def search(
        self, vectors: NDArray[np.float32], options: SearchOptions, queries: MultiVectors | None = None
    ) -> Hits:
        """Return the best documents of each query, by vectors or ranked by tokens, in one call."""
        builder = _QdrantConditions(self._models)
        conditions = [build_condition(options.where, builder)] if options.where else []
        if options.ids is not None:
            points = self._models.has_id([qdrant_id(id) for id in options.ids])
            conditions.append(self._models.filter(must=[points]))
        condition = builder.all_of(conditions) if conditions else None
        with self._errors("cannot be searched"):
            return self._query(vectors, options, queries, condition) if len(vectors) else []


class QdrantEngine(_Qdrant):
    """A collection of a Qdrant server, through qdrant-client.

    Parameters
    ----------
    client : qdrant_client.QdrantClient
    name : str
        Name of the collection.
    url : str
        Of the server, for messages.
    secret : str, optional
        A key that messages must not contain.

    Raises
    ------
    ImportError
        Without qdrant-client.
    """

    def __init__(self, client: Any, name: str, url: str = "qdrant", secret: str | None = None) -> None:
        super().__init__(url, name, secret)
        models = import_extra("qdrant_client", "qdrant", "Qdrant").models
        self._client, self._library = client, models
        self._models = _Models(
            models.Filter, models.FieldCondition, models.MatchAny, models.Range,
            lambda ids: models.HasIdCondition(has_id=ids),
        )  # fmt: skip

    @classmethod
    def from_url(cls, url: SplitResult, name: str) -> QdrantEngine:
        """Open ``qdrant://HOST:PORT#NAME``; ``qdrants`` uses TLS, with the key as password."""
        library = import_extra("qdrant_client", "qdrant", "Qdrant")
        key = unquote(url.password) if url.password else os.environ.get("QDRANT_API_KEY")
        server = f"{url.hostname or 'localhost'}:{url.port or 6333}"
        client = library.QdrantClient(
            url=f"{'https' if url.scheme == 'qdrants' else 'http'}://{server}",
            api_key=key,
            timeout=_TIMEOUT,
            check_compatibility=False,
        )
        return cls(client, name, f"{url.scheme}://{server}", key)

    # -- the collection -------------------------------------------------------

    def _existing_names(self) -> set[str]:
        return {name for name in (self.name, self._encoder_name) if self._client.collection_exists(name)}

    def _read_parts(self, start: int, stop: int | None) -> list[bytes]:
        if stop is None:
            stop = self._client.count(self._encoder_name, exact=True).count
        parts = []
        for number in range(start, stop):
            points = self._client.retrieve(self._encoder_name, ids=[number], with_payload=True)
            parts += [base64.b64decode(point.payload["content"]) for point in points]
        return parts

    def _change(self, names: set[str]) -> str | None:
        if self.name not in names:
            return "has an encoder but no documents"
        vectors = self._client.get_collection(self.name).config.params.vectors
        fde = vectors.get(_FDE) if isinstance(vectors, dict) else None
        size, expected = getattr(fde, "size", 0), self.stored.vector_dimension
        return None if size == expected else f"has vectors {_FDE!r} of {size} floats, not {expected}"

    def create(self, description: Description, encoder: bytes) -> None:
        """Create an empty collection that stores the encoder; the description is written last."""
        if self.describe() is not None:
            raise EngineError(f"{self.location} exists. Give another name, or drop it.")
        models, graph = self._library, description.graph
        vectors = {
            _FDE: models.VectorParams(
                size=description.vector_dimension,
                distance=models.Distance.DOT,
                hnsw_config=models.HnswConfigDiff(m=graph.m, ef_construct=graph.ef_construction),
                datatype=models.Datatype.FLOAT16 if description.precision == "float16" else None,
            )
        }
        if description.tokens:
            vectors[_TOKENS] = models.VectorParams(
                size=description.token_dimension,
                distance=models.Distance.DOT,
                datatype=models.Datatype.FLOAT16,
                on_disk=True,
                hnsw_config=models.HnswConfigDiff(
                    m=0
                ),  # no graph over tokens: the first-stage vectors find the candidates
                multivector_config=models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM),
            )
        with self._errors("cannot be created"):
            for leftover in (self.name, self._encoder_name):
                self._client.delete_collection(leftover)
            self._client.create_collection(self._encoder_name, vectors_config={})
            self._client.create_collection(
                self.name,
                vectors_config=vectors,
                optimizers_config=models.OptimizersConfigDiff(indexing_threshold=_kilobytes(description)),
            )
            self._index_field("terms", False)
            parts = [description.to_json(), *encoder_parts(encoder)]
            for number in [*range(1, len(parts)), 0]:
                payload = {"content": base64.b64encode(parts[number]).decode()}
                point = models.PointStruct(id=number, vector={}, payload=payload)
                self._client.upsert(self._encoder_name, [point], wait=True)
        self.description = description

    def drop(self) -> None:
        """Remove the collection."""
        with self._errors("cannot be removed"):
            for name in (self.name, self._encoder_name):
                self._client.delete_collection(name)
        self.description, self._indexed = None, set()

    def close(self) -> None:
        """Close the client."""
        self._client.close()

    def __len__(self) -> int:
        with self._errors("cannot be read"):
            return int(self._client.count(self.name, exact=True).count)

    # -- points ---------------------------------------------------------------

    def _upsert(self, points: list[tuple[Any, dict[str, Any], dict[str, Any]]]) -> None:
        structs = [
            self._library.PointStruct(id=id, vector=vectors, payload=payload)
            for id, vectors, payload in points
        ]
        for start in range(0, len(structs), _POINTS):
            self._client.upsert(self.name, structs[start : start + _POINTS], wait=True)

    def _retrieve(self, ids: list[Any], column: str) -> list[Any]:
        payload, vectors = _selection(column)
        records: list[Any] = self._client.retrieve(self.name, ids, with_payload=payload, with_vectors=vectors)
        return records

    def _scroll(self, offset: Any) -> tuple[list[Any], Any]:
        payload, vectors = _selection(_TOKENS)
        records, after = self._client.scroll(
            self.name, limit=_BATCH, offset=offset, with_payload=payload, with_vectors=vectors
        )
        return records, after

    def _query(
        self,
        vectors: NDArray[np.float32],
        options: SearchOptions,
        queries: MultiVectors | None,
        condition: Any,
    ) -> Hits:
        models = self._library
        params = models.SearchParams(hnsw_ef=options.ef)
        limit = options.count if queries is None else options.k
        requests = []
        for i, vector in enumerate(vectors.tolist()):
            first: dict[str, Any] = {"query": vector, "using": _FDE, "params": params, "filter": condition}
            if queries is not None:
                proposed = models.Prefetch(**first, limit=options.count)
                tokens = queries[i].astype(np.float32).tolist()
                first = {"prefetch": proposed, "query": tokens, "using": _TOKENS}
            requests.append(models.QueryRequest(**first, limit=limit, with_payload=["id"]))
        answers = self._client.query_batch_points(self.name, requests=requests)
        return [_hits(answer.points) for answer in answers]

    def _remove(self, ids: list[Any]) -> None:
        points = self._library.PointIdsList(points=ids)
        self._client.delete(self.name, points_selector=points, wait=True)

    def _index_field(self, name: str, numbers: bool) -> None:
        kinds = self._library.PayloadSchemaType
        kind = kinds.FLOAT if numbers else kinds.KEYWORD
        self._client.create_payload_index(self.name, field_name=name, field_schema=kind, wait=True)


class QdrantEdgeEngine(_Qdrant):
    """A collection in a folder, opened by one process at a time.

    Parameters
    ----------
    path : path
        Folder that holds a folder for each collection.
    name : str
        Name of the collection.

    Raises
    ------
    ImportError
        Without qdrant-edge-py.
    """

    def __init__(self, path: Path | str, name: str) -> None:
        super().__init__(f"qdrant-edge:{path}", name)
        edge = import_extra("qdrant_edge", "qdrant-edge", "Qdrant Edge")
        self._edge, self._folder = edge, Path(path) / name
        self._models = _Models(
            edge.Filter, edge.FieldCondition, edge.MatchAny, edge.RangeFloat,
            lambda ids: edge.HasIdCondition(set(ids)),
        )  # fmt: skip
        self._shard: Any = None

    @classmethod
    def from_url(cls, url: SplitResult, name: str) -> QdrantEdgeEngine:
        """Open ``qdrant-edge:FOLDER#NAME``."""
        return cls(folder_of(url), name)

    # -- the collection -------------------------------------------------------

    def _existing_names(self) -> set[str]:
        if (self._folder / _DESCRIPTION).is_file():
            return {self.name, self._encoder_name}
        return {self.name} if self._folder.exists() and any(self._folder.iterdir()) else set()

    def _read_parts(self, start: int, stop: int | None) -> list[bytes]:
        return [(self._folder / name).read_bytes() for name in (_DESCRIPTION, _ENCODER)[start:stop]]

    def _change(self, names: set[str]) -> str | None:
        if self._shard is None:
            self._shard = self._edge.EdgeShard.load(str(self._folder / _SHARD), self._settings(self.stored))
        return None

    def _settings(self, description: Description) -> Any:
        edge, graph = self._edge, description.graph
        types = edge.VectorStorageDatatype
        vectors = {
            _FDE: edge.EdgeVectorParams(
                size=description.vector_dimension,
                distance=edge.Distance.Dot,
                datatype=types.Float16 if description.precision == "float16" else types.Float32,
            )
        }
        if description.tokens:
            vectors[_TOKENS] = edge.EdgeVectorParams(
                size=description.token_dimension,
                distance=edge.Distance.Dot,
                datatype=types.Float16,
                multivector_config=edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim),
                # No graph over tokens: the first-stage vectors find the candidates.
                hnsw_config=edge.HnswIndexConfig(m=0, ef_construct=4, full_scan_threshold=10_000),
            )
        return edge.EdgeConfig(
            vectors=vectors,
            hnsw_config=edge.HnswIndexConfig(
                m=graph.m, ef_construct=graph.ef_construction, full_scan_threshold=10_000
            ),
            optimizers=edge.EdgeOptimizersConfig(indexing_threshold=_kilobytes(description)),
        )

    def create(self, description: Description, encoder: bytes) -> None:
        """Create a folder with an empty collection and the encoder, completely or not at all."""
        with self._errors("cannot be created"):
            self._folder.parent.mkdir(parents=True, exist_ok=True)
            with atomic_folder(self._folder, False) as folder:
                (folder / _SHARD).mkdir()
                self._shard = self._edge.EdgeShard.create(str(folder / _SHARD), self._settings(description))
                self._index_field("terms", False)
                self._shard.flush()
                self.close()
                (folder / _ENCODER).write_bytes(encoder)
                (folder / _DESCRIPTION).write_bytes(description.to_json())
        self.describe()

    def finish(self) -> None:
        """Build the graph, and write everything to disk."""
        with self._errors("could not be indexed"):
            self._shard.optimize()
            self._shard.flush()

    def drop(self) -> None:
        """Remove the folder."""
        if self.describe() is not None:
            self.close()
            shutil.rmtree(self._folder)
        self.description, self._indexed = None, set()

    def close(self) -> None:
        """Close the shard."""
        if self._shard is not None:
            self._shard.close()
            self._shard = None

    def __len__(self) -> int:
        return int(self._shard.count(self._edge.CountRequest(exact=True)))

    # -- points ---------------------------------------------------------------

    def _upsert(self, points: list[tuple[Any, dict[str, Any], dict[str, Any]]]) -> None:
        records = [self._edge.Point(id, vectors, payload) for id, vectors, payload in points]
        self._shard.update(self._edge.UpdateOperation.upsert_points(records))

    def _retrieve(self, ids: list[Any], column: str) -> list[Any]:
        if not ids:
            return []
        condition = self._edge.Filter(must=[self._models.has_id(ids)])
        return self._records(column, limit=len(ids), filter=condition)[0]

    def _scroll(self, offset: Any) -> tuple[list[Any], Any]:
        return self._records(_TOKENS, limit=_BATCH, offset=offset)

    def _records(self, column: str, **options: Any) -> tuple[list[Any], Any]:
        payload, vectors = _selection(column)
        selector = self._edge.PayloadSelector.Include(payload)
        records, after = self._shard.scroll(
            self._edge.ScrollRequest(with_payload=selector, with_vector=vectors, **options)
        )
        return records, after

    def _query(
        self,
        vectors: NDArray[np.float32],
        options: SearchOptions,
        queries: MultiVectors | None,
        condition: Any,
    ) -> Hits:
        edge = self._edge
        params = edge.SearchParams(hnsw_ef=options.ef)
        limit = options.count if queries is None else options.k
        payload = edge.PayloadSelector.Include(["id"])
        requests = []
        for i, vector in enumerate(vectors.tolist()):
            nearest = edge.Query.Nearest(vector, _FDE)
            first: dict[str, Any] = {"query": nearest, "params": params, "filter": condition}
            if queries is not None:
                proposed = edge.Prefetch(options.count, nearest, params=params, filter=condition)
                tokens = edge.Query.Nearest(queries[i].astype(np.float32).tolist(), _TOKENS)
                first = {"query": tokens, "prefetches": [proposed]}
            requests.append(edge.QueryRequest(limit=limit, with_payload=payload, with_vector=False, **first))
        return [_hits(points) for points in self._shard.query_batch(edge.QueryBatchRequest(requests))]

    def _remove(self, ids: list[Any]) -> None:
        self._shard.update(self._edge.UpdateOperation.delete_points(ids))

    def _index_field(self, name: str, numbers: bool) -> None:
        kinds = self._edge.PayloadSchemaType
        kind = kinds.Float if numbers else kinds.Keyword
        self._shard.update(self._edge.UpdateOperation.create_field_index(name, kind))

    def size_bytes(self) -> int | None:
        """Return the bytes that the collection's files occupy on disk; sparse files are shorter than their length."""
        return sum(512 * path.stat().st_blocks for path in self._folder.rglob("*") if path.is_file())


class _QdrantConditions:
    """Builder of Qdrant filters; each condition is a whole filter, which may be nested."""

    def __init__(self, models: _Models) -> None:
        self._models = models

    def all_of(self, parts: list[Any]) -> Any:
        return self._models.filter(must=parts)

    def any_of(self, parts: list[Any]) -> Any:
        # An empty "should" is always true.
        return self._models.filter(should=parts) if parts else self._has_any(["no document has this term"])

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
                f"Qdrant orders only numbers, but {name} of {field!r} is a string. Store a number."
            )
        if isinstance(value, int) and abs(value) > 2**53:
            raise FilterError(
                f"Qdrant compares numbers as floats, which {value} exceeds. Store a smaller number."
            )
        side = "high" if name in ("$gt", "$gte") else "low"
        limits = self._models.range(**{name[1:]: float(value)})
        condition = self._models.field(key=f"{side}.{bound_name(field, value)}", range=limits)
        return self._models.filter(must=[condition])


def _selection(column: str) -> tuple[list[str], Any]:
    """Return the fields of the payload and the vectors to read for a column."""
    return (["id"], [_TOKENS]) if column == _TOKENS else (["id", column], False)


def _value(record: Any, column: str) -> tuple[Any, Any]:
    return record.payload["id"], record.vector[_TOKENS] if column == _TOKENS else record.payload[column]


def _hits(points: list[Any]) -> tuple[list[Any], NDArray[np.float32]]:
    return [point.payload["id"] for point in points], np.array([point.score for point in points], np.float32)


def _kilobytes(description: Description) -> int:
    """Return the size of vectors in kilobytes from which Qdrant builds a graph."""
    return max(1, description.graph.from_documents * description.vector_dimension * 4 // 1024)
