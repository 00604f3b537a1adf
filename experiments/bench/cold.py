"""Searches whose exact tokens are on a disk, and what prefetching gains (ESPN).

Codes in memory rank the candidates, and exact tokens of the best are read from a mapped
file.  Before each query, the file's pages are dropped, and mincore proves that they are
gone: if pages stay in memory, nothing is reported.
"""

from __future__ import annotations

import ctypes
import gc
import json
import mmap
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from muvera import MultiVectors, MuveraIndex
from muvera.index.page_cache import MappedTokens, PageCache
from muvera.index.token_store import DocumentTokens
from muvera.utils.arrays import forget

from ..datasets.discovery import CACHE
from ..report.table import Column, Table
from .plumbing import Cache, Data, Save, finish, load_collections, measured_on, progress

_K = 10

# Queries that are answered together in the second table.
_BATCH = 32

# Largest share of the file's pages that may be in memory before a query.
_RESIDENT = 0.001

# Attempts to drop them.
_TRIES = 50

_GROUPS = Path("/sys/fs/cgroup")

#: Name -> whether exact tokens are prefetched before codes are scored, and after that.
WAYS = {
    "page faults": (False, False),
    "prefetched after the codes": (False, True),
    "prefetched before the codes": (True, True),
}

_IN_MEMORY = "in memory"

#: Rows of the tables by column.
Found = list[dict[str, Any]]


class WatchedPages(PageCache):
    """The page cache of exact tokens, which can omit prefetching and counts hits.

    Parameters
    ----------
    tokens : DocumentTokens
        Reads its exact tokens through this cache from now on.
    before, after : bool
        Whether to prefetch the likely rows before codes are scored, and the needed rows
        after that.
    """

    def __init__(self, tokens: DocumentTokens, before: bool, after: bool) -> None:
        super().__init__()
        #: For each search, the share of the needed rows that were likely.
        self.hits: list[float] = []
        #: The share of their bytes in memory when they are needed; empty without
        #: `looks`, because looking takes time.
        self.arrived: list[float] = []
        self.looks = False
        self._prefetches = {"before": before, "after": after}
        self._phase = "before"
        self._likely: list[NDArray[np.int64]] = []
        assert tokens.floats is not None
        tokens.floats.pages = self

        def read_ahead(*arguments: Any) -> None:
            self._phase = "before"
            DocumentTokens.read_ahead(tokens, *arguments)

        def float_runs(rows: NDArray[np.int64]) -> Any:
            self._phase = "after"
            return DocumentTokens.float_runs(tokens, rows)

        vars(tokens).update(read_ahead=read_ahead, float_runs=float_runs)

    def read_ahead(self, files: Sequence[MappedTokens], rows: NDArray[np.int64]) -> int:
        """Prefetch `rows` or not, and count hits.  Queries need rows in their order."""
        if self._phase == "before":
            self._likely.append(rows)
        else:
            self.hits.append(float(np.isin(rows, self._likely.pop(0)).mean()))
            if self.looks:
                self.arrived.append(_resident_rows(files, rows))
        self._requests = 1  # the files are not in memory
        self._resident = False
        return super().read_ahead(files, rows) if self._prefetches[self._phase] else 0


class ColdIndex:
    """A saved index with codes in memory and exact tokens in a mapped file."""

    def __init__(self, folder: Path) -> None:
        self.index = MuveraIndex.load(folder)
        stored = self.index.contents.tokens
        if stored.floats is None or stored.codes is None or len(stored.floats.segments) != 1:
            raise ValueError("The index must have codes and one file of exact tokens.")
        segment = stored.floats.segments[0]
        assert segment.path is not None
        self.stored = stored
        self.tokens = segment.vectors.tokens
        self._file = os.open(segment.path, os.O_RDONLY)
        os.fsync(self._file)  # only pages that were written can be dropped
        for codes in stored.codes.segments:
            codes.vectors.tokens.view(np.uint8).max()  # reads all

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def drop(self) -> None:
        """Drop the file's pages from memory.

        Raise RuntimeError if they stay.
        """
        share = 1.0
        for _ in range(_TRIES):
            forget(self.tokens)
            os.posix_fadvise(self._file, 0, 0, os.POSIX_FADV_DONTNEED)
            share = float(_resident(self.tokens).mean())
            if share <= _RESIDENT:
                break
            time.sleep(0.02)  # pages that are being read cannot be dropped
        else:
            raise RuntimeError(
                f"{share:.1%} of the pages are still in memory: this system does not drop them, so nothing "
                "cold can be measured. Give a folder on another disk with --folder."
            )

    def seconds(self, queries: MultiVectors) -> tuple[float, list[list[Any]]]:
        """Return the time of a search on one thread, and its answers."""
        began = time.perf_counter()
        rankings = self.index.search(queries, _K, threads=1)
        return time.perf_counter() - began, [list(ranking) for ranking in rankings]


