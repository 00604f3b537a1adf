"""MilvusEngine: a collection of Milvus, or of Milvus Lite in a file, through pymilvus."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors
from ..metadata.filters import FilterError, build_condition
from ..metadata.values import flatten
from ..utils.optional_imports import import_extra
from .base import (
    Description,
    Engine,
    EngineError,
    Hits,
    Metadata,
    SearchOptions,
    SQLConditions,
    encoder_parts,
    id_batches,
    no_hits,
)

__all__ = ["MilvusEngine"]

# Bytes of an encoder part (a string has at most 65,535 bytes, in base64), and parts per request.
_PART, _PARTS = 45_000, 64

# Ids per condition, terms per document, and bytes per term.
_IDS, _MAX_TERMS, _MAX_TERM = 500, 4096, 1024


class MilvusEngine(Engine):
    """A collection in Milvus.  Store tokens elsewhere, such as in a local :class:`muvera.MuveraIndex`.

    Parameters
    ----------
    uri : str
        URL of a server, or path of a file for Milvus Lite.
    name : str
        Name of the collection.
    secret : str, optional
        "USER:PASSWORD" or a key.

    Raises
    ------
    EngineError
        If the server cannot be reached.
    ImportError
        Without pymilvus.
    """

    kind = "milvus"
    precisions = {"float32": 32_768}  # noqa: RUF012 (Milvus: page of limits)

    def __init__(self, uri: str, name: str, secret: str | None = None) -> None:
        url = uri.replace("http://", "milvus://", 1) if "://" in uri else f"milvus:{uri}"
        super().__init__(url, name, (secret or "").partition(":")[2] or secret)
        self._library = import_extra("pymilvus", "milvus", "Milvus")
        with self._errors("cannot be reached"):
            self._client = self._library.MilvusClient(uri, token=secret or "", timeout=10)

    @classmethod
    def from_url(cls, url: SplitResult, name: str) -> MilvusEngine:
        """Open ``milvus:FILE.db#NAME`` or ``milvus://USER:PASSWORD@HOST:PORT#NAME``."""
        if not url.netloc:
            if not url.path.endswith(".db"):
                raise EngineError("Milvus Lite needs a file that ends in .db. Give milvus:FILE.db.")
            return cls(str(Path(unquote(url.path)).resolve()), name)
        secret = f"{unquote(url.username or '')}:{unquote(url.password)}" if url.password else None
        return cls(f"http://{url.hostname}:{url.port or 19530}", name, secret)

    # -- the collection -------------------------------------------------------

    def _existing_names(self) -> set[str]:
        names = {name for name in (self.name, self._encoder_name) if self._client.has_collection(name)}
        for name in names:  # Milvus Lite unloads collections at the end of a process
            self._client.load_collection(name)
        return names

    def _read_parts(self, start: int, stop: int | None) -> list[bytes]:
        parts: list[bytes] = []
        while stop is None or start < stop:
            end = start + _PARTS if stop is None else min(stop, start + _PARTS)
            rows = self._client.query(
                self._encoder_name,
                filter=f"part in {list(range(start, end))}",
                output_fields=["part", "content"],
            )
            parts += [base64.b64decode(row["content"]) for row in sorted(rows, key=lambda row: row["part"])]
            if not rows:
                break
            start = end
        return parts

    def _change(self, names: set[str]) -> str | None:
        fields = self._client.describe_collection(self.name)["fields"] if self.name in names else []
        sizes = {field["name"]: int(field.get("params", {}).get("dim") or 0) for field in fields}
        size, expected = sizes.get("fde", 0), self.stored.vector_dimension
        return None if size == expected else f"has vectors 'fde' of {size} floats, not {expected}"

    def create(self, description: Description, encoder: bytes) -> None:
        """Create an empty collection that stores the encoder; the description is written last."""
        if self.describe() is not None:
            raise EngineError(f"{self.location} exists. Give another name, or drop it.")
        client, kinds = self._client, self._library.DataType
        with self._errors("cannot be created"):
            for leftover in (self.name, self._encoder_name):
                client.drop_collection(leftover)
            schema, graph = client.create_schema(), client.prepare_index_params()
            schema.add_field("part", kinds.INT64, is_primary=True)
            schema.add_field("content", kinds.VARCHAR, max_length=65_535)
            schema.add_field("unused", kinds.FLOAT_VECTOR, dim=2)  # a collection must have vectors
            graph.add_index("unused", index_type="FLAT", metric_type="IP")
            client.create_collection(self._encoder_name, schema=schema, index_params=graph)
            schema, graph = client.create_schema(), client.prepare_index_params()
            if description.integer_ids:
                schema.add_field("id", kinds.INT64, is_primary=True)
            else:
                schema.add_field("id", kinds.VARCHAR, is_primary=True, max_length=65_535)
            schema.add_field("fde", kinds.FLOAT_VECTOR, dim=description.vector_dimension)
            schema.add_field("metadata", kinds.JSON)
            schema.add_field("bounds", kinds.JSON)
            schema.add_field(
                "terms",
                kinds.ARRAY,
                element_type=kinds.VARCHAR,
                max_capacity=_MAX_TERMS,
                max_length=_MAX_TERM,
            )
            settings = {"M": description.graph.m, "efConstruction": description.graph.ef_construction}
            graph.add_index("fde", index_type="HNSW", metric_type="IP", params=settings)
            client.create_collection(self.name, schema=schema, index_params=graph)
            rows = [
                {"part": number, "content": base64.b64encode(part).decode(), "unused": [0.0, 0.0]}
                for number, part in enumerate([description.to_json(), *encoder_parts(encoder, _PART)])
            ]
            for start in range(1, len(rows), _PARTS):
                client.upsert(self._encoder_name, rows[start : start + _PARTS])
            client.upsert(self._encoder_name, rows[:1])
        self.description = description

    def drop(self) -> None:
        """Remove the collection."""
        with self._errors("cannot be removed"):
            for name in (self.name, self._encoder_name):
                self._client.drop_collection(name)
        self.description = None

    def close(self) -> None:
        """Close the client."""
        self._client.close()

    # -- documents ------------------------------------------------------------

    def add(
        self, ids: list[Any], vectors: NDArray[np.float32], metadata: Metadata, tokens: MultiVectors | None
    ) -> None:
        """Store documents and replace those with the same ids."""
        entities = []
        for id, vector, values in zip(ids, vectors, metadata, strict=True):
            flat = flatten(values)
            if len(flat.terms) > _MAX_TERMS or any(len(term) > _MAX_TERM for term in flat.terms):
                raise ValueError(
                    f"The metadata of document {id!r} has more than {_MAX_TERMS} values or a value of more than "
                    f"{_MAX_TERM} characters, which Milvus cannot filter. Shorten it."
                )
            bounds = {
                **{f"low_{name}": value for name, value in flat.low.items()},
                **{f"high_{name}": value for name, value in flat.high.items()},
            }
            entities.append(
                {"id": id, "fde": vector, "metadata": dict(values), "bounds": bounds, "terms": flat.terms}
            )
        with self._errors("did not accept documents"):
            self._client.upsert(self.name, entities)

    def delete(self, ids: list[Any]) -> None:
        """Delete documents."""
        with self._errors("did not delete documents"):
            for batch in id_batches(ids, _IDS):
                self._client.delete(self.name, filter=_among(batch))

    def __len__(self) -> int:
        with self._errors("cannot be read"):
            return int(self._client.query(self.name, filter="", output_fields=["count(*)"])[0]["count(*)"])

    def _read(self, ids: list[Any], column: str) -> Iterator[tuple[Any, Any]]:
        for batch in id_batches(ids, _IDS):
            with self._errors("cannot be read"):
                rows = self._client.query(self.name, filter=_among(batch), output_fields=["id", column])
            yield from ((row["id"], row[column]) for row in rows)

    # -- searching ------------------------------------------------------------

    def search(
        self, vectors: NDArray[np.float32], options: SearchOptions, queries: MultiVectors | None = None
    ) -> Hits:
        """Return the documents with the largest inner products for each query."""
        builder = _MilvusConditions()
        conditions = [build_condition(options.where, builder)] if options.where else []
        if options.ids is not None:
            conditions.append(_among(options.ids))
        if builder.never in conditions or len(vectors) == 0:
            return [no_hits()] * len(vectors)
        condition = builder.all_of([text for text in conditions if text != builder.always])
        with self._errors("cannot be searched"):
            results = self._client.search(
                self.name,
                list(vectors),
                anns_field="fde",
                filter="" if condition == builder.always else condition,
                limit=options.count,
                search_params={"metric_type": "IP", "params": {"ef": max(options.ef, options.count)}},
                consistency_level="Strong",
            )
        return [
            ([hit["id"] for hit in hits], np.array([hit["distance"] for hit in hits], np.float32))
            for hits in results
        ]


class _MilvusConditions(SQLConditions):
    """Builder of Milvus expressions, which have no constants of their own."""

    always, never = "(1 == 1)", "(1 == 0)"
    and_, or_, not_ = "and", "or", "not"

    def has_any(self, terms: list[str]) -> str:
        return f"ARRAY_CONTAINS_ANY(terms, [{', '.join(map(json.dumps, terms))}])"

    def compare(self, side: str, name: str, sign: str, value: Any) -> str:
        if isinstance(value, str) and not (value.isascii() and value.isprintable()):
            raise FilterError(
                f"Milvus orders printable ASCII strings only, got {value!r:.80}. Store a number instead."
            )
        literal = json.dumps(value) if isinstance(value, str) else repr(value)
        key = f'bounds["{side}_{name}"]'
        return f"(exists {key} and {key} {sign} {literal})"


def _among(ids: list[Any]) -> str:
    # pymilvus does not escape ids in its expressions.
    return f"id in [{', '.join(json.dumps(id, ensure_ascii=False) for id in ids)}]"
