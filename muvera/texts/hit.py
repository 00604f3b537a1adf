"""The options of a text search and its answers: hits, sentences, and which words matched."""

from __future__ import annotations

import html
import math
import re
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any, TypedDict

import numpy as np

from ..index.two_stage_search import SearchPlan
from ..metadata import Filter
from ..reranking.chamfer import explain, rank_spans, score_spans, spans_from_characters
from ..utils.checks import as_id_list, require_number
from ..utils.hints import Argument, Message
from .database import TextDocument, require_ids
from .encoders.base import TextEncoder, token_spans

# The end of a sentence: a mark and closing quotes before a space and a capital, a mark
# between spaces, a CJK mark, or an empty line.  In a text without capitals, any letter
# may follow.
_ENDS = "(?<=[.!?\u2026])[\"'\u201d\u2019)\\]]*(?=\\s+{})|(?<=\\s[.!?])(?=\\s)|(?<=[\u3002\uff01\uff1f])|\\n\\s*\\n"
_END, _LOWER_CASE_END = (re.compile(_ENDS.format(next)) for next in ("[^\\sa-z]", "\\S"))
_WORD = re.compile("\\w+(?:['\u2019-]\\w+)*")

# A period after one of these does not end a sentence.
_ABBREVIATION = re.compile(r"\b(?:(?i:e\.g|i\.e|cf|vs|etc|dr|mr|mrs|ms|prof|fig|eq)|No|St|[A-Z])\.$")

#: Default weight of shared words, which are added to Chamfer similarity.
WORDS = 0.1

# Default number of candidates.  Encoding a query takes longer than ranking another 100
# texts.
_CANDIDATES = 200

#: Parts of each text's score by id, best text first.
Parts = dict[Any, dict[str, float]]


class SearchKeywords(TypedDict, total=False):
    """Keyword arguments of :meth:`muvera.TextIndex.search`."""

    where: Filter | None
    ids: Iterable[int | str] | None
    candidates: int | None
    recall: float | None
    words: float
    explain: bool
    threads: int | None


@dataclass(frozen=True)
class SearchOptions:
    """Checked arguments of :meth:`muvera.TextIndex.search`."""

    k: int
    where: Filter | None = None
    ids: Any = None  # an iterable, replaced by a list
    candidates: int | None = None
    recall: float | None = None
    words: float = WORDS
    explain: bool = False
    threads: int | None = None

    def __post_init__(self) -> None:
        SearchPlan(self.k, candidates=self.candidates, recall=self.recall, threads=self.threads)
        if not 0 <= require_number("words", self.words) < 1:
            raise ValueError(
                Message(Argument("words"), f" must be a weight from 0 to below 1, got {self.words!r}.")
            )
        if self.ids is not None:
            object.__setattr__(self, "ids", require_ids(as_id_list(self.ids)))

    @property
    def num_candidates(self) -> int:
        """Number of texts in this process to rank exactly."""
        return max(self.k, _CANDIDATES) if self.candidates is None else self.candidates


def add_words(maxsim: dict[Any, float], words: dict[Any, float], weight: float, k: int) -> Parts:
    """Return the best `k` texts by Chamfer similarity plus shared words.

    The text with the highest BM25 score gains ``weight / (1 - weight)`` of the range of
    the similarities.
    """
    if not maxsim:
        return {}
    most = max(words.values(), default=1.0)
    spread = max(maxsim.values()) - min(maxsim.values())
    unit = weight / (1 - weight) * spread / most
    parts = {id: {"maxsim": score, "words": unit * words.get(id, 0.0)} for id, score in maxsim.items()}
    best = sorted(parts, key=lambda id: -sum(parts[id].values()))[:k]
    return {id: parts[id] for id in best}


@dataclass(frozen=True)
class WordMatch:
    """The best match of one query token."""

    #: Characters of the query (start, stop); a special token has none, so start equals
    #: stop.
    query: tuple[int, int]
    #: Characters of the document's word that contains the best matching token.
    document: tuple[int, int]
    #: Inner product of the two token vectors.  The similarities of all tokens add up to
    #: the score.
    similarity: float


@dataclass(frozen=True)
class SentenceScore:
    """Chamfer similarity of the query with one sentence: the document's characters from start to stop."""

    start: int
    stop: int
    score: float


