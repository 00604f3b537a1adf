"""Sparse and dense vectors of documents as first stages."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from muvera import DenseVectors, SparseVectors

TERMS = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d", 1, 2]), st.integers(-4, 4).map(float), max_size=4
)


@settings(max_examples=50)
@given(st.lists(TERMS, min_size=1, max_size=8), st.lists(TERMS, min_size=1, max_size=4), st.integers(1, 10))
def test_sparse_scores_are_sums_over_shared_terms(
    documents: list[dict[Any, float]], queries: list[dict[Any, float]], k: int
) -> None:
    found = SparseVectors(documents).search(queries, k)
    for query, ranking in zip(queries, found, strict=True):
        sharing = {
            i: score
            for i, document in enumerate(documents)
            if (score := sum(query[term] * document[term] for term in query.keys() & document.keys()))
        }
        expected = sorted(sharing, key=lambda i: -sharing[i])[:k]
        assert ranking.ids.tolist() == expected
        assert ranking.scores.tolist() == [sharing[i] for i in expected]


@pytest.mark.parametrize("form", ["csr_array", "csc_matrix", "coo_array", "dok_array"])
def test_any_sparse_matrix_and_batches_give_the_same_bits(form: str) -> None:
    rng = np.random.default_rng(0)
    dense = rng.random((40, 30)) * (rng.random((40, 30)) < 0.2)
    asked = rng.random((5, 30)) * (rng.random((5, 30)) < 0.2)
    ids = [f"d{i}" for i in range(40)]
    vectors = SparseVectors(getattr(sparse, form)(dense), ids)
    assert len(vectors) == 40
    together = vectors.search(sparse.csr_array(asked), 10)
    scores = asked @ dense.T
    for i, ranking in enumerate(together):
        alone = vectors.search(sparse.csr_array(asked[i : i + 1]), 10)[0]
        assert list(alone) == list(ranking)
        assert ranking.scores == pytest.approx(sorted(scores[i][scores[i] > 0], reverse=True)[:10], rel=1e-6)


def test_dense_vectors_are_searched_exactly() -> None:
    rng = np.random.default_rng(0)
    documents, queries = rng.normal(size=(50, 7)), rng.normal(size=(4, 7))
    ids = [f"d{i}" for i in range(50)]
    found = DenseVectors(documents, ids).search(queries, 9)
    for query, ranking in zip(queries, found, strict=True):
        best = np.argsort(-(documents @ query))[:9]
        assert ranking.ids.tolist() == [ids[i] for i in best]
        assert ranking.scores == pytest.approx(documents[best] @ query, abs=1e-5)
    assert len(DenseVectors(documents).search(queries[:1], 500)[0]) == 50


def test_no_documents_and_no_queries() -> None:
    assert [len(one) for one in SparseVectors([]).search([{"a": 1.0}])] == [0]
    assert SparseVectors([{"a": 1.0}]).search([]) == []
    assert [len(one) for one in DenseVectors(np.empty((0, 3))).search(np.ones((1, 3)))] == [0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SparseVectors("text"), "sequence of mappings of term to weight, got str"),
        (lambda: SparseVectors({"a": 1.0}), "sequence of mappings of term to weight, got dict"),
        (
            lambda: SparseVectors([{"a": 1.0}, ["a"]]),
            r"documents\[1\] must be a mapping of term to weight, got list",
        ),
        (lambda: SparseVectors([{1.5: 1.0}]), r"documents\[0\] has the term 1.5"),
        (lambda: SparseVectors([{"a": 1.0}, {"a": float("nan")}]), r"documents\[1\] has the weight nan"),
        (lambda: SparseVectors([{"a": 1.0}], ids=["x", "y"]), "2 entries for 1 texts"),
        (lambda: SparseVectors([{"a": 1.0}] * 2, ids=["x", "x"]), "x"),
        (
            lambda: SparseVectors(sparse.csr_array(np.eye(3))).search(sparse.csr_array(np.eye(2))),
            "queries have 2 columns, but these documents have 3 terms",
        ),
        (lambda: SparseVectors(sparse.csr_array(np.eye(3))).search([{0: 1.0}]), "must be a sparse matrix"),
        (lambda: SparseVectors([{"a": 1.0}]).search([{"a": 1.0}], 0), "k"),
        (lambda: DenseVectors([1.0, 2.0]), r"shape \(n, dimension\), one row each, got \(2,\)"),
        (lambda: DenseVectors([[1.0, np.inf]]), r"documents\[0\] has a NaN or an infinity"),
        (
            lambda: DenseVectors([[1.0, 2.0]]).search([[1.0]]),
            r"queries must have shape \(n, 2\), got \(1, 1\)",
        ),
    ],
)
def test_what_is_refused(make: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        make()
