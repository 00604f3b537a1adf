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
    quoted,
)

__all__ = ["PgVectorEngine"]

# Binary COPY: its header, and the column count -1 that ends it.
_COPY_START, _COPY_END = b"PGCOPY\n\xff\r\n\0" + bytes(8), struct.pack("!h", -1)

# Documents per batch when all tokens are read.
_BATCH = 1024

# A vector of at most this many bytes fits into the table's own pages of 8 kB.
_INLINE = 4096

# Versions of pgvector that added iterative scans, and halfvec.
_ITERATIVE, _HALF = (0, 8), (0, 7)

_COLUMNS = ("id", "embedding", "metadata", "terms", "bounds")


class PgVectorEngine(Engine):
    """A collection in PostgreSQL.

    Parameters
    ----------
    name : str
        Name of the table.
    **settings
        Of ``psycopg.connect``: host, port, dbname, user, password and others.

    Raises
    ------
    EngineError
        If the server cannot be reached.
    ImportError
        Without psycopg.
    """

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
        self._sql = import_extra("psycopg.sql", "pgvector", "PostgreSQL")
        self._lock = RLock()
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
    def _transaction(self, what: str) -> Iterator[Any]:
        """Yield a cursor whose changes are committed together."""
        with (
            self._lock,
            self._errors(what),
            self._connection.transaction(),
            self._connection.cursor() as cursor,
        ):
            yield cursor

    def _named(self, text: str) -> Any:
        """Insert the tables' names into SQL text."""
        return self._sql.SQL(text).format(
            table=self._sql.Identifier(self.name),
            encoder=self._sql.Identifier(self._encoder_name),
            graph=self._sql.Identifier(f"{self.name}_graph"),
        )

    def _select(self, query: str, *values: Any, binary: bool = False) -> list[Any]:
        with self._transaction("cannot be read") as cursor:
            rows: list[Any] = cursor.execute(self._named(query), list(values), binary=binary).fetchall()
        return rows

    # -- the collection -------------------------------------------------------

    def _columns(self) -> dict[str, dict[str, str]]:
        columns: dict[str, dict[str, str]] = {}
        for table, column, kind in self._select(
            "SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod) FROM pg_class c "
            "JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped "
            "WHERE c.relname = ANY(%s) AND pg_table_is_visible(c.oid)",
            [self.name, self._encoder_name],
        ):
            columns.setdefault(table, {})[column] = kind
        return columns

    def _existing_names(self) -> set[str]:
        return set(self._columns())

    def _read_parts(self, start: int, stop: int | None) -> list[bytes]:
        query = (
            "SELECT content FROM {encoder} WHERE part >= %s AND (%s::int IS NULL OR part < %s) ORDER BY part"
        )
        return [content for (content,) in self._select(query, start, stop, stop)]

    def _change(self, names: set[str]) -> str | None:
        columns = self._columns().get(self.name, {})
        for column in (*_COLUMNS, *(["tokens"] if self.stored.tokens else [])):
            if column not in columns:
                return f"has no column {column!r}"
        kind = _vector_type(self.stored)
        return None if columns["embedding"] == kind else f"has {columns['embedding']} as vectors, not {kind}"

    def create(self, description: Description, encoder: bytes) -> None:
        """Create an empty collection that stores the encoder, in one transaction."""
        self._require_extension(description)
        identity = "bigint" if description.integer_ids else 'text COLLATE "C"'
        tokens = ", tokens bytea NOT NULL" if description.tokens else ""
        statements = [
            "CREATE TABLE {encoder} (part integer PRIMARY KEY, content bytea NOT NULL)",
            f"CREATE TABLE {{table}} (id {identity} PRIMARY KEY, embedding {_vector_type(description)} NOT NULL, "
            f"metadata jsonb NOT NULL, terms jsonb NOT NULL, bounds jsonb NOT NULL{tokens})",
            "CREATE INDEX ON {table} USING gin (terms)",
        ]
        if description.vector_dimension * (2 if description.precision == "float16" else 4) <= _INLINE:
            # Stored inside the row, so that a distance needs no second read.
            statements.append("ALTER TABLE {table} ALTER embedding SET STORAGE PLAIN")
        with self._transaction("cannot be created") as cursor:
            for statement in statements:
                cursor.execute(self._named(statement))
            parts = list(enumerate([description.to_json(), *encoder_parts(encoder)]))
            cursor.executemany(self._named("INSERT INTO {encoder} VALUES (%s, %s)"), parts)
        self.description = description

    def _require_extension(self, description: Description) -> None:
        try:
            with self._transaction("has no extension vector, and it cannot be created") as cursor:
                cursor.execute("CREATE EXTENSION IF NOT EXISTS vector")
        except EngineError as error:
            raise EngineError(
                f"{error} Install pgvector on the server (Debian: postgresql-17-pgvector), or let its administrator "
                "run CREATE EXTENSION vector."
            ) from None
        if description.precision == "float16" and self._version() < _HALF:
            raise EngineError(f"{self.url} has a pgvector without halfvec. Use precision='float32'.")

    def _version(self) -> tuple[int, ...]:
        rows = self._select("SELECT extversion FROM pg_extension WHERE extname = 'vector'")
        return tuple(int(number) for (version,) in rows for number in version.split(".")[:2])

    def finish(self) -> None:
        """Build the graph if it does not exist; later rows are inserted into it."""
        graph = self.stored.graph
        kind = _vector_type(self.stored).partition("(")[0]
        # All names and numbers here are ours or checked.
        statement = (
            f"CREATE INDEX IF NOT EXISTS {{graph}} ON {{table}} USING hnsw (embedding {kind}_ip_ops) "
            f"WITH (m = {graph.m}, ef_construction = {max(graph.ef_construction, 2 * graph.m)})"
        )
        for what, text in (("could not be indexed", statement), ("could not be analyzed", "ANALYZE {table}")):
            with self._transaction(what) as cursor:
                cursor.execute(self._named(text))

    def drop(self) -> None:
        """Remove the collection."""
        with self._transaction("cannot be removed") as cursor:
            cursor.execute(self._named("DROP TABLE IF EXISTS {table}, {encoder}"))
        self.description = None

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    # -- documents ------------------------------------------------------------

    def add(
        self, ids: list[Any], vectors: NDArray[np.float32], metadata: Metadata, tokens: MultiVectors | None
    ) -> None:
        """Store documents and replace those with the same ids, in one transaction."""
        names = [*_COLUMNS, *(["tokens"] if self.stored.tokens else [])]
        listed = ", ".join(names)
        changes = ", ".join(f"{name} = EXCLUDED.{name}" for name in names[1:])
        with self._transaction("did not accept documents") as cursor:
            cursor.execute(
                self._named("CREATE TEMP TABLE new_rows (LIKE {table} INCLUDING DEFAULTS) ON COMMIT DROP")
            )
            with cursor.copy(f"COPY new_rows ({listed}) FROM STDIN (FORMAT BINARY)") as copy:
                copy.write(_COPY_START)
                for row in self._binary_rows(ids, vectors, metadata, tokens):
                    copy.write(row)
                copy.write(_COPY_END)
            cursor.execute(
                self._named(
                    f"INSERT INTO {{table}} ({listed}) SELECT {listed} FROM new_rows "
                    f"ON CONFLICT (id) DO UPDATE SET {changes}"
                )
            )

    def _binary_rows(
        self, ids: list[Any], vectors: NDArray[np.float32], metadata: Metadata, tokens: MultiVectors | None
    ) -> Iterator[bytes]:
        half = self.stored.precision == "float16"
        # pgvector's binary form: the number of floats, zero, and the floats, all big-endian.
        floats = np.ascontiguousarray(vectors, ">f2" if half else ">f4")
        head = struct.pack("!hh", floats.shape[1], 0)
        for i, (id, values) in enumerate(zip(ids, metadata, strict=True)):
            flat = flatten(values)
            fields = [
                struct.pack("!q", id) if isinstance(id, int) else _text(id),
                head + floats[i].tobytes(),
                _jsonb(dict(values)),
                _jsonb(flat.terms),
                _jsonb({"low": flat.low, "high": flat.high}),
            ]
            if tokens is not None:
                fields.append(np.ascontiguousarray(tokens[i], "<f2").tobytes())
            yield struct.pack("!h", len(fields)) + b"".join(struct.pack("!i", len(x)) + x for x in fields)

    def delete(self, ids: list[Any]) -> None:
        """Delete documents."""
        with self._transaction("did not delete documents") as cursor:
            cursor.execute(self._named("DELETE FROM {table} WHERE id = ANY(%s)"), [ids])

    def __len__(self) -> int:
        return int(self._select("SELECT count(*) FROM {table}")[0][0])

    def _read(self, ids: list[Any], column: str) -> Iterator[tuple[Any, Any]]:
        query = f"SELECT id, {column} FROM {{table}} WHERE id = ANY(%s)"
        return self._values(self._select(query, ids, binary=column == "tokens"))

    def _token_batches(self) -> Iterator[Iterator[tuple[Any, Any]]]:
        after: list[Any] = []
        while True:
            where = "WHERE id > %s " if after else ""
            query = f"SELECT id, tokens FROM {{table}} {where}ORDER BY id LIMIT {_BATCH}"
            rows = self._select(query, *after, binary=True)
            if not rows:
                return
            after = [rows[-1][0]]
            yield self._values(rows)

    def _values(self, rows: list[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
        return ((id, np.frombuffer(x, "<f2") if isinstance(x, bytes) else x) for id, x in rows)

    # -- searching ------------------------------------------------------------

    def search(
        self, vectors: NDArray[np.float32], options: SearchOptions, queries: MultiVectors | None = None
    ) -> Hits:
        """Return the documents with the largest inner products for each query, in one transaction."""
        conditions, values = [], []
        if options.where:
            condition = build_condition(options.where, _JSONConditions())
            # Escape the characters that mark placeholders.
            conditions.append(condition.replace("%", "%%").replace("{", "{{").replace("}", "}}"))
        if options.ids is not None:
            conditions.append("id = ANY(%s)")
            values.append(options.ids)
        where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
        # <#> is the negative inner product.
        query = self._named(
            f"SELECT id, embedding <#> %s::{_vector_type(self.stored)} AS distance FROM {{table}} {where} "
            f"ORDER BY distance LIMIT {int(options.count)}"
        )
        settings = self._settings(options, bool(conditions))
        hits: Hits = []
        with self._transaction("cannot be searched") as cursor:
            for setting in settings.items():
                cursor.execute("SELECT set_config(%s, %s, true)", setting)
            for vector in vectors:
                text = f"[{','.join(vector.astype('U').tolist())}]"
                rows = cursor.execute(query, [text, *values]).fetchall()
                scores = np.array([-distance for _, distance in rows], np.float32)
                hits.append(([id for id, _ in rows], scores))
        return hits

    def _settings(self, options: SearchOptions, filtered: bool) -> dict[str, str]:
        settings = {"hnsw.ef_search": str(min(1000, max(options.ef, options.count)))}  # pgvector's maximum
        if filtered and self._version() >= _ITERATIVE:
            settings["hnsw.iterative_scan"] = "strict_order"
        return settings

    def size_bytes(self) -> int | None:
        """Return the bytes of the table with its tokens and its indexes."""
        return int(self._select("SELECT pg_total_relation_size(%s::regclass)", f'"{self.name}"')[0][0])


class _JSONConditions(SQLConditions):
    """Builder of conditions on jsonb."""

    def has_any(self, terms: list[str]) -> str:
        return f"(terms ?| ARRAY[{', '.join(map(_literal, terms))}]::text[])"

    def compare(self, side: str, name: str, sign: str, value: Any) -> str:
        bound = f"(bounds->'{side}'->>'{name}')"
        if isinstance(value, str):
            return f'coalesce({bound} COLLATE "C" {sign} {_literal(value)}, false)'
        return f"coalesce({bound}::numeric {sign} {value!r}::numeric, false)"


def _vector_type(description: Description) -> str:
    kind = "halfvec" if description.precision == "float16" else "vector"
    return f"{kind}({description.vector_dimension})"


def _literal(text: str) -> str:
    """Return a string as a PostgreSQL literal, independent of the setting for backslashes."""
    if "\0" in text:
        raise FilterError(f"PostgreSQL cannot compare with {text!r:.80}, which has a NUL. Remove it.")
    escaped = text.replace("\\", "\\\\").replace("'", "''")
    return f"E'{escaped}'" if "\\" in text else quoted(text)


def _jsonb(value: Any) -> bytes:
    return b"\x01" + json.dumps(value).encode()


def _text(id: str) -> bytes:
    if "\0" in id:
        raise EngineError(f"The id {id!r} has a NUL, which PostgreSQL does not store. Give another.")
    return id.encode()
