"""Qdrant collections on the local disk, through the embedded client.

The folder is the one given to ``QdrantClient(path=...)``.  A server's collection comes out
through its scroll API as JSON: see the jsonl format.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ...utils.optional_imports import import_extra
from ..sources.base import Source
from ..sources.documents import Document, RowSource

__all__ = ["DESCRIPTION", "NAME", "matches", "open_source"]

NAME = "qdrant"
DESCRIPTION = "a folder of QdrantClient(path=...): meta.json and collection/"

_POINTS = 256


def matches(path: Path) -> bool:
    """Say whether `path` is a local Qdrant folder."""
    return path.is_dir() and (path / "meta.json").is_file() and (path / "collection").is_dir()


def open_source(
    path: Path, *, collection: str | None = None, vector: str | None = None, id_field: str | None = None
) -> Source:
    """Return the source of a local Qdrant collection; needs ``muvera-toolkit[qdrant]``.

    A point without the vector is a document without tokens.  Where the distance is cosine, a
    server keeps vectors normalized, but the embedded client as they were added.  The folder
    is locked while it is read.

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
    """
    path = Path(path)
    found = _collections(path)
    if collection is None and len(found) == 1:
        collection = next(iter(found))
    if collection is None or collection not in found:
        wrong = "" if collection is None else f" no collection {collection!r}, but"
        listed = ", ".join(sorted(found)) or "none"
        raise ValueError(f"{path} has{wrong} the collections {listed}. Say which with collection=.")
    place = f"{path}: {collection}"
    name, dimension = _vector(found[collection].get("vectors"), vector, place)
    with _client(path) as client:
        count = int(client.count(collection).count)

    def documents() -> Iterator[Document]:
        with _client(path) as client:
            position: Any = None
            while True:
                points, position = client.scroll(
                    collection,
                    limit=_POINTS,
                    offset=position,
                    with_payload=[id_field] if id_field else False,
                    with_vectors=[name] if name else True,
                )
                for point in points:
                    yield _document(point, name, id_field, place)
                if position is None:
                    return

    return RowSource(documents, name=NAME, place=place, num_documents=count, dimension=dimension)


def _collections(path: Path) -> dict[str, Any]:
    try:
        content = json.loads((path / "meta.json").read_text(encoding="utf-8"))
        return dict(content["collections"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path / 'meta.json'} is damaged or not Qdrant's: {error!r}.") from None


def _vector(config: Any, wanted: str | None, place: str) -> tuple[str, int]:
    """Return the multi-vector's name ("" where it is the collection's only one) and width."""
    config = config or {}
    named = {"": config} if "size" in config else config
    multi = {key: value for key, value in named.items() if value.get("multivector_config")}
    if wanted is None and len(multi) == 1:
        wanted = next(iter(multi))
    if wanted is None or wanted not in multi:
        listed = ", ".join(repr(key) for key in multi) or "none"
        raise ValueError(f"{place} has these multi-vectors: {listed}. Say which with vector=.")
    return wanted, int(multi[wanted]["size"])


def _document(point: Any, name: str, id_field: str | None, place: str) -> Document:
    value = point.vector.get(name) if isinstance(point.vector, dict) else point.vector
    tokens = np.asarray([] if value is None else value, np.float32)
    identity = point.id
    if id_field is not None:
        identity = (point.payload or {}).get(id_field)
        if identity is None:
            raise ValueError(f"{place}: the point {point.id} has no {id_field!r} in its payload.")
    return Document(identity, tokens, f"point {point.id}")


@contextmanager
def _client(path: Path) -> Iterator[Any]:
    qdrant = import_extra("qdrant_client", "qdrant", "Reading Qdrant")
    try:
        client = qdrant.QdrantClient(path=str(path))
    except RuntimeError as error:
        raise RuntimeError(f"{path} is in use by another Qdrant client: {error}") from None
    try:
        yield client
    finally:
        client.close()
