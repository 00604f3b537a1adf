"""Words of texts: terms, inverted lists of them, and BM25 scores.

A word becomes a term: in lower case, without accents of Latin letters, and without its
English ending.  The score of a text is

    sum over terms t of the query: n_t * idf_t * f / (f + k1 * (1 - b + b * l / mean)),

with the number n_t of t in the query and f in the text, l words in the text, and
idf_t = log(1 + (N - N_t + .5) / (N_t + .5)) if N_t of N texts contain t.  This is BM25
as in Lucene, with k1 = 1.2 and b = .75.
"""

from __future__ import annotations

import math
import re
import unicodedata
from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from copy import copy
from itertools import islice, pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from py_rust_stemmers import SnowballStemmer

from ..index.id_map import IdMap
from ..kernels.inverted import add_bm25, least_of_best
from ..reranking.inverted import SEGMENT_ROWS, InvertedIndex, count_rows, term_hash
from ..utils.arrays import GrowingArray

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

# Letters and digits of words, and combining marks, which `\\w` does not match.
_MARKS = "\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u0900-\u109f\u1780-\u17ff"
_WORD = re.compile(f"(?:[^\\W_]|[{_MARKS}])+")
_ASCII_WORD = re.compile("[a-z0-9]+")

# Accents of Latin letters, after they were separated from the letters.
_ACCENTS = re.compile("(?<=[a-z])[\u0300-\u036f]+")

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

# Parameters of BM25.
_K1, _B = 1.2, 0.75

# Words whose terms are kept: some 30 MiB.
_KEPT = 1 << 18

# Steps of the histogram that finds the best texts.
_STEPS = 4096

Scores = NDArray[np.float32]


def spaced(text: str) -> str:
    """Return a text with spaces around pairs of characters of unspaced scripts."""
    return _RUN.sub(lambda run: f" {' '.join(map(''.join, pairwise(run[0]))) or run[0]} ", text)


