"""MultiVectors: a collection of texts, each a set of token vectors."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..utils.atomic_files import atomic_folder, read_json, save_array, write_json
from ..utils.npy_files import load_npy
from ..utils.sibling_folders import recover_folder
from .layouts import arrow_lists, from_arrow_lists, join_arrays, padded_rows
from .offsets import as_offsets, offsets_from_lengths, running_total
from .validation import Ids, TokenArray, as_ids, as_tokens, first_unusable, read_only_view

__all__ = ["MULTIVECTORS_FILES", "MultiVectors", "as_kernel_arrays"]

#: What a folder of MultiVectors holds.
MULTIVECTORS_FILES = ("tokens.npy", "lengths.npy", "ids.json")


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
    tokens : float32 or float16 (n_tokens, dimension)
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
                f"tokens must have shape (n_tokens, dimension) with a dimension of at least 1, got {self.tokens.shape}."
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
        """Join one (tokens, dimension) array a text; tensors on any device are taken.

        Parameters
        ----------
        arrays : iterable of array_like (t_i, dimension)
            ``t_i`` may be 0.  An iterable is consumed.
        ids : sequence of int or of str, optional
            Default: positions.
        dimension : int, optional
            Needed only where no text has a token, nor the shape (0, dimension).
        dtype : float32 or float16, optional
            Default: float16 where all texts are, else float32.
        name : str
            What errors call the texts.

        Raises
        ------
        TypeError, ValueError
            For arrays of other shapes, of different widths or of integers, and where no text has a
            token to take the dimension from.
        """
        tokens, lengths = join_arrays(arrays, dimension, dtype, name)
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
        tokens : (n_tokens, dimension)
            A float32 or float16 memory map stays one; other floats become float32.
        lengths : integers (n,)
            Tokens of each text.
        offsets : integers (n + 1,)
            Where each text begins, and n_tokens.

        Raises
        ------
        TypeError, ValueError
            Where both or neither are given, or they do not fit the tokens.
        """
        if (lengths is None) == (offsets is None):
            raise TypeError("Give either lengths or offsets.")
        if lengths is not None:
            offsets = offsets_from_lengths(lengths, len(tokens))
        assert offsets is not None  # for the type checker: one of the two was given
        return cls(tokens, offsets, ids)

    @classmethod
    def from_padded(cls, array: Any, mask: Any = None, ids: Any = None) -> MultiVectors:
        """Take a padded batch: rows where `mask` is true, in order.

        Parameters
        ----------
        array : (n, longest, dimension)
            Padded token vectors.
        mask : (n, longest), optional
            True (or non-zero) for real tokens.  Without it the rows that are entirely zero,
            wherever they stand, are the padding.
        ids : sequence of int or of str, optional
            Default: positions.

        Raises
        ------
        TypeError, ValueError
            For arrays of other shapes or of integers, and a mask that does not fit.
        """
        return cls.from_flat(*padded_rows(array, mask), ids=ids)

    @classmethod
    def from_arrow(cls, array: Any, ids: Any = None) -> MultiVectors:
        """Take an Arrow array or chunked array of lists of fixed-size lists of floats, a list a text.

        Needs ``muvera-toolkit[parquet]``.

        Parameters
        ----------
        array : pyarrow.Array or pyarrow.ChunkedArray
            Such as a column of a table; single and half precision are not copied.
        ids : sequence of int or of str, optional
            Default: positions.

        Raises
        ------
        TypeError, ValueError
            For an array of another type, with nulls, or with vectors of different widths.
        ImportError
            Where pyarrow is missing.
        """
        return cls.from_flat(*from_arrow_lists(array), ids=ids)

    @classmethod
    def concatenate(cls, parts: Sequence[MultiVectors]) -> MultiVectors:
        """Join collections; ids must stay unique, and positions count on where none were given.

        Raises
        ------
        TypeError, ValueError
            For no collections, different dimensions, and ids of two kinds or twice the same.
        """
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
            kinds = {"int" if part.ids.dtype.kind == "i" else "str" for part in parts}
            if len(kinds) > 1:
                raise TypeError("Collections with int ids and with str ids cannot be joined.")
            ids = [name for part in parts for name in part.ids.tolist()]
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
        """Whether ids were given; where not, they are the positions."""
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
        offsets = running_total(lengths)
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

    def require_finite(self, name: str = "documents", first: int = 0, place: str | None = None) -> None:
        """Check once that every number is finite and below 1e12 in size; the result is remembered.

        Parameters
        ----------
        name : str
            What the message calls the texts.
        first : int
            How many texts came before these, in the place that they are from.
        place : str, optional
            The file that they are from.

        Raises
        ------
        ValueError
            Naming the text, the token and the coordinate of the first NaN, infinity, or number so
            large that products with it overflow float32 and rank at random.
        """
        if self._finite:
            return
        found = first_unusable(self.tokens)
        if found is None:
            self._finite = True
            return
        row, column, bound = found
        text, token = self.text_of(row)
        called = self.text_name(text, name, first, place)
        raise ValueError(
            f"{called} has {self.tokens[row, column]!s} in its token {token}, coordinate {column}: every number "
            f"must be {bound}. Drop or repair that text."
        )

    def text_of(self, row: int) -> tuple[int, int]:
        """Return the text that this row of the tokens belongs to, and which of its tokens it is."""
        text = int(np.searchsorted(self.offsets, row, side="right")) - 1
        return text, row - int(self.offsets[text])

    def text_name(self, text: int, name: str = "documents", first: int = 0, place: str | None = None) -> str:
        """Return what messages call a text; parameters as of :meth:`require_finite`."""
        called = f"{name}[{first + text}]" if place is None else f"{place}: document {first + text}"
        if not self.has_ids and (first or place is not None):
            return called  # what stands for ids here counts from the batch's beginning
        return f"{called} (id {self.ids[text : text + 1].tolist()[0]!r})"

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
            save_array(beside / "tokens.npy", self.tokens)
            save_array(beside / "lengths.npy", self.lengths)
            if self._ids is not None:
                write_json(beside / "ids.json", self._ids.tolist())

    def to_arrow(self) -> Any:
        """Return the token vectors as a pyarrow.Array of lists of fixed-size lists, without a copy.

        Needs ``muvera-toolkit[parquet]``.

        Raises
        ------
        ImportError
            Where pyarrow is missing.
        """
        return arrow_lists(self.tokens, self.offsets)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], *, mmap: bool = True) -> MultiVectors:
        """Read what :meth:`save` wrote; tokens stay on the disk where `mmap`.

        Raises
        ------
        FileNotFoundError
            Where a file is missing.
        ValueError
            Where one is damaged, or does not fit the others.
        """
        path = Path(folder)
        recover_folder(path)
        for name in ("tokens.npy", "lengths.npy"):
            if not (path / name).is_file():
                raise FileNotFoundError(
                    f"{path} has no {name}; a MultiVectors folder has tokens.npy and lengths.npy."
                )
        tokens = load_npy(path / "tokens.npy", mmap=mmap)
        lengths = load_npy(path / "lengths.npy", mmap=False)
        ids = read_json(path / "ids.json") if (path / "ids.json").is_file() else None
        return cls.from_flat(tokens, lengths, ids=ids)
