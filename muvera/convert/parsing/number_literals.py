"""Numbers as stores write them: nested lists, hex texts, packed bits, pgvector literals."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...utils.checks import given

__all__ = [
    "Matrix", "from_hex", "is_hex", "is_matrix", "is_vector", "literal", "literals", "matrix",
    "small_integers", "unpack_signs",
]  # fmt: skip

Matrix = NDArray[np.float32]

#: What JSON's numbers are in Python.
_NUMBERS = frozenset((int, float))

#: Vespa's cell types and how their hex digits are read: most significant byte first.
_CELLS = {"int8": "i1", "bfloat16": ">u2", "float": ">f4", "double": ">f8"}


def is_matrix(value: Any) -> bool:
    """Return whether `value` looks like token vectors: a list of lists of numbers."""
    return isinstance(value, list) and bool(value) and isinstance(value[0], list) and is_vector(value[0])


def is_vector(value: Any) -> bool:
    """Return whether `value` is a list that begins with a number."""
    return isinstance(value, list) and bool(value) and type(value[0]) in (int, float)


def is_hex(value: Any) -> bool:
    """Return whether `value` is a text of hex digits, two a byte."""
    return isinstance(value, str) and re.fullmatch(r"([0-9a-fA-F]{2})+", value) is not None


def matrix(value: Any, what: str) -> Matrix:
    """Return token vectors (t, dimension) from nested lists; None and ``[]`` have no token.

    Raises
    ------
    ValueError
        Naming the token whose width differs, or what is not a number: texts, bools and null are
        none, though NumPy takes them.
    """
    if value is None or (isinstance(value, (list, tuple)) and not value):
        return np.empty((0, 0), np.float32)
    if isinstance(value, list):
        _require_numbers(value, what)
    try:
        with np.errstate(over="ignore"):  # infinities are refused with the document's place
            array = np.asarray(value, np.float32)
    except OverflowError:
        raise ValueError(f"{what} has an integer that is too large for a number of a token.") from None
    except (ValueError, TypeError) as error:
        raise ValueError(f"{what} is not a list of lists of numbers: {error}.") from None
    if array.ndim != 2:
        kind = "a single vector" if array.ndim == 1 else f"an array of shape {array.shape}"
        raise ValueError(f"{what} is {kind}, not one vector a token (a list of lists of numbers).")
    return array


def _require_numbers(rows: list[Any], what: str) -> None:
    """Raise ValueError where lists of numbers hold something else, or have different lengths."""
    for i, row in enumerate(rows):
        if not isinstance(row, list):
            continue
        if isinstance(rows[0], list) and len(row) != len(rows[0]):
            raise ValueError(
                f"{what} has {len(row)} numbers in its token {i}, but {len(rows[0])} in its first."
            )
        if not _NUMBERS.issuperset(map(type, row)):
            wrong = next(value for value in row if type(value) not in _NUMBERS)
            raise ValueError(f"{what} has {given(wrong)} in its token {i}, where a number must stand.")


def small_integers(rows: list[Any], packed: bool, what: str) -> tuple[Matrix, int]:
    """Return token vectors of 8-bit integers, and bits a coordinate.

    Parameters
    ----------
    rows : list of lists of integers from -128 to 127
        One a token.
    packed : bool
        Whether each integer holds 8 signs, which are unpacked to +1 and -1.
    what : str
        What messages call them.

    Raises
    ------
    ValueError
        For a number that is not whole, or outside 8 bits: it would wrap.
    """
    values = matrix(rows, what)
    wrong = (values != np.rint(values)) | (values < -128) | (values > 127)
    if wrong.any():
        token, place = (int(axis[0]) for axis in np.nonzero(wrong))
        raise ValueError(
            f"{what} has {values[token, place]!s} in its token {token}, but an int8 is a whole number from "
            "-128 to 127."
        )
    return (unpack_signs(values), 1) if packed else (values, 8)


def unpack_signs(rows: Any) -> Matrix:
    """Return +1 and -1 (t, 8 * bytes) for packed sign bits, the first bit the highest."""
    packed = np.asarray(rows)
    bits = np.unpackbits(packed.astype(np.int64).astype(np.uint8), axis=-1)
    return bits.astype(np.float32) * 2 - 1


def from_hex(text: str, cell: str, what: str) -> NDArray[Any]:
    """Return the numbers of a hex text whose cells have Vespa's type `cell`.

    Raises
    ------
    ValueError
        For another type, and for a text that is not the hex of whole cells.
    """
    if cell not in _CELLS:
        raise ValueError(f"{what} has cells of type {cell!r}; known are {', '.join(_CELLS)}.")
    try:
        values = np.frombuffer(bytes.fromhex(text), _CELLS[cell])
    except ValueError as error:
        raise ValueError(f"{what} is not the hex text of {cell} cells: {error}.") from None
    if cell == "bfloat16":
        values = (values.astype(np.uint32) << np.uint32(16)).view(np.float32)
    native: NDArray[Any] = values.astype(np.int8 if cell == "int8" else np.float32)
    return native


def literal(text: str, what: str) -> list[Any]:
    """Return what one pgvector literal, ``[0.1,0.2]``, lists.

    Raises
    ------
    ValueError
        Where it is none.
    """
    try:
        values = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        values = None
    if not isinstance(values, list):
        raise ValueError(f"{what} has {str(text)[:40]!r}, which is no pgvector literal such as [0.1,0.2].")
    return values


def literals(text: str, what: str) -> list[list[Any]]:
    """Return what the vectors of a Postgres array, ``{"[0.1,0.2]","[0.3,0.4]"}``, list.

    Raises
    ------
    ValueError
        Where it is no such array.
    """
    body = text.strip()
    # The array's quotes and commas make a JSON list of its elements, as no vector has quotes.
    try:
        elements = json.loads(f"[{body[1:-1]}]") if body[:1] + body[-1:] == "{}" else None
    except (ValueError, RecursionError):
        elements = None
    if elements is None:
        raise ValueError(f'{what} has {text[:40]!r}, which is no array literal such as {{"[0.1,0.2]"}}.')
    return [literal(element, what) for element in elements]
