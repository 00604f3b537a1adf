"""Rank texts whose tokens are rows of a table, all of them, by lookups."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..data.validation import read_only_view
from ..kernels.tile import LANES, pack_columns
from ..kernels.token_table import (
    MOST,
    exact_similarities,
    mean_products,
    round_similarities,
    score_looked_up,
)
from ..utils.parallel import run_in_ranges, split_by_count, split_for_threads
from .coded_vectors import CodedRun
from .table_codec import TableCodec

# Half of a passage that no text exceeds.
_WHOLE = 1 << 60

# Smallest and largest number of texts per task.
_FEW, _MANY = 4096, 1 << 16

# Rows of the table per task.
_ROWS = 4096


# Row numbers, offsets, and positions of texts.
_Part = tuple[NDArray[np.unsignedinteger[Any]], NDArray[np.int64], NDArray[np.int64]]


class Lookups(NamedTuple):
    """Similarities of rows with a query, and the texts whose tokens look them up."""

    parts: list[_Part]
    #: int16 or float32 (panels * size * LANES,), in multiples of `unit`.
    similarities: NDArray[Any]
    size: int
    unit: np.float32
    half: int


class TableScores(NamedTuple):
    """Scores of texts."""

    #: Chamfer similarities of the texts, or of their best passages; -inf without
    #: tokens.
    scores: NDArray[np.float32]
    #: The number of the best passage of each text.
    places: NDArray[np.int32]
    lookups: Lookups


#: Scores of no texts.
NO_SCORES = TableScores(
    np.empty(0, np.float32),
    np.empty(0, np.int32),
    Lookups([], np.empty(0, np.int16), 0, np.float32(1), _WHOLE),
)


def score_rounded(
    query: NDArray[np.float32],
    codec: TableCodec,
    runs: Sequence[CodedRun],
    passage: int | None = None,
    threads: int | None = 1,
) -> TableScores:
    """Score texts by 16-bit similarities of the rows that they contain.

    `query`, float32 (m, dimension), has at least one token.  Texts of more than
    `passage` tokens have the score of their best passage.  Scores do not depend on
    `threads`.
    """
    table, rounded = codec.rounded, codec.query(query)
    tokens = len(query)
    # Rounding to bytes makes a vector longer by at most this factor: half a step of its
    # largest entry in each coordinate.
    longer = 1 + codec.dimension**0.5 / 254
    peak = float(np.sqrt(np.einsum("ij,ij->i", query, query).max())) * codec.longest * longer**2
    unit = np.float32(peak / MOST) if peak > 0 else np.float32(1)
    factors = np.zeros(len(rounded.biases), np.float32)
    factors[:tokens] = rounded.units / unit
    biases = rounded.biases.astype(np.int32)
    panels = len(factors) // LANES
    parts, used, size, places = _plan(codec, runs)
    similarities = np.empty(panels * size * LANES, np.int16)

    def multiply(start: int, stop: int) -> None:
        round_similarities(
            table.numbers, table.units, used[start:stop], places[start:stop], rounded.packed, biases, factors,
            size, similarities,
        )  # fmt: skip

    run_in_ranges(multiply, split_by_count(len(used), _ROWS), threads)
    return _look_up(Lookups(parts, similarities, size, unit, _half(passage)), threads)


def score_exact(
    query: NDArray[np.float32], codec: TableCodec, runs: Sequence[CodedRun], passage: int | None = None
) -> TableScores:
    """Score texts by float32 similarities, for the best texts of :func:`score_rounded`.

    Scores are the scores of the decoded tokens, bit for bit.  :func:`score_rounded`
    describes the arguments.
    """
    parts, used = _compact(codec, runs)
    rows = codec.table[used]
    packed = pack_columns(query)
    similarities = np.empty(len(packed) * len(rows) * LANES, np.float32)
    exact_similarities(read_only_view(rows), packed.reshape(-1), similarities)
    return _look_up(Lookups(parts, similarities, len(rows), np.float32(1), _half(passage)), 1)


def mean_similarities(found: TableScores, positions: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the products of a query's sum with the mean tokens of best passages.

    `found` is from :func:`score_rounded`.  `positions`, int64 (n,), are positions of
    texts in ``found.scores``, ascending.  The result is float32 (n,).
    """
    out = np.empty(len(positions), np.float32)
    lookups = found.lookups
    first, done = 0, 0
    for numbers, offsets, documents in lookups.parts:
        stop = int(np.searchsorted(positions, first + len(documents)))
        chosen = positions[done:stop]
        mean_products(
            numbers, offsets, documents[chosen - first], found.places[chosen], lookups.similarities,
            lookups.size, lookups.half, lookups.unit, out[done:stop],
        )  # fmt: skip
        first, done = first + len(documents), stop
    return out


