"""MilvusEngine: a collection of Milvus, or of Milvus Lite in a file, through pymilvus."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote

import numpy as np
from numpy.typing import NDArray

from ..data.validation import Ids
from ..metadata.filters import build_condition
from ..metadata.values import flatten
from ..utils.optional_imports import import_extra
from .base import Description, Engine, EngineError, Found, Location, Rows, SearchOptions
from .sql_conditions import SQLConditions

__all__ = ["MilvusEngine"]

# A string has at most 65,535 bytes: so many bytes of the encoder in base64, and parts of one request.
_PART, _PARTS = 45_000, 64

# Ids of one condition, terms of a document, and bytes of one.
_IDS, _TERMS, _TERM = 500, 4096, 1024


class MilvusEngine(Engine):
    """A collection in Milvus; tokens are kept elsewhere, such as in a local :class:`muvera.MuveraIndex`.

    Parameters
    ----------
    uri : str
        Of a server, or a file's path for Milvus Lite.
    name : str
        Of the collection.
    token : str, optional
        "USER:PASSWORD" or a key.

    Raises
    ------
    EngineError
        Where it cannot be reached.
    ImportError
        Where pymilvus is not installed.
    """

    kind = "milvus"

    def __init__(self, uri: str, name: str, token: str | None = None) -> None:
        super().__init__(
            Location(uri.replace("http://", "milvus://", 1) if "://" in uri else f"milvus:{uri}", name)
        )
        self._library = import_extra("pymilvus", "milvus", "Milvus")
        self._name, self._secret = name, token
        self._description: Description | None = None
        with self._asking("cannot be reached"):
            self._client = self._library.MilvusClient(uri, token=token or "", timeout=10)

    @classmethod
    def from_url(cls, url: SplitResult, name: str) -> MilvusEngine:
        """Open ``milvus:FILE.db#NAME`` or ``milvus://USER:PASSWORD@HOST:PORT#NAME``."""
        if not url.netloc:
            if not url.path.endswith(".db"):
                raise EngineError("Milvus Lite keeps a file that ends in .db. Give milvus:FILE.db.")
            return cls(str(Path(unquote(url.path)).resolve()), name)
        token = f"{unquote(url.username or '')}:{unquote(url.password)}" if url.password else None
        return cls(f"http://{url.hostname}:{url.port or 19530}", name, token)

    @contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        try:
            yield
        except EngineError:
            raise
        except Exception as error:
            text = " ".join(str(getattr(error, "message", error)).split())[:200]
            if self._secret:
                text = text.replace(self._secret, "***").replace(
                    self._secret.partition(":")[2] or self._secret, "***"
                )
            raise EngineError(f"{self.location} {what}: {text.rstrip('.')}.") from None

    # -- the collection -------------------------------------------------------

    @property
    def _beside(self) -> str:
        return f"{self._name}_encoder"

    def describe(self) -> Description | None:
        """Return what is there; None where nothing of this name is."""
        with self._asking("cannot be read"):
            there = {name for name in (self._name, self._beside) if self._client.has_collection(name)}
            for name in there:  # which Milvus Lite forgets with the process
                self._client.load_collection(name)
            first = self._parts([0]) if self._beside in there else []
        if not first:
            if self._name in there and self._beside not in there:
                raise EngineError(f"{self.location} is a collection of something else. Give another name.")
            return None
        self._description = Description.from_dict(json.loads(first[0]))
        with self._asking("cannot be read"):
            fields = self._client.describe_collection(self._name)["fields"] if self._name in there else []
        sizes = {field["name"]: field.get("params", {}).get("dim") for field in fields}
        if int(sizes.get("fde") or 0) != self._description.vector_dimension:
            raise EngineError(
                f"{self.location} has no vectors 'fde' of {self._description.vector_dimension} floats: its "
                "collection was changed. Load it again."
            )
        return self._description

    def create(self, description: Description, encoder: bytes) -> None:
        """Make an empty collection that keeps the encoder; its description is written last."""
        if self.describe() is not None:
            raise EngineError(f"{self.location} exists. Give another name, or drop it.")
        client, kinds = self._client, self._library.DataType
        with self._asking("cannot be created"):
            for leftover in (self._name, self._beside):
                client.drop_collection(leftover)
            beside = client.create_schema()
            beside.add_field("part", kinds.INT64, is_primary=True)
            beside.add_field("content", kinds.VARCHAR, max_length=65_535)
            beside.add_field("nothing", kinds.FLOAT_VECTOR, dim=2)  # a collection must have vectors
            flat = client.prepare_index_params()
            flat.add_index("nothing", index_type="FLAT", metric_type="IP")
            client.create_collection(self._beside, schema=beside, index_params=flat)
            schema = client.create_schema()
            if description.integer_ids:
                schema.add_field("id", kinds.INT64, is_primary=True)
            else:
                schema.add_field("id", kinds.VARCHAR, is_primary=True, max_length=65_535)
            schema.add_field("fde", kinds.FLOAT_VECTOR, dim=description.vector_dimension)
            schema.add_field("metadata", kinds.JSON)
            schema.add_field("bounds", kinds.JSON)
            schema.add_field(
                "terms", kinds.ARRAY, element_type=kinds.VARCHAR, max_capacity=_TERMS, max_length=_TERM
            )
            graph = client.prepare_index_params()
            how = {"M": description.graph.m, "efConstruction": description.graph.ef_construction}
            graph.add_index("fde", index_type="HNSW", metric_type="IP", params=how)
            client.create_collection(self._name, schema=schema, index_params=graph)
            parts = [encoder[start : start + _PART] for start in range(0, len(encoder), _PART)]
            rows = [
                {"part": number, "content": base64.b64encode(part).decode(), "nothing": [0.0, 0.0]}
                for number, part in enumerate([json.dumps(description.to_dict()).encode(), *parts])
            ]
            for start in range(1, len(rows), _PARTS):
                client.upsert(self._beside, rows[start : start + _PARTS])
            client.upsert(self._beside, rows[:1])
        self._description = description

    def _parts(self, numbers: Sequence[int]) -> list[bytes]:
        found = self._client.query(
            self._beside, filter=f"part in {list(numbers)}", output_fields=["part", "content"]
        )
        parts = {row["part"]: base64.b64decode(row["content"]) for row in found}
        return [parts[number] for number in numbers if number in parts]

    def read_encoder(self) -> bytes:
        """Return what :meth:`create` kept."""
        found: list[bytes] = []
        with self._asking("cannot be read"):
            while some := self._parts(range(len(found) + 1, len(found) + 1 + _PARTS)):
                found += some
        return b"".join(found)

    def finish(self) -> None:
        """Do nothing: Milvus builds its graph by itself."""

    def drop(self) -> None:
        """Remove the collection."""
        with self._asking("cannot be removed"):
            for name in (self._name, self._beside):
                self._client.drop_collection(name)
        self._description = None

    def close(self) -> None:
        """Close the client."""
        self._client.close()

    # -- documents ------------------------------------------------------------

    def add(self, rows: Rows) -> None:
        """Store documents, in place of those with the same ids."""
        made = []
        for name, vector, values in zip(rows.ids.tolist(), rows.vectors, rows.metadata, strict=True):
            flat = flatten(values)
            if len(flat.terms) > _TERMS or any(len(term) > _TERM for term in flat.terms):
                raise ValueError(
                    f"The metadata of document {name!r} has more than {_TERMS} values or one of more than {_TERM} "
                    "characters, which Milvus does not filter. Shorten it."
                )
            bounds = {
                f"{side}_{key}": value
                for side in ("low", "high")
                for key, value in getattr(flat, side).items()
            }
            made.append(
                {"id": name, "fde": vector, "metadata": dict(values), "bounds": bounds, "terms": flat.terms}
            )
        with self._asking("did not take documents"):
            self._client.upsert(self._name, made)

    def existing(self, ids: Ids) -> set[Any]:
        """Return those of some ids that are there."""
        return {row["id"] for row in self._read(ids.tolist(), ["id"])}

    def delete(self, ids: Ids) -> None:
        """Remove documents."""
        with self._asking("did not remove documents"):
            for start in range(0, len(ids), _IDS):
                self._client.delete(self._name, filter=_among(ids[start : start + _IDS].tolist()))

    def __len__(self) -> int:
        with self._asking("cannot be read"):
            return int(self._client.query(self._name, filter="", output_fields=["count(*)"])[0]["count(*)"])

    def metadata(self, ids: Sequence[Any]) -> dict[Any, dict[str, Any]]:
        """Return the metadata of documents by id."""
        return {row["id"]: dict(row["metadata"]) for row in self._read(list(ids), ["id", "metadata"])}

    def _read(self, ids: list[Any], fields: list[str]) -> Iterator[dict[str, Any]]:
        for start in range(0, len(ids), _IDS):
            with self._asking("cannot be read"):
                found = self._client.query(
                    self._name, filter=_among(ids[start : start + _IDS]), output_fields=fields
                )
            yield from found

    # -- searching ------------------------------------------------------------

    def search(self, vectors: NDArray[np.float32], options: SearchOptions) -> Found:
        """Return the documents of the largest inner products for each query."""
        condition = build_condition(options.where, _MilvusConditions()) if options.where else ""
        nothing: tuple[list[Any], NDArray[np.float32]] = ([], np.empty(0, np.float32))
        if condition == _MilvusConditions.never or len(vectors) == 0:
            return [nothing] * len(vectors)
        with self._asking("cannot be searched"):
            found = self._client.search(
                self._name,
                list(vectors),
                anns_field="fde",
                filter="" if condition == _MilvusConditions.always else condition,
                limit=options.count,
                search_params={"metric_type": "IP", "params": {"ef": max(options.ef, options.count)}},
                consistency_level="Strong",
            )
        return [
            ([hit["id"] for hit in hits], np.array([hit["distance"] for hit in hits], np.float32))
            for hits in found
        ]


def _among(ids: list[Any]) -> str:
    # pymilvus writes ids into its expressions without escaping them.
    return f"id in [{', '.join(json.dumps(name, ensure_ascii=False) for name in ids)}]"


class _MilvusConditions(SQLConditions):
    """Builds Milvus's expressions."""

    # Milvus has no constants that stand alone.
    always, never = "(1 == 1)", "(1 == 0)"

    def negation(self, part: str) -> str:
        return f"(not {part})"

    def all_of(self, parts: list[str]) -> str:
        return f"({' and '.join(parts)})" if parts else self.always

    def any_of(self, parts: list[str]) -> str:
        return f"({' or '.join(parts)})" if parts else self.never

    def has_any(self, terms: list[str]) -> str:
        return f"ARRAY_CONTAINS_ANY(terms, [{', '.join(map(json.dumps, terms))}])"

    def compare(self, side: str, name: str, sign: str, value: Any) -> str:
        literal = json.dumps(value) if isinstance(value, str) else repr(value)
        key = f'bounds["{side}_{name}"]'
        return f"(exists {key} and {key} {sign} {literal})"