def mostly_latin(texts: Sequence[str]) -> bool:
    """Return False if most letters of a sample of texts are not Latin."""
    sample = " ".join(text[:_READ] for text in texts[:: len(texts) // _SAMPLED + 1])
    return 2 * len(_LATIN.findall(sample)) >= len(_LETTER.findall(sample))


def words_of(text: str) -> list[str]:
    """Return the words of a text, in lower case.

    A word has letters and digits.  In scripts without spaces, each pair of neighboring
    characters is a word.
    """
    lower = text.lower()
    return _ASCII_WORD.findall(lower) if lower.isascii() else _WORD.findall(spaced(lower))


class _Terms(dict[str, int]):
    """The term of each word, as its hash."""

    def __init__(self) -> None:
        self._stemmer = SnowballStemmer("english")

    def __missing__(self, word: str) -> int:
        if len(self) >= _KEPT:
            self.clear()
        plain = word
        if not word.isascii():
            separated = unicodedata.normalize("NFD", word)
            plain = unicodedata.normalize("NFC", _ACCENTS.sub("", separated))
        term = self[word] = term_hash(self._stemmer.stem_word(plain))
        return term


_TERMS = _Terms()


class _Numbers(dict[str, int]):
    """The number of each word's term, among the terms of some texts."""

    def __init__(self) -> None:
        #: The number of each term.
        self.terms: dict[int, int] = {}

    def __missing__(self, word: str) -> int:
        number = self[word] = self.terms.setdefault(_TERMS[word], len(self.terms))
        return number


def query_terms(text: str) -> dict[int, int]:
    """Return the terms of the first 64 distinct words of a query, and their counts.

    Stop words are left out if the query has other words.
    """
    words = words_of(text)
    stop_words = _stop_words_of(words)
    kept = [word for word in words if word not in stop_words] or words
    terms: dict[int, int] = {}
    for word, count in islice(Counter(kept).items(), _MAX_WORDS):
        term = _TERMS[word]
        terms[term] = terms.get(term, 0) + count
    return terms


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


class WordStatistics(NamedTuple):
    """What BM25 counts in a collection; statistics of several collections add up."""

    #: Number of texts, and of words in all of them.
    texts: int
    words: int
    #: The number of texts that contain each term of a query.
    frequencies: dict[int, int]

    @property
    def mean(self) -> float:
        """The mean number of words of a text."""
        return self.words / max(1, self.texts) or 1.0

    def idf(self, term: int) -> float:
        """Return the weight of a term, which is larger for a rare one."""
        count = self.frequencies[term]
        return math.log(1 + (self.texts - count + 0.5) / (count + 0.5))


def sum_statistics(parts: Sequence[WordStatistics]) -> WordStatistics:
    """Return the statistics of several collections together, for the same terms."""
    frequencies = {term: sum(one.frequencies[term] for one in parts) for term in parts[0].frequencies}
    return WordStatistics(sum(one.texts for one in parts), sum(one.words for one in parts), frequencies)


class QueryWords(NamedTuple):
    """The words of a query, and what their scores in a collection depend on."""

    #: Each term, and how often the query has it.
    terms: dict[int, int]
    statistics: WordStatistics
    #: The highest score of all texts, by which scores are divided.  None: the highest
    #: one of the texts that are scored.
    most: float | None = None


class TextWords:
    """The words of texts, by row of an index: inverted lists, and numbers of words.

    The words of a text with several rows are those of the first one.  Changing a copy
    (:func:`copy.copy`) does not change the original.
    """

    def __init__(self, lists: InvertedIndex | None = None, lengths: NDArray[np.uint32] | None = None) -> None:
        self.lists = InvertedIndex() if lists is None else lists
        self._lengths = GrowingArray(np.empty(0, np.uint32) if lengths is None else lengths)
        # The last results, with what they were computed from.
        self._total: tuple[IdMap, int] | None = None
        self._norms: tuple[float, Scores] | None = None

    def __copy__(self) -> TextWords:
        copied = TextWords(copy(self.lists))
        copied._lengths = copy(self._lengths)
        return copied

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._lengths)

    @property
    def lengths(self) -> NDArray[np.uint32]:
        """The number of words of each row, uint32 (n,)."""
        return np.asarray(self._lengths.values, np.uint32)

    def append(self, texts: Iterable[str], rows: NDArray[np.int64], end: int) -> None:
        """Add texts, whose first rows are `rows`, ascending; `end` is the next row."""
        remaining = iter(texts)
        for start in range(0, max(1, len(rows)), SEGMENT_ROWS):  # all rows may be deleted
            chosen = rows[start : start + SEGMENT_ROWS]
            last = end if start + SEGMENT_ROWS >= len(rows) else int(rows[start + SEGMENT_ROWS])
            numbers, flat, counts = _Numbers(), array("q"), []
            for text in islice(remaining, len(chosen)):
                terms = list(map(numbers.__getitem__, words_of(text)))
                flat.extend(terms)
                counts.append(len(terms))
            lengths = np.zeros(last - len(self), np.uint32)
            lengths[chosen - len(self)] = counts
            offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
            hashes = np.fromiter(numbers.terms, np.uint64, len(numbers.terms))
            self.lists.append(np.frombuffer(flat, np.int64), offsets, hashes)
            self._lengths.extend(lengths)
        self._total = self._norms = None

    def kept(self, rows: NDArray[np.int64]) -> TextWords:
        """Return the words of ascending `rows`, which are numbered 0, 1, 2, ..."""
        return TextWords(self.lists.kept(rows), self.lengths[rows])

    def statistics(self, terms: Collection[int], ids: IdMap) -> WordStatistics:
        """Count the live texts, and those that contain each term."""
        if self._total is None or self._total[0] is not ids:
            self._total = ids, int(self.lengths[ids.documents].sum(dtype=np.int64))
        alive = None if len(ids.live) == ids.num_rows else ids.alive
        lists = zip(terms, self.lists.lists(list(terms)), strict=True)
        frequencies = {term: count_rows(places, alive) for term, places in lists}
        return WordStatistics(len(ids), self._total[1], frequencies)

    def of_query(self, text: str, ids: IdMap) -> QueryWords:
        """Return the words of a query, if these are all texts."""
        terms = query_terms(text)
        return QueryWords(terms, self.statistics(terms, ids))

    def scores(self, asked: QueryWords, ids: IdMap) -> tuple[Scores, float]:
        """Return the BM25 score of each row, float32 (n,), and the highest one.

        Deleted rows have 0.  If no text shares a word with the query, the highest is 1.
        """
        out = np.zeros(len(self), np.float32)
        norms = self._norms_for(asked.statistics.mean)
        for (term, count), lists in zip(
            asked.terms.items(), self.lists.lists(list(asked.terms)), strict=True
        ):
            weight = np.float32(count * asked.statistics.idf(term))
            for one, start, stop in lists:
                part = slice(one.first, one.first + one.size)
                add_bm25(one.rows, one.values, start, stop, weight, norms[part], out[part])
        if len(ids.live) < ids.num_rows:
            out[~ids.alive] = 0
        most = float(out.max(initial=0.0)) if asked.most is None else asked.most
        return out, most or 1.0

    def _norms_for(self, mean: float) -> Scores:
        known = self._norms
        if known is None or known[0] != mean:
            norms = np.float32(_K1 * (1 - _B)) + np.float32(_K1 * _B / mean) * self.lengths.astype(np.float32)
            known = self._norms = mean, norms
        return known[1]

    def nbytes(self) -> int:
        """Return the bytes of all arrays."""
        return self.lists.nbytes + self.lengths.nbytes


def best_rows(scores: Scores, k: int) -> NDArray[np.int64]:
    """Return the `k` rows with the best scores above 0, best first.

    Ties go to the lower row.
    """
    least = least_of_best(scores, k, _STEPS)
    rows = np.flatnonzero(scores >= least) if least > 0 else np.flatnonzero(scores)
    return rows[np.argsort(-scores[rows], kind="stable")][:k]


def word_scores(query: str, texts: Sequence[str]) -> Scores:
    """Return the BM25 scores of given texts, float32 (n,), divided by the highest one.

    How rare a word is, is counted in these texts only.
    """
    words, ids = TextWords(), IdMap()
    words.append(texts, np.arange(len(texts)), len(texts))
    ids.append(np.arange(len(texts)))
    scores, most = words.scores(words.of_query(query, ids), ids)
    return np.asarray(scores / most, np.float32)
