"""Exact Chamfer: the oracle, ranking properties, and bits that depend on nothing else.

Spans, and carved queries.
"""

import sys
from typing import Any

import numpy as np
import oracle
import pytest
import strategies as some
from hypothesis import given, settings
from hypothesis import strategies as st

from muvera import MultiVectors, chamfer, chamfer_matrix, explain, rerank, top_k
from muvera.reranking.chamfer import SpanScore, carve_queries, rank_spans, score_spans, spans_from_characters

# At most 70 products, with as many float32 roundings, relative to the size of the
# terms.
ROUNDING = 1e-5

#: The module; the function of the same name hides it.
module = sys.modules["muvera.reranking.chamfer"]


@st.composite
def pairs(draw: st.DrawFn) -> tuple[MultiVectors, MultiVectors]:
    """Queries with tokens, and documents of any kind."""
    dimension = draw(some.dimensions)
    queries = draw(st.lists(some.token_arrays(dimension, least=1), min_size=1, max_size=4))
    return MultiVectors.from_arrays(queries, dtype=draw(some.dtypes)), draw(some.multivectors(dimension))


def sample(seed: int, lengths: Any, dimension: int = 24) -> MultiVectors:
    tokens = np.random.default_rng(seed).standard_normal((int(np.sum(lengths)), dimension))
    return MultiVectors.from_flat(tokens.astype(np.float32), lengths)


@given(pairs())
def test_matrix_equals_the_oracle(both: tuple[MultiVectors, MultiVectors]) -> None:
    queries, documents = both
    scores = chamfer_matrix(queries, documents)
    assert scores.dtype == np.float32 and scores.shape == (len(queries), len(documents))
    for q, query in enumerate(queries):
        for p, document in enumerate(documents):
            if len(document) == 0:
                assert scores[q, p] == -np.inf
                continue
            size = np.linalg.norm(query, axis=1).sum() * np.linalg.norm(document, axis=1).max()
            assert scores[q, p] == pytest.approx(oracle.chamfer(query, document), abs=float(ROUNDING * size))


@given(pairs(), st.data())
def test_bits_depend_on_the_values_of_both_texts_alone(
    both: tuple[MultiVectors, MultiVectors], data: st.DataObject
) -> None:
    queries, documents = both
    scores = chamfer_matrix(queries, documents, threads=2)
    np.testing.assert_array_equal(scores, chamfer_matrix(queries, documents, threads=1))
    order = data.draw(st.permutations(range(len(documents))))
    np.testing.assert_array_equal(scores[:, order], chamfer_matrix(queries, documents[order]))
    for q, query in enumerate(queries):
        for p, document in enumerate(documents):
            if len(document):
                one, other = (data.draw(some.disguised(text)) for text in (query, document))
                assert chamfer(query, document) == chamfer(one, other.astype(np.float64)) == scores[q, p]


def test_block_sizes_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, documents = sample(2, [5, 1, 20, 3, 3]), sample(3, [9, 0, 31, 2, 16, 1])
    scores, rankings = chamfer_matrix(queries, documents), top_k(queries, documents, 3)
    for name, value in (("_QUERY_TOKENS", 4), ("_TASK_TOKENS", 3), ("_HELD_SCORES", 7)):
        monkeypatch.setattr(module, name, value)
    np.testing.assert_array_equal(chamfer_matrix(queries, documents, threads=2), scores)
    for small, whole in zip(top_k(queries, documents, 3, threads=2), rankings, strict=True):
        assert list(small) == list(whole)


@given(pairs(), st.data())
def test_rankings_are_sorted_by_score_then_position(
    both: tuple[MultiVectors, MultiVectors], data: st.DataObject
) -> None:
    queries, documents = both
    positions = st.lists(st.integers(0, len(documents) - 1), max_size=8)
    candidates = [data.draw(positions) for _ in queries]
    k = data.draw(st.integers(1, len(documents) + 3))
    scores = chamfer_matrix(queries, documents)

    def expected(row: np.ndarray, chosen: Any) -> list[int]:
        return sorted((i for i in set(chosen) if row[i] > -np.inf), key=lambda i: (-row[i], i))[:k]

    reranked = rerank(queries, documents, candidates, k, threads=data.draw(st.sampled_from([1, 2])))
    for row, chosen, best, ordered in zip(
        scores, candidates, top_k(queries, documents, k), reranked, strict=True
    ):
        for ranking, rows in ((best, range(len(documents))), (ordered, chosen)):
            ids = expected(row, rows)
            assert ranking.ids.tolist() == ids and ranking.scores.tolist() == row[ids].tolist()


