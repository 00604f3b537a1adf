"""Validate user input: token vectors, ids, output arrays, lengths and offsets."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..kernels.rows import first_beyond
from ..utils.checks import counted, given

#: Token vectors: float32 or float16, one per row.
TokenArray = NDArray[np.float32] | NDArray[np.float16]

#: External ids, one per text: int64, or strings as :func:`string_array` stores them.
Ids = NDArray[np.int64] | NDArray[np.str_] | NDArray[np.object_]


class Tensor(Protocol):
    """Array of a tensor library on any device, such as a PyTorch tensor."""

    def detach(self) -> Any:
        """Return the same numbers without their gradient."""

    def cpu(self) -> Any:
        """Return the same numbers in the memory of the processor."""


#: What :func:`as_array` turns into an array: NumPy arrays, nested sequences of numbers,
#: and tensors on any device.
AnyArray = ArrayLike | Tensor

#: What :func:`as_ids` turns into ids: all int or all str.
IdsLike = Collection[int | str | np.integer[Any]]

MAX_ID_LENGTH = 65_535  # characters, the limit of Milvus' VARCHAR

#: Every number of a token must be smaller: sums of products must stay within float32.
TOO_LARGE = 1e12

# By the bytes of a float: the unsigned type, the mask of all bits but the sign, and the
# smallest refused value.
_BITS = {
    2: (np.uint16, np.uint16(0x7FFF), np.uint16(0x7C00)),
    4: (np.uint32, np.uint32(0x7FFFFFFF), np.float32(TOO_LARGE).view(np.uint32)),
}

#: Types that need no check by name, which takes longer than all other checks.
READY = (np.dtype(np.float32), np.dtype(np.float16))

_NARROW_STRINGS = 1 << 18  # characters in total, up to which strings are always NumPy strings

# Float64 represents every integer up to this one.
_LARGEST_EXACT_FLOAT = 2**53

# Sums of lengths up to this one can be compared as float64 before they are added as
# int64.
_LARGEST_TOTAL = 2**62


def as_array(value: object, name: str = "The array") -> NDArray[Any]:
    """Return `value` as a NumPy array, without importing a tensor library.

    Parameters
    ----------
    value : array_like or tensor
        Objects with ``detach()`` and ``cpu()`` are treated as tensors.  bfloat16
        becomes float32.
    name : str
        Name of the array in error messages.

    Returns
    -------
    numpy.ndarray
        Without a copy if possible.

    Raises
    ------
    TypeError
        If `value` is a masked array with masked entries.
    """
    if isinstance(value, (list, tuple)):
        for i, row in enumerate(value):
            if isinstance(row, np.ma.MaskedArray):  # NumPy would drop the mask
                as_array(row, f"{name}[{i}]")
    if isinstance(value, np.ma.MaskedArray):
        masked = int(np.ma.getmaskarray(value).sum())
        if masked:
            raise TypeError(
                f"{name} is a masked array with {masked} masked entries. Drop those tokens, or fill them "
                "with array.filled(...)."
            )
        return np.asarray(value.data)
    if isinstance(value, np.ndarray):
        return value
    if hasattr(value, "detach") and hasattr(value, "cpu"):
        tensor = value.detach().cpu()
        if "bfloat16" in str(getattr(tensor, "dtype", "")):
            tensor = tensor.float()
        return np.asarray(tensor.numpy())
    return np.asarray(value)


def as_tokens(value: object, name: str) -> TokenArray:
    """Return floats as a C-contiguous float32 or float16 array.

    Memory maps are not read.

    Parameters
    ----------
    value : array_like or tensor
        Floats of any precision.  Numbers beyond float32 become infinities, which
        :meth:`MultiVectors.require_finite` refuses.
    name : str
        Name of the array in error messages.

    Returns
    -------
    float32 or float16

    Raises
    ------
    TypeError, ValueError
        If `value` is not a rectangular array of floats.
    """
    try:
        array = as_array(value, name)
    except ValueError as error:
        raise ValueError(
            f"{name} is not a rectangular array of numbers. Give rows of equal length."
        ) from error
    if array.dtype not in READY:
        array = _as_floats(array, value, name)
    return np.ascontiguousarray(array) if not array.flags.c_contiguous else array


def _as_floats(array: NDArray[Any], value: object, name: str) -> NDArray[Any]:
    if array.dtype.kind in "US":
        raise TypeError(
            f"{name} must be token vectors, got the text {given(value)}. Encode it with your model first."
        )
    is_float = array.dtype.kind == "f" or array.dtype.name == "bfloat16"
    if array.size and not is_float:
        raise TypeError(
            f"{name} has dtype {array.dtype}, but token vectors must be floating point. "
            "Convert them to float32 first; quantized vectors need their scale for that."
        )
    if not is_float or array.dtype.itemsize not in (2, 4) or array.dtype.name == "bfloat16":
        with np.errstate(over="ignore"):
            array = array.astype(np.float32)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def first_unusable(tokens: TokenArray) -> tuple[int, int, str] | None:
    """Return the place of the first unusable number, or None.

    The place is its row and column; the third entry is the requirement.

    Parameters
    ----------
    tokens : float32 or float16 (n, dimension)
        Token vectors.

    Returns
    -------
    tuple of (int, int, str) or None
    """
    unsigned, magnitude, limit = _BITS[tokens.dtype.itemsize]
    bits = read_only_view(tokens).reshape(-1).view(unsigned)
    index = first_beyond(bits, magnitude, limit)
    if index < 0:
        return None
    row, column = divmod(index, tokens.shape[1])
    if np.isfinite(tokens[row, column]):
        return row, column, f"below {TOO_LARGE:g} in size, because products overflow"
    return row, column, "finite"


def read_only_view(array: NDArray[Any]) -> NDArray[Any]:
    """Return a read-only view as a plain array.

    So kernels are compiled only once.
    """
    view = np.asarray(array).view(np.ndarray)
    view.flags.writeable = False
    return view


def validated_out(out: NDArray[np.float32] | None, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Return the caller's `out`, checked, or a new float32 array of `shape`.

    Parameters
    ----------
    out : float32, optional
        C-contiguous and writeable.
    shape : tuple of int
        Required shape.

    Returns
    -------
    float32

    Raises
    ------
    ValueError
        If `out` has another dtype, shape or layout.
    """
    if out is None:
        return np.empty(shape, np.float32)
    if not isinstance(out, np.ndarray) or out.dtype != np.float32 or out.shape != shape:
        actual = f"{out.dtype} {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
        raise ValueError(f"out must be a float32 array of shape {shape}, got {actual}.")
    if not (out.flags.c_contiguous and out.flags.writeable):
        raise ValueError("out must be C-contiguous and writeable.")
    return out.view(np.ndarray)


