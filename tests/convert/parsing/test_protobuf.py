"""Protobuf messages are taken apart without a schema, and none is read beyond its end."""

import pytest

from muvera.convert.parsing.protobuf import fields, numbers

#: 1: 150, 2: "text", 3: four bytes, 4: eight bytes.
MESSAGE = b"\x08\x96\x01" + b"\x12\x04text" + b"\x1d\x01\x00\x00\x00" + b"\x21" + b"\x02" + b"\0" * 7


def test_fields() -> None:
    assert list(fields(MESSAGE)) == [(1, 150), (2, b"text"), (3, 1), (4, 2)]
    assert list(fields(b"")) == []


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"\x08", "number is truncated"),
        (b"\x08\x96", "number is truncated"),
        (b"\x12\x05text", "field is truncated"),
        (b"\x1d\x01", "field is truncated"),
        (b"\x0b", "a field of the unknown kind 3"),
        (b"\x08" + b"\xff" * 10 + b"\x01", "more than 64 bits"),
    ],
)
def test_what_is_no_message(message: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        list(fields(message))


def test_numbers_are_packed_or_alone() -> None:
    assert numbers(7) == [7] and numbers(b"\x07\x96\x01") == [7, 150] and numbers(b"") == []
    with pytest.raises(ValueError, match="number is truncated"):
        numbers(b"\x96")
