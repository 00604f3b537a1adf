"""Qdrant collections on the local disk, as the embedded client keeps them.

The folder is the one given to ``QdrantClient(path=...)``; it is read without that client, see
:mod:`muvera.convert.parsing.qdrant_points`.  A server's collection comes out through its
scroll API as JSON: see the jsonl format.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..parsing.index_files import read_json
from ..parsing.qdrant_points import Point, count_points, read_points
from ..sources.base import Source
from ..sources.documents import Document, RowSource

__all__ = ["DESCRIPTION", "NAME", "matches", "open_source"]

NAME = "qdrant"
DESCRIPTION = "a folder of QdrantClient(path=...): meta.json and collection/"


def matches(path: Path) -> bool:
    """Say whether `path` is a local Qdrant folder."""
    return path.is_dir() and (path / "meta.json").is_file() and (path / "collection").is_dir()


def open_source(
    path: Path, *, collection: str | None = None, vector: str | None = None, id_field: str | None = None
) -> Source:
    """Return the source of a local Qdrant collection; Qdrant itself is not needed.

    A point without the vector is a document without tokens.  Vectors are returned as they were
    added, also where the distance is cosine and a server would normalize them.  Points come in
    the order of their ids, integers first.

    Parameters
    ----------
    path : Path
        The folder of the embedded client.
    collection : str, optional
        Which collection.  Default: the only one.
    vector : str, optional
        The named multi-vector.  Default: the only one.
    id_field : str, optional
        Take the ids from this field of the payload.  Default: the points' own ids.

    Raises
    ------
    FileNotFoundError, ValueError
        For a folder that is incomplete, damaged or in use.
    pickle.UnpicklingError
        For a point that is more than plain data: it could run any program.
    """
    path = Path(path)
    found = _collections(path)
    if collection is None and len(found) == 1:
        collection = next(iter(found))
    if collection is None or collection not in found:
        wrong = "" if collection is None else f" no collection {collection!r}, but"
        listed = ", ".join(sorted(found)) or "none"
        raise ValueError(f"{path} has{wrong} the collections {listed}. Say which with collection=.")
    if Path(collection).name != collection or collection == "..":
        raise ValueError(
            f"{path / 'meta.json'} names the collection {collection!r}, which is no folder's name."
        )
    place = f"{path}: {collection}"
    name, dimension = _vector(found[collection], vector, place)
    file = path / "collection" / collection / "storage.sqlite"
    _require_unlocked(path)
    count = count_points(file)

    def documents() -> Iterator[Document]:
        _require_unlocked(path)
        for point in read_points(file):
            yield _document(point, name, id_field, place)

    return RowSource(documents, name=NAME, place=place, num_documents=count, dimension=dimension)


def _collections(path: Path) -> dict[str, Any]:
    content = read_json(path / "meta.json")
    collections = content.get("collections") if isinstance(content, dict) else None
    if not isinstance(collections, dict):
        raise ValueError(f"{path / 'meta.json'} is damaged or not Qdrant's: it names no collections.")
    return collections


def _vector(collection: Any, wanted: str | None, place: str) -> tuple[str, int]:
    """Return the multi-vector's name ("" where it is the collection's only one) and width."""
    config = collection.get("vectors") if isinstance(collection, dict) else None
    if not isinstance(config, dict):
        config = {}
    named = {"": config} if "size" in config else config
    multi = {
        key: value
        for key, value in named.items()
        if isinstance(value, dict) and value.get("multivector_config")
    }
    if wanted is None and len(multi) == 1:
        wanted = next(iter(multi))
    if wanted is None or wanted not in multi:
        listed = ", ".join(repr(key) for key in multi) or "none"
        raise ValueError(f"{place} has these multi-vectors: {listed}. Say which with vector=.")
    size = multi[wanted].get("size")
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ValueError(f"{place}: the vector {wanted!r} has size={size!r}, which must be at least 1.")
    return wanted, size


def _document(point: Point, name: str, id_field: str | None, place: str) -> Document:
    value = point.vector.get(name) if isinstance(point.vector, dict) else point.vector
    try:
        tokens = np.asarray([] if value is None else value, np.float32)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{place}: the point {point.id} has no rows of numbers: {error}.") from None
    identity: Any = point.id
    if id_field is not None:
        identity = point.payload.get(id_field) if isinstance(point.payload, dict) else None
        if identity is None:
            raise ValueError(f"{place}: the point {point.id} has no {id_field!r} in its payload.")
        if not isinstance(identity, (int, str)) or isinstance(identity, bool):
            raise TypeError(
                f"{place}: the point {point.id} has a {type(identity).__name__} in {id_field!r}, but ids must "
                "be integers or strings."
            )
    return Document(identity, tokens, f"point {point.id}")


def _require_unlocked(path: Path) -> None:
    """Raise where another Qdrant client has the folder open: it may be changing it."""
    file = path / ".lock"
    if sys.platform == "win32" or not file.is_file():
        return
    import fcntl

    with file.open("rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(
                f"{path} is in use by another Qdrant client. Close that first, or read a copy of the folder."
            ) from None
