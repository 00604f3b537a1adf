"""FDEs for OpenSearch: the body that creates the index, and parts of documents for the bulk API.

The graph is FAISS's, which takes inner products in every version of OpenSearch that has it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain, count
from pathlib import Path
from typing import Any

from .base import Vectors
from .fde_text_rows import numbers

__all__ = ["FILES", "MAPPING", "index_body", "write_bulk"]

#: Name of the file that creates the index.
MAPPING = "mapping.json"

#: Patterns of the names of all files.
FILES = (MAPPING, "bulk-*.ndjson")

#: Characters of a part from which a new one begins: a request may have 100 MB (http.max_content_length).
PART_SIZE = 8 << 20

#: Bytes of an id that OpenSearch takes.
_ID_BYTES = 512

#: Links a node, and candidates while building and while searching: those of the adapters in ``muvera.engines``.
_M, _EF = 16, 128


def index_body(dimension: int, integer_ids: bool) -> dict[str, Any]:
    """Return the settings and the mapping of an index with the fields ``id`` and ``fde``."""
    method = {
        "name": "hnsw",
        "engine": "faiss",
        "space_type": "innerproduct",  # the default, l2, finds other documents
        "parameters": {"m": _M, "ef_construction": _EF},
    }
    return {
        "settings": {"index": {"knn": True, "knn.algo_param.ef_search": _EF}},
        "mappings": {
            "properties": {
                "id": {"type": "long" if integer_ids else "keyword"},
                "fde": {"type": "knn_vector", "dimension": dimension, "method": method},
            }
        },
    }


def write_bulk(batches: Iterator[Vectors], folder: Path, part_size: int = PART_SIZE) -> None:
    """Write ``bulk-00000.ndjson`` and those that follow: an action and a document, each a line.

    Raises
    ------
    ValueError
        Where an id is empty, or has more bytes than OpenSearch takes.
    """
    documents = _documents(batches)
    for part in count():
        first = next(documents, None)
        if first is None:
            return
        path = folder / f"bulk-{part:05d}.ndjson"
        with path.open("w", encoding="utf-8", newline="\n") as stream:
            size = 0
            for document in chain([first], documents):
                size += stream.write(document)
                if size >= part_size:
                    break


def _documents(batches: Iterator[Vectors]) -> Iterator[str]:
    for batch in batches:
        for identity, vector in zip(batch.ids.tolist(), batch.vectors, strict=True):
            action = json.dumps({"index": {"_id": _checked(str(identity))}}, ensure_ascii=False)
            name = json.dumps(identity, ensure_ascii=False)
            yield f'{action}\n{{"id": {name}, "fde": {numbers(vector)}}}\n'


def _checked(identity: str) -> str:
    size = len(identity.encode())
    if not 0 < size <= _ID_BYTES:
        raise ValueError(
            f"OpenSearch takes ids of 1 to {_ID_BYTES} bytes, but {identity[:40]!r} has {size}. "
            "Give the documents other ids."
        )
    return identity
