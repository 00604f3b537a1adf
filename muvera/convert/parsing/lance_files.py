"""Files of Lance tables, looked into before LanceDB opens them.

A manifest may name base paths: folders and addresses anywhere, whose files LanceDB opens as
the table's own.  Only what lies in a table is read here.

A data file ends with tables of places and sizes.  LanceDB asks for as much memory as they say, and where
it does not get it the process ends.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from .protobuf import fields, numbers

__all__ = ["require_sound_table"]

#: The manifest's field of base paths, in Lance's ``table.proto``.
_BASE_PATHS = 18

#: Of a data file of version 2: places of the columns' descriptions, of the table of these places, and of the
#: table of global buffers; numbers of global buffers and of columns; version; "LANC".
_FOOTER = struct.Struct("<QQQIIHH4s")

#: Versions whose files end in another way.
_OLD_VERSIONS = ((0, 1), (0, 2))

#: Fields of a column's description (``file2.proto``): its pages, then places and sizes of buffers.
_PAGES, _COLUMN_PLACES, _COLUMN_SIZES = 2, 3, 4
_PAGE_PLACES, _PAGE_SIZES = 1, 2


def require_sound_table(folder: Path) -> None:
    """Raise ValueError where the table in `folder` has files elsewhere, or one that is damaged at its end.

    Raises
    ------
    ValueError
        Naming the file.
    """
    for file in sorted((folder / "_versions").glob("*.manifest")):
        try:
            found = {number for number, _ in fields(_message(file.read_bytes()))}
        except ValueError as error:
            raise ValueError(f"{file} is damaged: {error}. Copy or export the table again.") from None
        if _BASE_PATHS in found:
            raise ValueError(
                f"{file} names folders outside the table that hold its rows, and only what lies in a table is "
                "read. Copy the table with LanceDB, which brings its rows together."
            )
    for file in sorted((folder / "data").rglob("*.lance")):
        try:
            with file.open("rb") as stream:
                _check_data_file(stream, file.stat().st_size)
        except ValueError as error:
            raise ValueError(f"{file} is damaged: {error}. Copy or export the table again.") from None


def _message(content: bytes) -> bytes:
    """Return the manifest's message, whose place is in the last 16 bytes."""
    if content[-4:] != b"LANC":
        raise ValueError("it does not end as a manifest does")
    begins = int.from_bytes(content[-16:-8], "little")
    length = int.from_bytes(content[begins : begins + 4], "little")
    message = content[begins + 4 : begins + 4 + length]
    if len(message) != length:
        raise ValueError(f"its message of {length} bytes is truncated")
    return message


def _check_data_file(stream: BinaryIO, size: int) -> None:
    """Raise ValueError where a place and a size in the file's last part lead beyond its end."""
    if size < _FOOTER.size:
        raise ValueError(f"its {size} bytes are too few")
    stream.seek(size - _FOOTER.size)
    first, columns_at, buffers_at, buffers, columns, major, minor, magic = _FOOTER.unpack(
        stream.read(_FOOTER.size)
    )
    if magic != b"LANC":
        raise ValueError("it does not end as a data file does")
    if (major, minor) in _OLD_VERSIONS:
        return
    _require_within(size, first, 0, "the columns' descriptions")
    for place, length in _table(stream, size, buffers_at, buffers, "global buffers"):
        _require_within(size, place, length, "a global buffer")
    for place, length in _table(stream, size, columns_at, columns, "columns"):
        _require_within(size, place, length, "a column's description")
        stream.seek(place)
        _check_column(stream.read(length), size)


def _table(stream: BinaryIO, size: int, place: int, count: int, what: str) -> Iterator[tuple[int, int]]:
    """Yield places and sizes."""
    _require_within(size, place, 16 * count, f"its table of {count} {what}")
    stream.seek(place)
    yield from struct.iter_unpack("<QQ", stream.read(16 * count))


def _check_column(description: bytes, size: int) -> None:
    found = list(fields(description))
    _check_buffers(found, _COLUMN_PLACES, _COLUMN_SIZES, size)
    for number, page in found:
        if number == _PAGES and isinstance(page, bytes):
            _check_buffers(list(fields(page)), _PAGE_PLACES, _PAGE_SIZES, size)


def _check_buffers(found: list[tuple[int, int | bytes]], places: int, sizes: int, size: int) -> None:
    starts = [start for number, value in found if number == places for start in numbers(value)]
    lengths = [length for number, value in found if number == sizes for length in numbers(value)]
    if len(starts) != len(lengths):
        raise ValueError(f"a column has {len(starts)} places and {len(lengths)} sizes of buffers")
    for start, length in zip(starts, lengths, strict=True):
        _require_within(size, start, length, "a column's buffer")


def _require_within(size: int, place: int, length: int, what: str) -> None:
    if place + length > size:
        raise ValueError(f"{what} of {length} bytes at {place} reaches beyond its {size} bytes")
