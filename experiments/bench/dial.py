"""The recall dial: mean recall and time of ``search(recall=)``, and of the fixed number of candidates."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
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
    Folder,
    Rounds,
    Save,
    Seconds,
    finish,
    float_documents,
    float_queries,
    interleaved,
    load_collections,
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
    collections: Iterable[Collection],
    rounds: int,
    kinds: Iterable[Any] = ("float32", "int8"),
    folder: Path | None = None,
) -> Table:
    """Return a row for each collection, token format and target; recall is relative to a ranking of all documents."""
    on, rows = measured_on(), list[dict[str, Any]]()
    for collection in collections:
        indexes = token_indexes(float_documents(collection), kinds, folder, collection.name)
        for kind, index in indexes.items():
            own = _rows(index, float_queries(collection), rounds)
            rows += [{"name": f"{collection.name}, {kind}", **row} for row in own]
    columns = [
        *(Column("collection, tokens", "name"), Column("`recall=`", "target", "{:.2f}")),
        Column("10-recall@10", "recall", "{:.3f}"),
        Column("time", "milliseconds", "{:.2f}", "ms"),
        Column("fixed number with that recall", "fixed"),
        Column("time / fixed number's", "share", "{:.2f}x"),
        Column("target", lambda row: 0.85 if row["target"] > 0.95 else None, "{:.2f}x"),
        *(Column("most candidates", "cap"), Column("fixed number by windows", "by_windows")),
        Column("its recall", "recall_by_windows", "{:.3f}"),
    ]
    caption = (
        "`search(recall=)`, calibrated with windows of documents, compared with the fixed number of candidates that "
        "has the same recall. The recall should be at most .005 below and .03 above the given one. Most candidates: "
        "the limit for one query. Fixed number by windows: what the calibration gives without stopping early. Times "
        "are processor time of whole searches on one thread, one query at a time: the median of "
        f"{rounds} interleaved rounds. {on}"
    )
    return Table.of("Recalls and their times", columns, rows, caption)


def _rows(index: MuveraIndex, queries: MultiVectors, rounds: int) -> list[dict[str, Any]]:
    best = [set(r.ids.tolist()) for r in index.search(queries, _K, candidates=len(index))]
    found = index._contents.candidates
    calibration = None if found is None else found.calibration
    if found is None or calibration is None:
        raise ValueError(f"{len(index)} documents have no calibration: they are too few.")
    hits = np.zeros((len(queries), min(_MOST, len(index))), bool)
    for row, own, (rows, _) in zip(hits, best, found.find(queries, hits.shape[1]), strict=True):
        row[: len(rows)] = np.isin(index._contents.ids.of(rows), list(own))
    by_number = np.cumsum(hits.mean(axis=0)) / np.mean([len(own) for own in best])
    measured: list[dict[str, Any]] = []
    jobs: dict[tuple[float, str], Callable[[], Seconds]] = {}
    timed_queries = queries[:_TIMED]
    for target in _TARGETS:
        rankings = index.search(queries, _K, recall=target)
        shares = [len(own & set(r.ids.tolist())) / len(own) for r, own in zip(rankings, best, strict=True)]
        recall = float(np.mean(shares))
        fixed = max(_K, int(np.argmax(by_number >= min(recall, by_number[-1]) - 1e-9)) + 1)
        level = calibration.level(target, _K)
        by_windows = float(by_number[min(level.fixed, len(by_number)) - 1])
        facts = {"target": target, "recall": recall, "fixed": fixed, "cap": level.cap}
        measured.append({**facts, "by_windows": level.fixed, "recall_by_windows": by_windows})
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
    folder: Folder = None,
    rounds: Rounds = 7,
    cache: Cache = CACHE,
    save: Save = False,
) -> None:
    """Measure search(recall=): its mean recall, and its time compared with the fixed number of candidates."""
    collections = load_collections(collection or list(_COLLECTIONS), data, cache)
    with threadpool_limits(1):
        table = measure(collections, rounds, folder=folder)
    finish("dial", "A recall instead of candidates", [table], save)
