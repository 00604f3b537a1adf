"""Numbers as stores write them: nested lists, hex texts, packed bits, pgvector literals."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["from_hex", "is_matrix", "literal", "literals", "matrix", "unpack_signs"]

Matrix = NDArray[np.float32]

#: Vespa's cell types and how their hex digits are read: most significant byte first.
_CELLS = {"int8": "i1", "bfloat16": ">u2", "float": ">f4", "double": ">f8"}


def is_matrix(value: Any) -> bool:
    """Say whether `value` looks like token vectors: a list of lists of numbers."""
    return isinstance(value, list) and bool(value) and isinstance(value[0], list) and is_vector(value[0])


def is_vector(value: Any) -> bool:
    """Say whether `value` is a list that begins with a number."""
    return isinstance(value, list) and bool(value) and type(value[0]) in (int, float)


def matrix(value: Any, what: str) -> Matrix:
    """Return token vectors (t, dim) from nested lists; None and ``[]`` have no token.

    Raises
    ------
    ValueError
        Naming the token whose width differs, or what is not a number.
    """
    if value is None or (isinstance(value, (list, tuple)) and not value):
        return np.empty((0, 0), np.float32)
    try:
        array = np.asarray(value, np.float32)
    except (ValueError, TypeError) as error:
        if isinstance(value, list) and all(isinstance(row, list) for row in value):
            widths = [len(row) for row in value]
            odd = next((i for i, width in enumerate(widths) if width != widths[0]), None)
            if odd is not None:
                raise ValueError(
                    f"{what} has {widths[odd]} numbers in its token {odd}, but {widths[0]} in its first."
                ) from None
        raise ValueError(f"{what} is not a list of lists of numbers: {error}.") from None
    if array.ndim != 2:
        kind = "a single vector" if array.ndim == 1 else f"an array of shape {array.shape}"
        raise ValueError(f"{what} is {kind}, not one vector a token (a list of lists of numbers).")
    return array


def unpack_signs(rows: Any) -> Matrix:
    """Return +1 and -1 (t, 8 * bytes) for packed sign bits, the first bit the highest."""
    packed = np.asarray(rows)
    bits = np.unpackbits(packed.astype(np.int64).astype(np.uint8), axis=-1)
    return bits.astype(np.float32) * 2 - 1


def from_hex(text: str, cell: str, what: str) -> NDArray[Any]:
    """Return the numbers of a hex text whose cells have Vespa's type `cell`."""
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


def literal(text: str, what: str) -> list[float]:
    """Return the numbers of one pgvector literal, ``[0.1,0.2]``."""
    try:
        values = json.loads(text)
    except ValueError:
        values = None
    if not isinstance(values, list):
        raise ValueError(f"{what} has {text[:40]!r}, which is no pgvector literal such as [0.1,0.2].")
    return values


def literals(text: str, what: str) -> list[list[float]]:
    """Return the vectors of a Postgres array of them, ``{"[0.1,0.2]","[0.3,0.4]"}``."""
    body = text.strip()
    if not (body.startswith("{") and body.endswith("}")):
        raise ValueError(f'{what} has {text[:40]!r}, which is no array literal such as {{"[0.1,0.2]"}}.')
    # The array's quotes and commas make a JSON list of its elements, as no vector has quotes.
    return [literal(element, what) for element in json.loads(f"[{body[1:-1]}]")]
