"""Whole searches: token codecs at equal recall, batches, threads, target recalls."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import Annotated, Any

import numpy as np
import typer
from threadpoolctl import threadpool_limits

from muvera import MultiVectors, MuveraIndex

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
    float_documents,
    float_queries,
    interleaved,
    load_collections,
    mean_recall,
    measured_on,
    one_by_one,
    progress,
    timed,
    token_indexes,
)

_K, _KINDS, _TARGETS = 10, ("float32", "int8", "4bit", "2bit"), (0.9, 0.95, 0.99)

# Possible numbers of candidates, queries per round, queries per batch, and copies of
# the tiny index's query.
_CANDIDATES = (10, 12, 15, 20, 25, 30, 40, 50, 70, 100, 140, 200, 250, 320, 400, 500, 700, 1000)
_TIMED, _BATCH, _TINY = 50, 300, 500

# Of `dial`: recalls, largest number of candidates, and default collections: all shared
# ones with real queries.
_RECALLS, _MOST = (0.9, 0.95, 0.98, 0.99), 1000
_COLLECTIONS = (
    *("scifact-minilm", "cosqa-minilm", "cranfield-minilm", "cisi-e5", "lareqa-en-minilm", "lareqa-en-e5"),
)

_Jobs = dict[tuple[str, str], Callable[[], Seconds]]


def measure(collections: Iterable[Collection], rounds: int, kinds: Iterable[Any] = _KINDS) -> list[Table]:
    """Return a table of times at equal recall, and one of ways to search."""
    on, codecs = measured_on(), list[dict[str, Any]]()
    stream = np.random.default_rng(0)
    texts = [stream.normal(size=(5, 128)).astype(np.float32) for _ in range(20)]
    tiny = MuveraIndex.build(texts, "mean")
    jobs = _single("one by one", tiny, [stream.normal(size=(10, 128))] * _TINY)
    ways = _compared("20 documents", jobs, _TINY, rounds)
    for collection in collections:
        documents, queries = float_documents(collection), float_queries(collection, _BATCH)
        exact = [set(row) for row in exact_best(queries, documents, _K).tolist()]
        indexes = token_indexes(documents, kinds, collection.name)
        rows = _at_equal_recall(indexes, queries, exact, rounds)
        codecs += [{**row, "name": f"{collection.name}, {row['kind']}"} for row in rows]
        for kind in [kind for kind in ("float32", "int8") if kind in indexes]:
            ways += _ways(f"{collection.name}, {kind}", indexes[kind], queries, rounds)
    caption = f"Median of {rounds} interleaved rounds; processor time of one thread, queries one by one. {on}"
    return [
        Table.of("Token codecs at equal recall", _CODEC_COLUMNS, codecs, caption),
        Table.of(
            "Ways to search, 100 candidates unless stated otherwise",
            _WAY_COLUMNS,
            ways,
            "Wall time of a query.",
        ),
    ]


_CODEC_COLUMNS = [
    *(Column("collection, tokens", "name"), Column("minimum 10-recall@10", "target", "{:.2f}")),
    *(Column("candidates"), Column("recall", "recall", "{:.3f}")),
    *(Column("time", "milliseconds", "{:.2f}", "ms"), Column("time relative to float32", "share", "{:.2f}x")),
]
_WAY_COLUMNS = [
    *(Column("index", "name"), Column("way"), Column("threads")),
    Column("time of a query", "microseconds", "{:,.0f}", "us"),
    Column("speedup over one by one", "one_by_one", "{:.2f}x"),
    Column("speedup over one thread", "one_thread", "{:.2f}x"),
]


def _at_equal_recall(
    indexes: dict[str, MuveraIndex], queries: MultiVectors, exact: list[set[int]], rounds: int
) -> list[dict[str, Any]]:
    """Return a query's time with the fewest candidates that reach each target."""
    jobs: dict[tuple[str, float], Callable[[], Seconds]] = {}
    chosen: dict[tuple[str, float], tuple[int, float]] = {}
    for kind, index in indexes.items():
        for candidates in _CANDIDATES:
            recall = mean_recall(index.search(queries, _K, candidates=candidates), exact)
            for target in _TARGETS:
                if recall >= target and (kind, target) not in chosen:
                    chosen[kind, target] = candidates, recall
                    jobs[kind, target] = timed(one_by_one(index, queries[:_TIMED], _K, candidates=candidates))
            if recall >= max(_TARGETS):
                break
    seconds = interleaved(jobs, rounds)
    rows = []
    for (kind, target), (candidates, recall) in chosen.items():
        times, floats = seconds[kind, target][1], seconds.get(("float32", target))
        row = {"kind": kind, "target": target, "candidates": candidates, "recall": recall}
        row["milliseconds"] = 1000 * float(np.median(times)) / len(queries[:_TIMED])
        row["share"] = None if floats is None else float(np.median(times / floats[1]))
        rows.append(row)
    return sorted(rows, key=lambda row: row["target"])


def _single(way: str, index: MuveraIndex, queries: Iterable[Any], **limits: Any) -> _Jobs:
    """Return jobs that search one by one.

    They use one thread or all, and the machine is idle or has one busy core.
    """
    jobs: _Jobs = {}
    for busy in (False, True):
        for threads in (1, None):
            work = one_by_one(index, queries, _K, threads=threads, **limits)
            name = "all threads" if threads is None else "one thread"
            jobs[way, f"{name}{', one core busy' if busy else ''}"] = (
                _beside_another(work) if busy else timed(work)
            )
    return jobs


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


