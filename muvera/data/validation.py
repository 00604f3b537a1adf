"""What users hand in, as checked arrays: token vectors, ids, lengths and offsets."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "Ids",
    "TokenArray",
    "as_array",
    "as_ids",
    "as_integers",
    "as_offsets",
    "as_tokens",
    "read_only_view",
    "validated_out",
]

#: Token vectors: float32 or float16, rows are tokens.
TokenArray = NDArray[np.float32] | NDArray[np.float16]

#: External ids: int64 or unicode strings, one a text.
Ids = NDArray[np.int64] | NDArray[np.str_]


def as_array(value: Any) -> NDArray[Any]:
    """Return `value` as a NumPy array, taking tensors without importing their library.

    Anything with ``detach()``, ``cpu()`` and ``numpy()`` is taken as a tensor on any
    device; bfloat16, which NumPy does not have, becomes float32.
    """
    if isinstance(value, np.ndarray):
        return value
    if hasattr(value, "detach") and hasattr(value, "cpu"):
        value = value.detach().cpu()
        if "bfloat16" in str(getattr(value, "dtype", "")):
            value = value.float()
        return np.asarray(value.numpy())
    return np.asarray(value)


def as_tokens(value: Any, name: str) -> TokenArray:
    """Return `value` as a C-contiguous float32 or float16 array, memory maps unread."""
    try:
        array = as_array(value)
    except ValueError as error:
        raise ValueError(f"{name} is not a rectangular array of numbers: {error}.") from None
    if array.dtype.name == "bfloat16" or array.dtype.kind == "f":
        if array.dtype.itemsize not in (2, 4) or array.dtype.name == "bfloat16":
            array = array.astype(np.float32)
    elif array.size:
        raise TypeError(
            f"{name} has dtype {array.dtype}, but token vectors must be floating point. "
            "Convert them to float32 first; quantized vectors need their scale for that."
        )
    else:
        array = array.astype(np.float32)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    return np.ascontiguousarray(array) if not array.flags.c_contiguous else array


def read_only_view(array: NDArray[Any]) -> NDArray[Any]:
    """Return a read-only plain view: one compiled variant serves arrays of any origin."""
    view = np.asarray(array).view(np.ndarray)
    view.flags.writeable = False
    return view


def as_ids(values: Any, count: int, name: str = "ids") -> Ids:
    """Return `values` as int64 or unicode ids, checked to be `count` and all different.

    Raises
    ------
    TypeError
        For anything but integers or strings, or a mixture of both.
    ValueError
        For a wrong number of ids, a duplicate, or a string that ends in NUL.
    """
    values = values.tolist() if isinstance(values, np.ndarray) else list(values)
    kinds = {
        int if isinstance(v, (int, np.integer)) and not isinstance(v, (bool, np.bool_)) else type(v)
        for v in values
    }
    if not kinds <= {int} and not all(issubclass(kind, str) for kind in kinds):
        found = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise TypeError(f"{name} must be all int or all str, got {found}.")
    if len(values) != count:
        raise ValueError(f"{name} has {len(values)} entries for {count} texts; there must be one for each.")
    if kinds <= {int}:
        try:
            ids: Ids = np.asarray(values, np.int64)
        except OverflowError:
            raise ValueError(f"{name} has an integer outside 64 bits. Use strings for such ids.") from None
    else:
        if any(v.endswith("\0") for v in values):
            raise ValueError(f"{name} has a string that ends in a NUL character, which cannot be kept.")
        ids = np.asarray(values, np.str_)
    unique, counts = np.unique(ids, return_counts=True)
    if len(unique) != count:
        twice = unique[counts > 1][0]
        where = np.flatnonzero(ids == twice)[:2]
        raise ValueError(
            f"{name} must be unique, but {twice.item()!r} stands at positions {where[0]} and {where[1]}."
        )
    return ids


def as_integers(values: ArrayLike, name: str) -> NDArray[np.int64]:
    array = as_array(values)
    if array.ndim != 1:
        raise ValueError(f"{name} must have one axis, got shape {array.shape}.")
    if array.dtype.kind in "iu" or not array.size:
        return array.astype(np.int64)
    if array.dtype.kind == "f" and (array == np.rint(array)).all():
        return array.astype(np.int64)  # some tools store counts as float64
    raise TypeError(f"{name} must be whole numbers, got dtype {array.dtype}.")


def as_offsets(values: ArrayLike, rows: int) -> NDArray[np.int64]:
    offsets = as_integers(values, "offsets")
    if len(offsets) == 0 or offsets[0] != 0 or offsets[-1] != rows:
        ends = f"{offsets[0]} to {offsets[-1]}" if len(offsets) else "nothing"
        raise ValueError(f"offsets must run from 0 to the {rows} token vectors, got {ends}.")
    falls = np.flatnonzero(np.diff(offsets) < 0)
    if len(falls):
        i = int(falls[0])
        raise ValueError(f"offsets must not fall, but offsets[{i + 1}]={offsets[i + 1]} < {offsets[i]}.")
    return offsets


def validated_out(out: NDArray[np.float32] | None, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Return an array of `shape` to write float32 rows to: the caller's `out`, or a new one."""
    if out is None:
        return np.empty(shape, np.float32)
    if not isinstance(out, np.ndarray) or out.dtype != np.float32 or out.shape != shape:
        found = f"{out.dtype} {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
        raise ValueError(f"out must be a float32 array of shape {shape}, got {found}.")
    if not (out.flags.c_contiguous and out.flags.writeable):
        raise ValueError("out must be C-contiguous and writeable.")
    return out.view(np.ndarray)
