"""Windows: parts of a text that is longer than its model reads.

Models cut such a text silently.  Here it is encoded in overlapping windows, and has the
token vectors of all windows.  A token in two windows has the vector from the window in
which it is farther from the edge, so that text stands on both sides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Spans = Sequence[tuple[int, int]]

# Share of a window that the next one repeats.  Half of it is the least context of a
# token at an edge: 16 tokens of 256, most of a sentence.  A quarter would encode a
# sixth more tokens.
_OVERLAP = 1 / 8

# Maximum number of special tokens of a text: its ends, and the marker of a document.
_SPECIAL = 3


class Reader(NamedTuple):
    """How much of a text a model reads."""

    #: Returns the characters of each token of a whole text, without special tokens.
    tokenize: Callable[[str], Spans]
    #: Maximum number of these tokens.
    limit: int

    @property
    def overlap(self) -> int:
        """Number of tokens that a window repeats."""
        return int(self.limit * _OVERLAP)

    @property
    def passage(self) -> int:
        """Number of tokens of a passage, by which long texts are ranked.

        No text that the model reads whole has more, with its special tokens.
        """
        return self.limit + max(self.overlap, _SPECIAL)


def reader_of(tokenizer: Any) -> Reader:
    """Return the reader of a model whose tokenizer truncates.

    The tokenizer, a ``tokenizers.Tokenizer``, may add special tokens and pad.
    """

    def tokenize(text: str) -> Spans:
        first = tokenizer.encode(text, add_special_tokens=False)
        parts = [first, *first.overflowing]
        return [(start, stop) for part in parts for start, stop in part.offsets if start < stop]

    most = tokenizer.truncation["max_length"]
    return Reader(tokenize, most - tokenizer.num_special_tokens_to_add(is_pair=False))


class Window(NamedTuple):
    """Characters of a text that are encoded together."""

    start: int
    stop: int
    #: Characters of the tokens that are kept; other windows have the rest.
    kept_start: int
    kept_stop: int

    def kept(self, spans: Spans) -> NDArray[np.bool_]:
        """Return which token vectors of this window are kept.

        Special tokens are always kept.  `spans` are the characters of each token
        vector, counted from the window's start.
        """
        return np.array(
            [a == b or self.kept_start <= self.start + a < self.kept_stop for a, b in spans], bool
        )


def windows_of(text: str, reader: Reader | None) -> list[Window]:
    """Return the windows of a text, in order.

    Without a reader, the whole text is one window.
    """
    # A token has at least one character.
    spans = [] if reader is None or len(text) <= reader.limit else list(reader.tokenize(text))
    if reader is None or len(spans) <= reader.limit:
        return [Window(0, len(text), 0, len(text))]
    overlap = reader.overlap
    ranges: list[tuple[int, int]] = []  # of tokens
    while not ranges or ranges[-1][1] < len(spans):
        first = max(ranges[-1][1] - overlap, ranges[-1][0] + 1) if ranges else 0
        first = _word_start(spans, first, overlap // 2)
        last = min(first + reader.limit, len(spans))
        # The part of a word at an edge may have more tokens than within the word.
        while (
            last > first + 1
            and len(reader.tokenize(text[spans[first][0] : spans[last - 1][1]])) > reader.limit
        ):
            last -= 1
        ranges.append((first, last))
    # Two windows meet in the middle of their overlap.
    meetings = [spans[(after[0] + before[1]) // 2][0] for before, after in pairwise(ranges)]
    bounds = pairwise([0, *meetings, len(text)])
    return [
        Window(spans[first][0], spans[last - 1][1], *kept)
        for (first, last), kept in zip(ranges, bounds, strict=True)
    ]


def _word_start(spans: Spans, first: int, most: int) -> int:
    """Return the first token from `first` on that follows a space, if one is near."""
    for token in range(first, min(first + most, len(spans) - 1)):
        if token == 0 or spans[token][0] > spans[token - 1][1]:
            return token
    return first


def join_windows(matrices: Sequence[Any], windows: Sequence[Window], spans: Sequence[Spans | None]) -> Any:
    """Return the token vectors of a text from the vectors of its windows.

    `matrices` are float32 or float16 (tokens, dimension).  `spans` are the characters
    of each vector of each window; None keeps all vectors of a window.
    """
    if len(windows) == 1:
        return matrices[0]
    parts = [
        np.asarray(matrix) if places is None else np.asarray(matrix)[window.kept(places)]
        for matrix, window, places in zip(matrices, windows, spans, strict=True)
    ]
    return np.concatenate(parts)


def join_spans(windows: Sequence[Window], spans: Sequence[Spans]) -> list[tuple[int, int]]:
    """Return the characters of each vector of :func:`join_windows`.

    `spans` are the characters of each vector of each window.
    """
    return [
        (window.start + a, window.start + b)
        for window, places in zip(windows, spans, strict=True)
        for (a, b), keep in zip(places, window.kept(places), strict=True)
        if keep
    ]
