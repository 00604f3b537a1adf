"""Reader of Qdrant collections on the local disk.

The client stores each point as a pickle in a SQLite file.
"""

from __future__ import annotations

import base64
import sqlite3
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from ..parsing import StandIn, load_pickle, load_plain, open_table, read_json_object
from ..sources import Document, Reader, ReadError, RowSource, Source, choose


def _open(
    path: Path, *, collection: str | None = None, vector: str | None = None, id_field: str | None = None
) -> Source:
    """Open a folder of QdrantClient(path=...): meta.json and collection/.

    `collection` and `vector` may be omitted if there is only one of each.  `id_field`
    is a field of the payload with the ids (default: the ids of the points).  A point
    without the vector is a document without tokens.  Vectors are returned as they were
    added, even if the distance is cosine and a server would normalize them.
    """
    collections = read_json_object(path / "meta.json")["collections"]
    collection = choose(collection, collections, "collection", "collection")
    if Path(collection).name != collection or collection == "..":
        raise ValueError(f"meta.json has the collection {collection!r}, which is not a folder's name")
    name, dimension = _vector(collections[collection], vector)
    file = path / "collection" / collection / "storage.sqlite"
    with closing(_connect(path, file)) as connection:
        count = len(_rows(connection))

    def documents() -> Iterator[Document]:
        with closing(_connect(path, file)) as connection:
            for identity, row in _rows(connection):
                (content,) = connection.execute("SELECT point FROM points WHERE rowid = ?", (row,)).fetchone()
                yield _document(content, identity, name, id_field)

    return RowSource(documents, name="qdrant", num_documents=count, dimension=dimension)


def _vector(collection: Mapping[str, Any], wanted: str | None) -> tuple[str, int]:
    """Return the name of the multi-vector and its width.

    The name is "" if the collection has a single vector.
    """
    vectors = collection.get("vectors") or {}
    named = {"": vectors} if "size" in vectors else vectors
    multi = {key: value for key, value in named.items() if value.get("multivector_config")}
    name = choose(wanted, multi, "multi-vector", "vector")
    return name, int(multi[name]["size"])


def _document(content: bytes, identity: int | str, name: str, id_field: str | None) -> Document:
    where = f"point {identity}"
    stored = load_pickle(content, where, _NAMES)
    fields = stored.fields if isinstance(stored, _StoredPoint) else {}
    if "vector" not in fields or fields.get("id") != identity:
        raise ValueError(f"{where} has no vectors, or contains a point with another id")
    value = fields["vector"]
    payload = fields.get("payload")
    if isinstance(value, dict):
        value = value.get(name)
    # A small pickle can refer to one list many times, so more numbers than bytes are
    # refused.
    if sum(len(row) for row in value or ()) > len(content):
        raise ValueError(f"{where} has more numbers than its pickle has bytes")
    rows = [np.fromiter(row, np.float32) for row in value or ()]
    tokens = np.stack(rows) if rows else np.empty((0, 0), np.float32)
    if id_field is None:
        return Document(tokens, where, identity)
    chosen = payload.get(id_field) if isinstance(payload, dict) else None
    if not isinstance(chosen, (int, str)) or isinstance(chosen, bool):
        raise ReadError(
            f"{where} has a {type(chosen).__name__} in the payload's {id_field!r}, but ids must be integers "
            "or strings."
        )
    return Document(tokens, where, chosen)


# -- stored points ----------------------------------------------------------------


class _StoredPoint(StandIn):
    """Stand-in for Qdrant's PointStruct, a pydantic model."""

    fields: dict[str, Any]

    def set_state(self, state: Any) -> None:
        self.fields = state["__dict__"]


_MODELS = "qdrant_client.http.models.models"
_NAMES: dict[str, Any] = {
    f"{_MODELS}.PointStruct": _StoredPoint,
    # Values of a point that are never used.
    **{f"{_MODELS}.{name}": StandIn for name in ("SparseVector", "Document", "Image", "InferenceObject")},
    **{f"datetime.{name}": StandIn for name in ("datetime", "date", "time", "timedelta", "timezone")},
    "uuid.UUID": StandIn,
    "decimal.Decimal": StandIn,
}


def _rows(connection: sqlite3.Connection) -> list[tuple[int | str, int]]:
    """Return ids and row numbers in the client's scrolling order.

    Integers are first, then UUIDs.
    """
    keys = connection.execute("SELECT rowid, id FROM points").fetchall()
    rows = [(load_plain(base64.b64decode(key, validate=True), "an id of a point"), row) for row, key in keys]
    if not all(isinstance(identity, (int, str)) for identity, _ in rows):
        raise ReadError("it has a point whose id is neither an integer nor a string. Copy the folder again.")
    return sorted(rows, key=lambda entry: (isinstance(entry[0], str), entry[0]))


def _connect(path: Path, file: Path) -> sqlite3.Connection:
    """Open a collection's points, which another client may be changing."""
    lock = path / ".lock"
    if sys.platform != "win32" and lock.is_file():
        import fcntl

        with lock.open("rb") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ReadError(
                    f"{path} is in use by another Qdrant client. Close that client first, or read a copy "
                    "of the folder."
                ) from None
    return open_table(file, "points", ("id", "point"), "qdrant-client")


READERS = (
    Reader(
        "qdrant",
        lambda path: (path / "meta.json").is_file() and (path / "collection").is_dir(),
        _open,
        "my-qdrant -o collection=docs",
    ),
)
