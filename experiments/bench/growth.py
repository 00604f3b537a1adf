"""Time and memory of an index of coded tokens at growing numbers of documents.

The first documents are real.  Generated documents may follow; they are mixtures of real
ones, so their recall is not that of real text.

Each step of each size runs in its own process, whose memory is measured.  It writes its
results to a file, so an interrupted command continues after the last step.  The exact
best documents are found by reading all documents in batches.  Larger sizes continue
from smaller ones, because they begin with the same documents.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from muvera import MultiVectors, MuveraIndex, chamfer_matrix
from muvera.data.ranking import best_first
from muvera.index.generations import read_manifest
from muvera.utils.atomic_files import write_json

from ..datasets.collection import Collection
from ..datasets.discovery import CACHE, DatasetPath
from ..datasets.loading import load_collection
from ..report.table import Table
from .grown_documents import GrownDocuments
from .plumbing import Cache, Data, Save, finish, in_new_process, measured_on, paths_of

K = 10

# Number of timed queries (not those whose exact best documents are known), and of
# documents added to a loaded index.  These are generated from at most _SOURCES real
# ones, which bounds the memory.
_TIMED, _ADDED, _SOURCES = 200, 1000, 10_000

# Token format, and settings of a graph.
_TOKENS, _GRAPH = "2bit", {"m": 16, "ef_construction": 100}

# Searches: candidates, ef of a graph, and candidates by codes that are rescored.
_SEARCHES = {"quick": (250, 500, 20), "fast": (500, 1000, 30), "thorough": (800, 2000, 50)}


@dataclass(frozen=True)
class GrowthSettings:
    """Collection, backend and encoder of a growing index.

    The exact best documents are computed for `judged` queries.
    """

    collection: str
    backend: str = "scan"
    encoder: str = "fde"
    judged: int = 50

    def name(self, count: int) -> str:
        """Return the name of an index of `count` documents."""
        return f"{self.collection}-{self.encoder}-{self.backend}-{self.judged}-{count}"


def measure_size(path: DatasetPath, settings: GrowthSettings, count: int, folder: Path) -> dict[str, Any]:
    """Return measurements of an index of `count` documents.

    It is built, searched and changed.

    Raises
    ------
    RuntimeError
        If a step failed; its error is on the screen.
    """
    index = folder / f"{settings.name(count)}.index"
    files = {name: folder / f"{settings.name(count)}.{name}.json" for name in _STEPS}
    if not index.exists() and not all(files[name].exists() for name in ("search", "change")):
        files["build"].unlink(missing_ok=True)  # its index is needed again
    results: dict[str, Any] = {"documents": count}
    for name, out in files.items():
        if not out.exists() and in_new_process(_run, name, path, settings, count, index, out):
            raise RuntimeError(
                f"The step {name!r} of {count:,} documents failed. Start again: earlier measurements are "
                "kept."
            )
        results |= json.loads(out.read_text(encoding="utf-8"))
    shutil.rmtree(index, ignore_errors=True)
    return results


def _run(name: str, path: DatasetPath, settings: GrowthSettings, count: int, index: Path, out: Path) -> None:
    on = measured_on()
    write_json(out, {f"{name}_machine": on, **_STEPS[name](load_collection(path), settings, count, index)})


class _Stopwatch:
    """Stopwatch of wall time that excludes the generation of documents."""

    def __init__(self) -> None:
        self.start = time.perf_counter()

    def without(self, batches: Iterator[MultiVectors]) -> Iterator[MultiVectors]:
        """Yield batches; the watch stops while each is generated."""
        while True:
            paused = time.perf_counter()
            batch = next(batches, None)
            self.start += time.perf_counter() - paused
            if batch is None:
                return
            yield batch

    def read(self) -> float:
        """Return the seconds so far."""
        return time.perf_counter() - self.start


def _build(collection: Collection, settings: GrowthSettings, count: int, folder: Path) -> dict[str, Any]:
    documents = GrownDocuments(collection.documents)
    how: dict[str, Any] = {
        "tokens": _TOKENS,
        "keep_exact": True,
        "exact_tokens": 0,
        "backend": settings.backend,
    }
    how |= {"hnsw": _GRAPH} if settings.backend == "hnsw" else {}
    watch = _Stopwatch()
    batches = watch.without(documents.batches(count))
    MuveraIndex.build(batches, settings.encoder, path=folder, overwrite=True, **how)
    results = {"build_seconds": watch.read(), "build_peak_bytes": _memory()["VmHWM"]}
    sizes = {file: file.stat().st_size for file in folder.rglob("*") if file.is_file()}
    exact = sum(size for file, size in sizes.items() if file.name.startswith("tokens-"))
    return {**results, "exact_bytes": exact, "disk_bytes": sum(sizes.values()) - exact}


def best_documents(
    collection: Collection, queries: MultiVectors, count: int, folder: Path
) -> NDArray[np.int64]:
    """Return the exact best of `count` documents for each query.

    The result is int64 (queries, K), best first.

    `folder` contains files with the best documents of these queries among the first n
    documents; only the other documents are read.
    """
    known = {int(file.stem): file for file in folder.glob("*.json")}
    done = max((size for size in known if size <= count), default=0)
    kept = json.loads(known[done].read_text(encoding="utf-8")) if done else {}
    ids = np.array(kept.get("ids", [[]] * len(queries)), np.int64)
    scores = np.array(kept.get("scores", [[]] * len(queries)), np.float32)
    for batch in GrownDocuments(collection.documents).batches(count, done):
        numbers = np.tile(np.asarray(batch.ids, np.int64), (len(queries), 1))
        ids = np.concatenate([ids, numbers], axis=1)
        scores = np.concatenate([scores, chamfer_matrix(queries, batch)], axis=1)
        best = np.stack([best_first(row, K) for row in scores])
        ids, scores = np.take_along_axis(ids, best, 1), np.take_along_axis(scores, best, 1)
    write_json(folder / f"{count}.json", {"ids": ids.tolist(), "scores": scores.tolist()})
    return ids


def _best(collection: Collection, settings: GrowthSettings, count: int, folder: Path) -> NDArray[np.int64]:
    kept = folder / f"{settings.collection}-best-{settings.judged}"
    kept.mkdir(exist_ok=True)
    return best_documents(collection, collection.queries[: settings.judged], count, kept)


def _truth(collection: Collection, settings: GrowthSettings, count: int, index: Path) -> dict[str, Any]:
    """Compute the exact answers in a separate process.

    They are then not part of the search's memory.
    """
    _best(collection, settings, count, index.parent)
    return {}


def _search(collection: Collection, settings: GrowthSettings, count: int, folder: Path) -> dict[str, Any]:
    exact = _best(collection, settings, count, folder.parent)
    watch = _Stopwatch()
    index = MuveraIndex.load(folder)
    results: dict[str, float] = {"load_seconds": watch.read()}
    judged = collection.queries[: settings.judged]
    for name, (candidates, ef, rescore) in _SEARCHES.items():
        how: dict[str, Any] = {"candidates": candidates, "threads": 1, "rescore": rescore}
        how |= {"ef": ef} if settings.backend == "hnsw" else {}
        pairs = zip(judged, exact, strict=True)  # these searches compile
        shares = [np.isin(best, index.search(query, K, **how)[0].ids).mean() for query, best in pairs]
        results[f"{name}_recall"] = float(np.mean(shares))
        times = []
        for query in collection.queries[settings.judged :][:_TIMED]:
            clock, processor = time.perf_counter(), time.thread_time()
            index.search(query, K, **how)
            times.append((time.perf_counter() - clock, time.thread_time() - processor))
        for share in (50, 95):
            clock_ms, processor_ms = 1000 * np.percentile(times, share, axis=0)
            results |= {f"{name}_p{share}": float(processor_ms), f"{name}_clock_p{share}": float(clock_ms)}
    memory = _memory()
    results["resident_bytes"] = memory["RssAnon"] + memory["RssFile"]
    return results


def _change(collection: Collection, settings: GrowthSettings, count: int, folder: Path) -> dict[str, Any]:
    # The added documents are generated, because all real ones may be in the index.
    source = collection.documents[:_SOURCES]
    more = next(GrownDocuments(source, seed=1).batches(count + _ADDED, count))
    more = more.with_ids(np.arange(count, count + len(more)))
    index = MuveraIndex.load(folder)
    before = set(read_manifest(folder)["files"])
    results: dict[str, float] = {}
    steps: dict[str, Callable[[], object]] = {
        "add": lambda: index.add(more),
        "save": lambda: index.save(folder),
    }
    for name, step in steps.items():
        watch = _Stopwatch()
        step()
        results[f"{name}_seconds"] = watch.read()
    files = {name: entry["bytes"] for name, entry in read_manifest(folder)["files"].items()}
    results["save_bytes"] = sum(size for name, size in files.items() if name not in before)
    found = len(MuveraIndex.load(folder))
    if found != count + len(more):
        raise RuntimeError(f"{folder} holds {found} documents instead of {count + len(more)}.")
    return results


_STEPS: dict[str, Callable[[Collection, GrowthSettings, int, Path], dict[str, Any]]] = {
    "build": _build,
    "truth": _truth,
    "search": _search,
    "change": _change,
}


def _memory() -> dict[str, int]:
    """Return bytes of memory of this process from Linux's files.

    Zeros on other systems.
    """
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="ascii").splitlines() if status.exists() else []
    named = dict(line.split(":", 1) for line in lines)
    return {name: 1024 * int(named.get(name, "0").split()[0]) for name in ("VmHWM", "RssAnon", "RssFile")}


# Key, title, divisor, format.
_QUANTITIES: list[tuple[str, str, float, str]] = [
    ("build_seconds", "build, s", 1, "{:,.0f}"),
    ("build_peak_bytes", "peak memory of the build, MB", 1e6, "{:,.0f}"),
    ("resident_bytes", "resident memory while searching, MB", 1e6, "{:,.0f}"),
    ("disk_bytes", "on disk without exact tokens, MB", 1e6, "{:,.0f}"),
    ("exact_bytes", "exact tokens on disk, MB", 1e6, "{:,.0f}"),
    ("load_seconds", "load, s", 1, "{:.2f}"),
    *(
        (f"{search}_{name}", f"{search} search: {title}", 1, form)
        for search in _SEARCHES
        for name, title, form in (
            ("recall", "10-recall@10", "{:.3f}"),
            ("p50", "p50, processor ms", "{:.2f}"),
            ("p95", "p95, processor ms", "{:.2f}"),
            ("clock_p50", "p50, wall ms", "{:.2f}"),
            ("clock_p95", "p95, wall ms", "{:.2f}"),
        )
    ),
    ("add_seconds", "add 1,000, s", 1, "{:.2f}"),
    ("save_seconds", "save after that, s", 1, "{:.2f}"),
    ("save_bytes", "written by that save, MB", 1e6, "{:,.1f}"),
]


def growth_table(settings: GrowthSettings, measured: list[dict[str, Any]], real: bool) -> Table:
    """Return a row for each quantity, with a column for each size.

    `real`: no document is generated.
    """
    sizes = [row["documents"] for row in measured]
    rows = [
        [title, *(form.format(row[key] / divisor) for row in measured)]
        for key, title, divisor, form in _QUANTITIES
    ]
    has_graph = settings.backend == "hnsw"
    graph = f" ({', '.join(f'{name}={value}' for name, value in _GRAPH.items())})" if has_graph else ""
    made = "" if real else ", and generated documents of 48 to 80 tokens"
    generated = "" if real else "Build times exclude generating documents. "
    searches = " ".join(
        f"A {name} search ranks {candidates} candidates{f' (ef={ef})' if has_graph else ''}, then the best "
        f"{rescore} of them by exact tokens."
        for name, (candidates, ef, rescore) in _SEARCHES.items()
    )
    caption = (
        f"The documents of {settings.collection}{made}. Preset {settings.encoder!r}, backend "
        f"{settings.backend!r}{graph}, {_TOKENS} codes and exact tokens. One thread searches. {searches} "
        f"{generated}Peak memory includes mapped pages of token files, which the system can drop. "
        f"Recall is over {settings.judged} queries; {_TIMED} other queries are timed once each. "
        f"{measured[-1]['build_machine']}"
    )
    title = f"{'Real text' if real else 'Generated documents'}, backend {settings.backend}"
    return Table(title, ["quantity", *(f"{size:,}" for size in sizes)], rows, caption)


def grow(
    size: Annotated[
        list[int] | None,
        typer.Option(
            min=1000,
            help="Number of documents; may be repeated. Those beyond the collection are generated. Default: "
            "its size.",
        ),
    ] = None,
    collection: Annotated[
        str, typer.Option(help="Collection of real documents, which are indexed first.")
    ] = "lareqa-en-e5",
    data: Data = None,
    backend: Annotated[str, typer.Option(help="exact, scan or hnsw.")] = "scan",
    queries: Annotated[int, typer.Option(min=1, help="Number of queries for recall.")] = 50,
    cache: Cache = CACHE,
    save: Save = False,
) -> None:
    """Build, search and change indexes of growing size.

    An interrupted command continues where it stopped.
    """
    (path,) = paths_of([collection], data, cache)
    folder = cache.expanduser() / "growth"
    folder.mkdir(parents=True, exist_ok=True)
    settings = GrowthSettings(collection, backend, judged=queries)
    whole = len(load_collection(path).documents)
    sizes = sorted(set(size or [whole]))
    try:
        rows = [measure_size(path, settings, count, folder) for count in sizes]
    except RuntimeError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from error
    table = growth_table(settings, rows, sizes[-1] <= whole)
    finish("growth", "Cost of an index by number of documents", [table], save)
