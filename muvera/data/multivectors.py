"""MultiVectors: a collection of texts, each a set of token vectors."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from ..utils.arrays import load_npy, save_array
from ..utils.atomic_files import atomic_folder, read_json, recover_folder, write_json
from ..utils.checks import counted, given, import_extra
from .validation import (
    READY,
    AnyArray,
    Ids,
    IdsLike,
    TokenArray,
    as_array,
    as_ids,
    as_offsets,
    as_tokens,
    first_unusable,
    offsets_from_lengths,
    read_only_view,
    repeats_before,
    rows_of_texts,
    running_total,
)

if TYPE_CHECKING:
    import pyarrow as pa

#: Files of a saved MultiVectors folder.
MULTIVECTORS_FILES = ("tokens.npy", "lengths.npy", "ids.json")


class MultiVectors:
    """A sequence of texts (or images), each a set of token vectors.

    Texts are stored one after another: text i is ``tokens[offsets[i] : offsets[i +
    1]]``.  Texts without tokens are allowed: they keep their position and are never
    returned by a search.

    Texts that follow each other may have the same id.  They are the parts of one
    document, such as passages of a long text.  A search finds a document by its best
    part.

    Treat the arrays as immutable: slices share memory with them.  Numbers are checked
    when texts are indexed, encoded or scored: a NaN or an infinity raises ValueError
    then.

    Parameters
    ----------
    tokens : float32 or float16 (n_tokens, dimension)
        All token vectors, one text after another.  A memory map is not read.
    offsets : int64 (n + 1,)
        First row of each text, then n_tokens.
    ids : sequence of int or of str, optional
        External ids; equal ones must follow each other.  Default: the positions 0..n-1.

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

    __slots__ = ("_finite", "_has_parts", "_ids", "_longest", "offsets", "tokens")

    tokens: TokenArray
    offsets: NDArray[np.int64]

    def __init__(self, tokens: TokenArray, offsets: ArrayLike, ids: IdsLike | None = None) -> None:
        rows = as_tokens(tokens, "tokens")
        if rows.ndim != 2 or rows.shape[1] == 0:
            raise ValueError(
                "tokens must have shape (n_tokens, dimension) with a dimension of at least 1, got "
                f"{rows.shape}."
            )
        bounds = as_offsets(offsets, len(rows))
        self._set(rows, bounds, None if ids is None else as_ids(ids, len(bounds) - 1, parts=True), False)

    def _set(self, tokens: TokenArray, offsets: NDArray[np.int64], ids: Ids | None, finite: bool) -> None:
        """Set valid arrays; with `finite`, the numbers were checked."""
        self.tokens = tokens
        self.offsets = offsets
        self._ids = ids
        self._finite = finite
        self._longest: NDArray[np.float32] | None = None
        self._has_parts: bool | None = None if ids is not None else False

    @classmethod
    def from_arrays(
        cls,
        arrays: Iterable[AnyArray],
        ids: IdsLike | None = None,
        *,
        dimension: int | None = None,
        dtype: DTypeLike | None = None,
        name: str = "documents",
    ) -> MultiVectors:
        """Join one array (tokens, dimension) per text.

        Tensors on any device are accepted.

        Parameters
        ----------
        arrays : iterable of array_like (t_i, dimension)
            Tokens of each text; ``t_i`` may be 0.
        ids : sequence of int or of str, optional
            External ids, as for the class.  Default: the positions.
        dimension : int, optional
            Needed only if no text has a token or has the shape (0, dimension).
        dtype : float32 or float16, optional
            Default: float16 if all texts are, else float32.
        name : str
            Name of the texts in error messages.

        Returns
        -------
        MultiVectors

        Raises
        ------
        TypeError, ValueError
            If a text is not a matrix of floats, the numbers of columns differ, or the
            dimension is unknown.
        """
        tokens, lengths = _joined(arrays, dimension, dtype, name)
        names = None if ids is None else as_ids(ids, len(lengths), parts=True)
        return _unchecked(tokens, running_total(lengths), names)

    @classmethod
    def from_flat(cls, tokens: AnyArray, lengths: ArrayLike, *, ids: IdsLike | None = None) -> MultiVectors:
        """Make texts from flat tokens and the number of tokens of each text.

        Parameters
        ----------
        tokens : array_like (n_tokens, dimension)
            A float32 or float16 memory map is not read; other floats become float32.
        lengths : array_like of int (n,)
            Number of tokens of each text, at least 0.
        ids : sequence of int or of str, optional
            External ids, as for the class.  Default: the positions.

        Returns
        -------
        MultiVectors

        Raises
        ------
        TypeError, ValueError
            If `tokens` is not a matrix of floats, or the lengths do not add up to its
            rows.
        """
        rows = as_tokens(tokens, "tokens")
        return cls(rows, offsets_from_lengths(lengths, len(rows)), ids)

    @classmethod
    def from_padded(
        cls, array: AnyArray, mask: AnyArray | None = None, ids: IdsLike | None = None
    ) -> MultiVectors:
        """Make texts from a padded batch: the rows whose `mask` is true, in order.

        Parameters
        ----------
        array : array_like (n, longest, dimension)
            Tokens of each text, and rows of padding anywhere among them.
        mask : array_like (n, longest), optional
            True (or non-zero) for real tokens.  Default: rows that are all zero are
            padding.
        ids : sequence of int or of str, optional
            External ids, as for the class.  Default: the positions.

        Returns
        -------
        MultiVectors

        Raises
        ------
        TypeError, ValueError
            If `array` has another number of axes, or `mask` another shape.
        """
        padded = as_tokens(array, "array")
        if padded.ndim != 3:
            raise ValueError(f"array must have shape (n, longest, dimension), got {padded.shape}.")
        keep = padded.any(axis=2) if mask is None else as_array(mask, "mask").astype(bool)
        if keep.shape != padded.shape[:2]:
            raise ValueError(f"mask has shape {keep.shape}, but array needs {padded.shape[:2]}.")
        return cls.from_flat(padded[keep], keep.sum(axis=1), ids=ids)

    @classmethod
    def from_arrow(cls, array: pa.Array | pa.ChunkedArray, ids: IdsLike | None = None) -> MultiVectors:
        """Make texts from an Arrow array, which has one list of vectors per text.

        Needs ``muvera-toolkit[parquet]``.

        Parameters
        ----------
        array : pyarrow.Array or pyarrow.ChunkedArray
            Lists or fixed-size lists of vectors.  Single and half precision are not
            copied.
        ids : sequence of int or of str, optional
            External ids, as for the class.  Default: the positions.

        Returns
        -------
        MultiVectors

        Raises
        ------
        TypeError, ValueError
            If `array` has another type or nulls, or its vectors have several widths.
        """
        pa = import_extra("pyarrow", "parquet", "Reading Arrow")
        lengths_of = import_extra("pyarrow.compute", "parquet", "Reading Arrow").list_value_length
        if isinstance(array, pa.ChunkedArray):
            array = array.combine_chunks() if array.num_chunks else pa.array([], array.type)
        lists = (pa.ListArray, pa.LargeListArray, pa.FixedSizeListArray)
        levels = [array]
        while len(levels) < 3 and isinstance(levels[-1], lists):
            levels[-1].validate(full=True)
            levels.append(levels[-1].flatten())
        valid = len(levels) == 3 and pa.types.is_floating(levels[2].type)
        if not valid or any(level.null_count for level in levels):
            kind = array.type if isinstance(array, pa.Array) else given(array)
            raise TypeError(
                f"array must be an Arrow array of lists of lists of floats, without nulls, got {kind}."
            )
        _, vectors, numbers = levels
        fixed = isinstance(vectors, pa.FixedSizeListArray)
        widths = [vectors.type.list_size] if fixed else np.unique(lengths_of(vectors).to_numpy()).tolist()
        if len(widths) != 1:
            raise ValueError(
                f"array must contain vectors of one width, got vectors of {widths or 'no'} floats."
            )
        lengths = lengths_of(array).to_numpy(zero_copy_only=False).astype(np.int64)
        tokens = numbers.to_numpy(zero_copy_only=False).reshape(-1, widths[0])
        return cls.from_flat(tokens, lengths, ids=ids)

    @classmethod
    def concatenate(cls, parts: Sequence[MultiVectors]) -> MultiVectors:
        """Join collections.

        Parameters
        ----------
        parts : sequence of MultiVectors
            At least one.  Equal ids must follow each other; positions continue if no
            collection has ids.

        Returns
        -------
        MultiVectors
            A copy of all tokens.

        Raises
        ------
        ValueError
            If there are no collections, dimensions differ or an id comes back.
        """
        if not parts:
            raise ValueError("There is nothing to concatenate.")
        for i, part in enumerate(parts):
            part.require_dimension(parts[0].dimension, f"parts[{i}]", "parts[0]")
        tokens = np.concatenate([part.tokens for part in parts])
        lengths = np.concatenate([part.lengths for part in parts])
        named = any(part.has_ids for part in parts)
        return cls.from_flat(
            tokens, lengths, ids=[id for part in parts for id in part.ids.tolist()] if named else None
        )

    @property
    def dimension(self) -> int:
        """Columns of a token vector."""
        return int(self.tokens.shape[1])

    @property
    def num_tokens(self) -> int:
        """Token vectors of all texts together."""
        return int(self.tokens.shape[0])

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each text, int64 (n,)."""
        return self.offsets[1:] - self.offsets[:-1]  # np.diff takes longer

    @property
    def has_ids(self) -> bool:
        """True if ids were given, False if they are the positions."""
        return self._ids is not None

    @property
    def ids(self) -> Ids:
        """External ids, int64 or str (n,)."""
        return np.arange(len(self)) if self._ids is None else self._ids

    @property
    def has_parts(self) -> bool:
        """True if a document has several parts: texts with the same id."""
        if self._has_parts is None:
            self._has_parts = bool(repeats_before(self.ids).any())
        return self._has_parts

    @property
    def longest_tokens(self) -> NDArray[np.float32]:
        """Largest token norm of each text, float32 (n,).

        -1 until it is measured by a rerank.
        """
        if self._longest is None:
            self._longest = np.full(len(self), -1, np.float32)
        return self._longest

    def with_ids(self, ids: IdsLike) -> MultiVectors:
        """Return the same texts with other ids.

        Parameters
        ----------
        ids : sequence of int or of str
            One per text, as for the class.

        Returns
        -------
        MultiVectors
            Its arrays are shared with this collection.
        """
        return _unchecked(self.tokens, self.offsets, as_ids(ids, len(self), parts=True), self._finite)

    def require_single_parts(self, owner: str) -> None:
        """Raise ValueError if a document has several parts.

        Parameters
        ----------
        owner : str
            What takes only documents with one part, for the message.

        Raises
        ------
        ValueError
            Names the first such document.
        """
        if self.has_parts:
            id = self.ids[repeats_before(self.ids)][:1].tolist()[0]
            raise ValueError(
                f"{owner} takes documents with one part, but id {id!r} has several. Give each part "
                "its own id."
            )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __iter__(self) -> Iterator[TokenArray]:
        for i in range(len(self)):
            yield self.tokens[self.offsets[i] : self.offsets[i + 1]]

    @overload
    def __getitem__(self, key: int) -> TokenArray: ...

    @overload
    def __getitem__(self, key: slice | NDArray[Any] | list[int]) -> MultiVectors: ...

    def __getitem__(self, key: int | slice | NDArray[Any] | list[int]) -> TokenArray | MultiVectors:
        """Return one text's tokens, or a collection of some texts with their ids.

        An int selects one text; a slice, positions or a boolean mask select several.
        Consecutive texts share memory with this collection; others are copied.
        """
        if isinstance(key, (int, np.integer)):
            if not -len(self) <= key < len(self):
                raise IndexError(f"There is no text {key}: the collection has {counted(len(self), 'text')}.")
            i = int(key) % len(self)
            return self.tokens[self.offsets[i] : self.offsets[i + 1]]
        positions = np.arange(len(self))[key]
        ids = self.ids[positions]
        count = len(positions)
        if count == 0 or (positions[-1] - positions[0] == count - 1 and (np.diff(positions) == 1).all()):
            first = int(positions[0]) if count else 0
            bounds = self.offsets[first : first + count + 1]
            return _unchecked(self.tokens[bounds[0] : bounds[-1]], bounds - bounds[0], ids, self._finite)
        if len(np.unique(positions)) != count:
            raise ValueError("A text was selected twice. Select each position once.")
        if self.has_parts:
            ids = as_ids(ids, count, parts=True)
        rows, offsets = rows_of_texts(self.offsets, positions)
        return _unchecked(self.tokens[rows], offsets, ids, self._finite)

    def __repr__(self) -> str:
        size = f"{counted(len(self), 'text')}, {counted(self.num_tokens, 'token')}"
        return f"MultiVectors({size}, dimension={self.dimension}, {self.tokens.dtype})"

    def require_finite(self, name: str = "documents", first: int = 0, place: str | None = None) -> None:
        """Raise ValueError for a number that is not finite or not below 1e12.

        Larger numbers could make products overflow.  The numbers are read once.

        Parameters
        ----------
        name : str
            Name of the texts in the message.
        first : int
            Number of texts before these in the same collection or file.
        place : str, optional
            File that contains the texts; replaces `name`.

        Raises
        ------
        ValueError
            If there is such a number.  The message has its text, token and coordinate.
        """
        if self._finite:
            return
        unusable = first_unusable(self.tokens)
        if unusable is None:
            self._finite = True
            return
        row, column, bound = unusable
        text, token = self.text_of(row)
        raise ValueError(
            f"{self.text_name(text, name, first, place)} has {self.tokens[row, column]!s} in its token "
            f"{token}, coordinate {column}: every number must be {bound}. Remove or repair that text."
        )

    def text_of(self, row: int) -> tuple[int, int]:
        """Return the text of a row of the tokens, and the token's position in the text.

        Parameters
        ----------
        row : int
            Row in `tokens`.

        Returns
        -------
        tuple of int
            Position of the text, and of the token in it.
        """
        text = int(np.searchsorted(self.offsets, row, side="right")) - 1
        return text, row - int(self.offsets[text])

    def text_name(self, text: int, name: str = "documents", first: int = 0, place: str | None = None) -> str:
        """Return a text's name in messages.

        Parameters
        ----------
        text : int
            Position of the text.
        name : str
            Name of the texts in messages.
        first : int
            Number of texts before these in the same collection or file.
        place : str, optional
            File that contains the texts; replaces `name`.

        Returns
        -------
        str
            Such as ``documents[3] (id 'c')``.
        """
        called = f"{name}[{first + text}]" if place is None else f"{place}: document {first + text}"
        if not self.has_ids and (first or place is not None):
            return called  # positions count from the start of the batch and would be misleading
        return f"{called} (id {self.ids[text : text + 1].tolist()[0]!r})"

    def require_dimension(self, dimension: int, name: str, owner: str) -> None:
        """Raise ValueError unless tokens have `dimension` columns.

        Parameters
        ----------
        dimension : int
            Required number of columns.
        name : str
            Name of the texts in the message.
        owner : str
            What has this dimension, such as "this index".

        Raises
        ------
        ValueError
            If the dimensions differ.
        """
        if self.dimension != dimension:
            raise ValueError(
                f"{name} has {self.dimension} columns, but {owner} has dimension={dimension}. Encode "
                "both with the same model."
            )

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write all files of the collection, or none.

        They are ``tokens.npy``, ``lengths.npy`` and, if ids were given, ``ids.json``.

        Parameters
        ----------
        folder : path
            Folder to create.
        overwrite : bool
            Replace a folder that contains only such files.

        Raises
        ------
        FileExistsError
            If the folder exists and `overwrite` is False, or it contains other files.
        """
        with atomic_folder(folder, overwrite, own=MULTIVECTORS_FILES) as beside:
            save_array(beside / "tokens.npy", self.tokens)
            save_array(beside / "lengths.npy", self.lengths)
            if self._ids is not None:
                write_json(beside / "ids.json", self._ids.tolist())

    @classmethod
    def load(cls, folder: str | os.PathLike[str], *, mmap: bool = True) -> MultiVectors:
        """Load a folder of :meth:`save`.

        Parameters
        ----------
        folder : path
            Folder of :meth:`save`.
        mmap : bool
            Map the tokens into memory instead of reading them.

        Returns
        -------
        MultiVectors

        Raises
        ------
        FileNotFoundError, ValueError
            If a file is missing or damaged, or does not fit the others.
        """
        path = Path(folder)
        recover_folder(path)
        tokens = load_npy(path / "tokens.npy", mmap=mmap)
        lengths = load_npy(path / "lengths.npy", mmap=False)
        ids = read_json(path / "ids.json") if (path / "ids.json").is_file() else None
        return cls.from_flat(tokens, lengths, ids=ids)

    def to_arrow(self) -> Any:
        """Return a pyarrow array of lists of fixed-size lists, without a copy.

        Needs ``muvera-toolkit[parquet]``.

        Returns
        -------
        pyarrow.ListArray or pyarrow.LargeListArray
            A list of tokens per text; large if there are 2**31 tokens or more.
        """
        pa = import_extra("pyarrow", "parquet", "Writing Arrow")
        vectors = pa.FixedSizeListArray.from_arrays(
            pa.array(np.asarray(self.tokens).reshape(-1)), self.dimension
        )
        if self.num_tokens <= np.iinfo(np.int32).max:
            return pa.ListArray.from_arrays(pa.array(self.offsets, pa.int32()), vectors)
        return pa.LargeListArray.from_arrays(pa.array(self.offsets), vectors)


