"""Shared code of the benches.

Command options, collections, interleaved timing, storing and printing.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
import typer
from numpy.typing import NDArray

from muvera import MultiVectors, MuveraIndex, Ranking, top_k

from ..datasets.collection import Collection
from ..datasets.discovery import DATA, DatasetPath, find_collections
from ..datasets.loading import load_collection
from ..report.stored_results import RESULTS, save_tables
from ..report.table import Table, markdown
from ..runner.provenance import machine, machine_text

Data = Annotated[
    list[Path] | None,
    typer.Option(help=f"Folder of collections; may be repeated. Default: {DATA} and outputs of `encode`."),
]
Cache = Annotated[Path, typer.Option(help="Folder of environments, embeddings and exact answers.")]
Save = Annotated[
    bool, typer.Option("--save", help=f"Store the results in {RESULTS.name}/; `results` makes pages of them.")
]
Rounds = Annotated[int, typer.Option(min=1, help="Interleaved rounds; results are medians.")]

_Name = TypeVar("_Name")

#: Wall time and processor time of a call, in seconds.
Seconds = tuple[float, float]


@contextmanager
def usage_errors(kinds: tuple[type[Exception], ...] = (ValueError, OSError)) -> Iterator[None]:
    """Turn errors of these kinds into errors of the command's usage."""
    try:
        yield
    except kinds as error:
        raise typer.BadParameter(str(error)) from error


def paths_of(names: Sequence[str], data: list[Path] | None, cache: Path) -> list[DatasetPath]:
    """Return the paths of collections, of all without `names`.

    A wrong name or folder is a usage error.
    """
    with usage_errors():
        paths = find_collections(data, cache, names)
    return [paths[name] for name in names or paths]


def load_collections(names: Sequence[str], data: list[Path] | None, cache: Path) -> list[Collection]:
    """Load collections; a wrong name or folder is a usage error."""
    with usage_errors():
        return [load_collection(path) for path in paths_of(names, data, cache)]


def timed(work: Callable[[], object]) -> Callable[[], Seconds]:
    """Return a job for :func:`interleaved` that calls `work` in this thread."""

    def measure() -> Seconds:
        clock, processor = time.perf_counter(), time.thread_time()
        work()
        return time.perf_counter() - clock, time.thread_time() - processor

    return measure


def interleaved(
    jobs: Mapping[_Name, Callable[[], Seconds | NDArray[np.float64]]], rounds: int
) -> dict[_Name, NDArray[np.float64]]:
    """Run every job once per round, under the same conditions.

    Each round begins with another job.

    Jobs return wall time and processor time in seconds; the result has both for each
    job, float64 (2, rounds).  All jobs run once before timing, to compile.
    """
    names = list(jobs)
    seconds: dict[_Name, list[Any]] = {name: [] for name in names}
    for name in names:
        jobs[name]()
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            seconds[name].append(jobs[name]())
    return {name: np.array(rows).T for name, rows in seconds.items()}


def in_new_process(function: Callable[..., object], *arguments: Any) -> int:
    """Call a function of a module in a new process, and return the exit code."""
    process = multiprocessing.get_context("spawn").Process(target=function, args=arguments)
    process.start()
    process.join()
    return process.exitcode or 0


def measured_on() -> str:
    """Describe this machine and its load now, for a table's caption."""
    return f"{machine_text(machine())}."


def finish(name: str, title: str, tables: Sequence[Table], save: bool) -> None:
    """Print tables, and store them with `save`."""
    if save:
        save_tables(name, title, tables)
    for table in tables:
        typer.echo(f"{table.title}\n\n{markdown(table)}\n\n{table.caption}\n")


def float_documents(collection: Collection) -> MultiVectors:
    """Return the documents in float32, without ids."""
    tokens = np.asarray(collection.documents.tokens, np.float32)
    return MultiVectors(tokens, collection.documents.offsets)


def float_queries(collection: Collection, most: int | None = None) -> MultiVectors:
    """Return the first queries that have tokens, in float32."""
    filled = [np.asarray(query, np.float32) for query in collection.queries if len(query)]
    return MultiVectors.from_arrays(filled[:most])


def token_indexes(documents: MultiVectors, kinds: Iterable[Any], name: str) -> dict[str, MuveraIndex]:
    """Return an index for each token format, with the same vectors."""
    indexes: dict[str, MuveraIndex] = {}
    for kind in kinds:
        progress(f"{name}: index with {kind} tokens")
        encoder: Any = next(iter(indexes.values())).encoder if indexes else "fde"
        indexes[kind] = MuveraIndex.build(documents, encoder, tokens=kind, exact_tokens=0)
    return indexes


def exact_best(queries: MultiVectors, documents: MultiVectors, k: int) -> NDArray[np.int64]:
    """Return the positions of each query's best documents by exact Chamfer.

    The documents have no ids.
    """
    return np.array([ranking.ids for ranking in top_k(queries, documents, k)], np.int64)


def mean_recall(rankings: Iterable[Ranking], best: Iterable[set[int]]) -> float:
    """Return the mean share of each query's `best` documents in its ranking."""
    return float(
        np.mean([len(own & set(r.ids.tolist())) / len(own) for r, own in zip(rankings, best, strict=True)])
    )


def one_by_one(
    index: MuveraIndex, queries: Iterable[Any], k: int, *, threads: int | None = 1, **limits: Any
) -> Callable[[], object]:
    """Return a function that searches for one query after another."""
    arrays = [[np.ascontiguousarray(query, np.float32)] for query in queries]
    return lambda: [index.search(query, k, threads=threads, **limits) for query in arrays]


def progress(line: str) -> None:
    """Print a line of progress."""
    typer.echo(line, err=True)
