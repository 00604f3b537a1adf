"""Landmarks, floats and covariance by the number of documents.

This table is the reason for :data:`muvera.fde.config.SIZES`: which "fde" an index takes
for which collection.  Recall is by exact products of vectors, so no search misses
anything.  Each row is written to a file of the cache, so an interrupted command
continues with the next row.
"""

from __future__ import annotations

import json
import time
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from muvera import FDEEncoder, Landmarks, MultiVectors, chamfer_matrix
from muvera.data.batches import collection_batches
from muvera.utils.atomic_files import write_json

from ..datasets.collection import tokens_checksum
from ..datasets.discovery import CACHE
from ..report.table import Column, Table
from .plumbing import Cache, Data, Save, finish, load_collections, measured_on, progress, usage_errors

#: Exact best documents that count.
K = 10

_DEPTHS, _TARGETS = (20, 50, 100, 200, 500, 1000), (0.9, 0.95, 0.99)

# Documents that are scored at once, in tokens.
_TOKENS = 1 << 20

# Documents whose vectors are in memory at once.
_TOGETHER = 8192


class Variant(NamedTuple):
    """A row of the table: a preset, and what differs from it."""

    preset: str
    landmarks: int | None = None
    floats: int | None = None
    #: Directions of the covariance; 0 for none.
    directions: int | None = None

    @property
    def changes(self) -> dict[str, Any]:
        """Parameters that differ from the preset."""
        named = {"num_landmarks": self.landmarks, "final_projection_dimension": self.floats}
        changes: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
        if self.directions is not None:
            changes["moments"] = "covariance" if self.directions else "mean"
            changes |= {"num_directions": self.directions} if self.directions else {}
        return changes


#: What is compared by default.
VARIANTS = (
    Variant("paper"),
    Variant("simhash"),
    Variant("mean"),
    Variant("moments"),
    *(Variant("fde", 2048, floats, 128) for floats in (512, 1024)),
    *(Variant("fde", 2048, floats, 0) for floats in (512, 1024)),
    *(Variant("fde", 4096, 512, directions) for directions in (128, 48)),
    *(Variant("fde", 4096, floats, 0) for floats in (256, 512, 768, 1024, 2048)),
    *(Variant("fde", 8192, floats, 0) for floats in (512, 1024, 2048)),
    *(Variant("fde", 16384, floats, 0) for floats in (1024, 2048)),
)


def exact_scores(queries: MultiVectors, documents: MultiVectors) -> NDArray[np.float32]:
    """Return exact Chamfer similarities, float32 (queries, documents)."""
    parts = [chamfer_matrix(queries, batch) for batch in collection_batches(documents, _TOKENS)]
    return np.concatenate(parts, axis=1)


def best_of(scores: NDArray[np.float32], count: int = K) -> NDArray[np.int64]:
    """Return the positions of the best scores of each row, best first."""
    some = np.argpartition(-scores, count, axis=1)[:, :count]
    order = np.argsort(-np.take_along_axis(scores, some, axis=1), axis=1, kind="stable")
    return np.take_along_axis(some, order, axis=1)


