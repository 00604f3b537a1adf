"""Ranking candidates whose tokens are on disk, with and without prefetching.

Before every cold query, the file's pages are dropped and mincore checks that they are not in memory;
otherwise the measurement fails.  "2-bit pre-ranking" is an index of two levels: codes in memory select the
few documents whose tokens are read.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Annotated

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

from ..report.table import Column, Table
from .plumbing import Rounds, Save, finish, measured_on

__all__ = ["WAYS", "cold", "measure"]

#: Ways to read the tokens.
WAYS = ("plain mmap", "prefetched", "2-bit pre-ranking")

_DIMENSION, _CANDIDATES, _K, _QUERY_TOKENS = 128, 100, 10, 32

# Number of documents that the file repeats, of tokens to fit the codec on, and of warm queries per cold
# query.
_BLOCK, _FITTED, _WARM = 1024, 20_000, 30

# Maximum share of pages in memory before a cold query.
_MOST_RESIDENT = 0.001

# Linux's files about disks.
_DEVICES = Path("/sys/dev/block")


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


def measure(folder: Path, megabytes: int, tokens: int, rounds: int) -> Table:
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
    cells = [[name, ms, medians[name.partition(",")[0]] / ms] for name, ms in medians.items()]
    columns: list[Column | str] = [
        *(f"{store.count:,} documents", Column("time", format="{:.2f}", unit="ms")),
        Column("speedup over plain mmap", format="{:.2f}x"),
    ]
    caption = (
        f"Wall time of one query of {_QUERY_TOKENS} tokens on one thread: ranking {_CANDIDATES} random documents of "
        f'{tokens} float16 tokens in a file of {megabytes:,} MB. "2-bit pre-ranking" selects up to 30 candidates by '
        f"2-bit codes in memory and reads only their tokens. {measured_on()}"
    )
    return Table(_read_ahead(folder), columns, cells, caption)


def _read_ahead(folder: Path) -> str:
    """Describe the read-ahead of a folder's disk."""
    number = folder.stat().st_dev
    setting = _DEVICES / f"{os.major(number)}:{os.minor(number)}" / "queue" / "read_ahead_kb"
    size = f"{int(setting.read_text(encoding='ascii')):,} KB" if setting.exists() else "an unknown size"
    return f"Read-ahead of {size}"


def cold(
    folder: Annotated[
        Path | None, typer.Option(help="Folder on the disk to measure. Default: that of temporary files.")
    ] = None,
    megabytes: Annotated[int, typer.Option(min=16)] = 512,
    tokens: Annotated[int, typer.Option(min=1, help="Tokens per document.")] = 150,
    rounds: Rounds = 9,
    save: Save = False,
) -> None:
    """Rank 100 candidates whose tokens are on disk; fails if pages stay in memory."""
    try:
        with tempfile.TemporaryDirectory(dir=folder) as name:
            table = measure(Path(name), megabytes, tokens, rounds)
    except RuntimeError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from error
    finish("cold", "Tokens on disk", [table], save)
