"""Engines by URL."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module
from typing import Any
from urllib.parse import SplitResult, urlsplit

from .base import Engine, EngineError

__all__ = ["DEFAULT_NAME", "SCHEMES", "is_engine_url", "open_engine"]

#: Name of a collection that a URL does not name.
DEFAULT_NAME = "muvera"

#: What a URL begins with, to the module and the class whose ``from_url`` opens it.
SCHEMES: dict[str, tuple[str, str]] = {
    "postgresql": ("pgvector", "PgVectorEngine"),
    "postgres": ("pgvector", "PgVectorEngine"),
    "qdrant": ("qdrant", "QdrantEngine"),
    "qdrants": ("qdrant", "QdrantEngine"),
    "qdrant-edge": ("qdrant_edge", "QdrantEdgeEngine"),
    "lancedb": ("lancedb", "LanceDBEngine"),
    "milvus": ("milvus", "MilvusEngine"),
}

#: What all engines take as the name of a collection.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,47}")


def is_engine_url(text: str) -> bool:
    """Whether a text is the URL of an engine, and not a path.

    Examples
    --------
    >>> is_engine_url("postgresql://localhost/search"), is_engine_url("folder/my.index")
    (True, False)
    """
    return text.partition(":")[0] in SCHEMES and ":" in text


def open_engine(url: str) -> Engine:
    """Return the collection that a URL names.

    Parameters
    ----------
    url : str
        ``postgresql://USER:PASSWORD@HOST:PORT/DATABASE#NAME``, ``qdrant://HOST:PORT#NAME`` (``qdrants://`` by
        TLS; its key as password or in ``QDRANT_API_KEY``), ``qdrant-edge:FOLDER#NAME``, ``lancedb:FOLDER#NAME``
        or ``milvus:FILE.db#NAME``, ``milvus://HOST:PORT#NAME``.  NAME is "muvera" where it is left out.

    Raises
    ------
    ValueError
        For anything else.
    EngineError
        Where it cannot be reached.
    ImportError
        Where its client is not installed.
    """
    if not is_engine_url(url):
        raise ValueError(
            f"An engine's URL begins with one of {', '.join(f'{name}:' for name in SCHEMES)}; this one does not."
        )
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise EngineError(f"The URL of the engine is wrong: {error}.") from None
    name = parts.fragment or DEFAULT_NAME
    if not _NAME.fullmatch(name):
        raise EngineError(
            f"{name!r} is no name of a collection: up to 48 letters, digits and underscores, not a digit first."
        )
    module, class_name = SCHEMES[parts.scheme]
    opened: Callable[[SplitResult, str], Any] = getattr(
        import_module(f"muvera.engines.{module}"), class_name
    ).from_url
    engine: Engine = opened(parts, name)
    return engine