def _plan(
    codec: TableCodec, runs: Sequence[CodedRun]
) -> tuple[list[_Part], NDArray[np.int64], int, NDArray[np.int64]]:
    """Return texts, their rows, the number of places, and the place of each row."""
    tokens = sum(
        texts.num_tokens if len(at) == len(texts) else int((texts.offsets[at + 1] - texts.offsets[at]).sum())
        for texts, at in runs
    )
    if tokens <= sum(len(texts.used_rows) for texts, _ in runs):
        parts, used = _compact(codec, runs)
        return parts, used, len(used), np.arange(len(used))
    parts = [(codec.numbers(texts.tokens), texts.offsets, positions) for texts, positions in runs]
    used = runs[0][0].used_rows
    for texts, _ in runs[1:]:
        used = np.union1d(used, texts.used_rows)
    return parts, used, codec.num_rows, used


def _compact(codec: TableCodec, runs: Sequence[CodedRun]) -> tuple[list[_Part], NDArray[np.int64]]:
    """Return texts whose tokens are numbers of their distinct rows, and these rows."""
    selected = [texts[positions] for texts, positions in runs]
    numbers = np.concatenate([codec.numbers(texts.tokens) for texts in selected])
    codec.require_rows(numbers)
    present = np.zeros(codec.num_rows, bool)
    present[numbers] = True
    used = np.flatnonzero(present)
    places = np.cumsum(present, dtype=np.uint32) - np.uint32(1)
    offsets = np.concatenate([[0], np.cumsum(np.concatenate([texts.lengths for texts in selected]))])
    count = len(offsets) - 1
    return [(read_only_view(places[numbers]), offsets, np.arange(count))], used


def _half(passage: int | None) -> int:
    """Return half of the tokens of a passage."""
    return _WHOLE if passage is None else max(1, passage // 2)


def _look_up(lookups: Lookups, threads: int | None) -> TableScores:
    """Score the texts of lookups."""
    count = sum(len(documents) for _, _, documents in lookups.parts)
    scores, places = np.empty(count, np.float32), np.empty(count, np.int32)
    first = 0
    for numbers, offsets, documents in lookups.parts:
        stop = first + len(documents)
        work = partial(
            _score_range, lookups, numbers, offsets, np.ascontiguousarray(documents), scores[first:stop],
            places[first:stop],
        )  # fmt: skip
        run_in_ranges(work, split_for_threads(len(documents), _FEW, _MANY, threads), threads)
        first = stop
    return TableScores(scores, places, lookups)


def _score_range(
    lookups: Lookups,
    numbers: NDArray[np.unsignedinteger[Any]],
    offsets: NDArray[np.int64],
    documents: NDArray[np.int64],
    scores: NDArray[np.float32],
    places: NDArray[np.int32],
    start: int,
    stop: int,
) -> None:
    """Score the documents of a range."""
    score_looked_up(
        numbers, offsets, documents[start:stop], lookups.similarities, lookups.size, lookups.half,
        lookups.unit, scores[start:stop], places[start:stop],
    )  # fmt: skip
