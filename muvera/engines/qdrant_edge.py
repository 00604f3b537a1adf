"""QdrantEdgeEngine: Qdrant's own engine in this process, a folder and no server."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors
from ..utils.atomic_files import atomic_folder
from ..utils.optional_imports import import_extra
from .base import Description, EngineError, Found, Location, SearchOptions
from .qdrant_base import FDE, TOKENS, Models, Point, QdrantBase, found_points

__all__ = ["QdrantEdgeEngine"]

_DESCRIPTION, _ENCODER, _SHARD = "collection.json", "encoder.bin", "shard"


class QdrantEdgeEngine(QdrantBase):
    """A collection in a folder, which one process has open at a time.

    Parameters
    ----------
    path : path
        Holds a folder for each collection.
    name : str
        Of the collection.

    Raises
    ------
    ImportError
        Where qdrant-edge-py is not installed.
    """

    def __init__(self, path: Path | str, name: str) -> None:
        super().__init__(Location(f"qdrant-edge:{path}", name))
        self._edge = import_extra("qdrant_edge", "qdrant-edge", "Qdrant Edge")
        self._folder = Path(path) / name
        self._models = Models(
            self._edge.Filter, self._edge.FieldCondition, self._edge.MatchAny, self._edge.RangeFloat
        )
        self._shard: Any = None
        self._indexed: set[str] = set()

    @classmethod
    def from_url(cls, url: SplitResult, name: str) -> QdrantEdgeEngine:
        """Open ``qdrant-edge:FOLDER#NAME``."""
        path = unquote(url.path) if not url.netloc else f"/{url.netloc}{unquote(url.path)}"
        if not path:
            raise EngineError("The URL of Qdrant Edge names no folder. Give qdrant-edge:FOLDER.")
        return cls(path, name)

    @contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        try:
            yield
        except EngineError:
            raise
        except Exception as error:
            text = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
            raise EngineError(f"{self.location} {what}: {text}.") from None

    # -- the collection -------------------------------------------------------

    def describe(self) -> Description | None:
        """Return what is there; None where nothing of this name is."""
        file = self._folder / _DESCRIPTION
        if not file.is_file():
            if self._folder.exists() and any(self._folder.iterdir()):
                raise EngineError(f"{self._folder} holds something else. Give another name.")
            return None
        with self._asking("cannot be read"):
            self._description = Description.from_dict(json.loads(file.read_text(encoding="utf-8")))
            if self._shard is None:
                self._shard = self._edge.EdgeShard.load(str(self._folder / _SHARD), self._settings())
        return self._description

    def _settings(self) -> Any:
        edge, there = self._edge, self._there()
        types = edge.VectorStorageDatatype
        graph = edge.HnswIndexConfig(
            m=there.graph.m, ef_construct=there.graph.ef_construction, full_scan_threshold=10_000
        )
        vectors = {
            FDE: edge.EdgeVectorParams(
                size=there.vector_dimension,
                distance=edge.Distance.Dot,
                datatype=types.Float16 if there.precision == "float16" else types.Float32,
            )
        }
        if there.tokens:
            vectors[TOKENS] = edge.EdgeVectorParams(
                size=there.token_dimension,
                distance=edge.Distance.Dot,
                datatype=types.Float16,
                multivector_config=edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim),
                # A graph of tokens would cost memory, and the vectors propose candidates.
                hnsw_config=edge.HnswIndexConfig(m=0, ef_construct=4, full_scan_threshold=10_000),
            )
        kilobytes = max(1, there.graph.from_documents * there.vector_dimension * 4 // 1024)
        return edge.EdgeConfig(
            vectors=vectors,
            hnsw_config=graph,
            optimizers=edge.EdgeOptimizersConfig(indexing_threshold=kilobytes),
        )

    def create(self, description: Description, encoder: bytes) -> None:
        """Make a folder with an empty collection and the encoder: all of it or nothing."""
        self._description = description
        try:
            self._folder.parent.mkdir(parents=True, exist_ok=True)
            with self._asking("cannot be created"), atomic_folder(self._folder, False) as folder:
                (folder / _SHARD).mkdir()
                shard = self._edge.EdgeShard.create(str(folder / _SHARD), self._settings())
                shard.update(
                    self._edge.UpdateOperation.create_field_index(
                        "terms", self._edge.PayloadSchemaType.Keyword
                    )
                )
                shard.flush()
                shard.close()
                (folder / _ENCODER).write_bytes(encoder)
                (folder / _DESCRIPTION).write_text(json.dumps(description.to_dict()), encoding="utf-8")
        except BaseException:
            self._description = None
            raise
        self.describe()

    def read_encoder(self) -> bytes:
        """Return what :meth:`create` kept."""
        with self._asking("cannot be read"):
            return (self._folder / _ENCODER).read_bytes()

    def finish(self) -> None:
        """Build the graph, and write everything to the disk."""
        with self._asking("could not be indexed"):
            self._shard.optimize()
            self._shard.flush()

    def drop(self) -> None:
        """Remove the folder."""
        if self.describe() is not None:
            self.close()
            shutil.rmtree(self._folder)
        self._description, self._indexed = None, set()

    def close(self) -> None:
        """Close the shard."""
        if self._shard is not None:
            self._shard.close()
            self._shard = None

    def __len__(self) -> int:
        return int(self._shard.count(self._edge.CountRequest(exact=True)))

    # -- points ---------------------------------------------------------------

    def _upsert(self, points: list[tuple[Any, dict[str, Any], dict[str, Any]]]) -> None:
        with self._asking("did not take documents"):
            made = [self._edge.Point(identity, vectors, payload) for identity, vectors, payload in points]
            self._shard.update(self._edge.UpdateOperation.upsert_points(made))

    def _retrieve(self, ids: list[Any], fields: list[str], tokens: bool) -> list[Point]:
        if not ids:
            return []
        condition = self._edge.Filter(must=[self._edge.HasIdCondition(set(ids))])
        return self._read(len(ids), None, condition, fields, tokens)[0]

    def _scroll(self, limit: int, offset: Any) -> tuple[list[Point], Any]:
        return self._read(limit, offset, None, ["id"], True)

    def _read(
        self, limit: int, offset: Any, condition: Any, fields: list[str], tokens: bool
    ) -> tuple[list[Point], Any]:
        request = self._edge.ScrollRequest(
            limit=limit,
            offset=offset,
            filter=condition,
            with_payload=self._edge.PayloadSelector.Include(fields),
            with_vector=[TOKENS] if tokens else False,
        )
        with self._asking("cannot be read"):
            found, after = self._shard.scroll(request)
        return [Point(one.payload, one.vector[TOKENS] if tokens else None) for one in found], after

    def _query(
        self,
        vectors: NDArray[np.float32],
        queries: MultiVectors | None,
        limit: int,
        condition: Any,
        options: SearchOptions,
    ) -> Found:
        edge = self._edge
        walk = edge.SearchParams(hnsw_ef=options.ef, exact=options.exact)
        requests = []
        for i, vector in enumerate(vectors.tolist()):
            nearest = edge.Query.Nearest(vector, FDE)
            if queries is None:
                first: dict[str, Any] = {"query": nearest, "params": walk, "filter": condition}
            else:
                proposed = edge.Prefetch(options.count, nearest, params=walk, filter=condition)
                asked = edge.Query.Nearest(queries[i].astype(np.float32).tolist(), TOKENS)
                first = {"query": asked, "prefetches": [proposed]}
            payload = edge.PayloadSelector.Include(["id"])
            requests.append(edge.QueryRequest(limit=limit, with_payload=payload, with_vector=False, **first))
        with self._asking("cannot be searched"):
            answers = self._shard.query_batch(edge.QueryBatchRequest(requests)) if requests else []
        return [found_points(answer) for answer in answers]

    def _remove(self, ids: list[Any]) -> None:
        with self._asking("did not remove documents"):
            self._shard.update(self._edge.UpdateOperation.delete_points(ids))

    def _index_field(self, name: str, numbers: bool) -> None:
        if name not in self._indexed:
            kinds = self._edge.PayloadSchemaType
            kind = kinds.Float if numbers else kinds.Keyword
            with self._asking("could not index a field"):
                self._shard.update(self._edge.UpdateOperation.create_field_index(name, kind))
            self._indexed.add(name)

    def size_bytes(self) -> int | None:
        """Return the bytes of the collection's files."""
        # Its files are longer than what is written: blocks count.
        return sum(512 * path.stat().st_blocks for path in self._folder.rglob("*") if path.is_file())
