"""TableCodec: tokens that are rows of one table, stored as row numbers."""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..data.validation import TokenArray, first_unusable, read_only_view
from ..kernels.byte_tile import MAX_DEPTH, STEP
from ..kernels.token_codes import CodeFormat, QueryRounding
from ..kernels.token_table import ZERO
from ..utils.checks import given
from .codecs import TokenCodec

# Tables of at most this many rows need two bytes per token.
_SHORT = 1 << 16

# An entry of a rounded row is at most this many steps above or below ZERO.
_STEPS = 127


class RoundedTable(NamedTuple):
    """A table in bytes: row i is about ``units[i] * (numbers[i] - ZERO)``."""

    numbers: NDArray[np.uint8]  #: Flat, rows of whole STEPs of bytes.
    units: NDArray[np.float32]


class _Table:
    """The rows of a table, and what is made of them at the first use.

    A cached_property has a lock before Python 3.12, which a fork could leave held.
    """

    def __init__(self, rows: NDArray[np.float32]) -> None:
        self.rows = rows
        self._longest: float | None = None
        self._rounded: RoundedTable | None = None
        self._order: tuple[NDArray[np.void], NDArray[np.int64]] | None = None

    @property
    def longest(self) -> float:
        if self._longest is None:
            self._longest = float(np.sqrt(np.einsum("ij,ij->i", self.rows, self.rows).max()))
        return self._longest

    @property
    def rounded(self) -> RoundedTable:
        if self._rounded is None:
            count, dimension = self.rows.shape
            peaks = np.abs(self.rows).max(axis=1)
            units = np.where(peaks > 0, peaks / np.float32(_STEPS), 1).astype(np.float32)
            numbers = np.full((count, -(-dimension // STEP) * STEP), ZERO, np.uint8)
            for start in range(0, count, _SHORT // 16):  # blocks that stay in the cache
                block = slice(start, start + _SHORT // 16)
                numbers[block, :dimension] = np.rint(self.rows[block] / units[block, np.newaxis]) + ZERO
            self._rounded = RoundedTable(read_only_view(numbers).reshape(-1), read_only_view(units))
        return self._rounded

    @property
    def order(self) -> tuple[NDArray[np.void], NDArray[np.int64]]:
        """The rows as keys in ascending order, and their numbers."""
        if self._order is None:
            keys = _as_keys(self.rows)
            order = np.argsort(keys, kind="stable")
            self._order = keys[order], order
        return self._order


class TableCodec(TokenCodec):
    """Codec of tokens that are rows of a table: a code is a row's number.

    Nothing is rounded.  The table is not part of an index; it belongs to a text
    encoder.  A codec without its table, from a saved index, can only store codes.

    Parameters
    ----------
    checksum : uint8 (32,)
        SHA-256 of the table.
    shape : int64 (2,)
        Number of rows, and dimension.
    table : float32 (rows, dimension), optional
        Its rows, valid, contiguous and read-only.

    Raises
    ------
    ValueError
        For arrays of another shape.
    """

    kind = "table"
    names = ("checksum", "shape")

    def __init__(
        self,
        checksum: NDArray[np.uint8],
        shape: NDArray[np.int64],
        table: NDArray[np.float32] | None = None,
    ) -> None:
        valid = checksum.dtype == np.uint8 and checksum.shape == (32,) and shape.shape == (2,)
        if not valid or shape.dtype.kind != "i" or not shape.min() > 0 or shape.max() >= 1 << 32:
            raise ValueError("The codec's checksum must be 32 bytes, and its shape two positive integers.")
        self.num_rows, dimension = shape.tolist()
        #: None until :meth:`attach` for a codec without its table.
        self.attached = None if table is None else _Table(table)
        no_bytes, no_floats = (read_only_view(np.empty(0, kind)) for kind in (np.uint8, np.float32))
        ones = read_only_view(np.ones(dimension, np.float32))
        width = 2 if self.num_rows <= _SHORT else 4
        super().__init__(
            "table",
            {"checksum": checksum, "shape": shape},
            CodeFormat(width, 0, 0, np.float32(1), no_floats, no_floats, ones, no_bytes, no_bytes),
            QueryRounding(ones, read_only_view(np.zeros(dimension, np.float32)), False, float(ZERO)),
        )

    @classmethod
    def of_arrays(cls, arrays: dict[str, NDArray[Any]]) -> TableCodec:
        """Return the codec of the arrays "checksum" and "shape", without its table."""
        return cls(arrays["checksum"], arrays["shape"])

    @classmethod
    def of_table(cls, table: NDArray[np.float32]) -> TableCodec:
        """Return the codec of a table, float32 (rows, dimension).

        Raise ValueError unless it has at least one row and only finite numbers.
        """
        if (
            not isinstance(table, np.ndarray)
            or table.dtype != np.float32
            or table.ndim != 2
            or not table.size
        ):
            raise ValueError(f"A table of token vectors must be float32 (rows, columns), got {given(table)}.")
        if table.shape[1] > MAX_DEPTH:
            raise ValueError(f"A table has at most {MAX_DEPTH:,} columns, got {table.shape[1]:,}.")
        unusable = first_unusable(table)
        if unusable is not None:
            row, column, bound = unusable
            raise ValueError(
                f"Row {row} of the table has {table[row, column]!s} in column {column}: every number must be "
                f"{bound}."
            )
        rows = read_only_view(np.ascontiguousarray(table))
        return cls(_checksum(table), np.array(table.shape, np.int64), rows)

    @property
    def table(self) -> NDArray[np.float32]:
        """The table, float32 (rows, dimension).

        Raises
        ------
        ValueError
            If the codec is without its table.
        """
        return self._made.rows

    @property
    def _made(self) -> _Table:
        if self.attached is None:
            raise ValueError(
                "The tokens are stored as rows of a text encoder's table, which is not part of the index. "
                "Load the index with TextIndex.load."
            )
        return self.attached

    def attach(self, other: TableCodec) -> None:
        """Use the table of another codec.

        Raises
        ------
        ValueError
            For another table.
        """
        if not np.array_equal(self.arrays["checksum"], other.arrays["checksum"]):
            raise ValueError(
                f"The index stores tokens as rows of a table with the checksum {_shown(self)}, but the text "
                f"encoder's table has the checksum {_shown(other)}. Load it with the encoder that built it, "
                "or build the index again."
            )
        self.attached = other.attached

    @property
    def longest(self) -> float:
        """The largest length of a row."""
        return self._made.longest

    @property
    def rounded(self) -> RoundedTable:
        """The table in bytes, made at the first use."""
        return self._made.rounded

    def numbers(self, codes: NDArray[np.uint8]) -> NDArray[np.unsignedinteger]:
        """Return codes as row numbers, uint16 or uint32 (n,), without a copy."""
        dtype = "<u2" if self.bytes_per_token == 2 else "<u4"
        return read_only_view(np.ascontiguousarray(codes)).reshape(-1).view(dtype)

    def codes(self, numbers: NDArray[np.integer]) -> NDArray[np.uint8]:
        """Return the codes of row numbers, int (n,).

        Raise ValueError for a number beyond the table.
        """
        self.require_rows(numbers)
        dtype = "<u2" if self.bytes_per_token == 2 else "<u4"
        return np.ascontiguousarray(numbers, dtype).view(np.uint8).reshape(-1, self.bytes_per_token)

    def require_rows(self, numbers: NDArray[np.integer]) -> None:
        """Raise ValueError for a number beyond the table."""
        if len(numbers) and not (numbers.min() >= 0 and numbers.max() < self.num_rows):
            wrong = numbers[(numbers < 0) | (numbers >= self.num_rows)][0]
            raise ValueError(
                f"A token is row {wrong} of a table with only {self.num_rows:,} rows. The file of tokens or "
                "the text encoder is damaged."
            )

    def decode(self, codes: NDArray[np.uint8], threads: int | None = None) -> NDArray[np.float32]:
        """Return the rows of the table for codes, uint8 (n, bytes_per_token)."""
        numbers = self.numbers(codes)
        self.require_rows(numbers)
        rows: NDArray[np.float32] = self.table[numbers]
        return rows

    def encode(self, tokens: TokenArray, threads: int | None = None) -> NDArray[np.uint8]:
        """Return the codes of tokens, float32 or float16 (n, dimension).

        Raise ValueError for a token that is not a row of the table.
        """
        keys, order = self._made.order
        wanted = _as_keys(np.asarray(tokens, np.float32))
        places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        found = keys[places] == wanted
        if not found.all():
            raise ValueError(
                f"Token {int(np.argmin(found))} is not a row of the table of the index's text encoder. Add "
                "texts, or build an index of token vectors."
            )
        return self.codes(order[places])

    def _encode(self, tokens: NDArray[np.float32], out: NDArray[np.uint8]) -> None:
        out[:] = self.encode(tokens)


def _as_keys(rows: NDArray[np.float32]) -> NDArray[np.void]:
    """Return each row as one value that can be compared, where -0 is 0."""
    rows = np.ascontiguousarray(rows + np.float32(0))
    return rows.view(np.dtype((np.void, rows.itemsize * rows.shape[1]))).reshape(-1)


def _checksum(table: NDArray[np.float32]) -> NDArray[np.uint8]:
    digest = hashlib.sha256(np.ascontiguousarray(table, "<f4").data)
    return np.frombuffer(digest.digest(), np.uint8)


def _shown(codec: TableCodec) -> str:
    return codec.arrays["checksum"].tobytes().hex()[:12]
