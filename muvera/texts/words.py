"""BM25 scores of the words that a query shares with texts, from SQLite's FTS5."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from ..data.ranking import best_first

#: Splits texts into words, and words into stems.
TOKENIZER = "tokenize=\"porter unicode61 categories 'L* N* Co M*'\""

#: Scripts without spaces between words: Thai, Lao, Burmese, Khmer, Chinese, Japanese.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
_RUN = re.compile(f"[{UNSPACED}]+")

# A word with its combining marks, which `\w` does not match.
_WORD = re.compile("[\\w\u0300-\u036f\u0900-\u109f\u1780-\u17ff]+")

# Distinct words of a query that count.
_MAX_WORDS = 64

# Documents that contain the words of a query: more frequent words are skipped.  More
# documents improve the ranking by words and take longer: see `python -m experiments
# words`.
_MATCHES = 8_000

# Scores that are kept for later queries: 32 MiB with their rows.
_KEPT = 1 << 21

# The number of documents that contain each word, and the words of a query.
_COUNTS = f"""
CREATE VIRTUAL TABLE IF NOT EXISTS temp.counts USING fts5vocab(main, words, row);
CREATE VIRTUAL TABLE IF NOT EXISTS temp.query USING fts5(text, content='', {TOKENIZER});
CREATE VIRTUAL TABLE IF NOT EXISTS temp.query_terms USING fts5vocab(temp, query, instance);
"""


def spaced(text: str) -> str:
    """Return a text with spaces around pairs of characters of unspaced scripts.

    Parameters
    ----------
    text : str
    """
    return _RUN.sub(lambda run: f" {' '.join(map(''.join, pairwise(run[0]))) or run[0]} ", text)


def distinct_words(text: str) -> list[str]:
    """Return the first 64 distinct words of a query, in lower case.

    Parameters
    ----------
    text : str
    """
    return list(dict.fromkeys(_WORD.findall(spaced(text.lower()))))[:_MAX_WORDS]


def as_match(words: Sequence[str]) -> str:
    """Return the expression of FTS5 for texts that contain one of the words.

    Parameters
    ----------
    words : sequence of str
    """
    return " OR ".join(f'"{word}"' for word in words)


class WordScores:
    """The words of past queries: how many documents have each, and their BM25 scores.

    FTS5 adds the scores of single words.  So a word is scored once, and later queries
    add what is kept.  The caller holds a lock, and clears the object after each change
    of the documents, because a score depends on all of them.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget all words."""
        self._counts: dict[str, int] = {}
        self._scores: dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]] = {}
        self._ids: dict[int, int | str] = {}
        self._kept = 0

    def rarest(self, connection: sqlite3.Connection, words: Sequence[str]) -> list[str]:
        """Return the rarest words, which occur in at most 8,000 documents in total.

        Parameters
        ----------
        connection : sqlite3.Connection
        words : sequence of str

        Returns
        -------
        list of str
            Rarest first; at least one word if any occurs.
        """
        unknown = [word for word in words if word not in self._counts]
        if unknown:
            connection.executescript(_COUNTS)
            connection.execute("INSERT INTO temp.query (query) VALUES ('delete-all')")
            connection.executemany("INSERT INTO temp.query (rowid, text) VALUES (?, ?)", enumerate(unknown))
            found = connection.execute(
                "SELECT query_terms.doc, min(counts.doc) FROM temp.query_terms JOIN temp.counts "
                "ON counts.term = query_terms.term GROUP BY query_terms.doc"
            )
            counts = dict(found.fetchall())
            self._counts.update((word, counts.get(number, 0)) for number, word in enumerate(unknown))
        # A word that occurs in no document is left out; the sort is stable.
        present = sorted((word for word in words if self._counts[word]), key=self._counts.__getitem__)
        totals = accumulate(self._counts[word] for word in present)
        return present[: sum(total <= _MATCHES for total in totals) or 1]

    def best(
        self, connection: sqlite3.Connection, words: Sequence[str], k: int
    ) -> list[tuple[int | str, float]]:
        """Return the best documents for words.

        Parameters
        ----------
        connection : sqlite3.Connection
        words : sequence of str
            From :meth:`rarest`.
        k : int
            Maximum number of documents.

        Returns
        -------
        list of (id, score)
            Best first; ties go to the document that was stored first.
        """
        if not words:
            return []
        known = [self._score(connection, word) for word in words]
        rows = np.concatenate([rows for rows, _ in known])
        # Added in the order of the words, as FTS5 does.
        weights = np.concatenate([scores for _, scores in known])
        sums = np.asarray(np.bincount(rows, weights), np.float64)
        found = np.flatnonzero(sums)
        scores = sums[found]
        order = best_first(scores, k)
        names = self._names(connection, found[order].tolist())
        pairs = zip(names, scores[order].tolist(), strict=True)
        return [(name, score) for name, score in pairs if name is not None]

    def _score(
        self, connection: sqlite3.Connection, word: str
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the rows of the documents with a word, and their scores."""
        if word not in self._scores:
            query = "SELECT rowid, -rank FROM words WHERE words MATCH ?"
            pairs = connection.execute(query, (as_match([word]),)).fetchall()
            if self._kept + len(pairs) > _KEPT:
                self.clear()
            rows = np.fromiter((row for row, _ in pairs), np.int64, len(pairs))
            scores = np.fromiter((score for _, score in pairs), np.float64, len(pairs))
            self._scores[word] = rows, scores
            self._kept += len(pairs)
        return self._scores[word]

    def _names(self, connection: sqlite3.Connection, rows: list[int]) -> list[int | str | None]:
        """Return the ids of documents by row; None for a row without a document."""
        query = "SELECT id FROM documents WHERE row = ?"
        for row in rows:
            if row not in self._ids:
                for (identity,) in connection.execute(query, (row,)):
                    self._ids[row] = identity
        return [self._ids.get(row) for row in rows]
