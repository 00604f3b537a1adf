"""Small parsers that several readers share: JSON, bfloat16, zip members and SQLite tables."""

from __future__ import annotations

import gzip
import json
import re
import sqlite3
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..damage import ReadError, naming_errors


def starts_with(path: Path, magic: bytes) -> bool:
    """Return True if `path` is a file that begins with these bytes."""
    try:
        with path.open("rb") as stream:
            return stream.read(len(magic)) == magic
    except OSError:
        return False


def read_json(path: Path) -> Any:
    """Read a JSON file, which may be compressed by gzip."""
    with (
        naming_errors(str(path), "json"),
        gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream,
    ):
        return json.loads(stream.read())


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON object as :func:`read_json` does."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise ReadError(f"{path} must contain a JSON object, got {type(value).__name__}. Copy it again.")
    return value


def float32_of_bfloat16(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Return the numbers of bfloat16 bit patterns."""
    wide: NDArray[np.uint32] = np.left_shift(bits, np.uint32(16), dtype=np.uint32)
    return wide.view(np.float32)


_LOCAL_HEADER_BYTES = 30  # before the member's name


def stored_bytes(file: NDArray[np.uint8], member: zipfile.ZipInfo) -> NDArray[np.uint8]:
    """Return the bytes of an uncompressed member, as a view of the zip file's bytes."""
    if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
        raise ValueError(f"{member.filename} is compressed or encrypted")
    header: Any = file[member.header_offset : member.header_offset + _LOCAL_HEADER_BYTES]
    if member.header_offset < 0 or len(header) < _LOCAL_HEADER_BYTES or bytes(header[:4]) != b"PK\x03\x04":
        raise ValueError(f"{member.filename} has no local header")
    # Writers pad the extra field of the local header only, so that the data is aligned.
    lengths = int.from_bytes(bytes(header[26:28]), "little") + int.from_bytes(bytes(header[28:30]), "little")
    start = member.header_offset + _LOCAL_HEADER_BYTES + lengths
    if start + member.file_size > len(file):
        raise ValueError(f"{member.filename} reaches beyond the end of the file")
    return file[start : start + member.file_size]


_WAL_BYTES = slice(18, 20)  # of SQLite's header: 2 if changes go to a second file first


def open_table(file: Path, table: str, columns: tuple[str, ...], owner: str) -> sqlite3.Connection:
    """Open a SQLite file of `owner` that has a plain table, without creating or changing any file.

    A view or a computed column is refused: it can run forever.
    """
    with file.open("rb") as stream:
        wal = b"\x02" in stream.read(_WAL_BYTES.stop)[_WAL_BYTES]
    for suffix in ("-wal", "-journal"):
        beside = file.with_name(file.name + suffix)
        if beside.is_file() and beside.stat().st_size:
            raise ReadError(
                f"{beside} contains unfinished changes. Open the folder once with {owner}, "
                "which finishes them, and close it."
            )
    # In WAL mode even reading creates a second file, unless the database is immutable.
    uri = f"{file.absolute().as_uri()}?mode=ro{'&immutable=1' if wal else ''}"
    connection = sqlite3.connect(uri, uri=True, check_same_thread=False)
    try:
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
        entries = connection.execute(
            "SELECT type, sql FROM sqlite_master WHERE name = ?", (table,)
        ).fetchall()
        plain = [kind == "table" and re.match(r"\s*CREATE\s+TABLE\b", sql or "") for kind, sql in entries]
        stored = {
            name for _, name, *_, hidden in connection.execute(f"PRAGMA table_xinfo({table})") if not hidden
        }
        if len(plain) != 1 or not plain[0] or not stored.issuperset(columns):
            raise ReadError(
                f"{file} has no table {table!r} with the columns {' and '.join(columns)}, as {owner} writes it. "
                "Copy or export it again."
            )
    except BaseException:
        connection.close()
        raise
    return connection