def as_ids(values: Iterable[int | str | np.integer[Any]], count: int, name: str = "ids") -> Ids:
    """Return `values` as `count` unique int64 or string ids.

    Parameters
    ----------
    values : iterable of int or of str
        All of one kind.
    count : int
        Required number of ids.
    name : str
        Name of the ids in error messages.

    Returns
    -------
    int64 or str (count,)

    Raises
    ------
    TypeError, ValueError
        If `values` are of another or of several kinds, not unique, too large or too
        long, or not as many as texts.
    """
    # An array without dimensions is one id: tolist() would return a string, not a list.
    if isinstance(values, (str, bytes, dict, set, frozenset)) or getattr(values, "ndim", 1) == 0:
        raise TypeError(f"{name} must be a sequence of int or of str, got {given(values)}. Give a list.")
    listed = as_array(values, name).tolist() if isinstance(values, np.ndarray) else list(values)
    kinds = {int if isinstance(v, (int, np.integer)) and not isinstance(v, bool) else type(v) for v in listed}
    if not kinds <= {int} and not all(issubclass(kind, str) for kind in kinds):
        names = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise TypeError(f"{name} must be all int or all str, got {names}.")
    if len(listed) != count:
        entries = counted(len(listed), "entry", "entries")
        raise ValueError(f"{name} has {entries} for {counted(count, 'text')}. Give one per text.")
    if kinds <= {int}:
        try:
            ids: Ids = np.asarray(listed, np.int64)
        except OverflowError:
            raise ValueError(f"{name} has an integer outside 64 bits. Use strings for such ids.") from None
    else:
        ids = _string_ids(listed, name)
    _require_unique(ids, name)
    return ids


def _string_ids(values: Sequence[Any], name: str) -> NDArray[np.str_] | NDArray[np.object_]:
    for i, value in enumerate(values):
        if len(value) > MAX_ID_LENGTH:
            raise ValueError(
                f"{name}[{i}] has {len(value)} characters, but an id has at most {MAX_ID_LENGTH}. "
                f"Use a shorter one; this one begins with {value[:40]!r}."
            )
        if value.endswith("\0"):
            raise ValueError(f"{name}[{i}] ends in a NUL character, which cannot be stored. Remove it.")
    return string_array([str(value) for value in values])


