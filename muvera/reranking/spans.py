"""Chamfer similarity of spans: sentences, windows, any range of a document's tokens (AGRaME, arXiv 2405.15028).

A document is encoded once; a span is a range of its token vectors.  Its score is the Chamfer similarity of the
query with these tokens alone, ``sum_i max_{start <= r < stop} <q_i, p_r>``.  Spans of different documents
are compared by ``score(span) + alpha * score(document)``: the document's score shows whether the context matches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors, as_multivectors, checked_text
from ..data.validation import as_array
from ..utils.checks import require_int
from .chamfer import score_texts


@dataclass(frozen=True)
class SpanScore:
    """One of the best spans.

    Parameters
    ----------
    document : int
        Position of its document.
    start, stop : int
        Its tokens within the document.
    score : float
        Score of the span plus alpha times that of the document; spans are ranked by it.
    span_score, document_score : float
        Chamfer similarities of the query with the span and with the whole document.
    """

    document: int
    start: int
    stop: int
    score: float
    span_score: float
    document_score: float


def score_spans(query: Any, document: Any, spans: Any) -> NDArray[np.float32]:
    """Return the Chamfer similarity of one query with each span of one document.

    Parameters
    ----------
    query : array_like (n_query_tokens, dimension)
        All or some token vectors of a query; the scores of its parts add up to its score.
    document : array_like (n_document_tokens, dimension)
    spans : int (m, 2)
        Start and stop of each span, in tokens.  Spans may overlap and leave gaps.

    Returns
    -------
    float32 (m,)
        Sums over query tokens; -inf for an empty span.

    Raises
    ------
    TypeError, ValueError
        If `spans` have another shape or exceed the document.

    Examples
    --------
    >>> score_spans([[1.0, 0.0]], [[0.5, 0.0], [0.75, 0.0], [1.0, 0.0]], [[0, 2], [2, 3]])
    array([0.75, 1.  ], dtype=float32)
    """
    queries, documents = checked_text(query, "query"), checked_text(document, "document")
    queries.require_dimension(documents.dimension, "query", "document")
    bounds = _as_spans(spans, "spans")
    _require_within(bounds, np.full(len(bounds), documents.num_tokens), lambda i: f"spans[{i}]")
    return _scores(queries, documents, bounds)


def rank_spans(
    query: Any,
    documents: Any,
    spans: Sequence[Any],
    k: int = 10,
    *,
    alpha: float = 1.0,
    document_scores: Any = None,
) -> list[SpanScore]:
    """Return the `k` best spans of several documents for one query.

    Parameters
    ----------
    query : array_like (n_query_tokens, dimension)
    documents : MultiVectors or a list of arrays
        For example, the best documents of a search.
    spans : sequence of int (m, 2) arrays
        Spans of each document.
    k : int
        Largest number of spans to return.
    alpha : float
        Weight of the document's score; 0 compares spans alone.
    document_scores : float (n,), optional
        Chamfer similarities of the documents, if known; this saves half of the time.

    Returns
    -------
    list of SpanScore
        Best first; ties go to the earlier document, then to the earlier span.  Empty spans are never
        returned.

    Raises
    ------
    TypeError, ValueError
        If the number of span collections differs from that of documents, or a span exceeds its document.
    """
    texts = as_multivectors(documents, "documents")
    queries = checked_text(query, "query")
    require_int("k", k, 1)
    if len(spans) != len(texts):
        raise ValueError(
            f"spans must have one array per document, got {len(spans)} for {len(texts)} documents."
        )
    if document_scores is not None and len(document_scores) != len(texts):
        raise ValueError(
            f"document_scores must have one score per document, got {len(document_scores)} for {len(texts)} documents."
        )
    if not len(texts):
        return []
    queries.require_dimension(texts.dimension, "query", "documents")
    texts.require_finite("documents")
    arrays = [_as_spans(own, f"spans[{i}]") for i, own in enumerate(spans)]
    bounds = np.concatenate(arrays)
    counts = [len(own) for own in arrays]
    owners = np.repeat(np.arange(len(arrays)), counts)
    _require_within(
        bounds, texts.lengths[owners], lambda i: f"spans[{owners[i]}][{i - sum(counts[: owners[i]])}]"
    )
    scores = _scores(queries, texts, bounds + texts.offsets[owners][:, np.newaxis]).astype(np.float64)
    if document_scores is None:
        document_scores = _scores(queries, texts, np.stack([texts.offsets[:-1], texts.offsets[1:]], axis=1))
    of_documents = np.asarray(document_scores, np.float64)
    filled = bounds[:, 1] > bounds[:, 0]
    totals = np.full(len(bounds), -np.inf)
    totals[filled] = scores[filled] + alpha * of_documents[owners[filled]]
    order = np.argsort(-totals, kind="stable")[: min(k, int(filled.sum()))]
    best = []
    for i in order.tolist():
        (start, stop), owner = bounds[i].tolist(), int(owners[i])
        best.append(
            SpanScore(owner, start, stop, float(totals[i]), float(scores[i]), float(of_documents[owner]))
        )
    return best


def spans_from_characters(
    ranges: Sequence[tuple[int, int]], token_spans: Sequence[tuple[int, int]]
) -> NDArray[np.int64]:
    """Return the tokens within ranges of characters, int64 (m, 2).

    Parameters
    ----------
    ranges : sequence of (start, stop)
        Characters of the text, for example its sentences.
    token_spans : sequence of (start, stop)
        Characters of each token vector, ascending, as
        :meth:`muvera.texts.encoders.base.TextEncoder.token_spans` returns them; start == stop for tokens
        without characters such as [CLS], which belong to no span.

    Returns
    -------
    int64 (m, 2)
        The tokens that begin within each range; (0, 0) if there are none.

    Examples
    --------
    >>> spans_from_characters([(0, 5), (6, 9)], [(0, 0), (0, 2), (3, 5), (6, 9), (0, 0)]).tolist()
    [[1, 3], [3, 4]]
    """
    spans = []
    for start, stop in ranges:
        inside = [i for i, (a, b) in enumerate(token_spans) if b > a and start <= a < stop]
        spans.append((inside[0], inside[-1] + 1) if inside else (0, 0))
    return np.array(spans, np.int64).reshape(-1, 2)


def _scores(queries: MultiVectors, documents: MultiVectors, bounds: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the scores of one query with ranges of the documents' tokens, float32 (m,)."""
    # Text i has the tokens from offsets[i] to offsets[i + 1]: every second text is a span.
    spans = 2 * np.arange(len(bounds))
    return score_texts(queries, documents, bounds.reshape(-1), spans, 1)[:, 0]


def _as_spans(spans: Any, name: str) -> NDArray[np.int64]:
    array = as_array(spans, name)
    if array.size == 0:
        array = np.empty((0, 2), np.int64)
    if array.dtype.kind not in "iu" or array.ndim != 2 or array.shape[1] != 2:
        raise TypeError(f"{name} must be integers (m, 2), start and stop, got {array.dtype} {array.shape}.")
    return np.ascontiguousarray(array, np.int64)


def _require_within(bounds: NDArray[np.int64], tokens: NDArray[np.int64], name: Callable[[int], str]) -> None:
    """Raise ValueError unless each span lies within its document, which has `tokens` tokens."""
    wrong = np.flatnonzero((bounds[:, 0] < 0) | (bounds[:, 1] < bounds[:, 0]) | (bounds[:, 1] > tokens))
    if len(wrong):
        i = int(wrong[0])
        start, stop = bounds[i].tolist()
        raise ValueError(
            f"{name(i)} is {start}..{stop}, but must lie within the document's {tokens[i]} tokens."
        )
