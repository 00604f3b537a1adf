"""QdrantEngine: a collection of a Qdrant server, through qdrant-client."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import SplitResult, unquote

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors
from ..utils.optional_imports import import_extra
from .base import Description, EngineError, Found, Location, SearchOptions, parts_of
from .qdrant_base import FDE, TOKENS, Models, Point, QdrantBase, found_points

__all__ = ["QdrantEngine"]

# Points of one request, and seconds that one may take.
_POINTS, _TIMEOUT = 64, 60


class QdrantEngine(QdrantBase):
    """A collection in Qdrant.

    Parameters
    ----------
    client : qdrant_client.QdrantClient
    name : str
        Of the collection.
    url : str
        Of the server, for messages.
    secret : str, optional
        What no message may have.

    Raises
    ------
    ImportError
        Where qdrant-client is not installed.
    """

    def __init__(self, client: Any, name: str, url: str = "qdrant", secret: str | None = None) -> None:
        super().__init__(Location(url, name))
        self._library = import_extra("qdrant_client", "qdrant", "Qdrant")
        models = self._library.models
        self._client, self._name, self._secret = client, name, secret
        self._models = Models(models.Filter, models.FieldCondition, models.MatchAny, models.Range)
        self._indexed: set[str] = set()

    @classmethod
    def from_url(cls, url: SplitResult, name: str) -> QdrantEngine:
        """Open ``qdrant://HOST:PORT#NAME``; ``qdrants`` by TLS, with the key as password."""
        library = import_extra("qdrant_client", "qdrant", "Qdrant")
        key = unquote(url.password) if url.password else os.environ.get("QDRANT_API_KEY")
        scheme = "https" if url.scheme == "qdrants" else "http"
        shown = f"{url.scheme}://{url.hostname or 'localhost'}:{url.port or 6333}"
        try:
            client = library.QdrantClient(
                url=f"{scheme}://{url.hostname or 'localhost'}:{url.port or 6333}",
                api_key=key,
                timeout=_TIMEOUT,
                check_compatibility=False,
            )
        except Exception as error:
            raise EngineError(f"{shown} cannot be reached: {_line(error, key)}") from None
        return cls(client, name, shown, key)

    @contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        try:
            yield
        except EngineError:
            raise
        except Exception as error:  # of httpx, grpc and the client
            raise EngineError(f"{self.location} {what}: {_line(error, self._secret)}") from None

    # -- the collection -------------------------------------------------------

    @property
    def _beside(self) -> str:
        return f"{self._name}_encoder"

    def describe(self) -> Description | None:
        """Return what is there; None where nothing of this name is."""
        with self._asking("cannot be read"):
            there = {name for name in (self._name, self._beside) if self._client.collection_exists(name)}
            first = self._parts([0]) if self._beside in there else []
        if not first:
            if self._name in there and self._beside not in there:
                raise EngineError(f"{self.location} is a collection of something else. Give another name.")
            return None
        self._description = Description.from_dict(json.loads(first[0]))
        if self._name not in there:
            raise EngineError(
                f"{self.location} has an encoder and no documents' collection: it was changed. Drop it."
            )
        with self._asking("cannot be read"):
            vectors = self._client.get_collection(self._name).config.params.vectors
        found = vectors.get(FDE) if isinstance(vectors, dict) else None
        if found is None or found.size != self._description.vector_dimension:
            raise EngineError(
                f"{self.location} has no vectors {FDE!r} of {self._description.vector_dimension} floats: its "
                "collection was changed. Load it again."
            )
        return self._description

    def create(self, description: Description, encoder: bytes) -> None:
        """Make an empty collection that keeps the encoder; its description is written last."""
        if self.describe() is not None:
            raise EngineError(f"{self.location} exists. Give another name, or drop it.")
        models = self._library.models
        half = models.Datatype.FLOAT16 if description.precision == "float16" else None
        graph = models.HnswConfigDiff(m=description.graph.m, ef_construct=description.graph.ef_construction)
        kilobytes = max(1, description.graph.from_documents * description.vector_dimension * 4 // 1024)
        vectors = {
            FDE: models.VectorParams(
                size=description.vector_dimension,
                distance=models.Distance.DOT,
                hnsw_config=graph,
                datatype=half,
            )
        }
        if description.tokens:
            vectors[TOKENS] = models.VectorParams(
                size=description.token_dimension,
                distance=models.Distance.DOT,
                datatype=models.Datatype.FLOAT16,
                on_disk=True,
                # A graph of tokens would cost memory, and the vectors propose candidates.
                hnsw_config=models.HnswConfigDiff(m=0),
                multivector_config=models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM),
            )
        with self._asking("cannot be created"):
            for leftover in (self._name, self._beside):
                self._client.delete_collection(leftover)
            self._client.create_collection(self._beside, vectors_config={})
            self._client.create_collection(
                self._name,
                vectors_config=vectors,
                optimizers_config=models.OptimizersConfigDiff(indexing_threshold=kilobytes),
            )
            self._index_field("terms", False)
            parts = [json.dumps(description.to_dict()).encode(), *parts_of(encoder)]
            for number in [*range(1, len(parts)), 0]:
                content = base64.b64encode(parts[number]).decode()
                point = models.PointStruct(id=number, vector={}, payload={"content": content})
                self._client.upsert(self._beside, [point], wait=True)
        self._description = description

    def _parts(self, numbers: list[int]) -> list[bytes]:
        found = self._client.retrieve(self._beside, ids=numbers, with_payload=True)
        parts = {point.id: base64.b64decode(point.payload["content"]) for point in found}
        return [parts[number] for number in numbers if number in parts]

    def read_encoder(self) -> bytes:
        """Return what :meth:`create` kept."""
        with self._asking("cannot be read"):
            count = self._client.count(self._beside, exact=True).count
            return b"".join(part for number in range(1, count) for part in self._parts([number]))

    def finish(self) -> None:
        """Do nothing: Qdrant builds its graph by itself."""

    def drop(self) -> None:
        """Remove the collection."""
        with self._asking("cannot be removed"):
            for name in (self._name, self._beside):
                self._client.delete_collection(name)
        self._description, self._indexed = None, set()

    def close(self) -> None:
        """Close the client."""
        self._client.close()

    def __len__(self) -> int:
        with self._asking("cannot be read"):
            return int(self._client.count(self._name, exact=True).count)

    # -- points ---------------------------------------------------------------

    def _upsert(self, points: list[tuple[Any, dict[str, Any], dict[str, Any]]]) -> None:
        make = self._library.models.PointStruct
        with self._asking("did not take documents"):
            for start in range(0, len(points), _POINTS):
                part = [make(id=a, vector=b, payload=c) for a, b, c in points[start : start + _POINTS]]
                self._client.upsert(self._name, part, wait=True)

    def _retrieve(self, ids: list[Any], fields: list[str], tokens: bool) -> list[Point]:
        vectors = [TOKENS] if tokens else False
        with self._asking("cannot be read"):
            found = self._client.retrieve(self._name, ids=ids, with_payload=fields, with_vectors=vectors)
        return [Point(one.payload, one.vector[TOKENS] if tokens else None) for one in found]

    def _scroll(self, limit: int, offset: Any) -> tuple[list[Point], Any]:
        with self._asking("cannot be read"):
            found, after = self._client.scroll(
                self._name, limit=limit, offset=offset, with_payload=["id"], with_vectors=[TOKENS]
            )
        return [Point(one.payload, one.vector[TOKENS]) for one in found], after

    def _query(
        self,
        vectors: NDArray[np.float32],
        queries: MultiVectors | None,
        limit: int,
        condition: Any,
        options: SearchOptions,
    ) -> Found:
        models = self._library.models
        walk = models.SearchParams(hnsw_ef=options.ef, exact=options.exact)
        requests = []
        for i, vector in enumerate(vectors.tolist()):
            first = {
                "query": vector,
                "using": FDE,
                "limit": options.count,
                "params": walk,
                "filter": condition,
            }
            if queries is None:
                requests.append(models.QueryRequest(**{**first, "limit": limit}, with_payload=["id"]))
                continue
            requests.append(
                models.QueryRequest(
                    prefetch=models.Prefetch(**first),
                    query=queries[i].astype(np.float32).tolist(),
                    using=TOKENS,
                    limit=limit,
                    with_payload=["id"],
                )
            )
        with self._asking("cannot be searched"):
            answers = self._client.query_batch_points(self._name, requests=requests) if requests else []
        return [found_points(answer.points) for answer in answers]

    def _remove(self, ids: list[Any]) -> None:
        with self._asking("did not remove documents"):
            self._client.delete(
                self._name, points_selector=self._library.models.PointIdsList(points=ids), wait=True
            )

    def _index_field(self, name: str, numbers: bool) -> None:
        if name in self._indexed:
            return
        kinds = self._library.models.PayloadSchemaType
        with self._asking("could not index a field"):
            self._client.create_payload_index(
                self._name, field_name=name, field_schema=kinds.FLOAT if numbers else kinds.KEYWORD, wait=True
            )
        self._indexed.add(name)


def _line(error: BaseException, secret: str | None) -> str:
    text = " ".join(str(error).split())[:200] or type(error).__name__
    return (text.replace(secret, "***") if secret else text).rstrip(".") + "."
