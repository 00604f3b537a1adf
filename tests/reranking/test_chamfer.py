"""Exact Chamfer: the oracle, ranking properties, and bits that depend on nothing else."""

import sys
from typing import Any

import numpy as np
import oracle
import pytest
import strategies as some
from hypothesis import given, settings
from hypothesis import strategies as st

from muvera import MultiVectors, chamfer, chamfer_matrix, explain, rerank, top_k

# At most 70 products, with as many float32 roundings, relative to the size of the terms.
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
    assert top_k(query, documents, 3)[0].ids.tolist() == ["e", "d", "c"]
    assert rerank(query, documents, [["a", "b", "z"]])[0].ids.tolist() == ["b", "a", "z"]
    assert rerank(query, documents.with_ids(range(10, 16)), [[15, 14, 10]])[0].ids.tolist() == [14, 15, 10]


def test_no_queries_no_documents_and_no_tokens() -> None:
    none, documents = MultiVectors.from_arrays([], dimension=24), sample(6, [2, 3])
    assert top_k(none, documents, 1) == [] and rerank(none, documents, []) == []
    assert top_k([], documents, 1) == [] and rerank([], documents, []) == []
    assert [len(row) for row in top_k(documents, none, 3)] == [0, 0]
    assert [len(row) for row in top_k(documents, [], 3)] == [0, 0] and top_k([], [], 3) == []
    queries = [documents[0], np.empty((0, 24)), documents[1]]
    for rankings in (top_k(queries, documents, 3), rerank(queries, documents, [[0, 1]] * 3, 3)):
        assert [len(row) for row in rankings] == [2, 0, 2]
    assert chamfer_matrix(none, documents).shape == (0, 2)
    assert chamfer_matrix(documents, none).shape == (2, 0)
    assert rerank(sample(5, [3]), sample(4, [0, 2, 0, 5]), [[0, 2]])[0].ids.tolist() == []
    assert len(rerank(sample(5, [3]), documents, [[]])[0]) == 0


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


GOOD = MultiVectors.from_arrays([np.ones((2, 3)), np.ones((1, 3))])
NAMED = GOOD.with_ids(["a", "b"])


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda: chamfer(np.ones((0, 3)), GOOD[0]), ValueError, r"query.*\(0, 3\)"),
        (lambda: chamfer(GOOD, GOOD[0]), ValueError, "query.*2 texts"),
        (lambda: chamfer(np.ones((1, 4)), GOOD[0]), ValueError, "4 columns.*dimension=3"),
        (lambda: chamfer_matrix([np.ones((1, 3)), np.ones((0, 3))], GOOD), ValueError, r"queries\[1\]"),
        (lambda: chamfer([[1.0, np.nan, 0.0]], GOOD[0]), ValueError, "nan in its token 0, coordinate 1"),
        (lambda: top_k(GOOD, GOOD, 0), ValueError, "k .*0"),
        (lambda: top_k(GOOD, GOOD, 1, threads=0), ValueError, "threads .*0"),
        (lambda: rerank(GOOD, GOOD, [[0]]), ValueError, "1 .* 2"),
        (lambda: rerank(GOOD, GOOD, [[0], [1, 2]]), ValueError, r"candidates\[1\].* 2.* 2"),
        (lambda: rerank(GOOD, GOOD, [[-1], [1]]), ValueError, r"candidates\[0\].* -1"),
        (lambda: rerank(GOOD, NAMED, [["a"], ["b", "c"]]), ValueError, r"candidates\[1\].*'c'"),
    ],
)
def test_bad_input(call: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        call()
