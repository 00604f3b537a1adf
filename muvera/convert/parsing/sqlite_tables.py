"""Tables of foreign SQLite files, opened so that nothing is created, changed or computed."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

__all__ = ["open_table"]

#: In SQLite's header: the bytes that say whether changes go to a second file first.
_WAL_BYTES = slice(18, 20)


def open_table(file: Path, table: str, columns: tuple[str, ...], owner: str) -> sqlite3.Connection:
    """Return a connection to a file with a plain table, for reading alone.

    Parameters
    ----------
    file : Path
        The database.
    table : str
        The table's name; `columns` must be stored in it.
    owner : str
        Who writes such files, for messages.

    Raises
    ------
    ValueError
        For changes beside the file that were never finished, and for a table that is missing or
        not plain: a view, a virtual table or a computed column can make SQLite run for ever.
    sqlite3.Error
        For a damaged file.
    """
    with file.open("rb") as stream:
        wal = b"\x02" in stream.read(_WAL_BYTES.stop)[_WAL_BYTES]
    for suffix in ("-wal", "-journal"):
        beside = file.with_name(file.name + suffix)
        if beside.is_file() and beside.stat().st_size:
            raise ValueError(
                f"{beside} holds changes that were not finished. Open the folder once with {owner}, "
                "which finishes them, and close it."
            )
    # In the mode with a second file even reading creates that one, but for what is immutable.
    uri = f"{file.absolute().as_uri()}?mode=ro{'&immutable=1' if wal else ''}"
    connection = sqlite3.connect(uri, uri=True, check_same_thread=False)
    try:
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
        found = connection.execute("SELECT type, sql FROM sqlite_master WHERE name = ?", (table,)).fetchall()
        plain = [kind for kind, sql in found if kind == "table" and _creates_a_table(sql)]
        stored = {
            name for _, name, *_, hidden in connection.execute(f"PRAGMA table_xinfo({table})") if not hidden
        }
        if len(plain) != 1 or not stored.issuperset(columns):
            raise ValueError(
                f"{file} has no table {table!r} with the columns {' and '.join(columns)}, as {owner} makes it. "
                "Copy or export it again."
            )
    except BaseException:
        connection.close()
        raise
    return connection


def _creates_a_table(statement: object) -> bool:
    return isinstance(statement, str) and re.match(r"\s*CREATE\s+TABLE\b", statement) is not None