def _resident(array: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which pages of a mapped array are in memory."""
    low = array.ctypes.data // mmap.PAGESIZE * mmap.PAGESIZE
    size = array.ctypes.data + array.nbytes - low
    flags: NDArray[np.uint8] = np.zeros(-(-size // mmap.PAGESIZE), np.uint8)
    if ctypes.CDLL(None).mincore(
        ctypes.c_void_p(low), ctypes.c_size_t(size), flags.ctypes.data_as(ctypes.c_void_p)
    ):
        raise RuntimeError("This system cannot tell which pages are in memory, so nothing can be measured.")
    return (flags & 1).astype(bool)


def _resident_rows(files: Sequence[MappedTokens], rows: NDArray[np.int64]) -> float:
    [file] = files
    found = [_resident(file.tokens[file.offsets[row] : file.offsets[row + 1]]) for row in rows - file.first]
    return float(np.concatenate(found).mean())


class _Device:
    """Counters of reading: of this process, and of a folder's disk."""

    def __init__(self, folder: Path) -> None:
        number = folder.stat().st_dev
        self._name = [str(os.major(number)), str(os.minor(number))]
        self._before = self._counts()

    def _counts(self) -> NDArray[np.float64]:
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_majflt
        lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
        read = next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))
        disks = [line.split() for line in Path("/proc/diskstats").read_text(encoding="ascii").splitlines()]
        busy = next((int(fields[6]) for fields in disks if fields[:2] == self._name), 0)
        return np.array([faults, read / 1e6, busy], np.float64)

    def since(self) -> NDArray[np.float64]:
        """Return page faults, MB of this process, and milliseconds of the disk."""
        counts = self._counts()
        read, self._before = counts - self._before, counts
        return read


