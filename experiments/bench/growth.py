"""Time and memory of building and searching an index of coded tokens at growing numbers of documents.

The first documents are real.  Generated documents may follow; they are mixtures of real ones, so their recall is not
that of real text.

Each step of each size runs in its own process, whose memory is measured, and writes its results to a file, so
an interrupted command continues after the last step.  The exact best documents are found by reading all
documents in batches; larger sizes continue from smaller ones, because they begin with the same documents.
"""

from __future__ import annotations

import io
import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from muvera import MultiVectors, MuveraIndex, chamfer_matrix
from muvera.data.ranking import best_first
from muvera.index.manifest import read_manifest
from muvera.utils.atomic_files import write_bytes, write_json

from ..datasets.collection import Collection
from ..datasets.discovery import CACHE, DatasetPath
from ..datasets.loading import load_collection
from ..evaluation.statistics import growth_exponent
from ..report.table import Column, Table
from .grown_documents import GrownDocuments
from .plumbing import Cache, Data, Save, finish, in_new_process, measured_on, paths_of

__all__ = ["GrowthSettings", "K", "best_documents", "grow", "growth_table", "measure_size"]

K = 10

# Number of timed queries (not those whose exact best documents are known), and of documents added to a loaded
# index.
_TIMED, _ADDED = 200, 1000

# Searches: candidates, ef of a graph, and candidates by codes that are rescored.
_SEARCHES = {"quick": (500, 1000, 30), "thorough": (800, 2000, 50)}

# Settings of a graph.
_GRAPH = {"m": 16, "ef_construction": 100}

# Number of batches after which the best documents so far are written to disk.
_KEPT_AFTER = 16


@dataclass(frozen=True)
class GrowthSettings:
    """Settings of the index, and the number of `judged` queries whose exact best documents are computed."""

    collection: str
    real: bool = False
    encoder: str = "moments"
    backend: str = "scan"
    codec: str = "2bit"
    keep_exact: bool = True
    judged: int = 50

    def name(self, count: int) -> str:
        """Return the name of an index of `count` documents."""
        built = [self.collection, self.encoder, self.backend, self.codec]
        built += ["alone"] * (not self.keep_exact) + ["real"] * self.real
        return "-".join(str(value) for value in (*built, count))


def measure_size(path: DatasetPath, settings: GrowthSettings, count: int, folder: Path) -> dict[str, Any]:
    """Return measurements of building, searching and changing an index of `count` documents.

    Raises
    ------
    RuntimeError
        If a step failed; its error is on the screen.
    """
    index = folder / f"{settings.name(count)}.index"
    results: dict[str, Any] = {"documents": count, **asdict(settings)}
    files = {}
    for name in _STEPS:
        judged = f"-{settings.judged}" if name in ("truth", "search") else ""  # the results depend on it
        files[name] = folder / f"{settings.name(count)}.{name}{judged}.json"
    if not index.exists() and not (files["search"].exists() and files["change"].exists()):
        files["build"].unlink(missing_ok=True)  # its index is needed again
    for name, out in files.items():
        if not out.exists() and in_new_process(_run, name, path, settings, count, index, out):
            raise RuntimeError(
                f"The step {name!r} of {count:,} documents failed. Start again: earlier measurements are kept."
            )
        results |= json.loads(out.read_text(encoding="utf-8"))
    shutil.rmtree(index, ignore_errors=True)
    return results


def _run(name: str, path: DatasetPath, settings: GrowthSettings, count: int, index: Path, out: Path) -> None:
    write_json(out, {f"{name}_machine": measured_on(), **_STEPS[name](path, settings, count, index)})


class _Stopwatch:
    """Stopwatch of wall time and processor time that excludes the generation of documents."""

    def __init__(self) -> None:
        self.clock, self.processor = -time.perf_counter(), -time.process_time()

    def without(self, batches: Iterator[MultiVectors]) -> Iterator[MultiVectors]:
        """Yield batches; the watch stops while each is generated."""
        while True:
            clock, processor = time.perf_counter(), time.process_time()
            batch = next(batches, None)
            self.clock += clock - time.perf_counter()
            self.processor += processor - time.process_time()
            if batch is None:
                return
            yield batch

    def read(self, name: str) -> dict[str, float]:
        """Return the times so far."""
        clock, processor = self.clock + time.perf_counter(), self.processor + time.process_time()
        return {f"{name}_seconds": clock, f"{name}_processor_seconds": processor}


