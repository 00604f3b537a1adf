"""PgVectorEngine: a PostgreSQL table with pgvector, through psycopg 3."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock
from typing import Any
from urllib.parse import parse_qsl

import numpy as np

from ..fde.encoder import FDEEncoder
from ..metadata import FilterError, Scalar
from ..utils.checks import import_extra
from .base import Column, Description, Engine, EngineError, EngineRow, Hits, SearchRequest
from .conditions import SQLConditions

# Vectors of at most this dimension fit into the table's pages of 8 kB.
_INLINE = 2048


class PgVectorConditions(SQLConditions):
    """A builder of conditions in PostgreSQL's SQL."""

    def has_any(self, terms: list[str]) -> str:
        """Test that a document has one of the terms."""
        return f"(terms ?| ARRAY[{self.literals(terms)}]::text[])"

    def compare(self, bound: str, sign: str, value: Scalar) -> str:
        """Compare a stored bound with a value, see :meth:`Conditions.compare`."""
        stored = f"(bounds->>'{bound}')"
        if isinstance(value, str):
            return f'coalesce({stored} COLLATE "C" {sign} {self.literal(value)}, false)'
        return f"coalesce({stored}::numeric {sign} {value!r}::numeric, false)"

    def literal(self, value: Scalar) -> str:
        """Return a literal that the server's setting for backslashes does not change.

        Raise FilterError for a string with a NUL.
        """
        if isinstance(value, str) and "\0" in value:
            raise FilterError(f"PostgreSQL cannot compare with {value!r:.80}, which has a NUL. Remove it.")
        text = super().literal(value)
        return "E" + text.replace("\\", "\\\\") if "\\" in text else text


