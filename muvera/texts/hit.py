"""Options of a text search, and its answers: hits, sentences, and matches of words."""

from __future__ import annotations

import html
import math
import re
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from ..data.multivectors import MultiVectors
from ..data.validation import TokenArray
from ..index.searching import SearchPlan
from ..index.settings import num_candidates
from ..metadata import Filter, TextDocument
from ..metadata.groups import require_field
from ..reranking.chamfer import explain, rank_spans, score_spans, spans_from_characters
from ..utils.checks import as_id_list, require_number
from ..utils.hints import Argument, Message
from .database import require_ids
from .encoders.base import ScoreWeights, TextEncoder, token_spans
from .words import UNSPACED

# The end of a sentence: a mark and closing quotes before a space and a capital, a mark
# between spaces, a CJK mark, or an empty line.  In a text without capitals, any letter
# may follow.
_ENDS = "|".join(
    [
        "(?<=[.!?\u2026])[\"'\u201d\u2019)\\]]*(?=\\s+{})",
        "(?<=\\s[.!?])(?=\\s)",
        "(?<=[\u3002\uff01\uff1f])",
        "\\n\\s*\\n",
    ]
)
_END = re.compile(_ENDS.format("[^\\sa-z]"))
_LOWER_CASE_END = re.compile(_ENDS.format("\\S"))

# A word, possibly with apostrophes or hyphens inside.  Scripts without spaces have
# none.
_LETTERS = f"(?:(?![{UNSPACED}])\\w)+"
_WORD = re.compile(f"{_LETTERS}(?:['\u2019-]{_LETTERS})*")

# A period after one of these does not end a sentence.
_ABBREVIATION = re.compile(r"\b(?:(?i:e\.g|i\.e|cf|vs|etc|dr|mr|mrs|ms|prof|fig|eq)|No|St|[A-Z])\.$")

#: Weight of shared words if an index has no mean vectors: it is in a database, or an
#: older version built it.
WORDS = 0.1

#: Default numbers of texts in which groups are looked for: if vectors propose
#: candidates, and if all texts are ranked anyway.
GROUPED, GROUPED_OF_ALL = 1000, 10_000

# Default number of texts to rank exactly.  On CoSQA, 100 lost .004 of nDCG@10, and
# encoding a query takes longer than ranking another 100 texts.
_CANDIDATES = 200


class SearchKeywords(TypedDict, total=False):
    """Keyword arguments of :meth:`muvera.TextIndex.search`."""

    where: Filter | None
    ids: Iterable[int | str] | None
    candidates: int | None
    recall: float | None
    words: float | None
    mean: float | None
    group_by: str | None
    explain: bool
    threads: int | None


@dataclass(frozen=True)
class SearchOptions:
    """Checked arguments of :meth:`muvera.TextIndex.search`.

    `ids` are replaced by a list.  Texts of more than `passage` tokens are ranked by
    their best passage of this many.  A wrong argument raises TypeError or ValueError.
    """

    k: int
    where: Filter | None = None
    ids: Any = None
    candidates: int | None = None
    recall: float | None = None
    words: float | None = None
    mean: float | None = None
    explain: bool = False
    threads: int | None = None
    passage: int | None = None
    #: Number of the best texts by codes or means that all tokens rank.
    rescore: int | None = None
    #: A metadata field: only the best text of each value is returned.
    group_by: str | None = None
    #: Number of the best texts in which groups are looked for, see :data:`GROUPED`.
    grouped: int | None = None

    def __post_init__(self) -> None:
        if self.group_by is not None:
            require_field(self.group_by)
        SearchPlan(
            self.k,
            candidates=self.candidates,
            recall=self.recall,
            rescore=self.rescore,
            threads=self.threads,
        )
        require_weights(self.words, self.mean)
        if self.ids is not None:
            object.__setattr__(self, "ids", require_ids(as_id_list(self.ids)))

    def weighted(self, default: ScoreWeights) -> SearchOptions:
        """Return these options with both weights.

        The default is used if neither `words` nor `mean` is given.  If only one is
        given, the other is 0.
        """
        return replace(self, **chosen_weights(self.words, self.mean, default)._asdict())

    @property
    def weights(self) -> ScoreWeights:
        """The given weights; one that is not given is 0."""
        return ScoreWeights(self.words or 0.0, self.mean or 0.0)

    @property
    def num_candidates(self) -> int:
        """Number of texts to rank exactly, if their tokens are in this process."""
        return num_candidates(self.k, self.candidates, default=_CANDIDATES)