def _ways(name: str, index: MuveraIndex, queries: MultiVectors, rounds: int) -> list[dict[str, Any]]:
    """Compare single queries, also with many candidates, and batches."""
    jobs = _single("one by one", index, queries) | _single("500 candidates", index, queries, candidates=500)
    for threads in (1, None):
        search = partial(index.search, queries, _K, threads=threads)
        jobs["batch", "all threads" if threads is None else "one thread"] = timed(search)
    return _compared(name, jobs, _BATCH, rounds)


def _compared(name: str, jobs: _Jobs, count: int, rounds: int) -> list[dict[str, Any]]:
    """Return microseconds per query in each way, and its relative speed.

    The speed is relative to single queries and to one thread.
    """
    progress(f"{name}: {rounds} rounds")
    seconds = {key: value[0] for key, value in interleaved(jobs, rounds).items()}
    rows = []
    for (way, threads), times in seconds.items():
        alone = seconds[way, threads.replace("all threads", "one thread")]
        row: dict[str, Any] = {"name": name, "way": way, "threads": threads}
        row["microseconds"] = 1e6 * float(np.median(times)) / count
        row["one_by_one"] = float(np.median(seconds["one by one", "one thread"] / times))
        rows.append({**row, "one_thread": float(np.median(alone / times))})
    return rows


def searches(
    data: Data = None,
    collection: Annotated[
        list[str] | None, typer.Option(help="May be repeated. Default: scifact-minilm and cosqa-minilm.")
    ] = None,
    rounds: Rounds = 7,
    cache: Cache = CACHE,
    save: Save = False,
) -> None:
    """Measure whole searches.

    The tables compare token codecs at equal recall, single queries and batches, one
    thread and all.
    """
    collections = load_collections(collection or ["scifact-minilm", "cosqa-minilm"], data, cache)
    with threadpool_limits(1):
        finish("searches", "Whole searches", measure(collections, rounds), save)


def measure_dial(
    collections: Iterable[Collection], rounds: int, kinds: Iterable[Any] = ("float32", "int8")
) -> Table:
    """Return a row for each collection, token format and target.

    Recall is relative to a ranking of all documents.
    """
    on, rows = measured_on(), list[dict[str, Any]]()
    for collection in collections:
        indexes = token_indexes(float_documents(collection), kinds, collection.name)
        for kind, index in indexes.items():
            own = _dial_rows(index, float_queries(collection), rounds)
            rows += [{"name": f"{collection.name}, {kind}", **row} for row in own]
    columns = [
        *(Column("collection, tokens", "name"), Column("`recall=`", "target", "{:.2f}")),
        Column("10-recall@10", "recall", "{:.3f}"),
        Column("time", "milliseconds", "{:.2f}", "ms"),
        Column("fixed number with that recall", "fixed"),
        Column("time relative to fixed number", "share", "{:.2f}x"),
    ]
    caption = (
        "`search(recall=)`, calibrated with windows of documents, compared with the fixed number of "
        "candidates that has the same recall. Times are processor time of whole searches on one thread, one "
        f"query at a time: the median of {rounds} interleaved rounds. {on}"
    )
    return Table.of("Recalls and their times", columns, rows, caption)


def _dial_rows(index: MuveraIndex, queries: MultiVectors, rounds: int) -> list[dict[str, Any]]:
    best = [set(r.ids.tolist()) for r in index.search(queries, _K, candidates=len(index))]
    found = index.contents.candidates
    if found is None or found.calibration is None:
        raise ValueError(f"{len(index)} documents have no calibration: they are too few.")
    hits = np.zeros((len(queries), min(_MOST, len(index))), bool)
    for row, own, (rows, _) in zip(hits, best, found.find(queries, hits.shape[1]), strict=True):
        row[: len(rows)] = np.isin(index.contents.ids.of(rows), list(own))
    by_number = np.cumsum(hits.mean(axis=0)) / np.mean([len(own) for own in best])
    measured: list[dict[str, Any]] = []
    jobs: dict[tuple[float, str], Callable[[], Seconds]] = {}
    timed_queries = queries[:_TIMED]
    for target in _RECALLS:
        recall = mean_recall(index.search(queries, _K, recall=target), best)
        fixed = max(_K, int(np.argmax(by_number >= min(recall, by_number[-1]) - 1e-9)) + 1)
        measured.append({"target": target, "recall": recall, "fixed": fixed})
        jobs[target, "dial"] = timed(one_by_one(index, timed_queries, _K, recall=target))
        jobs[target, "fixed"] = timed(one_by_one(index, timed_queries, _K, candidates=fixed))
    seconds = interleaved(jobs, rounds)
    for facts in measured:
        times, fixed_times = (seconds[facts["target"], way][1] for way in ("dial", "fixed"))
        facts["milliseconds"] = 1000 * float(np.median(times)) / len(timed_queries)
        facts["share"] = float(np.median(times / fixed_times))
    return measured


def dial(
    data: Data = None,
    collection: Annotated[
        list[str] | None,
        typer.Option(help="May be repeated. Default: all shared collections with real queries."),
    ] = None,
    rounds: Rounds = 7,
    cache: Cache = CACHE,
    save: Save = False,
) -> None:
    """Measure search(recall=): its mean recall and its relative time.

    The time is compared with that of the fixed number of candidates.
    """
    collections = load_collections(collection or list(_COLLECTIONS), data, cache)
    with threadpool_limits(1):
        table = measure_dial(collections, rounds)
    finish("dial", "A recall instead of candidates", [table], save)
