"""Time of ranking candidates whose tokens are on the disk, with and without asking for them first.

Before every cold query the file's pages are dropped, and mincore proves that they are gone: a measurement
that is not cold fails.  "Codes first" is an index of two levels: codes in memory choose the few whose tokens
are read.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from muvera import MultiVectors
from muvera.index.settings import TokenSettings
from muvera.index.token_levels import LevelsState, TokenLevels
from muvera.index.token_store import Segment, TokenStore, mapped, write_tokens
from muvera.reranking.codecs import fit_codec
from muvera.reranking.codecs.base import CodedVectors
from muvera.reranking.pruning import RerankOptions, rank_candidates
from muvera.utils.page_cache import forget, resident_share

__all__ = [
    "CANDIDATES",
    "drop",
    "mapped_store",
    "measure",
    "rank_by_levels",
    "rank_by_tokens",
    "two_levels",
    "write_file",
]

DIMENSION, CANDIDATES, K, QUERY_TOKENS = 128, 100, 10, 32

# Documents that the file repeats, and tokens that the codes are learned from.
_BLOCK, _FITTED = 1024, 20_000

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
    path = folder / "tokens.npy"
    count, block = write_file(path, megabytes, tokens)
    rng = np.random.default_rng(1)
    file = os.open(path, os.O_RDONLY)
    os.fsync(file)
    store = mapped_store(path, count, tokens)
    levels = two_levels(store, tokens, block)
    query = rng.standard_normal((QUERY_TOKENS, DIMENSION)).astype(np.float32)
    found: dict[str, list[float]] = {
        f"{state}{way}": [] for state in ("warm", "cold") for way in ("", ", asked first", ", codes first")
    }
    answers = []
    rank_by_levels(levels, query, np.arange(CANDIDATES))  # compiles
    try:
        for _ in range(rounds):
            rows = rng.permutation(count)[:CANDIDATES]
            for asked in (False, True):
                drop(store, file)
                seconds, best = rank_by_tokens(store, query, rows, asked)
                found["cold, asked first" if asked else "cold"].append(1000 * seconds)
                answers.append(best)
            _require_same(answers[-2:])
            drop(store, file)
            found["cold, codes first"].append(1000 * rank_by_levels(levels, query, rows))
        store.segments[0].vectors.tokens.view(np.uint16).max()  # reads all
        store.look_again()
        for lap in range(_WARM * rounds):
            # Rows of its own for each, or the second would find the first one's in the processor's caches.
            for asked in (False, True) if lap % 2 else (True, False):
                rows = rng.permutation(count)[:CANDIDATES]
                seconds, _ = rank_by_tokens(store, query, rows, asked)
                found["warm, asked first" if asked else "warm"].append(1000 * seconds)
            rows = rng.permutation(count)[:CANDIDATES]
            found["warm, codes first"].append(1000 * rank_by_levels(levels, query, rows))
    finally:
        os.close(file)
    return {
        "milliseconds": {name: float(np.median(times)) for name, times in found.items()},
        "documents": count,
    }


def write_file(path: Path, megabytes: int, tokens: int) -> tuple[int, MultiVectors]:
    """Write a file of random tokens; return the number of documents, and those that it repeats."""
    count = (megabytes << 20) // (2 * DIMENSION * tokens)
    rows = np.random.default_rng(0).standard_normal((_BLOCK * tokens, DIMENSION)).astype(np.float16)
    block = MultiVectors.from_flat(rows, [tokens] * _BLOCK)
    sizes = [_BLOCK] * (count // _BLOCK) + [count % _BLOCK] * (count % _BLOCK > 0)
    write_tokens(path, [block[:size] for size in sizes])
    return count, block


def mapped_store(path: Path, count: int, tokens: int) -> TokenStore[MultiVectors]:
    """Return the tokens of the file."""
    store: TokenStore[MultiVectors] = TokenStore(MultiVectors.from_flat, "tokens")
    texts = mapped(path, np.full(count, tokens), MultiVectors.from_flat)
    store.segments = [Segment(0, texts, path)]
    return store


def two_levels(store: TokenStore[MultiVectors], tokens: int, block: MultiVectors) -> TokenLevels:
    """Return the tokens of the file behind codes of 2 bits, which are in memory."""
    count = len(store)
    codec = fit_codec("2bit", np.asarray(block.tokens[:_FITTED], np.float32))
    coded = CodedVectors.of(codec, block)
    levels = TokenLevels(TokenSettings(codec="2bit", keep_exact=True), DIMENSION, codec)
    assert levels.codes is not None
    repeated = np.resize(coded.tokens, (count * tokens, codec.bytes_per_token))
    levels.codes.append(CodedVectors.from_lengths(codec, repeated, np.full(count, tokens)))
    # One map of the file: pages of another one would stay.
    levels.state = LevelsState(store, store.segments, levels.codes, levels.codes.segments)
    return levels


def rank_by_levels(levels: TokenLevels, query: NDArray[np.float32], rows: NDArray[np.int64]) -> float:
    """Return the seconds of ranking rows by codes, and the best of them by tokens."""
    began = time.perf_counter()
    levels.rank(query, rows, RerankOptions(K), 1)
    return time.perf_counter() - began


def _require_same(answers: list[NDArray[np.int64]]) -> None:
    if not np.array_equal(answers[0], answers[1]):
        raise RuntimeError("Answers differ by where tokens are read from.")


def drop(store: TokenStore[MultiVectors], file: int) -> None:
    """Drop the pages of a store's file from memory.

    Raises
    ------
    RuntimeError
        Where they stay.
    """
    tokens = store.segments[0].vectors.tokens
    forget(tokens)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    share = resident_share(tokens)
    if share is None or share > _MOST_RESIDENT:
        raise RuntimeError(
            f"{'An unknown share' if share is None else f'{share:.1%}'} of the pages is still in memory: this "
            "system does not drop them, so that nothing cold can be measured. Use another disk."
        )
    store.look_again()


def rank_by_tokens(
    store: TokenStore[MultiVectors], query: NDArray[np.float32], rows: NDArray[np.int64], asked: bool
) -> tuple[float, NDArray[np.int64]]:
    """Return the seconds of ranking rows by tokens, and the best rows."""
    began = time.perf_counter()
    if asked:
        store.read_ahead(rows)
    best, _ = rank_candidates(query, None, rows, store.slices, RerankOptions(K), 1)
    return time.perf_counter() - began, best
