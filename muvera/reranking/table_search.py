"""Rank texts whose tokens are rows of a table, all of them, by lookups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..data.validation import rows_of_texts, read_only_view
from ..kernels.tile import LANES, pack_columns
from ..kernels.token_table import (
    MOST,
    exact_similarities,
    mean_cosines,
    round_similarities,
    score_looked_up,
)
from ..utils.parallel import run_in_ranges, split_by_count, split_for_threads
from .coded_vectors import CodedRun, CodedVectors
from .table_codec import TableCodec

# Half of a passage that no text exceeds.
_WHOLE = 1 << 60

# Smallest and largest number of texts per task.
_FEW, _MANY = 4096, 1 << 16

# Rows of the table per task.
_ROWS = 4096


class TableScores(NamedTuple):
    """Scores of texts."""

    #: Chamfer similarities of the texts, or of their best passages; -inf without
    #: tokens.
    scores: NDArray[np.float32]
    #: The number of the best passage of each text.
    places: NDArray[np.int32]


def half_passage(passage: int | None) -> int:
    """Return half of the tokens of a passage; texts with at most two are not split."""
    return _WHOLE if passage is None else max(1, passage // 2)


def score_rounded(
    query: NDArray[np.float32],
    codec: TableCodec,
    runs: Sequence[CodedRun],
    passage: int | None = None,
    threads: int | None = 1,
) -> TableScores:
    """Score texts by 16-bit similarities of the rows that they contain.

    Parameters
    ----------
    query : float32 (m, dimension)
        Tokens of the query, at least one.
    codec : TableCodec
    runs : sequence of CodedRun
    passage : int, optional
        Texts with more tokens have the score of their best passage.
    threads : int, optional
        Default: one.  Scores do not depend on it.
    """
    table, rounded = codec.rounded, codec.query(query)
    tokens = len(query)
    peak = float(np.sqrt(np.einsum("ij,ij->i", query, query).max(initial=0))) * codec.longest
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
    return _look_up(parts, similarities, size, passage, unit, threads)


def score_exact(
    query: NDArray[np.float32], codec: TableCodec, runs: Sequence[CodedRun], passage: int | None = None
) -> TableScores:
    """Score texts by float32 similarities, for the best texts of :func:`score_rounded`.

    Scores are those of the decoded tokens, bit for bit.

    Parameters
    ----------
    query, codec, runs, passage
        As for :func:`score_rounded`.
    """
    parts, used = _compact(codec, runs)
    rows = codec.table[used]
    packed = pack_columns(query)
    similarities = np.empty(len(packed) * len(rows) * LANES, np.float32)
    exact_similarities(read_only_view(rows), packed.reshape(-1), similarities)
    return _look_up(parts, similarities, len(rows), passage, np.float32(1), 1)


def mean_similarities(
    query: NDArray[np.float32],
    codec: TableCodec,
    runs: Sequence[CodedRun],
    places: NDArray[np.int32],
    passage: int | None,
) -> NDArray[np.float32]:
    """Return the cosine of the mean tokens of a query and of texts' best passages.

    Parameters
    ----------
    query, codec, runs, passage
        As for :func:`score_rounded`.
    places : int32 (n,)
        The number of the best passage of each text.

    Returns
    -------
    float32 (n,)
    """
    table = codec.rounded
    depth = len(table.numbers) // len(table.units)
    mean = np.zeros(depth, np.float32)
    mean[: codec.dimension] = query.sum(axis=0)
    out = np.empty(len(places), np.float32)
    first = 0
    for texts, positions in runs:
        own = slice(first, first + len(positions))
        mean_cosines(
            table.numbers, table.units, codec.numbers(texts.tokens), texts.offsets, positions, places[own],
            half_passage(passage), mean, out[own],
        )  # fmt: skip
        first = own.stop
    return out


# Row numbers, offsets, and positions of texts.
_Part = tuple[NDArray[np.unsignedinteger], NDArray[np.int64], NDArray[np.int64]]


def _plan(
    codec: TableCodec, runs: Sequence[CodedRun]
) -> tuple[list[_Part], NDArray[np.int64], int, NDArray[np.int64]]:
    """Return texts, the rows that they contain, the number of places, and each row's."""
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
    """Return texts whose tokens are numbers of the rows that they contain, and these."""
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


def _look_up(
    parts: list[_Part],
    similarities: NDArray[np.generic],
    size: int,
    passage: int | None,
    unit: np.float32,
    threads: int | None,
) -> TableScores:
    count = sum(len(positions) for _, _, positions in parts)
    scores, places = np.empty(count, np.float32), np.empty(count, np.int32)
    half = half_passage(passage)
    first = 0
    for numbers, offsets, positions in parts:
        out, at = scores[first : first + len(positions)], places[first : first + len(positions)]

        def work(start: int, stop: int) -> None:
            own = np.ascontiguousarray(positions[start:stop])
            score_looked_up(
                numbers, offsets, own, similarities, size, half, unit, out[start:stop], at[start:stop]
            )

        run_in_ranges(work, split_for_threads(len(positions), _FEW, _MANY, threads), threads)
        first += len(positions)
    return TableScores(scores, places)
