"""Cells of tensors as vector stores write them: numbers, hex strings and packed signs.

Binarized token vectors keep one sign per coordinate, 8 signs in a byte, the first in
the highest bit.  Vespa's ``unpack_bits`` reads them in this order.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..utils.hints import Argument, Message
from .parsing import float32_of_bfloat16
from .sources import ReadError

#: NumPy's type code of a cell in hex, by the cell's type: most significant byte first.
#: "bits" are bytes of 8 signs each.
CELL_TYPES = {"bits": "i1", "int8": "i1", "bfloat16": ">u2", "float": ">f4", "double": ">f8"}

#: Bits per coordinate of the types that store less than a float.
NBITS = {"bits": 1, "int8": 8}

# Maximum number of bytes of a block of int8 that is read as signs without being told:
# 256 signs.  Token vectors seldom have more columns, and a longer block may as well be
# numbers.
_SIGN_BYTES = 32

# The smallest and the largest number of an int8.
_INT8 = range(-128, 128)


def is_hex(value: object) -> bool:
    """Return True for a string of hex digits, two per byte."""
    return isinstance(value, str) and re.fullmatch(r"(?:[0-9a-fA-F]{2})+", value) is not None


def cell_type_of(rows: list[Any], declared: str, where: str) -> str:
    """Return the type of a tensor's cells, a key of :data:`CELL_TYPES`.

    `rows` has a block per token: numbers or a hex string.  `declared` is the type of
    the tensor, such as ``"tensor<int8>(dt{},x[16])"``, or ``""``.  `where` is the name
    of the field, for messages.

    Raises
    ------
    ReadError
        For a cell type that is not in :data:`CELL_TYPES`, and for integers or hex
        strings that can be signs or numbers.
    """
    cells = re.match(r"tensor<(\w+)>", declared)
    # A tensor whose type names no cells has cells of double.
    cell = cells[1] if cells else "double" if declared else ""
    if cell and cell not in CELL_TYPES:
        raise ReadError(f"it has in {where} cells of the type {cell!r}. Export float cells.")
    in_hex = isinstance(rows[0], str)
    width = len(rows[0]) // 2 if in_hex else len(rows[0])
    if cell == "int8" and width <= _SIGN_BYTES:
        return "bits"
    if cell and cell != "int8":
        return cell
    if not in_hex and not all(type(number) is int and number in _INT8 for row in rows for number in row):
        return "float"
    what = "hex strings" if in_hex else "integers"
    kind = f" of {width} int8 cells" if cell else " without a tensor type"
    raise ReadError(
        Message(
            f"it has in {where} {what}{kind}, which can be packed signs or numbers. Give ",
            Argument("cell_type", "'bits'"),
            f" for {8 * width} signs, or ",
            Argument("cell_type", "'int8'"),
            " for numbers; for hex of other numbers give their type.",
        )
    )


def unpacked(rows: list[Any], cell: str, where: str) -> NDArray[Any]:
    """Return the numbers of a tensor, a row per token (t, dimension).

    Signs are +1 and -1.  Numbers are float32 for signs, cells of "int8" and hex
    strings.  `rows` and `where` are described at :func:`cell_type_of`, which returns
    `cell`.

    Raises
    ------
    ReadError
        For hex strings of another type, and numbers outside an int8.
    """
    array = np.asarray([_from_hex(row, cell, where) if isinstance(row, str) else row for row in rows])
    if cell not in NBITS or array.dtype.kind not in "if":
        return array
    small = array.astype(np.float32)
    wrong = (small != np.rint(small)) | (small < _INT8.start) | (small >= _INT8.stop)
    if wrong.any():
        raise ReadError(
            f"it has in {where} {small[wrong][0]:g}, but an int8 is an integer from -128 to 127. Export it "
            "again."
        )
    if cell == "int8":
        return small
    bits = np.unpackbits(small.astype(np.int8).view(np.uint8), axis=-1)
    return bits.astype(np.float32) * 2 - 1


def _from_hex(text: str, cell: str, where: str) -> NDArray[np.float32]:
    """Return the numbers of a hex string."""
    code = np.dtype(CELL_TYPES[cell])
    if not is_hex(text) or len(text) % (2 * code.itemsize):
        raise ReadError(
            f"it has in {where} {text[:40]!r}, which is not hex of {cell} cells. Export it again."
        )
    numbers: NDArray[Any] = np.frombuffer(bytes.fromhex(text), code)
    if cell == "bfloat16":
        return float32_of_bfloat16(numbers.astype(np.uint16))
    with np.errstate(over="ignore"):  # the document is refused later, with its number
        return numbers.astype(np.float32)