@dataclass(frozen=True)
class TextExplanation:
    """Matches between a query and a text; notebooks display it as shaded text.

    The score is Chamfer similarity: the sum of the similarities of the matches, one for
    each query token.
    """

    query: str
    text: str
    score: float
    matches: list[WordMatch]
    sentences: list[SentenceScore]

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as JSON values."""
        return asdict(self)

    def words(self) -> list[tuple[str, str, float]]:
        """Return (word of the query, word of the text or "" for a special token, similarity) of each match.

        Special tokens of the query are skipped.
        """
        return [
            (self.query[slice(*match.query)], self.text[slice(*match.document)], match.similarity)
            for match in self.matches
            if match.query[0] < match.query[1]
        ]

    def weights(self) -> dict[tuple[int, int], float]:
        """Return the score that each matched word of the text contributed, by its characters."""
        weights: dict[tuple[int, int], float] = {}
        for match in self.matches:
            if match.document[1] > match.document[0]:
                weights[match.document] = weights.get(match.document, 0.0) + max(0.0, match.similarity)
        return weights

    def to_html(self) -> str:
        """Return the text as escaped HTML with words shaded by their contribution."""
        weights = self.weights()
        most = max(weights.values(), default=1.0) or 1.0
        pieces, position = [], 0
        for (start, stop), weight in sorted(weights.items()):
            words = [
                self.query[slice(*match.query)] for match in self.matches if match.document == (start, stop)
            ]
            title = html.escape(", ".join(dict.fromkeys(word for word in words if word)))
            shade = f"background:rgba(255,170,0,{0.15 + 0.65 * weight / most:.2f});color:inherit"
            pieces.append(html.escape(self.text[position:start]))
            pieces.append(
                f'<mark style="{shade}" title="{title} {weight:.2f}">{html.escape(self.text[start:stop])}</mark>'
            )
            position = stop
        pieces.append(html.escape(self.text[position:]))
        return f'<p style="white-space:pre-wrap">{"".join(pieces)}</p>'

    _repr_html_ = to_html


@dataclass(frozen=True)
class Hit:
    """One result of a text search.

    Parameters
    ----------
    id : int or str
    score : float
        The sum of the parts; hits are ordered by it.
    text : str
        The text, or the sentence.
    metadata : dict
    parts : dict of str to float
        For a text: "maxsim" is its Chamfer similarity with the query, and "words" its
        gain from shared words. For a sentence: "maxsim" is its own similarity, and
        "text" is alpha times the score of its text.
    span : (start, stop) or None
        Characters of the sentence within the text.
    explanation : TextExplanation or None
        Word matches, if the search was called with ``explain=True``.
    """

    id: int | str
    score: float
    text: str
    metadata: dict[str, Any] = field(default_factory=dict)
    parts: dict[str, float] = field(default_factory=dict)
    span: tuple[int, int] | None = None
    explanation: TextExplanation | None = None

    def _repr_html_(self) -> str:
        shown = f"<p>{html.escape(self.text)}</p>" if self.explanation is None else self.explanation.to_html()
        return f"<strong>{html.escape(str(self.id))}</strong> {self.score:.3f}{shown}"

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as JSON values."""
        return {**asdict(self), "span": None if self.span is None else list(self.span)}


def explain_all(
    encoder: TextEncoder, query: str, tokens: Any, documents: list[TextDocument], vectors: Iterable[Any]
) -> list[TextExplanation]:
    """Explain which words of each document match the query, given the token vectors of both.

    Raise ValueError for a blank query or document, or an encoder that does not map
    tokens to characters.
    """
    for name, text in [("query", query), *((f"document {one.id!r}", one.text) for one in documents)]:
        if not text.strip():
            raise ValueError(f"The {name} is blank: it has no words to explain. Give another one.")
    query_words = _word_spans(query, token_spans(encoder, query, "query"))
    explanations = []
    for document, own in zip(documents, map(np.asarray, vectors), strict=True):
        best, spans = explain(tokens, own), token_spans(encoder, document.text, "document")
        words, sentences = _word_spans(document.text, spans), sentences_of(document.text)
        best_of = zip(query_words, best.tokens.tolist(), best.similarities.tolist(), strict=True)
        matches = [WordMatch(word, words[token], similarity) for word, token, similarity in best_of]
        scores = score_spans(tokens, own, spans_from_characters(sentences, spans)).tolist()
        pairs = zip(sentences, scores, strict=True)
        scored = [SentenceScore(*bounds, score) for bounds, score in pairs if math.isfinite(score)]
        explanations.append(TextExplanation(query, document.text, best.score, matches, scored))
    return explanations


def sentence_hits(
    encoder: TextEncoder,
    query: Any,
    documents: list[TextDocument],
    tokens: Any,
    scores: list[float],
    k: int,
    alpha: float,
) -> list[Hit]:
    """Return the `k` best sentences of documents, given their tokens and their scores."""
    sentences = [sentences_of(document.text) for document in documents]
    spans = [
        spans_from_characters(bounds, token_spans(encoder, document.text, "document"))
        for document, bounds in zip(documents, sentences, strict=True)
    ]
    hits = []
    for best in rank_spans(query, tokens, spans, k, alpha=alpha, document_scores=scores):
        document = documents[best.document]
        number = spans[best.document].tolist().index([best.start, best.stop])
        start, stop = sentences[best.document][number]
        own = {"maxsim": best.span_score, "text": alpha * best.document_score}
        text = document.text[start:stop]
        hits.append(Hit(document.id, best.score, text, document.metadata, own, (start, stop)))
    return hits


def sentences_of(text: str) -> list[tuple[int, int]]:
    """Split a text into sentences, (start, stop) without surrounding space."""
    bounds = [0]
    for match in (_LOWER_CASE_END if text.islower() else _END).finditer(text):
        if not _ABBREVIATION.search(text[bounds[-1] : match.end()]):
            bounds.append(match.end())
    bounds.append(len(text))
    sentences = []
    for start, stop in pairwise(bounds):
        stripped = text[start:stop].strip()
        if stripped:
            start = text.index(stripped, start)
            sentences.append((start, start + len(stripped)))
    return sentences


def _word_spans(text: str, spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the word around each token, or the token itself if it is not inside a word."""
    words = [match.span() for match in _WORD.finditer(text)]
    starts = [start for start, _ in words]
    widened = []
    for start, stop in spans:
        i = bisect_right(starts, start) - 1
        inside = stop > start and i >= 0 and start < words[i][1]
        widened.append(words[i] if inside else (start, stop))
    return widened
