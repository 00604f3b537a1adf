"""BM25 scores of the words that a query shares with texts, from SQLite's FTS5."""

from __future__ import annotations

import json
import math
import re
import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate, islice, pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..kernels.selection import add_scores, select_best

#: Splits texts into words, and words into stems.
TOKENIZER = "tokenize=\"porter unicode61 categories 'L* N* Co M*'\""

#: Scripts without spaces between words: Thai, Lao, Burmese, Khmer, Chinese, Japanese.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
_RUN = re.compile(f"[{UNSPACED}]+")

# Letters, and those of the Latin script.
_LETTER = re.compile("[^\\W\\d_]")
_LATIN = re.compile("(?=[^\\W\\d_])[\\u0000-\\u024f\\u1e00-\\u1eff]")

# Texts, and characters of each, by which the script of a collection is known.
_SAMPLED, _READ = 1000, 500

# A word with its combining marks, which `\w` does not match.
_WORD = re.compile("[\\w\u0300-\u036f\u0900-\u109f\u1780-\u17ff]+")

#: Frequent words that say little about a text, by language.
STOP_WORDS: dict[str, frozenset[str]] = {
    language: frozenset(words.split())
    for language, words in {
        "en": "a about an and are as at be been but by can could did do does for from had has have how i if "
        "in into is it its me my no not of on or our should so such that the their then there these they "
        "this those to was we were what when where which who why will with would you your",
        "de": "aber als am an auch auf aus bei bin bis da das dass dem den der des die durch ein eine einem "
        "einen einer eines er es für hat ich ihr im in ist man mit nach nicht noch nur oder sich sie sind "
        "so über um und uns von vor war was wenn werden wie wir wird zu zum zur",
        "es": "a al como con cual cuál de del donde dónde el en entre es esta este esto la las lo los más me "
        "mi no o para pero por porque que qué quién se ser si sin sobre son su sus un una y ya",
        "fr": "à au aux avec ce ces cette comme comment dans de des du elle en est et il ils je la le les "
        "leur mais ne nous on ou où par pas plus pour que quel quelle qui quoi sa se ses si son sont sur un "
        "une vous",
    }.items()
}

# Distinct words of a query that count.
_MAX_WORDS = 64

# Documents that contain the words of a query: this number, or this share of a larger
# collection.  More frequent words are skipped.  More documents improve the ranking by
# words and take longer: see `python -m experiments words`.
_MATCHES = 8_000
_SHARE = 8

# Scores that are kept for later queries: 32 MiB with their rows.
_KEPT = 1 << 21

# Words whose counts are kept, and documents whose ids are: a few MiB each.
_KEPT_WORDS = 1 << 16

# Parameters of BM25, as in FTS5's bm25().
_K1 = 1.2
_B = 0.75
_LOWEST_IDF = 1e-6  # instead of 0 or less

# Rows of `words_docsize` that are read per step.
_STEP = 1 << 16

# The number of documents that contain each term, each occurrence of a term, and the
# terms of a query's words.  A term is the stem of a word.
_TABLES = f"""
CREATE VIRTUAL TABLE IF NOT EXISTS temp.counts USING fts5vocab(main, words, row);
CREATE VIRTUAL TABLE IF NOT EXISTS temp.occurrences USING fts5vocab(main, words, instance);
CREATE VIRTUAL TABLE IF NOT EXISTS temp.query USING fts5(text, content='', {TOKENIZER});
CREATE VIRTUAL TABLE IF NOT EXISTS temp.query_terms USING fts5vocab(temp, query, instance);
"""

# As bytes: FTS5 cuts a very long term, maybe within a character.
_TERMS = """
SELECT query_terms.doc, CAST(query_terms.term AS BLOB), counts.doc
FROM temp.query_terms LEFT JOIN temp.counts ON counts.term = query_terms.term
"""
_OCCURRENCES = "SELECT group_concat(doc) FROM temp.occurrences WHERE term = CAST(? AS TEXT)"
_LENGTHS = """
SELECT max(id), group_concat(id), group_concat(hex(sz), '')
FROM (SELECT id, sz FROM words_docsize WHERE id >= ? ORDER BY id LIMIT ?)
"""


def spaced(text: str) -> str:
    """Return a text with spaces around pairs of characters of unspaced scripts."""
    return _RUN.sub(lambda run: f" {' '.join(map(''.join, pairwise(run[0]))) or run[0]} ", text)


