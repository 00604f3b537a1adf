"""Opening what a command was pointed at, and streaming it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..convert import open_source, read
from ..convert.registry import find_reader, reader
from ..convert.sources.base import Source
from ..convert.sources.named_arrays import find, names_of
from ..data.multivectors import MultiVectors
from .index_source import is_index, open_index
from .options import parse_options

__all__ = ["open_documents", "open_queries", "read_collections", "stream"]

_BYTES_A_BATCH = 64 << 20


def open_documents(
    path: Path, format: str | None = None, part: str | None = None, options: list[str] | None = None
) -> Source:
    """Open documents, of an index too; `part` goes to the readers that know parts."""
    given = parse_options(options or [])
    if part is not None:
        given["part"] = part
    if format is None and is_index(path):
        if given:
            raise ValueError(f"{path} is an index, which is read whole. Leave out --part and --option.")
        return open_index(path)
    return open_source(path, format, **given)


def open_queries(
    path: Path, format: str | None = None, part: str | None = None, options: list[str] | None = None
) -> Source:
    """Open queries: those of a source that has them beside documents, else all that it has."""
    given = parse_options(options or [])
    if part is not None or "part" in given or (format is None and is_index(path)):
        return open_documents(path, format, part, options)
    module = find_reader(path.expanduser()) if format is None else reader(format)
    if "part" not in inspect.signature(module.open_source).parameters:
        return open_source(path, format, **given)
    try:
        return open_source(path, format, part="queries", **given)
    except ValueError:
        # Damaged queries must not turn into documents.
        if _has_queries(path.expanduser()):
            raise
        return open_source(path, format, part="docs", **given)


def read_collections(
    documents: Path, queries: Path | None, format: str | None, part: str | None, options: list[str] | None
) -> tuple[MultiVectors, MultiVectors | None]:
    """Return documents and queries in memory; format, part and options are the documents'."""
    return (
        read(open_documents(documents, format, part, options)),
        None if queries is None else read(open_queries(queries)),
    )


def _has_queries(path: Path) -> bool:
    present = {entry.stem for entry in path.iterdir()} if path.is_dir() else set()
    return find(names_of("queries").tokens, present) is not None


def stream(source: Source, batch_bytes: int | None = None) -> Iterator[MultiVectors]:
    """Yield the source's batches in bounded memory, checked; messages count all documents.

    Smaller batches than the usual 64 MiB let a progress bar move sooner.
    """
    count = 0
    size = _BYTES_A_BATCH if batch_bytes is None else min(batch_bytes, _BYTES_A_BATCH)
    for batch in source.batches(max(1, size // (4 * source.dimension))):
        batch.require_finite(first=count, place=getattr(source, "place", source.name))
        count += len(batch)
        yield batch


def number_of(source: Source) -> dict[str, Any]:
    """Return what is known of a source without reading it, as plain values."""
    return {
        "format": source.name,
        "documents": source.num_documents,
        "tokens": source.num_tokens,
        "dimension": source.dimension,
        "lossy": source.lossy,
        "nbits": source.nbits,
    }
