"""Other layouts of token sets: single arrays, Arrow's lists of fixed-size lists."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..utils.checks import given
from ..utils.optional_imports import import_extra
from .validation import TokenArray, as_array, as_tokens

__all__ = ["arrow_lists", "from_arrow_lists", "join_arrays", "padded_rows"]


def join_arrays(
    arrays: Iterable[Any], dimension: int | None, dtype: Any, name: str
) -> tuple[TokenArray, NDArray[np.int64]]:
    """Return one array (t_i, dimension) a text as flat tokens and the texts' lengths.

    Raises
    ------
    TypeError, ValueError
        For arrays of other shapes, of different widths or of integers, and where no text has a
        token to take the dimension from.
    """
    required = dimension
    rows: list[TokenArray | None] = []
    empty_dimension = None
    for i, value in enumerate(arrays):
        array = as_tokens(value, f"{name}[{i}]")
        if array.size == 0 and array.ndim <= 2:
            if array.ndim == 2 and array.shape[1]:
                empty_dimension = array.shape[1]
            rows.append(None)
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
        rows.append(array)
    dimension = empty_dimension if dimension is None else dimension
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
    return tokens, lengths


def padded_rows(array: Any, mask: Any) -> tuple[TokenArray, NDArray[np.int64]]:
    """Return the rows of a padded batch (n, longest, dimension) that `mask` keeps, and how many of each text.

    Raises
    ------
    TypeError, ValueError
        For arrays of other shapes or of integers, and a mask that does not fit.
    """
    padded = as_tokens(array, "array")
    if padded.ndim != 3:
        raise ValueError(f"array must have shape (n, longest, dimension), got {padded.shape}.")
    if mask is None:
        keep = padded.any(axis=2)
    else:
        keep = as_array(mask, "mask").astype(bool)
        if keep.shape != padded.shape[:2]:
            raise ValueError(f"mask has shape {keep.shape}, but array needs {padded.shape[:2]}.")
    return padded[keep], keep.sum(axis=1)


def arrow_lists(tokens: TokenArray, offsets: NDArray[np.int64]) -> Any:
    """Return token sets as an Arrow array of lists of fixed-size lists; its numbers are not copied."""
    pa = import_extra("pyarrow", "parquet", "Writing Arrow")
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.asarray(tokens).reshape(-1)), tokens.shape[1])
    if offsets[-1] <= np.iinfo(np.int32).max:
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), vectors)
    return pa.LargeListArray.from_arrays(pa.array(offsets), vectors)


def from_arrow_lists(array: Any, name: str = "array") -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return an Arrow array of lists of lists of floats as flat tokens (n_tokens, dimension) and lengths.

    Raises
    ------
    TypeError
        For anything else.
    ValueError
        For a null, vectors of different widths, or lists that do not fit their numbers.
    """
    pa = import_extra("pyarrow", "parquet", "Reading Arrow")
    import_extra("pyarrow.compute", "parquet", "Reading Arrow")
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    if (
        not isinstance(array, pa.Array)
        or not _is_list(pa, array.type)
        or not _is_list(pa, array.type.value_type)
    ):
        kind = array.type if isinstance(array, pa.Array) else given(array)
        raise TypeError(f"{name} must be an Arrow array of lists of lists of floats, got {kind}.")
    array.validate(full=True)
    vectors = _without_null(array, f"{name} has a null instead of a text's vectors").flatten()
    numbers = _without_null(vectors, f"{name} has a null instead of a vector").flatten()
    if not pa.types.is_floating(numbers.type):
        raise TypeError(f"{name} must hold floats, got {numbers.type}. Convert them to float32 first.")
    lengths = _lengths(pa, array)
    if pa.types.is_fixed_size_list(vectors.type):
        dimension = vectors.type.list_size
    else:
        widths = np.unique(_lengths(pa, vectors))
        if len(widths) != 1:
            shown = "no vectors" if not len(widths) else f"vectors of {widths[0]} and of {widths[-1]} floats"
            raise ValueError(f"{name} must hold vectors of one width, got {shown}.")
        dimension = int(widths[0])
    values = _without_null(numbers, f"{name} has a null instead of a number").to_numpy(zero_copy_only=False)
    return values.reshape(-1, dimension), lengths


def _is_list(pa: Any, kind: Any) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _lengths(pa: Any, array: Any) -> NDArray[np.int64]:
    lengths: NDArray[np.int64] = pa.compute.list_value_length(array).to_numpy(zero_copy_only=False)
    return lengths.astype(np.int64)


def _without_null(array: Any, sentence: str) -> Any:
    if array.null_count:
        place = int(np.argmax(array.is_null().to_numpy(zero_copy_only=False)))
        raise ValueError(f"{sentence}, the first at position {place}. Drop or fill it.")
    return array