#: Texts as users pass them: MultiVectors, one array (tokens, dimension), or several.
MultiVectorsLike = MultiVectors | AnyArray | Iterable[AnyArray]


def as_kernel_arrays(texts: MultiVectors) -> tuple[NDArray[np.float32], NDArray[np.uint16]]:
    """Return read-only views of the tokens for kernels: (float32, float16 bits).

    Their shapes are (n, dimension) and (m, dimension), where n or m is 0.
    """
    tokens = read_only_view(texts.tokens)
    halves = tokens.dtype == np.float16
    none = _no_tokens(texts.dimension, halves)
    return (none, tokens.view(np.uint16)) if halves else (tokens, none)


@lru_cache(maxsize=16)
def _no_tokens(dimension: int, floats: bool) -> NDArray[Any]:
    """Return an empty array of float32 or of float16 bits: the unused array."""
    return read_only_view(np.empty((0, dimension), np.float32 if floats else np.uint16))


def _unchecked(
    tokens: TokenArray, offsets: NDArray[np.int64], ids: Ids | None = None, finite: bool = False
) -> MultiVectors:
    """Make texts of valid arrays without checks.

    Checks take longer than a small search.
    """
    texts = object.__new__(MultiVectors)
    texts._set(tokens, offsets, ids, finite)
    return texts


