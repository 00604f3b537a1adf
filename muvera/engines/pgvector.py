"""PgVectorEngine: a table of PostgreSQL with the extension pgvector, through psycopg 3."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote

import numpy as np

from ..data.multivectors import MultiVectors
from ..metadata.filters import FilterError
from ..utils.optional_imports import import_extra
from .base import Column, Description, Engine, EngineError, Hits, Row, Vectors
from .conditions import SQLConditions

__all__ = ["PgVectorEngine"]

# Binary COPY: its header, and the column count -1 that ends it.
_COPY_START, _COPY_END = b"PGCOPY\n\xff\r\n\0" + bytes(8), struct.pack("!h", -1)

# A vector of at most this many bytes fits into the table's own pages of 8 kB.
_INLINE = 4096

# Version of pgvector that added iterative scans.
_ITERATIVE = (0, 8)


class PgVectorEngine(Engine):
    """A collection in the table `name` of PostgreSQL; `settings` are those of ``psycopg.connect``."""

    kind = "pgvector"
    keeps_tokens = True
    precisions = {"float16": 4_000, "float32": 2_000}  # noqa: RUF012 (limits of pgvector's HNSW index)

    def __init__(self, name: str, **settings: Any) -> None:
        user, port = settings.get("user"), settings.get("port")
        server = (
            f"{f'{user}@' if user else ''}{settings.get('host', 'localhost')}{f':{port}' if port else ''}"
        )
        super().__init__(
            f"postgresql://{server}/{settings.get('dbname', '')}", name, settings.get("password")
        )
        psycopg = import_extra("psycopg", "pgvector", "PostgreSQL")
        self._lock = RLock()
        self._table, self._encoder, self._graph = (
            '"{}"'.format(text.replace('"', '""')) for text in (name, self._encoder_name, f"{name}_graph")
        )
        with self._errors("cannot be reached"):
            self._connection = psycopg.connect(connect_timeout=10, autocommit=True, **settings)

    @classmethod
    def from_url(cls, url: SplitResult, name: str) -> PgVectorEngine:
        """Open ``postgresql://USER:PASSWORD@HOST:PORT/DATABASE#NAME``."""
        settings = {
            "host": url.hostname,
            "port": url.port,
            "dbname": unquote(url.path.lstrip("/")) or None,
            "user": unquote(url.username) if url.username else None,
            "password": unquote(url.password) if url.password else None,
            **dict(parse_qsl(url.query)),
        }
        return cls(name, **{key: value for key, value in settings.items() if value is not None})

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        """Yield a cursor whose changes are committed together."""
        with self._lock, self._connection.transaction(), self._connection.cursor() as cursor:
            yield cursor

    def _execute(self, *statements: str) -> None:
        with self._transaction() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def _select(self, query: str, *values: Any) -> list[Any]:
        with self._transaction() as cursor:
            rows: list[Any] = cursor.execute(query, values).fetchall()
        return rows

    # -- the collection -------------------------------------------------------

    def _existing_names(self) -> set[str]:
        query = "SELECT relname FROM pg_class WHERE relname = ANY(%s) AND pg_table_is_visible(oid)"
        return {name for (name,) in self._select(query, [self.name, self._encoder_name])}

    def _open(self, stored: Description) -> int:
        query = "SELECT atttypmod FROM pg_attribute WHERE attrelid = %s::regclass AND attname = 'embedding'"
        return max((floats for (floats,) in self._select(query, self._table)), default=0)

    def create(self, description: Description, encoder: bytes) -> None:
        """Create an empty collection that stores the encoder, in one transaction."""
        with self._transaction():
            super().create(description, encoder)

    def _create(self, description: Description) -> None:
        try:
            with self._errors("has no extension vector, and it cannot be created"):
                self._execute("CREATE EXTENSION IF NOT EXISTS vector")
        except EngineError as error:
            raise EngineError(
                f"{error} Install pgvector on the server (Debian: postgresql-17-pgvector), or let its administrator "
                "run CREATE EXTENSION vector."
            ) from None
        identity = "bigint" if description.integer_ids else 'text COLLATE "C"'
        tokens = ", tokens bytea NOT NULL" if description.tokens else ""
        self._execute(
            f"CREATE TABLE {self._encoder} (part integer PRIMARY KEY, content bytea NOT NULL)",
            f"CREATE TABLE {self._table} (id {identity} PRIMARY KEY, embedding {_vector_type(description)} NOT NULL, "
            f"metadata jsonb NOT NULL, terms jsonb NOT NULL, bounds jsonb NOT NULL{tokens})",
            f"CREATE INDEX ON {self._table} USING gin (terms)",
        )
        if description.vector_dimension * (2 if description.precision == "float16" else 4) <= _INLINE:
            # Stored inside the row, so that a distance needs no second read.
            self._execute(f"ALTER TABLE {self._table} ALTER embedding SET STORAGE PLAIN")

    def _drop(self) -> None:
        self._execute(f"DROP TABLE IF EXISTS {self._table}, {self._encoder}")

    def _read_parts(self, start: int, stop: int | None) -> list[bytes]:
        query = f"SELECT content FROM {self._encoder} WHERE part >= %s AND part < %s ORDER BY part"
        return [content for (content,) in self._select(query, start, 2**31 - 1 if stop is None else stop)]

    def _write_parts(self, start: int, parts: list[bytes]) -> None:
        replaced = "ON CONFLICT (part) DO UPDATE SET content = EXCLUDED.content"
        with self._transaction() as cursor:
            cursor.executemany(
                f"INSERT INTO {self._encoder} VALUES (%s, %s) {replaced}", list(enumerate(parts, start))
            )

    def finish(self) -> None:
        """Build the graph if it does not exist; later rows are inserted into it."""
        graph = self.stored.graph
        kind = _vector_type(self.stored).partition("(")[0]
        settings = f"m = {graph.m}, ef_construction = {max(graph.ef_construction, 2 * graph.m)}"
        with self._errors("could not be indexed"):
            self._execute(
                f"CREATE INDEX IF NOT EXISTS {self._graph} ON {self._table} USING hnsw (embedding {kind}_ip_ops) "
                f"WITH ({settings})"
            )
            self._execute(f"ANALYZE {self._table}")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    # -- documents ------------------------------------------------------------

    def _write(self, rows: list[Row]) -> None:
        names = [
            "id",
            "embedding",
            "metadata",
            "terms",
            "bounds",
            *(["tokens"] if self.stored.tokens else []),
        ]
        listed = ", ".join(names)
        changes = ", ".join(f"{name} = EXCLUDED.{name}" for name in names[1:])
        with self._transaction() as cursor:
            cursor.execute(
                f"CREATE TEMP TABLE new_rows (LIKE {self._table} INCLUDING DEFAULTS) ON COMMIT DROP"
            )
            with cursor.copy(f"COPY new_rows ({listed}) FROM STDIN (FORMAT BINARY)") as copy:
                copy.write(_COPY_START)
                for row in rows:
                    fields = self._binary(row)
                    lengths = (struct.pack("!i", len(field)) for field in fields)
                    pairs = zip(lengths, fields, strict=True)
                    copy.write(struct.pack("!h", len(fields)) + b"".join(map(b"".join, pairs)))
                copy.write(_COPY_END)
            cursor.execute(
                f"INSERT INTO {self._table} ({listed}) SELECT {listed} FROM new_rows "
                f"ON CONFLICT (id) DO UPDATE SET {changes}"
            )

    def _binary(self, row: Row) -> list[bytes]:
        if isinstance(row.id, str) and "\0" in row.id:
            raise EngineError(f"The id {row.id!r} has a NUL, which PostgreSQL does not store. Give another.")
        half = self.stored.precision == "float16"
        fields = [
            struct.pack("!q", row.id) if isinstance(row.id, int) else row.id.encode(),
            # pgvector's binary form: the number of floats, zero, and the floats, all big-endian.
            struct.pack("!hh", len(row.vector), 0) + row.vector.astype(">f2" if half else ">f4").tobytes(),
            _jsonb(row.metadata),
            _jsonb(row.flat.terms),
            _jsonb(row.flat.bounds),
        ]
        return fields if row.tokens is None else [*fields, row.tokens.astype("<f2").tobytes()]

    def _delete(self, condition: str) -> None:
        self._execute(f"DELETE FROM {self._table} WHERE {condition}")

    def _count(self) -> int:
        return int(self._select(f"SELECT count(*) FROM {self._table}")[0][0])

    def _rows(self, condition: str | None, column: Column) -> Iterator[tuple[Any, Any]]:
        query = f"SELECT id, {column} FROM {self._table} WHERE {condition or 'true'}"
        with self._transaction() as cursor:  # tokens are read one row at a time
            for id, value in cursor.stream(query, binary=column == "tokens"):
                yield id, np.frombuffer(value, "<f2") if column == "tokens" else value

    # -- searching ------------------------------------------------------------

    def _builder(self) -> _JSONConditions:
        return _JSONConditions()

    def _search(
        self, vectors: Vectors, condition: Any, count: int, ef: int, queries: MultiVectors | None, k: int
    ) -> Hits:
        where = "" if condition is None else f"WHERE {condition}".replace("%", "%%")
        # <#> is the negative inner product.
        query = (
            f"SELECT id, embedding <#> %s::{_vector_type(self.stored)} AS distance FROM {self._table} {where} "
            f"ORDER BY distance LIMIT {count}"
        )
        settings = {"hnsw.ef_search": str(min(1000, max(ef, count)))}  # pgvector's maximum
        if where:
            [(version,)] = self._select("SELECT extversion FROM pg_extension WHERE extname = 'vector'")
            if tuple(map(int, version.split(".")[:2])) >= _ITERATIVE:
                settings["hnsw.iterative_scan"] = "strict_order"
        hits: Hits = []
        with self._transaction() as cursor:
            for setting in settings.items():
                cursor.execute("SELECT set_config(%s, %s, true)", setting)
            for vector in vectors:
                text = f"[{','.join(vector.astype('U').tolist())}]"
                rows = cursor.execute(query, [text]).fetchall()
                hits.append(([id for id, _ in rows], [-distance for _, distance in rows]))
        return hits

    def size_bytes(self) -> int | None:
        """Return the bytes of the table with its tokens and its indexes."""
        return int(self._select("SELECT pg_total_relation_size(%s::regclass)", self._table)[0][0])


class _JSONConditions(SQLConditions):
    """Builder of conditions on jsonb."""

    def has_any(self, terms: list[str]) -> str:
        return f"(terms ?| ARRAY[{', '.join(map(self.literal, terms))}]::text[])"

    def compare(self, bound: str, sign: str, value: Any) -> str:
        stored = f"(bounds->>'{bound}')"
        if isinstance(value, str):
            return f'coalesce({stored} COLLATE "C" {sign} {self.literal(value)}, false)'
        return f"coalesce({stored}::numeric {sign} {value!r}::numeric, false)"

    def literal(self, value: Any) -> str:
        """Return a literal that does not depend on the server's setting for backslashes."""
        if isinstance(value, str) and "\0" in value:
            raise FilterError(f"PostgreSQL cannot compare with {value!r:.80}, which has a NUL. Remove it.")
        text = super().literal(value)
        return "E" + text.replace("\\", "\\\\") if "\\" in text else text


def _vector_type(description: Description) -> str:
    kind = "halfvec" if description.precision == "float16" else "vector"
    return f"{kind}({description.vector_dimension})"


def _jsonb(value: Any) -> bytes:
    return b"\x01" + json.dumps(value).encode()