def mostly_latin(texts: Sequence[str]) -> bool:
    """Return False if most letters of a sample of texts are not Latin."""
    sample = " ".join(text[:_READ] for text in texts[:: len(texts) // _SAMPLED + 1])
    return 2 * len(_LATIN.findall(sample)) >= len(_LETTER.findall(sample))


def counted_words(text: str) -> dict[str, int]:
    """Return the first 64 distinct words of a query, in lower case, and their counts.

    Stop words are left out if the query has other words.
    """
    words = _WORD.findall(spaced(text.lower()))
    stop_words = _stop_words_of(words)
    kept = [word for word in words if word not in stop_words] or words
    return dict(islice(Counter(kept).items(), _MAX_WORDS))


def _stop_words_of(words: Sequence[str]) -> frozenset[str]:
    """Return the stop words of the language of a query.

    This is English, unless the query has at least two stop words of another language
    and more than of English.
    """
    english, *others = STOP_WORDS.values()
    best, most = english, max(1, sum(word in english for word in words))
    for language in others:
        count = sum(word in language for word in words)
        if count > most:
            best, most = language, count
    return best


def as_match(words: Mapping[str, int]) -> str:
    """Return the expression of FTS5 for texts that contain one of the words.

    `words` have counts, because FTS5 adds the score of a word as often as it occurs in
    the expression.
    """
    return " OR ".join(f'"{word}"' for word, count in words.items() for _ in range(count))


class _Averages(NamedTuple):
    """The number of documents, and their mean number of words, for BM25."""

    documents: int
    length: float


class WordScores:
    """The words of past queries: how many documents have each, and their BM25 scores.

    The score of a document is the sum of the scores of single words.  So a word is
    scored once, and later queries add what is kept.  The scores equal
    FTS5's ``bm25()``, which takes longer: it looks up the length of each document, and
    reads each list of documents twice.

    The caller holds a lock.  It calls :meth:`clear` before each change of the
    documents, because a score depends on all of them, and :meth:`forget_rows` after
    deletions.
    """

    def __init__(self) -> None:
        # The number of words of each document, by row.  A row without a document has 0
        # or an old number, and is never looked up.
        self._lengths = np.empty(0, np.int32)
        # Zeros, by row, to add scores in.
        self._sums = np.empty(0)
        # The ids of documents by row.
        self._ids: dict[int, int | str] = {}
        # No key of `_ids` is larger.
        self._last_row = 0
        self.clear()

    def clear(self) -> None:
        """Forget the counts and scores of words, but not lengths and ids."""
        self._counts: dict[str, int] = {}
        self._terms: dict[str, bytes | None] = {}
        self._scores: dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]] = {}
        self._kept = 0
        self._averages: _Averages | None = None

    def forget_rows(self, start: int) -> None:
        """Forget the rows from `start` on, which new documents will use."""
        self._lengths = self._lengths[:start]
        if self._last_row >= start:
            self._ids.clear()

    def rarest(self, connection: sqlite3.Connection, words: Mapping[str, int]) -> dict[str, int]:
        """Return the rarest words, which occur in few documents in total, rarest first.

        `words` have their counts in the query, and so has the result.  It has at least
        one word if any occurs.
        """
        unknown = [word for word in words if word not in self._counts]
        if len(self._counts) + len(unknown) > _KEPT_WORDS:
            self.clear()
            unknown = list(words)
        if unknown:
            self._count(connection, unknown)
        # A word that occurs in no document is left out; the sort is stable.
        present = sorted((word for word in words if self._counts[word]), key=self._counts.__getitem__)
        totals = list(accumulate(self._counts[word] for word in present))
        limit = _MATCHES
        if totals and totals[-1] > limit:
            limit = max(limit, self._average(connection).documents // _SHARE)
        kept = present[: sum(total <= limit for total in totals) or 1]
        return {word: words[word] for word in kept}

    def _count(self, connection: sqlite3.Connection, words: list[str]) -> None:
        """Store the number of documents and the term of each word.

        FTS5 splits a word such as ``x_y`` into several terms.  Its count is the count
        of the rarest term, and its own term is None.
        """
        connection.executescript(_TABLES)
        connection.execute("INSERT INTO temp.query (query) VALUES ('delete-all')")
        connection.executemany("INSERT INTO temp.query (rowid, text) VALUES (?, ?)", enumerate(words))
        found: list[list[tuple[bytes, int | None]]] = [[] for _ in words]
        for number, term, count in connection.execute(_TERMS):
            found[number].append((term, count))
        for word, terms in zip(words, found, strict=True):
            self._counts[word] = min((count for _, count in terms if count is not None), default=0)
            self._terms[word] = terms[0][0] if len(terms) == 1 else None

    def best(
        self, connection: sqlite3.Connection, words: Mapping[str, int], k: int
    ) -> list[tuple[int | str, float]]:
        """Return the `k` best documents for words, as pairs of id and score.

        `words` are from :meth:`rarest`.  The best document comes first; ties go to the
        document that was stored first.
        """
        if not words:
            return []
        known = [self._score(connection, word) for word, count in words.items() for _ in range(count)]
        # Added in the order of the words, each as often as it occurs, as FTS5 does.
        rows = np.concatenate([rows for rows, _ in known])
        weights = np.concatenate([scores for _, scores in known])
        if rows.max(initial=-1) >= len(self._sums):
            self._sums = np.zeros(int(rows.max()) + 1)
        found, scores = np.empty(len(rows), np.int64), np.empty(len(rows))
        count = add_scores(rows, weights, self._sums, found, scores)
        order = np.empty(min(k, count), np.int64)
        order = order[: select_best(scores[:count], found[:count], order)]
        names = self._names(connection, found[order].tolist())
        pairs = zip(names, scores[order].tolist(), strict=True)
        return [(name, score) for name, score in pairs if name is not None]

    def _score(
        self, connection: sqlite3.Connection, word: str
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the rows of the documents with a word, and their scores."""
        if word not in self._scores:
            term = self._terms[word]
            if term is None:
                pairs = _scored_by_sqlite(connection, word)
            else:
                pairs = self._bm25(connection, term)
            if self._kept + len(pairs[0]) > _KEPT:
                self._scores.clear()
                self._kept = 0
            self._scores[word] = pairs
            self._kept += len(pairs[0])
        return self._scores[word]

    def _bm25(
        self, connection: sqlite3.Connection, term: bytes
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the rows of the documents with a term, and their scores as FTS5's."""
        documents, mean_length = self._average(connection)
        found = connection.execute(_OCCURRENCES, (term,)).fetchone()[0] or ""
        rows, frequencies = np.unique(np.fromstring(found, np.int64, sep=","), return_counts=True)
        if not 0 < len(rows) <= documents or rows[-1] >= len(self._lengths):
            raise _damage()
        lengths = self._lengths[rows]
        if lengths.min() <= 0:
            raise _damage()
        idf = math.log((documents - len(rows) + 0.5) / (len(rows) + 0.5))
        if idf <= 0:
            idf = _LOWEST_IDF
        # In FTS5's order of operations, for equal bits.
        norms = frequencies + _K1 * (1 - _B + _B * lengths / mean_length)
        return rows, idf * ((frequencies * (_K1 + 1.0)) / norms)

    def _average(self, connection: sqlite3.Connection) -> _Averages:
        if self._averages is None:
            self._averages = self._read_lengths(connection)
        return self._averages

    def _read_lengths(self, connection: sqlite3.Connection) -> _Averages:
        """Read the lengths of new documents, and return the averages of all."""
        parts = [self._lengths]
        start = len(self._lengths)
        while True:
            last, ids, sizes = connection.execute(_LENGTHS, (start, _STEP)).fetchone()
            if last is None:
                break
            part = np.zeros(last + 1 - start, np.int32)
            rows = np.fromstring(ids, np.int64, sep=",")
            part[rows - start] = _decoded(bytes.fromhex(sizes), len(rows))
            parts.append(part)
            start = last + 1
        self._lengths = np.concatenate(parts)
        # Its first two numbers: documents, and words of all documents.
        stored = connection.execute("SELECT block FROM words_data WHERE id = 1").fetchone()
        documents, words = _decoded(stored[0] if stored else b"", 2).tolist()
        if documents <= 0 or words <= 0:
            raise _damage()
        return _Averages(documents, words / documents)

    def _names(self, connection: sqlite3.Connection, rows: list[int]) -> list[int | str | None]:
        """Return the ids of documents by row; None for a row without a document."""
        names = list(map(self._ids.get, rows))
        if None in names:
            unknown = [row for row, name in zip(rows, names, strict=True) if name is None]
            if len(self._ids) + len(unknown) > _KEPT_WORDS:
                self._ids.clear()
                unknown = rows
            query = "SELECT row, id FROM documents WHERE row IN (SELECT value FROM json_each(?))"
            self._ids.update(connection.execute(query, (json.dumps(unknown),)))
            self._last_row = max(self._last_row, *unknown)
            names = list(map(self._ids.get, rows))
        return names


def _scored_by_sqlite(
    connection: sqlite3.Connection, word: str
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the rows of the documents with a word, and their scores."""
    query = "SELECT rowid, -rank FROM words WHERE words MATCH ?"
    pairs = connection.execute(query, (as_match({word: 1}),)).fetchall()
    rows = np.fromiter((row for row, _ in pairs), np.int64, len(pairs))
    return rows, np.fromiter((score for _, score in pairs), np.float64, len(pairs))


def _decoded(content: bytes, count: int) -> NDArray[np.int64]:
    """Decode `count` of SQLite's integers of variable length.

    Each byte holds seven bits, the highest first.  The last byte is less than 128.
    """
    parts = np.frombuffer(content, np.uint8).astype(np.int64)
    ends = np.flatnonzero(parts < 128) + 1
    if len(ends) != count or ends[-1] != len(parts):
        raise _damage()
    if count == len(parts):
        return parts
    starts = np.concatenate([[0], ends[:-1]])
    places = np.repeat(ends, ends - starts) - np.arange(1, len(parts) + 1)
    return np.asarray(np.add.reduceat((parts & 127) << 7 * places, starts), np.int64)


def _damage() -> sqlite3.DatabaseError:
    return sqlite3.DatabaseError("its word index is damaged")
