"""An index of coded tokens at growing numbers of documents: time and memory of building and searching it.

Each step of each size is a process of its own, whose memory is looked at, and leaves what it measured in a
file: a run that was interrupted goes on after the last step.  The exact best documents are found by reading
all, a batch at a time; where that was interrupted it goes on, too, and larger sizes go on where smaller ones
end, for they begin with the same documents.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from muvera import MultiVectors, MuveraIndex, chamfer_matrix
from muvera.data.ranking import best_first
from muvera.index.default_preset import MANY
from muvera.index.manifest import read_manifest
from muvera.index.settings import Backend
from muvera.utils.atomic_files import write_bytes, write_json

from ..datasets.collection import Collection
from ..datasets.discovery import DatasetPath
from ..datasets.loading import load_collection
from ..runner.provenance import machine
from .grown_documents import GrownDocuments

__all__ = ["GrowthSettings", "K", "best_documents", "measure_size"]

K = 10

#: Queries that are timed, each once: others than those whose exact best documents are known.
TIMED = 200

#: Searches: how their quantities are called -> candidates, the walk's breadth, candidates by codes that are rescored.
SEARCHES = {"quick": (500, 1000, 30), "thorough": (800, 2000, 50)}

#: Documents that are added to a loaded index.
ADDED = 1000

# Batches after which the best documents so far are written to the disk.
_KEPT_AFTER = 16


@dataclass(frozen=True)
class GrowthSettings:
    """What index is built, and how it is searched."""

    collection: str
    encoder: str = MANY
    backend: Backend = "hnsw"
    codec: str = "2bit"
    #: Links a node of the graph, and candidates while it is built.
    m: int = 16
    ef_construction: int = 100
    #: Whether exact tokens are kept beside the codes, and order the best by these.
    keep_exact: bool = True
    #: Queries whose exact best documents are found.
    judged: int = 50

    def name(self, count: int) -> str:
        """Return how an index of so many documents is called, however it is searched."""
        built = [self.collection, self.encoder, self.backend, self.codec, self.m, self.ef_construction]
        built += ["alone"] * (not self.keep_exact)
        return "-".join(str(value) for value in (*built, count))


def measure_size(path: DatasetPath, settings: GrowthSettings, count: int, folder: Path) -> dict[str, Any]:
    """Return what building, searching and changing an index of `count` documents takes.

    Raises
    ------
    RuntimeError
        Where a step failed; what it says is on the screen.
    """
    index = folder / f"{settings.name(count)}.index"
    found: dict[str, Any] = {"documents": count, **asdict(settings)}
    steps = {step: folder / f"{settings.name(count)}.{_name(step, settings)}.json" for step in _STEPS}
    if not index.exists() and not (steps[_search].exists() and steps[_change].exists()):
        steps[_build].unlink(missing_ok=True)  # what it built is needed again
    for step, out in steps.items():
        if not out.exists():
            process = multiprocessing.get_context("spawn").Process(
                target=_run, args=(step, path, settings, count, index, out)
            )
            process.start()
            process.join()
            if process.exitcode:
                raise RuntimeError(
                    f"The step {step.__name__.strip('_')!r} of {count:,} documents failed. Start again: what was "
                    "measured before it is kept."
                )
        found |= json.loads(out.read_text(encoding="utf-8"))
    shutil.rmtree(index, ignore_errors=True)
    return found


def _name(step: Any, settings: GrowthSettings) -> str:
    """Return a step's name with the settings that what it finds depends on."""
    parts = [step.__name__.strip("_")]
    parts += [str(settings.judged)] * (step in (_search, _truth))
    return "-".join(parts)


def _run(step: Any, path: DatasetPath, settings: GrowthSettings, count: int, index: Path, out: Path) -> None:
    write_json(out, {f"{step.__name__.strip('_')}_machine": machine(), **step(path, settings, count, index)})


class _Stopwatch:
    """Seconds on the clock and of processors since it was made, without those of making documents."""

    def __init__(self) -> None:
        self.clock, self.processor = -time.perf_counter(), -time.process_time()

    def without(self, batches: Iterator[MultiVectors]) -> Iterator[MultiVectors]:
        """Yield batches while the watch stands still as long as each is made."""
        while True:
            clock, processor = time.perf_counter(), time.process_time()
            batch = next(batches, None)
            self.clock += clock - time.perf_counter()
            self.processor += processor - time.process_time()
            if batch is None:
                return
            yield batch

    def read(self, name: str) -> dict[str, float]:
        """Return what the watch shows."""
        return {
            f"{name}_seconds": self.clock + time.perf_counter(),
            f"{name}_processor_seconds": self.processor + time.process_time(),
        }


