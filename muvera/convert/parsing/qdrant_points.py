"""Points of a local Qdrant collection, read from its SQLite file without Qdrant's client.

The client keeps each point as a pickle, and loading a foreign pickle may run any program.
Here the rows are read by :mod:`sqlite3`, which only opens the file for reading, and the
pickles through an allow-list (see :mod:`muvera.convert.parsing.safe_pickle`).
"""

from __future__ import annotations

import base64
import io
import re
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from .safe_pickle import Unpickler, load_plain
from .sqlite_tables import open_table

__all__ = ["Point", "count_points", "read_points"]

#: Forms of a UUID that Qdrant takes, all of which mean the same point.
_UUID = re.compile(r"(urn:uuid:)?(?:[0-9a-f]{32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})", re.IGNORECASE)


class Point(NamedTuple):
    """A stored point."""

    id: int | str
    #: Its vector, or a dict of named ones.
    vector: Any
    payload: Any


class _StoredPoint:
    """Stand-in for Qdrant's PointStruct, a pydantic model."""

    __slots__ = ("fields",)

    def __setstate__(self, state: Any) -> None:
        self.fields = dict(state["__dict__"])


class _Opaque:
    """Stand-in for values of a point that are never looked at: sparse vectors, dates."""

    __slots__ = ()

    def __new__(cls, *_: Any) -> _Opaque:
        return object.__new__(cls)

    def __setstate__(self, state: Any) -> None:
        pass

    def __hash__(self) -> int:
        raise TypeError("a date or a model as a key")


_MODELS = "qdrant_client.http.models.models"
_NAMES: dict[str, Any] = {
    f"{_MODELS}.PointStruct": _StoredPoint,
    **{f"{_MODELS}.{name}": _Opaque for name in ("SparseVector", "Document", "Image", "InferenceObject")},
    **{f"datetime.{name}": _Opaque for name in ("datetime", "date", "time", "timedelta", "timezone")},
    "uuid.UUID": _Opaque,
    "decimal.Decimal": _Opaque,
}


def count_points(file: Path) -> int:
    """Return how many points a collection's ``storage.sqlite`` holds.

    Raises
    ------
    FileNotFoundError, ValueError
        As for :func:`read_points`.
    """
    with closing(_connect(file)) as connection:
        return len(_rows(connection, file))


def read_points(file: Path) -> Iterator[Point]:
    """Yield the points in the order in which Qdrant scrolls through them.

    Parameters
    ----------
    file : Path
        A collection's ``storage.sqlite``.  Nothing is created or changed beside it.

    Raises
    ------
    FileNotFoundError
        Where it is missing.
    pickle.UnpicklingError
        For a point that is more than plain data, naming what it asks for.
    ValueError
        For a damaged file, and for one with changes that were never finished.
    """
    with closing(_connect(file)) as connection:
        for identity, row in _rows(connection, file):
            found = connection.execute("SELECT point FROM points WHERE rowid = ?", (row,)).fetchone()
            if found is None or not isinstance(found[0], bytes):
                raise ValueError(f"{file}: the point {identity} is no pickle. Copy or export it again.")
            yield _point(found[0], identity, file)


def _point(content: bytes, identity: int | str, file: Path) -> Point:
    place = f"{file}, point {identity}"
    stored = Unpickler(io.BytesIO(content), place, _NAMES).read()
    fields = stored.fields if isinstance(stored, _StoredPoint) else {}
    if "vector" not in fields or _canonical(fields.get("id")) != identity:
        raise ValueError(f"{place} is not the point that its key names. Copy or export it again.")
    return Point(identity, fields["vector"], fields.get("payload"))


def _rows(connection: sqlite3.Connection, file: Path) -> list[tuple[int | str, int]]:
    """Return ids and row numbers in scrolling order: integers first, then UUIDs.

    A point that was written under several spellings of its UUID has several rows; the last one
    counts.
    """
    latest: dict[int | str, int] = {}
    for row, key in connection.execute("SELECT rowid, id FROM points ORDER BY rowid"):
        try:
            identity = _canonical(load_plain(base64.b64decode(key, validate=True), str(file)))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{file}: the key {key!r} is not a point's id: {error}.") from None
        latest[identity] = row
    return sorted(latest.items(), key=lambda entry: (isinstance(entry[0], str), entry[0]))


def _canonical(identity: Any) -> int | str:
    """Return an id as Qdrant compares it."""
    if isinstance(identity, int) and not isinstance(identity, bool):
        return identity
    if isinstance(identity, str):
        return str(uuid.UUID(identity)) if _UUID.fullmatch(identity) else identity
    raise ValueError(f"a point's id must be an integer or a UUID, got {type(identity).__name__}")


def _connect(file: Path) -> sqlite3.Connection:
    """Open the database for reading alone, or say what is there instead."""
    if not file.is_file():
        if file.with_suffix(".dbm").exists() or any(file.parent.glob("storage.dbm*")):
            raise ValueError(
                f"{file.parent} was written by qdrant-client before 1.1.7, whose storage.dbm is not read. "
                "Open it once with a newer qdrant-client, which converts it."
            )
        raise FileNotFoundError(f"{file} is missing, so the collection has no points. Copy the whole folder.")
    return open_table(file, "points", ("id", "point"), "qdrant-client")
