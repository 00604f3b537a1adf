"""Builds, additions and small searches of two versions of muvera, in turns.

Each version runs in its own process, and every job once per round.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from ..datasets.collection import Collection
from ..datasets.discovery import CACHE
from ..peers.environments import Library, Worker, save_texts
from ..report.table import Column, Table
from .plumbing import Cache, Data, Rounds, Save, finish, interleaved, load_collections, measured_on, progress

# Columns of random tokens, queries of a search, and their numbers of tokens.
_DIMENSION, _QUERIES, _QUERY_TOKENS = 128, 50, (4, 32, 64)

# Documents and tokens of the random collections that are searched.
_SHAPES = ((20, 4), (20, 200), (300, 4), (300, 32), (300, 200), (2000, 4), (2000, 32))

# Documents and tokens of the random collection that is built, and of the one that some
# documents are added to.
_BUILT, _GROWN, _ADDED = (1000, 80), (100_000, 16), 10_000

#: A job's name, operation and options.
Job = tuple[str, str, dict[str, Any]]

_COLUMNS = [
    *(Column("job"), Column("threads"), Column("other version", "other", "{:,.1f}", "ms")),
    *(Column("this version", "this", "{:,.1f}", "ms"), Column("ratio", "ratio", "{:.2f}")),
    *(Column("min", "least", "{:.2f}"), Column("max", "most", "{:.2f}")),
]


def _unit(stream: np.random.Generator, count: int, tokens: int) -> list[NDArray[np.float32]]:
    rows = stream.normal(size=(count, tokens, _DIMENSION)).astype(np.float32)
    return list(rows / np.linalg.norm(rows, axis=2, keepdims=True))


def search_jobs(folder: Path, shapes: Iterable[tuple[int, int]] = _SHAPES) -> list[Job]:
    """Write random collections and queries, and return jobs that search them."""
    stream = np.random.default_rng(0)
    for tokens in _QUERY_TOKENS:
        save_texts(folder, f"queries-{tokens}", _unit(stream, _QUERIES, tokens))
    jobs: list[Job] = []
    for shape in shapes:
        name = "random-{}-{}".format(*shape)
        save_texts(folder, name, _unit(stream, *shape))
        for tokens in _QUERY_TOKENS:
            title = f"{_QUERIES} searches, {shape[0]:,} documents of {shape[1]} tokens, queries of {tokens}"
            jobs.append((title, "search", {"documents": name, "queries": f"queries-{tokens}"}))
    return jobs


def collection_jobs(folder: Path, collections: Iterable[Collection]) -> list[Job]:
    """Write collections, and return jobs that build and search them."""
    jobs: list[Job] = []
    for collection in collections:
        name = collection.name
        save_texts(folder, name, [np.asarray(text, np.float32) for text in collection.documents])
        asked = [np.asarray(query, np.float32) for query in collection.queries if len(query)]
        save_texts(folder, f"{name}-queries", asked[:_QUERIES])
        jobs.append((f"build {name}", "build", {"documents": name, "threads": 1}))
        for limits in ({}, {"recall": 0.9}, {"recall": 0.95}):
            told = "".join(f", recall={recall}" for recall in limits.values())
            options = {"documents": name, "queries": f"{name}-queries", **limits}
            jobs.append((f"{_QUERIES} searches of {name}{told}", "search", options))
    return jobs


def random_jobs(folder: Path) -> list[Job]:
    """Write a random collection, and return a job that builds its index."""
    save_texts(folder, "built", _unit(np.random.default_rng(1), *_BUILT))
    return [("build {:,} random documents of {} tokens".format(*_BUILT), "build", {"documents": "built"})]


def add_jobs(folder: Path, grown: tuple[int, int] = _GROWN, added: int = _ADDED) -> list[Job]:
    """Write a large random collection, and return a job that adds documents to it."""
    save_texts(folder, "grown", _unit(np.random.default_rng(2), *grown))
    title = f"add {added:,} documents to {grown[0] - added:,} of {grown[1]} tokens"
    return [(title, "add", {"documents": "grown", "added": added, "threads": None})]


def compare(jobs: Sequence[Job], other: Path, folder: Path, rounds: int, cache: Path) -> Table:
    """Run the jobs in both versions, and return the table of their processor times."""
    checkouts = {
        "other": Library("other", "version_jobs", checkout=other.absolute()),
        "this": Library("this", "version_jobs"),
    }
    on, rows = measured_on(), list[dict[str, Any]]()
    with ExitStack() as stack:
        workers = {name: stack.enter_context(Worker(each, folder, cache)) for name, each in checkouts.items()}

        def call(name: str, job: Job) -> Callable[[], NDArray[np.float64]]:
            return lambda: workers[name].time(job[1], 1, **job[2])[:, 0]

        for job in jobs:
            seconds = interleaved({name: call(name, job) for name in workers}, rounds)
            # A loaded machine hardly changes processor time.
            kind = 0 if job[2].get("threads", 1) is None else 1
            times = {name: 1e3 * each[kind] for name, each in seconds.items()}
            ratios = times["this"] / times["other"]
            row: dict[str, Any] = {"job": job[0], "threads": "all" if kind == 0 else "one"}
            row |= {name: float(np.median(each)) for name, each in times.items()}
            row |= {"ratio": float(np.median(ratios)), "least": ratios.min(), "most": ratios.max()}
            rows.append(row)
            progress(str(row))
    caption = (
        f"Median of {rounds} interleaved rounds, after one that is not counted: processor time of one thread, "
        f"wall time of all. Ratios are taken round by round. Searched indexes were saved and loaded. {on}"
    )
    return Table.of("Two versions", _COLUMNS, rows, caption)


def versions(
    other: Annotated[Path, typer.Argument(exists=True, help="Checkout of another version.")],
    part: Annotated[
        list[str] | None,
        typer.Option(help="search, collections, build or add; may be repeated. Default: all."),
    ] = None,
    collection: Annotated[
        list[str] | None, typer.Option(help="Of collections; may be repeated. Default: lotte500-colbertv2.")
    ] = None,
    rounds: Rounds = 5,
    data: Data = None,
    cache: Cache = CACHE,
    save: Save = False,
) -> None:
    """Time builds, additions and small searches of two versions, in turns."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        parts: dict[str, Callable[[], list[Job]]] = {
            "search": lambda: search_jobs(folder),
            "collections": lambda: collection_jobs(
                folder, load_collections(collection or ["lotte500-colbertv2"], data, cache)
            ),
            "build": lambda: random_jobs(folder),
            "add": lambda: add_jobs(folder),
        }
        jobs = [job for name in part or parts for job in parts[name]()]
        table = compare(jobs, other, folder, rounds, cache)
    finish("versions", "Two versions", [table], save)