def _build(path: DatasetPath, settings: GrowthSettings, count: int, folder: Path) -> dict[str, Any]:
    documents = GrownDocuments(load_collection(path).documents)
    how: dict[str, Any] = {"tokens": settings.codec, "keep_exact": settings.keep_exact, "exact_tokens": 0}
    how |= {"backend": settings.backend, "hnsw": _GRAPH if settings.backend == "hnsw" else {}}
    watch = _Stopwatch()
    batches = watch.without(documents.batches(count))
    MuveraIndex.build(batches, settings.encoder, path=folder, overwrite=True, **how)
    taken = watch.read("build")
    sizes = {file: file.stat().st_size for file in folder.rglob("*") if file.is_file()}
    exact = sum(size for file, size in sizes.items() if file.name.startswith("tokens-"))
    memory = {"build_peak_bytes": _memory()["VmHWM"]}
    return {**taken, **memory, "exact_bytes": exact, "disk_bytes": sum(sizes.values()) - exact}


def _truth(path: DatasetPath, settings: GrowthSettings, count: int, index: Path) -> dict[str, Any]:
    watch = _Stopwatch()
    _best(load_collection(path), settings, count, index.parent)
    return watch.read("truth")


def _best(collection: Collection, settings: GrowthSettings, count: int, folder: Path) -> NDArray[np.int64]:
    kept = folder / f"{settings.collection}-best-{settings.judged}"
    kept.mkdir(exist_ok=True)
    return best_documents(collection, collection.queries[: settings.judged], count, kept)


def best_documents(
    collection: Collection, queries: MultiVectors, count: int, folder: Path
) -> NDArray[np.int64]:
    """Return the exact best of `count` documents for each query, int64 (queries, K), best first.

    `folder` contains files with the best documents of these queries among the first n documents; only the
    other documents are read.
    """
    known = {int(file.stem): file for file in folder.glob("*.npz")}
    done = max((size for size in known if size <= count), default=0)
    ids, scores = np.zeros((len(queries), 0), np.int64), np.zeros((len(queries), 0), np.float32)
    if done:
        with np.load(known[done]) as arrays:
            ids, scores = arrays["ids"], arrays["scores"]
    temporary: Path | None = None
    for number, batch in enumerate(GrownDocuments(collection.documents).batches(count, done), 1):
        numbers = np.tile(np.asarray(batch.ids, np.int64), (len(queries), 1))
        ids = np.concatenate([ids, numbers], axis=1)
        scores = np.concatenate([scores, chamfer_matrix(queries, batch)], axis=1)
        best = np.stack([best_first(row, K) for row in scores])
        ids, scores = np.take_along_axis(ids, best, 1), np.take_along_axis(scores, best, 1)
        done += len(batch)
        if number % _KEPT_AFTER == 0 or done == count:
            out, stream = folder / f"{done}.npz", io.BytesIO()
            np.savez(stream, ids=ids, scores=scores)
            write_bytes(out, stream.getvalue())
            if temporary is not None:
                temporary.unlink(missing_ok=True)
            temporary = None if done == count else out
    return ids


def _search(path: DatasetPath, settings: GrowthSettings, count: int, folder: Path) -> dict[str, Any]:
    collection = load_collection(path)
    exact = _best(collection, settings, count, folder.parent)
    before = _memory()
    watch = _Stopwatch()
    index = MuveraIndex.load(folder)
    results: dict[str, float] = watch.read("load")
    judged = collection.queries[: settings.judged]
    for name, (candidates, ef, rescore) in _SEARCHES.items():
        how: dict[str, Any] = {"candidates": candidates, "threads": 1}
        how |= {"ef": ef} if settings.backend == "hnsw" else {}
        how |= {"rescore": rescore} if settings.keep_exact else {}
        pairs = zip(judged, exact, strict=True)  # these searches compile
        shares = [np.isin(best, index.search(query, K, **how)[0].ids).mean() for query, best in pairs]
        results[f"{name}_recall"] = float(np.mean(shares))
        times = []
        for query in collection.queries[settings.judged :][:_TIMED]:
            clock, processor = time.perf_counter(), time.thread_time()
            index.search(query, K, **how)
            times.append((time.perf_counter() - clock, time.thread_time() - processor))
        for share in (50, 95, 99):
            clock_ms, processor_ms = 1000 * np.percentile(times, share, axis=0)
            results |= {f"{name}_p{share}": float(processor_ms), f"{name}_clock_p{share}": float(clock_ms)}
    memory = _memory()
    results["resident_bytes"] = memory["RssAnon"] + memory["RssFile"]
    results["anonymous_bytes"] = memory["RssAnon"]
    results["empty_process_bytes"] = before["RssAnon"] + before["RssFile"]
    return results


