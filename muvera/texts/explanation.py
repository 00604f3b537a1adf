"""Why a text was found: which of its words answered which words of the query."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..reranking.chamfer import explain
from ..reranking.spans import score_spans, spans_from_characters
from .sentences import sentences_of, words_of

__all__ = ["SentenceScore", "TextExplanation", "WordMatch", "explain_texts"]


@dataclass(frozen=True)
class WordMatch:
    """What answered one token of the query.

    Parameters
    ----------
    query : (start, stop)
        Characters of the query; start == stop for a token of no character.
    document : (start, stop)
        Characters of the word of the document that its best token belongs to.
    similarity : float
        Inner product of the two token vectors; these add up to the score.
    """

    query: tuple[int, int]
    document: tuple[int, int]
    similarity: float


@dataclass(frozen=True)
class SentenceScore:
    """Chamfer similarity of the query with one sentence of the document.

    Parameters
    ----------
    start, stop : int
        Characters.
    score : float
    """

    start: int
    stop: int
    score: float


@dataclass(frozen=True)
class TextExplanation:
    """Matches of a query with a text; shows itself in a notebook.

    Parameters
    ----------
    query, text : str
    score : float
        Chamfer similarity, the sum of the matches' similarities.
    matches : list of WordMatch
        One for each token of the query, in order.
    sentences : list of SentenceScore
        In the order of the text.
    """

    query: str
    text: str
    score: float
    matches: list[WordMatch]
    sentences: list[SentenceScore]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as values of JSON."""
        return asdict(self)

    def weights(self) -> dict[tuple[int, int], float]:
        """Return how much of the score each word of the text answered for, by its characters."""
        found: dict[tuple[int, int], float] = {}
        for match in self.matches:
            if match.document[1] > match.document[0]:
                found[match.document] = found.get(match.document, 0.0) + max(0.0, match.similarity)
        return found

    def to_html(self) -> str:
        """Return the text as HTML, its words shaded by what they answered; everything is escaped."""
        weights = self.weights()
        most = max(weights.values(), default=1.0) or 1.0
        parts, at = [], 0
        for (start, stop), weight in sorted(weights.items()):
            asked = ", ".join(
                dict.fromkeys(
                    self.query[a:b] for match in self.matches if match.document == (start, stop)
                    for a, b in [match.query] if b > a
                )
            )  # fmt: skip
            parts.append(html.escape(self.text[at:start]))
            parts.append(
                f'<mark style="background:rgba(255,170,0,{0.15 + 0.65 * weight / most:.2f});color:inherit" '
                f'title="{html.escape(asked)} {weight:.2f}">{html.escape(self.text[start:stop])}</mark>'
            )
            at = stop
        parts.append(html.escape(self.text[at:]))
        return f'<p style="white-space:pre-wrap">{"".join(parts)}</p>'

    def _repr_html_(self) -> str:
        return self.to_html()


def explain_texts(
    query: str,
    text: str,
    query_tokens: NDArray[Any],
    document_tokens: NDArray[Any],
    query_spans: Sequence[tuple[int, int]],
    document_spans: Sequence[tuple[int, int]],
) -> TextExplanation:
    """Match the tokens of a query with those of a text, and widen them to words.

    Parameters
    ----------
    query, text : str
    query_tokens, document_tokens : float (n, dimension)
    query_spans, document_spans : sequence of (start, stop)
        Characters of each token.

    Returns
    -------
    TextExplanation
    """
    found = explain(query_tokens, document_tokens)
    query_words, document_words = _widened(query, query_spans), _widened(text, document_spans)
    matches = [
        WordMatch(query_words[i], document_words[best], similarity)
        for i, (best, similarity) in enumerate(
            zip(found.tokens.tolist(), found.similarities.tolist(), strict=True)
        )
    ]
    sentences = sentences_of(text)
    scores = score_spans(query_tokens, document_tokens, spans_from_characters(sentences, document_spans))
    scored = [
        SentenceScore(start, stop, score)
        for (start, stop), score in zip(sentences, scores.tolist(), strict=True)
        if np.isfinite(score)
    ]
    return TextExplanation(query, text, found.score, matches, scored)


def _widened(text: str, spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the word that each token lies in, or the token itself where no word has it."""
    words = words_of(text)
    starts = np.array([start for start, _ in words], np.int64)
    found = []
    for start, stop in spans:
        at = int(np.searchsorted(starts, start, side="right")) - 1
        inside = stop > start and at >= 0 and start < words[at][1]
        found.append(words[at] if inside else (start, stop))
    return found
