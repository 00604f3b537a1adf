"""Rows of vector stores, as they export them to JSON: one decoder a store.

A decoder takes one row and returns a :class:`~muvera.convert.sources.documents.Document`.  Which
one a file needs is seen from its first row with tokens, or said by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from ..sources.documents import Document
from . import number_literals
from .number_literals import is_matrix, is_vector, matrix, unpack_signs

__all__ = ["DECODERS", "TOKEN_FIELDS", "Decoder", "Settings", "decoder_for"]

Row = Any  # whatever JSON held: mostly a dict

#: Names of fields with token vectors, which win over others that could be.
TOKEN_FIELDS = (
    "tokens", "embeddings", "embedding", "colbert_vecs", "token_embeddings", "vectors", "vector", "colbert",
)  # fmt: skip
_IDS = ("id", "_id", "doc_id", "docid", "document_id", "pid", "key", "uuid")


class Settings(NamedTuple):
    """What a caller may say about rows."""

    #: The field with the token vectors; None finds it.
    field: str | None = None
    #: The field with the id; None finds it.
    id_field: str | None = None
    #: Whether 8-bit integers are 8 packed signs each; None: the store's custom.
    packed_signs: bool | None = None
    #: The type of hex cells, where the row does not say it.
    cell_type: str | None = None


class Decoder(NamedTuple):
    """How one store writes a row."""

    #: Its name for ``row_format=``.
    name: str
    #: Whether a row looks like this store's.
    matches: Callable[[Row], bool]
    #: A row's fields among which the token vectors are.
    fields: Callable[[Row], dict[str, Any]]
    #: The value of that field to token vectors and, where quantized, bits a coordinate.
    values: Callable[[Any, Settings, str], tuple[number_literals.Matrix, int | None]]
    #: The row's id.
    identity: Callable[[Row, Settings], Any]
    #: Whether a value can be token vectors.
    candidate: Callable[[Any], bool]
    #: Whether rows may lack the field, as stores allow: no tokens then.
    sparse: bool = True

    def field(self, row: Row) -> str | None:
        """Return the only field of `row` that can be token vectors; None where none can.

        Raises
        ------
        ValueError
            Where several can, naming them.
        """
        fields = self.fields(row)
        found = [key for key, value in fields.items() if self.candidate(value)]
        usual = [key for key in TOKEN_FIELDS if key in found]
        if len(found) > 1 and len(usual) != 1:
            raise ValueError(f"has token vectors in {', '.join(found)}. Say which with field=.")
        return usual[0] if usual else next(iter(found), None)

    def decode(self, row: Row, settings: Settings, where: str) -> Document:
        """Return the document of `row`; a field that is null has no tokens."""
        fields = self.fields(row)
        if not self.sparse and settings.field not in fields:
            raise ValueError(f"has no {settings.field!r}, only {', '.join(fields)}; null says no tokens.")
        value = fields.get(settings.field or "")
        try:
            tokens, nbits = self.values(value, settings, settings.field or "the row")
        except TypeError as error:
            raise ValueError(f"{settings.field} has an unknown form: {error}.") from None
        return Document(self.identity(row, settings), tokens, where, nbits)


def decoder_for(row: Row, name: str | None) -> Decoder | None:
    """Return the decoder called `name`, or the first that matches `row`; None where none does."""
    if name is not None:
        known = {decoder.name: decoder for decoder in DECODERS}
        if name not in known:
            raise ValueError(f"row_format must be one of {', '.join(known)}, got {name!r}.")
        return known[name]
    return next((decoder for decoder in DECODERS if decoder.matches(row)), None)


# -- what the stores share ------------------------------------------------------


def _identity(row: Row, settings: Settings, *inside: str) -> Any:
    """Return the id from the row itself, or from the objects `inside` it."""
    if not isinstance(row, dict):
        return None
    keys: Iterable[str] = _IDS if settings.id_field is None else (settings.id_field,)
    for place in (row, *(row[key] for key in inside if isinstance(row.get(key), dict))):
        for key in keys:
            if isinstance(place.get(key), (int, str)):
                return place[key]
    if settings.id_field is not None:
        raise ValueError(f"has no id in {settings.id_field!r}; its fields are {', '.join(row)}.")
    return None


def _has(row: Row, *keys: str) -> bool:
    return isinstance(row, dict) and all(key in row for key in keys)


def _floats(value: Any, settings: Settings, what: str) -> tuple[number_literals.Matrix, int | None]:
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


def _weaviate_fields(row: Row) -> dict[str, Any]:
    fields = _named(row.get("vector") or {})
    return {**fields, **(row.get("vectors") or {})}


def weaviate_bytes(content: bytes) -> number_literals.Matrix:
    """Return the token vectors of Weaviate's gRPC bytes: uint16 width, then float32 rows."""
    width = int.from_bytes(content[:2], "little")
    if width == 0 or (len(content) - 2) % (4 * width):
        raise ValueError(f"has {len(content)} bytes, which are not two of width and rows of {width} float32.")
    return np.frombuffer(content, "<f4", offset=2).astype(np.float32).reshape(-1, width)