def _change(path: DatasetPath, settings: GrowthSettings, count: int, folder: Path) -> dict[str, Any]:
    # The added documents are generated, because all real ones may be in the index.
    more = next(GrownDocuments(load_collection(path).documents, seed=1).batches(count + _ADDED, count))
    more = more[:_ADDED].with_ids(np.arange(count, count + min(_ADDED, len(more))))
    index = MuveraIndex.load(folder)
    before = set(read_manifest(folder)["files"])
    results: dict[str, float] = {}
    steps: dict[str, Callable[[], Any]] = {
        "add": lambda: index.add(more),
        "save": lambda: index.save(folder),
        "reload": lambda: MuveraIndex.load(folder),
    }
    for name, step in steps.items():
        watch = _Stopwatch()
        reloaded = step()
        results |= watch.read(name)
    files = {name: entry["bytes"] for name, entry in read_manifest(folder)["files"].items()}
    results["save_bytes"] = sum(size for name, size in files.items() if name not in before)
    if len(reloaded) != count + len(more):
        raise RuntimeError(f"{folder} holds {len(reloaded)} documents instead of {count + len(more)}.")
    return results


_STEPS: dict[str, Callable[[DatasetPath, GrowthSettings, int, Path], dict[str, Any]]] = {
    "build": _build,
    "truth": _truth,
    "search": _search,
    "change": _change,
}


def _memory() -> dict[str, int]:
    """Return bytes of memory of this process from Linux's files; zeros on other systems."""
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="ascii").splitlines() if status.exists() else []
    named = dict(line.split(":", 1) for line in lines)
    return {name: 1024 * int(named.get(name, "0").split()[0]) for name in ("VmHWM", "RssAnon", "RssFile")}


# Key, title, divisor, format, target at a million documents, cost per document (factor and unit).
_QUANTITIES: list[tuple[str, str, float, str, float | None, tuple[float, str] | None]] = [
    ("build_seconds", "build, s", 1, "{:,.0f}", 900, (1e6, "us")),
    ("build_processor_seconds", "build, processor s", 1, "{:,.0f}", None, (1e6, "us")),
    ("build_peak_bytes", "peak memory of the build, MB", 1e6, "{:,.0f}", 6 * 2.0**30, (1, "B")),
    ("resident_bytes", "resident memory while searching, MB", 1e6, "{:,.0f}", 3 * 2.0**30, (1, "B")),
    ("anonymous_bytes", "of which not backed by files, MB", 1e6, "{:,.0f}", None, None),
    ("disk_bytes", "on disk without exact tokens, MB", 1e6, "{:,.0f}", 4 * 2.0**30, (1, "B")),
    ("exact_bytes", "exact tokens on disk, MB", 1e6, "{:,.0f}", None, (1, "B")),
    ("load_seconds", "load, s", 1, "{:.2f}", 2, None),
    ("load_processor_seconds", "load, processor s", 1, "{:.2f}", None, None),
    *(
        (f"{key}_{name}", f"{search} search: {title}", 1, form, target, None)
        for key, search in (("quick", "fast"), ("thorough", "thorough"))
        for name, title, form, target in (
            ("recall", "10-recall@10", "{:.3f}", 0.97),
            ("p50", "p50, processor ms", "{:.2f}", 2.5),
            ("p95", "p95, processor ms", "{:.2f}", 5),
            ("clock_p50", "p50, wall ms", "{:.2f}", None),
            ("clock_p95", "p95, wall ms", "{:.2f}", None),
        )
    ),
    ("add_seconds", "add 1,000, s", 1, "{:.2f}", 2, None),
    ("add_processor_seconds", "add 1,000, processor s", 1, "{:.2f}", None, None),
    ("save_seconds", "save after that, s", 1, "{:.2f}", None, None),
    ("save_bytes", "written by that save, MB", 1e6, "{:,.1f}", None, None),
    ("reload_seconds", "second load, s", 1, "{:.2f}", None, None),
    ("reload_processor_seconds", "second load, processor s", 1, "{:.2f}", None, None),
]