def require_weights(words: float | None, mean: float | None) -> None:
    """Raise TypeError or ValueError for weights that leave nothing for similarity."""
    for name, weight in (("words", words), ("mean", mean)):
        if weight is not None and not 0 <= require_number(name, weight) < 1:
            raise ValueError(Message(Argument(name), f" must be a weight from 0 to below 1, got {weight!r}."))
    if (words or 0.0) + (mean or 0.0) >= 1:
        raise ValueError(
            f"words and mean must be below 1 together, got {words} and {mean}: the rest is the weight of "
            "similarity."
        )


def chosen_weights(words: float | None, mean: float | None, default: ScoreWeights) -> ScoreWeights:
    """Return the given weights, or the default ones if none is given.

    If only one is given, the other is 0.
    """
    if words is None and mean is None:
        return default
    return ScoreWeights(words or 0.0, mean or 0.0)


def mean_vectors(encoded: MultiVectors) -> NDArray[np.float32]:
    """Return the mean token vector of each text, float32 (n, dimension), of length 1.

    The row of a text without tokens is zeros.
    """
    count = encoded.num_tokens
    # Twenty times as fast as numpy.add.reduceat.
    ones = (np.ones(count, np.float32), np.arange(count), encoded.offsets)
    sums = csr_array(ones, shape=(len(encoded), count)) @ np.asarray(encoded.tokens, np.float32)
    norms = np.linalg.norm(sums, axis=1, keepdims=True)
    np.divide(sums, norms, out=sums, where=norms > 0)
    return sums


@dataclass(frozen=True)
class WordMatch:
    """The best match of one query token."""

    #: Characters of the query (start, stop); a special token has none, so start equals
    #: stop.
    query: tuple[int, int]
    #: (start, stop) of the document's word that contains the best matching token.  In
    #: scripts without spaces: of the token.
    document: tuple[int, int]
    #: Inner product of the two token vectors.  The similarities of all tokens add up to
    #: the score.
    similarity: float
    #: How much of the similarity an average token would not have: a low weight marks a
    #: word that carries little meaning.  May be negative.
    weight: float = 0.0


@dataclass(frozen=True)
class SentenceScore:
    """Chamfer similarity of the query with one sentence of the document."""

    #: First character of the sentence.
    start: int
    #: End of the sentence (exclusive).
    stop: int
    #: Sum over query tokens; higher is better.
    score: float


