"""QdrantEngine: a Qdrant server.  QdrantEdgeEngine: Qdrant in this process."""

from __future__ import annotations

import base64
import os
import shutil
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..metadata import FilterError, Scalar
from ..utils.atomic_files import write_bytes
from ..utils.checks import import_extra
from .base import (
    Column,
    Description,
    Engine,
    EngineError,
    EngineRow,
    Hits,
    SearchRequest,
    folder_of,
    slices,
)
from .conditions import Conditions

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

# Name of a point's vector.
_FDE = "fde"

# Name of a point's multivector.
_TOKENS = "tokens"

# Points of a request: a point with the tokens of a long text can have megabytes.
_POINTS = 64

# Points of a request that reads all points, with the tokens of short documents.
_SCROLLED = 256

# Seconds of a request.
_TIMEOUT = 60

# Numbers of a multivector: the most that Qdrant accepts.
_MULTIVECTOR = 1 << 20

# Qdrant's names of comparisons.
_RANGES = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}


def qdrant_id(id: int | str, part: int = 0) -> int | str:
    """Return the point id of a document's part.

    For part 0 it is `id` itself if that is an unsigned integer or a UUID, and otherwise
    a UUID made from its text.  For later parts, it is a UUID made from both numbers.
    """
    if part:
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{part} {qdrant_id(id)}"))
    if isinstance(id, int) and 0 <= id < 1 << 64:
        return id
    try:
        return str(uuid.UUID(str(id)))
    except ValueError:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, str(id)))


class QdrantConditions(Conditions[Any]):
    """A builder of Qdrant's filters: each condition is a filter, which may be nested.

    `models` has the classes of requests, from ``qdrant_client`` or from Qdrant Edge.
    With `parts`, points store the id and the part of their document.
    """

    def __init__(self, models: ModuleType | SimpleNamespace, parts: bool = True) -> None:
        self._models = models
        self._parts = parts

    def join(self, word: str, parts: list[Any]) -> Any:
        """Join filters by "and" or "or"."""
        return self._models.Filter(**{"must" if word == "and" else "should": parts})

    def negate(self, part: Any) -> Any:
        """Return the filter that `part` does not match."""
        return self._models.Filter(must_not=[part])

    def has_any(self, terms: list[str]) -> Any:
        """Test that a document has one of the terms."""
        return self._field("terms", match=self._models.MatchAny(any=terms))

    def compare(self, bound: str, sign: str, value: Scalar) -> Any:
        """Compare a stored bound with a number, see :meth:`Conditions.compare`.

        Raise FilterError for a string, or an integer that float64 cannot represent.
        """
        if isinstance(value, str):
            raise FilterError(
                f"Qdrant can order only numbers, got {value!r:.80}. Store a number and compare with a number."
            )
        if isinstance(value, int) and abs(value) > 2**53:
            raise FilterError(
                f"Qdrant compares integers exactly up to 2**53, got {value}. Store and compare smaller "
                "numbers."
            )
        return self._field(f"bounds.{bound}", range=self._models.Range(**{_RANGES[sign]: float(value)}))

    def among(self, ids: list[Any]) -> Any:
        """Test that a document has one of these ids."""
        if self._parts:
            return self._field("id", match=self._models.MatchAny(any=ids))
        return self.join("and", [self._models.HasIdCondition(has_id=list(map(qdrant_id, ids)))])

    def from_part(self, first: int, last: int | None = None) -> Any:
        """Test that a point is a part of these numbers; None: all from `first` on."""
        return self._field("part", range=self._models.Range(gte=first, lte=last))

    def _field(self, key: str, **test: Any) -> Any:
        return self.join("and", [self._models.FieldCondition(key=key, **test)])


