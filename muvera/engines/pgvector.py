"""PgVectorEngine: a table of PostgreSQL with the extension pgvector, through psycopg 3."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import RLock
from typing import Any, ClassVar, Literal
from urllib.parse import SplitResult, parse_qsl, unquote

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors
from ..data.validation import Ids
from ..metadata.filters import build_condition
from ..metadata.values import flatten
from ..utils.optional_imports import import_extra
from .base import Description, Engine, EngineError, Found, Location, Rows, SearchOptions, parts_of
from .sql_conditions import SQLConditions, quoted

__all__ = ["PgVectorEngine"]

# Binary COPY: its beginning, and the number of columns of no row, which ends it.
_COPY_START, _COPY_END = b"PGCOPY\n\xff\r\n\0" + bytes(8), struct.pack("!h", -1)

# Documents of a batch where all tokens are read.
_BATCH = 1024

# Bytes of a vector that may lie in the table's pages of 8 kB themselves.
_INLINE = 4096

#: Versions of pgvector from which filters walk on until enough is found, and that have halfvec.
_ITERATIVE, _HALF = (0, 8), (0, 7)

_COLUMNS = {"id", "embedding", "metadata", "terms", "bounds"}


class PgVectorEngine(Engine):
    """A collection in PostgreSQL.

    Parameters
    ----------
    name : str
        Of the table.
    **settings
        Of ``psycopg.connect``: host, port, dbname, user, password and the like.

    Raises
    ------
    EngineError
        Where the server cannot be reached, or has no pgvector.
    ImportError
        Where psycopg is not installed.
    """

    kind = "pgvector"
    keeps_tokens = True
    precisions: ClassVar[tuple[Literal["float32", "float16"], ...]] = ("float16", "float32")

    def __init__(self, name: str, **settings: Any) -> None:
        user, host = settings.get("user"), settings.get("host", "localhost")
        shown = f"postgresql://{f'{user}@' if user else ''}{host}"
        shown += f":{settings['port']}" if settings.get("port") else ""
        super().__init__(Location(f"{shown}/{settings.get('dbname', '')}", name))
        self._psycopg = import_extra("psycopg", "pgvector", "PostgreSQL")
        self._sql = import_extra("psycopg.sql", "pgvector", "PostgreSQL")
        self._secret = settings.get("password")
        self._name, self._lock = name, RLock()
        self._description: Description | None = None
        try:
            self._connection = self._psycopg.connect(connect_timeout=10, autocommit=True, **settings)
        except self._psycopg.Error as error:
            raise EngineError(f"{self.location.url} cannot be reached: {self._say(error)}") from None

    @classmethod
    def from_url(cls, url: SplitResult, name: str) -> PgVectorEngine:
        """Open ``postgresql://USER:PASSWORD@HOST:PORT/DATABASE#NAME``."""
        found = {
            "host": url.hostname,
            "port": url.port,
            "dbname": unquote(url.path.lstrip("/")) or None,
            "user": unquote(url.username) if url.username else None,
            "password": unquote(url.password) if url.password else None,
            **dict(parse_qsl(url.query)),
        }
        return cls(name, **{key: value for key, value in found.items() if value is not None})

    def _say(self, error: BaseException) -> str:
        """Return the first line of an error, without the password."""
        text = " ".join((str(error).strip().splitlines() or [type(error).__name__])[0].split())[:300]
        if self._secret:
            text = text.replace(self._secret, "***")
        return text if text.endswith(".") else f"{text}."

    @contextmanager
    def _transaction(self, what: str) -> Iterator[Any]:
        """Yield a cursor whose changes are made together; the server's errors become EngineErrors."""
        with self._lock:
            try:
                with self._connection.transaction(), self._connection.cursor() as cursor:
                    yield cursor
            except self._psycopg.Error as error:
                raise EngineError(f"{self.location} {what}: {self._say(error)}") from None

    def _named(self, text: str) -> Any:
        """Return SQL text with the tables' names in it."""
        names = {"table": self._name, "beside": f"{self._name}_encoder"}
        return self._sql.SQL(text).format(**{key: self._sql.Identifier(name) for key, name in names.items()})

    # -- the collection -------------------------------------------------------

    def describe(self) -> Description | None:
        """Return what is there; None where nothing of this name is."""
        with self._transaction("cannot be read") as cursor:
            cursor.execute(
                "SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod) FROM pg_class c "
                "JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped "
                "WHERE c.relname = ANY(%s) AND pg_table_is_visible(c.oid)",
                ([self._name, f"{self._name}_encoder"],),
            )
            columns: dict[str, dict[str, str]] = {}
            for table, column, kind in cursor:
                columns.setdefault(table, {})[column] = kind
            if f"{self._name}_encoder" not in columns:
                if self._name in columns:
                    raise EngineError(f"{self.location} is a table of something else. Give another name.")
                return None
            cursor.execute(self._named("SELECT content FROM {beside} WHERE part = 0"))
            self._description = Description.from_dict(json.loads(cursor.fetchone()[0]))
        self._require_columns(columns.get(self._name, {}))
        return self._description

    def _require_columns(self, there: dict[str, str]) -> None:
        wanted = {**dict.fromkeys(_COLUMNS, ""), "embedding": self._type}
        if self._there().tokens:
            wanted["tokens"] = ""
        for column, kind in wanted.items():
            found = there.get(column)
            if found is None or (kind and found != kind):
                what = (
                    f"no column {column!r}"
                    if found is None
                    else f"{found} in its column {column!r}, not {kind}"
                )
                raise EngineError(f"{self.location} has {what}: its table was changed. Load it again.")

    @property
    def _type(self) -> str:
        there = self._there()
        return f"{'halfvec' if there.precision == 'float16' else 'vector'}({there.vector_dimension})"

    def create(self, description: Description, encoder: bytes) -> None:
        """Make an empty collection that keeps the encoder, in one transaction."""
        self._require_extension(description)
        before, self._description = self._description, description
        identity = "bigint" if description.integer_ids else 'text COLLATE "C"'
        tokens = ", tokens bytea NOT NULL" if description.tokens else ""
        parts = [json.dumps(description.to_dict()).encode(), *parts_of(encoder)]
        try:
            with self._transaction("cannot be created") as cursor:
                cursor.execute(
                    self._named("CREATE TABLE {beside} (part integer PRIMARY KEY, content bytea NOT NULL)")
                )
                cursor.execute(
                    self._named(
                        f"CREATE TABLE {{table}} (id {identity} PRIMARY KEY, embedding {self._type} NOT NULL, "
                        f"metadata jsonb NOT NULL, terms jsonb NOT NULL, bounds jsonb NOT NULL{tokens})"
                    )
                )
                if description.vector_dimension * (2 if description.precision == "float16" else 4) <= _INLINE:
                    # Beside the row's other values, where a distance is computed without another read.
                    cursor.execute(self._named("ALTER TABLE {table} ALTER embedding SET STORAGE PLAIN"))
                cursor.execute(self._named("CREATE INDEX ON {table} USING gin (terms)"))
                cursor.executemany(
                    self._named("INSERT INTO {beside} VALUES (%s, %s)"), list(enumerate(parts))
                )
        except BaseException:
            self._description = before
            raise

    def _require_extension(self, description: Description) -> None:
        with self._lock, self._connection.cursor() as cursor:
            try:
                cursor.execute("CREATE EXTENSION IF NOT EXISTS vector")
            except self._psycopg.Error as error:
                raise EngineError(
                    f"{self.location.url} has no extension vector, and it cannot be made: {self._say(error)} Install "
                    "pgvector on the server (Debian: postgresql-17-pgvector), or let its administrator run "
                    "CREATE EXTENSION vector."
                ) from None
        if description.precision == "float16" and self._version() < _HALF:
            raise EngineError(f"{self.location.url} has a pgvector without halfvec. Use precision='float32'.")

    def _version(self) -> tuple[int, ...]:
        with self._transaction("cannot be read") as cursor:
            cursor.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'")
            found = cursor.fetchone()
        return () if found is None else tuple(int(part) for part in found[0].split(".")[:2])

    def read_encoder(self) -> bytes:
        """Return what :meth:`create` kept."""
        with self._transaction("cannot be read") as cursor:
            cursor.execute(self._named("SELECT content FROM {beside} WHERE part > 0 ORDER BY part"))
            return b"".join(content for (content,) in cursor)

    def finish(self) -> None:
        """Build the graph where there is none; later rows go into it as they come."""
        there = self._there()
        kind = self._type.partition("(")[0]
        # Names and numbers are ours or checked: nothing here comes from documents.
        create = self._sql.SQL(
            f"CREATE INDEX IF NOT EXISTS {{}} ON {{}} USING hnsw (embedding {kind}_ip_ops) "
            f"WITH (m = {there.graph.m}, ef_construction = {max(there.graph.ef_construction, 2 * there.graph.m)})"
        ).format(self._sql.Identifier(f"{self._name}_graph"), self._sql.Identifier(self._name))
        with self._transaction("could not be indexed") as cursor:
            cursor.execute(create)
        with self._transaction("could not be analyzed") as cursor:
            cursor.execute(self._named("ANALYZE {table}"))

    def drop(self) -> None:
        """Remove the collection."""
        with self._transaction("cannot be removed") as cursor:
            cursor.execute(self._named("DROP TABLE IF EXISTS {table}, {beside}"))
        self._description = None

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _there(self) -> Description:
        if self._description is None:
            raise EngineError(f"There is nothing in {self.location}.")
        return self._description

    # -- documents ------------------------------------------------------------

    def add(self, rows: Rows) -> None:
        """Store documents, in place of those with the same ids, in one transaction."""
        there = self._there()
        names = ["id", "embedding", "metadata", "terms", "bounds", *(["tokens"] if there.tokens else [])]
        listed = ", ".join(names)
        changed = ", ".join(f"{name} = EXCLUDED.{name}" for name in names[1:])
        with self._transaction("did not take documents") as cursor:
            cursor.execute(
                self._named("CREATE TEMP TABLE new_rows (LIKE {table} INCLUDING DEFAULTS) ON COMMIT DROP")
            )
            with cursor.copy(f"COPY new_rows ({listed}) FROM STDIN (FORMAT BINARY)") as copy:
                copy.write(_COPY_START)
                for row in self._binary_rows(rows):
                    copy.write(row)
                copy.write(_COPY_END)
            cursor.execute(
                self._named(
                    f"INSERT INTO {{table}} ({listed}) SELECT {listed} FROM new_rows "
                    f"ON CONFLICT (id) DO UPDATE SET {changed}"
                )
            )

    def _binary_rows(self, rows: Rows) -> Iterator[bytes]:
        half = self._there().precision == "float16"
        # pgvector's own binary form: the number of floats, nothing, and the floats, all big-endian.
        floats = np.ascontiguousarray(rows.vectors, ">f2" if half else ">f4")
        head = struct.pack("!hh", floats.shape[1], 0)
        for i, (name, values) in enumerate(zip(rows.ids.tolist(), rows.metadata, strict=True)):
            flat = flatten(values)
            fields = [
                struct.pack("!q", name) if isinstance(name, int) else _text(name),
                head + floats[i].tobytes(),
                _jsonb(dict(values)),
                _jsonb(flat.terms),
                _jsonb({"low": flat.low, "high": flat.high}),
            ]
            if rows.tokens is not None:
                fields.append(np.ascontiguousarray(rows.tokens[i], "<f2").tobytes())
            yield struct.pack("!h", len(fields)) + b"".join(struct.pack("!i", len(x)) + x for x in fields)

    def existing(self, ids: Ids) -> set[Any]:
        """Return those of some ids that are there."""
        return {name for (name,) in self._select("SELECT id FROM {table} WHERE id = ANY(%s)", [ids.tolist()])}

    def delete(self, ids: Ids) -> None:
        """Remove documents."""
        with self._transaction("did not remove documents") as cursor:
            cursor.execute(self._named("DELETE FROM {table} WHERE id = ANY(%s)"), [ids.tolist()])

    def __len__(self) -> int:
        return int(self._select("SELECT count(*) FROM {table}", [])[0][0])

    def metadata(self, ids: Sequence[Any]) -> dict[Any, dict[str, Any]]:
        """Return the metadata of documents by id."""
        return dict(self._select("SELECT id, metadata FROM {table} WHERE id = ANY(%s)", [list(ids)]))

    def tokens(self, ids: Sequence[Any]) -> MultiVectors:
        """Return the tokens of those documents that are there."""
        query = self._named("SELECT id, tokens FROM {table} WHERE id = ANY(%s)")
        with self._transaction("cannot be read") as cursor:
            return self._texts(cursor.execute(query, [list(ids)], binary=True).fetchall())

    def all_tokens(self) -> Iterator[MultiVectors]:
        """Yield the tokens of all documents, in the order of their ids."""
        last: Any = None
        while True:
            after = "" if last is None else "WHERE id > %s "
            query = self._named(f"SELECT id, tokens FROM {{table}} {after}ORDER BY id LIMIT {_BATCH}")
            with self._transaction("cannot be read") as cursor:
                found = cursor.execute(query, [] if last is None else [last], binary=True).fetchall()
            if not found:
                return
            last = found[-1][0]
            yield self._texts(found)

    def _texts(self, found: list[tuple[Any, bytes]]) -> MultiVectors:
        width = self._there().token_dimension
        tokens = np.frombuffer(b"".join(content for _, content in found), "<f2").reshape(-1, width)
        lengths = np.array([len(content) // (2 * width) for _, content in found], np.int64)
        names = [name for name, _ in found]
        return MultiVectors.from_flat(tokens.astype(np.float16, copy=False), lengths, ids=names or None)

    def _select(self, query: str, values: list[Any]) -> list[Any]:
        with self._transaction("cannot be read") as cursor:
            found: list[Any] = cursor.execute(self._named(query), values).fetchall()
        return found

    # -- searching ------------------------------------------------------------

    def search(self, vectors: NDArray[np.float32], options: SearchOptions) -> Found:
        """Return the documents of the largest inner products for each query, in one transaction."""
        kind, condition = self._type, ""
        if options.where:
            built = build_condition(options.where, _JSONConditions())
            # What stands for values and names in a text is written twice.
            condition = "WHERE " + built.replace("%", "%%").replace("{", "{{").replace("}", "}}")
        # <#> is the negative inner product.
        query = self._named(
            f"SELECT id, embedding <#> %s::{kind} AS distance FROM {{table}} {condition} "
            f"ORDER BY distance LIMIT {int(options.count)}"
        )
        found: Found = []
        with self._transaction("cannot be searched") as cursor:
            for setting, value in self._settings(options):
                cursor.execute("SELECT set_config(%s, %s, true)", (setting, value))
            for vector in vectors:
                text = f"[{','.join(vector.astype('U').tolist())}]"
                rows = cursor.execute(query, [text]).fetchall()
                scores = np.array([-distance for _, distance in rows], np.float32)
                found.append(([name for name, _ in rows], scores))
        return found

    def _settings(self, options: SearchOptions) -> Iterator[tuple[str, str]]:
        if options.exact:
            yield "enable_indexscan", "off"
            return
        # The largest that pgvector takes.
        yield "hnsw.ef_search", str(min(1000, max(options.ef, options.count)))
        if options.where and self._version() >= _ITERATIVE:
            yield "hnsw.iterative_scan", "strict_order"

    def size_bytes(self) -> int | None:
        """Return the bytes of the table with its tokens and its indexes."""
        return int(self._select("SELECT pg_total_relation_size(%s::regclass)", [f'"{self._name}"'])[0][0])


class _JSONConditions(SQLConditions):
    """Builds conditions on jsonb."""

    def has_any(self, terms: list[str]) -> str:
        return f"(terms ?| ARRAY[{', '.join(map(_literal, terms))}]::text[])"

    def compare(self, side: str, name: str, sign: str, value: Any) -> str:
        found = f"(bounds->'{side}'->>'{name}')"
        if isinstance(value, str):
            return f'coalesce({found} COLLATE "C" {sign} {_literal(value)}, false)'
        return f"coalesce({found}::numeric {sign} {value!r}::numeric, false)"


def _literal(text: str) -> str:
    """Return a string as PostgreSQL's literal, whatever the setting of backslashes."""
    escaped = text.replace("\\", "\\\\").replace("'", "''")
    return f"E'{escaped}'" if "\\" in text else quoted(text)


def _jsonb(value: Any) -> bytes:
    return b"\x01" + json.dumps(value).encode()


def _text(value: str) -> bytes:
    if "\0" in value:
        raise EngineError(f"The id {value!r} has a NUL, which PostgreSQL does not store. Give another.")
    return value.encode()
