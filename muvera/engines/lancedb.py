"""LanceDBEngine: a LanceDB table, in a folder or in object storage."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.multivectors import MultiVectors
from ..metadata import FilterError, Scalar
from ..utils.checks import import_extra
from .base import Column, Description, Engine, EngineRow, Hits, SearchRequest, folder_of
from .conditions import SQLConditions

if TYPE_CHECKING:
    import lancedb
    import pyarrow as pa


class LanceDBConditions(SQLConditions):
    """A builder of conditions on a table.

    No document satisfies a comparison with a column that is not among `columns`.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = columns

    def has_any(self, terms: list[str]) -> str:
        """Test that a document has one of the terms."""
        return f"array_has_any(terms, [{self.literals(terms)}])"

    def compare(self, bound: str, sign: str, value: Scalar) -> str | bool:
        """Compare a stored bound with a value, see :meth:`Conditions.compare`.

        Raise FilterError for an integer that float64 cannot represent.
        """
        if isinstance(value, int) and abs(value) > 2**53:
            raise FilterError(
                f"LanceDB compares numbers as float64, which cannot represent {value} exactly. Use a string."
            )
        if bound not in self._columns:
            return False
        literal = self.literal(value if isinstance(value, str) else float(value))
        return f"({bound} IS NOT NULL AND {bound} {sign} {literal})"


