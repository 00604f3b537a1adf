"""SparseVectors: scores, forms of documents, and bad input."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from muvera import MultiVectors, MuveraIndex, SparseVectors, hybrid_search
from muvera.reranking.sparse import COILVectors

TERMS = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d", 1, 2]), st.integers(-4, 4).map(float), max_size=4
)


@given(st.lists(TERMS, min_size=1, max_size=8), st.lists(TERMS, min_size=1, max_size=4), st.integers(1, 10))
def test_a_score_is_the_sum_over_shared_terms(
    documents: list[dict[Any, float]], queries: list[dict[Any, float]], k: int
) -> None:
    found = SparseVectors(documents).search(queries, k)
    for query, ranking in zip(queries, found, strict=True):
        scores = {
            i: score
            for i, document in enumerate(documents)
            if (score := sum(query[term] * document[term] for term in query.keys() & document.keys()))
        }
        best = sorted(scores, key=lambda i: -scores[i])[:k]
        assert ranking.ids.tolist() == best
        assert ranking.scores.tolist() == [scores[i] for i in best]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(-3, 3)), min_size=1, max_size=8))
def test_the_largest_weight_of_repeated_terms_counts(pairs: list[tuple[str, int]]) -> None:
    largest = {term: max(weight for other, weight in pairs if other == term) for term, _ in pairs}
    vectors = SparseVectors([pairs, [("z", 1.0)]])
    for term, weight in largest.items():
        (ranking,) = vectors.search([{term: 2.0}])
        assert dict(ranking) == ({0: 2.0 * weight} if weight else {})


@pytest.mark.parametrize("form", ["csr_array", "csc_matrix", "coo_array", "dok_array"])
def test_any_sparse_matrix_gives_the_same_bits_alone_and_in_batches(form: str) -> None:
    rng = np.random.default_rng(0)
    dense = rng.random((40, 30)) * (rng.random((40, 30)) < 0.2)
    asked = rng.random((5, 30)) * (rng.random((5, 30)) < 0.2)
    vectors = SparseVectors(getattr(sparse, form)(dense), [f"d{i}" for i in range(40)])
    scores = asked @ dense.T
    for i, ranking in enumerate(vectors.search(sparse.csr_array(asked), 10)):
        assert list(vectors.search(sparse.csr_array(asked[i : i + 1]), 10)[0]) == list(ranking)
        assert ranking.scores == pytest.approx(sorted(scores[i][scores[i] > 0], reverse=True)[:10], rel=1e-6)


def test_sparse_rankings_are_a_source_of_hybrid_search() -> None:
    index = MuveraIndex.build([[[1.0, 0.0]], [[0.0, 1.0]]], ids=["x", "y"])
    words = SparseVectors([{"a": 1.0}, {"b": 3.0}], ids=["x", "y"])
    weights = {"maxsim": 0.1, "words": 0.9}
    best = hybrid_search(index, [[[1.0, 0.0]]], {"words": words.search([{"b": 1.0}])}, weights=weights)
    assert best[0].ids[0] == "y"


def test_no_documents_and_no_queries() -> None:
    assert [len(ranking) for ranking in SparseVectors([]).search([{"a": 1.0}])] == [0]
    assert SparseVectors([{"a": 1.0}]).search([]) == [] and len(SparseVectors([{"a": 1.0}])) == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SparseVectors("text"), "list of mappings of terms to weights, got str 'text'"),  # type: ignore[arg-type]
        (lambda: SparseVectors({"a": 1.0}), "list of mappings of terms to weights, got dict"),  # type: ignore[arg-type]
        (lambda: SparseVectors([{"a": 1.0}, 5]), r"documents\[1\] must be a mapping of terms .*, got int 5"),  # type: ignore[list-item]
        (lambda: SparseVectors([["ab", "cd"], ["abc"]]), r"documents\[0\] must be a mapping"),  # type: ignore[list-item]
        (lambda: SparseVectors([{1.5: 1.0}]), r"documents\[0\] must have terms that are str or int"),  # type: ignore[list-item]
        (
            lambda: SparseVectors([{"a": 1.0}, {"a": float("nan")}]),
            r"documents\[1\] must have finite weights",
        ),
        (lambda: SparseVectors([{"a": 1.0}], ids=["x", "y"]), "2 entries for 1 text"),
        (
            lambda: SparseVectors(sparse.csr_array(np.eye(3))).search(sparse.csr_array(np.eye(2))),
            "queries must have 3 columns like the documents, got 2",
        ),
        (lambda: SparseVectors(sparse.csr_array(np.eye(3))).search([{0: 1.0}]), "must be a sparse matrix"),
        (lambda: SparseVectors([{"a": 1.0}]).search([{"a": 1.0}], 0), "k must be"),
    ],
)
def test_bad_input_is_refused_with_a_sentence(make: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        make()


@given(st.data())
def test_coil_compares_tokens_of_equal_terms(data: st.DataObject) -> None:
    lengths = st.lists(st.integers(0, 4), min_size=1, max_size=6)
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    sides = []
    for count in (data.draw(lengths), data.draw(lengths)):
        tokens = MultiVectors.from_flat(rng.integers(-3, 4, (sum(count), 3)).astype(np.float32), count)
        sides.append((tokens, [rng.integers(0, 4, own) for own in count]))
    (documents, terms), (queries, asked) = sides
    found = COILVectors(documents, terms).search(queries, asked, 3)
    for query, own, ranking in zip(queries, asked, found, strict=True):
        scores: dict[int, float] = {}
        for i, (document, theirs) in enumerate(zip(documents, terms, strict=True)):
            shared = [
                max(float(query[q] @ document[d]) for d in np.flatnonzero(theirs == own[q]))
                for q in range(len(query))
                if own[q] in theirs
            ]
            if shared:
                scores[i] = sum(shared)
        best = sorted(scores, key=lambda i: -scores[i])[:3]
        assert list(ranking) == [(i, scores[i]) for i in best]


def test_coil_is_a_source_of_hybrid_search() -> None:
    documents = MultiVectors.from_arrays([[[1.0, 0.0]], [[0.0, 1.0]]], ids=["a", "b"])
    vectors = COILVectors(documents, [[4], [5]])
    rankings = vectors.search([[[0.5, 0.5]]], [[5]])
    assert list(rankings[0]) == [("b", 0.5)] and len(vectors) == 2
    best = hybrid_search(MuveraIndex.build(documents), [[[1.0, 0.0]]], {"coil": rankings}, 1, candidates=0)
    assert best[0].ids.tolist() == ["b"]


@pytest.mark.parametrize(
    ("terms", "error", "message"),
    [([[1, 2]], ValueError, "one int for each token"), ([["a"]], TypeError, "must be integers")],
)
def test_coil_refuses_wrong_terms(terms: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        COILVectors([[[1.0, 0.0]]], terms)
