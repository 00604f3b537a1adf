"""Ranking candidates whose tokens are on disk, with and without prefetching.

Before every cold query, the file's pages are dropped and mincore checks that they are not in memory;
otherwise the measurement fails.  "2-bit pre-ranking" is an index of two levels: codes in memory select the
few documents whose tokens are read.  With limited memory, nothing is dropped between queries, and a Linux
control group limits the cached pages.
"""

from __future__ import annotations

import json
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from muvera import IndexSettings, MultiVectors
from muvera.index.token_levels import TokenLevels
from muvera.index.token_store import Segment, TokenStore, mapped, write_tokens
from muvera.reranking.codecs import fit_codec
from muvera.reranking.codecs.base import CodedVectors
from muvera.reranking.pruning import RerankOptions, rank_candidates
from muvera.utils.page_cache import forget, resident_share

from ..report.stored_results import load_results
from ..runner.provenance import machine
from .plumbing import Rounds, Save, finish, in_new_process

__all__ = ["WAYS", "cold", "limited_group", "measure", "read_ahead_of", "under_limit"]

#: Ways to read the tokens.
WAYS = ("plain mmap", "prefetched", "2-bit pre-ranking")

_DIMENSION, _CANDIDATES, _K, _QUERY_TOKENS = 128, 100, 10, 32

# Number of documents that the file repeats, of tokens to fit the codec on, and of warm queries per cold
# query.
_BLOCK, _FITTED, _WARM = 1024, 20_000, 30

# Maximum share of pages in memory before a cold query.
_MOST_RESIDENT = 0.001

# Number of queries for each way with limited memory, and the seconds after which a slow way stops.
_QUERIES, _SECONDS = 1000, 45.0

# Linux's files about devices and control groups.
_DEVICES, _GROUPS = Path("/sys/dev/block"), Path("/sys/fs/cgroup")