def growth_table(settings: GrowthSettings, measured: list[dict[str, Any]]) -> Table:
    """Return a row for each quantity, with a column for each size."""
    sizes = [row["documents"] for row in measured]
    rows = []
    for key, title, divisor, form, target, cost in _QUANTITIES:
        values = [row[key] for row in measured]
        exponent = None if key.endswith(("recall", "save_bytes")) else growth_exponent(sizes, values)
        each = f"{cost[0] * values[-1] / sizes[-1]:,.0f} {cost[1]}" if cost else None
        cells = [form.format(value / divisor) for value in values]
        rows.append([title, *cells, exponent, each, target and form.format(target / divisor)])
    exact = settings.keep_exact
    rescored = ", then the best {} of them by exact tokens" if exact else ""
    graph = f" ({_GRAPH}, ef=1000 and 2000)" if settings.backend == "hnsw" else ""
    made = "" if settings.real else ", and generated documents of 48 to 80 tokens"
    generated = "" if settings.real else "Build times exclude generating documents. "
    caption = (
        f"The documents of {settings.collection}{made}. Preset {settings.encoder!r}, backend "
        f"{settings.backend!r}{graph}, {settings.codec} codes {'and' if exact else 'without'} exact tokens; "
        f"one thread searches. A fast search ranks 500 candidates{rescored.format(30)}; a thorough search ranks 800 "
        f"candidates{rescored.format(50)}. {generated}Recall is over "
        f"{settings.judged} queries; {_TIMED} other queries are timed once each. A quantity grows like the number of "
        "documents to the power of its exponent. Other jobs used the machine during builds. "
        f"{measured[-1]['build_machine']}"
    )
    title = f"{'Real text' if settings.real else 'Generated documents'}, backend {settings.backend}"
    columns = ["quantity", *(f"{size:,}" for size in sizes), Column("exponent", format="{:.2f}")]
    return Table(title, [*columns, "per document", "target at 1,000,000"], rows, caption)


def grow(
    size: Annotated[list[int] | None, typer.Option(min=1000, help="Number of documents.")] = None,
    collection: Annotated[str, typer.Option(help="Real documents, which come first.")] = "lareqa-en-e5",
    data: Data = None,
    real: Annotated[
        bool, typer.Option("--real", help="Only real documents; the last size is the whole collection.")
    ] = False,
    encoder: Annotated[str, typer.Option(help="Preset of the vectors.")] = "moments",
    backend: Annotated[str, typer.Option(help="exact, scan or hnsw.")] = "scan",
    codec: Annotated[str, typer.Option(help="Codec of the tokens.")] = "2bit",
    keep_exact: Annotated[
        bool, typer.Option("--exact/--codes-alone", help="Also store exact tokens, to rerank the best.")
    ] = True,
    queries: Annotated[int, typer.Option(min=1, help="Number of queries for recall.")] = 50,
    cache: Cache = CACHE,
    save: Save = False,
) -> None:
    """Build, search and change indexes of growing size; continues an interrupted command."""
    (path,) = paths_of([collection], data, cache)
    folder = cache.expanduser() / "growth"
    folder.mkdir(parents=True, exist_ok=True)
    settings = GrowthSettings(collection, real, encoder, backend, codec, keep_exact, queries)
    sizes = sorted(set(size or [10_000, 100_000, 300_000]))
    if real:
        whole = len(load_collection(path).documents)
        sizes = [*(count for count in sizes if count < whole), whole]
    try:
        rows = [measure_size(path, settings, count, folder) for count in sizes]
    except RuntimeError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from error
    finish("growth", "Cost of an index by number of documents", [growth_table(settings, rows)], save)
