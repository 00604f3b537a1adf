"""hnswlib against usearch: the same vectors, the same links, one thread, processor time."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from muvera import LearnedConfig, LearnedEncoder
from muvera.mips import HNSWSettings, SavedState, USearchSettings, VectorSearch, make_search
from muvera.mips.exact import score_all

from ..datasets.collection import Collection

__all__ = ["COLUMNS", "compare_graphs"]

#: Of a row, in words.
COLUMNS = {
    "vectors": "vectors",
    "floats": "floats",
    "graph": "graph",
    "build_s": "build s",
    "query_ms": "ms a query",
    "recall": "10 best among 100",
    "filtered_ms": "ms, a tenth allowed",
    "file_mb": "file MB",
    "load_s": "load s",
    "delete_ms": "ms a deletion",
}

M, EF_CONSTRUCTION, EF = 16, 100, 128

GRAPHS: dict[str, tuple[str, Any]] = {
    "hnswlib": ("hnsw", HNSWSettings(m=M, ef_construction=EF_CONSTRUCTION, ef=EF)),
    "usearch bfloat16": ("usearch", USearchSettings(m=M, ef_construction=EF_CONSTRUCTION, ef=EF)),
    "usearch int8": (
        "usearch",
        USearchSettings(precision="int8", m=M, ef_construction=EF_CONSTRUCTION, ef=EF),
    ),
}


def compare_graphs(
    collection: Collection, dimensions: Iterable[int], sizes: Iterable[int], *, queries: int = 100
) -> Iterator[dict[str, Any]]:
    """Yield a row for each graph of each size: processor seconds, recall, bytes.

    The vectors are learned ones of the collection's documents; beyond their number, means of two of them
    with weights drawn evenly, and a little noise.
    """
    sizes = list(sizes)
    for dimension in dimensions:
        config = LearnedConfig(dimension=collection.documents.dimension, vector_dimension=dimension)
        encoder = LearnedEncoder(config).fit(collection.documents)
        own = encoder.encode_documents(collection.documents)
        asked = encoder.encode_queries(collection.queries)[:queries]
        vectors = _mixed(own, max(sizes))
        for size in sizes:
            exact = np.argsort(-score_all(vectors[:size], asked), axis=0)[:10].T
            for name, (kind, settings) in GRAPHS.items():
                found = _measured(make_search(kind, dimension, settings), vectors[:size], asked, exact)
                yield {"vectors": size, "floats": dimension, "graph": name, **found}


def _mixed(own: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(0)
    if size <= len(own):
        return own[:size]
    new = size - len(own)
    weight = rng.random((new, 1), np.float32)
    mixed = weight * own[rng.integers(len(own), size=new)]
    mixed += (1 - weight) * own[rng.integers(len(own), size=new)]
    mixed += rng.standard_normal(mixed.shape, np.float32) * own.std() / 4
    return np.concatenate([own, mixed])


def _measured(
    search: VectorSearch, vectors: NDArray[np.float32], queries: NDArray[np.float32], exact: NDArray[np.int64]
) -> dict[str, float]:
    labels = np.arange(len(vectors))
    build = _processor_seconds(lambda: search.add(labels, vectors, threads=1))
    found: list[NDArray[np.int64]] = []
    query = _processor_seconds(lambda: found.append(search.search(queries, 100, threads=1)[0]))
    recall = np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(found[0], exact, strict=True)])
    allowed = np.flatnonzero(np.random.default_rng(1).random(len(vectors)) < 0.1)
    filtered = _processor_seconds(lambda: search.search(queries, 10, allowed, threads=1))
    with tempfile.TemporaryDirectory() as folder:
        search.save(Path(folder))
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
        saved = SavedState(getattr(search, "settings", None))
        load = _processor_seconds(lambda: type(search).load(Path(folder), search.dimension, saved))
    gone = labels[:: max(1, len(labels) // 100)]
    delete = _processor_seconds(lambda: search.remove(gone))
    return {
        "build_s": build,
        "query_ms": 1000 * query / len(queries),
        "recall": float(recall),
        "filtered_ms": 1000 * filtered / len(queries),
        "file_mb": size / 1e6,
        "load_s": load,
        "delete_ms": 1000 * delete / len(gone),
    }


def _processor_seconds(work: Any) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun
