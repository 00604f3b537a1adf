"""The recall dial: mean recall and time of ``search(recall=)``, and of the fixed number of candidates."""

from __future__ import annotations

from collections.abc import Callable, Iterable
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
    finish,
    float_documents,
    float_queries,
    interleaved,
    load_collections,
    mean_recall,
    measured_on,
    one_by_one,
    timed,
    token_indexes,
)

__all__ = ["dial", "measure"]

_K, _TARGETS, _MOST = 10, (0.9, 0.95, 0.98, 0.99), 1000

# Number of timed queries, and default collections: all shared ones with real queries.
_TIMED = 50
_COLLECTIONS = (
    *("scifact-minilm", "cosqa-minilm", "cranfield-minilm", "cisi-e5", "lareqa-en-minilm", "lareqa-en-e5"),
)


def measure(
    collections: Iterable[Collection], rounds: int, kinds: Iterable[Any] = ("float32", "int8")
) -> Table:
    """Return a row for each collection, token format and target; recall is relative to a ranking of all documents."""
    on, rows = measured_on(), list[dict[str, Any]]()
    for collection in collections:
        indexes = token_indexes(float_documents(collection), kinds, collection.name)
        for kind, index in indexes.items():
            own = _rows(index, float_queries(collection), rounds)
            rows += [{"name": f"{collection.name}, {kind}", **row} for row in own]
    columns = [
        *(Column("collection, tokens", "name"), Column("`recall=`", "target", "{:.2f}")),
        Column("10-recall@10", "recall", "{:.3f}"),
        Column("time", "milliseconds", "{:.2f}", "ms"),
        Column("fixed number with that recall", "fixed"),
        Column("time / fixed number's", "share", "{:.2f}x"),
    ]
    caption = (
        "`search(recall=)`, calibrated with windows of documents, compared with the fixed number of candidates that "
        "has the same recall. Times are processor time of whole searches on one thread, one query at a time: the "
        f"median of {rounds} interleaved rounds. {on}"
    )
    return Table.of("Recalls and their times", columns, rows, caption)


def _rows(index: MuveraIndex, queries: MultiVectors, rounds: int) -> list[dict[str, Any]]:
    best = [set(r.ids.tolist()) for r in index.search(queries, _K, candidates=len(index))]
    found = index._contents.candidates
    if found is None or found.calibration is None:
        raise ValueError(f"{len(index)} documents have no calibration: they are too few.")
    hits = np.zeros((len(queries), min(_MOST, len(index))), bool)
    for row, own, (rows, _) in zip(hits, best, found.find(queries, hits.shape[1]), strict=True):
        row[: len(rows)] = np.isin(index._contents.ids.of(rows), list(own))
    by_number = np.cumsum(hits.mean(axis=0)) / np.mean([len(own) for own in best])
    measured: list[dict[str, Any]] = []
    jobs: dict[tuple[float, str], Callable[[], Seconds]] = {}
    timed_queries = queries[:_TIMED]
    for target in _TARGETS:
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
    """Measure search(recall=): its mean recall, and its time compared with the fixed number of candidates."""
    collections = load_collections(collection or list(_COLLECTIONS), data, cache)
    with threadpool_limits(1):
        table = measure(collections, rounds)
    finish("dial", "A recall instead of candidates", [table], save)