class QdrantEngine(Engine):
    """A collection on a server, ``qdrant://:KEY@HOST:PORT#NAME``; ``qdrants`` uses TLS.

    Without a key in the URL, the environment variable QDRANT_API_KEY is the key.
    `client` replaces the connection to the server.

    Terms and bounds are indexed, because filters on unindexed fields lower the recall
    of Qdrant's graph.
    """

    kind = "qdrant"
    reranks = True
    max_dimension = 65_535

    def __init__(self, url: str, client: QdrantClient | None = None) -> None:
        super().__init__(url)
        self._client: Any = client  # None until it is connected
        self._indexed = set[str]()
        self.models = self._connect()

    def _connect(self) -> Any:
        """Connect to the server, and return the classes of requests.

        A given client is connected already.
        """
        library = import_extra("qdrant_client", "qdrant", "Qdrant")
        parts = self._url
        if self._client is None:
            self._secret = self._secret or os.environ.get("QDRANT_API_KEY")
            http = "https" if parts.scheme == "qdrants" else "http"
            server = f"{http}://{parts.hostname or 'localhost'}:{parts.port or 6333}"
            self._client = library.QdrantClient(
                url=server, api_key=self._secret, timeout=_TIMEOUT, check_compatibility=False
            )
        return library.models

    # -- the collection -------------------------------------------------------

    def _has_collection(self, name: str) -> bool:
        return bool(self._client.collection_exists(name))

    def _settings(self, description: Description) -> tuple[dict[str, Any], Any]:
        """Return the settings of the points' vectors, and of the graph's first size."""
        models = self.models

        def params(size: int, links: int, **rest: Any) -> Any:
            graph = models.HnswConfigDiff(m=links, ef_construct=self.ef_construction)
            return models.VectorParams(size=size, distance=models.Distance.DOT, hnsw_config=graph, **rest)

        vectors = {_FDE: params(description.vector_dimension, self.links)}
        if description.tokens:
            maxsim = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
            half = {"datatype": models.Datatype.FLOAT16, "on_disk": True}
            # No graph over tokens: the first-stage vectors find the candidates.
            vectors[_TOKENS] = params(description.token_dimension, 0, multivector_config=maxsim, **half)
        kilobytes = self.graph_from * description.vector_dimension * 4 // 1024
        return vectors, models.OptimizersConfigDiff(indexing_threshold=max(1, kilobytes))

    def _create(self, description: Description) -> None:
        vectors, optimizers = self._settings(description)
        self._client.create_collection(self._encoder_name, vectors_config={})
        self._client.create_collection(self.name, vectors_config=vectors, optimizers_config=optimizers)
        self._index_fields(description)

    def _index_fields(self, description: Description) -> None:
        self._index_field("terms", "keyword")
        if description.parts is not None:
            self._index_field("id", "integer" if description.integer_ids else "keyword")
            self._index_field("part", "integer")

    def _drop(self, name: str) -> None:
        self._client.delete_collection(name)
        self._indexed = set()

    def _read_part(self, number: int) -> bytes | None:
        points = self._client.retrieve(self._encoder_name, ids=[number], with_payload=True)
        return base64.b64decode(points[0].payload["content"]) if points else None

    def _write_part(self, number: int, content: bytes) -> None:
        payload = {"content": base64.b64encode(content).decode()}
        point = self.models.PointStruct(id=number, vector={}, payload=payload)
        self._client.upsert(self._encoder_name, [point], wait=True)

    def _close(self) -> None:
        self._client.close()

    # -- documents ------------------------------------------------------------

    def _write(self, rows: list[EngineRow]) -> None:
        points = []
        fields = set[str]()
        for row in rows:
            # Qdrant orders numbers only.
            bounds = {name: value for name, value in row.flat.bounds.items() if not isinstance(value, str)}
            fields.update(f"bounds.{name}" for name in bounds)
            payload = {"id": row.id, "metadata": row.metadata, "terms": row.flat.terms, "bounds": bounds}
            if self.stored.parts is not None:
                payload["part"] = row.part
            vectors: dict[str, Any] = {_FDE: row.vector.tolist()}
            if row.tokens is not None:
                if row.tokens.size > _MULTIVECTOR:
                    width = row.tokens.shape[1]
                    raise EngineError(
                        f"Document {row.id!r} has {len(row.tokens)} tokens, but Qdrant accepts at most "
                        f"{_MULTIVECTOR // width} of {width} columns. Pool them with `muvera convert "
                        "--pooling`, or split the document."
                    )
                vectors[_TOKENS] = row.tokens.astype(np.float32).tolist()
            points.append(
                self.models.PointStruct(id=qdrant_id(row.id, row.part), vector=vectors, payload=payload)
            )
        for name in sorted(fields - self._indexed):
            self._index_field(name, "float")
            self._indexed.add(name)
        self._upsert(points)

    def _ids(self, condition: Any) -> Iterator[Any]:
        chosen = [one for one in (self._documents, condition) if one is not None]
        points = self._scroll(self.conditions.join("and", chosen) if chosen else None, ["id"], False)
        return (point.payload["id"] for point in points)

    def _read(self, ids: list[Any], column: Column, part: int) -> Iterator[tuple[Any, Any]]:
        tokens = column == "tokens"
        payload: list[str] = ["id"] if tokens else ["id", column]
        points = [qdrant_id(id, part) for id in ids]
        for record in self._retrieve(points, payload, [_TOKENS] if tokens else False):
            yield record.payload["id"], record.vector[_TOKENS] if tokens else record.payload[column]

    # -- searching ------------------------------------------------------------

    @property
    def conditions(self) -> QdrantConditions:
        """The builder of Qdrant's filters."""
        return QdrantConditions(self.models, self.stored.parts is not None)

    def _search(self, request: SearchRequest, condition: object) -> Hits:
        models = self.models
        params = models.SearchParams(hnsw_ef=request.breadth)
        stage = {"using": _FDE, "params": params, "filter": condition, "limit": request.limit}
        requests = []
        for i, vector in enumerate(request.vectors.tolist()):
            query = {"query": vector, **stage}
            if request.queries is not None:
                tokens = request.queries[i].astype(np.float32).tolist()
                first = [models.Prefetch(**query)]
                query = {"query": tokens, "using": _TOKENS, "prefetch": first, "limit": request.k}
            requests.append(models.QueryRequest(**query, with_payload=["id", "part"]))
        return [
            (
                [(point.payload["id"], point.payload.get("part", 0)) for point in points],
                [point.score for point in points],
            )
            for points in self._query(requests)
        ]

    # -- requests -------------------------------------------------------------

    def _upsert(self, points: list[Any]) -> None:
        for some in slices(points, _POINTS):
            self._client.upsert(self.name, some, wait=True)

    def _delete(self, ids: list[Any], first: int) -> None:
        chosen = self.models.FilterSelector(filter=self._rows(ids, first))
        self._client.delete(self.name, points_selector=chosen, wait=True)

    def _rows(self, ids: list[Any], first: int) -> Any:
        """Return the filter of documents, or of their parts from `first` on."""
        chosen = self.conditions.among(ids)
        return self.conditions.join("and", [chosen, self.conditions.from_part(first)]) if first else chosen

    @property
    def _documents(self) -> Any:
        """The filter of one point for each document."""
        return None if self.stored.parts is None else self.conditions.from_part(0, 0)

    def _count(self) -> int:
        return int(self._client.count(self.name, count_filter=self._documents, exact=True).count)

    def _retrieve(self, ids: list[int | str], payload: list[str], vectors: list[str] | bool) -> Iterator[Any]:
        for some in slices(ids, _POINTS):
            yield from self._client.retrieve(self.name, some, with_payload=payload, with_vectors=vectors)

    def _scroll(self, condition: Any, payload: list[str] | bool, vectors: bool) -> Iterator[Any]:
        """Yield the points that satisfy a condition, in the order of their ids."""
        start = None
        while True:
            points, start = self._page(_SCROLLED, start, condition, payload, vectors)
            yield from points
            if start is None:
                return

    def _page(self, limit: int, start: Any, condition: Any, payload: list[str] | bool, vectors: bool) -> Any:
        """Return some points from the id `start` on, and the id of the next one."""
        return self._client.scroll(
            self.name, condition, limit, offset=start, with_payload=payload, with_vectors=vectors
        )

    def _query(self, requests: list[Any]) -> list[Any]:
        answers = self._client.query_batch_points(self.name, requests=requests)
        return [answer.points for answer in answers]

    def _index_field(self, name: str, kind: str) -> None:
        self._client.create_payload_index(self.name, field_name=name, field_schema=kind, wait=True)