def ranks_of(products: NDArray[np.float32], best: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rank of each of the `best` documents by products, from 0."""
    ranks = [
        len(row) - np.searchsorted(np.sort(row), row[own], side="right")
        for row, own in zip(products, best, strict=True)
    ]
    return np.array(ranks, np.int64)


def candidates_for(ranks: NDArray[np.int64], recall: float) -> int:
    """Return the number of candidates that contains this mean share of the best."""
    ordered = np.sort(ranks, axis=None)
    return int(ordered[int(np.ceil(recall * ordered.size)) - 1]) + 1


def measure(
    documents: MultiVectors, queries: MultiVectors, best: NDArray[np.int64], variant: Variant
) -> dict[str, Any]:
    """Return a row of the table; one thread fits and encodes."""
    encoder = FDEEncoder.preset(variant.preset, documents.dimension, **variant.changes)
    begun = time.process_time()
    encoder.fit(documents, threads=1)
    fitted = time.process_time()
    asked = encoder.encode_queries(queries)
    products = np.empty((len(queries), len(documents)), np.float32)
    seconds = 0.0
    for start in range(0, len(documents), _TOGETHER):
        encoding = time.process_time()
        vectors = encoder.encode_documents(documents[start : start + _TOGETHER], threads=1)
        seconds += time.process_time() - encoding
        products[:, start : start + _TOGETHER] = asked @ vectors.T
    config = encoder.config
    row: dict[str, Any] = {"documents": f"{len(documents):,}", "FDE": variant.preset}
    row["landmarks"] = config.cells.count if isinstance(config.cells, Landmarks) else None
    row["directions"] = config.num_directions
    row |= {"floats": config.vector_dimension, "fit": fitted - begun, "encode": seconds}
    row["query"] = _query_time(encoder, queries)
    ranks = ranks_of(products, best)
    row |= {f"@{depth}": float((ranks < depth).mean()) for depth in _DEPTHS}
    return row | {f"{target:.2f}": candidates_for(ranks, target) for target in _TARGETS}


def _query_time(encoder: FDEEncoder, queries: MultiVectors) -> float:
    """Return the median microseconds of encoding one query."""
    times = []
    for i in range(len(queries)):
        begun = time.perf_counter()
        encoder.encode_queries(queries[i : i + 1], threads=1)
        times.append(time.perf_counter() - begun)
    return 1e6 * float(np.median(times))


def landmarks_table(rows: list[dict[str, Any]], name: str, queries: int, on: str) -> Table:
    """Return a row for each size and variant."""
    columns = [
        *(Column("documents"), Column("FDE"), Column("landmarks"), Column("directions"), Column("floats")),
        *(Column(f"@{depth}", format="{:.3f}") for depth in _DEPTHS),
        *(Column(f"candidates for {target}", f"{target:.2f}") for target in _TARGETS),
        Column("fit", "fit", "{:.0f}", "s"),
        Column("encode", "encode", "{:.1f}", "s"),
        Column("one query", "query", "{:.0f}", "us"),
    ]
    caption = (
        f"The first documents of {name}, and {queries} queries: the share of exact Chamfer's {K} best among "
        "the first N by exact products of vectors, and how many candidates a mean recall needs. Fits on at "
        "most 4,096 documents, encoding of all documents and of one query take one thread; processor time, "
        f"except for a query. {on}"
    )
    return Table.of(f"Landmarks, floats and covariance, {name}", columns, rows, caption)


def landmarks(
    collection: Annotated[
        list[str] | None, typer.Option(help="Collection; may be repeated. Default: apidocs-minilm.")
    ] = None,
    size: Annotated[
        list[int] | None,
        typer.Option(min=1000, help="Number of documents; may be repeated. Default: the collection's size."),
    ] = None,
    queries: Annotated[int, typer.Option(min=1, help="Number of queries.")] = 200,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="Such as paper, or fde/4096/512/0: landmarks, floats, directions of covariance. Default: all."
        ),
    ] = None,
    data: Data = None,
    cache: Cache = CACHE,
    save: Save = False,
) -> None:
    """Compare landmarks, floats and covariance by the number of documents."""
    variants = [_parsed(text) for text in only] if only else list(VARIANTS)
    on, tables = measured_on(), []
    folder = cache.expanduser() / "landmarks"
    folder.mkdir(parents=True, exist_ok=True)
    with threadpool_limits(1):
        for loaded in load_collections(collection or ["apidocs-minilm"], data, cache):
            whole, asked = len(loaded.documents), loaded.queries[:queries]
            rows = []
            for count in sorted({min(each, whole) for each in size or [whole]}):
                documents = loaded.documents[:count]
                documents = MultiVectors(documents.tokens, documents.offsets)
                mark = f"{tokens_checksum(documents, asked)}"
                best: NDArray[np.int64] | None = None
                for variant in variants:
                    name = "-".join(str(part or "") for part in variant)
                    out = folder / f"{mark}-{name}.json"
                    if not out.exists():
                        best = best_of(exact_scores(asked, documents)) if best is None else best
                        write_json(out, measure(documents, asked, best, variant))
                    rows.append(json.loads(out.read_text(encoding="utf-8")))
                    progress(", ".join(f"{key} {value}" for key, value in rows[-1].items()))
            tables.append(landmarks_table(rows, loaded.name, len(asked), on))
    finish("landmarks", "Landmarks, floats and covariance", tables, save)


def _parsed(text: str) -> Variant:
    preset, *numbers = text.split("/")
    with usage_errors():
        return Variant(preset, *map(int, numbers))
