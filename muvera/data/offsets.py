"""Lengths and offsets: the position of each text's tokens.

Kernels read ``tokens[offsets[i] : offsets[i + 1]]`` without bounds checks, so offsets are checked here and
nowhere else.  Sums of unchecked integers can wrap around 2**64, so integers are summed only after a check
that they are small.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .validation import as_array

# Float64 represents every integer up to this one.
_LARGEST_EXACT_FLOAT = 2**53

# Largest sum of lengths: half of the largest int64, so that a float64 sum can be compared safely.
_LARGEST_TOTAL = 2**62


def as_integers(values: ArrayLike, name: str) -> NDArray[np.int64]:
    """Return `values` as a new int64 array (n,); floats without a fraction are accepted, bools are not."""
    try:
        array = as_array(values, name)
    except ValueError as error:
        raise TypeError(f"{name} must be whole numbers in one axis: {error}.") from None
    if array.ndim != 1:
        raise ValueError(f"{name} must have one axis, got shape {array.shape}.")
    if not array.size:
        return np.empty(0, np.int64)
    kind = array.dtype.kind
    has_bool = isinstance(values, (list, tuple)) and any(
        isinstance(value, (bool, np.bool_)) for value in values
    )
    if kind not in "iuf" or has_bool:
        raise TypeError(
            f"{name} must be whole numbers, got {'a bool' if has_bool else f'dtype {array.dtype}'}."
        )
    if kind == "f":
        with np.errstate(invalid="ignore"):
            whole = (np.abs(array) <= _LARGEST_EXACT_FLOAT) & (array == np.rint(array))
    else:
        whole = array <= np.iinfo(np.int64).max
    if not whole.all():
        i = int(np.argmin(whole))
        raise TypeError(
            f"{name} must be whole numbers of 64 bits, but {name}[{i}] is {array[i]} ({array.dtype})."
        )
    return array.astype(np.int64)


def as_lengths(values: ArrayLike, name: str, rows: int | None = None) -> NDArray[np.int64]:
    """Return `values` as lengths (n,) that are not negative and add up to `rows`, or fit in int64 without `rows`."""
    lengths, most = as_integers(values, name), _LARGEST_TOTAL if rows is None else rows
    wrong = (lengths < 0) | (lengths > most)
    if wrong.any():
        i = int(np.argmax(wrong))
        raise ValueError(
            f"{name}[{i}] is {lengths[i]}; a length must be from 0 to {most}, the number of token vectors."
        )
    if float(lengths.sum(dtype=np.float64)) > _LARGEST_TOTAL:
        raise ValueError(f"{name} add up to more than {_LARGEST_TOTAL} token vectors.")
    total = int(lengths.sum())
    if rows is not None and total != rows:
        raise ValueError(
            f"{name} add up to {total}, but there are {rows} token vectors. Check that both are complete and "
            "from the same export."
        )
    return lengths


def running_total(lengths: ArrayLike) -> NDArray[np.int64]:
    """Return the offsets (n + 1,) of texts with these validated lengths: 0, then the partial sums."""
    array = np.asarray(lengths, np.int64)
    offsets = np.zeros(len(array) + 1, np.int64)
    np.cumsum(array, out=offsets[1:])
    return offsets


def offsets_from_lengths(values: ArrayLike, rows: int, name: str = "lengths") -> NDArray[np.int64]:
    """Return the offsets (n + 1,) of texts with these lengths; raise as :func:`as_lengths`."""
    return running_total(as_lengths(values, name, rows))


def as_offsets(values: ArrayLike, rows: int, name: str = "offsets") -> NDArray[np.int64]:
    """Return `values` as offsets (n + 1,) that rise from 0 to `rows`."""
    offsets = as_integers(values, name)
    if len(offsets) == 0 or offsets[0] != 0 or offsets[-1] != rows:
        ends = f"{offsets[0]} to {offsets[-1]}" if len(offsets) else "none"
        raise ValueError(
            f"{name} must run from 0 to the {rows} token vectors, got {ends}. Check that they are not lengths, "
            "and that both are complete and from the same export."
        )
    # Compared, not subtracted: a difference could wrap.  Offsets that never decrease stay between the first
    # and the last one.
    falls = np.flatnonzero(offsets[1:] < offsets[:-1])
    if len(falls):
        i = int(falls[0])
        raise ValueError(
            f"{name} must not decrease, but entry {i + 1} is {offsets[i + 1]} after {offsets[i]}."
        )
    return offsets


def rows_of_texts(
    offsets: NDArray[np.int64], positions: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows of the texts at `positions`, int64 (n_tokens,), and the offsets of these texts."""
    lengths = offsets[positions + 1] - offsets[positions]
    own = running_total(lengths)
    return np.repeat(offsets[positions] - own[:-1], lengths) + np.arange(own[-1]), own
