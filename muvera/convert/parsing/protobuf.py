"""Protobuf's wire format: the numbers of a message's fields and what they hold, without a schema."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["fields", "numbers"]


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield each field's number and its value: an int, or the bytes of a text, a message or a list.

    Raises
    ------
    ValueError
        Where the message is truncated, or no message.
    """
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind, value = key & 7, at
        if kind == 0:
            value, at = _varint(message, at)
            yield key >> 3, value
            continue
        if kind == 2:
            length, value = _varint(message, at)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(f"a field of the unknown kind {kind}")
        at = value + length
        if at > len(message):
            raise ValueError("its last field is truncated")
        held = message[value:at]
        yield key >> 3, held if kind == 2 else int.from_bytes(held, "little")


def numbers(value: int | bytes) -> list[int]:
    """Return the numbers of one occurrence of a repeated field, which may be packed into bytes.

    Raises
    ------
    ValueError
        Where the last one is truncated.
    """
    if isinstance(value, int):
        return [value]
    found, at = [], 0
    while at < len(value):
        number, at = _varint(value, at)
        found.append(number)
    return found


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """Return a number of 7 bits a byte, and where it ends."""
    number = shift = 0
    while at < len(message):
        byte = message[at]
        number |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return number, at
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
    raise ValueError("its last number is truncated")
