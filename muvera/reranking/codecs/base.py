"""The interface of token codecs, and coded texts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...data.multivectors import MultiVectors
from ...data.offsets import as_offsets, offsets_from_lengths, running_total
from ...data.validation import TokenArray
from ...utils.parallel import run_in_ranges

__all__ = ["CodeLayout", "CodeQuery", "CodedVectors", "TokenCodec", "factor_bytes"]

# Tokens that one task encodes or decodes.
_BLOCK = 8192


@dataclass(frozen=True, eq=False)
class CodeLayout:
    """What the kernels read besides codes, see :func:`muvera.kernels.token_codes.unpack_residuals`.

    Parameters
    ----------
    id_bytes : int
        Bytes of a centroid's number.
    centers : unsigned (K * words,)
    table : unsigned (256,)
        Empty where a code holds a byte a coordinate.
    nibbles : uint8
        Tables of half bytes; empty where whole bytes are looked up.
    words : int
        Integers of an unpacked row.
    depth : int
        Bytes of an unpacked row, a multiple of :data:`muvera.kernels.byte_tile.STEP`.
    """

    id_bytes: int
    centers: NDArray[Any]
    table: NDArray[Any]
    nibbles: NDArray[np.uint8]
    words: int
    depth: int


@dataclass(frozen=True, eq=False)
class CodeQuery:
    """A query in bytes, as :func:`muvera.kernels.code_scores.score_codes` takes it.

    Parameters
    ----------
    packed : int8
        Panels of the query's tokens.
    biases : float32 (panels * LANES,)
    units, constants : float32 (n_tokens,)
    """

    packed: NDArray[np.int8]
    biases: NDArray[np.float32]
    units: NDArray[np.float32]
    constants: NDArray[np.float32]


class TokenCodec(ABC):
    """Base class of codecs, which are fitted when they are made.

    Codes of a token depend on the token and the codec alone: on no other token, nor on the number of
    threads.

    Parameters
    ----------
    dimension : int
        Columns of a token vector.
    """

    #: The class's name in a saved index.
    kind: ClassVar[str]

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension

    @property
    @abstractmethod
    def name(self) -> str:
        """What users call it, such as "2bit"."""

    @property
    @abstractmethod
    def bytes_per_token(self) -> int:
        """Bytes of a code."""

    @property
    @abstractmethod
    def layout(self) -> CodeLayout:
        """What the scoring kernel reads besides codes."""

    @abstractmethod
    def _encode(self, tokens: NDArray[np.float32], out: NDArray[np.uint8]) -> None:
        """Write the codes of tokens (n, dimension) to `out` (n, bytes_per_token), which is zero."""

    @abstractmethod
    def _decode(self, codes: NDArray[np.uint8], out: NDArray[np.float32]) -> None:
        """Write the tokens that codes stand for to `out`."""

    @abstractmethod
    def query(self, tokens: NDArray[np.float32]) -> CodeQuery:
        """Return a query, float32 (m, dimension), rounded to bytes."""

    @abstractmethod
    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return what was learned, by name."""

    @classmethod
    @abstractmethod
    def from_arrays(cls, read: Callable[[str], NDArray[Any]], dimension: int) -> TokenCodec:
        """Return the codec of the arrays that `read` returns by name.

        Raises
        ------
        ValueError
            For arrays that do not fit each other or the dimension, or are not finite.
        """

    def encode(self, tokens: TokenArray, threads: int | None = None) -> NDArray[np.uint8]:
        """Return codes, uint8 (n, bytes_per_token).

        Parameters
        ----------
        tokens : float32 or float16 (n, dimension)
            Finite.
        threads : int, optional
            Default: all usable cores.

        Raises
        ------
        ValueError
            For tokens of another dimension.
        """
        if tokens.shape[1] != self.dimension:
            raise ValueError(
                f"The tokens have {tokens.shape[1]} columns, but the codec was fitted on tokens of "
                f"dimension={self.dimension}. Fit a codec on these."
            )
        out = np.zeros((len(tokens), self.bytes_per_token), np.uint8)

        def work(start: int, stop: int) -> None:
            self._encode(np.ascontiguousarray(tokens[start:stop], np.float32), out[start:stop])

        run_in_ranges(work, _blocks(len(tokens)), threads)
        return out

    def decode(self, codes: NDArray[np.uint8], threads: int | None = None) -> NDArray[np.float32]:
        """Return the tokens that codes stand for, float32 (n, dimension)."""
        out = np.empty((len(codes), self.dimension), np.float32)

        def work(start: int, stop: int) -> None:
            self._decode(np.ascontiguousarray(codes[start:stop]), out[start:stop])

        run_in_ranges(work, _blocks(len(codes)), threads)
        return out

    def require_codes(self, codes: NDArray[Any], name: str) -> None:
        """Raise ValueError unless these can be this codec's codes; `name` says where they are from."""
        if codes.dtype != np.uint8 or codes.ndim != 2 or codes.shape[1] != self.bytes_per_token:
            raise ValueError(
                f"{name} holds {codes.dtype} of shape {codes.shape}, but codes of {self.name} at "
                f"dimension={self.dimension} are uint8 with {self.bytes_per_token} columns."
            )


def _blocks(count: int) -> list[tuple[int, int]]:
    return [(start, min(start + _BLOCK, count)) for start in range(0, count, _BLOCK)]


class CodedVectors:
    """Texts as codes: text i is ``tokens[offsets[i] : offsets[i + 1]]``, decoded by `codec`.

    Parameters
    ----------
    codec : TokenCodec
    tokens : uint8 (n_tokens, bytes_per_token)
        The code of every token.
    offsets : int64 (n + 1,)

    Raises
    ------
    ValueError
        For codes of another codec, or offsets that do not fit them.
    """

    __slots__ = ("codec", "offsets", "tokens")

    def __init__(self, codec: TokenCodec, tokens: NDArray[np.uint8], offsets: ArrayLike) -> None:
        codec.require_codes(tokens, "The array of codes")
        self.codec, self.tokens = codec, tokens
        self.offsets: NDArray[np.int64] = as_offsets(offsets, len(tokens))

    @classmethod
    def from_lengths(cls, codec: TokenCodec, tokens: NDArray[np.uint8], lengths: ArrayLike) -> CodedVectors:
        """Take flat codes with the number of tokens of each text."""
        return cls(codec, tokens, offsets_from_lengths(lengths, len(tokens)))

    @classmethod
    def of(cls, codec: TokenCodec, texts: MultiVectors, threads: int | None = None) -> CodedVectors:
        """Return the codes of texts."""
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
        """Columns of the array that is kept: bytes of a code."""
        return self.codec.bytes_per_token

    def __getitem__(self, key: slice | NDArray[np.int64]) -> CodedVectors:
        """Return the texts of a slice or at positions."""
        positions = np.arange(len(self))[key]
        lengths = self.lengths[positions]
        offsets = running_total(lengths)
        rows = np.repeat(self.offsets[positions] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return CodedVectors(self.codec, np.ascontiguousarray(self.tokens[rows]), offsets)

    def decoded(self, threads: int | None = None) -> MultiVectors:
        """Return the tokens that the codes stand for."""
        return MultiVectors.from_flat(self.codec.decode(self.tokens, threads), offsets=self.offsets)


def factor_bytes(factors: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Return non-negative factors as float16, little-endian bytes (n, 2); what is too large becomes 65504."""
    rounded = np.minimum(factors, 65504).astype("<f2")
    pairs: NDArray[np.uint8] = rounded.view(np.uint8).reshape(-1, 2)
    return pairs