class _Store:
    """A mapped file of random float16 tokens, and their codes in memory."""

    def __init__(self, path: Path, megabytes: int, tokens: int) -> None:
        """Open the file; write it first if it does not exist."""
        self.count = (megabytes << 20) // (2 * _DIMENSION * tokens)
        rows = np.random.default_rng(0).standard_normal((_BLOCK * tokens, _DIMENSION)).astype(np.float16)
        block = MultiVectors.from_flat(rows, [tokens] * _BLOCK)
        if not path.exists():
            sizes = [_BLOCK] * (self.count // _BLOCK) + [self.count % _BLOCK] * (self.count % _BLOCK > 0)
            write_tokens(path, [block[:size] for size in sizes])
        self.floats: TokenStore[MultiVectors] = TokenStore(MultiVectors.from_flat, "tokens")
        texts = mapped(path, np.full(self.count, tokens), MultiVectors.from_flat)
        self.floats.segments = [Segment(0, texts, path)]
        self.tokens = texts.tokens
        codec = fit_codec("2bit", np.asarray(block.tokens[:_FITTED], np.float32))
        self.levels = TokenLevels(IndexSettings(tokens="2bit", keep_exact=True), _DIMENSION, codec)
        floats, codes = self.levels.floats, self.levels.codes
        assert floats is not None and codes is not None
        repeated = np.resize(
            CodedVectors.of(codec, block).tokens, (self.count * tokens, codec.bytes_per_token)
        )
        codes.append(CodedVectors.from_lengths(codec, repeated, np.full(self.count, tokens)))
        # Use the same mapping of the file: pages of another mapping would stay in memory.
        floats.segments = self.floats.segments
        self.file = os.open(path, os.O_RDONLY)
        os.fsync(self.file)

    def close(self) -> None:
        os.close(self.file)

    def drop(self) -> None:
        """Drop the file's pages from memory; raise RuntimeError if they stay."""
        forget(self.tokens)
        os.posix_fadvise(self.file, 0, 0, os.POSIX_FADV_DONTNEED)
        share = resident_share(self.tokens)
        if share is None or share > _MOST_RESIDENT:
            known = "An unknown share" if share is None else f"{share:.1%}"
            raise RuntimeError(
                f"{known} of the pages is still in memory: this system does not drop them, so cold queries cannot "
                "be measured. Use another disk."
            )
        self.floats.look_again()

    def rank(
        self, way: str, query: NDArray[np.float32], rows: NDArray[np.int64]
    ) -> tuple[float, NDArray[np.int64]]:
        """Return the milliseconds to rank rows in one of WAYS, and the best rows."""
        began = time.perf_counter()
        if way == WAYS[2]:
            best, _ = self.levels.rank(query, rows, RerankOptions(_K), 1)
        else:
            if way == WAYS[1]:
                self.floats.read_ahead(rows)
            best, _ = rank_candidates(query, rows, self.floats.slices, RerankOptions(_K), 1)
        return 1000 * (time.perf_counter() - began), best


def measure(folder: Path, megabytes: int, tokens: int, rounds: int) -> dict[str, Any]:
    """Return the median milliseconds of a query for each way of reading a file of float16 tokens on `folder`'s disk."""
    store = _Store(folder / "tokens.npy", megabytes, tokens)
    rng = np.random.default_rng(1)
    query = rng.standard_normal((_QUERY_TOKENS, _DIMENSION)).astype(np.float32)
    names = {way: "" if way == WAYS[0] else f", {way}" for way in WAYS}
    times: dict[str, list[float]] = {
        f"{state}{name}": [] for state in ("warm", "cold") for name in names.values()
    }
    for way in WAYS:
        store.rank(way, query, np.arange(_CANDIDATES))  # compiles
    try:
        for _ in range(rounds):
            rows, answers = rng.permutation(store.count)[:_CANDIDATES], []
            for way, name in names.items():
                store.drop()
                milliseconds, best = store.rank(way, query, rows)
                times[f"cold{name}"].append(milliseconds)
                answers.append(best)
            if not np.array_equal(answers[0], answers[1]):
                raise RuntimeError("Prefetching changes the answers.")
        store.tokens.view(np.uint16).max()  # reads all
        store.floats.look_again()
        for lap in range(_WARM * rounds):
            for way in (*WAYS[lap % 3 :], *WAYS[: lap % 3]):
                # Different rows for each, because the previous ones are in the processor's caches.
                rows = rng.permutation(store.count)[:_CANDIDATES]
                times[f"warm{names[way]}"].append(store.rank(way, query, rows)[0])
    finally:
        store.close()
    medians = {name: float(np.median(values)) for name, values in times.items()}
    return {"milliseconds": medians, "documents": store.count}


def under_limit(
    folder: Path, megabytes: int, tokens: int, memory: int, queries: int = _QUERIES
) -> list[dict[str, Any]]:
    """Return a row for each way of reading: milliseconds, page faults, and the final share of the file in memory.

    `memory` is the number of megabytes that a process may use beyond those before its first query.

    Raises
    ------
    RuntimeError
        If a process failed, for example because no control group can be made.
    """
    rows = []
    for way in WAYS:
        out = folder / "limited.json"
        code = in_new_process(_run, folder / "limited.npy", megabytes, tokens, memory, queries, way, out)
        if code:
            raise RuntimeError(
                f"The run of {queries} queries ({way}) ended with {code}. Give it more than {memory} MB."
            )
        rows.append(json.loads(out.read_text(encoding="utf-8")))
    return rows


def _run(path: Path, megabytes: int, tokens: int, memory: int, queries: int, way: str, out: Path) -> None:
    store = _Store(path, megabytes, tokens)
    rng = np.random.default_rng(2)
    asked = rng.standard_normal((queries, _QUERY_TOKENS, _DIMENSION)).astype(np.float32)
    store.rank(way, asked[0], np.arange(_CANDIDATES))  # compiles
    store.drop()
    faults = -resource.getrusage(resource.RUSAGE_SELF).ru_majflt
    with limited_group(memory << 20):  # memory that the process already uses is not charged to the group
        times: list[float] = []
        until = time.monotonic() + _SECONDS
        for query in asked:
            times.append(store.rank(way, query, rng.permutation(store.count)[:_CANDIDATES])[0])
            if time.monotonic() > until:
                break
        share = resident_share(store.tokens)
    store.close()
    faults += resource.getrusage(resource.RUSAGE_SELF).ru_majflt
    results: dict[str, Any] = {"way": way, "queries": len(times)}
    results |= {f"p{part}": float(np.percentile(times, part)) for part in (50, 95, 99)}
    out.write_text(
        json.dumps({**results, "faults": faults / len(times), "resident": share}), encoding="utf-8"
    )


@contextmanager
def limited_group(limit: int) -> Iterator[None]:
    """Run this process in a control group with at most `limit` bytes of memory, including cached file pages."""
    old = _GROUPS / "memory"  # version 1 has a separate tree for memory
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
        raise OSError(f"No control group with a memory limit can be created in {parent}: {error}.") from error
    try:
        yield
    finally:
        (parent / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
        group.rmdir()


@contextmanager
def read_ahead_of(folder: Path, kb: int | None = None) -> Iterator[int | None]:
    """Yield the read-ahead of a folder's disk in kilobytes; inside the context it is set to `kb`, if given."""
    number = folder.stat().st_dev
    setting = _DEVICES / f"{os.major(number)}:{os.minor(number)}" / "queue" / "read_ahead_kb"
    before = setting.read_text(encoding="ascii").strip() if setting.exists() else None
    if kb is None:
        yield None if before is None else int(before)
        return
    if before is None or not os.access(setting, os.W_OK):
        raise OSError(f"The read-ahead of {folder}'s disk cannot be set: {setting} is not writable.")
    setting.write_text(str(kb), encoding="ascii")
    try:
        yield int(setting.read_text(encoding="ascii"))
    finally:
        setting.write_text(before, encoding="ascii")


def cold(
    folder: Annotated[
        Path | None, typer.Option(help="Folder on the disk to measure. Default: that of temporary files.")
    ] = None,
    megabytes: Annotated[int, typer.Option(min=16)] = 512,
    tokens: Annotated[int, typer.Option(min=1, help="Tokens per document.")] = 150,
    rounds: Rounds = 9,
    read_ahead_kb: Annotated[
        int | None, typer.Option(min=0, help="Set the disk's read-ahead during the measurement (as root).")
    ] = None,
    memory: Annotated[
        int, typer.Option(min=0, help="Also run 1,000 queries with this many MB of memory (as root).")
    ] = 0,
    save: Save = False,
) -> None:
    """Rank 100 candidates whose tokens are on disk; fails if pages stay in memory."""
    results: dict[str, Any] = {
        "megabytes": megabytes,
        "tokens": tokens,
        "memory": memory,
        "machine": machine(),
    }
    try:
        with tempfile.TemporaryDirectory(dir=folder) as name, read_ahead_of(Path(name), read_ahead_kb) as kb:
            results |= {"read_ahead_kb": kb, **measure(Path(name), megabytes, tokens, rounds)}
            limited = under_limit(Path(name), megabytes, tokens, memory) if memory else []
    except (RuntimeError, OSError) as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from error
    stored = load_results("cold").get("runs", []) if save else []
    others = [run for run in stored if run["read_ahead_kb"] != results["read_ahead_kb"]]
    finish("cold", {"runs": [*others, {**results, "limited": limited}]}, save)
