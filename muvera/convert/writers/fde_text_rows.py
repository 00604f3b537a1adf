"""FDEs as lines of text, as pgvector's COPY, Qdrant's points and Milvus's bulk insert read them.

Numbers have the fewest digits that give the same float32 again.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .base import Vectors

__all__ = ["milvus", "numbers", "pgvector", "qdrant", "qdrant_id"]

#: What COPY's text format escapes.
_COPY = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}


def pgvector(batches: Iterator[Vectors]) -> Iterator[str]:
    """Yield ``id<tab>[0.1,0.2,...]``, a line a document, in COPY's text format."""
    for batch in batches:
        for identity, vector in zip(batch.ids.tolist(), batch.vectors, strict=True):
            name = re.sub(r"[\\\t\n\r]", lambda match: _COPY[match[0]], str(identity))
            yield f"{name}\t{numbers(vector)}\n"


def qdrant(batches: Iterator[Vectors]) -> Iterator[str]:
    """Yield a point a line; the document's id is in the payload, as Qdrant's may differ."""
    for batch in batches:
        for identity, vector in zip(batch.ids.tolist(), batch.vectors, strict=True):
            payload = json.dumps({"id": identity}, ensure_ascii=False)
            point = json.dumps(qdrant_id(identity))
            yield f'{{"id": {point}, "vector": {{"fde": {numbers(vector)}}}, "payload": {payload}}}\n'


def milvus(batches: Iterator[Vectors]) -> Iterator[str]:
    """Yield the JSON object of ``rows`` that Milvus's bulk insert takes."""
    before = '{"rows": [\n'
    for batch in batches:
        for identity, vector in zip(batch.ids.tolist(), batch.vectors, strict=True):
            name = json.dumps(identity, ensure_ascii=False)
            yield f'{before}{{"id": {name}, "fde": {numbers(vector)}}}'
            before = ",\n"
    yield "\n]}\n" if before == ",\n" else '{"rows": []}\n'


def qdrant_id(identity: Any) -> int | str:
    """Return the point id for a document's id: Qdrant takes unsigned integers and UUIDs.

    Other ids become the UUID of version 5 of their text, always the same.
    """
    if isinstance(identity, int) and 0 <= identity < 1 << 64:
        return identity
    try:
        return str(uuid.UUID(str(identity)))
    except ValueError:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, str(identity)))


def numbers(vector: NDArray[np.float32]) -> str:
    """Return a vector as JSON's list."""
    # NumPy writes float32 shortest; Python's own floats would have seventeen digits.
    return f"[{','.join(vector.astype('U').tolist())}]"
