"""Spans: exact identities with Chamfer, and what is refused."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muvera import MultiVectors, chamfer_matrix
from muvera.reranking.chamfer import chamfer
from muvera.reranking.spans import (
    SpanScore,
    rank_spans,
    score_spans,
    spans_from_characters,
    spans_from_lengths,
    windows,
)

SHAPES = st.tuples(st.integers(1, 20), st.integers(1, 40), st.integers(1, 20), st.integers(0, 2**32 - 1))


def arrays(shape: tuple[int, int, int, int], dtype: Any = np.float32) -> tuple[np.ndarray, np.ndarray]:
    queries, tokens, dimension, seed = shape
    rng = np.random.default_rng(seed)
    return rng.normal(size=(queries, dimension)).astype(np.float32), rng.normal(
        size=(tokens, dimension)
    ).astype(dtype)


@given(SHAPES, st.sampled_from([np.float32, np.float16]))
def test_the_whole_document_is_chamfer_to_the_bit(shape: tuple[int, int, int, int], dtype: Any) -> None:
    query, document = arrays(shape, dtype)
    whole = score_spans(query, document, [[0, len(document)]])[0]
    assert whole == np.float32(chamfer(query, document))
    assert score_spans(query, document, [[0, len(document)]], mean=True)[0] == np.float32(
        chamfer(query, document, mean=True)
    )


@given(SHAPES, st.data())
def test_each_span_is_chamfer_of_its_tokens(shape: tuple[int, int, int, int], data: st.DataObject) -> None:
    query, document = arrays(shape)
    ends = st.integers(0, len(document))
    spans = [sorted(data.draw(st.tuples(ends, ends))) for _ in range(4)]
    for (start, stop), score in zip(spans, score_spans(query, document, spans), strict=True):
        expected = chamfer(query, document[start:stop]) if stop > start else -np.inf
        assert score == np.float32(expected)


@given(SHAPES, st.integers(1, 10))
def test_maxima_of_a_partition_make_the_documents_score(shape: tuple[int, int, int, int], size: int) -> None:
    """S(q, p) = sum over query tokens of the best of all spans: one token at a time, spans add up."""
    query, document = arrays(shape)
    spans = windows(len(document), size, size)
    best = [score_spans(token[np.newaxis], document, spans).max() for token in query]
    assert sum(map(float, best)) == pytest.approx(chamfer(query, document), rel=1e-5, abs=1e-5)


@given(SHAPES)
def test_a_larger_span_scores_no_less_and_sub_queries_add_up(shape: tuple[int, int, int, int]) -> None:
    query, document = arrays(shape)
    spans = [[0, stop] for stop in range(1, len(document) + 1)]
    assert (np.diff(score_spans(query, document, spans)) >= 0).all()
    if len(query) > 1:
        parts = score_spans(query[:1], document, spans) + score_spans(query[1:], document, spans)
        np.testing.assert_allclose(parts, score_spans(query, document, spans), rtol=1e-5, atol=1e-5)


def test_spans_of_documents_compete_with_their_documents_score() -> None:
    query = np.eye(2, dtype=np.float32)
    documents = [np.array(rows, np.float32) for rows in ([[1, 0], [0, 0.5]], [[0.9, 0.9], [0, 0]])]
    spans: list[Any] = [[[0, 1], [1, 2], [2, 2]], [[0, 1], [1, 2]]]
    alone = rank_spans(query, documents, spans, alpha=0.0)
    assert [(span.document, span.start) for span in alone] == [(1, 0), (0, 0), (0, 1), (1, 1)]
    near: Any = pytest.approx(1.8)
    assert alone[0] == SpanScore(1, 0, 1, near, near, near)
    together = rank_spans(query, documents, spans, 2, alpha=1.0)
    assert [span.score for span in together] == pytest.approx([3.6, 2.5])


def test_ties_go_to_the_earlier_document_and_span() -> None:
    document = np.ones((2, 1), np.float32)
    found = rank_spans([[1.0]], [document, document], [[[0, 1], [1, 2]]] * 2)
    assert [(span.document, span.start) for span in found] == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_windows_and_characters() -> None:
    assert windows(0, 3, 1).tolist() == []
    assert windows(2, 3, 1).tolist() == [[0, 2]]
    assert windows(6, 3, 3).tolist() == [[0, 3], [3, 6]]
    assert windows(7, 3, 3).tolist() == [[0, 3], [3, 6], [4, 7]]
    assert spans_from_lengths([]).shape == (0, 2)
    assert spans_from_characters([(0, 3), (3, 4)], [(0, 0), (0, 2), (2, 3)]).tolist() == [[1, 3], [0, 0]]


@pytest.mark.parametrize(
    ("spans", "kind", "message"),
    [
        ([[0, 4]], ValueError, r"spans\[0\] is 0\.\.4, but the document has 3 tokens"),
        ([[0, 1], [-1, 2]], ValueError, r"spans\[1\] is -1\.\.2"),
        ([[2, 1]], ValueError, r"spans\[0\] is 2\.\.1"),
        ([0, 1], TypeError, r"spans must be integers \(m, 2\), start and stop, got int64 \(2,\)"),
        ([[0.0, 1.0]], TypeError, "got float64"),
    ],
)
def test_wrong_spans_are_refused(spans: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        score_spans(np.ones((1, 2)), np.ones((3, 2)), spans)


def test_wrong_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="query has 3 columns, but document has 2"):
        score_spans(np.ones((1, 3)), np.ones((3, 2)), [[0, 1]])
    with pytest.raises(ValueError, match="There are spans of 1 documents for 2 documents"):
        rank_spans(np.ones((1, 2)), [np.ones((1, 2))] * 2, [[[0, 1]]])


def test_known_scores_of_documents_change_nothing() -> None:
    rng = np.random.default_rng(0)
    documents = MultiVectors.from_arrays([rng.normal(size=(n, 8)) for n in (5, 9, 1)])
    query = rng.normal(size=(3, 8))
    spans = [windows(int(n), 3, 2) for n in documents.lengths]
    known = chamfer_matrix([query], documents)[0]
    assert rank_spans(query, documents, spans, 9, document_scores=known) == rank_spans(
        query, documents, spans, 9
    )
    with pytest.raises(ValueError, match="There are 2 document_scores for 3 documents"):
        rank_spans(query, documents, spans, document_scores=known[:2])
    with pytest.raises(ValueError, match=r"spans\[2\]\[0\] is 0..2, but the document has 1 tokens"):
        rank_spans(query, documents, [*spans[:2], np.array([[0, 2]])])