class PgVectorEngine(Engine):
    """A collection in a table of PostgreSQL with the extension pgvector.

    The URL is ``postgresql://USER:PASSWORD@HOST:PORT/DATABASE#NAME``.  Its query may
    have other settings of a connection, such as ``?sslmode=require``.
    """

    kind = "pgvector"
    conditions = PgVectorConditions()
    max_dimension = 4_000  # a graph of halfvec accepts no more

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._secret = dict(parse_qsl(self._url.query)).get("password", self._secret)
        psycopg = import_extra("psycopg", "pgvector", "PostgreSQL")
        self._lock = RLock()
        self._table = f'"{self.name}"'
        self._parts = f'"{self._encoder_name}"'
        # The last of equal settings is valid.
        query = "connect_timeout=10&" + self._url.query.replace("+", "%20")
        server = f"postgresql://{self._url.netloc}/{self._url.path.lstrip('/')}?{query}"
        with self._errors("cannot be reached"):
            self._connection = psycopg.connect(server, password=self._secret, autocommit=True)

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        """Yield a cursor whose changes are committed together."""
        with self._lock, self._connection.transaction(), self._connection.cursor() as cursor:
            yield cursor

    def _run(self, statement: str, *values: Any) -> list[Any]:
        """Execute a statement, and return its rows."""
        with self._transaction() as cursor:
            cursor.execute(statement, values or None, binary=True)
            return [] if cursor.description is None else list(cursor)

    # -- the collection -------------------------------------------------------

    def _has_collection(self, name: str) -> bool:
        return self._run("SELECT to_regclass(%s)::text", f'"{name}"') != [(None,)]

    def create(
        self,
        encoder: FDEEncoder,
        tokens: bool,
        integer_ids: bool,
        text_encoder: str | None,
        pages: str | None = None,
    ) -> None:
        """Create an empty collection in one transaction, see :meth:`Engine.create`."""
        with self._errors("cannot be created"), self._transaction():
            super().create(encoder, tokens, integer_ids, text_encoder, pages)

    def _create(self, description: Description) -> None:
        # The server's error is appended, so the advice is part of the sentence.
        with self._errors(
            "needs the extension vector: install pgvector on the server (Debian: "
            "postgresql-17-pgvector), or ask its administrator to run CREATE EXTENSION vector"
        ):
            self._run("CREATE EXTENSION IF NOT EXISTS vector")
        identity = "bigint" if description.integer_ids else 'text COLLATE "C"'
        key, part = ("id, part", "part integer, ") if description.parts is not None else ("id", "")
        tokens = ", tokens bytea NOT NULL" if description.tokens else ""
        self._run(f"CREATE TABLE {self._parts} (part integer PRIMARY KEY, content bytea NOT NULL)")
        self._run(
            f"CREATE TABLE {self._table} (id {identity}, {part}embedding "
            f"halfvec({description.vector_dimension}) NOT NULL, metadata jsonb NOT NULL, terms jsonb NOT "
            f"NULL, bounds jsonb NOT NULL{tokens}, PRIMARY KEY ({key}))"
        )
        self._run(f"CREATE INDEX ON {self._table} USING gin (terms)")
        if description.vector_dimension <= _INLINE:
            # Stored inside the row, so that a distance needs no second read.
            self._run(f"ALTER TABLE {self._table} ALTER embedding SET STORAGE PLAIN")

    def _drop(self, name: str) -> None:
        self._run(f'DROP TABLE IF EXISTS "{name}"')

    def _read_part(self, number: int) -> bytes | None:
        rows = self._run(f"SELECT content FROM {self._parts} WHERE part = %s", number)
        return rows[0][0] if rows else None

    def _write_part(self, number: int, content: bytes) -> None:
        replaced = "ON CONFLICT (part) DO UPDATE SET content = EXCLUDED.content"
        self._run(f"INSERT INTO {self._parts} VALUES (%s, %s) {replaced}", number, content)

    def finish(self) -> None:
        """Build the graph if it does not exist; later rows are inserted into it."""
        with self._errors("could not be indexed"):
            self._run(
                f'CREATE INDEX IF NOT EXISTS "{self.name}_graph" ON {self._table} USING hnsw '
                f"(embedding halfvec_ip_ops) WITH (m = {self.links}, ef_construction = "
                f"{self.ef_construction})"
            )
            self._run(f"ANALYZE {self._table}")

    def _close(self) -> None:
        self._connection.close()

    # -- documents ------------------------------------------------------------

    def _write(self, rows: list[EngineRow]) -> None:
        key = ["id"] if self.stored.parts is None else ["id", "part"]
        values = ["embedding", "metadata", "terms", "bounds", *["tokens"] * self.stored.tokens]
        names = [*key, *values]
        query = (
            f"INSERT INTO {self._table} ({', '.join(names)}) VALUES ({', '.join(['%s'] * len(names))}) "
            f"ON CONFLICT ({', '.join(key)}) DO UPDATE SET "
            f"{', '.join(f'{name} = EXCLUDED.{name}' for name in values)}"
        )
        with self._transaction() as cursor:
            cursor.executemany(query, [[row.id, row.part][: len(key)] + _values(row) for row in rows])

    def _delete(self, ids: list[Any], first: int) -> None:
        parts = f" AND part >= {first}" * bool(first)
        self._run(f"DELETE FROM {self._table} WHERE id = ANY(%s){parts}", ids)

    def _count(self) -> int:
        return int(self._run(f"SELECT count(*) FROM {self._table} WHERE {self._part} = 0")[0][0])

    @property
    def _part(self) -> str:
        """The column of part numbers; 0 if there is none."""
        return "0" if self.stored.parts is None else "part"

    def _ids(self, condition: Any) -> list[Any]:
        chosen = self.conditions.join("and", [f"{self._part} = 0", *([condition] if condition else [])])
        return [id for (id,) in self._run(f"SELECT id FROM {self._table} WHERE {chosen}")]

    def _read(self, ids: list[Any], column: Column, part: int) -> list[tuple[Any, Any]]:
        known = [id for id in ids if "\0" not in str(id)]  # PostgreSQL refuses a NUL
        where = f"id = ANY(%s) AND {self._part} = {part}"
        rows = self._run(f"SELECT id, {column} FROM {self._table} WHERE {where}", known)
        return [(id, np.frombuffer(value, "<f2")) for id, value in rows] if column == "tokens" else rows

    # -- searching ------------------------------------------------------------

    def _search(self, request: SearchRequest, condition: object) -> Hits:
        where = "" if condition is None else f"WHERE {condition}".replace("%", "%%")
        # <#> is the negative inner product.
        query = (
            f"SELECT id, {self._part}, embedding <#> %s::halfvec AS distance FROM {self._table} {where} "
            f"ORDER BY distance LIMIT {request.limit}"
        )
        hits: Hits = []
        with self._transaction() as cursor:
            cursor.execute(f"SET LOCAL hnsw.ef_search = {min(1000, request.breadth)}")  # pgvector's maximum
            # Continue in the graph until enough documents satisfy the condition.
            cursor.execute("SET LOCAL hnsw.iterative_scan = strict_order")
            for vector in request.vectors:
                rows = cursor.execute(query, [str(vector.tolist())]).fetchall()
                hits.append(([(id, part) for id, part, _ in rows], [-distance for *_, distance in rows]))
        return hits


def _values(row: EngineRow) -> list[Any]:
    """Return a row's values except its key, with the vector and JSON as text."""
    plain = [json.dumps(value) for value in (row.metadata, row.flat.terms, row.flat.bounds)]
    if "\\u0000" in "".join([json.dumps(row.id), *plain]).replace("\\\\", ""):  # without escaped backslashes
        raise EngineError(
            f"The id, text or metadata of document {row.id!r} has a NUL, which PostgreSQL cannot store. "
            "Remove it."
        )
    tokens = [] if row.tokens is None else [row.tokens.astype("<f2").tobytes()]
    return [str(row.vector.tolist()), *plain, *tokens]
