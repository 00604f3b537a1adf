"""Vector databases as the first stage, each against our own index with the same encoder and settings."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from muvera import LearnedConfig, LearnedEncoder, MuveraIndex, top_k
from muvera.encoders.base import Encoder
from muvera.engines import Engine, EngineIndex, GraphSettings, SearchOptions

from ..datasets.collection import Collection

__all__ = ["COLUMNS", "compare_engines"]

#: Of a row, in words.
COLUMNS = {
    "collection": "collection",
    "engine": "engine",
    "shared": "same candidates",
    "final": "exact top 10 after ranking",
    "raw_ms": "ms a query, raw client",
    "query_ms": "ms a query, with ranking",
    "here_ms": "of it processor ms here",
    "encode_ms": "of it encoding",
    "overhead": "adapter over raw client",
    "build_s": "load s",
    "megabytes": "MB",
}

M, EF_CONSTRUCTION, EF, CANDIDATES, K = 16, 100, 128, 100, 10


def compare_engines(
    collection: Collection,
    engines: Mapping[str, Callable[[], Engine]],
    *,
    queries: int,
    dimension: int = 1024,
) -> Iterator[dict[str, Any]]:
    """Yield a row for our own index and for each engine.

    "same candidates" is the share of the 100 documents of the largest inner products that a first stage
    proposes at ef 128.  The adapter's overhead is what a search without ranking takes beyond the encoding of
    the query and the shortest call of the engine's own client, query after query.  Times are medians of
    wall time; "processor ms here" is what this process takes of a ranked search: the rest is the way to a
    server and its work, and an engine within this process may use more than one core.
    """
    documents = collection.documents.with_ids(np.arange(len(collection.documents)))
    asked = collection.queries[:queries]
    encoder = LearnedEncoder(LearnedConfig(dimension=documents.dimension, vector_dimension=dimension)).fit(
        documents
    )
    vectors, stored = encoder.encode_queries(asked), encoder.encode_documents(documents)
    nearest = np.argsort(-(vectors @ stored.T), axis=1, kind="stable")[:, :CANDIDATES]
    best = [set(ranking.ids.tolist()) for ranking in top_k(asked, documents, K)]
    for name, found in _rows(documents, encoder, asked, vectors, engines):
        shared = [
            len(set(a) & set(b.tolist())) / len(b) for a, b in zip(found["proposed"], nearest, strict=True)
        ]
        final = [len(set(a) & b) / len(b) for a, b in zip(found["ranked"], best, strict=True)]
        yield {
            "collection": collection.name,
            "engine": name,
            "shared": float(np.mean(shared)),
            "final": float(np.mean(final)),
            **{key: found.get(key) for key in list(COLUMNS)[4:]},
        }


def _rows(
    documents: Any,
    encoder: Encoder,
    asked: Any,
    vectors: NDArray[np.float32],
    engines: Mapping[str, Callable[[], Engine]],
) -> Iterator[tuple[str, dict[str, Any]]]:
    singles = [asked[i : i + 1] for i in range(len(asked))]
    encode = _median_ms(lambda one: encoder.encode_queries(one, threads=1), singles)
    graph = {"m": M, "ef_construction": EF_CONSTRUCTION, "ef": EF}
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        own = MuveraIndex.build(
            documents,
            encoder=encoder,
            backend="hnsw",
            hnsw=graph,
            exact_tokens=0,
            path=f"{folder}/index",
            threads=1,
        )
        built = time.perf_counter() - begun
        contents = own._contents.candidates
        assert contents is not None
        search = contents.search
        raw = _median_ms(lambda one: search.search(one, CANDIDATES, threads=1), list(vectors[:, None]))
        yield (
            "muvera (hnswlib)",
            {
                "proposed": search.search(vectors, CANDIDATES, threads=1)[0].tolist(),
                "ranked": [r.ids.tolist() for r in own.search(asked, K, candidates=CANDIDATES)],
                "raw_ms": raw,
                "query_ms": _median_ms(
                    lambda one: own.search(one, K, candidates=CANDIDATES, threads=1), singles
                ),
                "here_ms": _median_ms(
                    lambda one: own.search(one, K, candidates=CANDIDATES, threads=1),
                    singles,
                    time.process_time,
                ),
                "encode_ms": encode,
                "build_s": built,
                "megabytes": own.info().bytes_per_document * len(own) / 1e6,
            },
        )
        for name, opens in engines.items():
            yield name, _measured(opens, documents, encoder, asked, vectors, encode, own)


def _measured(
    opens: Callable[[], Engine],
    documents: Any,
    encoder: Encoder,
    asked: Any,
    vectors: Any,
    encode: float,
    own: MuveraIndex,
) -> dict[str, Any]:
    engine = opens()
    settings = GraphSettings(m=M, ef_construction=EF_CONSTRUCTION, from_documents=256)
    # Where an engine keeps no tokens, those of our own index rank.
    index = EngineIndex(
        engine, encoder=encoder, graph=settings, tokens="engine" if engine.keeps_tokens else own
    )
    begun = time.perf_counter()
    index.add(documents, threads=1)
    built = time.perf_counter() - begun
    options = SearchOptions(CANDIDATES, ef=EF)
    client = _raw_client(engine)
    singles = [asked[i : i + 1] for i in range(len(asked))]
    raws, beyond = [], []
    for one, vector in zip(singles, vectors, strict=True):
        raw, alone, encoding = (
            _median_ms(work, [one] * 3)
            for work in (
                lambda _, vector=vector: client(vector),
                lambda one: index.search(one, CANDIDATES, rerank=None, ef=EF, threads=1),
                lambda one: encoder.encode_queries(one, threads=1),
            )
        )
        raws.append(raw)
        beyond.append(alone - encoding - raw)
    raw = float(np.median(raws))
    found = {
        "proposed": [ids for ids, _ in engine.search(vectors, options)],
        "ranked": [r.ids.tolist() for r in index.search(asked, K, candidates=CANDIDATES, ef=EF)],
        "raw_ms": raw,
        "query_ms": _median_ms(lambda one: index.search(one, K, ef=EF, threads=1), singles),
        "here_ms": _median_ms(lambda one: index.search(one, K, ef=EF, threads=1), singles, time.process_time),
        "encode_ms": encode,
        "overhead": float(np.median(beyond)) / raw,
        "build_s": built,
        "megabytes": None if (size := engine.size_bytes()) is None else size / 1e6,
    }
    index.drop()
    engine.close()
    return found


def _raw_client(engine: Any) -> Callable[[NDArray[np.float32]], object]:
    """Return the same search as its client's own documentation writes it."""
    name = engine.name
    if engine.kind == "lancedb":
        table = engine._database.open_table(name)

        def lance(vector: NDArray[np.float32]) -> object:
            query = table.search(vector, vector_column_name="vector").distance_type("dot").limit(CANDIDATES)
            return query.ef(2 * CANDIDATES).refine_factor(2).select(["id", "_distance"]).to_list()

        return lance
    if engine.kind == "pgvector":
        connection = engine._connection

        def postgres(vector: NDArray[np.float32]) -> object:
            with connection.transaction(), connection.cursor() as cursor:
                cursor.execute(f"SET LOCAL hnsw.ef_search = {EF}")
                text = str(vector.tolist())
                query = f'SELECT id FROM "{name}" ORDER BY embedding <#> %s::halfvec LIMIT {CANDIDATES}'
                return cursor.execute(query, [text]).fetchall()

        return postgres
    if hasattr(engine, "_shard"):
        import qdrant_edge as edge

        def qdrant(vector: NDArray[np.float32]) -> object:
            nearest, walk = edge.Query.Nearest(vector.tolist(), "fde"), edge.SearchParams(hnsw_ef=EF)
            request = edge.QueryRequest(limit=CANDIDATES, query=nearest, params=walk, with_payload=["id"])
            return [point.payload["id"] for point in engine._shard.query(request)]

        return qdrant
    options = SearchOptions(CANDIDATES, ef=EF)
    return lambda vector: engine.search(vector[np.newaxis], options)


def _median_ms(
    work: Callable[[Any], object], inputs: list[Any], clock: Callable[[], float] = time.perf_counter
) -> float:
    times = []
    for one in inputs:
        begun = clock()
        work(one)
        times.append(clock() - begun)
    return 1000 * float(np.median(times))
