"""FDE, search, Chamfer: the time of whole queries at equal recall.

The indexes were saved and loaded.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from threadpoolctl import threadpool_limits

from muvera import FDEConfig, MultiVectors, MuveraIndex

from ..datasets.collection import Collection
from ..datasets.discovery import CACHE
from ..report.table import Column, Table
from .plumbing import (
    Cache,
    Data,
    Rounds,
    Save,
    Seconds,
    exact_best,
    finish,
    interleaved,
    load_collections,
    mean_recall,
    measured_on,
    one_by_one,
    progress,
    timed,
)

_K, _TARGETS = 10, (0.9, 0.95, 0.99)

# Possible numbers of candidates, and a graph's ef in candidates.
_CANDIDATES = (10, 12, 15, 20, 25, 30, 40, 50, 60, 80, 100, 140, 200, 280, 400)
_BREADTHS = (1, 2, 4)

# Queries that judge recall, and queries of a timed job.
_JUDGED, _TIMED = 200, 30


@dataclass(frozen=True, eq=False)
class Way:
    """An encoder and a search."""

    label: str
    preset: str
    changes: dict[str, Any]
    backend: str


#: What :func:`measure` compares; times are relative to the first one.
WAYS = (
    Way("moments", "moments", {}, "scan"),
    Way("fde", "fde", {}, "scan"),
    Way("fde", "fde", {}, "exact"),
    Way("fde", "fde", {}, "hnsw"),
    Way("simhash, short form", "simhash", {"final_projection": "learned"}, "scan"),
    Way("simhash, short form", "simhash", {"final_projection": "learned"}, "hnsw"),
    Way("simhash", "simhash", {}, "scan"),
    Way("simhash", "simhash", {}, "exact"),
    Way("simhash", "simhash", {}, "hnsw"),
    *(
        Way(f"paper, R_reps={repetitions}, k_sim={planes}", "paper", changes, backend)
        for repetitions, planes in ((10, 3), (20, 5))
        for changes in [{"num_repetitions": repetitions, "num_simhash_projections": planes}]
        for backend in ("scan", "hnsw")
    ),
)


def measure(collections: Iterable[Collection], rounds: int, ways: Sequence[Way] = WAYS) -> Table:
    """Return a row for each collection, way and target recall."""
    on, rows = measured_on(), list[dict[str, Any]]()
    for collection in collections:
        with tempfile.TemporaryDirectory() as folder:
            indexes = dict(_loaded(collection, ways, Path(folder)))
            rows += _rows(collection, indexes, rounds)
    first = ways[0]
    columns = [
        *(Column("collection"), Column("10-recall@10", "target", "{:.2f}"), Column("FDE", "label")),
        *(Column("floats", "floats", "{:,}"), Column("search", "backend"), Column("candidates")),
        *(
            Column("ef"),
            Column("time", "ms", "{:.3f}", "ms"),
            Column("relative to the first", "share", "{:.2f}x"),
        ),
        Column("bytes per vector", "bytes", "{:,.0f}"),
    ]
    caption = (
        "Time of whole queries: encode, search, rank by exact Chamfer; one query at a time on one thread, "
        f"processor time, median of {rounds} interleaved rounds. Indexes were saved and loaded. Each row has "
        "the smallest number of candidates that reaches the recall, and a graph the ef with the least time. "
        f"Rows without a time do not reach the recall with {_CANDIDATES[-1]} candidates. The first way is "
        f"{first.label} with {first.backend}. {on}"
    )
    return Table.of("Time at equal recall", columns, rows, caption)


def _loaded(collection: Collection, ways: Iterable[Way], folder: Path) -> Iterator[tuple[Way, MuveraIndex]]:
    """Build, save and load an index for each way.

    Those with the same encoder share its fit.
    """
    documents, encoders = _plain(collection.documents), dict[str, Any]()
    for number, way in enumerate(ways):
        config = FDEConfig.preset(way.preset, documents.dimension, **way.changes)
        progress(f"{collection.name}: {way.label}, {way.backend}")
        built = MuveraIndex.build(
            documents, encoders.get(config.hash, config), backend=way.backend, exact_tokens=0
        )
        encoders[config.hash] = built.encoder
        built.save(folder / str(number))
        del built
        yield way, MuveraIndex.load(folder / str(number))


def _plain(texts: MultiVectors) -> MultiVectors:
    """Return the texts that have tokens, without ids."""
    some = texts[np.flatnonzero(texts.lengths > 0)]
    return MultiVectors(some.tokens, some.offsets)


def _rows(collection: Collection, indexes: dict[Way, MuveraIndex], rounds: int) -> list[dict[str, Any]]:
    documents, queries = _plain(collection.documents), _plain(collection.queries)[:_JUDGED]
    exact = [set(row) for row in exact_best(queries, documents, _K).tolist()]
    jobs: dict[tuple[Way, float, int], Callable[[], Seconds]] = {}
    chosen: dict[tuple[Way, float, int], dict[str, Any]] = {}
    for way, index in indexes.items():
        for breadth in _BREADTHS if way.backend == "hnsw" else (0,):
            for target, candidates in _smallest(index, queries, exact, breadth):
                limits = {"candidates": candidates} | ({"ef": breadth * candidates} if breadth else {})
                chosen[way, target, breadth] = {"candidates": candidates, "ef": limits.get("ef")}
                jobs[way, target, breadth] = timed(one_by_one(index, queries[:_TIMED], _K, **limits))
    progress(f"{collection.name}: {rounds} rounds of {len(jobs)} jobs")
    seconds = {key: value[1] for key, value in interleaved(jobs, rounds).items()}
    rows, first = [], next(iter(indexes))
    for target in _TARGETS:
        for way, index in indexes.items():
            row = {
                "collection": collection.name,
                "target": target,
                "label": way.label,
                "backend": way.backend,
            }
            info = index.info()
            assert info.vectors is not None
            row |= {"floats": info.encoder["vector_dimension"], "bytes": info.vectors["bytes_per_vector"]}
            own = {key: times for key, times in seconds.items() if key[:2] == (way, target)}
            if own:
                key = min(own, key=lambda key: float(np.median(own[key])))
                row |= {**chosen[key], "ms": 1000 * float(np.median(own[key])) / min(_TIMED, len(queries))}
                base = seconds.get((first, target, 0))
                row["share"] = None if base is None else float(np.median(own[key] / base))
            rows.append(row)
    return rows


def _smallest(
    index: MuveraIndex, queries: MultiVectors, exact: list[set[int]], breadth: int
) -> Iterator[tuple[float, int]]:
    """Yield each target with the smallest number of candidates that reaches it."""
    left = list(_TARGETS)
    for candidates in _CANDIDATES:
        ef = breadth * candidates or None
        recall = mean_recall(index.search(queries, _K, candidates=candidates, ef=ef), exact)
        while left and recall >= left[0]:
            yield left.pop(0), candidates
        if not left:
            return


def pipeline(
    data: Data = None,
    collection: Annotated[
        list[str] | None, typer.Option(help="May be repeated. Default: scifact-minilm and cosqa-minilm.")
    ] = None,
    rounds: Rounds = 7,
    cache: Cache = CACHE,
    save: Save = False,
    short: Annotated[
        bool, typer.Option("--short", help="Only moments, fde and the short form of simhash.")
    ] = False,
) -> None:
    """Measure whole queries at equal recall.

    FDEs of several presets are searched by scan, exactly and by hnswlib.
    """
    collections = load_collections(collection or ["scifact-minilm", "cosqa-minilm"], data, cache)
    ways = [way for way in WAYS if not short or way.label in ("moments", "fde", "simhash, short form")]
    with threadpool_limits(1):
        table = measure(collections, rounds, ways)
    finish("pipeline", "FDE, search and Chamfer", [table], save)
