"""Texts and metadata by id, in SQLite."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from contextvars import ContextVar
from pathlib import Path
from threading import RLock
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from ..index.id_map import Missing
from ..metadata import (
    COMPARISONS,
    Filter,
    Scalar,
    build_condition,
    comparable_values,
    encode_metadata,
    is_utf8,
    kind_of,
)
from ..metadata import TextDocument as TextDocument
from ..metadata.groups import MOST_FIELDS, Group, unknown_field
from ..utils.locks import hold_during_fork, renew_after_fork
from .words import TOKENIZER, WordScores, as_match, counted_words, spaced

# ``metadata_values`` has a row for each comparable value of each field, and one of kind
# "present" for each field.
# Databases are compared with this text: a backslash continues its line.
_SCHEMA = f"""
CREATE TABLE documents (row INTEGER PRIMARY KEY, id UNIQUE NOT NULL, \
text TEXT NOT NULL, metadata TEXT NOT NULL);
CREATE TABLE metadata_values (field TEXT, kind TEXT, value, row INTEGER, \
PRIMARY KEY (field, kind, value, row))
    WITHOUT ROWID;
CREATE TABLE properties (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE INDEX values_of_a_row ON metadata_values (row, field, kind, value);
CREATE VIRTUAL TABLE words USING fts5(text, content='', {TOKENIZER});
"""

# Remove the rows of one document.
_DELETE = ("DELETE FROM metadata_values WHERE row = ?", "DELETE FROM documents WHERE row = ?")
_DELETE_MEAN = "DELETE FROM means WHERE row = ?"

# Not part of _SCHEMA: folders of versions without mean vectors lack this table.
_MEANS = "CREATE TABLE means (row INTEGER PRIMARY KEY, vector BLOB NOT NULL)"

# The values of a field in some documents, and whether any document has one.  CROSS JOIN
# keeps the order: from the ids to their values.
_GROUPS = """
SELECT documents.id, kind, metadata_values.value FROM json_each(?) AS given
CROSS JOIN documents ON documents.id = given.value
CROSS JOIN metadata_values ON metadata_values.row = documents.row
WHERE field = ? AND kind <> 'present'
"""
_HAS_VALUES = "SELECT 1 FROM metadata_values WHERE field = ? AND kind IN ('number', 'text') LIMIT 1"

# The fields that have values: each step seeks the next one in the index.
_FIELDS = f"""
WITH RECURSIVE names (name) AS (
    SELECT min(field) FROM metadata_values
    UNION ALL
    SELECT (SELECT min(field) FROM metadata_values WHERE field > name) FROM names WHERE name IS NOT NULL
)
SELECT name FROM names WHERE name IS NOT NULL
AND EXISTS (SELECT 1 FROM metadata_values WHERE field = name AND kind IN ('number', 'text'))
LIMIT {MOST_FIELDS}
"""

# A bound of the number of groups: values, and documents with none or several.
_MOST_GROUPS = """
WITH known AS (SELECT row, kind, value FROM metadata_values WHERE field = ? AND kind <> 'present')
SELECT (SELECT count(*) FROM (SELECT DISTINCT kind, value FROM known)) + (SELECT count(*) FROM documents)
- (SELECT count(*) FROM (SELECT row FROM known GROUP BY row HAVING count(*) = 1))
"""

# Documents or pages that are copied per step.
_STEP = 500

# Documents that one statement reads.
_TOGETHER = 128

# Mean vectors that are kept for later queries: 32 MiB at 256 columns.
_KEPT_MEANS = 1 << 16

# Bytes of a file that SQLite keeps in memory: with its 2 MiB, each hit among many texts
# takes several reads.
_CACHE = 32 << 20

#: Mean token vectors are stored in half precision, little-endian.
MEAN = np.dtype("<f2")


class Row(NamedTuple):
    """A checked document to store, with its metadata as JSON."""

    id: int | str
    text: str
    metadata: str
    mean: bytes | None = None  #: The bytes of the mean token vector, if there is one.
    #: The token vectors as bytes, if the text does not suffice to make them again: for
    #: the journal.
    tokens: bytes | None = None


# The number of characters that a block may read, and the number that it has read.
_reading: ContextVar[tuple[float, int]] = ContextVar("reading", default=(math.inf, 0))


@contextmanager
def limited_reading(characters: int) -> Iterator[None]:
    """Limit the characters that the block reads from databases.

    Raise ValueError once it has read documents of more than `characters` characters in
    total.
    """
    token = _reading.set((characters, 0))
    try:
        yield
    finally:
        _reading.reset(token)


def count_reading(characters: int) -> None:
    """Count characters that were read.

    Raise ValueError if :func:`limited_reading` does not allow them.
    """
    most, read = _reading.get()
    _reading.set((most, read + characters))
    if read + characters > most:
        raise ValueError(f"The documents have more than {most:,} characters together. Read fewer at a time.")


class DocumentDatabase:
    """Texts with metadata, and the name of the texts' encoder.

    All methods are thread-safe.

    A database opened from a file never changes that file: the first change copies it to
    a temporary database.

    Parameters
    ----------
    text_encoder : str
        The name to store in a new database.
    passage : int, optional
        The number to store in a new database, see :attr:`passage`.
    means : bool
        False: a new database stores no mean token vectors.
    facts : mapping of str to str, optional
        What a new database also stores, see :meth:`fact`.
    path : Path, optional
        A file to read, see :meth:`open`.  Default: a new database without documents.
    """

    def __init__(
        self,
        text_encoder: str = "",
        passage: int | None = None,
        *,
        means: bool = True,
        facts: Mapping[str, Any] | None = None,
        path: Path | None = None,
    ) -> None:
        self._renew_locks()
        # The version that a change commits, and its function `also`.
        self._pending: tuple[int, Callable[[], object]] | None = None
        if path is None:
            self._connection = _new_connection(text_encoder, {**(facts or {}), "passage": passage}, means)
        else:
            self._connection = _opened_connection(path)
        self._writable = path is None
        # What queries read again and again.  A change drops what it makes outdated.
        self._words = WordScores()
        self._means: dict[int | str, bytes] = {}
        self._most_groups: dict[str, int] = {}
        #: True if documents have mean vectors; False for a file of an older version.
        self.has_means = _has_means(self._connection)
        hold_during_fork(self._locks)
        renew_after_fork(self._renew_locks)

    def _renew_locks(self) -> None:
        self._copying = RLock()
        self._lock = RLock()
        self._writable = False  # the first change copies: the parent process shares the temporary file

    def _locks(self) -> tuple[Any, Any]:
        """Return the locks in the order in which they are acquired."""
        return self._copying, self._lock

    @classmethod
    def open(cls, path: Path) -> DocumentDatabase:
        """Open a file written by :meth:`save`.

        Raise FileNotFoundError if the file is missing, and ValueError if it is damaged.
        """
        return cls(path=path)

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._connection.close()

    def __del__(self) -> None:
        # Python 3.13 warns about unclosed connections.
        if hasattr(self, "_connection"):
            self._connection.close()

    # -- changing -------------------------------------------------------------

    def settle(self) -> None:
        """Finish a change that was interrupted, or undo it if it was not committed."""
        if self._pending is not None:
            with self._lock:
                self._settled()

    def _settled(self) -> sqlite3.Connection:
        """Return the connection after :meth:`settle`; the lock must be held."""
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        if self._pending is not None:
            version, also = self._pending
            if _version(self._connection) == version:
                also()
            self._pending = None
        return self._connection

    def put(
        self, ids: Sequence[int | str], texts: Sequence[str], metadata: Sequence[Mapping[str, Any]]
    ) -> None:
        """Store documents, and replace documents with the same ids.

        Raise TypeError or ValueError for what :func:`checked_rows` refuses, and OSError
        if the disk is full; nothing is changed then.
        """
        self.change(ids, checked_rows(ids, texts, metadata))

    def change(
        self,
        deleted: Sequence[int | str],
        rows: Sequence[Row] = (),
        also: Callable[[], object] = lambda: None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """Delete documents, and then store others, in one transaction.

        Unknown ids in `deleted` are ignored.  If the id of a row is still in use, only
        its metadata changes.  `also` is called after the commit.  If it is interrupted,
        the next use of the database calls it again.  With `facts`, also store these
        values by name, see :meth:`fact`, and no mean vectors.

        Raise OSError if the disk is full; nothing is changed then.
        """
        with self._copying, self._lock, _damage_as_value_error():
            # First, so that an interrupt cannot leave what no longer holds.
            self._words.clear()
            self._most_groups.clear()
            for identity in (*deleted, *(document.id for document in rows)):
                self._means.pop(identity, None)
            try:
                connection = self._settled()
                if not self._writable:
                    copied = _connect("")
                    connection.backup(copied)
                    self._connection, self._writable = copied, True
                    connection.close()
                    connection = copied
                version = _version(connection) % 2**30 + 1
                self._pending = (version, also)
                connection.execute("BEGIN")
                (count,) = connection.execute("SELECT count(*) FROM documents").fetchone()
                for identity in deleted if count else ():
                    _remove(connection, identity, self.has_means)
                (last,) = connection.execute("SELECT max(row) FROM documents").fetchone()
                self._words.forget_rows((last or 0) + 1)
                for document in rows:
                    _store(connection, document, self.has_means)
                if facts:
                    connection.execute("DROP TABLE IF EXISTS means")
                    connection.executemany("INSERT OR REPLACE INTO properties VALUES (?, ?)", facts.items())
                connection.execute(f"PRAGMA user_version = {version}")
                connection.execute("COMMIT")
            except sqlite3.OperationalError as error:
                raise OSError(
                    f"The texts were not changed: {error}. A change needs space in the folder for temporary "
                    "files: free some if it is full."
                ) from error
            finally:
                self.has_means = _has_means(self._settled())

    # -- reading --------------------------------------------------------------

    def _read(self, query: str, parameters: Sequence[Any] = ()) -> list[Any]:
        with self._lock, _damage_as_value_error():
            return self._settled().execute(query, parameters).fetchall()

    @property
    def text_encoder(self) -> str | None:
        """Name of the encoder of the texts, or None if the database has none."""
        return self.fact("text_encoder")

    def fact(self, name: str) -> str | None:
        """Return what the database says about all documents, or None.

        The kind of an index of pages is "pages", and its root is their folder.
        """
        rows = self._read("SELECT value FROM properties WHERE name = ?", (name,))
        return str(rows[0][0]) if rows else None

    @property
    def passage(self) -> int | None:
        """Number of tokens of a passage; texts with more are ranked by their best one.

        None if the encoder does not state how much of a text it reads.
        """
        passage = self.fact("passage")
        return None if passage is None else int(passage)

    def __len__(self) -> int:
        return int(self._read("SELECT count(*) FROM documents")[0][0])

    def get(self, ids: Sequence[int | str], *, missing: Missing = "raise") -> list[TextDocument]:
        """Return documents in the order of `ids`.

        For an unknown id, raise KeyError, or skip it with ``missing="ignore"``.  Raise
        ValueError for more characters than :func:`limited_reading` allows, or for a
        damaged database.
        """
        found: dict[Any, tuple[str, str]] = {}
        names = [identity for identity in ids if _is_storable(identity)]
        with self._lock, _damage_as_value_error():
            connection = self._settled()
            for start in range(0, len(names), _TOGETHER):
                some = names[start : start + _TOGETHER]
                # SQLite keeps a compiled statement for each number of ids.
                some += some[-1:] * ((1 << (len(some) - 1).bit_length()) - len(some))
                marks = ", ".join("?" * len(some))
                query = f"SELECT id, text, metadata FROM documents WHERE id IN ({marks})"
                for identity, text, metadata in connection.execute(query, some):
                    found[identity] = text, metadata
                    count_reading(len(text) + len(metadata))
        if missing == "raise":
            for identity in ids:
                if identity not in found:
                    raise KeyError(f"id {identity!r} is not in the index.")
        return [
            TextDocument(identity, found[identity][0], json.loads(found[identity][1]))
            for identity in ids
            if identity in found
        ]

    def select(self, where: Filter) -> list[int | str]:
        """Return the ids of documents that satisfy a condition, in insertion order.

        The condition ``{}`` selects all documents.
        """
        condition = to_sql(where)
        query = f"SELECT id FROM documents WHERE {condition.sql} ORDER BY row"
        return [identity for (identity,) in self._read(query, condition.values)]

    def groups(self, field: str, ids: Sequence[int | str]) -> dict[int | str, Group]:
        """Return the values of a metadata field by id, without ids that have none.

        Raise ValueError if no document has a value in the field.
        """
        found: dict[int | str, list[tuple[str, Any]]] = {}
        for identity, *value in self._read(_GROUPS, (json.dumps(ids), field)):
            found.setdefault(identity, []).append((value[0], value[1]))
        if not found and len(self) and not self._read(_HAS_VALUES, (field,)):
            raise unknown_field(field, [name for (name,) in self._read(_FIELDS)])
        return {identity: frozenset(values) for identity, values in found.items()}

    def most_groups(self, field: str) -> int:
        """Return a bound of the number of groups by a metadata field."""
        with self._lock:
            if field not in self._most_groups:
                self._most_groups[field] = int(self._read(_MOST_GROUPS, (field,))[0][0])
            return self._most_groups[field]

    def match_words(
        self, text: str, k: int, where: Filter | None = None, ids: Sequence[int | str] | None = None
    ) -> list[tuple[int | str, float]]:
        """Return the `k` best documents by BM25 for the words of a text.

        A word counts as often as the text contains it.  Only the rarest of the first 64
        distinct words count, and stop words only if there are no others.  In scripts
        without spaces, each pair of neighboring characters is a word.

        Search only documents that satisfy the condition `where` and have one of the
        `ids`, if they are given.  The result is pairs of id and score, best first; a
        score is greater than 0.  Raise FilterError for an invalid condition.
        """
        conditions = ["words MATCH ?"]
        parameters: list[Any] = []
        if where:
            condition = to_sql(where)
            conditions.append(condition.as_probe)  # few documents share rare words
            parameters += condition.values
        if ids is not None:
            conditions.append("documents.id IN (SELECT value FROM json_each(?))")
            parameters.append(json.dumps(list(ids)))
        query = (
            "SELECT documents.id, -best.rank FROM (SELECT words.rowid AS rowid, rank FROM words JOIN "
            f"documents ON documents.row = words.rowid WHERE {' AND '.join(conditions)} ORDER BY rank "
            "LIMIT ?) AS best JOIN documents ON documents.row = best.rowid ORDER BY best.rank, documents.row"
        )
        with self._lock, _damage_as_value_error():
            connection = self._settled()
            words = self._words.rarest(connection, counted_words(text))
            if not parameters:
                return self._words.best(connection, words, k)
            return self._read(query, [as_match(words), *parameters, k]) if words else []

    def means(self, ids: Sequence[int | str], dimension: int) -> tuple[list[int | str], NDArray[np.float16]]:
        """Return the mean token vectors of documents.

        Ids that are unknown, or whose text is blank, are left out.  Return the other
        ids, in the order of `ids`, and their mean vectors, float16 (n, dimension).
        Raise ValueError for a vector of another dimension, or for a damaged database.
        """
        query = (
            "SELECT documents.id, means.vector FROM documents JOIN means ON means.row = documents.row "
            "WHERE documents.id IN (SELECT value FROM json_each(?))"
        )
        with self._lock:
            names = list(ids)
            found = list(map(self._means.get, names))
            if None in found:
                missing = [name for name, vector in zip(names, found, strict=True) if vector is None]
                read = dict(self._read(query, [json.dumps(missing)]))
                _check_means(read, dimension)
                if len(self._means) + len(read) > _KEPT_MEANS:
                    self._means.clear()
                self._means.update(read)
                known = dict(zip(names, found, strict=True)) | read
                names = [name for name in names if known[name] is not None]
                found = [known[name] for name in names]
        # One array of all bytes takes a fifth of the time of one array per document.
        means = np.frombuffer(b"".join(vector for vector in found if vector is not None), MEAN)
        return names, means.reshape(len(names), dimension)

    def put_means(self, means: Iterable[tuple[int | str, bytes | None]]) -> None:
        """Store the mean token vectors of documents that :meth:`put` stored, as bytes.

        A blank text has None.  Raise OSError if the disk is full.
        """
        statement = "INSERT INTO means SELECT row, ? FROM documents WHERE id = ?"
        with self._lock:
            connection = self._settled()
            try:
                connection.execute("BEGIN")
                pairs = ((mean, identity) for identity, mean in means if mean is not None)
                connection.executemany(statement, pairs)
                connection.execute("COMMIT")
            except sqlite3.OperationalError as error:
                raise OSError(f"The texts could not be stored: {error}. Free some space.") from error
            finally:
                self._settled()

    def documents(self) -> Iterator[TextDocument]:
        """Yield all documents in insertion order.

        Documents that are added during the iteration are left out.
        """
        ids = self.select({})
        for start in range(0, len(ids), _STEP):
            yield from self.get(ids[start : start + _STEP], missing="ignore")

    def save(self, path: Path) -> None:
        """Write the database to a new file; other threads can read meanwhile.

        Raise OSError if the file cannot be written, such as on a full disk.
        """
        try:
            with self._copying, closing(_connect(str(path))) as copy:
                with self._lock:
                    connection = self._settled()
                copy.execute("PRAGMA synchronous = OFF")  # the caller syncs the file
                connection.backup(copy, pages=_STEP)
                copy.execute("VACUUM")
        except sqlite3.DatabaseError as error:
            raise OSError(
                f"{path} could not be written: {error}. Free some space if the disk is full."
            ) from error


def shared_words(query: str, ids: Sequence[int | str], texts: Sequence[str]) -> dict[int | str, float]:
    """Return the BM25 scores of texts that share words with a query, by id.

    How rare a word is, is counted in these texts only.
    """
    with closing(DocumentDatabase()) as database:
        database.put(ids, texts, [{}] * len(texts))
        return dict(database.match_words(query, max(1, len(texts))))


def read_fact(path: Path, name: str) -> str | None:
    """Return a :meth:`DocumentDatabase.fact` of an unchecked file.

    None if the file has no such fact, or is not a database of texts.
    """
    try:
        with closing(_connect(f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1")) as connection:
            rows = connection.execute("SELECT value FROM properties WHERE name = ?", (name,)).fetchall()
    except sqlite3.Error:
        return None
    return str(rows[0][0]) if rows else None


def checked_rows(
    ids: Sequence[int | str],
    texts: Sequence[str],
    metadata: Sequence[Mapping[str, Any]],
    means: Sequence[bytes | None] | None = None,
    tokens: Sequence[bytes | None] | None = None,
) -> list[Row]:
    """Return documents with their metadata as JSON.

    There is one text and one `metadata` for each id; `means` are the bytes of the mean
    token vector of each new text, and `tokens` those of its token vectors.

    Raise TypeError or ValueError for an id that :func:`require_ids` refuses, a text
    that UTF-8 cannot encode, or metadata that JSON cannot represent.
    """
    rows = []
    means = [None] * len(ids) if means is None else means
    tokens = [None] * len(ids) if tokens is None else tokens
    for identity, text, values, mean, own in zip(ids, texts, metadata, means, tokens, strict=True):
        _require_utf8(text, f"The text of document {identity!r}")
        rows.append(Row(identity, text, encode_metadata(values, identity), mean, own))
    return rows


def merge_metadata(document: TextDocument, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata of a document with changed fields; None removes a field.

    Raise TypeError or ValueError for changes that JSON cannot represent.
    """
    encode_metadata(changes, document.id)
    merged = {**document.metadata, **changes}
    return {name: value for name, value in merged.items() if value is not None or name not in changes}


def _check_means(means: dict[int | str, Any], dimension: int) -> None:
    """Raise ValueError for bytes that are not a mean vector."""
    for identity, content in means.items():
        whole = isinstance(content, bytes) and len(content) == MEAN.itemsize * dimension
        if not whole or not np.isfinite(np.frombuffer(content, MEAN)).all():
            raise ValueError(
                f"The mean vector of document {identity!r} is damaged. Restore the index from a copy."
            )


@contextmanager
def _damage_as_value_error() -> Iterator[None]:
    """Convert SQLite's errors for a damaged database to ValueError."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise ValueError(
            f"The database of texts cannot be read: {error}. Restore the index from a copy."
        ) from error


# Words are spaced before the statement: SQLite would report an interrupt in a function
# that it calls as an SQLite error.


def _remove(connection: sqlite3.Connection, identity: int | str, with_mean: bool) -> None:
    """Delete a document, if there is one with this id."""
    for row, text in connection.execute(
        "SELECT row, text FROM documents WHERE id = ?", (identity,)
    ).fetchall():
        deleted = "INSERT INTO words (words, rowid, text) VALUES ('delete', ?, ?)"
        connection.execute(deleted, (row, spaced(text)))
        for statement in (*[_DELETE_MEAN] * with_mean, *_DELETE):
            connection.execute(statement, (row,))


def _store(connection: sqlite3.Connection, document: Row, with_mean: bool) -> None:
    """Insert a document, or change the metadata of a stored one."""
    inserted = connection.execute(
        "INSERT OR IGNORE INTO documents (id, text, metadata) VALUES (?, ?, ?)", document[:3]
    )
    row = inserted.lastrowid
    if inserted.rowcount:
        connection.execute("INSERT INTO words (rowid, text) VALUES (?, ?)", (row, spaced(document.text)))
        if with_mean and document.mean is not None:
            connection.execute("INSERT INTO means VALUES (?, ?)", (row, document.mean))
    else:
        (row,) = connection.execute("SELECT row FROM documents WHERE id = ?", (document.id,)).fetchone()
        connection.execute("UPDATE documents SET metadata = ? WHERE row = ?", (document.metadata, row))
        connection.execute("DELETE FROM metadata_values WHERE row = ?", (row,))
    if document.metadata == "{}":
        return
    values = [(*value, row) for value in comparable_values(json.loads(document.metadata))]
    connection.executemany("INSERT OR IGNORE INTO metadata_values VALUES (?, ?, ?, ?)", values)


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def require_ids(ids: Sequence[Any]) -> list[int | str]:
    """Return ids as a list, if a database can store them.

    It can store integers of 64 bits, and strings that UTF-8 can encode.  Raise
    TypeError or ValueError for another id.
    """
    for identity in ids:
        if isinstance(identity, str):
            _require_utf8(identity, f"The id {identity!r}")
        elif isinstance(identity, bool) or not isinstance(identity, int):
            raise TypeError(
                f"An id must be an integer or a string, got {type(identity).__name__} {identity!r}."
            )
        elif not -(2**63) <= identity < 2**63:
            raise ValueError(
                f"The id {identity} does not fit into 64 bits. Use the string {str(identity)!r}."
            )
    return list(ids)


def _is_storable(identity: object) -> bool:
    """Return False for an id that no database can have, so SQLite is not asked."""
    if isinstance(identity, str):
        return is_utf8(identity)
    return not isinstance(identity, int) or -(2**63) <= identity < 2**63


def _require_utf8(text: str, name: str) -> None:
    if not is_utf8(text):
        raise ValueError(
            f"{name} has a lone surrogate, which UTF-8 cannot encode. Decode it again with errors='replace'."
        )


def _has_means(connection: sqlite3.Connection) -> bool:
    return connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'means'").fetchone() is not None


def _schema(connection: sqlite3.Connection) -> list[Any]:
    """Return the definitions of a database.

    Internal tables are left out, because they differ between versions of SQLite.
    """
    sql = "iif(type = 'table' AND name LIKE 'words|_%' ESCAPE '|', '', sql)"
    query = f"SELECT type, name, {sql} FROM sqlite_master"
    return sorted(connection.execute(query), key=str)


def _new_connection(
    text_encoder: str, facts: Mapping[str, Any] | None = None, means: bool = True
) -> sqlite3.Connection:
    """Return a connection to an empty database, with the facts that are not None."""
    connection = _connect("")  # in memory while small, in a temporary file when large
    connection.executescript(_SCHEMA)
    if means:
        connection.execute(_MEANS)
    facts = {"text_encoder": text_encoder, **(facts or {})}
    known = [(name, value) for name, value in facts.items() if value is not None]
    connection.executemany("INSERT INTO properties VALUES (?, ?)", known)
    return connection


def _opened_connection(path: Path) -> sqlite3.Connection:
    """Return a connection to a checked file, which nothing can change."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing. It contains the texts: restore it from a copy.")
    with closing(_new_connection("")) as empty:
        expected = _schema(empty)
    try:
        connection = _connect(f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1")
    except sqlite3.OperationalError as error:
        if path.is_file():
            raise
        # A writer removed it after the check: the caller reads the new one.
        raise FileNotFoundError(f"{path} was removed while it was opened. Load the index again.") from error
    try:
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute(f"PRAGMA cache_size = -{_CACHE >> 10}")
        # A view, trigger or table of another definition could loop forever or show
        # other texts to each query.
        if _schema(connection) not in (expected, [entry for entry in expected if entry[1] != "means"]):
            raise sqlite3.DatabaseError("it has other tables")
        result = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if result != "ok":
            raise sqlite3.DatabaseError(" ".join(result.split()))
        wrong = connection.execute(
            "SELECT row FROM documents WHERE typeof(text) != 'text' OR typeof(id) NOT IN ('text', "
            "'integer') OR NOT json_valid(metadata) OR json_type(metadata) != 'object' LIMIT 1"
        ).fetchone()
        if wrong is not None:
            raise sqlite3.DatabaseError(f"row {wrong[0]} is not a document")
    except sqlite3.Error as error:
        connection.close()
        raise ValueError(f"{path} is not a database of texts: {error}. Restore it from a copy.") from error
    return connection


def _connect(name: str) -> sqlite3.Connection:
    uri = name.startswith("file:")
    return sqlite3.connect(name, uri=uri, check_same_thread=False, isolation_level=None)


# -- conditions ---------------------------------------------------------------


# A comparison as the set of its rows is fast if few rows satisfy it.  Probing the
# values of one document is fast if other conditions leave few documents.
_SET = "documents.row IN (SELECT row FROM metadata_values WHERE "
_PROBE = (
    "EXISTS (SELECT 1 FROM metadata_values INDEXED BY values_of_a_row WHERE metadata_values.row = "
    "documents.row AND "
)


class _Term(NamedTuple):
    """A condition as SQL, and the values of its question marks.

    `selective` if few documents are likely to match.
    """

    sql: str
    values: list[Any]
    selective: bool

    @property
    def as_probe(self) -> str:
        """The same condition on the values of one document."""
        return self.sql.replace(_SET, _PROBE)


def to_sql(where: Filter) -> _Term:
    """Translate a condition into SQL on the column ``documents.row``.

    Raise FilterError for an invalid condition.
    """
    return build_condition(where, _SQLBuilder())


class _SQLBuilder:
    """Builder of SQL; fields and values become parameters, never text."""

    def all_of(self, parts: list[_Term]) -> _Term:
        lead = next((i for i, part in enumerate(parts) if part.selective), None)
        sql = [part.sql if lead in (None, i) else part.as_probe for i, part in enumerate(parts)]
        return _joined(" AND ".join(sql) or "1", parts, lead is not None)

    def any_of(self, parts: list[_Term]) -> _Term:
        selective = all(part.selective for part in parts)
        return _joined(" OR ".join(part.sql for part in parts) or "0", parts, selective)

    def negation(self, part: _Term) -> _Term:
        return _Term(f"(NOT {part.sql})", part.values, False)

    def exists(self, field: str) -> _Term:
        return _comparison("", [field, "present"], False)

    def order(self, field: str, name: str, value: Scalar) -> _Term:
        return _comparison(f" AND value {COMPARISONS[name]} ?", [field, kind_of(value), value], False)

    def any_equal(self, field: str, values: list[Scalar]) -> _Term:
        parts = []
        for kind in ("text", "number"):
            of_kind = [value for value in values if kind_of(value) == kind]
            if of_kind:
                marks = ", ".join("?" * len(of_kind))
                parts.append(_comparison(f" AND value IN ({marks})", [field, kind, *of_kind], True))
        return self.any_of(parts)


def _comparison(sql: str, values: list[Any], selective: bool) -> _Term:
    """Return the condition that a row of metadata_values satisfies.

    The row has a field and a kind, and satisfies `sql`, which compares its value.
    """
    return _Term(f"{_SET}field = ? AND kind = ?{sql})", values, selective)


def _joined(sql: str, parts: list[_Term], selective: bool) -> _Term:
    return _Term(f"({sql})", [value for part in parts for value in part.values], selective)
