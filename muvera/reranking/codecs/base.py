"""TokenCodec: the base class of token codecs; CodedVectors: texts stored as codes, and their scores."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...data.multivectors import MultiVectors
from ...data.validation import TokenArray, as_offsets, offsets_from_lengths, read_only_view, rows_of_texts
from ...kernels.byte_tile import STEP
from ...kernels.tile import LANES, pack_columns
from ...kernels.token_codes import (
    CodeFormat,
    CodeQuery,
    QueryRounding,
    decode_codes,
    round_query,
    score_codes,
    score_decoded,
)
from ...utils.parallel import run_in_ranges, split_by_count
from ..pruning import ALL, Stop, score_runs

# Number of tokens per task.
_BLOCK = 8192


class TokenCodec(ABC):
    """Base class of codecs, which turn each token vector into a few bytes.

    The code of a token depends only on the token and the codec, not on other tokens or the number of threads.
    """

    #: Name of the class in a saved index.
    kind: ClassVar[str]

    def __init__(self, name: str, form: CodeFormat, rounding: QueryRounding) -> None:
        self.name, self.dimension = name, len(form.scales)
        self.bytes_per_token = form.width
        self.form, self._rounding = form, rounding

    @abstractmethod
    def _encode(self, tokens: NDArray[np.float32], out: NDArray[np.uint8]) -> None:
        """Write the codes of tokens (n, dimension) to `out` (n, bytes_per_token), which must be zero."""

    def query(self, tokens: NDArray[np.float32]) -> CodeQuery:
        """Return a query, float32 (m, dimension), rounded to bytes."""
        count, depth = len(tokens), -(-self.dimension // STEP) * STEP
        padded = -(-count // LANES) * LANES
        query = CodeQuery(
            np.zeros(padded * depth, np.int8), np.zeros(padded, np.float32),
            np.empty(count, np.float32), np.empty(count, np.float32),
        )  # fmt: skip
        round_query(np.ascontiguousarray(self.rotated(tokens)), self._rounding, self.form.unit, query)
        return query

    def _restore(self, tokens: NDArray[np.float32]) -> None:  # noqa: B027
        """Change the kernel's output `tokens` to the decoded tokens, in place."""

    def rotated(self, tokens: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return a query in the coordinates of the codes, which preserve inner products up to rounding."""
        return tokens

    @abstractmethod
    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the fitted arrays by name."""

    @classmethod
    @abstractmethod
    def from_arrays(cls, read: Callable[[str], NDArray[Any]], dimension: int) -> TokenCodec:
        """Create the codec from arrays that `read` returns by name; raise ValueError if their shapes are wrong."""

    def encode(self, tokens: TokenArray, threads: int | None = None) -> NDArray[np.uint8]:
        """Return the codes of finite tokens (n, dimension), uint8 (n, bytes_per_token)."""
        if tokens.shape[1] != self.dimension:
            raise ValueError(
                f"The tokens have {tokens.shape[1]} columns, but the codec was fitted to "
                f"dimension={self.dimension}. Fit a codec to these tokens."
            )
        out = np.zeros((len(tokens), self.bytes_per_token), np.uint8)

        def work(start: int, stop: int) -> None:
            self._encode(np.ascontiguousarray(tokens[start:stop], np.float32), out[start:stop])

        run_in_ranges(work, split_by_count(len(tokens), _BLOCK), threads)
        return out

    def decode(self, codes: NDArray[np.uint8], threads: int | None = None) -> NDArray[np.float32]:
        """Return the decoded tokens, float32 (n, dimension)."""
        out = np.empty((len(codes), self.dimension), np.float32)

        def work(start: int, stop: int) -> None:
            flat = read_only_view(np.ascontiguousarray(codes[start:stop])).reshape(-1)
            decode_codes(flat, self.form, out[start:stop])
            self._restore(out[start:stop])

        run_in_ranges(work, split_by_count(len(codes), _BLOCK), threads)
        return out

    def require_codes(self, codes: NDArray[Any], name: str) -> None:
        """Raise ValueError unless `codes` have this codec's dtype and width."""
        if codes.dtype != np.uint8 or codes.ndim != 2 or codes.shape[1] != self.bytes_per_token:
            raise ValueError(
                f"{name} contains {codes.dtype} of shape {codes.shape}, but codes of {self.name} at "
                f"dimension={self.dimension} are uint8 with {self.bytes_per_token} columns."
            )


class CodedVectors:
    """Texts as codes: text i is ``tokens[offsets[i] : offsets[i + 1]]``, decoded by `codec`."""

    __slots__ = ("codec", "offsets", "tokens")

    def __init__(self, codec: TokenCodec, tokens: NDArray[np.uint8], offsets: ArrayLike) -> None:
        codec.require_codes(tokens, "The array of codes")
        self.codec, self.tokens = codec, tokens
        self.offsets: NDArray[np.int64] = as_offsets(offsets, len(tokens))

    @classmethod
    def from_lengths(cls, codec: TokenCodec, tokens: NDArray[np.uint8], lengths: ArrayLike) -> CodedVectors:
        """Create texts from flat codes and the number of tokens of each text."""
        return cls(codec, tokens, offsets_from_lengths(lengths, len(tokens)))

    @classmethod
    def of(cls, codec: TokenCodec, texts: MultiVectors, threads: int | None = None) -> CodedVectors:
        """Encode texts."""
        return cls(codec, codec.encode(texts.tokens, threads), texts.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

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
        """Number of columns of `tokens`: the bytes of a code, not the dimension of decoded tokens."""
        return self.codec.bytes_per_token

    def __getitem__(self, key: slice | NDArray[np.int64]) -> CodedVectors:
        """Return the texts of a slice or at positions."""
        rows, offsets = rows_of_texts(self.offsets, np.arange(len(self))[key])
        return CodedVectors(self.codec, np.ascontiguousarray(self.tokens[rows]), offsets)

    def decoded(self, threads: int | None = None) -> MultiVectors:
        """Decode the texts."""
        return MultiVectors.from_flat(self.codec.decode(self.tokens, threads), offsets=self.offsets)


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
    """Return the scores of one query's candidates, float32 (c,).

    They are Chamfer similarities of decoded tokens with the query, both rounded to bytes.  This is accurate enough
    to choose the best candidates, which are then scored without rounding.  No score depends on `threads`.  `stop`
    ends the scoring once few of the `k` best are expected to be missing.  The score is -inf for a candidate without
    tokens, and for every candidate after the stop.
    """
    rounded, heap = codec.query(query), np.full(k, -np.inf, np.float32)

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
    """Return the scores of one query's candidates by decoded tokens, float32 (c,).

    If `estimates` are given, they must be in descending order.  Scoring then stops at the first candidate that is
    unlikely to be among the `k` best; its score and all later ones are -inf.
    """
    packed, errors = pack_columns(codec.rotated(query)).reshape(-1), np.zeros(3)
    heap, none = np.full(k, -np.inf, np.float32), np.empty(0, np.float32)

    def score(
        texts: CodedVectors, positions: NDArray[np.int64], first: int, out: NDArray[np.float32]
    ) -> None:
        codes = read_only_view(texts.tokens).reshape(-1)
        own = none if estimates is None else estimates[first : first + len(out)]
        score_decoded(codes, texts.offsets, positions, codec.form, packed, len(query), own, errors, heap, out)

    return score_runs(score, runs)


def factors(values: NDArray[np.floating[Any]]) -> NDArray[np.float16]:
    """Return non-negative factors of codes as little-endian float16, at most 65504."""
    halves: NDArray[np.float16] = np.minimum(values, 65504).astype("<f2")
    return halves


def power_of_two(value: float) -> float:
    """Return the largest power of two that is at most `value`; 1 if it is not positive."""
    return 2.0 ** math.floor(math.log2(value)) if value > 0 else 1.0
