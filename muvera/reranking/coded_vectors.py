"""CodedVectors: texts as codes, and their scores.

With `threads` None, functions use all usable cores.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..data.multivectors import MultiVectors
from ..data.validation import (
    Ids,
    IdsLike,
    as_ids,
    as_offsets,
    offsets_from_lengths,
    read_only_view,
    rows_of_texts,
)
from ..kernels.row_bounds import count_texts, list_texts
from ..kernels.tile import pack_columns
from ..kernels.token_codes import score_codes, score_decoded
from .codecs import TokenCodec
from .pruning import ALL, Stop, score_runs
from .table_codec import TableCodec

# Mean number of tokens of texts that are copied one by one.
_LONG = 200

# Calls of `row_lists` until the lists are made.
_ASKED = 8


class RowLists(NamedTuple):
    """The texts that contain each row of a table.

    They are ``texts[starts[row] : starts[row + 1]]``, ascending.
    """

    starts: NDArray[np.int64]
    texts: NDArray[np.int32]


class CodedVectors:
    """Texts as codes: text i is ``tokens[offsets[i] : offsets[i + 1]]``.

    Parameters
    ----------
    codec : TokenCodec
        The codec that made the codes.
    tokens : uint8 (n_tokens, bytes_per_token)
        Codes of all tokens, one text after another.
    offsets : int64 (n + 1,)
        First row of each text, then n_tokens.
    ids : sequence of int or of str, optional
        External ids of texts that are added to an index; equal ids follow each other.

    Raises
    ------
    TypeError, ValueError
        If `tokens` are not codes of the codec, or `offsets` do not fit them.
    """

    def __init__(
        self, codec: TokenCodec, tokens: NDArray[np.uint8], offsets: ArrayLike, ids: IdsLike | None = None
    ) -> None:
        if tokens.dtype != np.uint8 or tokens.ndim != 2 or tokens.shape[1] != codec.bytes_per_token:
            raise ValueError(
                f"The array of codes contains {tokens.dtype} of shape {tokens.shape}, but codes of "
                f"{codec.name} at dimension={codec.dimension} are uint8 with {codec.bytes_per_token} "
                "columns."
            )
        self.codec = codec
        self.tokens = tokens
        self.offsets: NDArray[np.int64] = as_offsets(offsets, len(tokens))
        self._ids = None if ids is None else as_ids(ids, len(self), parts=True)
        self._used: NDArray[np.int64] | None = None
        self._asked = 0
        self._lists: RowLists | None = None

    @classmethod
    def from_lengths(cls, codec: TokenCodec, tokens: NDArray[np.uint8], lengths: ArrayLike) -> CodedVectors:
        """Make texts from flat codes and the number of tokens of each text, int (n,).

        The codes of all tokens, one text after another, are uint8 (n_tokens,
        bytes_per_token).  Raise TypeError or ValueError if `tokens` are not codes of
        the codec, or the lengths do not add up.
        """
        return cls(codec, tokens, offsets_from_lengths(lengths, len(tokens)))

    @classmethod
    def of(cls, codec: TokenCodec, texts: MultiVectors, threads: int | None = None) -> CodedVectors:
        """Encode texts, which have finite numbers; their ids are dropped."""
        return cls(codec, codec.encode(texts.tokens, threads), texts.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def has_ids(self) -> bool:
        """True if ids were given, False if they are the positions."""
        return self._ids is not None

    @property
    def ids(self) -> Ids:
        """External ids, int64 or str (n,)."""
        return np.arange(len(self)) if self._ids is None else self._ids

    def with_ids(self, ids: IdsLike) -> CodedVectors:
        """Return the same texts with other ids, one per text."""
        return CodedVectors(self.codec, self.tokens, self.offsets, ids)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each text, int64 (n,)."""
        return np.diff(self.offsets)

    @property
    def num_tokens(self) -> int:
        """Tokens of all texts together."""
        return len(self.tokens)

    @property
    def dimension(self) -> int:
        """Number of columns of `tokens`: the bytes of a code.

        It is not the dimension of decoded tokens.
        """
        return self.codec.bytes_per_token

    @property
    def used_rows(self) -> NDArray[np.int64]:
        """Rows of the table of a :class:`.table_codec.TableCodec` that texts contain.

        Ascending.

        Raises
        ------
        ValueError
            For a number beyond the table.
        """
        assert isinstance(self.codec, TableCodec)
        if self._used is None:
            numbers = self.codec.numbers(self.tokens)
            self.codec.require_rows(numbers)
            present = np.zeros(self.codec.num_rows, bool)
            present[numbers] = True
            self._used = np.flatnonzero(present)
        return self._used

    def row_lists(self) -> RowLists | None:
        """Return the texts that contain each row of a :class:`TableCodec`.

        They take a tenth of a second for each ten million tokens, so the first few
        calls return None.
        """
        assert isinstance(self.codec, TableCodec)
        self._asked += 1
        if self._lists is None and self._asked == _ASKED:  # once: other threads go on without
            numbers = self.codec.numbers(self.tokens)
            starts = np.zeros(self.codec.num_rows + 1, np.int64)
            count_texts(numbers, self.offsets, starts[1:])
            np.cumsum(starts, out=starts)
            texts = np.empty(starts[-1], np.int32)
            list_texts(numbers, self.offsets, starts[:-1].copy(), texts)
            self._lists = RowLists(starts, texts)
        return self._lists

    def __getitem__(self, key: slice | NDArray[np.int64]) -> CodedVectors:
        """Return the texts of a slice or at positions."""
        chosen = np.arange(len(self))[key]
        lengths = self.lengths[chosen]
        if lengths.sum() >= _LONG * len(chosen) > 0:  # slices of long texts are copied faster
            starts = self.offsets[chosen].tolist()
            parts = [
                self.tokens[start : start + length]
                for start, length in zip(starts, lengths.tolist(), strict=True)
            ]
            return CodedVectors.from_lengths(self.codec, np.concatenate(parts), lengths)
        rows, offsets = rows_of_texts(self.offsets, chosen)
        return CodedVectors(self.codec, np.ascontiguousarray(self.tokens[rows]), offsets)

    def decoded(self, threads: int | None = None) -> MultiVectors:
        """Decode the texts to float32, without ids."""
        return MultiVectors(self.codec.decode(self.tokens, threads), self.offsets)


