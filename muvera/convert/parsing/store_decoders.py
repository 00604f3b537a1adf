"""Decoders of the rows of each vector store, and the choice of one for a row."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from ...utils.checks import require_choice
from . import number_literals, vespa_tensors
from .number_literals import Matrix, is_hex, is_matrix, is_vector, matrix, small_integers
from .store_rows import Decoder, Row, Settings, Values, has_keys, row_id

__all__ = ["DECODERS", "decoder_for", "weaviate_bytes"]


def decoder_for(row: Row, name: str | None) -> Decoder | None:
    """Return the decoder called `name`, or the first that matches `row`; None where none does.

    Raises
    ------
    ValueError
        Where no decoder has that name.
    """
    if name is not None:
        known = {decoder.name: decoder for decoder in DECODERS}
        require_choice("row_format", name, known)
        return known[name]
    return next((decoder for decoder in DECODERS if decoder.matches(row)), None)


def _floats(value: Any, settings: Settings, what: str) -> Values:
    return matrix(value, what), None


def _named(value: Any) -> dict[str, Any]:
    """Return named vectors, or a single one under the name ``vector``."""
    return value if isinstance(value, dict) else {"vector": value}


# -- plain rows -------------------------------------------------------------------


def _plain_fields(row: Row) -> dict[str, Any]:
    return row if isinstance(row, dict) else {"tokens": row}


# -- Qdrant: {"id", "payload", "vector": [[..]] | {name: [[..]]}} -------------------


def _qdrant_fields(row: Row) -> dict[str, Any]:
    return _named(row.get("vector", row.get("vectors")))


# -- Weaviate: {"id", "class", "properties", "vectors": {name: [[..]]}} -------------


#: Any of these together are an object of Weaviate's.
_WEAVIATE_KEYS = (("properties",), ("class", "vectors"), ("class", "vector"))


def _weaviate_fields(row: Row) -> dict[str, Any]:
    fields = _named(row.get("vector") or {})
    return {**fields, **(row.get("vectors") or {})}


def weaviate_bytes(content: bytes) -> Matrix:
    """Return the token vectors of Weaviate's gRPC bytes: uint16 width, then float32 rows.

    Raises
    ------
    ValueError
        Where their number does not fit the width.
    """
    width = int.from_bytes(content[:2], "little")
    if width == 0 or (len(content) - 2) % (4 * width):
        raise ValueError(f"has {len(content)} bytes, which are not two of width and rows of {width} float32.")
    return np.frombuffer(content, "<f4", offset=2).astype(np.float32).reshape(-1, width)


def _weaviate_values(value: Any, settings: Settings, what: str) -> Values:
    return (weaviate_bytes(value) if isinstance(value, bytes) else matrix(value, what)), None


# -- Milvus: {"id", field: [{"vec": [..]}, ..]} -------------------------------------


def _is_structs(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and isinstance(value[0], dict)
        and any(is_vector(part) for part in value[0].values())
    )


def _milvus_fields(row: Row) -> dict[str, Any]:
    """Return each struct array as ``field`` and its vectors as ``field[subfield]``."""
    fields: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, list) and not value:
            fields[key] = value
        if not _is_structs(value):
            continue
        names = [name for name, part in value[0].items() if is_vector(part)]
        for name in names:
            fields[f"{key}[{name}]" if len(names) > 1 else key] = [part.get(name) for part in value]
    return fields


# -- Elasticsearch and OpenSearch: {"_id", "_source": {name: [[..]] | ["hex", ..]}} ---


def _elastic_fields(row: Row) -> dict[str, Any]:
    return row.get("_source") or {}


def _is_rank_vectors(value: Any) -> bool:
    return is_matrix(value) or (isinstance(value, list) and bool(value) and all(map(is_hex, value)))


def _elastic_values(value: Any, settings: Settings, what: str) -> Values:
    if isinstance(value, list) and value and isinstance(value[0], str):
        rows = [number_literals.from_hex(row, "int8", what) for row in value]
        return small_integers(rows, settings.packed_signs is not False, what)  # hex is element_type bit
    if settings.packed_signs:
        return small_integers(value, True, what)
    return matrix(value, what), None


# -- VectorChord and pgvector: {name: '{"[..]","[..]"}' | ["[..]", ..]} -------------------


def _is_literals(value: Any) -> bool:
    if isinstance(value, str):
        return re.match(r'\s*\{\s*"\[', value) is not None
    return isinstance(value, list) and bool(value) and isinstance(value[0], str) and value[0].startswith("[")


def _pgvector_values(value: Any, settings: Settings, what: str) -> Values:
    if isinstance(value, str):
        return matrix(number_literals.literals(value, what), what), None
    return matrix([number_literals.literal(text, what) for text in value or ()], what), None


#: Looked at in this order: the more telling shapes first.
DECODERS = (
    Decoder(
        "elasticsearch",
        lambda row: has_keys(row, "_source"),
        _elastic_fields,
        _elastic_values,
        lambda row, settings: row_id(row, settings, "_source"),
        _is_rank_vectors,
    ),
    Decoder(
        "vespa",
        lambda row: has_keys(row, "fields") and (has_keys(row, "id") or has_keys(row, "put")),
        vespa_tensors.fields,
        vespa_tensors.values,
        vespa_tensors.identity,
        vespa_tensors.is_tensor,
    ),
    Decoder(
        "weaviate",
        lambda row: any(has_keys(row, *keys) for keys in _WEAVIATE_KEYS),
        _weaviate_fields,
        _weaviate_values,
        lambda row, settings: row_id(row, settings, "properties"),
        lambda value: isinstance(value, bytes) or is_matrix(value),
    ),
    Decoder(
        "qdrant",
        lambda row: has_keys(row, "payload") or (has_keys(row, "vector") and isinstance(row["vector"], dict)),
        _qdrant_fields,
        _floats,
        lambda row, settings: row_id(row, settings, "payload"),
        is_matrix,
    ),
    Decoder(
        "pgvector",
        lambda row: isinstance(row, dict) and any(map(_is_literals, row.values())),
        _plain_fields,
        _pgvector_values,
        row_id,
        _is_literals,
        sparse=False,
    ),
    Decoder(
        "milvus",
        lambda row: isinstance(row, dict) and any(map(_is_structs, row.values())),
        _milvus_fields,
        _floats,
        row_id,
        is_matrix,
    ),
    Decoder(
        "plain",
        lambda row: is_matrix(row) or (isinstance(row, dict) and any(map(is_matrix, row.values()))),
        _plain_fields,
        _floats,
        row_id,
        is_matrix,
        sparse=False,
    ),
)
