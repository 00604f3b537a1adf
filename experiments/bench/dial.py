"""The recall dial: mean recall and time of ``search(recall=)`` beside the fixed number of candidates."""

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
) -> list[dict[str, Any]]:
    """Return a row for each collection, token format and target; recall is relative to a ranking of all documents."""
    rows = []
    for collection in collections:
        documents = MultiVectors.from_flat(
            np.asarray(collection.documents.tokens, np.float32), offsets=collection.documents.offsets
        )
        queries = MultiVectors.from_arrays([query for query in collection.queries if len(query)])
        fitted: Any = "moments"
        for kind in kinds:
            progress(f"{collection.name}, {kind}")
            saved = None if folder is None else folder / f"{collection.name}-{kind}"
            if saved is not None and saved.exists():
                index = MuveraIndex.load(saved)
            else:
                index = MuveraIndex.build(documents, fitted, tokens=kind, exact_tokens=0, path=saved)
            fitted = index.encoder
            own = _rows(index, queries, rounds)
            rows += [{"collection": collection.name, "kind": kind, **row} for row in own]
    return rows


def _rows(index: MuveraIndex, queries: MultiVectors, rounds: int) -> list[dict[str, Any]]:
    best = [set(r.ids.tolist()) for r in index.search(queries, _K, candidates=len(index))]
    found = index._contents.candidates
    calibration = None if found is None else found.calibration
    if found is None or calibration is None:
        raise ValueError(f"{len(index)} documents have no calibration: they are too few.")
    proposed = found.find(queries, min(_MOST, len(index)))
    hits = np.zeros((len(queries), min(_MOST, len(index))), bool)
    for row, own, rows in zip(hits, best, proposed, strict=True):
        row[: len(rows)] = np.isin(index._contents.ids.of(rows), list(own))
    by_number = np.cumsum(hits.mean(axis=0)) / np.mean([len(own) for own in best])
    measured: list[dict[str, Any]] = []
    jobs: dict[tuple[float, str], Callable[[], Seconds]] = {}
    for target in _TARGETS:
        rankings = index.search(queries, _K, recall=target)
        shares = [len(own & set(r.ids.tolist())) / len(own) for r, own in zip(rankings, best, strict=True)]
        recall = float(np.mean(shares))
        fixed = max(_K, int(np.argmax(by_number >= min(recall, by_number[-1]) - 1e-9)) + 1)
        level = calibration.level(target, _K)
        measured.append(
            {"target": target, "recall": recall, "fixed": fixed, "cap": level.cap, "by_windows": level.fixed}
        )
        measured[-1]["recall_by_windows"] = float(by_number[min(level.fixed, len(by_number)) - 1])
        jobs[target, "dial"] = timed(_one_by_one(index, queries, recall=target))
        jobs[target, "fixed"] = timed(_one_by_one(index, queries, candidates=fixed))
    seconds = interleaved(jobs, rounds)
    for facts in measured:
        times, fixed_times = (seconds[facts["target"], way][1] for way in ("dial", "fixed"))
        facts["milliseconds"] = 1000 * float(np.median(times)) / len(queries[:_TIMED])
        facts["share"] = float(np.median(times / fixed_times))
    return measured


def _one_by_one(index: MuveraIndex, queries: MultiVectors, **limits: Any) -> Callable[[], object]:
    own = [[np.ascontiguousarray(query, np.float32)] for query in queries[:_TIMED]]
    return lambda: [index.search(query, _K, threads=1, **limits) for query in own]


def dial(
    data: Data = None,
    collection: Annotated[
        list[str] | None,
        typer.Option(help="May be repeated. Default: all shared collections with real queries."),
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Folder of the indexes, to measure again without building them.")
    ] = None,
    rounds: Rounds = 7,
    cache: Cache = CACHE,
    save: Save = False,
) -> None:
    """Measure search(recall=): its mean recall, and its time beside the fixed number of candidates."""
    collections = load_collections(collection or list(_COLLECTIONS), data, cache)
    with threadpool_limits(1):
        rows = measure(collections, rounds, folder=folder)
    finish("dial", {"rows": rows, "rounds": rounds, "machine": machine()}, save)
