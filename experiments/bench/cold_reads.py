"""Time of ranking candidates whose tokens are on the disk, with and without asking for them first.

Before every cold query the file's pages are dropped, and mincore proves that they are gone: a measurement
that is not cold fails.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from muvera import MultiVectors
from muvera.index.token_store import Segment, TokenStore, mapped, write_tokens
from muvera.reranking.pruning import RerankOptions, rank_candidates
from muvera.utils.page_cache import forget, resident_share

from ..report.markdown import text_table
from ..runner.provenance import machine

__all__ = ["cold", "measure"]

DIMENSION, CANDIDATES, K, QUERY_TOKENS = 128, 100, 10, 32

#: Largest share of pages that may be in memory before a cold query.
_MOST_RESIDENT = 0.001

# Warm queries for each cold one.
_WARM = 30


def measure(folder: Path, megabytes: int, tokens: int, rounds: int) -> dict[str, Any]:
    """Return milliseconds a query, by way of reading.

    Parameters
    ----------
    folder : Path
        On the disk that is measured.
    megabytes : int
        Of the file of tokens, float16.
    tokens : int
        Of a document.
    rounds : int
        Cold queries of each way.

    Raises
    ------
    RuntimeError
        Where pages stay in memory, so that nothing cold can be measured.
    """
    count = (megabytes << 20) // (2 * DIMENSION * tokens)
    rng = np.random.default_rng(0)
    path = folder / "tokens.npy"
    block = rng.standard_normal((1024 * tokens, DIMENSION)).astype(np.float16)
    parts = [
        MultiVectors.from_flat(block[: size * tokens], [tokens] * size)
        for size in [1024] * (count // 1024) + [count % 1024] * (count % 1024 > 0)
    ]
    write_tokens(path, parts)
    file = os.open(path, os.O_RDONLY)
    os.fsync(file)
    store: TokenStore[MultiVectors] = TokenStore(MultiVectors.from_flat, "tokens")
    texts = mapped(path, np.full(count, tokens), MultiVectors.from_flat)
    store.segments = [Segment(0, texts, path)]
    query = rng.standard_normal((QUERY_TOKENS, DIMENSION)).astype(np.float32)
    found: dict[str, list[float]] = {"warm": [], "warm, asked first": [], "cold": [], "cold, asked first": []}
    answers = []
    try:
        for _ in range(rounds):
            rows = rng.permutation(count)[:CANDIDATES]
            for asked in (False, True):
                _drop(texts.tokens, file)
                seconds, best = _timed(store, query, rows, asked)
                found["cold, asked first" if asked else "cold"].append(1000 * seconds)
                answers.append(best)
            _require_same(answers[-2:])
        texts.tokens.view(np.uint16).max()  # reads all
        warm: TokenStore[MultiVectors] = TokenStore(MultiVectors.from_flat, "tokens")
        warm.segments = store.segments
        for lap in range(_WARM * rounds):
            rows = rng.permutation(count)[:CANDIDATES]
            for asked in (False, True) if lap % 2 else (True, False):
                seconds, best = _timed(warm, query, rows, asked)
                found["warm, asked first" if asked else "warm"].append(1000 * seconds)
                answers.append(best)
            _require_same(answers[-2:])
    finally:
        os.close(file)
    return {
        "milliseconds": {name: float(np.median(times)) for name, times in found.items()},
        "documents": count,
    }


def _require_same(answers: list[NDArray[np.int64]]) -> None:
    if not np.array_equal(answers[0], answers[1]):
        raise RuntimeError("Answers differ by where tokens are read from.")


def _drop(tokens: NDArray[Any], file: int) -> None:
    forget(tokens)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    share = resident_share(tokens)
    if share is None or share > _MOST_RESIDENT:
        raise RuntimeError(
            f"{'An unknown share' if share is None else f'{share:.1%}'} of the pages is still in memory: this "
            "system does not drop them, so that nothing cold can be measured. Use another disk."
        )


def _timed(
    store: TokenStore[MultiVectors], query: NDArray[np.float32], rows: NDArray[np.int64], asked: bool
) -> tuple[float, NDArray[np.int64]]:
    began = time.perf_counter()
    if asked:
        store.read_ahead(rows)
    best, _ = rank_candidates(query, None, rows, store.slices, RerankOptions(K), 1)
    return time.perf_counter() - began, best


def cold(
    folder: Annotated[
        Path | None, typer.Option(help="On the disk that is measured. Default: for temporary files.")
    ] = None,
    megabytes: Annotated[int, typer.Option(min=16)] = 512,
    tokens: Annotated[int, typer.Option(min=1, help="Of a document.")] = 150,
    rounds: Annotated[int, typer.Option(min=1)] = 9,
) -> None:
    """Rank 100 candidates whose tokens are on the disk; fails where pages stay in memory."""
    on = machine()
    with tempfile.TemporaryDirectory(dir=folder) as place:
        measured = measure(Path(place), megabytes, tokens, rounds)
    times = measured["milliseconds"]
    base = {"cold": times["cold"], "warm": times["warm"]}
    rows = [[name, f"{ms:.2f}", f"{base[name.split(',')[0]] / ms:.2f}x"] for name, ms in times.items()]
    typer.echo(
        text_table([f"{CANDIDATES} of {measured['documents']:,} documents", "ms", "without / this"], rows)
    )
    typer.echo(f"{on['processor']}, {on['cores']} cores (load {on['load']} at the start); {_read_ahead()}")


def _read_ahead() -> str:
    values = {
        path.parts[3]: path.read_text(encoding="ascii").strip()
        for path in Path("/sys/block").glob("*/queue/read_ahead_kb")
        if not path.parts[3].startswith(("loop", "ram"))
    }
    return "read_ahead_kb: " + (", ".join(f"{name} {value}" for name, value in values.items()) or "unknown")
