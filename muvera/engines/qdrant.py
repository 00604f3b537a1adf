"""QdrantEngine and QdrantEdgeEngine: a Qdrant server, and Qdrant's engine in this process."""

from __future__ import annotations

import base64
import os
import shutil
import uuid
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote

import numpy as np

from ..data.multivectors import MultiVectors
from ..metadata.filters import FilterError
from ..utils.atomic_files import write_bytes
from ..utils.optional_imports import import_extra
from .base import Column, Description, Engine, EngineError, Hits, Row, Vectors, folder_of
from .conditions import Conditions

__all__ = ["QdrantEdgeEngine", "QdrantEngine", "qdrant_id"]

# Names of a point's vectors.
_FDE, _TOKENS = "fde", "tokens"

# Points per request, seconds of one request, and numbers in one multivector, at most.
_POINTS, _TIMEOUT, _MULTIVECTOR = 64, 60, 1 << 20

_RANGES = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}


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

    # Classes of the client or of the engine, which name ranges differently and take ids differently.
    _models: Any
    _range: Any
    _has_id: Any

    def __init__(self, url: str, name: str, secret: str | None = None) -> None:
        super().__init__(url, name, secret)
        self._indexed: set[str] = set()

    # -- differences between server and Edge ----------------------------------

    @abstractmethod
    def _upsert(self, points: list[tuple[Any, dict[str, Any], dict[str, Any]]]) -> None: ...

    @abstractmethod
    def _scroll(
        self, condition: Any, offset: Any, payload: list[str], vectors: Any
    ) -> tuple[list[Any], Any]: ...

    @abstractmethod
    def _request(self, vector: Any, tokens: Any, condition: Any, count: int, ef: int, k: int) -> Any: ...

    @abstractmethod
    def _query(self, requests: list[Any]) -> Iterator[Any]: ...

    @abstractmethod
    def _index_field(self, name: str, numbers: bool) -> None: ...

    # -- documents ------------------------------------------------------------

    def _write(self, rows: list[Row]) -> None:
        points = []
        fields: set[str] = set()
        for row in rows:
            # Qdrant orders numbers only.
            bounds = {name: value for name, value in row.flat.bounds.items() if not isinstance(value, str)}
            fields.update(f"bounds.{name}" for name in bounds)
            payload = {"id": row.id, "metadata": row.metadata, "terms": row.flat.terms, "bounds": bounds}
            vectors: dict[str, Any] = {_FDE: row.vector.tolist()}
            if row.tokens is not None:
                if row.tokens.size > _MULTIVECTOR:
                    width = row.tokens.shape[1]
                    raise EngineError(
                        f"Document {row.id!r} has {len(row.tokens)} tokens, but Qdrant takes at most "
                        f"{_MULTIVECTOR // width} of {width} columns. Pool them with `muvera convert --pooling`, or "
                        "split the document."
                    )
                vectors[_TOKENS] = row.tokens.astype(np.float32).tolist()
            points.append((qdrant_id(row.id), vectors, payload))
        for name in sorted(fields - self._indexed):
            self._index_field(name, True)
            self._indexed.add(name)
        self._upsert(points)

    def _rows(self, condition: Any, column: Column) -> Iterator[tuple[Any, Any]]:
        fields: list[str] = ["id"] if column == _TOKENS else ["id", column]
        vectors = [_TOKENS] if column == _TOKENS else False
        offset: Any = None
        while True:
            records, offset = self._scroll(condition, offset, fields, vectors)
            for record in records:
                value = record.vector[_TOKENS] if column == _TOKENS else record.payload[column]
                yield record.payload["id"], value
            if offset is None:
                return

    def _builder(self) -> Conditions:
        return _QdrantConditions(self._models, self._range, self._has_id)

    def _search(
        self, vectors: Vectors, condition: Any, count: int, ef: int, queries: MultiVectors | None, k: int
    ) -> Hits:
        requests = []
        for i, vector in enumerate(vectors.tolist()):
            tokens = None if queries is None else queries[i].astype(np.float32).tolist()
            requests.append(self._request(vector, tokens, condition, count, ef, k))
        return [
            ([point.payload["id"] for point in points], [point.score for point in points])
            for points in self._query(requests)
        ]