def regroup(texts: MultiVectors, offsets: NDArray[np.int64], ids: Ids | None = None) -> MultiVectors:
    """Return the same tokens as other texts; `offsets` and `ids` are not checked."""
    return _unchecked(texts.tokens, offsets, ids, texts._finite)


def cut_parts(texts: MultiVectors, most: int) -> MultiVectors:
    """Cut texts with more than `most` tokens into parts of nearly equal lengths.

    The texts have ids.  The tokens are shared.
    """
    counts = np.maximum(1, -(-texts.lengths // most))
    if (counts == 1).all():
        return texts
    owners = np.repeat(np.arange(len(texts)), counts)
    places = np.arange(len(owners)) - np.repeat(running_total(counts)[:-1], counts)
    begins = texts.offsets[owners] + places * texts.lengths[owners] // counts[owners]
    offsets = np.append(begins, texts.num_tokens)
    return regroup(texts, offsets, texts.ids[owners])


def join_parts(texts: MultiVectors) -> MultiVectors:
    """Return each document with the tokens of all its parts as one text."""
    if not texts.has_parts:
        return texts
    first = np.flatnonzero(~repeats_before(texts.ids))
    offsets = np.append(texts.offsets[first], texts.num_tokens)
    return regroup(texts, offsets, texts.ids[first])


def as_multivectors(value: object, name: str = "documents") -> MultiVectors:
    """Return `value` as MultiVectors; messages call it `name`.

    One 2-D array is one text.  A 3-D array is a batch without padding.  Raise TypeError
    or ValueError for anything but MultiVectors, such an array or an iterable of arrays.
    """
    if isinstance(value, MultiVectors):
        return value
    if hasattr(value, "ndim"):
        array = as_array(value, name)
        if array.ndim == 2 and array.size and array.dtype in READY:  # as from_arrays, in less time
            offsets = np.array((0, array.shape[0]), np.int64)
            return _unchecked(np.array(array, order="C"), offsets)
        if array.ndim not in (2, 3):
            raise ValueError(
                f"{name} has shape {array.shape}; expected (tokens, dimension) for one text, (n, tokens, "
                "dimension) for several, a list of arrays or MultiVectors."
            )
        return MultiVectors.from_arrays([array] if array.ndim == 2 else list(array), name=name)
    if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__"):
        raise TypeError(f"{name} must be MultiVectors or arrays of token vectors, got {given(value)}.")
    return MultiVectors.from_arrays(value, name=name)


def checked_texts(
    value: object,
    name: str,
    dimension: int | None = None,
    owner: str = "",
    *,
    empty_dimension: int | None = None,
) -> MultiVectors:
    """Return `value` as MultiVectors of finite numbers, see :func:`as_multivectors`.

    `owner`, such as "this index", requires the `dimension`.  Without a `dimension`, an
    empty sequence has the dimension `empty_dimension`.  Raise TypeError or ValueError
    if `value` is not token vectors, has another dimension or a number that is not
    finite.
    """
    columns = empty_dimension if dimension is None else dimension
    if columns is not None and isinstance(value, (list, tuple)) and not value:
        return MultiVectors.from_arrays([], dimension=columns)
    texts = as_multivectors(value, name)
    if dimension is not None:
        texts.require_dimension(dimension, name, owner)
    texts.require_finite(name)
    return texts


def checked_text(value: object, name: str) -> MultiVectors:
    """Return one array (tokens, dimension) as MultiVectors of one text.

    Raise TypeError or ValueError unless it has at least one token and finite numbers;
    several texts are refused.
    """
    if isinstance(value, MultiVectors) or (
        isinstance(value, (list, tuple)) and value and getattr(value[0], "ndim", 0) == 2
    ):
        raise ValueError(
            f"{name} must be one array (tokens, dimension), got {counted(len(value), 'text')}. Give its "
            "array."
        )
    if not hasattr(value, "ndim") and not hasattr(value, "__iter__"):
        raise TypeError(f"{name} must be an array (tokens, dimension), got {given(value)}.")
    array = as_array(value, name)
    if array.dtype.kind in "US":
        as_tokens(value, name)  # raises
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(
            f"{name} must have shape (tokens, dimension) with at least one token, got {array.shape}."
        )
    return checked_texts(array, name)


def _joined(
    arrays: Iterable[AnyArray], dimension: int | None, dtype: DTypeLike | None, name: str
) -> tuple[TokenArray, list[int]]:
    """Join one array (t_i, dimension) per text into flat tokens and lengths."""
    if not isinstance(arrays, Iterable):
        raise TypeError(f"{name} must be a sequence of arrays (tokens, dimension), got {given(arrays)}.")
    required = dimension
    empty_dimension = None
    filled: list[TokenArray] = []
    lengths: list[int] = []
    for i, value in enumerate(arrays):
        array = as_tokens(value, f"{name}[{i}]")
        if array.size == 0 and array.ndim <= 2:
            if array.ndim == 2 and array.shape[1]:
                empty_dimension = array.shape[1]
            lengths.append(0)
            continue
        if array.ndim != 2:
            raise ValueError(
                f"{name}[{i}] has shape {array.shape}; each must have shape (tokens, dimension). "
                "Use from_padded for a padded batch."
            )
        dimension = array.shape[1] if dimension is None else dimension
        if array.shape[1] != dimension:
            expected = f"those before have {dimension}" if required is None else f"needs dimension={required}"
            raise ValueError(f"{name}[{i}] has {array.shape[1]} columns, but {expected}.")
        filled.append(array)
        lengths.append(len(array))
    dimension = empty_dimension if dimension is None else dimension
    if not dimension:
        raise ValueError(
            f"{name} must have a token, or their dimension is unknown. Give texts with tokens, or call "
            "MultiVectors.from_arrays with dimension=."
        )
    if dtype is None:
        dtype = np.float16 if {array.dtype for array in filled} == {np.dtype(np.float16)} else np.float32
    tokens = np.empty((sum(lengths), dimension), dtype)
    if filled:
        np.concatenate(filled, out=tokens, casting="same_kind")
    return tokens, lengths
