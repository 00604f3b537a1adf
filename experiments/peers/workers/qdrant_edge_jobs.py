"""Qdrant's own multivectors in this process (qdrant-edge).

It computes MaxSim of half-precision tokens.
"""

import importlib
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

LIBRARY = "qdrant_edge"

Work = Callable[..., Any]

TOKENS, MEAN = "tokens", "mean"

# Number of documents per insertion.
_BATCH = 256


def _config(dimension: int, m: int, ef_construct: int, threads: int) -> Any:
    edge = importlib.import_module(LIBRARY)

    def graph(links: int) -> Any:
        return edge.HnswIndexConfig(
            m=links, ef_construct=ef_construct, full_scan_threshold=10, max_indexing_threads=threads
        )

    tokens = edge.EdgeVectorParams(
        size=dimension,
        distance=edge.Distance.Dot,
        datatype=edge.VectorStorageDatatype.Float16,
        multivector_config=edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim),
        hnsw_config=graph(0),
    )
    means = edge.EdgeVectorParams(size=dimension, distance=edge.Distance.Cosine, hnsw_config=graph(m))
    return edge.EdgeConfig(
        vectors={TOKENS: tokens, MEAN: means},
        optimizers=edge.EdgeOptimizersConfig(indexing_threshold=1, default_segment_number=1),
        max_search_threads=1,
        wal_enabled=False,
    )


@lru_cache(maxsize=1)
def _shard(folder: str) -> Any:
    """Open a shard, which the searches of all settings share."""
    return importlib.import_module(LIBRARY).EdgeShard.load(folder)


def build(inputs: Mapping[str, Any], index: str, seed: int, threads: int, m: int, ef_construct: int) -> Work:
    """Fill a shard and build its graph.

    The engine uses its own random numbers, not `seed`.
    """
    edge = importlib.import_module(LIBRARY)
    documents = [document.astype(np.float32) for document in inputs["documents"]]
    config = _config(documents[0].shape[1], m, ef_construct, threads)

    def vectors(document: NDArray[np.float32]) -> dict[str, Any]:
        return {TOKENS: document.tolist(), MEAN: document.mean(axis=0).tolist()}

    def work() -> None:
        Path(index).mkdir()
        shard = edge.EdgeShard.create(index, config)
        for start in range(0, len(documents), _BATCH):
            batch = documents[start : start + _BATCH]
            points = [edge.Point(start + i, vectors(one), {}) for i, one in enumerate(batch)]
            shard.update(edge.UpdateOperation.upsert_points(points))
        shard.optimize()
        shard.flush()
        shard.close()

    return work


def search(_: Mapping[str, Any], index: str, top_k: int, search_width: int) -> Work:
    """Return (position, score) of the best documents of one query.

    A graph proposes `search_width` documents.
    """
    edge = importlib.import_module(LIBRARY)
    shard = _shard(index)

    def work(query: NDArray[np.float32]) -> NDArray[np.float64]:
        nearest = edge.Query.Nearest(query.mean(axis=0).tolist(), MEAN)
        walk = edge.SearchParams(hnsw_ef=search_width)
        request = edge.QueryRequest(
            query=edge.Query.Nearest(query.tolist(), TOKENS),
            prefetches=[edge.Prefetch(search_width, nearest, params=walk)],
            limit=top_k,
            with_vector=False,
            with_payload=False,
        )
        return np.array([(one.id, one.score) for one in shard.query(request)])

    return work
