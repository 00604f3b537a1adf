"""A run of distinct queries while a control group of Linux leaves room for a part of the tokens alone.

Nothing is dropped between queries: what one query read is there for the next as long as the limit lets it be.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from muvera.utils.page_cache import resident_share

from .cold_reads import (
    CANDIDATES,
    DIMENSION,
    QUERY_TOKENS,
    drop,
    mapped_store,
    rank_by_levels,
    rank_by_tokens,
    two_levels,
    write_file,
)

__all__ = ["WAYS", "limited_group", "under_limit"]

#: Queries of each way, and the seconds after which a slow one ends.
QUERIES, SECONDS = 1000, 45.0

WAYS = ("plain mmap", "asked first", "codes first")

_GROUPS = Path("/sys/fs/cgroup")


def under_limit(
    folder: Path, megabytes: int, tokens: int, memory: int, queries: int = QUERIES
) -> list[dict[str, Any]]:
    """Return a row for each way of reading: milliseconds of queries, and what of the file was in memory at last.

    Parameters
    ----------
    folder : Path
        On the disk that is measured.
    megabytes : int
        Of the file of tokens.
    tokens : int
        Of a document.
    memory : int
        Megabytes that a process may take beyond what it has before its first query.
    queries : int

    Raises
    ------
    OSError
        Where no control group can be made.
    RuntimeError
        Where a process failed.
    """
    path = folder / "limited.npy"
    write_file(path, megabytes, tokens)
    rows = []
    for way in WAYS:
        out = folder / "limited.json"
        process = multiprocessing.get_context("spawn").Process(
            target=_run, args=(path, megabytes, tokens, memory, queries, way, out)
        )
        process.start()
        process.join()
        if process.exitcode:
            raise RuntimeError(
                f"The run of {queries} queries ({way}) ended with {process.exitcode}. Give it more than {memory} MB."
            )
        rows.append(json.loads(out.read_text(encoding="utf-8")))
    return rows


@contextmanager
def limited_group(limit: int) -> Iterator[None]:
    """Hold this process in a control group whose memory, with that of files, is at most `limit` bytes.

    Raises
    ------
    OSError
        Where no such group can be made.
    """
    old = _GROUPS / "memory"  # version 1 has a tree of its own for memory
    first = (old / "memory.limit_in_bytes").exists()
    parent = old if first else _GROUPS
    group = parent / f"muvera-{os.getpid()}"
    try:
        group.mkdir()
        file = "memory.limit_in_bytes" if first else "memory.max"
        (group / file).write_text(str(limit), encoding="ascii")
        (group / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
    except OSError as error:
        if group.exists():
            group.rmdir()
        raise OSError(f"No control group with a limit of memory can be made in {parent}: {error}.") from error
    try:
        yield
    finally:
        (parent / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
        group.rmdir()


def _run(path: Path, megabytes: int, tokens: int, memory: int, queries: int, way: str, out: Path) -> None:
    count = (megabytes << 20) // (2 * DIMENSION * tokens)
    rng = np.random.default_rng(2)
    block_size = min(1024, count)
    store = mapped_store(path, count, tokens)
    texts = store.segments[0].vectors
    levels = two_levels(store, tokens, texts[:block_size]) if way == WAYS[2] else None
    asked = rng.standard_normal((queries, QUERY_TOKENS, DIMENSION)).astype(np.float32)
    warm = np.arange(CANDIDATES)

    def seconds(query: Any, rows: Any) -> float:
        if levels is not None:
            return rank_by_levels(levels, query, rows)
        return rank_by_tokens(store, query, rows, way == WAYS[1])[0]

    seconds(asked[0], warm)  # compiles
    file = os.open(path, os.O_RDONLY)
    os.fsync(file)
    drop(store, file)
    # What the process has already is not charged to the group: it may take so much beyond.
    before = resource.getrusage(resource.RUSAGE_SELF).ru_majflt
    with limited_group(memory << 20):
        times: list[float] = []
        until = time.monotonic() + SECONDS
        for query in asked:
            times.append(1000 * seconds(query, rng.permutation(count)[:CANDIDATES]))
            if time.monotonic() > until:
                break
        share = resident_share(texts.tokens)
    os.close(file)
    found = {
        "way": way,
        "queries": len(times),
        **{f"p{part}": float(np.percentile(times, part)) for part in (50, 95, 99)},
        "faults": (resource.getrusage(resource.RUSAGE_SELF).ru_majflt - before) / len(times),
        "resident": share,
    }
    out.write_text(json.dumps(found), encoding="utf-8")