def _weaviate_values(value: Any, settings: Settings, what: str) -> tuple[number_literals.Matrix, int | None]:
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


# -- Vespa: {"id": "id:ns:type::7", "fields": {name: tensor}} -----------------------


def _vespa_fields(row: Row) -> dict[str, Any]:
    return row.get("fields") or {}


def _vespa_identity(row: Row, settings: Settings) -> Any:
    if settings.id_field is not None:
        return _identity(row.get("fields"), settings)
    full = row.get("id", row.get("put"))
    # id:<namespace>:<document type>:<key/value pair, mostly none>:<the user's id>
    return full.split(":", 4)[4] if isinstance(full, str) and full.count(":") >= 4 else full


def _is_tensor(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    if "blocks" in value or "cells" in value:
        return True
    return bool(value) and all(isinstance(part, list) or _is_hex(part) for part in value.values())


def _is_hex(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"([0-9a-fA-F]{2})+", value) is not None


def _vespa_values(value: Any, settings: Settings, what: str) -> tuple[number_literals.Matrix, int | None]:
    if not value:
        return matrix(None, what), None
    declared = re.match(r"tensor<(\w+)>", str(value.get("type")))
    cell = settings.cell_type or (declared[1] if declared else None)
    if "cells" in value:
        blocks: Any = _vespa_cells(value, what)
    else:
        blocks = value.get("blocks", value)
        if isinstance(blocks, list):
            blocks = {_only(block["address"], what): block["values"] for block in blocks}
    keys = list(blocks)
    if all(re.fullmatch(r"-?\d+", key) for key in keys):
        keys.sort(key=int)  # "10" comes after "9"
    rows = [blocks[key] for key in keys]
    if any(isinstance(row, str) for row in rows):
        if cell is None:
            raise ValueError(f"{what} is hex without a tensor type. Give cell_type='int8' or 'bfloat16'.")
        rows = [_from_hex(row, cell, what) for row in rows]
    if cell == "int8":
        # Vespa's ColBERT embedder packs 8 signs into each int8, the usual meaning there.
        return _bytes(rows, settings.packed_signs is not False, what)
    return matrix(rows, what), None


def _only(address: dict[str, Any], what: str) -> str:
    if len(address) != 1:
        raise ValueError(f"{what} has blocks at {address}, but only one mapped dimension can be tokens.")
    return str(next(iter(address.values())))


def _from_hex(row: Any, cell: str, what: str) -> list[float]:
    """Return one block's numbers, from hex text or a list."""
    return list(number_literals.from_hex(row, cell, what)) if isinstance(row, str) else list(row)


def _vespa_cells(value: dict[str, Any], what: str) -> dict[str, list[float]]:
    """Return blocks from single cells, whose type says which dimension is mapped."""
    dims = re.findall(r"(\w+)(\{\}|\[\d*\])", value.get("type", ""))
    mapped = [name for name, size in dims if size == "{}"]
    indexed = [name for name, size in dims if size != "{}"]
    if len(mapped) != 1 or len(indexed) != 1:
        raise ValueError(
            f"{what} has cells, whose type must name one mapped and one indexed dimension, such as "
            f"tensor<float>(dt{{}},x[128]); got {value.get('type')!r}."
        )
    blocks: dict[str, dict[int, float]] = {}
    for cell in value["cells"]:
        address = cell["address"]
        blocks.setdefault(str(address[mapped[0]]), {})[int(address[indexed[0]])] = cell["value"]
    return {key: [block[i] for i in sorted(block)] for key, block in blocks.items()}


def _bytes(rows: list[Any], packed: bool, what: str) -> tuple[number_literals.Matrix, int | None]:
    values = matrix(rows, what)
    return (unpack_signs(values), 1) if packed else (values, 8)


# -- Elasticsearch and OpenSearch: {"_id", "_source": {name: [[..]] | ["hex", ..]}} ---


def _elastic_fields(row: Row) -> dict[str, Any]:
    return row.get("_source") or {}


def _is_rank_vectors(value: Any) -> bool:
    return is_matrix(value) or (isinstance(value, list) and bool(value) and all(map(_is_hex, value)))


def _elastic_values(value: Any, settings: Settings, what: str) -> tuple[number_literals.Matrix, int | None]:
    if isinstance(value, list) and value and isinstance(value[0], str):
        rows = [_from_hex(row, "int8", what) for row in value]
        return _bytes(rows, settings.packed_signs is not False, what)  # hex is element_type bit
    if settings.packed_signs:
        return _bytes(value, True, what)
    return matrix(value, what), None


# -- VectorChord and pgvector: {name: '{"[..]","[..]"}' | ["[..]", ..]} -------------------


def _is_literals(value: Any) -> bool:
    if isinstance(value, str):
        return re.match(r'\s*\{\s*"\[', value) is not None
    return isinstance(value, list) and bool(value) and isinstance(value[0], str) and value[0].startswith("[")


def _pgvector_values(value: Any, settings: Settings, what: str) -> tuple[number_literals.Matrix, int | None]:
    if isinstance(value, str):
        return matrix(number_literals.literals(value, what), what), None
    return matrix([number_literals.literal(text, what) for text in value or ()], what), None


#: Looked at in this order: the more telling shapes first.
DECODERS = (
    Decoder(
        "elasticsearch",
        lambda row: _has(row, "_source"),
        _elastic_fields,
        _elastic_values,
        lambda row, settings: _identity(row, settings, "_source"),
        _is_rank_vectors,
    ),
    Decoder(
        "vespa",
        lambda row: _has(row, "fields") and (_has(row, "id") or _has(row, "put")),
        _vespa_fields,
        _vespa_values,
        _vespa_identity,
        _is_tensor,
    ),
    Decoder(
        "weaviate",
        lambda row: _has(row, "properties") or _has(row, "class", "vectors") or _has(row, "class", "vector"),
        _weaviate_fields,
        _weaviate_values,
        lambda row, settings: _identity(row, settings, "properties"),
        lambda value: isinstance(value, bytes) or is_matrix(value),
    ),
    Decoder(
        "qdrant",
        lambda row: _has(row, "payload") or (_has(row, "vector") and isinstance(row["vector"], dict)),
        _qdrant_fields,
        _floats,
        lambda row, settings: _identity(row, settings, "payload"),
        is_matrix,
    ),
    Decoder(
        "pgvector",
        lambda row: isinstance(row, dict) and any(map(_is_literals, row.values())),
        _plain_fields,
        _pgvector_values,
        _identity,
        _is_literals,
        sparse=False,
    ),
    Decoder(
        "milvus",
        lambda row: isinstance(row, dict) and any(map(_is_structs, row.values())),
        _milvus_fields,
        _floats,
        _identity,
        is_matrix,
    ),
    Decoder(
        "plain",
        lambda row: is_matrix(row) or (isinstance(row, dict) and any(map(is_matrix, row.values()))),
        _plain_fields,
        _floats,
        _identity,
        is_matrix,
        sparse=False,
    ),
)