class QdrantEdgeEngine(QdrantEngine):
    """A collection in the folder ``FOLDER/NAME``, ``qdrant-edge:FOLDER#NAME``.

    One process at a time can open it.
    """

    def _connect(self) -> Any:
        self._folder = Path(folder_of(self._url)) / self.name
        # `_parts` has one file per part: the description (part 0) and the encoder.
        # `_data` is the engine's folder.
        self._parts = self._folder / "muvera-encoder"
        self._data = self._folder / "shard"
        self._shard: Any = None
        return _edge_models()

    # -- the collection -------------------------------------------------------

    def _has_collection(self, name: str) -> bool:
        if name == self._encoder_name:
            return self._parts.is_dir()
        return self._folder.exists() and any(self._folder.iterdir())

    def _open(self) -> None:
        if self._shard is None:
            try:
                self._shard = self.models.EdgeShard.load(str(self._data))
            except Exception as error:
                if "WouldBlock" not in str(error):
                    raise
                raise EngineError(
                    f"{self.location} is open in another process or by another object. Close it first."
                ) from None

    def _create(self, description: Description) -> None:
        vectors, optimizers = self._settings(description)
        config = self.models.EdgeConfig(vectors=vectors, optimizers=optimizers)
        for folder in (self._parts, self._data):
            folder.mkdir(parents=True)
        self._shard = self.models.EdgeShard.create(str(self._data), config)
        self._index_fields(description)
        self._shard.flush()

    def _drop(self, name: str) -> None:
        self._close()
        folder = self._data if name == self.name else self._folder
        if folder.exists():
            shutil.rmtree(folder)
        self._indexed = set()

    def _read_part(self, number: int) -> bytes | None:
        file = self._parts / str(number)
        return file.read_bytes() if file.exists() else None

    def _write_part(self, number: int, content: bytes) -> None:
        write_bytes(self._parts / str(number), content)

    def finish(self) -> None:
        """Build the graph, and write everything to disk."""
        with self._errors("could not be indexed"):
            self._shard.optimize()
            self._shard.flush()

    def _close(self) -> None:
        if self._shard is not None:
            self._shard.close()
            self._shard = None

    # -- requests -------------------------------------------------------------

    def _upsert(self, points: list[Any]) -> None:
        self._shard.update(self.models.UpdateOperation.upsert_points(points))

    def _delete(self, ids: list[Any], first: int) -> None:
        chosen = self._rows(ids, first)
        self._shard.update(self.models.UpdateOperation.delete_points_by_filter(chosen))

    def _count(self) -> int:
        return int(self._shard.count(self.models.CountRequest(exact=True, filter=self._documents)))

    def _retrieve(self, ids: list[int | str], payload: list[str], vectors: list[str] | bool) -> Iterator[Any]:
        return iter(self._shard.retrieve(ids, with_payload=payload, with_vector=vectors))

    def _page(self, limit: int, start: Any, condition: Any, payload: list[str] | bool, vectors: bool) -> Any:
        request = self.models.ScrollRequest(
            limit=limit, offset=start, filter=condition, with_payload=payload, with_vector=vectors
        )
        return self._shard.scroll(request)

    def _query(self, requests: list[Any]) -> list[Any]:
        return list(self._shard.query_batch(self.models.QueryBatchRequest(requests)))

    def _index_field(self, name: str, kind: str) -> None:
        schema = getattr(self.models.PayloadSchemaType, kind.capitalize())
        self._shard.update(self.models.UpdateOperation.create_field_index(name, schema))