def measure(folder: Path, queries: MultiVectors, together: int) -> Found:
    """Return a row for each way, with the queries in groups of `together`.

    Raise RuntimeError if pages stay in memory, or answers differ.
    """
    gc.collect()  # pages that another index maps cannot be dropped
    cold = ColdIndex(folder)
    device = _Device(folder)
    times: dict[str, list[float]] = {name: [] for name in (*WAYS, _IN_MEMORY)}
    read = {name: np.zeros(3) for name in WAYS}
    pages = {name: WatchedPages(cold.stored, *way) for name, way in WAYS.items()}
    groups = [queries[i : i + together] for i in range(0, len(queries) - together + 1, together)]
    cold.seconds(groups[0])  # compiles
    try:
        for turn, group in enumerate(groups):
            names = list(WAYS)[turn % len(WAYS) :] + list(WAYS)[: turn % len(WAYS)]
            answers = []
            for name in names:
                pages[name] = _watched(cold, pages[name], WAYS[name])
                cold.drop()
                device.since()
                seconds, answer = cold.seconds(group)
                read[name] += device.since()
                times[name].append(1000 * seconds / together)
                answers.append(answer)
            times[_IN_MEMORY].append(1000 * cold.seconds(group)[0] / together)
            if any(answer != answers[0] for answer in answers):
                raise RuntimeError("Answers differ by the way tokens are read.")
        for name, way in WAYS.items():  # looking takes time, so apart
            pages[name] = _watched(cold, pages[name], way, looks=True)
            for group in groups[: max(1, 30 // together)]:
                cold.drop()
                cold.seconds(group)
    finally:
        cold.close()
    count = len(groups) * together
    return [
        {
            "way": name,
            **_percentiles(own),
            **(_counted(read[name] / count, pages[name]) if name in WAYS else {}),
        }
        for name, own in times.items()
    ]


def _watched(
    cold: ColdIndex, former: WatchedPages, way: tuple[bool, bool], looks: bool = False
) -> WatchedPages:
    """Let the index read through a new cache, which continues the counts."""
    pages = WatchedPages(cold.stored, *way)
    pages.hits, pages.arrived, pages.looks = former.hits, former.arrived, looks
    return pages


def _percentiles(times: list[float]) -> dict[str, float]:
    return {f"p{part}": float(np.percentile(times, part)) for part in (50, 95)}


def _counted(read: NDArray[np.float64], pages: WatchedPages) -> dict[str, Any]:
    asked = pages._prefetches["before"]
    return {
        "faults": float(read[0]),
        "MB": float(read[1]),
        "disk": float(read[2]),
        "hits": float(np.mean(pages.hits)) if asked else None,
        "arrived": float(np.mean(pages.arrived)) if pages.arrived else None,
    }


# -- limited memory -----------------------------------------------------------


def measure_limited(folder: Path, queries: MultiVectors, megabytes: int) -> Found:
    """Return a row for each way if few pages of files fit into memory.

    Each way answers all queries, one after another, in a process of its own.
    """
    rows = []
    gc.collect()  # pages that this process maps cannot be dropped
    for name in WAYS:
        out = folder.parent / "limited.json"
        context = multiprocessing.get_context("spawn")
        process = context.Process(target=_run_limited, args=(folder, queries, name, megabytes, out))
        process.start()
        process.join()
        if process.exitcode:
            raise RuntimeError(f"The queries of {name!r} ended with {process.exitcode}. Raise --memory.")
        rows.append(json.loads(out.read_text(encoding="utf-8")))
    return rows


def _run_limited(folder: Path, queries: MultiVectors, name: str, megabytes: int, out: Path) -> None:
    cold = ColdIndex(folder)
    cold.seconds(queries[:1])  # compiles
    cold.drop()
    pages = WatchedPages(cold.stored, *WAYS[name])
    device = _Device(folder)
    with limited_group(megabytes << 20):
        times = [1000 * cold.seconds(queries[i : i + 1])[0] for i in range(len(queries))]
        share = float(_resident(cold.tokens).mean())
    read = device.since() / len(queries)
    row = {"way": name, **_percentiles(times), **_counted(read, pages), "resident": share}
    cold.close()
    out.write_text(json.dumps(row), encoding="utf-8")


@contextmanager
def limited_group(limit: int) -> Iterator[None]:
    """Hold this process in a Linux control group whose memory is limited, in bytes.

    The limit includes the pages of files that it reads from now on.  Raise OSError if
    there can be no such group.
    """
    first_version = (_GROUPS / "memory" / "memory.limit_in_bytes").exists()
    parent = _GROUPS / "memory" if first_version else _GROUPS
    group = parent / f"muvera-{os.getpid()}"
    group.mkdir()
    try:
        file = "memory.limit_in_bytes" if first_version else "memory.max"
        (group / file).write_text(str(limit), encoding="ascii")
        (group / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
        yield
    finally:
        (parent / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
        group.rmdir()


# -- the command --------------------------------------------------------------


def cold(
    data: Data = None,
    collection: Annotated[str, typer.Option(help="A collection.")] = "scifact-minilm",
    folder: Annotated[
        Path | None, typer.Option(help="On the disk to measure. Default: for temporary files.")
    ] = None,
    queries: Annotated[int, typer.Option(min=_BATCH, help="Maximum number of queries.")] = 192,
    memory: Annotated[
        int, typer.Option(min=0, help="MB for pages of files in the third table, as root; 0: no such table.")
    ] = 64,
    cache: Cache = CACHE,
    save: Save = False,
) -> None:
    """Measure searches whose exact tokens are on a disk.

    It fails if pages stay in memory.
    """
    [read] = load_collections([collection], data, cache)
    asked = read.asked(queries).queries
    try:
        with tempfile.TemporaryDirectory(dir=folder) as name:
            place = Path(name) / "index"
            progress(f"{collection}: building the index")
            how: dict[str, Any] = {"tokens": "2bit", "keep_exact": True, "exact_tokens": 0, "path": place}
            MuveraIndex.build(read.documents, **how)
            on = f"{_read_ahead(place)}{measured_on()}"
            tables = []
            for title, together in (("One query at a time", 1), (f"{_BATCH} queries at a time", _BATCH)):
                progress(f"{collection}: {title}")
                tables.append(_table(title, collection, measure(place, asked, together), on))
            if memory:
                progress(f"{collection}: {memory} MB of memory")
                rows = measure_limited(place, asked, memory)
                tables.append(_table(f"In {memory} MB of memory", collection, rows, on))
    except (RuntimeError, OSError) as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from error
    finish("cold", "Exact tokens on a disk", tables, save)


def _read_ahead(folder: Path) -> str:
    """Say how much the folder's disk reads at a page fault, if the system tells."""
    number = folder.stat().st_dev
    device = Path("/sys/dev/block") / f"{os.major(number)}:{os.minor(number)}"
    for queue in (device / "queue", device.resolve().parent / "queue"):  # of a disk or a partition
        if (queue / "read_ahead_kb").exists():
            size = int((queue / "read_ahead_kb").read_text(encoding="ascii"))
            return f"The disk reads up to {size:,} KB at a page fault. "
    return ""


def _table(title: str, collection: str, rows: Found, on: str) -> Table:
    ms = "{:.2f}"
    columns = [
        Column("exact tokens", "way"),
        *(Column("ms per query, p50", "p50", ms), Column("p95", "p95", ms)),
        *(Column("MB read per query", "MB", ms), Column("ms of the disk", "disk", ms)),
        Column("page faults", "faults", "{:.1f}"),
        *(Column("hits", "hits", "{:.3f}"), Column("in memory when needed", "arrived", "{:.3f}")),
    ]
    if "resident" in rows[0]:
        columns.append(Column("share of the file in memory at the end", "resident", "{:.2f}"))
    before = (
        "The process may keep only this much of the file in memory, and nothing is dropped"
        if "resident" in rows[0]
        else "Before each search, the file's pages are dropped; mincore confirms that they are gone"
    )
    caption = (
        f"{collection}; codes of 2 bits in memory rank 100 candidates, and exact tokens of the best 30 are read from a "
        f"mapped file; one thread, wall time. {before}. Hits: of the rows whose exact tokens were needed, the share "
        "that was prefetched before codes were scored. The bytes and page faults are of the process, the "
        f"milliseconds of the disk add up over requests. {on}"
    )
    table = Table.of(title, columns, rows, caption)
    return table.without_empty_columns()
