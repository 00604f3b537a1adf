"""Manifests of Lance tables, looked into for rows that lie outside the table's folder.

A manifest may name base paths: folders and addresses anywhere, whose files LanceDB opens as
the table's own.  Only what lies in a table is read here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

__all__ = ["require_no_base_paths"]

#: The manifest's field of base paths, in Lance's ``table.proto``.
_BASE_PATHS = 18


def require_no_base_paths(folder: Path) -> None:
    """Raise ValueError where a version of the table in `folder` has files elsewhere.

    Raises
    ------
    ValueError
        Naming the manifest, also where it is damaged.
    """
    for file in sorted((folder / "_versions").glob("*.manifest")):
        try:
            fields = list(_fields(_message(file.read_bytes())))
        except (IndexError, ValueError) as error:
            raise ValueError(f"{file} is damaged: {error}. Copy or export the table again.") from None
        if _BASE_PATHS in fields:
            raise ValueError(
                f"{file} names folders outside the table that hold its rows, and only what lies in a table is "
                "read. Copy the table with LanceDB, which brings its rows together."
            )


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


def _fields(message: bytes) -> Iterator[int]:
    """Yield the numbers of a protobuf message's fields, skipping what they hold."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        yield key >> 3
        kind = key & 7
        if kind == 0:
            _, at = _varint(message, at)
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        elif kind == 2:
            length, at = _varint(message, at)
            at += length
        else:
            raise ValueError(f"a field of the unknown kind {kind}")
    if at != len(message):
        raise ValueError("its last field is truncated")


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """Return a number of 7 bits a byte, and where it ends."""
    number = shift = 0
    while True:
        byte = message[at]
        number |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return number, at
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