class QdrantEngine(_Qdrant):
    """A collection of a Qdrant server, which `client`, a ``qdrant_client.QdrantClient``, is connected to."""

    def __init__(self, client: Any, name: str, url: str = "qdrant", secret: str | None = None) -> None:
        super().__init__(url, name, secret)
        models = import_extra("qdrant_client", "qdrant", "Qdrant").models
        self._client, self._models, self._range = client, models, models.Range
        self._has_id = lambda ids: models.HasIdCondition(has_id=ids)

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

    def _open(self, stored: Description) -> int:
        vectors = self._client.get_collection(self.name).config.params.vectors
        return getattr(vectors.get(_FDE), "size", 0) if isinstance(vectors, dict) else 0

    def _create(self, description: Description) -> None:
        models, graph = self._models, description.graph
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
                # No graph over tokens: the first-stage vectors find the candidates.
                hnsw_config=models.HnswConfigDiff(m=0),
                multivector_config=models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM),
            )
        self._client.create_collection(self._encoder_name, vectors_config={})
        optimizers = models.OptimizersConfigDiff(indexing_threshold=_kilobytes(description))
        self._client.create_collection(self.name, vectors_config=vectors, optimizers_config=optimizers)
        self._index_field("terms", False)

    def _drop(self) -> None:
        for name in (self.name, self._encoder_name):
            self._client.delete_collection(name)
        self._indexed = set()

    def _read_parts(self, start: int, stop: int | None) -> list[bytes]:
        if stop is None:
            stop = self._client.count(self._encoder_name, exact=True).count
        parts = []
        for number in range(start, stop):
            points = self._client.retrieve(self._encoder_name, ids=[number], with_payload=True)
            parts += [base64.b64decode(point.payload["content"]) for point in points]
        return parts

    def _write_parts(self, start: int, parts: list[bytes]) -> None:
        for number, part in enumerate(parts, start):
            payload = {"content": base64.b64encode(part).decode()}
            point = self._models.PointStruct(id=number, vector={}, payload=payload)
            self._client.upsert(self._encoder_name, [point], wait=True)

    def close(self) -> None:
        """Close the client."""
        self._client.close()

    # -- points ---------------------------------------------------------------

    def _upsert(self, points: list[tuple[Any, dict[str, Any], dict[str, Any]]]) -> None:
        structs = [
            self._models.PointStruct(id=id, vector=vectors, payload=payload)
            for id, vectors, payload in points
        ]
        for start in range(0, len(structs), _POINTS):
            self._client.upsert(self.name, structs[start : start + _POINTS], wait=True)

    def _delete(self, condition: Any) -> None:
        selector = self._models.FilterSelector(filter=condition)
        self._client.delete(self.name, points_selector=selector, wait=True)

    def _count(self) -> int:
        return int(self._client.count(self.name, exact=True).count)

    def _scroll(self, condition: Any, offset: Any, payload: list[str], vectors: Any) -> tuple[list[Any], Any]:
        records, after = self._client.scroll(
            self.name,
            scroll_filter=condition,
            offset=offset,
            limit=_POINTS,
            with_payload=payload,
            with_vectors=vectors,
        )
        return records, after

    def _request(self, vector: Any, tokens: Any, condition: Any, count: int, ef: int, k: int) -> Any:
        models = self._models
        params = models.SearchParams(hnsw_ef=ef)
        query = {"query": vector, "using": _FDE, "params": params, "filter": condition, "limit": count}
        if tokens is not None:
            query = {"prefetch": models.Prefetch(**query), "query": tokens, "using": _TOKENS, "limit": k}
        return models.QueryRequest(**query, with_payload=["id"])

    def _query(self, requests: list[Any]) -> Iterator[Any]:
        answers = self._client.query_batch_points(self.name, requests=requests)
        return (answer.points for answer in answers)

    def _index_field(self, name: str, numbers: bool) -> None:
        kinds = self._models.PayloadSchemaType
        kind = kinds.FLOAT if numbers else kinds.KEYWORD
        self._client.create_payload_index(self.name, field_name=name, field_schema=kind, wait=True)