def test_ties_go_to_the_earlier_document() -> None:
    document = [[1.0, 2.0], [0.5, 0.0]]
    documents = MultiVectors.from_arrays([[[0.0, 0.0]], *[document] * 5], ids=list("zedcba"))
    query = np.ones((1, 2))
    assert rerank(query, documents, [["a", "b", "z"]])[0].ids.tolist() == ["b", "a", "z"]
    assert rerank(query, documents.with_ids(range(10, 16)), [[15, 14, 10]])[0].ids.tolist() == [14, 15, 10]


NO_TEXTS = MultiVectors.from_arrays([], dimension=24)
TWO_TEXTS = sample(6, [2, 3])


def test_no_queries_have_no_rankings() -> None:
    assert top_k(NO_TEXTS, TWO_TEXTS, 1) == [] and rerank(NO_TEXTS, TWO_TEXTS, []) == []
    assert top_k([], TWO_TEXTS, 1) == [] and rerank([], TWO_TEXTS, []) == []
    assert chamfer_matrix(NO_TEXTS, TWO_TEXTS).shape == (0, 2)


def test_no_documents_have_empty_rankings() -> None:
    assert [len(row) for row in top_k(TWO_TEXTS, NO_TEXTS, 3)] == [0, 0]
    assert [len(row) for row in top_k(TWO_TEXTS, [], 3)] == [0, 0] and top_k([], [], 3) == []
    assert chamfer_matrix(TWO_TEXTS, NO_TEXTS).shape == (2, 0)
    assert len(rerank(sample(5, [3]), TWO_TEXTS, [[]])[0]) == 0


def test_texts_without_tokens_find_nothing_and_are_not_found() -> None:
    queries = [TWO_TEXTS[0], np.empty((0, 24)), TWO_TEXTS[1]]
    for rankings in (top_k(queries, TWO_TEXTS, 3), rerank(queries, TWO_TEXTS, [[0, 1]] * 3, 3)):
        assert [len(row) for row in rankings] == [2, 0, 2]
    assert rerank(sample(5, [3]), sample(4, [0, 2, 0, 5]), [[0, 2]])[0].ids.tolist() == []


@settings(max_examples=15)
@given(st.data())
def test_explain_adds_up_to_the_score(data: st.DataObject) -> None:
    dimension, dtype = data.draw(some.dimensions), data.draw(some.dtypes)
    query, document = (
        data.draw(some.token_arrays(dimension, least=1, most=40)).astype(dtype) for _ in range(2)
    )
    explanation = explain(query, document)
    assert explanation.score == chamfer(query, document)
    for q, (token, similarity) in enumerate(zip(explanation.tokens, explanation.similarities, strict=True)):
        assert similarity == chamfer(query[q : q + 1], document[token : token + 1])
        assert similarity == max(chamfer(query[q : q + 1], row[np.newaxis]) for row in document)
        equal = [i for i, row in enumerate(document) if (row == document[token]).all()]
        assert token == equal[0]


# -- spans --------------------------------------------------------------------

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
    known = chamfer_matrix([query], documents)[0]
    assert rank_spans(query, documents, spans, 2, document_scores=known) == together
    characters: Any = [(0, 3), (3, 4)], [(0, 0), (0, 2), (2, 3)]
    assert spans_from_characters(*characters).tolist() == [[1, 3], [0, 0]]
    ties = rank_spans([[1.0]], [np.ones((2, 1))] * 2, [[[0, 1], [1, 2]]] * 2)
    assert [(span.document, span.start) for span in ties] == [(0, 0), (0, 1), (1, 0), (1, 1)]


# -- carved queries -----------------------------------------------------------


def carved_by_hand(tokens: np.ndarray, tau: float) -> list[np.ndarray]:
    """The paper's greedy carving, with cosines for inner products."""
    waiting = [token.astype(np.float64) for token in tokens]
    sums = []
    while waiting:
        center = waiting.pop(0)
        total, left = center.copy(), []
        for token in waiting:
            lengths = np.linalg.norm(center) * np.linalg.norm(token)
            if lengths > 0 and center @ token / lengths >= tau:
                total += token
            else:
                left.append(token)
        sums.append(total)
        waiting = left
    return sums


