"""Data files of Lance are looked into before LanceDB asks for the memory that they claim."""

import struct
from pathlib import Path
from typing import Any

import pytest

from muvera.convert.parsing.lance_files import require_sound_table

#: 16 bytes of numbers, then a column's description: a page of one buffer at 0, and a buffer of its own.
DATA = bytes(16)
PAGE = b"\x0a\x01\x00" + b"\x12\x01\x10"
COLUMN = b"\x12" + bytes([len(PAGE)]) + PAGE + b"\x1a\x01\x04" + b"\x22\x01\x08"


def table(folder: Path, **changes: Any) -> Path:
    """Write a table with one data file of one column and one global buffer."""
    column = changes.get("column", COLUMN)
    columns_at = len(DATA) + len(column)
    footer = {
        "first": len(DATA),
        "columns_at": columns_at,
        "buffers_at": columns_at + 16,
        "buffers": 1,
        "columns": 1,
        "major": 2,
        "minor": 1,
        "magic": b"LANC",
        **changes.get("footer", {}),
    }
    places = struct.pack("<QQ", *changes.get("column_at", (len(DATA), len(column))))
    buffer = struct.pack("<QQ", *changes.get("buffer_at", (0, 16)))
    content = DATA + column + places + buffer + struct.pack("<QQQIIHH4s", *footer.values())
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "a.lance").write_bytes(content[: changes.get("cut")])
    return folder


def test_sound_files_pass(tmp_path: Path) -> None:
    require_sound_table(table(tmp_path / "a"))
    require_sound_table(table(tmp_path / "b", footer={"columns": 0, "buffers": 0}))
    require_sound_table(table(tmp_path / "old", footer={"major": 0, "minor": 2, "columns": 1 << 30}))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"footer": {"buffers": 1 + (1 << 29)}}, "its table of 536870913 global buffers of 8589934608 bytes"),
        ({"footer": {"columns": 1 << 30}}, "its table of 1073741824 columns"),
        ({"footer": {"columns_at": (1 << 64) - 8}}, "its table of 1 columns"),
        ({"footer": {"first": 1 << 20}}, "the columns' descriptions of 0 bytes at 1048576"),
        ({"footer": {"magic": b"LANX"}}, "does not end as a data file does"),
        ({"buffer_at": (0, 1 << 40)}, "a global buffer of 1099511627776 bytes"),
        ({"column_at": (16, 1 << 40)}, "a column's description of 1099511627776 bytes"),
        (
            {"column": COLUMN.replace(b"\x12\x01\x10", b"\x12\x01\x7f") + b"\x1a\x01\x7f"},
            "2 places and 1 sizes",
        ),
        (
            {"column": COLUMN[:-1] + b"\x7f" + b"\x28\x01"},
            "a column's buffer of 127 bytes at 4 reaches beyond",
        ),
        ({"column": COLUMN.replace(b"\x12\x01\x10", b"\x12\x01\x7f")}, "a column's buffer of 127 bytes at 0"),
        ({"column": COLUMN[:-1]}, "field is truncated"),
        ({"cut": 20}, "its 20 bytes are too few"),
        ({"cut": -1}, "does not end as a data file does"),
    ],
)
def test_claims_beyond_the_file_are_refused(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    folder = table(tmp_path / "a", **changes)
    with pytest.raises(ValueError, match=r"a\.lance is damaged: .*" + reason):
        require_sound_table(folder)
