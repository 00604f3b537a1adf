"""LanceDBEngine: a table of LanceDB, embedded or on object storage, with tokens as Arrow's lists."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, ClassVar, Literal
from urllib.parse import SplitResult, unquote

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors
from ..data.validation import Ids
from ..metadata.filters import build_condition
from ..metadata.values import flatten
from ..utils.optional_imports import import_extra
from .base import Description, Engine, EngineError, Found, Location, Rows, SearchOptions, parts_of
from .sql_conditions import SQLConditions, quoted

__all__ = ["LanceDBEngine"]

# Documents of a batch where all tokens are read, and ids of one condition.
_BATCH, _IDS = 1024, 1000

_COLUMNS = ("id", "vector", "metadata", "terms")


class LanceDBEngine(Engine):
    """A collection in LanceDB.

    Parameters
    ----------
    path : str
        A folder or the URL of object storage.
    name : str
        Of the table.

    Raises
    ------
    ImportError
        Where LanceDB is not installed.
    """

    kind = "lancedb"
    keeps_tokens = True
    precisions: ClassVar[tuple[Literal["float32", "float16"], ...]] = ("float32", "float16")

    def __init__(self, path: str, name: str) -> None:
        super().__init__(Location(f"lancedb:{path}", name))
        self._pa = import_extra("pyarrow", "lancedb", "LanceDB")
        library = import_extra("lancedb", "lancedb", "LanceDB")
        try:
            self._database = library.connect(path)
        except Exception as error:
            raise EngineError(f"{self.location.url} cannot be opened: {_first_line(error)}") from error
        self._name = name
        self._table_: Any = None
        self._description: Description | None = None

    @classmethod
    def from_url(cls, url: SplitResult, name: str) -> LanceDBEngine:
        """Open ``lancedb:PATH#NAME``."""
        path = unquote(url.path) if not url.netloc else f"/{url.netloc}{unquote(url.path)}"
        if not path:
            raise EngineError("The URL of LanceDB names no folder. Give lancedb:FOLDER.")
        return cls(path, name)

    # -- the collection -------------------------------------------------------

    @property
    def _beside(self) -> str:
        return f"{self._name}_encoder"

    def _names(self) -> set[str]:
        try:
            found = self._database.list_tables()
            return set(getattr(found, "tables", found))
        except Exception as error:
            raise EngineError(f"{self.location.url} cannot be read: {_first_line(error)}") from error

    def describe(self) -> Description | None:
        """Return what is there; None where nothing of this name is."""
        names = self._names()
        if self._beside not in names:
            if self._name in names:
                raise EngineError(f"{self.location} is a table of something else. Give another name.")
            return None
        values = self._parts("part = 0")[0]
        self._description = Description.from_dict(json.loads(values))
        if self._name in names:
            self._require_columns(self._table())
        return self._description

    def _require_columns(self, table: Any) -> None:
        there = set(table.schema.names)
        wanted = [*_COLUMNS, *(["tokens"] if self._there().tokens else [])]
        missing = [name for name in wanted if name not in there]
        width = self._there().vector_dimension
        if missing or getattr(table.schema.field("vector").type, "list_size", 0) != width:
            what = f"no column {missing[0]!r}" if missing else f"no vectors of {width} floats"
            raise EngineError(f"{self.location} has {what} any more: its table was changed. Load it again.")

    def create(self, description: Description, encoder: bytes) -> None:
        """Make an empty collection that keeps the encoder."""
        if self._names() & {self._name, self._beside}:
            raise EngineError(f"{self.location} exists. Give another name, or drop it.")
        parts = [json.dumps(description.to_dict()).encode(), *parts_of(encoder)]
        pa = self._pa
        table = pa.table(
            {"part": pa.array(range(len(parts)), pa.int64()), "content": pa.array(parts, pa.binary())}
        )
        self._database.create_table(self._beside, table)
        self._description = description

    def read_encoder(self) -> bytes:
        """Return what :meth:`create` kept."""
        return b"".join(self._parts("part > 0"))

    def _parts(self, where: str) -> list[bytes]:
        found = self._database.open_table(self._beside).search().where(where).limit(None).to_arrow()
        return [content for _, content in sorted(zip(*found.to_pydict().values(), strict=True))]

    def finish(self) -> None:
        """Build the graph and the index of terms, or take new rows into them."""
        table = self._table()
        if table is None or table.count_rows() < self._there().graph.from_documents:
            return
        there = {column for index in table.list_indices() for column in index.columns}
        if "vector" in there:
            table.optimize()
            return
        config = import_extra("lancedb.index", "lancedb", "LanceDB")
        graph = self._there().graph
        # One partition: a graph of all, as elsewhere; bytes of its vectors are refined by the floats.
        how = config.HnswSq(
            distance_type="dot", num_partitions=1, m=graph.m, ef_construction=graph.ef_construction
        )
        table.create_index("vector", config=how)
        with suppress(Exception):  # conditions are answered without it, too
            table.create_index("terms", config=config.LabelList())

    def drop(self) -> None:
        """Remove the collection."""
        for name in self._names() & {self._name, self._beside}:
            self._database.drop_table(name)
        self._table_ = self._description = None

    def close(self) -> None:
        """Forget the table; LanceDB keeps nothing open."""
        self._table_ = None

    def _there(self) -> Description:
        if self._description is None:
            raise EngineError(f"There is nothing in {self.location}.")
        return self._description

    def _table(self) -> Any:
        if self._table_ is None and self._name in self._names():
            self._table_ = self._database.open_table(self._name)
        return self._table_

    # -- documents ------------------------------------------------------------

    def add(self, rows: Rows) -> None:
        """Store documents, in place of those with the same ids: one version of the table."""
        pa, there = self._pa, self._there()
        flat = [flatten(values) for values in rows.metadata]
        half = there.precision == "float16"
        floats = np.ascontiguousarray(rows.vectors, np.float16 if half else np.float32)
        columns: dict[str, Any] = {
            "id": pa.array(rows.ids.tolist(), pa.int64() if there.integer_ids else pa.string()),
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(floats.reshape(-1)), there.vector_dimension),
            "metadata": pa.array([json.dumps(dict(values)) for values in rows.metadata], pa.string()),
            "terms": pa.array([one.terms for one in flat], pa.list_(pa.string())),
        }
        if rows.tokens is not None:
            columns["tokens"] = rows.tokens.to_arrow()
        for side in ("low", "high"):
            for name in sorted({name for one in flat for name in getattr(one, side)}):
                kind = pa.string() if name.startswith("text_") else pa.float64()
                columns[f"{side}_{name}"] = pa.array([getattr(one, side).get(name) for one in flat], kind)
        data = pa.table(columns)
        table = self._table()
        try:
            if table is None:
                self._table_ = self._database.create_table(self._name, data)
                return
            new = [field for field in data.schema if field.name not in table.schema.names]
            if new:
                table.add_columns(pa.schema(new))
            missing = [field for field in table.schema if field.name not in columns]
            for field in missing:
                data = data.append_column(field, pa.nulls(len(data), field.type))
            data = data.select(table.schema.names)
            table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all().execute(data)
        except Exception as error:
            raise EngineError(f"{self.location} did not take documents: {_first_line(error)}") from error

    def existing(self, ids: Ids) -> set[Any]:
        """Return those of some ids that are there."""
        found = self._rows(ids.tolist(), ["id"])
        return {name for part in found for name in part["id"].to_pylist()}

    def delete(self, ids: Ids) -> None:
        """Remove documents."""
        table = self._table()
        for condition in self._conditions(ids.tolist()) if table is not None else []:
            table.delete(condition)

    def __len__(self) -> int:
        table = self._table()
        return 0 if table is None else int(table.count_rows())

    def metadata(self, ids: Sequence[Any]) -> dict[Any, dict[str, Any]]:
        """Return the metadata of documents by id."""
        found: dict[Any, dict[str, Any]] = {}
        for part in self._rows(list(ids), ["id", "metadata"]):
            for name, text in zip(part["id"].to_pylist(), part["metadata"].to_pylist(), strict=True):
                found[name] = json.loads(text)
        return found

    def tokens(self, ids: Sequence[Any]) -> MultiVectors:
        """Return the tokens of those documents that are there."""
        parts = [self._texts(part) for part in self._rows(list(ids), ["id", "tokens"]) if len(part)]
        return self._joined(parts)

    def all_tokens(self) -> Iterator[MultiVectors]:
        """Yield the tokens of all documents."""
        table = self._table()
        if table is None:
            return
        lance = table.search().select(["id", "tokens"]).limit(None).to_batches(batch_size=_BATCH)
        for batch in lance:
            if len(batch):
                yield self._texts(self._pa.table(batch))

    def _joined(self, parts: list[MultiVectors]) -> MultiVectors:
        if parts:
            return MultiVectors.concatenate(parts)
        return MultiVectors.from_flat(
            np.empty((0, self._there().token_dimension), np.float16), np.empty(0, int)
        )

    def _texts(self, table: Any) -> MultiVectors:
        return MultiVectors.from_arrow(table["tokens"].combine_chunks(), ids=table["id"].to_pylist())

    def _rows(self, ids: list[Any], columns: list[str]) -> Iterator[Any]:
        table = self._table()
        for condition in self._conditions(ids) if table is not None else []:
            yield table.search().where(condition).select(columns).limit(None).to_arrow()

    def _conditions(self, ids: list[Any]) -> Iterator[str]:
        for start in range(0, len(ids), _IDS):
            yield f"id IN ({', '.join(quoted(name) for name in ids[start : start + _IDS])})"

    # -- searching ------------------------------------------------------------

    def search(self, vectors: NDArray[np.float32], options: SearchOptions) -> Found:
        """Return the documents of the largest inner products for each query."""
        table = self._table()
        nothing: tuple[list[Any], NDArray[np.float32]] = ([], np.empty(0, np.float32))
        condition = None
        if table is not None and options.where:
            condition = build_condition(options.where, _LanceConditions(set(table.schema.names)))
        if table is None or condition == _LanceConditions.never:
            return [nothing] * len(vectors)
        if condition == _LanceConditions.always:
            condition = None
        return [self._one(table, vector, condition, options) for vector in vectors]

    def _one(
        self, table: Any, vector: NDArray[np.float32], condition: str | None, options: SearchOptions
    ) -> tuple[list[Any], NDArray[np.float32]]:
        query = table.search(vector, vector_column_name="vector").distance_type("dot").limit(options.count)
        # The graph keeps bytes: twice as many are found by them and ordered by the floats.
        query = query.ef(max(options.ef, 2 * options.count)).refine_factor(2).select(["id", "_distance"])
        if condition is not None:
            query = query.where(condition, prefilter=True)
        if options.exact:
            query = query.bypass_vector_index()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found = query.to_arrow()
            except Exception as error:
                raise EngineError(f"{self.location} cannot be searched: {_first_line(error)}") from error
        # Its distance is 1 - <q, v>.
        return found["id"].to_pylist(), 1 - found["_distance"].to_numpy().astype(np.float32)

    def size_bytes(self) -> int | None:
        """Return the bytes of the table's current version and its indexes."""
        table = self._table()
        return None if table is None else int(table.stats()["total_bytes"])


class _LanceConditions(SQLConditions):
    """Builds text for DataFusion.

    Parameters
    ----------
    columns : set of str
        Of the table; a bound that no document has satisfies nothing.
    """

    def __init__(self, columns: set[str]) -> None:
        self._columns = columns

    def has_any(self, terms: list[str]) -> str:
        return f"array_has_any(terms, [{', '.join(map(quoted, terms))}])"

    def compare(self, side: str, name: str, sign: str, value: Any) -> str:
        column = f"{side}_{name}"
        if column not in self._columns:
            return self.never
        literal = quoted(value) if isinstance(value, str) else repr(float(value))
        return f"({column} IS NOT NULL AND {column} {sign} {literal})"


def _first_line(error: BaseException) -> str:
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    # Where in its source a library failed says nothing to a user.
    return re.sub(r",? /\S+\.rs:\d+:\d+", "", text)[:200].rstrip(".") + "."
