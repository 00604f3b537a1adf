"""MilvusEngine: a collection of Milvus or Milvus Lite, through pymilvus."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ..metadata import FilterError, Scalar
from ..utils.checks import import_extra
from .base import Column, Description, Engine, EngineError, EngineRow, Hits, SearchRequest, slices
from .conditions import SQLConditions

# Filter terms of a document: the largest capacity of an array.
_MAX_TERMS = 4096

# Characters of a term.
_MAX_TERM = 1024

# Bytes of a string: the largest that Milvus accepts.
_MAX_STRING = 65_535


class MilvusConditions(SQLConditions):
    """A builder of Milvus's boolean expressions."""

    def has_any(self, terms: list[str]) -> str:
        """Test that a document has one of the terms."""
        return f"ARRAY_CONTAINS_ANY(terms, [{self.literals(terms)}])"

    def compare(self, bound: str, sign: str, value: Scalar) -> str:
        """Compare a stored bound with a value, see :meth:`Conditions.compare`.

        Raise FilterError for a string that is not printable ASCII.
        """
        if isinstance(value, str) and not (value.isascii() and value.isprintable()):
            raise FilterError(
                f"Milvus can order only printable ASCII strings, got {value!r:.80}. Store a number instead."
            )
        key = f'bounds["{bound}"]'
        return f"(exists {key} and {key} {sign} {self.literal(value)})"

    def among(self, ids: list[Any]) -> str:
        """Test that a document has one of these ids."""
        return f"id in [{self.literals(ids)}]"

    def literal(self, value: Scalar) -> str:
        """Return a number or a string as a literal."""
        return json.dumps(value, ensure_ascii=False)


class MilvusEngine(Engine):
    """A collection of Milvus, or of Milvus Lite in a file.

    The URL is ``milvus://USER:PASSWORD@HOST:PORT#NAME`` or ``milvus:FILE.db#NAME``.
    Store tokens elsewhere, such as in a local :class:`muvera.MuveraIndex`.
    """

    kind = "milvus"
    conditions = MilvusConditions()
    max_dimension = 32_768
    keeps_tokens = False
    keeps_parts = False  # a primary key of Milvus is one field

    def __init__(self, url: str) -> None:
        super().__init__(url)
        parts = self._url
        token = f"{unquote(parts.username or '')}:{self._secret}" if self._secret else ""
        server = f"http://{parts.hostname}:{parts.port or 19530}"
        if not parts.netloc:
            if not parts.path.endswith(".db"):
                raise EngineError("Milvus Lite needs a file that ends in .db. Give milvus:FILE.db.")
            server = str(Path(unquote(parts.path)).resolve())
            if self.foreign and not Path(server).exists():  # the client would create it
                raise EngineError(f"{server} does not exist. Give milvus:FILE.db#NAME.")
        self._library = import_extra("pymilvus", "milvus", "Milvus")
        with self._errors("cannot be reached"):
            self._client = self._library.MilvusClient(server, token=token, timeout=10)

    # -- the collection -------------------------------------------------------

    def _has_collection(self, name: str) -> bool:
        exists = bool(self._client.has_collection(name))
        if exists:  # Milvus Lite unloads collections at the end of a process
            self._client.load_collection(name)
        return exists

    def _create(self, description: Description) -> None:
        client = self._client
        kinds = self._library.DataType
        strings = {"datatype": kinds.ARRAY, "element_type": kinds.VARCHAR}
        # The parts of the encoder.
        schema = client.create_schema()
        graph = client.prepare_index_params()
        schema.add_field("part", kinds.INT64, is_primary=True)
        schema.add_field("content", **strings, max_capacity=64, max_length=_MAX_STRING)
        schema.add_field("unused", kinds.FLOAT_VECTOR, dim=2)  # a collection must have vectors
        graph.add_index("unused", index_type="FLAT", metric_type="IP")
        client.create_collection(self._encoder_name, schema=schema, index_params=graph)
        # The documents.
        schema = client.create_schema()
        graph = client.prepare_index_params()
        kind = kinds.INT64 if description.integer_ids else kinds.VARCHAR
        schema.add_field("id", kind, is_primary=True, max_length=_MAX_STRING)
        schema.add_field("fde", kinds.FLOAT_VECTOR, dim=description.vector_dimension)
        schema.add_field("metadata", kinds.JSON)
        schema.add_field("bounds", kinds.JSON)
        schema.add_field("terms", **strings, max_capacity=_MAX_TERMS, max_length=_MAX_TERM)
        settings = {"M": self.links, "efConstruction": self.ef_construction}
        graph.add_index("fde", index_type="HNSW", metric_type="IP", params=settings)
        client.create_collection(self.name, schema=schema, index_params=graph)

    def _drop(self, name: str) -> None:
        self._client.drop_collection(name)

    def _read_part(self, number: int) -> bytes | None:
        rows = self._client.get(self._encoder_name, ids=[number], output_fields=["content"])
        return base64.b64decode("".join(rows[0]["content"])) if rows else None

    def _write_part(self, number: int, content: bytes) -> None:
        text = base64.b64encode(content).decode()
        strings = list(slices(text, _MAX_STRING))
        self._client.upsert(self._encoder_name, [{"part": number, "content": strings, "unused": [0.0, 0.0]}])

    def _close(self) -> None:
        self._client.close()

    # -- documents ------------------------------------------------------------

    def _write(self, rows: list[EngineRow]) -> None:
        entities = []
        for row in rows:
            terms = row.flat.terms
            if len(terms) > _MAX_TERMS or any(len(term) > _MAX_TERM for term in terms):
                raise EngineError(
                    f"The metadata of document {row.id!r} has more than {_MAX_TERMS} values or a value "
                    f"of more than {_MAX_TERM} characters, which Milvus cannot filter. Shorten it."
                )
            entity = {"id": row.id, "fde": row.vector, "metadata": row.metadata}
            entities.append({**entity, "terms": terms, "bounds": row.flat.bounds})
        self._client.upsert(self.name, entities)

    def _delete(self, ids: list[Any], first: int) -> None:
        self._client.delete(self.name, filter=self.conditions.among(ids))  # ids= does not escape quotes

    def _count(self) -> int:
        return int(self._client.query(self.name, filter="", output_fields=["count(*)"])[0]["count(*)"])

    def _ids(self, condition: Any) -> Iterator[Any]:
        reader = self._client.query_iterator(self.name, filter=condition or "", output_fields=["id"])
        while batch := reader.next():
            yield from (row["id"] for row in batch)
        reader.close()

    def _read(self, ids: list[Any], column: Column, part: int) -> list[tuple[Any, Any]]:
        chosen = self.conditions.among(ids)
        rows = self._client.query(self.name, filter=chosen, output_fields=["id", column])
        return [(row["id"], row[column]) for row in rows]

    # -- searching ------------------------------------------------------------

    def _search(self, request: SearchRequest, condition: object) -> Hits:
        results = self._client.search(
            self.name,
            list(request.vectors),
            anns_field="fde",
            filter=condition or "",
            limit=request.limit,
            search_params={"metric_type": "IP", "params": {"ef": request.breadth}},
            consistency_level="Strong",
        )
        return [([(hit["id"], 0) for hit in hits], [hit["distance"] for hit in hits]) for hits in results]
