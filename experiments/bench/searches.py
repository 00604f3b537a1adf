"""Whole searches of an index: token codecs at equal recall, one query or many, one thread or all."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from threadpoolctl import threadpool_limits

from muvera import MultiVectors, MuveraIndex, chamfer_matrix
from muvera.data.ranking import best_first

from ..datasets.collection import Collection
from ..datasets.discovery import CACHE
from ..runner.provenance import machine
from .plumbing import (
    Cache,
    Data,
    Rounds,
    Save,
    Seconds,
    finish,
    interleaved,
    load_collections,
    progress,
    timed,
)

__all__ = ["measure", "searches"]

_K, _KINDS, _TARGETS = 10, ("float32", "int8", "4bit", "2bit"), (0.9, 0.95, 0.99)

# Possible numbers of candidates, queries per round, and queries per batch.
_CANDIDATES = (10, 12, 15, 20, 25, 30, 40, 50, 70, 100, 140, 200, 250, 320, 400, 500, 700, 1000)
_TIMED, _BATCH = 50, 300

_Jobs = dict[tuple[str, str], Callable[[], Seconds]]


def measure(
    collections: Iterable[Collection], rounds: int, kinds: Iterable[Any] = _KINDS, folder: Path | None = None
) -> dict[str, Any]:
    """Return rows of times at equal recall, and rows that compare ways to search the last collection."""
    codecs: list[dict[str, Any]] = []
    ways = _compared("20 documents", _tiny(), rounds)
    for collection in collections:
        documents = MultiVectors.from_flat(
            np.asarray(collection.documents.tokens, np.float32), offsets=collection.documents.offsets
        )
        queries = MultiVectors.from_arrays([query for query in collection.queries if len(query)][:_BATCH])
        progress(f"{collection.name}: exact scores")
        exact = [set(best_first(row, _K).tolist()) for row in chamfer_matrix(queries, documents)]
        indexes: dict[str, MuveraIndex] = {}
        for kind in kinds:
            saved = None if folder is None else folder / f"{collection.name}-{kind}"
            if saved is not None and saved.exists():
                indexes[kind] = MuveraIndex.load(saved)
                continue
            progress(f"{collection.name}: index with {kind} tokens")
            fitted: Any = next(iter(indexes.values())).encoder if indexes else "moments"
            indexes[kind] = MuveraIndex.build(documents, fitted, tokens=kind, exact_tokens=0, path=saved)
        rows = _at_equal_recall(indexes, queries, exact, rounds)
        codecs += [{"collection": collection.name, **row} for row in rows]
    for kind in [kind for kind in ("float32", "int8") if kind in indexes]:  # of the last collection
        ways += _compared(f"{collection.name}, {kind}", _ways(indexes[kind], queries), rounds)
    return {"codecs": codecs, "ways": ways}


def _at_equal_recall(
    indexes: dict[str, MuveraIndex], queries: MultiVectors, exact: list[set[int]], rounds: int
) -> list[dict[str, Any]]:
    """Return the time of a query with the smallest number of candidates that reaches each target."""
    jobs: dict[tuple[str, float], Callable[[], Seconds]] = {}
    chosen: dict[tuple[str, float], tuple[int, float]] = {}
    for kind, index in indexes.items():
        for candidates in _CANDIDATES:
            found = index.search(queries, _K, candidates=candidates)
            recall = float(
                np.mean(
                    [len(own & set(r.ids.tolist())) / len(own) for r, own in zip(found, exact, strict=True)]
                )
            )
            for target in _TARGETS:
                if recall >= target and (kind, target) not in chosen:
                    chosen[kind, target] = candidates, recall
                    jobs[kind, target] = timed(_one_by_one(index, queries[:_TIMED], candidates))
            if recall >= max(_TARGETS):
                break
    seconds = interleaved(jobs, rounds)
    rows = []
    for (kind, target), (candidates, recall) in chosen.items():
        times = seconds[kind, target][1]
        floats = seconds.get(("float32", target))
        rows.append(
            {
                "kind": kind, "target": target, "candidates": candidates, "recall": recall,
                "milliseconds": 1000 * float(np.median(times)) / len(queries[:_TIMED]),
                "share": None if floats is None else float(np.median(times / floats[1])),
            }
        )  # fmt: skip
    return sorted(rows, key=lambda row: row["target"])


def _one_by_one(
    index: MuveraIndex, queries: Iterable[Any], candidates: int | None = None, threads: int | None = 1
) -> Callable[[], object]:
    own = [[np.ascontiguousarray(query, np.float32)] for query in queries]
    return lambda: [index.search(query, _K, candidates=candidates, threads=threads) for query in own]


def _tiny() -> _Jobs:
    stream = np.random.default_rng(0)
    texts = [stream.normal(size=(5, 128)).astype(np.float32) for _ in range(20)]
    index, queries = MuveraIndex.build(texts, "mean"), [stream.normal(size=(10, 128))] * 500
    return {
        ("one by one", "one thread"): timed(_one_by_one(index, queries)),
        ("one by one", "all threads"): timed(_one_by_one(index, queries, threads=None)),
        ("one by one", "one thread, one core busy"): _beside_another(_one_by_one(index, queries)),
        ("one by one", "all threads, one core busy"): _beside_another(
            _one_by_one(index, queries, threads=None)
        ),
    }


def _ways(index: MuveraIndex, queries: MultiVectors) -> _Jobs:
    wide = {"candidates": 500}
    return {
        ("one by one", "one thread"): timed(_one_by_one(index, queries)),
        ("one by one", "all threads"): timed(_one_by_one(index, queries, threads=None)),
        ("one by one", "one thread, one core busy"): _beside_another(_one_by_one(index, queries)),
        ("one by one", "all threads, one core busy"): _beside_another(
            _one_by_one(index, queries, threads=None)
        ),
        ("500 candidates", "one thread"): timed(_one_by_one(index, queries, **wide)),
        ("500 candidates", "all threads"): timed(_one_by_one(index, queries, **wide, threads=None)),
        ("500 candidates", "one thread, one core busy"): _beside_another(_one_by_one(index, queries, **wide)),
        ("500 candidates", "all threads, one core busy"): _beside_another(
            _one_by_one(index, queries, **wide, threads=None)
        ),
        ("batch", "one thread"): timed(lambda: index.search(queries, _K, threads=1)),
        ("batch", "all threads"): timed(lambda: index.search(queries, _K)),
    }


def _beside_another(work: Callable[[], object]) -> Callable[[], Seconds]:
    """Return a job that runs while another process keeps one core busy."""

    def job() -> Seconds:
        other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        try:
            return timed(work)()
        finally:
            other.kill()
            other.wait()

    return job


def _compared(name: str, jobs: _Jobs, rounds: int) -> list[dict[str, Any]]:
    """Return microseconds per query in each way, and its speed relative to single queries and to one thread."""
    progress(f"{name}: {rounds} rounds")
    seconds = {key: value[0] for key, value in interleaved(jobs, rounds).items()}
    count = 500 if name == "20 documents" else _BATCH
    return [
        {
            "name": name, "way": way, "threads": threads,
            "microseconds": 1e6 * float(np.median(times)) / count,
            "one_by_one": float(np.median(seconds["one by one", "one thread"] / times)),
            "one_thread": float(np.median(seconds[way, threads.replace("all threads", "one thread")] / times)),
        }
        for (way, threads), times in seconds.items()
    ]  # fmt: skip


def searches(
    data: Data = None,
    collection: Annotated[
        list[str] | None, typer.Option(help="May be repeated. Default: scifact-minilm and cosqa-minilm.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Folder of the indexes, to measure again without building them.")
    ] = None,
    rounds: Rounds = 7,
    cache: Cache = CACHE,
    save: Save = False,
) -> None:
    """Measure whole searches: token codecs at equal recall, single queries and batches, one thread and all."""
    collections = load_collections(collection or ["scifact-minilm", "cosqa-minilm"], data, cache)
    conditions = {"machine": machine(), "rounds": rounds}
    with threadpool_limits(1):
        finish("searches", {**measure(collections, rounds, folder=folder), **conditions}, save)