@dataclass(frozen=True)
class TextExplanation:
    """Matches between a query and a text; notebooks display it as shaded text.

    Parameters
    ----------
    query : str
        The text of the query.
    text : str
        The whole text, also for a sentence's hit.
    score : float
        Chamfer similarity: the sum of the similarities of all matches.
    matches : list of WordMatch
        One for each query token.
    sentences : list of SentenceScore
        One for each sentence with tokens.
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
        """Return a query word, a word of the text and their similarity for each match.

        The word of the text is "" for a special token.  Special tokens of the query are
        skipped.
        """
        return [
            (self.query[slice(*match.query)], self.text[slice(*match.document)], match.similarity)
            for match in self.matches
            if match.query[0] < match.query[1]
        ]

    def weights(self) -> dict[tuple[int, int], float]:
        """Return the shade of each matched word, keyed by (start, stop).

        This is the largest weight of its matches, or 0.  A sum would mark "the" and
        "of", which many query tokens choose if nothing else is similar.
        """
        weights: dict[tuple[int, int], float] = {}
        for match in self.matches:
            if match.document[1] > match.document[0]:
                weights[match.document] = max(weights.get(match.document, 0.0), match.weight)
        return weights

    def to_html(self) -> str:
        """Return the text as escaped HTML with words shaded by their weights."""
        weights = self.weights()
        most = max(weights.values(), default=1.0) or 1.0
        pieces = []
        position = 0
        for (start, stop), weight in sorted(weights.items()):
            matches = [match for match in self.matches if match.document == (start, stop)]
            words = [self.query[slice(*match.query)] for match in matches]
            title = html.escape(", ".join(dict.fromkeys(word for word in words if word)))
            similarity = max(match.similarity for match in matches)
            shade = f"background:rgba(255,170,0,{0.15 + 0.65 * weight / most:.2f});color:inherit"
            pieces.append(html.escape(self.text[position:start]))
            marked = html.escape(self.text[start:stop])
            pieces.append(f'<mark style="{shade}" title="{title} {similarity:.2f}">{marked}</mark>')
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
        The id of the text.
    score : float
        The sum of the parts; hits are ordered by it.
    text : str
        The text, or the sentence.
    metadata : dict
        The metadata of the text.
    parts : dict of str to float
        For a text: "maxsim" is its Chamfer similarity with the query (of a text that is
        longer than its model reads: the similarity of its best passage), "words" its
        gain from shared words, and "mean" its gain from mean token vectors.  A part
        whose weight is 0 is missing.  For a sentence: "maxsim" is its own similarity,
        and "text" is alpha times the score of its text.
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
        """Return all fields as JSON values.

        Returns
        -------
        dict of str to object
            Every field by name: `span` as a list or None, `explanation` as a dict or
            None.
        """
        return {**asdict(self), "span": None if self.span is None else list(self.span)}


def explain_all(
    encoder: TextEncoder,
    query: str,
    tokens: TokenArray,
    documents: list[TextDocument],
    vectors: Iterable[TokenArray],
) -> list[TextExplanation]:
    """Explain which words of each document match the query.

    `encoder` maps tokens to characters.  `tokens` (query tokens, dimension) are the
    token vectors of the query, and `vectors` are (tokens, dimension) for each document;
    both are float32 or float16.

    Raises
    ------
    ValueError
        For a blank query or document, or an encoder that does not map each token vector
        to characters.
    """
    for name, text in [("query", query), *((f"document {each.id!r}", each.text) for each in documents)]:
        if not text.strip():
            raise ValueError(f"The {name} is blank: it has no words to explain. Give another one.")
    query_words = _word_spans(query, token_spans(encoder, query, "query", len(tokens)))
    explanations = []
    for document, of_document in zip(documents, vectors, strict=True):
        matrix = np.asarray(of_document, np.float32)
        best = explain(tokens, matrix)
        spans = token_spans(encoder, document.text, "document", len(matrix))
        words = _word_spans(document.text, spans)
        weights = np.subtract(best.similarities, _typical_similarities(tokens, matrix))
        matches = [
            WordMatch(query_word, words[token], similarity, weight)
            for query_word, token, similarity, weight in zip(
                query_words, best.tokens.tolist(), best.similarities.tolist(), weights.tolist(), strict=True
            )
        ]
        sentences = sentences_of(document.text)
        scores = score_spans(tokens, matrix, spans_from_characters(sentences, spans)).tolist()
        scored = [
            SentenceScore(start, stop, score)
            for (start, stop), score in zip(sentences, scores, strict=True)
            if math.isfinite(score)
        ]
        explanations.append(TextExplanation(query, document.text, best.score, matches, scored))
    return explanations


def sentence_hits(
    encoder: TextEncoder,
    query: TokenArray,
    documents: list[TextDocument],
    tokens: MultiVectors,
    scores: list[float],
    k: int | None,
    alpha: float,
) -> list[Hit]:
    """Return the `k` best sentences of documents, or all with None.

    `encoder` maps tokens to characters.  `query`, float32 or float16 (query tokens,
    dimension), are the token vectors of the query, `tokens` the token vectors of each
    document, and `scores` the scores of documents.  A sentence's score is its
    similarity plus `alpha` times its document's score.  Raise ValueError for an encoder
    that does not map each token vector to characters.
    """
    sentences = [sentences_of(document.text) for document in documents]
    spans = [
        spans_from_characters(bounds, token_spans(encoder, document.text, "document", len(matrix)))
        for document, bounds, matrix in zip(documents, sentences, tokens, strict=True)
    ]
    hits = []
    k = max(1, sum(map(len, spans))) if k is None else k
    for best in rank_spans(query, tokens, spans, k, alpha=alpha, document_scores=scores):
        document = documents[best.document]
        number = spans[best.document].tolist().index([best.start, best.stop])
        start, stop = sentences[best.document][number]
        parts = {"maxsim": best.span_score, "text": alpha * best.document_score}
        text = document.text[start:stop]
        hits.append(Hit(document.id, best.score, text, document.metadata, parts, (start, stop)))
    return hits


def sentences_of(text: str) -> list[tuple[int, int]]:
    """Return the characters (start, stop) of each sentence of a text.

    Surrounding space is left out.
    """
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


def _typical_similarities(query: TokenArray, document: TokenArray) -> NDArray[np.float32]:
    """Return the similarity of each query token to an average other token.

    This is the mean of two means: over the document's tokens, and over the other tokens
    of the query.
    """
    asked = np.asarray(query, np.float32)
    to_document = asked @ np.asarray(document, np.float32).mean(axis=0)
    to_query = asked @ asked.sum(axis=0) - np.einsum("ij,ij->i", asked, asked)
    return np.asarray((to_document + to_query / max(len(asked) - 1, 1)) / 2, np.float32)


def _word_spans(text: str, spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the word around each token, or the token if it is not inside a word.

    Scripts without spaces have no words.
    """
    words = [match.span() for match in _WORD.finditer(text)]
    starts = [start for start, _ in words]
    widened = []
    for start, stop in spans:
        i = bisect_right(starts, start) - 1
        inside = stop > start and i >= 0 and start < words[i][1]
        widened.append(words[i] if inside else (start, stop))
    return widened
