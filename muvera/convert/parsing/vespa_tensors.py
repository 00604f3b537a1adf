"""Decoder of Vespa's tensors: a block of numbers for each token, or single cells.

The documented forms are read: blocks as an object or a list, short and long, hex texts of
cells, and cells with addresses.  The tensor's type says how many numbers a block has.
"""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple

from .number_literals import from_hex, is_hex, matrix, small_integers
from .store_rows import Row, Settings, Values, row_id

__all__ = ["fields", "identity", "is_tensor", "values"]

# {"id": "id:ns:type::7", "fields": {name: tensor}}


def fields(row: Row) -> dict[str, Any]:
    """Return the row's fields."""
    return row.get("fields") or {}


def identity(row: Row, settings: Settings) -> Any:
    """Return the user's part of the row's document id.

    Raises
    ------
    ValueError
        As :func:`~muvera.convert.parsing.store_rows.row_id`.
    """
    if settings.id_field is not None:
        return row_id(row.get("fields"), settings)
    full = row_id({"id": row.get("id", row.get("put"))}, settings)
    # id:<namespace>:<document type>:<key/value pair, mostly none>:<the user's id>
    return full.split(":", 4)[4] if isinstance(full, str) and full.count(":") >= 4 else full


def is_tensor(value: Any) -> bool:
    """Return whether a field's value can be a tensor of one mapped dimension."""
    if not isinstance(value, dict):
        return False
    if "blocks" in value or "cells" in value:
        return True
    return bool(value) and all(isinstance(part, list) or is_hex(part) for part in value.values())


def values(value: dict[str, Any] | None, settings: Settings, what: str) -> Values:
    """Return the token vectors of a tensor, in the order of their numbers.

    Raises
    ------
    ValueError
        For two blocks at one address, blocks of another size than the type declares, cells that
        are missing, and numbers that do not fit the type.
    """
    if not value:
        return matrix(None, what), None
    declared = _Type.of(value.get("type"))
    cell = settings.cell_type or declared.cell
    blocks: dict[Any, Any]
    if "cells" in value:
        blocks = _blocks_of_cells(value["cells"], declared, what)
    else:
        listed: Any = value.get("blocks", value)
        if isinstance(listed, list):
            listed = _distinct([(_only(block["address"], what), block["values"]) for block in listed], what)
        blocks = dict(listed)
    keys = list(blocks)
    if all(re.fullmatch(r"-?\d{1,19}", key) for key in keys):
        keys.sort(key=int)  # "10" comes after "9"
    rows = [blocks[key] for key in keys]
    if any(isinstance(row, str) for row in rows):
        if cell is None:
            raise ValueError(f"{what} is hex without a tensor type. Give cell_type='int8' or 'bfloat16'.")
        rows = [from_hex(row, cell, what) if isinstance(row, str) else row for row in rows]
    for key, row in zip(keys, rows, strict=True):
        if declared.size is not None and len(row) != declared.size:
            raise ValueError(
                f"{what} has {len(row)} numbers in its block {key!r}, but its type {value['type']} declares "
                f"{declared.size}. Export it again."
            )
    if cell == "int8":
        # Vespa's ColBERT embedder packs 8 signs into each int8, the usual meaning there.
        return small_integers(rows, settings.packed_signs is not False, what)
    return matrix(rows, what), None


class _Type(NamedTuple):
    """A tensor's type, such as ``tensor<float>(dt{},x[128])``."""

    cell: str | None
    mapped: list[str]
    indexed: list[str]
    #: Numbers of a block; None where the type does not say it.
    size: int | None

    @classmethod
    def of(cls, text: Any) -> _Type:
        if not isinstance(text, str):
            return cls(None, [], [], None)
        cell = re.match(r"tensor<(\w+)>", text)
        dimensions = re.findall(r"(\w+)(\{\}|\[\d{0,9}\])", text)
        indexed = [name for name, size in dimensions if size != "{}"]
        sizes = [size[1:-1] for _, size in dimensions if size != "{}"]
        known = bool(sizes) and all(sizes)
        return cls(
            cell[1] if cell else None,
            [name for name, size in dimensions if size == "{}"],
            indexed,
            math.prod(map(int, sizes)) if known else None,
        )


def _only(address: dict[str, Any], what: str) -> str:
    if len(address) != 1:
        raise ValueError(f"{what} has blocks at {address}, but only one mapped dimension can be tokens.")
    return str(next(iter(address.values())))


def _distinct(pairs: list[tuple[Any, Any]], what: str) -> dict[Any, Any]:
    """Return the pairs as a dict, or raise ValueError for a key that stands twice."""
    found: dict[Any, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(
                f"{what} has two values at {key!r}, but an address stands for one. Export it again."
            )
        found[key] = value
    return found


def _blocks_of_cells(cells: Any, declared: _Type, what: str) -> dict[str, list[Any]]:
    """Return blocks from single cells, whose type says which dimension is mapped."""
    if len(declared.mapped) != 1 or len(declared.indexed) != 1:
        raise ValueError(
            f"{what} has cells, whose type must name one mapped and one indexed dimension, such as "
            f"tensor<float>(dt{{}},x[128]); got the mapped {declared.mapped} and the indexed {declared.indexed}."
        )
    token, coordinate = declared.mapped[0], declared.indexed[0]
    found: dict[str, list[tuple[int, Any]]] = {}
    for cell in cells:
        address = cell["address"]
        found.setdefault(str(address[token]), []).append((int(address[coordinate]), cell["value"]))
    blocks = {}
    for key, pairs in found.items():
        block = _distinct(pairs, f"{what}, token {key!r},")
        width = len(block) if declared.size is None else declared.size
        missing = next((i for i in range(min(width, len(block) + 1)) if i not in block), None)
        if missing is not None:
            raise ValueError(
                f"{what} has no cell for coordinate {missing} of token {key!r}. Export it again."
            )
        blocks[key] = [block[i] for i in sorted(block)]
    return blocks
