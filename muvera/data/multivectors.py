"""MultiVectors: sets of token vectors, the one currency of the library."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..kernels.finite_check import first_not_finite
from ..utils.atomic_files import atomic_folder, write_json
from .validation import Ids, TokenArray, as_array, as_ids, as_integers, as_offsets, as_tokens, read_only_view

__all__ = ["MULTIVECTORS_FILES", "MultiVectors", "as_kernel_arrays", "as_multivectors"]

#: What a folder of MultiVectors holds.
MULTIVECTORS_FILES = ("tokens.npy", "lengths.npy", "ids.json")

# Bits and exponent mask of a float of so many bytes.
_EXPONENT = {2: (np.uint16, 0x7C00), 4: (np.uint32, 0x7F800000)}


def as_kernel_arrays(texts: MultiVectors) -> tuple[NDArray[np.float32], NDArray[np.uint16]]:
    """Return the tokens as kernels take them: (float32, float16 bits), one of them empty."""
    tokens = read_only_view(texts.tokens)
    if tokens.dtype == np.float16:
        return read_only_view(np.empty((0, texts.dimension), np.float32)), tokens.view(np.uint16)
    return tokens, read_only_view(np.empty((0, texts.dimension), np.uint16))


class MultiVectors:
    """A sequence of texts (or images), each a set of token vectors.

    Stored flat: text i is ``tokens[offsets[i] : offsets[i + 1]]``.  Texts without any token
    are legal: they keep their place and are never returned by a search.

    Treat the arrays as immutable: slices share memory with them, and checks are remembered.

    Parameters
    ----------
    tokens : float32 or float16 (n_tokens, dim)
        All token vectors, one text after the other.  A memory map stays one.
    offsets : int64 (n + 1,)
        Where each text begins; the last entry is n_tokens.
    ids : sequence of int or of str, optional
        External names, unique.  Default: the positions 0..n-1.

    Examples
    --------
    >>> import numpy as np
    >>> docs = MultiVectors.from_arrays([np.eye(3, 4), np.ones((2, 4))], ids=["a", "b"])
    >>> docs
    MultiVectors(2 texts, 5 tokens, dimension=4, float32)
    >>> docs[1].shape
    (2, 4)
    >>> docs[1:].ids
    array(['b'], dtype='<U1')
    """

    __slots__ = ("_finite", "_ids", "_longest", "offsets", "tokens")

    tokens: TokenArray
    offsets: NDArray[np.int64]

    def __init__(self, tokens: TokenArray, offsets: ArrayLike, ids: Any = None) -> None:
        self.tokens = as_tokens(tokens, "tokens")
        if self.tokens.ndim != 2 or self.tokens.shape[1] == 0:
            raise ValueError(
                f"tokens must have shape (n_tokens, dim) with dim at least 1, got {self.tokens.shape}."
            )
        self.offsets = as_offsets(offsets, len(self.tokens))
        self._ids = None if ids is None else as_ids(ids, len(self))
        self._finite = False
        self._longest: NDArray[np.float32] | None = None

    # -- making ---------------------------------------------------------------

    @classmethod
    def from_arrays(
        cls,
        arrays: Iterable[Any],
        ids: Any = None,
        *,
        dimension: int | None = None,
        dtype: Any = None,
        name: str = "documents",
    ) -> MultiVectors:
        """Join one (tokens, dim) array a text; tensors on any device are taken.

        Parameters
        ----------
        arrays : iterable of array_like (t_i, dim)
            ``t_i`` may be 0.  An iterable is consumed.
        ids : sequence of int or of str, optional
            Default: positions.
        dimension : int, optional
            Needed only where no text has a token, nor the shape (0, dim).
        dtype : float32 or float16, optional
            Default: float16 where all texts are, else float32.
        name : str
            What errors call the texts.
        """
        rows: list[TokenArray | None] = []
        empty_dim = None
        for i, value in enumerate(arrays):
            array = as_tokens(value, f"{name}[{i}]")
            if array.size == 0 and array.ndim <= 2:
                if array.ndim == 2 and array.shape[1]:
                    empty_dim = array.shape[1]
                rows.append(None)
                continue
            if array.ndim != 2:
                raise ValueError(
                    f"{name}[{i}] has shape {array.shape}; each must have shape (tokens, dim). "
                    "Use from_padded for a padded batch."
                )
            dimension = array.shape[1] if dimension is None else dimension
            if array.shape[1] != dimension:
                raise ValueError(
                    f"{name}[{i}] has {array.shape[1]} columns, but those before have {dimension}."
                )
            rows.append(array)
        dimension = empty_dim if dimension is None else dimension
        if dimension is None:
            raise ValueError("There is no text with a token to take the dimension from. Give dimension=.")
        if dtype is None:
            halves = [row.dtype == np.float16 for row in rows if row is not None]
            dtype = np.float16 if halves and all(halves) else np.float32
        lengths = np.array([0 if row is None else len(row) for row in rows], np.int64)
        tokens = np.empty((int(lengths.sum()), dimension), dtype)
        position = 0
        for row in rows:
            if row is not None:
                tokens[position : position + len(row)] = row
                position += len(row)
        return cls.from_flat(tokens, lengths, ids=ids)

    @classmethod
    def from_flat(
        cls,
        tokens: Any,
        lengths: ArrayLike | None = None,
        *,
        offsets: ArrayLike | None = None,
        ids: Any = None,
    ) -> MultiVectors:
        """Take flat tokens with either the texts' `lengths` or their `offsets`.

        Parameters
        ----------
        tokens : (n_tokens, dim)
            A float32 or float16 memory map stays one; other floats become float32.
        lengths : integers (n,)
            Tokens of each text.
        offsets : integers (n + 1,)
            Where each text begins, and n_tokens.
        """
        if (lengths is None) == (offsets is None):
            raise TypeError("Give either lengths or offsets.")
        if lengths is not None:
            counts = as_integers(lengths, "lengths")
            if len(counts) and counts.min() < 0:
                i = int(np.argmax(counts < 0))
                raise ValueError(f"lengths[{i}] is {counts[i]}; a length must not be negative.")
            total, rows = int(counts.sum()), len(tokens)
            if total != rows:
                raise ValueError(f"lengths add up to {total}, but there are {rows} token vectors.")
            offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        assert offsets is not None  # for the type checker: one of the two was given
        return cls(tokens, offsets, ids)

    @classmethod
    def from_padded(cls, array: Any, mask: Any = None, ids: Any = None) -> MultiVectors:
        """Take a padded batch: rows where `mask` is true, in order.

        Parameters
        ----------
        array : (n, longest, dim)
            Padded token vectors.
        mask : (n, longest), optional
            True (or non-zero) for real tokens.  Without it the rows that are entirely zero,
            wherever they stand, are the padding.
        """
        padded = as_tokens(array, "array")
        if padded.ndim != 3:
            raise ValueError(f"array must have shape (n, longest, dim), got {padded.shape}.")
        if mask is None:
            keep = padded.any(axis=2)
        else:
            keep = as_array(mask).astype(bool)
            if keep.shape != padded.shape[:2]:
                raise ValueError(f"mask has shape {keep.shape}, but array asks for {padded.shape[:2]}.")
        return cls.from_flat(padded[keep], keep.sum(axis=1), ids=ids)

    @classmethod
    def concatenate(cls, parts: Sequence[MultiVectors]) -> MultiVectors:
        """Join collections; ids must stay unique, and positions count on where none were given."""
        if not parts:
            raise ValueError("There is nothing to concatenate.")
        dimension = parts[0].dimension
        for i, part in enumerate(parts):
            if part.dimension != dimension:
                raise ValueError(
                    f"parts[{i}] has dimension={part.dimension}, but parts[0] has dimension={dimension}."
                )
        dtype = np.result_type(*(part.tokens.dtype for part in parts))
        lengths = np.concatenate([part.lengths for part in parts])
        tokens = np.concatenate([part.tokens for part in parts]).astype(dtype, copy=False)
        ids = None
        if any(part.has_ids for part in parts):
            kinds = {part.ids.dtype.kind for part in parts}
            if len(kinds) > 1:
                raise TypeError("Collections with int ids and with str ids cannot be joined.")
            ids = np.concatenate([part.ids for part in parts])
        return cls.from_flat(tokens, lengths, ids=ids)

    # -- looking --------------------------------------------------------------

    @property
    def dimension(self) -> int:
        """Width of a token vector."""
        return int(self.tokens.shape[1])

    @property
    def num_tokens(self) -> int:
        """Token vectors of all texts together."""
        return int(self.tokens.shape[0])

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each text, int64 (n,)."""
        return np.diff(self.offsets)

    @property
    def has_ids(self) -> bool:
        """Whether ids were given; else they are the positions."""
        return self._ids is not None

    @property
    def ids(self) -> Ids:
        """External ids, int64 or str (n,)."""
        return np.arange(len(self)) if self._ids is None else self._ids

    @property
    def longest_tokens(self) -> NDArray[np.float32]:
        """Norm of each text's longest token where a rerank has measured it, else -1, float32 (n,)."""
        if self._longest is None:
            self._longest = np.full(len(self), -1, np.float32)
        return self._longest

    def with_ids(self, ids: Any) -> MultiVectors:
        """Return the same texts under other ids."""
        return self._view(self.tokens, self.offsets, as_ids(ids, len(self)))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __iter__(self) -> Iterator[TokenArray]:
        for i in range(len(self)):
            yield self.tokens[self.offsets[i] : self.offsets[i + 1]]

    @overload
    def __getitem__(self, key: int) -> TokenArray: ...

    @overload
    def __getitem__(self, key: slice | NDArray[Any] | list[int]) -> MultiVectors: ...

    def __getitem__(self, key: Any) -> TokenArray | MultiVectors:
        """Return one text's tokens (int) or a collection (slice, positions or boolean mask).

        Consecutive texts share memory with this collection; others are copied.  The ids go
        along, also where they are the positions.
        """
        if isinstance(key, (int, np.integer)):
            i = range(len(self))[int(key)]  # raises IndexError, and counts from the end
            return self.tokens[self.offsets[i] : self.offsets[i + 1]]
        positions = np.arange(len(self))[key]
        ids = self.ids[positions]
        count = len(positions)
        if count == 0 or (positions[-1] - positions[0] == count - 1 and (np.diff(positions) == 1).all()):
            first = int(positions[0]) if count else 0
            bounds = self.offsets[first : first + count + 1]
            return self._view(self.tokens[bounds[0] : bounds[-1]], bounds - bounds[0], ids)
        lengths = self.lengths[positions]
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        rows = np.repeat(self.offsets[positions] - offsets[:-1], lengths) + np.arange(offsets[-1])
        if len(np.unique(positions)) != count:
            raise ValueError("A text was picked twice, but ids must be unique.")
        return self._view(self.tokens[rows], offsets, ids)

    def _view(self, tokens: TokenArray, offsets: NDArray[np.int64], ids: Ids) -> MultiVectors:
        part = object.__new__(MultiVectors)
        part.tokens, part.offsets, part._ids, part._finite = tokens, offsets, ids, self._finite
        part._longest = None
        return part

    def __repr__(self) -> str:
        size = f"{len(self)} texts, {self.num_tokens} tokens, dimension={self.dimension}"
        return f"MultiVectors({size}, {self.tokens.dtype})"

    # -- checking -------------------------------------------------------------

    def require_finite(self, name: str = "documents") -> None:
        """Raise ValueError for the first NaN or infinity, naming its text; remembered."""
        if self._finite:
            return
        unsigned, exponent = _EXPONENT[self.tokens.dtype.itemsize]
        bits = read_only_view(self.tokens).reshape(-1).view(unsigned)
        where = first_not_finite(bits, unsigned(exponent))
        if where >= 0:
            row, column = divmod(int(where), self.dimension)
            text = int(np.searchsorted(self.offsets, row, side="right")) - 1
            raise ValueError(
                f"{name}[{text}] (id {self.ids[text].item()!r}) has {self.tokens[row, column]} in its token "
                f"{row - int(self.offsets[text])}, coordinate {column}: every number must be finite. "
                "Drop or repair that text."
            )
        self._finite = True

    def require_dimension(self, dimension: int, name: str, owner: str) -> None:
        """Raise ValueError unless tokens have `dimension` columns; `owner` says who asks."""
        if self.dimension != dimension:
            raise ValueError(f"{name} has {self.dimension} columns, but {owner} has dimension={dimension}.")

    # -- keeping --------------------------------------------------------------

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write ``tokens.npy``, ``lengths.npy`` and, where ids were given, ``ids.json``.

        The folder appears under its name only when it is complete.
        """
        with atomic_folder(folder, overwrite, own=MULTIVECTORS_FILES) as beside:
            np.save(beside / "tokens.npy", self.tokens)
            np.save(beside / "lengths.npy", self.lengths)
            if self._ids is not None:
                write_json(beside / "ids.json", self._ids.tolist())

    @classmethod
    def load(cls, folder: str | os.PathLike[str], *, mmap: bool = True) -> MultiVectors:
        """Read what :meth:`save` wrote; tokens stay on the disk where `mmap`."""
        path = Path(folder)
        for name in ("tokens.npy", "lengths.npy"):
            if not (path / name).is_file():
                raise FileNotFoundError(
                    f"{path} has no {name}; a MultiVectors folder has tokens.npy and lengths.npy."
                )
        try:
            tokens = np.load(path / "tokens.npy", mmap_mode="r" if mmap else None, allow_pickle=False)
            lengths = np.load(path / "lengths.npy", allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise ValueError(f"{path} is damaged: {error}.") from error
        ids = None
        if (path / "ids.json").is_file():
            ids = json.loads((path / "ids.json").read_text(encoding="utf-8"))
        return cls.from_flat(tokens, lengths, ids=ids)


def as_multivectors(value: Any, name: str = "documents") -> MultiVectors:
    """Return `value` as MultiVectors.

    Parameters
    ----------
    value : MultiVectors, array_like (tokens, dim), or sequence of those
        One 2-D array is one text.  A 3-D array is a batch without padding: use
        :meth:`MultiVectors.from_padded` where there is some.
    """
    if isinstance(value, MultiVectors):
        return value
    if hasattr(value, "ndim"):
        array = as_array(value)
        if array.ndim == 2:
            return MultiVectors.from_arrays([array], name=name)
        if array.ndim != 3:
            raise ValueError(
                f"{name} has shape {array.shape}; expected (tokens, dim) for one text, (n, tokens, dim) for "
                "several, a list of arrays or MultiVectors."
            )
        return MultiVectors.from_arrays(list(array), name=name)
    if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__"):
        raise TypeError(
            f"{name} must be MultiVectors or arrays of token vectors, got {type(value).__name__}."
        )
    return MultiVectors.from_arrays(value, name=name)
