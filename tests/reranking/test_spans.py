"""Spans: exact identities with Chamfer."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muvera import MultiVectors, chamfer, chamfer_matrix
from muvera.reranking.chamfer import (
    SpanScore,
    rank_spans,
    score_spans,
    spans_from_characters,
)

SHAPES = st.tuples(st.integers(1, 20), st.integers(1, 40), st.integers(1, 20), st.integers(0, 2**32 - 1))


@given(SHAPES, st.sampled_from([np.float32, np.float16]), st.data())
def test_identities_with_chamfer(shape: tuple[int, int, int, int], dtype: Any, data: st.DataObject) -> None:
    queries, tokens, dimension, seed = shape
    rng = np.random.default_rng(seed)
    query = rng.normal(size=(queries, dimension)).astype(np.float32)
    document = rng.normal(size=(tokens, dimension)).astype(dtype)
    ends = st.integers(0, tokens)
    spans = [[0, tokens], *(sorted(data.draw(st.tuples(ends, ends))) for _ in range(3))]
    for (start, stop), score in zip(spans, score_spans(query, document, spans), strict=True):
        expected = chamfer(query, document[start:stop]) if stop > start else -np.inf
        assert score == np.float32(expected)
    growing = [[0, stop] for stop in range(1, tokens + 1)]
    scores = score_spans(query, document, growing)
    assert (np.diff(scores) >= 0).all()
    if queries > 1:
        parts = score_spans(query[:1], document, growing) + score_spans(query[1:], document, growing)
        np.testing.assert_allclose(parts, scores, rtol=1e-5, atol=1e-5)
    # The document's score is the sum over query tokens of the best span of a partition.
    size = data.draw(st.integers(1, 10))
    pieces = [[start, min(start + size, tokens)] for start in range(0, tokens, size)]
    best = [score_spans(token[np.newaxis], document, pieces).max() for token in query]
    assert sum(map(float, best)) == pytest.approx(chamfer(query, document), rel=1e-5, abs=1e-5)


def test_spans_compete_with_the_scores_of_their_documents() -> None:
    query = np.eye(2, dtype=np.float32)
    documents = [np.array(rows, np.float32) for rows in ([[1, 0], [0, 0.5]], [[0.9, 0.9], [0, 0]])]
    spans: list[Any] = [[[0, 1], [1, 2], [2, 2]], [[0, 1], [1, 2]]]
    alone = rank_spans(query, documents, spans, alpha=0.0)
    assert [(span.document, span.start) for span in alone] == [(1, 0), (0, 0), (0, 1), (1, 1)]
    near: Any = pytest.approx(1.8)
    assert alone[0] == SpanScore(1, 0, 1, near, near, near)
    together = rank_spans(query, documents, spans, 2, alpha=1.0)
    assert [span.score for span in together] == pytest.approx([3.6, 2.5])
    ties = rank_spans([[1.0]], [np.ones((2, 1))] * 2, [[[0, 1], [1, 2]]] * 2)
    assert [(span.document, span.start) for span in ties] == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_known_scores_of_documents_change_nothing() -> None:
    rng = np.random.default_rng(0)
    documents = MultiVectors.from_arrays([rng.normal(size=(n, 8)) for n in (5, 9, 1)])
    query = rng.normal(size=(3, 8))
    spans = [[[i, i + 1] for i in range(n)] for n in documents.lengths]
    known = chamfer_matrix([query], documents)[0]
    expected = rank_spans(query, documents, spans, 9)
    assert rank_spans(query, documents, spans, 9, document_scores=known) == expected


def test_spans_from_characters() -> None:
    assert spans_from_characters([(0, 3), (3, 4)], [(0, 0), (0, 2), (2, 3)]).tolist() == [[1, 3], [0, 0]]


ONE = np.ones((1, 2))


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda: score_spans(ONE, np.ones((3, 2)), [[0, 4]]), ValueError, r"spans\[0\] is 0\.\.4.* 3 "),
        (lambda: score_spans(ONE, np.ones((3, 2)), [0, 1]), TypeError, r"int64 \(2,\)"),
        (
            lambda: score_spans(np.ones((1, 3)), np.ones((3, 2)), [[0, 1]]),
            ValueError,
            "3 columns.*dimension=2",
        ),
        (lambda: rank_spans(ONE, [ONE] * 2, [[[0, 1]]]), ValueError, "got 1 for 2 documents"),
        (lambda: rank_spans(ONE, [ONE] * 2, [[[0, 1]]] * 2, document_scores=[1.0]), ValueError, "1 .* 2 doc"),
        (lambda: rank_spans(ONE, [ONE], [[[0, 2]]]), ValueError, r"spans\[0\]\[0\] is 0\.\.2.* 1 "),
    ],
)
def test_bad_input(call: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        call()
