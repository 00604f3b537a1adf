"""Scores of long texts by their best passage.

A passage has two neighboring blocks of half its tokens.  So passages overlap by half,
and one of them contains most of an answer's context.  The first, third, fifth, ...
passage of a text do not overlap, so the kernels of whole texts can score them as texts
over the same tokens.  The same holds for the second, fourth, sixth, ...
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors, regroup
from .coded_vectors import CodedVectors, rank_decoded, score_coded
from .pruning import RerankOptions, score_candidates

_Texts = TypeVar("_Texts", MultiVectors, CodedVectors)

# Passages whose estimate is this share below the best one's are not decoded.  Products
# of bytes differ from products of decoded tokens by about a hundredth of it.
_MARGIN = 0.05


class _Passages(NamedTuple):
    """Passages of a run of texts that do not overlap."""

    texts: Any  #: The passages, and the tokens between them, as texts.
    positions: NDArray[np.int64]  #: The passages among them.
    owners: NDArray[np.int64]  #: Of each passage: the number of its text or document.

    @property
    def run(self) -> tuple[Any, NDArray[np.int64]]:
        """The passages as a run of texts."""
        return self.texts, self.positions

    def kept(self, mask: NDArray[np.bool_]) -> _Passages:
        """Return some of the passages."""
        return self._replace(positions=self.positions[mask], owners=self.owners[mask])


def passage_scores(
    query: NDArray[np.float32],
    floats: Sequence[tuple[MultiVectors, NDArray[np.int64]]],
    codes: Sequence[tuple[CodedVectors, NDArray[np.int64]]],
    passage: int,
    exact: bool,
    threads: int | None = 1,
    owners: NDArray[np.int64] | None = None,
) -> NDArray[np.float32]:
    """Return the score of the best passage of each text, float32 (c,).

    `query` is float32 (m, dimension).  The texts are runs of `floats`, of `codes`, or
    of both.  With `exact`, the scores are of floats or of decoded tokens; otherwise
    they are estimates by codes, if there are codes.  A text of at most `passage` tokens
    has the score of all its tokens, and -inf without tokens.

    With `owners`, int64 (c,), texts are parts of documents with these numbers from 0
    on, and the scores are of documents.
    """
    count = sum(len(positions) for _, positions in floats or codes)
    if owners is None:
        owners = np.arange(count)
    count = int(owners.max(initial=-1)) + 1
    if floats and (exact or not codes):
        every = RerankOptions(max(1, count), early_exit=False)
        return _best_of(
            _parts(floats, passage, owners), lambda run: score_candidates(query, [run], every, threads), count
        )
    if not codes:
        return np.empty(0, np.float32)
    codec = codes[0][0].codec
    parts = _parts(codes, passage, owners)
    estimates = [score_coded(query, codec, [part.run], threads) for part in parts]
    ready = iter(estimates)
    best = _best_of(parts, lambda run: next(ready), count)
    if not exact:
        return best
    promising = []
    for part, scores in zip(parts, estimates, strict=True):
        least = best[part.owners]
        promising.append(part.kept(scores >= least - _MARGIN * np.abs(least)))
    return _best_of(promising, lambda run: rank_decoded(query, codec, [run], len(run[1]), None), count)


def _best_of(
    parts: list[_Passages], score: Callable[[Any], NDArray[np.float32]], count: int
) -> NDArray[np.float32]:
    """Return the largest score of the passages of each of `count` owners."""
    best = np.full(count, -np.inf, np.float32)
    for part in parts:
        np.maximum.at(best, part.owners, score(part.run))
    return best


def _parts(
    runs: Sequence[tuple[_Texts, NDArray[np.int64]]], passage: int, owners_of: NDArray[np.int64]
) -> list[_Passages]:
    """Return the passages of all texts, as collections without overlaps."""
    half = max(1, passage // 2)
    parts = []
    first = 0
    for texts, positions in runs:
        filled = texts.offsets[positions + 1] > texts.offsets[positions]
        owners, chosen = owners_of[first : first + len(positions)][filled], positions[filled]
        starts, stops = texts.offsets[chosen], texts.offsets[chosen + 1]
        parts.append(_collection(texts, owners, starts, np.maximum(starts + 1, stops - half), stops, half))
        long = stops - starts > 2 * half
        starts, stops = starts[long] + half, stops[long]
        if len(starts):
            parts.append(_collection(texts, owners[long], starts, stops - half, stops, half))
        first += len(positions)
    return parts


def _collection(
    texts: _Texts,
    owners: NDArray[np.int64],
    starts: NDArray[np.int64],
    before: NDArray[np.int64],
    stops: NDArray[np.int64],
    half: int,
) -> _Passages:
    """Return every other passage of texts at ``starts`` to ``stops``.

    Every text has passages from its start on, which begin before its `before`.
    """
    counts = -(-(before - starts) // (2 * half))
    places = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    begins = np.repeat(starts, counts) + 2 * half * places
    ends = np.minimum(begins + 2 * half, np.repeat(stops, counts))
    offsets = np.unique(np.concatenate([[0], begins, ends, [texts.num_tokens]]))
    if isinstance(texts, MultiVectors):
        passages: Any = regroup(texts, offsets)
    else:
        passages = CodedVectors(texts.codec, texts.tokens, offsets)
    return _Passages(passages, np.searchsorted(offsets, begins), np.repeat(owners, counts))
