"""Vector databases as the first stage, each compared with our own index of the same encoder and settings."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from muvera import LearnedConfig, LearnedEncoder, MultiVectors, MuveraIndex, top_k
from muvera.encoders.base import Encoder
from muvera.engines import Engine, EngineIndex, GraphSettings, SearchOptions, open_engine

from ..datasets.collection import Collection
from ..datasets.discovery import CACHE
from .plumbing import Cache, Data, load_collections, median_ms, print_rows

__all__ = ["COLUMNS", "compare_engines", "engines"]

#: Keys of a row, and their headings.
COLUMNS = {
    "collection": "collection",
    "engine": "engine",
    "shared": "identical candidates",
    "final": "exact top 10 after ranking",
    "raw_ms": "raw client, ms",
    "query_ms": "query with ranking, ms",
    "here_ms": "of this processor time here, ms",
    "encode_ms": "of this encoding, ms",
    "overhead": "adapter over raw client",
    "build_s": "load, s",
    "megabytes": "size, MB",
}

_M, _EF_CONSTRUCTION, _EF, _CANDIDATES, _K = 16, 100, 128, 100, 10


def compare_engines(
    collection: Collection, engines: Mapping[str, Callable[[], Engine]], queries: int, dimension: int = 1024
) -> Iterator[dict[str, Any]]:
    """Yield a row for our own index and for each engine.

    "identical candidates" is the share of the 100 documents with the largest inner products that a first
    stage finds at ef=128.  The adapter's overhead is the time of a search without ranking, minus encoding and
    the fastest call of the engine's own client, query by query.  Times are medians of wall time.
    """
    documents = collection.documents.with_ids(np.arange(len(collection.documents)))
    asked = collection.queries[:queries]
    config = LearnedConfig(dimension=documents.dimension, vector_dimension=dimension)
    encoder = LearnedEncoder(config).fit(documents)
    vectors, stored = encoder.encode_queries(asked), encoder.encode_documents(documents)
    nearest = np.argsort(-(vectors @ stored.T), axis=1, kind="stable")[:, :_CANDIDATES]
    best = [set(ranking.ids.tolist()) for ranking in top_k(asked, documents, _K)]
    with tempfile.TemporaryDirectory() as folder:
        own = _Measurement(documents, encoder, asked, vectors)
        rows = {"muvera (hnswlib)": partial(own.of_index, f"{folder}/index")}
        rows |= {name: partial(own.of_engine, opens) for name, opens in engines.items()}
        for name, measured in rows.items():
            row: dict[str, Any] = {"collection": collection.name, "engine": name, **measured()}
            proposed, ranked = row.pop("proposed"), row.pop("ranked")
            pairs = zip(proposed, nearest, strict=True)
            row["shared"] = float(np.mean([len(set(a) & set(b.tolist())) / len(b) for a, b in pairs]))
            row["final"] = float(
                np.mean([len(set(a) & b) / len(b) for a, b in zip(ranked, best, strict=True)])
            )
            yield {key: row.get(key) for key in COLUMNS}


class _Measurement:
    """The documents and queries for all engines, and our own index."""

    def __init__(
        self, documents: MultiVectors, encoder: Encoder, asked: MultiVectors, vectors: NDArray[np.float32]
    ) -> None:
        self.documents, self.encoder, self.asked, self.vectors = documents, encoder, asked, vectors
        self.singles = [asked[i : i + 1] for i in range(len(asked))]

    def of_index(self, path: str) -> dict[str, Any]:
        """Build our own index, and measure it."""
        graph: Any = {"m": _M, "ef_construction": _EF_CONSTRUCTION, "ef": _EF}
        how: dict[str, Any] = {"backend": "hnsw", "hnsw": graph, "exact_tokens": 0, "threads": 1}
        began = time.perf_counter()
        self.own = MuveraIndex.build(self.documents, self.encoder, path=path, **how)
        build_s = time.perf_counter() - began
        contents = self.own._contents.candidates
        assert contents is not None
        search = contents.search
        return {
            "proposed": search.search(self.vectors, _CANDIDATES, threads=1)[0].tolist(),
            "raw_ms": median_ms(
                lambda v: search.search(v, _CANDIDATES, threads=1), list(self.vectors[:, None])
            ),
            **self._searches(partial(self.own.search, candidates=_CANDIDATES)),
            "build_s": build_s,
            "megabytes": self.own.info().bytes_per_document * len(self.own) / 1e6,
        }

    def of_engine(self, opens: Callable[[], Engine]) -> dict[str, Any]:
        """Load an engine, and measure it."""
        engine = opens()
        graph = GraphSettings(m=_M, ef_construction=_EF_CONSTRUCTION, from_documents=256)
        # Our own index ranks if the engine does not store tokens.
        tokens: Any = "engine" if engine.keeps_tokens else self.own
        index = EngineIndex(engine, encoder=self.encoder, graph=graph, tokens=tokens)
        began = time.perf_counter()
        index.add(self.documents, threads=1)
        build_s = time.perf_counter() - began
        client = _raw_client(engine)
        raws, beyond = [], []
        for query, vector in zip(self.singles, self.vectors, strict=True):
            works: list[Callable[[Any], object]] = [
                lambda _, vector=vector: client(vector),  # type: ignore[misc]
                lambda q: index.search(q, _CANDIDATES, rerank=None, ef=_EF, threads=1),
                lambda q: self.encoder.encode_queries(q, threads=1),
            ]
            raw, alone, encoding = (median_ms(work, [query] * 3) for work in works)
            raws.append(raw)
            beyond.append(alone - encoding - raw)
        size = engine.size_bytes()
        results = {
            "proposed": [ids for ids, _ in engine.search(self.vectors, SearchOptions(_CANDIDATES, ef=_EF))],
            "raw_ms": float(np.median(raws)),
            **self._searches(partial(index.search, candidates=_CANDIDATES, ef=_EF)),
            "overhead": float(np.median(beyond) / np.median(raws)),
            "build_s": build_s,
            "megabytes": None if size is None else size / 1e6,
        }
        index.drop()
        engine.close()
        return results

    def _searches(self, search: Callable[..., Any]) -> dict[str, Any]:
        def one(query: MultiVectors) -> object:
            return search(query, _K, threads=1)

        return {
            "ranked": [ranking.ids.tolist() for ranking in search(self.asked, _K)],
            "query_ms": median_ms(one, self.singles),
            "here_ms": median_ms(one, self.singles, time.process_time),
            "encode_ms": median_ms(lambda q: self.encoder.encode_queries(q, threads=1), self.singles),
        }


def _raw_client(engine: Any) -> Callable[[NDArray[np.float32]], object]:
    """Return the same search, written as in the documentation of the engine's own client."""
    name = engine.name
    if engine.kind == "lancedb":
        table = engine._database.open_table(name)

        def lance(vector: NDArray[np.float32]) -> object:
            query = table.search(vector, vector_column_name="vector").distance_type("dot").limit(_CANDIDATES)
            return query.ef(2 * _CANDIDATES).refine_factor(2).select(["id", "_distance"]).to_list()

        return lance
    if engine.kind == "pgvector":

        def postgres(vector: NDArray[np.float32]) -> object:
            with engine._connection.transaction(), engine._connection.cursor() as cursor:
                cursor.execute(f"SET LOCAL hnsw.ef_search = {_EF}")
                query = f'SELECT id FROM "{name}" ORDER BY embedding <#> %s::halfvec LIMIT {_CANDIDATES}'
                return cursor.execute(query, [str(vector.tolist())]).fetchall()

        return postgres
    if hasattr(engine, "_shard"):
        import qdrant_edge as edge

        def qdrant(vector: NDArray[np.float32]) -> object:
            nearest, walk = edge.Query.Nearest(vector.tolist(), "fde"), edge.SearchParams(hnsw_ef=_EF)
            request = edge.QueryRequest(limit=_CANDIDATES, query=nearest, params=walk, with_payload=["id"])
            return [point.payload["id"] for point in engine._shard.query(request)]

        return qdrant
    return lambda vector: engine.search(vector[np.newaxis], SearchOptions(_CANDIDATES, ef=_EF))


def engines(
    url: Annotated[
        list[str] | None,
        typer.Argument(help="URLs of engines, as for muvera load. Default: those without a server."),
    ] = None,
    collection: Annotated[
        list[str] | None, typer.Option(help="Default: lareqa-en-minilm and cranfield-minilm.")
    ] = None,
    queries: Annotated[int, typer.Option(min=1, help="Maximum number of queries per collection.")] = 100,
    data: Data = None,
    cache: Cache = CACHE,
) -> None:
    """Compare vector databases as the first stage with muvera's own index."""
    loaded = load_collections(collection or ["lareqa-en-minilm", "cranfield-minilm"], data, cache)
    with tempfile.TemporaryDirectory() as folder, threadpool_limits(1):
        urls = url or [f"lancedb:{folder}/lance", f"qdrant-edge:{folder}/qdrant"]
        opened = {
            entry.partition(":")[0]: partial(open_engine, f"{entry.partition('#')[0]}#measured")
            for entry in urls
        }
        rows = (row for entry in loaded for row in compare_engines(entry, opened, queries))
        print_rows(COLUMNS, rows)