def _build(path: DatasetPath, settings: GrowthSettings, count: int, folder: Path) -> dict[str, Any]:
    documents = GrownDocuments(load_collection(path).documents)
    graph = {"m": settings.m, "ef_construction": settings.ef_construction}
    watch = _Stopwatch()
    MuveraIndex.build(
        watch.without(documents.batches(count)),
        settings.encoder,
        tokens={"codec": settings.codec, "keep_exact": settings.keep_exact},
        backend=settings.backend,
        hnsw=graph,
        usearch={**graph, "precision": "int8"},
        exact_tokens=0,
        path=folder,
        overwrite=True,
    )
    taken = watch.read("build")
    sizes = {file: file.stat().st_size for file in folder.rglob("*") if file.is_file()}
    exact = sum(size for file, size in sizes.items() if file.name.startswith("tokens-"))
    return {
        **taken,
        "build_peak_bytes": _memory()["VmHWM"],
        "exact_bytes": exact,
        "disk_bytes": sum(sizes.values()) - exact,
    }


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
    """Return the exact best documents of queries, reading all that no file of `folder` knows of.

    Parameters
    ----------
    collection : Collection
    queries : MultiVectors
    count : int
        Documents, real and made ones.
    folder : Path
        Of files with what is known of these queries, by the number of documents that were read.

    Returns
    -------
    int64 (queries, K)
        Numbers of documents, best first.
    """
    known = {int(file.stem): file for file in folder.glob("*.npz")}
    done = max((size for size in known if size <= count), default=0)
    ids, scores = np.zeros((len(queries), 0), np.int64), np.zeros((len(queries), 0), np.float32)
    if done:
        with np.load(known[done]) as arrays:
            ids, scores = arrays["ids"], arrays["scores"]
    between: Path | None = None
    batches = GrownDocuments(collection.documents).batches(count, done)
    for number, batch in enumerate(batches, 1):
        numbers = np.tile(np.asarray(batch.ids, np.int64), (len(queries), 1))
        ids = np.concatenate([ids, numbers], axis=1)
        scores = np.concatenate([scores, chamfer_matrix(queries, batch)], axis=1)
        best = np.stack([best_first(row, K) for row in scores])
        ids, scores = np.take_along_axis(ids, best, 1), np.take_along_axis(scores, best, 1)
        done += len(batch)
        if number % _KEPT_AFTER == 0 or done == count:
            out = folder / f"{done}.npz"
            stream = io.BytesIO()
            np.savez(stream, ids=ids, scores=scores)
            write_bytes(out, stream.getvalue())
            if between is not None:
                between.unlink(missing_ok=True)
            between = None if done == count else out
    return ids


def _search(path: DatasetPath, settings: GrowthSettings, count: int, folder: Path) -> dict[str, Any]:
    collection = load_collection(path)
    exact = _best(collection, settings, count, folder.parent)
    base = _memory()
    watch = _Stopwatch()
    index = MuveraIndex.load(folder)
    loaded = watch.read("load")
    judged = collection.queries[: settings.judged]
    timed = collection.queries[settings.judged :][:TIMED]
    found: dict[str, float] = {}
    for name, (candidates, ef, rescore) in SEARCHES.items():
        how: dict[str, Any] = {"candidates": candidates, "ef": ef, "threads": 1}
        how |= {"rescore": rescore} if settings.keep_exact else {}
        shares = []
        for query, best in zip(judged, exact, strict=True):  # the first of them compile
            shares.append(np.isin(best, index.search(query, K, **how)[0].ids).mean())
        clock, processor = [], []
        for query in timed:
            begun = time.perf_counter(), time.thread_time()
            index.search(query, K, **how)
            clock.append(time.perf_counter() - begun[0])
            processor.append(time.thread_time() - begun[1])
        found[f"{name}_recall"] = float(np.mean(shares))
        for share in (50, 95, 99):
            found[f"{name}_p{share}"] = 1000 * float(np.percentile(processor, share))
            found[f"{name}_clock_p{share}"] = 1000 * float(np.percentile(clock, share))
    memory = _memory()
    return {
        **loaded,
        **found,
        "resident_bytes": memory["RssAnon"] + memory["RssFile"],
        "anonymous_bytes": memory["RssAnon"],
        "empty_process_bytes": base["RssAnon"] + base["RssFile"],
    }


def _change(path: DatasetPath, settings: GrowthSettings, count: int, folder: Path) -> dict[str, Any]:
    more = next(GrownDocuments(load_collection(path).documents, seed=1).batches(count + ADDED, count))
    more = more[:ADDED].with_ids(np.arange(count, count + min(ADDED, len(more))))
    index = MuveraIndex.load(folder)
    before = set(read_manifest(folder)["files"])
    watch = _Stopwatch()
    index.add(more)
    added = watch.read("add")
    watch = _Stopwatch()
    index.save(folder)
    saved = watch.read("save")
    files = {name: entry["bytes"] for name, entry in read_manifest(folder)["files"].items()}
    watch = _Stopwatch()
    whole = len(MuveraIndex.load(folder))
    again = watch.read("reload")
    if whole != count + len(more):
        raise RuntimeError(f"{folder} holds {whole} documents instead of {count + len(more)}.")
    return {
        **added,
        **saved,
        "save_bytes": sum(size for name, size in files.items() if name not in before),
        **again,
    }


_STEPS = (_build, _truth, _search, _change)


def _memory() -> dict[str, int]:
    """Return bytes of memory of this process as Linux counts them; nothing is known of other systems."""
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="ascii").splitlines() if status.exists() else []
    named = dict(line.split(":", 1) for line in lines)
    return {name: 1024 * int(named.get(name, "0").split()[0]) for name in ("VmHWM", "RssAnon", "RssFile")}
