"""LanceDBEngine: a table of LanceDB, in a folder or object storage, with tokens as Arrow lists."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import SplitResult

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
    folder_of,
    id_batches,
    no_hits,
    quoted,
)

__all__ = ["LanceDBEngine"]

# Documents per batch when all tokens are read, and ids per condition.
_BATCH, _IDS = 1024, 1000

_COLUMNS = ("id", "vector", "metadata", "terms")


class LanceDBEngine(Engine):
    """A collection in LanceDB.

    Parameters
    ----------
    path : str
        A folder or the URL of object storage.
    name : str
        Name of the table.

    Raises
    ------
    ImportError
        Without LanceDB.
    """

    kind = "lancedb"
    keeps_tokens = True
    precisions = {"float32": None, "float16": None}  # noqa: RUF012

    def __init__(self, path: str, name: str) -> None:
        super().__init__(f"lancedb:{path}", name)
        self._pa = import_extra("pyarrow", "lancedb", "LanceDB")
        library = import_extra("lancedb", "lancedb", "LanceDB")
        with self._errors("cannot be opened"):
            self._database = library.connect(path)
        self._opened: Any = None

    @classmethod
    def from_url(cls, url: SplitResult, name: str) -> LanceDBEngine:
        """Open ``lancedb:PATH#NAME``."""
        return cls(folder_of(url), name)

    # -- the collection -------------------------------------------------------

    def _existing_names(self) -> set[str]:
        tables = self._database.list_tables()
        return set(getattr(tables, "tables", tables)) & {self.name, self._encoder_name}

    def _read_parts(self, start: int, stop: int | None) -> list[bytes]:
        where = f"part >= {start}" + ("" if stop is None else f" AND part < {stop}")
        table = self._database.open_table(self._encoder_name)
        columns = table.search().where(where).limit(None).to_arrow().to_pydict()
        return [content for _, content in sorted(zip(columns["part"], columns["content"], strict=True))]

    def _change(self, names: set[str]) -> str | None:
        if self.name not in names:  # no documents yet
            return None
        schema, width = self._table().schema, self.stored.vector_dimension
        for column in (*_COLUMNS, *(["tokens"] if self.stored.tokens else [])):
            if column not in schema.names:
                return f"has no column {column!r}"
        size = getattr(schema.field("vector").type, "list_size", 0)
        return None if size == width else f"has vectors of {size} floats, not {width}"

    def create(self, description: Description, encoder: bytes) -> None:
        """Create an empty collection that stores the encoder."""
        with self._errors("cannot be created"):
            if self._existing_names():
                raise EngineError(f"{self.location} exists. Give another name, or drop it.")
            parts = [description.to_json(), *encoder_parts(encoder)]
            columns = {
                "part": self._pa.array(range(len(parts)), self._pa.int64()),
                "content": self._pa.array(parts, self._pa.binary()),
            }
            self._database.create_table(self._encoder_name, self._pa.table(columns))
        self.description = description

    def finish(self) -> None:
        """Build the graph and the index of terms, or add new rows to them."""
        table, graph = self._table(), self.stored.graph
        if table is None or table.count_rows() < graph.from_documents:
            return
        if "vector" in {column for index in table.list_indices() for column in index.columns}:
            table.optimize()
            return
        config = import_extra("lancedb.index", "lancedb", "LanceDB")
        # One partition, so that one graph holds all vectors.  Its bytes are refined by the floats.
        hnsw = config.HnswSq(
            distance_type="dot", num_partitions=1, m=graph.m, ef_construction=graph.ef_construction
        )
        table.create_index("vector", config=hnsw)
        with suppress(Exception):  # conditions work without it
            table.create_index("terms", config=config.LabelList())

    def drop(self) -> None:
        """Remove the collection."""
        with self._errors("cannot be removed"):
            for name in self._existing_names():
                self._database.drop_table(name)
        self._opened = self.description = None

    def close(self) -> None:
        """Drop the table object; LanceDB keeps no files open."""
        self._opened = None

    def _table(self) -> Any:
        if self._opened is None and self.name in self._existing_names():
            self._opened = self._database.open_table(self.name)
        return self._opened

    # -- documents ------------------------------------------------------------

    def add(
        self, ids: list[Any], vectors: NDArray[np.float32], metadata: Metadata, tokens: MultiVectors | None
    ) -> None:
        """Store documents and replace those with the same ids, as one version of the table."""
        with self._errors("did not accept documents"):
            data, table = self._arrow_table(ids, vectors, metadata, tokens), self._table()
            if table is None:
                self._opened = self._database.create_table(self.name, data)
                return
            new = [field for field in data.schema if field.name not in table.schema.names]
            if new:
                table.add_columns(self._pa.schema(new))
            for field in table.schema:
                if field.name not in data.schema.names:
                    data = data.append_column(field, self._pa.nulls(len(data), field.type))
            data = data.select(table.schema.names)
            table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all().execute(data)

    def _arrow_table(
        self, ids: list[Any], vectors: NDArray[np.float32], metadata: Metadata, tokens: MultiVectors | None
    ) -> Any:
        pa, stored = self._pa, self.stored
        flat = [flatten(values) for values in metadata]
        kind = np.float16 if stored.precision == "float16" else np.float32
        floats = pa.array(np.ascontiguousarray(vectors, kind).reshape(-1))
        columns: dict[str, Any] = {
            "id": pa.array(ids, pa.int64() if stored.integer_ids else pa.string()),
            "vector": pa.FixedSizeListArray.from_arrays(floats, stored.vector_dimension),
            "metadata": pa.array([json.dumps(dict(values)) for values in metadata], pa.string()),
            "terms": pa.array([values.terms for values in flat], pa.list_(pa.string())),
        }
        if tokens is not None:
            columns["tokens"] = tokens.to_arrow()
        for side in ("low", "high"):
            bounds = [getattr(values, side) for values in flat]
            for name in sorted({name for values in bounds for name in values}):
                kind = pa.string() if name.startswith("text_") else pa.float64()
                columns[f"{side}_{name}"] = pa.array([values.get(name) for values in bounds], kind)
        return pa.table(columns)

    def delete(self, ids: list[Any]) -> None:
        """Delete documents."""
        table = self._table()
        with self._errors("did not delete documents"):
            for batch in id_batches(ids, _IDS) if table is not None else []:
                table.delete(_among(batch))

    def __len__(self) -> int:
        table = self._table()
        return 0 if table is None else int(table.count_rows())

    def _read(self, ids: list[Any], column: str) -> Iterator[tuple[Any, Any]]:
        table = self._table()
        for batch in id_batches(ids, _IDS) if table is not None else []:
            with self._errors("cannot be read"):
                columns = list({"id": 0, column: 0})
                rows = table.search().where(_among(batch)).select(columns).limit(None).to_arrow()
            yield from _pairs(rows, column)

    def _token_batches(self) -> Iterator[Iterator[tuple[Any, Any]]]:
        table = self._table()
        if table is not None:
            reader = table.search().select(["id", "tokens"]).limit(None).to_batches(batch_size=_BATCH)
            yield from (_pairs(self._pa.table(batch), "tokens") for batch in reader if len(batch))

    # -- searching ------------------------------------------------------------

    def search(
        self, vectors: NDArray[np.float32], options: SearchOptions, queries: MultiVectors | None = None
    ) -> Hits:
        """Return the documents with the largest inner products for each query."""
        table = self._table()
        if table is None:
            return [no_hits()] * len(vectors)
        builder = _LanceConditions(set(table.schema.names))
        conditions = [build_condition(options.where, builder)] if options.where else []
        if options.ids is not None:
            conditions.append(builder.any_of([_among(batch) for batch in id_batches(options.ids, _IDS)]))
        if builder.never in conditions:
            return [no_hits()] * len(vectors)
        condition = builder.all_of([text for text in conditions if text != builder.always])
        with self._errors("cannot be searched"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return [
                self._search_one(table, vector, None if condition == builder.always else condition, options)
                for vector in vectors
            ]

    def _search_one(
        self, table: Any, vector: NDArray[np.float32], condition: str | None, options: SearchOptions
    ) -> tuple[list[Any], NDArray[np.float32]]:
        query = table.search(vector, vector_column_name="vector").distance_type("dot").limit(options.count)
        # The graph keeps bytes: find twice as many, and order them by the floats.
        query = query.ef(max(options.ef, 2 * options.count)).refine_factor(2).select(["id", "_distance"])
        if condition is not None:
            query = query.where(condition, prefilter=True)
        rows = query.to_arrow()
        # The distance is 1 - <q, v>.
        return rows["id"].to_pylist(), 1 - rows["_distance"].to_numpy().astype(np.float32)

    def size_bytes(self) -> int | None:
        """Return the bytes of the table's current version and its indexes."""
        table = self._table()
        return None if table is None else int(table.stats()["total_bytes"])


class _LanceConditions(SQLConditions):
    """Builder of conditions for DataFusion.

    Parameters
    ----------
    columns : set of str
        Columns of the table.  A bound without a column satisfies no comparison.
    """

    def __init__(self, columns: set[str]) -> None:
        self._columns = columns

    def has_any(self, terms: list[str]) -> str:
        return f"array_has_any(terms, [{', '.join(map(quoted, terms))}])"

    def compare(self, side: str, name: str, sign: str, value: Any) -> str:
        if isinstance(value, int) and abs(value) > 2**53:
            raise FilterError(f"LanceDB compares numbers as floats, which {value} exceeds. Use a string.")
        column = f"{side}_{name}"
        if column not in self._columns:
            return self.never
        literal = quoted(value) if isinstance(value, str) else repr(float(value))
        return f"({column} IS NOT NULL AND {column} {sign} {literal})"


def _pairs(rows: Any, column: str) -> Iterator[tuple[Any, Any]]:
    values: Any = rows[column]
    if column == "tokens":
        values = MultiVectors.from_arrow(values.combine_chunks()) if len(rows) else []
    elif column == "metadata":
        values = map(json.loads, values.to_pylist())
    return zip(rows["id"].to_pylist(), values, strict=True)


def _among(ids: list[Any]) -> str:
    return f"id IN ({', '.join(map(quoted, ids))})"