def _edge_models() -> Any:
    """Return Edge's classes, with the names and arguments of the client's classes."""
    edge = import_extra("qdrant_edge", "qdrant-edge", "Qdrant Edge")

    def as_in_client(request: Any) -> Any:
        def make(query: Any, using: str, prefetch: Any = None, **rest: Any) -> Any:
            return request(query=edge.Query.Nearest(query, using), prefetches=prefetch, **rest)

        return make

    def vector_params(on_disk: bool = False, **rest: Any) -> Any:
        return edge.EdgeVectorParams(**rest)

    return SimpleNamespace(
        **{
            **vars(edge),
            "Datatype": SimpleNamespace(FLOAT16=edge.VectorStorageDatatype.Float16),
            "Distance": SimpleNamespace(DOT=edge.Distance.Dot),
            "HasIdCondition": lambda has_id: edge.HasIdCondition(set(has_id)),
            "HnswConfigDiff": partial(edge.HnswIndexConfig, full_scan_threshold=10_000),
            "MultiVectorComparator": SimpleNamespace(MAX_SIM=edge.MultiVectorComparator.MaxSim),
            "OptimizersConfigDiff": edge.EdgeOptimizersConfig,
            "PointStruct": edge.Point,
            "Prefetch": as_in_client(edge.Prefetch),
            "QueryRequest": as_in_client(edge.QueryRequest),
            "Range": edge.RangeFloat,
            "VectorParams": vector_params,
        }
    )