#: Coded texts of a segment, and positions in them of candidates that follow each other.
CodedRun = tuple[CodedVectors, NDArray[np.int64]]


def score_coded(
    query: NDArray[np.float32],
    codec: TokenCodec,
    runs: Sequence[CodedRun],
    threads: int | None = None,
    k: int = 0,
    stop: Stop = ALL,
) -> NDArray[np.float32]:
    """Score the candidates of one query by products of bytes; return float32 (c,).

    These Chamfer similarities choose the candidates to score without rounding.  `query`
    is float32 (m, dimension), and `runs` have the most promising candidates first.
    `stop` ends the scoring once few of the `k` best are expected to be missing; by
    default, all candidates are scored.  Candidates after the stop and candidates
    without tokens get -inf.
    """
    rounded = codec.query(query)
    heap = np.full(k, -np.inf, np.float32)

    def score(
        texts: CodedVectors, positions: NDArray[np.int64], first: int, out: NDArray[np.float32]
    ) -> None:
        codes = read_only_view(texts.tokens).reshape(-1)
        score_codes(codes, texts.offsets, positions, codec.form, rounded, stop, heap, out)

    # A product of bytes takes a quarter of the time of a product of floats.
    return score_runs(score, runs, len(rounded.packed) / 4 if stop is ALL else 0, threads)


def rank_decoded(
    query: NDArray[np.float32],
    codec: TokenCodec,
    runs: Sequence[CodedRun],
    k: int,
    estimates: NDArray[np.float32] | None,
) -> NDArray[np.float32]:
    """Score the candidates of one query by decoded tokens; return float32 (c,).

    `query` is float32 (m, dimension), and `runs` have the most promising candidates
    first.  `estimates`, float32 (c,), are descending estimates of the scores: scoring
    stops before the first candidate that is unlikely to be among the `k` best.  The
    scores are Chamfer similarities, and -inf after the stop.
    """
    packed = pack_columns(codec.rotated(query)).reshape(-1)
    errors = np.zeros(3)
    heap = np.full(k, -np.inf, np.float32)
    none = np.empty(0, np.float32)

    def score(
        texts: CodedVectors, positions: NDArray[np.int64], first: int, out: NDArray[np.float32]
    ) -> None:
        codes = read_only_view(texts.tokens).reshape(-1)
        own = none if estimates is None else estimates[first : first + len(out)]
        score_decoded(codes, texts.offsets, positions, codec.form, packed, len(query), own, errors, heap, out)

    return score_runs(score, runs)