class QdrantEdgeEngine(_Qdrant):
    """A collection in the folder `name` of the folder `path`, opened by one process at a time."""

    def __init__(self, path: Path | str, name: str) -> None:
        super().__init__(f"qdrant-edge:{path}", name)
        edge = import_extra("qdrant_edge", "qdrant-edge", "Qdrant Edge")
        self._models, self._range = edge, edge.RangeFloat
        self._has_id = lambda ids: edge.HasIdCondition(set(ids))
        self._folder = Path(path) / name
        # A file of the description (part 0) and of each part of the encoder, and the folder of the engine.
        self._parts, self._data = self._folder / "muvera-encoder", self._folder / "shard"
        self._shard: Any = None

    @classmethod
    def from_url(cls, url: SplitResult, name: str) -> QdrantEdgeEngine:
        """Open ``qdrant-edge:FOLDER#NAME``."""
        return cls(folder_of(url), name)

    # -- the collection -------------------------------------------------------

    def _existing_names(self) -> set[str]:
        if self._parts.is_dir():
            return {self.name, self._encoder_name}
        return {self.name} if self._folder.exists() and any(self._folder.iterdir()) else set()

    def _open(self, stored: Description) -> int:
        if self._shard is None:
            self._shard = self._models.EdgeShard.load(str(self._data), self._settings(stored))
        return stored.vector_dimension

    def _settings(self, description: Description) -> Any:
        edge, graph = self._models, description.graph
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

    def _create(self, description: Description) -> None:
        for folder in (self._parts, self._data):
            folder.mkdir(parents=True)
        self._shard = self._models.EdgeShard.create(str(self._data), self._settings(description))
        self._index_field("terms", False)
        self._shard.flush()

    def _drop(self) -> None:
        self.close()
        if self._parts.is_dir():  # removed last, so that the folder is ours until then
            shutil.rmtree(self._data, ignore_errors=True)
            shutil.rmtree(self._folder)
        self._indexed = set()

    def _read_parts(self, start: int, stop: int | None) -> list[bytes]:
        names = sorted((path.name for path in self._parts.iterdir() if path.name.isdigit()), key=int)
        return [
            (self._parts / name).read_bytes() for name in names if start <= int(name) < (stop or len(names))
        ]

    def _write_parts(self, start: int, parts: list[bytes]) -> None:
        for number, part in enumerate(parts, start):
            write_bytes(self._parts / str(number), part)

    def finish(self) -> None:
        """Build the graph, and write everything to disk."""
        with self._errors("could not be indexed"):
            self._shard.optimize()
            self._shard.flush()

    def close(self) -> None:
        """Close the shard."""
        if self._shard is not None:
            self._shard.close()
            self._shard = None

    # -- points ---------------------------------------------------------------

    def _upsert(self, points: list[tuple[Any, dict[str, Any], dict[str, Any]]]) -> None:
        records = [self._models.Point(id, vectors, payload) for id, vectors, payload in points]
        self._shard.update(self._models.UpdateOperation.upsert_points(records))

    def _delete(self, condition: Any) -> None:
        self._shard.update(self._models.UpdateOperation.delete_points_by_filter(condition))

    def _count(self) -> int:
        return int(self._shard.count(self._models.CountRequest(exact=True)))

    def _scroll(self, condition: Any, offset: Any, payload: list[str], vectors: Any) -> tuple[list[Any], Any]:
        request = self._models.ScrollRequest(
            filter=condition,
            offset=offset,
            limit=_POINTS,
            with_payload=self._models.PayloadSelector.Include(payload),
            with_vector=vectors,
        )
        records, after = self._shard.scroll(request)
        return records, after

    def _request(self, vector: Any, tokens: Any, condition: Any, count: int, ef: int, k: int) -> Any:
        edge = self._models
        nearest, params = edge.Query.Nearest(vector, _FDE), edge.SearchParams(hnsw_ef=ef)
        query = {"query": nearest, "params": params, "filter": condition, "limit": count}
        if tokens is not None:
            nearest = edge.Query.Nearest(tokens, _TOKENS)
            query = {"query": nearest, "prefetches": [edge.Prefetch(**query)], "limit": k}
        payload = edge.PayloadSelector.Include(["id"])
        return edge.QueryRequest(**query, with_payload=payload, with_vector=False)

    def _query(self, requests: list[Any]) -> Iterator[Any]:
        return iter(self._shard.query_batch(self._models.QueryBatchRequest(requests)))

    def _index_field(self, name: str, numbers: bool) -> None:
        kinds = self._models.PayloadSchemaType
        kind = kinds.Float if numbers else kinds.Keyword
        self._shard.update(self._models.UpdateOperation.create_field_index(name, kind))

    def size_bytes(self) -> int | None:
        """Return the bytes that the collection's files occupy on disk; sparse files are shorter than their length."""
        return sum(512 * path.stat().st_blocks for path in self._folder.rglob("*") if path.is_file())


class _QdrantConditions(Conditions):
    """Builder of Qdrant filters; each condition is a whole filter, which may be nested."""

    def __init__(self, models: Any, make_range: Any, has_id: Any) -> None:
        self._models, self._range, self._has_id = models, make_range, has_id

    def join(self, word: str, parts: list[Any]) -> Any:
        return self._models.Filter(must=parts) if word == "and" else self._models.Filter(should=parts)

    def negate(self, part: Any) -> Any:
        return self._models.Filter(must_not=[part])

    def has_any(self, terms: list[str]) -> Any:
        match = self._models.MatchAny(any=terms)
        return self._models.Filter(must=[self._models.FieldCondition(key="terms", match=match)])

    def compare(self, bound: str, sign: str, value: Any) -> Any:
        if isinstance(value, str):
            raise FilterError(f"Qdrant orders numbers, not strings, got {value!r:.80}. Store a number.")
        if isinstance(value, int) and abs(value) > 2**53:
            raise FilterError(
                f"Qdrant compares numbers as floats, which {value} exceeds. Store a smaller number."
            )
        limits = self._range(**{_RANGES[sign]: float(value)})
        return self._models.Filter(must=[self._models.FieldCondition(key=f"bounds.{bound}", range=limits)])

    def among(self, ids: list[Any]) -> Any:
        return self._models.Filter(must=[self._has_id([qdrant_id(id) for id in ids])])


def _kilobytes(description: Description) -> int:
    """Return the size of vectors in kilobytes from which Qdrant builds a graph."""
    return max(1, description.graph.from_documents * description.vector_dimension * 4 // 1024)
