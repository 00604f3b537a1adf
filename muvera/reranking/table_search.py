"""Rank texts whose tokens are rows of a table, all of them, by lookups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..data.validation import read_only_view
from ..kernels.row_bounds import add_gains, choose_cuts, least_of_largest, list_gains
from ..kernels.tile import LANES, pack_columns
from ..kernels.token_table import (
    MOST,
    exact_similarities,
    mean_products,
    round_similarities,
    score_looked_up,
)
from ..utils.parallel import run_in_ranges, split_by_count, split_for_threads
from .coded_vectors import CodedRun, CodedVectors
from .pruning import ranked
from .table_codec import TableCodec

# Half of the length of a passage that is longer than any text.
_WHOLE = 1 << 60

# Smallest and largest number of texts per task.
_FEW, _MANY = 4096, 1 << 16

# Rows of the table per task.
_ROWS = 4096

# Bounds are computed for at least this number of texts, and this number per wanted
# text, that have at most _LONG tokens on average: bounds of long texts are loose.
_BOUNDED, _PER_BEST, _LONG = 16_384, 16, 256

# For each token of a query, the lists of the rows above its cut contain at most the
# number of all texts divided by _BUDGET.
_BUDGET = 8

# First, _FIRST texts per wanted text are scored; their bounds are compared in _STEPS
# steps.  If more than 1 / _MOST_SCORED of all texts are left, all are scored.
_FIRST, _STEPS, _MOST_SCORED = 4, 4096, 3


# Row numbers, offsets, and positions of texts.
_Part = tuple[NDArray[np.unsignedinteger[Any]], NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True, eq=False)
class Lookups:
    """Similarities of rows with a query, and the texts whose tokens look them up."""

    parts: list[_Part]
    #: int16 (panels * size * LANES,), in multiples of `unit`; or float32.
    similarities: NDArray[Any]
    size: int
    unit: np.float32
    half: int
    #: The segments of the parts, if `similarities` have a place for each row.
    segments: Sequence[CodedVectors] = ()

    def __len__(self) -> int:
        return sum(len(texts) for _, _, texts in self.parts)

    def of(self, positions: NDArray[np.int64]) -> Lookups:
        """Return the lookups of the texts at ascending positions."""
        parts, first, done = [], 0, 0
        for numbers, offsets, texts in self.parts:
            stop = int(np.searchsorted(positions, first + len(texts)))
            parts.append((numbers, offsets, texts[positions[done:stop] - first]))
            first, done = first + len(texts), stop
        return replace(self, parts=parts, segments=())


class TableScores(NamedTuple):
    """Scores of texts."""

    #: Chamfer similarities of the texts, or of their best passages; -inf without
    #: tokens.
    scores: NDArray[np.float32]
    #: The number of the best passage of each text.
    places: NDArray[np.int32]


#: Lookups of no texts.
NO_LOOKUPS = Lookups([], np.empty(0, np.int16), 0, np.float32(1), _WHOLE)


def look_up(
    query: NDArray[np.float32],
    codec: TableCodec,
    runs: Sequence[CodedRun],
    passage: int | None = None,
    threads: int | None = 1,
) -> Lookups:
    """Compute 16-bit similarities of the rows that texts contain.

    `query`, float32 (m, dimension), has at least one token.  Texts of more than
    `passage` tokens have the score of their best passage.
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
    segments = [texts for texts, _ in runs] if size == codec.num_rows else []
    return Lookups(parts, similarities, size, unit, _half(passage), segments)


def score_exact(
    query: NDArray[np.float32], codec: TableCodec, runs: Sequence[CodedRun], passage: int | None = None
) -> TableScores:
    """Score texts by float32 similarities, for the best texts of :func:`best_texts`.

    Scores are the scores of the decoded tokens, bit for bit.  :func:`look_up` describes
    the arguments.
    """
    parts, used = _compact(codec, runs)
    rows = codec.table[used]
    packed = pack_columns(query)
    similarities = np.empty(len(packed) * len(rows) * LANES, np.float32)
    exact_similarities(read_only_view(rows), packed.reshape(-1), similarities)
    return score_all(Lookups(parts, similarities, len(rows), np.float32(1), _half(passage)))


def best_texts(
    lookups: Lookups, k: int, threads: int | None = 1
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the positions of the `k` best texts, and their scores, best first.

    Ties go to the lower position.  Among many texts, most are left out by upper bounds
    of their scores (:mod:`..kernels.row_bounds`), which loses none of the best.
    """
    positions = _possible(lookups, k, threads)
    if positions is None:
        scores = score_all(lookups, threads).scores
        return ranked(np.arange(len(scores)), scores, k)
    return ranked(positions, score_all(lookups.of(positions), threads).scores, k)


def _possible(lookups: Lookups, k: int, threads: int | None) -> NDArray[np.int64] | None:
    """Return the positions of texts that contain the `k` best; None for all texts."""
    count = len(lookups)
    tokens = sum(texts.num_tokens for texts in lookups.segments)
    if not lookups.segments or count < max(_BOUNDED, _PER_BEST * k) or tokens > _LONG * count:
        return None
    lists = [texts.row_lists() for texts in lookups.segments]
    sizes = np.zeros(lookups.size, np.int64)
    for one in lists:
        if one is None:
            return None
        sizes += np.diff(one.starts)
    cuts = np.empty(len(lookups.similarities) // lookups.size, np.int16)
    choose_cuts(lookups.similarities, lookups.size, sizes, count // _BUDGET, cuts)
    rows, gains = np.empty(lookups.size, np.int64), np.empty(lookups.size, np.int64)
    number = list_gains(lookups.similarities, lookups.size, sizes, cuts, rows, gains)
    parts = []
    for one, texts, (_, _, chosen) in zip(lists, lookups.segments, lookups.parts, strict=True):
        assert one is not None
        added = np.zeros(len(texts), np.int32)
        add_gains(one.starts, one.texts, rows[:number], gains[:number], added)
        parts.append(added if len(chosen) == len(texts) else added[chosen])
    bounds = parts[0] if len(parts) == 1 else np.concatenate(parts)
    least = least_of_largest(bounds, _FIRST * k, _STEPS)
    first = np.flatnonzero(bounds >= least)
    if len(first) > count // _MOST_SCORED:
        return None
    best = ranked(first, score_all(lookups.of(first), threads).scores, k)[1]
    if len(best) < k:
        return None
    # A text with a smaller bound has a lower score than the k-th best of these.
    needed = int(float(best[-1]) / float(lookups.unit)) - 2 - int(cuts.sum(dtype=np.int64))
    possible = np.flatnonzero(bounds >= needed)
    return None if len(possible) > count // _MOST_SCORED else possible


def mean_similarities(lookups: Lookups, positions: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the products of a query's sum with the mean tokens of best passages.

    `positions`, int64 (n,), are positions of texts, ascending.  The result is float32
    (n,).
    """
    chosen = lookups.of(positions)
    places = np.zeros(len(positions), np.int32)
    if lookups.half != _WHOLE:
        places = score_all(chosen).places
    out = np.empty(len(positions), np.float32)
    first = 0
    for numbers, offsets, texts in chosen.parts:
        stop = first + len(texts)
        mean_products(
            numbers, offsets, texts, places[first:stop], lookups.similarities, lookups.size, lookups.half,
            lookups.unit, out[first:stop],
        )  # fmt: skip
        first = stop
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


def score_all(lookups: Lookups, threads: int | None = 1) -> TableScores:
    """Score the texts of lookups; scores do not depend on `threads`."""
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
    return TableScores(scores, places)


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
