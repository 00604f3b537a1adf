"""Texts and metadata by id, in SQLite: the half of a text index that is not vectors."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import RLock
from typing import Any, Literal
from urllib.parse import quote

from ..metadata.filters import Filter
from ..metadata.values import comparable_values, encode_metadata
from .filters import to_sql

__all__ = ["DocumentDatabase", "TextDocument"]

# ``metadata_values`` has a row for every comparable value of every field, those of lists one by one, and
# one of the kind "present" for every field that is not null: any condition is answered by ranges of its
# key, whatever fields there are.
_SCHEMA = """
CREATE TABLE documents (row INTEGER PRIMARY KEY, id UNIQUE NOT NULL, text TEXT NOT NULL, metadata TEXT NOT NULL);
CREATE TABLE metadata_values (field TEXT, kind TEXT, value, row INTEGER, PRIMARY KEY (field, kind, value, row))
    WITHOUT ROWID;
CREATE TABLE properties (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE INDEX values_of_a_row ON metadata_values (row, field, kind, value);
CREATE VIRTUAL TABLE words USING fts5(text, content='documents', content_rowid='row', tokenize='porter unicode61');
"""

# What SQLite's tokenizer takes for a word, and how many a query has.
_WORD, _MOST_WORDS = re.compile(r"\w+"), 64

# Parameters of one statement.
_STEP = 500


@dataclass(frozen=True)
class TextDocument:
    """A stored text.

    Parameters
    ----------
    id : int or str
    text : str
    metadata : dict
        Values that JSON can hold.
    """

    id: int | str
    text: str
    metadata: dict[str, Any] = field(default_factory=dict)


class DocumentDatabase:
    """Texts with metadata, found by id or by a condition on the metadata.

    Every method may be called from any thread.  A database that was opened from a file never changes
    that file: the first change copies it to a temporary one, and :meth:`save` writes a new file.
    """

    def __init__(self) -> None:
        self._lock = RLock()
        # A private temporary database: in memory while it is small, on the disk when it is not.
        self._connection = _connect("")
        self._connection.executescript(_SCHEMA)
        self._writable = True

    @classmethod
    def open(cls, path: Path) -> DocumentDatabase:
        """Open a file that :meth:`save` wrote.

        Raises
        ------
        FileNotFoundError
            Where there is no such file.
        ValueError
            Where it is damaged or something else.
        """
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: it holds the texts. Restore it from a copy.")
        opened = cls.__new__(cls)
        opened._lock, opened._writable = RLock(), False
        opened._connection = _connect(f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1")
        try:
            opened._connection.execute("SELECT row, id, text, metadata FROM documents LIMIT 1").fetchone()
            opened._connection.execute(
                "SELECT field, kind, value, row FROM metadata_values LIMIT 1"
            ).fetchone()
        except sqlite3.Error as error:
            opened.close()
            raise ValueError(f"{path} is no database of texts: {error}. Restore it from a copy.") from error
        return opened

    def close(self) -> None:
        """Free the connection; nothing can be asked afterwards."""
        with self._lock:
            self._connection.close()

    def __del__(self) -> None:
        # Python 3.13 warns of connections that nobody closed.
        if hasattr(self, "_connection"):
            self._connection.close()

    # -- changing -------------------------------------------------------------

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make the changes of a block together, or none of them where it raises."""
        with self._lock:
            self._make_writable()
            self._connection.execute("SAVEPOINT change")
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK TO change")
                raise
            finally:
                self._connection.execute("RELEASE change")

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Let no other thread change anything during a block."""
        with self._lock:
            yield

    def put(
        self, ids: Sequence[int | str], texts: Sequence[str], metadata: Sequence[Mapping[str, Any]]
    ) -> None:
        """Store documents, in place of those with the same ids.

        Parameters
        ----------
        ids, texts, metadata : sequences of equal length

        Raises
        ------
        TypeError, ValueError
            For a text that is no string, or metadata that JSON cannot hold; nothing is stored then.
        """
        seen: set[int | str] = set()
        for identity in ids:
            if identity in seen:
                raise ValueError(
                    f"ids must be all different, and {identity!r} is used twice. Give each its own."
                )
            seen.add(identity)
        with self.transaction():
            self._remove(ids)
            for identity, text, values in zip(ids, texts, metadata, strict=True):
                row = (identity, require_text(text, identity), encode_metadata(values, identity))
                inserted = self._connection.execute(
                    "INSERT INTO documents (id, text, metadata) VALUES (?, ?, ?)", row
                )
                self._connection.execute(
                    "INSERT INTO words (rowid, text) VALUES (?, ?)", (inserted.lastrowid, text)
                )
                self._connection.executemany(
                    "INSERT OR IGNORE INTO metadata_values VALUES (?, ?, ?, ?)",
                    ((*value, inserted.lastrowid) for value in comparable_values(values)),
                )

    def delete(self, ids: Sequence[int | str]) -> None:
        """Delete documents; ids that are not there are ignored."""
        with self.transaction():
            self._remove(ids)

    def _remove(self, ids: Sequence[int | str]) -> None:
        for part, marks in _parts(ids):
            rows = f"SELECT row FROM documents WHERE id IN ({marks})"
            self._connection.execute(f"DELETE FROM metadata_values WHERE row IN ({rows})", part)
            self._connection.execute(
                "INSERT INTO words (words, rowid, text) "
                f"SELECT 'delete', row, text FROM documents WHERE id IN ({marks})",
                part,
            )
            self._connection.execute(f"DELETE FROM documents WHERE id IN ({marks})", part)

    def _make_writable(self) -> None:
        if not self._writable:
            copy = _connect("")
            self._connection.backup(copy)
            self._connection.close()
            self._connection, self._writable = copy, True

    def set_property(self, name: str, value: str) -> None:
        """Keep a text about the collection, such as the name of its encoder."""
        with self.transaction():
            self._connection.execute("INSERT OR REPLACE INTO properties VALUES (?, ?)", (name, value))

    # -- looking --------------------------------------------------------------

    def property(self, name: str) -> str | None:
        """Return what :meth:`set_property` kept, or None."""
        with self._lock:
            row = self._connection.execute("SELECT value FROM properties WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def __len__(self) -> int:
        with self._lock:
            return int(self._connection.execute("SELECT count(*) FROM documents").fetchone()[0])

    def get(
        self, ids: Sequence[int | str], *, missing: Literal["raise", "ignore"] = "raise"
    ) -> list[TextDocument]:
        """Return the documents of `ids`, in their order.

        Raises
        ------
        KeyError
            For an id that is not there, unless they are ignored.
        """
        found: dict[int | str, TextDocument] = {}
        with self._lock:
            for part, marks in _parts(ids):
                query = f"SELECT id, text, metadata FROM documents WHERE id IN ({marks})"
                for identity, text, metadata in self._connection.execute(query, part):
                    found[identity] = TextDocument(identity, text, json.loads(metadata))
        absent = [identity for identity in ids if identity not in found]
        if absent and missing == "raise":
            raise KeyError(f"id {absent[0]!r} is not in the index.")
        return [found[identity] for identity in ids if identity in found]

    def select(self, condition: Filter) -> list[int | str]:
        """Return the ids of the documents that satisfy a condition, in the order of adding.

        Raises
        ------
        FilterError
            See :mod:`muvera.metadata.filters`.
        """
        expression, parameters = to_sql(condition)
        with self._lock:
            query = f"SELECT id FROM documents WHERE {expression} ORDER BY row"
            return [identity for (identity,) in self._connection.execute(query, parameters)]

    def match_words(
        self, text: str, k: int, condition: Filter | None = None
    ) -> list[tuple[int | str, float]]:
        """Return the documents that share words with a text, by BM25, best first.

        Parameters
        ----------
        text : str
            Its words, stemmed, each once; the first 64 of them.
        k : int
            How many to return at most.
        condition : mapping, optional
            Only documents that satisfy it.

        Returns
        -------
        list of (id, score)
            Higher is better; documents without any of the words never appear.
        """
        words = list(dict.fromkeys(_WORD.findall(text)))[:_MOST_WORDS]
        if not words:
            return []
        found = "SELECT rowid, rank FROM words WHERE words MATCH ? ORDER BY rank LIMIT ?"
        given: list[Any] = [k]
        if condition:
            expression, parameters = to_sql(condition)
            found = (
                "SELECT words.rowid AS rowid, rank FROM words JOIN documents ON documents.row = words.rowid "
                f"WHERE words MATCH ? AND {expression} ORDER BY rank LIMIT ?"
            )
            given = [*parameters, k]
        query = (
            f"SELECT documents.id, -found.rank FROM ({found}) AS found "
            "JOIN documents ON documents.row = found.rowid ORDER BY found.rank, documents.row"
        )
        match = " OR ".join(f'"{word}"' for word in words)
        with self._lock:
            return list(self._connection.execute(query, [match, *given]))

    def documents(self) -> Iterator[TextDocument]:
        """Yield all documents in the order of adding, as they were when this was called."""
        with self._lock:
            ids = [
                identity for (identity,) in self._connection.execute("SELECT id FROM documents ORDER BY row")
            ]
        for start in range(0, len(ids), _STEP):
            yield from self.get(ids[start : start + _STEP], missing="ignore")

    def save(self, path: Path) -> None:
        """Write everything to a new file."""
        with self._lock:
            self._connection.execute("VACUUM INTO ?", (str(path),))


def require_text(text: Any, identity: Any) -> str:
    """Return `text` where it is a string that UTF-8 can encode, or raise.

    Raises
    ------
    TypeError
        For anything but a string.
    ValueError
        For a string with lone surrogates or a NUL.
    """
    if not isinstance(text, str):
        raise TypeError(f"The text of document {identity!r} must be a string, got {type(text).__name__}.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"The text of document {identity!r} has a lone surrogate at {error.start}, which UTF-8 cannot "
            "encode. Decode the text again with errors='replace'."
        ) from None
    return text


def _parts(ids: Iterable[int | str]) -> Iterator[tuple[list[int | str], str]]:
    """Cut ids into parts of one statement, with as many question marks."""
    every = list(ids)
    for start in range(0, len(every), _STEP):
        part = every[start : start + _STEP]
        yield part, ", ".join("?" * len(part))


def _connect(name: str) -> sqlite3.Connection:
    # One connection behind a lock of its own serves all threads.
    return sqlite3.connect(name, uri=name.startswith("file:"), check_same_thread=False, isolation_level=None)
