"""Comparison of vector searches in processor time: a graph and a scan of codes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from muvera import LearnedConfig, LearnedEncoder
from muvera.mips import HNSWSettings, SavedState, VectorSearch, make_search
from muvera.mips.exact import score_all

from ..datasets.collection import Collection
from ..datasets.discovery import CACHE
from .plumbing import Cache, Data, load_collections, print_rows

__all__ = ["COLUMNS", "compare_graphs", "graphs"]

#: Keys of a row, and their headings.
COLUMNS = {
    "vectors": "vectors",
    "floats": "floats",
    "graph": "search",
    "build_s": "build, s",
    "query_ms": "query, ms",
    "recall": "recall of 10 among 100",
    "filtered_ms": "query with a tenth allowed, ms",
    "file_mb": "file, MB",
    "load_s": "load, s",
    "delete_ms": "deletion, ms",
}

_SEARCHES: dict[str, tuple[str, HNSWSettings | None]] = {
    "scan": ("scan", None),
    "hnswlib": ("hnsw", HNSWSettings(m=16, ef_construction=100, ef=128)),
}


def compare_graphs(
    collection: Collection, dimensions: Iterable[int], sizes: Iterable[int], queries: int = 100
) -> Iterator[dict[str, Any]]:
    """Yield a row for each search of each size: processor seconds, recall, bytes.

    The vectors are learned vectors of the collection's documents; further ones are random mixtures of two of
    them with noise.
    """
    sizes = list(sizes)
    for dimension in dimensions:
        config = LearnedConfig(dimension=collection.documents.dimension, vector_dimension=dimension)
        encoder = LearnedEncoder(config).fit(collection.documents)
        asked = encoder.encode_queries(collection.queries)[:queries]
        vectors = _mixed(encoder.encode_documents(collection.documents), max(sizes))
        for size in sizes:
            exact = np.argsort(-score_all(vectors[:size], asked), axis=0)[:10].T
            for name, (kind, settings) in _SEARCHES.items():
                measured = _measure(make_search(kind, dimension, settings), vectors[:size], asked, exact)
                yield {"vectors": size, "floats": dimension, "graph": name, **measured}


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


def _measure(
    search: VectorSearch, vectors: NDArray[np.float32], queries: NDArray[np.float32], exact: NDArray[np.int64]
) -> dict[str, float]:
    def seconds(work: Callable[[], object]) -> float:
        began = time.process_time()
        work()
        return time.process_time() - began

    labels = np.arange(len(vectors))
    allowed = np.flatnonzero(np.random.default_rng(1).random(len(vectors)) < 0.1)
    results = {"build_s": seconds(lambda: search.add(labels, vectors, threads=1))}
    query = seconds(lambda: search.search(queries, 100, threads=1))
    filtered = seconds(lambda: search.search(queries, 10, allowed, threads=1))
    results |= {"query_ms": 1000 * query / len(queries), "filtered_ms": 1000 * filtered / len(queries)}
    best = search.search(queries, 100, threads=1)[0]
    shares = [len(np.intersect1d(a, b)) / 10 for a, b in zip(best, exact, strict=True)]
    results["recall"] = float(np.mean(shares))
    with tempfile.TemporaryDirectory() as folder:
        search.save(Path(folder))
        results["file_mb"] = sum(path.stat().st_size for path in Path(folder).iterdir()) / 1e6
        saved = SavedState(getattr(search, "settings", None))
        results["load_s"] = seconds(lambda: type(search).load(Path(folder), search.dimension, saved))
    gone = labels[:: max(1, len(labels) // 100)]
    results["delete_ms"] = 1000 * seconds(lambda: search.remove(gone)) / len(gone)
    return results


def graphs(
    collection: Annotated[str, typer.Option(help="Collection of the learned vectors.")] = "lareqa-en-minilm",
    dimension: Annotated[
        list[int] | None, typer.Option(help="Floats per vector. Default: 512 and 1024.")
    ] = None,
    size: Annotated[list[int] | None, typer.Option(help="Vectors. Default: 6000, 30000.")] = None,
    data: Data = None,
    cache: Cache = CACHE,
) -> None:
    """Compare a graph of hnswlib with a scan, in processor time of one thread."""
    (loaded,) = load_collections([collection], data, cache)
    with threadpool_limits(1):
        print_rows(COLUMNS, compare_graphs(loaded, dimension or [512, 1024], size or [6_000, 30_000]))