class LanceDBEngine(Engine):
    """A collection in a LanceDB table, with tokens as Arrow lists.

    The URL is ``lancedb:PATH#NAME``.  PATH is a folder or the URL of object storage.
    """

    kind = "lancedb"

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._path = folder_of(self._url)
        self._pa = import_extra("pyarrow", "lancedb", "LanceDB")
        self._library = import_extra("lancedb", "lancedb", "LanceDB")
        self._table: Any = None

    @cached_property
    def _database(self) -> Any:
        return self._library.connect(self._path)  # makes a folder

    # -- the collection -------------------------------------------------------

    def _has_collection(self, name: str) -> bool:
        if "://" not in self._path and not Path(self._path).expanduser().is_dir():
            return False
        tables = self._database.list_tables()
        return name in getattr(tables, "tables", tables)

    def _open(self) -> None:
        self._table = self._database.open_table(self.name)

    def _create(self, description: Description) -> None:
        pa = self._pa
        columns = {
            "id": pa.int64() if description.integer_ids else pa.string(),
            **({} if description.parts is None else {"part": pa.int64()}),
            "vector": pa.list_(pa.float32(), description.vector_dimension),
            "metadata": pa.string(),
            "terms": pa.list_(pa.string()),
        }
        if description.tokens:
            columns["tokens"] = pa.list_(pa.list_(pa.float16(), description.token_dimension))
        parts = pa.schema({"part": pa.int64(), "content": pa.binary()})
        self._database.create_table(self._encoder_name, schema=parts)
        self._table = self._database.create_table(self.name, schema=pa.schema(columns))

    def _drop(self, name: str) -> None:
        if self._has_collection(name):
            self._database.drop_table(name)

    def _read_part(self, number: int) -> bytes | None:
        table = self._database.open_table(self._encoder_name)
        rows = table.search().where(f"part = {number}").to_arrow()["content"].to_pylist()
        return rows[0] if rows else None

    def _write_part(self, number: int, content: bytes) -> None:
        table = self._database.open_table(self._encoder_name)
        _upsert(
            table, ["part"], self._pa.table({"part": [number], "content": [content]}, schema=table.schema)
        )

    def finish(self) -> None:
        """Build the graph and the index of terms, or add new rows to them."""
        table = self._table
        with self._errors("could not be indexed"):
            if table.count_rows() < self.graph_from:
                return
            if "vector" in {column for index in table.list_indices() for column in index.columns}:
                table.optimize()
                return
            config = import_extra("lancedb.index", "lancedb", "LanceDB")
            # One partition, so that one graph holds all vectors.  The graph compares
            # bytes; floats reorder its results.
            hnsw = config.HnswSq(
                distance_type="dot", num_partitions=1, m=self.links, ef_construction=self.ef_construction
            )
            table.create_index("vector", config=hnsw)
            with suppress(Exception):  # conditions work without it
                table.create_index("terms", config=config.LabelList())

    def _close(self) -> None:
        self._table = None

    # -- documents ------------------------------------------------------------

    def _write(self, rows: list[EngineRow]) -> None:
        pa = self._pa
        table = self._table
        kinds = {"number": pa.float64(), "text": pa.string()}
        names = {name for row in rows for name in row.flat.bounds}.difference(table.schema.names)
        if names:
            table.add_columns(pa.schema([(name, kinds[name.split("_")[1]]) for name in sorted(names)]))
        entries = [
            {
                **dict(zip(self._key, (row.id, row.part), strict=False)),
                "vector": row.vector,
                "metadata": json.dumps(row.metadata),
                "terms": row.flat.terms,
                **row.flat.bounds,
            }
            for row in rows
        ]
        data = pa.Table.from_pylist(entries, schema=table.schema)
        if self.stored.tokens:
            tokens = MultiVectors.from_arrays(
                [row.tokens for row in rows if row.tokens is not None]
            ).to_arrow()
            data = data.set_column(data.schema.get_field_index("tokens"), "tokens", tokens)
        _upsert(table, self._key, data)

    @property
    def _key(self) -> list[str]:
        """The columns that tell rows apart."""
        return ["id"] if self.stored.parts is None else ["id", "part"]

    def _delete(self, ids: list[Any], first: int) -> None:
        self._table.delete(self.conditions.among(ids) + f" and part >= {first}" * bool(first))

    def _count(self) -> int:
        return int(self._table.count_rows(None if self.stored.parts is None else "part = 0"))

    def _ids(self, condition: Any) -> list[Any]:
        first = [] if self.stored.parts is None else ["part = 0"]
        chosen = [*first, *([condition] if condition else [])]
        query = self._table.search().select(["id"]).limit(None)
        if chosen:
            query = query.where(self.conditions.join("and", chosen))
        return list(query.to_arrow()["id"].to_pylist())

    def _read(self, ids: list[Any], column: Column, part: int) -> Iterable[tuple[Any, Any]]:
        columns = ["id"] if column == "id" else ["id", column]
        chosen = self.conditions.among(ids)
        if self.stored.parts is not None:
            chosen += f" and part = {part}"
        query = self._table.search().select(columns).where(chosen)
        rows = query.limit(None).to_arrow()
        names = rows["id"].to_pylist()
        if column == "tokens":
            return zip(names, MultiVectors.from_arrow(rows[column]) if names else [], strict=True)
        values = rows[column].to_pylist()
        return zip(names, map(json.loads, values) if column == "metadata" else values, strict=True)

    # -- searching ------------------------------------------------------------

    @property
    def conditions(self) -> LanceDBConditions:
        """The builder of conditions on the columns that the table has now."""
        return LanceDBConditions(self._table.schema.names)

    def _search(self, request: SearchRequest, condition: object) -> Hits:
        hits: Hits = []
        for vector in request.vectors:
            query = self._table.search(vector, vector_column_name="vector").distance_type("dot")
            # The graph keeps bytes: find twice as many, and order them by the floats.
            query = query.limit(request.limit).ef(max(request.breadth, 2 * request.limit)).refine_factor(2)
            query = query.select([*self._key, "_distance"])
            if condition is not None:
                query = query.where(condition, prefilter=True)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                rows = query.to_arrow()
            ids = rows["id"].to_pylist()
            parts = [0] * len(ids) if self.stored.parts is None else rows["part"].to_pylist()
            # The distance is 1 - <q, v>.
            hits.append(
                (list(zip(ids, parts, strict=True)), 1 - rows["_distance"].to_numpy().astype(np.float32))
            )
        return hits


def _upsert(table: lancedb.table.Table, key: list[str], data: pa.Table) -> None:
    table.merge_insert(key).when_matched_update_all().when_not_matched_insert_all().execute(data)