@given(st.data(), st.sampled_from([0.05, 0.3, 0.7, 0.95]))
def test_balls_are_carved_greedily(data: st.DataObject, tau: float) -> None:
    dimension = data.draw(some.dimensions)
    # In one dimension all cosines are 1 or -1, and duplicates have 1: no cosine is near
    # `tau`.
    queries = [data.draw(some.token_arrays(dimension)) for _ in range(data.draw(st.integers(1, 4)))]
    carved = carve_queries(MultiVectors.from_arrays(queries, dimension=dimension, dtype=np.float32), tau)
    assert carved.tokens.dtype == np.float32
    for actual, tokens in zip(carved, queries, strict=True):
        expected = np.array(carved_by_hand(tokens, tau), np.float32).reshape(-1, dimension)
        np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6)


def test_tau_1_merges_only_equal_directions_and_no_zeros() -> None:
    tokens = np.array([[3.0, 4.0], [0.0, 0.0], [-3.0, -4.0], [3.0, 4.0], [0.3, 0.4], [0.0, 0.0]])
    expected = np.array([[6.3, 8.4], [0, 0], [-3, -4], [0, 0]], np.float32)
    np.testing.assert_allclose(carve_queries(tokens, 1.0)[0], expected, rtol=1e-6)
    distinct = np.random.default_rng(0).standard_normal((9, 12)).astype(np.float16)
    np.testing.assert_array_equal(carve_queries(distinct, 1)[0], distinct.astype(np.float32))


def test_ids_and_queries_without_tokens_stay() -> None:
    queries = MultiVectors.from_arrays([np.ones((4, 3)), np.ones((0, 3))], ids=["a", "b"])
    carved = carve_queries(queries, 0.7)
    assert carved.ids.tolist() == ["a", "b"] and carved.lengths.tolist() == [1, 0]
    assert carved[0].tolist() == [[4.0, 4.0, 4.0]]
    assert not carve_queries(MultiVectors.from_flat(queries.tokens, queries.lengths), 0.7).has_ids


# -- bad input ----------------------------------------------------------------

GOOD = MultiVectors.from_arrays([np.ones((2, 3)), np.ones((1, 3))])
ONE, NAMED = np.ones((1, 2)), GOOD.with_ids(["a", "b"])


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda: chamfer(np.ones((0, 3)), GOOD[0]), ValueError, r"query.*\(0, 3\)"),
        (lambda: chamfer(GOOD, GOOD[0]), ValueError, "query.*2 texts"),  # type: ignore[arg-type]
        (lambda: chamfer(np.ones((1, 4)), GOOD[0]), ValueError, "4 columns.*dimension=3"),
        (lambda: chamfer_matrix([np.ones((1, 3)), np.ones((0, 3))], GOOD), ValueError, r"queries\[1\]"),
        (lambda: chamfer([[1.0, np.nan, 0.0]], GOOD[0]), ValueError, "nan in its token 0, coordinate 1"),
        (lambda: top_k(GOOD, GOOD, 0), ValueError, "k .*0"),
        (lambda: top_k(GOOD, GOOD, 1, threads=0), ValueError, "threads .*0"),
        (lambda: rerank(GOOD, GOOD, [[0]]), ValueError, "1 .* 2"),
        (lambda: rerank(GOOD, GOOD, [[0], [1, 2]]), ValueError, r"candidates\[1\].* 2.* 2"),
        (lambda: rerank(GOOD, GOOD, [[-1], [1]]), ValueError, r"candidates\[0\].* -1"),
        (lambda: rerank(GOOD, NAMED, [["a"], ["b", "c"]]), ValueError, r"candidates\[1\].*'c'"),
        (lambda: score_spans(ONE, np.ones((3, 2)), [[0, 4]]), ValueError, r"spans\[0\] is 0\.\.4.* 3 "),
        (lambda: score_spans(ONE, np.ones((3, 2)), [0, 1]), TypeError, r"int64 \(2,\)"),
        (lambda: score_spans(GOOD[0], ONE, [[0, 1]]), ValueError, "3 columns.*dimension=2"),
        (lambda: rank_spans(ONE, [ONE] * 2, [[[0, 1]]]), ValueError, "got 1 for 2 documents"),
        (lambda: rank_spans(ONE, [ONE] * 2, [[[0, 1]]] * 2, document_scores=[1.0]), ValueError, "1 .* 2 doc"),
        (lambda: rank_spans(ONE, [ONE], [[[0, 2]]]), ValueError, r"spans\[0\]\[0\] is 0\.\.2.* 1 "),
        (lambda: carve_queries(GOOD, 1.5), ValueError, "tau .*1.5"),
        (lambda: carve_queries(GOOD, True), TypeError, "tau .*bool"),
    ],
)
def test_bad_input(call: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        call()
