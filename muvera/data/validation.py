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

# Float64 represents every integer up to this number.
_LARGEST_EXACT_FLOAT = 2**53

# Sums of lengths up to this one can be compared as float64 before they are added as
# int64.
_LARGEST_TOTAL = 2**62


def as_array(value: object, name: str = "The array") -> NDArray[Any]:
    """Return `value` as a NumPy array, without importing a tensor library.

    Objects with ``detach()`` and ``cpu()`` are treated as tensors.  bfloat16 becomes
    float32.  Nothing is copied if that is possible.  Raise TypeError for a masked array
    with masked entries.
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
    """Return floats of any precision as a C-contiguous float32 or float16 array.

    Memory maps are not read.  Numbers beyond float32 become infinities, which
    :meth:`MultiVectors.require_finite` refuses.  Raise TypeError or ValueError if
    `value` is not a rectangular array of floats.
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
    """Return the row and column of the first unusable number, and the requirement.

    Return None if all numbers are usable.
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

    Raise ValueError unless `out` is float32, C-contiguous and writeable, with this
    shape.
    """
    if out is None:
        return np.empty(shape, np.float32)
    if not isinstance(out, np.ndarray) or out.dtype != np.float32 or out.shape != shape:
        actual = f"{out.dtype} {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
        raise ValueError(f"out must be a float32 array of shape {shape}, got {actual}.")
    if not (out.flags.c_contiguous and out.flags.writeable):
        raise ValueError("out must be C-contiguous and writeable.")
    return out.view(np.ndarray)


def as_ids(
    values: Iterable[int | str | np.integer[Any]], count: int, name: str = "ids", *, parts: bool = False
) -> Ids:
    """Return `values` as `count` int64 or string ids.

    With `parts`, texts that follow each other may have the same id.  Raise TypeError or
    ValueError if the ids are neither all integers nor all strings, repeated, too large
    or too long, or not as many as texts.
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
    _require_unique(ids, name, parts)
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


def _require_unique(ids: Ids, name: str, parts: bool) -> None:
    listed = ids.tolist()
    if len(set(listed)) == len(listed):
        return
    last: dict[int | str, int] = {}
    for i, value in enumerate(listed):
        before = last.get(value, i)
        last[value] = i
        if before != i and not parts:
            raise ValueError(f"{name} must be unique, but {value!r} is at positions {before} and {i}.")
        if before < i - 1:
            raise ValueError(
                f"{name} must have the parts of a document one after another, but {value!r} is at positions "
                f"{before} and {i}, and other ids are between. Sort the texts by id with a stable sort."
            )


def repeats_before(ids: Ids) -> NDArray[np.bool_]:
    """Return which ids equal the id before them, bool (n,)."""
    repeated = np.zeros(len(ids), bool)
    repeated[1:] = ids[1:] == ids[:-1]
    return repeated


def first_parts(later: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the first part of each text's document, int64 (n,).

    `later` says which texts belong to the document of the text before them.
    """
    return np.maximum.accumulate(np.where(later, 0, np.arange(len(later))))


def as_integers(values: ArrayLike, name: str) -> NDArray[np.int64]:
    """Return `values` as a new int64 array (n,).

    Floats without a fraction are accepted, bools are not.  Raise TypeError or
    ValueError for several axes, or a number that is not whole or exceeds 64 bits.
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
    """Return token counts of texts as int64 lengths.

    Raise TypeError or ValueError if a length is not a whole number or negative, or
    their sum is not `rows` (default: any sum up to 2**62).
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
    """Return the offsets (n + 1,) of texts: 0, then the partial sums of their lengths.

    Raise TypeError or ValueError if a length is not a whole number or negative, or
    their sum is not `rows`.
    """
    return running_total(as_lengths(values, name, rows))


def as_offsets(values: ArrayLike, rows: int, name: str = "offsets") -> NDArray[np.int64]:
    """Return `values` as offsets (n + 1,) that rise from 0 to `rows`.

    Raise TypeError or ValueError if they do not, or an offset is not a whole number.
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
    """Return the rows of the texts at `positions`, and the texts' offsets among them.

    The shapes are (n_tokens,) and (m + 1,).
    """
    lengths = offsets[positions + 1] - offsets[positions]
    ends = running_total(lengths)
    return np.repeat(offsets[positions] - ends[:-1], lengths) + np.arange(ends[-1]), ends