def string_array(values: list[str]) -> NDArray[np.str_] | NDArray[np.object_]:
    """Return strings as a NumPy string array.

    They are Python objects if one long string would widen all.

    Parameters
    ----------
    values : list of str
        Strings of any length.

    Returns
    -------
    str or object (n,)
    """
    longest, total = max(map(len, values), default=0), sum(map(len, values))
    if longest * len(values) <= max(_NARROW_STRINGS, 16 * total):
        return np.array(values, np.str_)
    objects = np.empty(len(values), object)
    objects[:] = values
    return objects


def id_kind(ids: Ids) -> str:
    """Return "int" or "str"."""
    return "int" if ids.dtype.kind == "i" else "str"


def _require_unique(ids: Ids, name: str) -> None:
    listed = ids.tolist()
    if len(set(listed)) == len(listed):
        return
    first: dict[int | str, int] = {}
    for i, value in enumerate(listed):
        if first.setdefault(value, i) != i:
            raise ValueError(f"{name} must be unique, but {value!r} is at positions {first[value]} and {i}.")


def as_integers(values: ArrayLike, name: str) -> NDArray[np.int64]:
    """Return `values` as a new int64 array (n,).

    Parameters
    ----------
    values : array_like (n,)
        Integers, or floats without a fraction; bools are refused.
    name : str
        Name of the numbers in error messages.

    Returns
    -------
    int64 (n,)

    Raises
    ------
    TypeError, ValueError
        If `values` has several axes, or a number that is not whole or exceeds 64 bits.
    """
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
    """Return `values` as lengths that are not negative.

    Parameters
    ----------
    values : array_like of int (n,)
        Number of tokens of each text.
    name : str
        Name of the lengths in error messages.
    rows : int, optional
        Sum of the lengths.  Default: any sum up to 2**62.

    Returns
    -------
    int64 (n,)

    Raises
    ------
    TypeError, ValueError
        If a length is not a whole number or negative, or the sum differs.
    """
    lengths = as_integers(values, name)
    most = _LARGEST_TOTAL if rows is None else rows
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
    """Return the offsets (n + 1,) of texts with these valid lengths.

    They are 0, then the partial sums.
    """
    array = np.asarray(lengths, np.int64)
    offsets = np.zeros(len(array) + 1, np.int64)
    np.cumsum(array, out=offsets[1:])
    return offsets


def offsets_from_lengths(values: ArrayLike, rows: int, name: str = "lengths") -> NDArray[np.int64]:
    """Return the offsets of texts with these lengths.

    Parameters
    ----------
    values : array_like of int (n,)
        Number of tokens of each text.
    rows : int
        Sum of the lengths.
    name : str
        Name of the lengths in error messages.

    Returns
    -------
    int64 (n + 1,)
        0, then the partial sums.

    Raises
    ------
    TypeError, ValueError
        If a length is not a whole number or negative, or the sum differs.
    """
    return running_total(as_lengths(values, name, rows))


def as_offsets(values: ArrayLike, rows: int, name: str = "offsets") -> NDArray[np.int64]:
    """Return `values` as offsets that rise from 0 to `rows`.

    Parameters
    ----------
    values : array_like of int (n + 1,)
        First row of each text, then the number of rows.
    rows : int
        Number of token vectors.
    name : str
        Name of the offsets in error messages.

    Returns
    -------
    int64 (n + 1,)

    Raises
    ------
    TypeError, ValueError
        If an offset is not a whole number or less than the one before, or the first
        and the last differ from 0 and `rows`.
    """
    offsets = as_integers(values, name)
    if len(offsets) == 0 or offsets[0] != 0 or offsets[-1] != rows:
        ends = f"{offsets[0]} to {offsets[-1]}" if len(offsets) else "none"
        raise ValueError(
            f"{name} must run from 0 to the {rows} token vectors, got {ends}. Check that they are not "
            "lengths, and that both are complete and from the same export."
        )
    # Compared, not subtracted: a difference could wrap.
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
    """Return the rows of some texts.

    Parameters
    ----------
    offsets : int64 (n + 1,)
        First row of each text, then the number of rows.
    positions : int64 (m,)
        Positions of the texts.

    Returns
    -------
    tuple of int64 (n_tokens,) and int64 (m + 1,)
        The rows, and the offsets of the texts among them.
    """
    lengths = offsets[positions + 1] - offsets[positions]
    own = running_total(lengths)
    return np.repeat(offsets[positions] - own[:-1], lengths) + np.arange(own[-1]), own
