"""hybrid_search and SparseVectors."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from muvera import MultiVectors, MuveraIndex, Ranking, fuse, hybrid_search, top_k
from muvera.index.hybrid import SparseVectors

IDS = [f"d{i}" for i in range(30)]
RNG = np.random.default_rng(0)
DOCUMENTS = MultiVectors.from_arrays([RNG.normal(size=(4, 8)) for _ in IDS], ids=IDS)
QUERIES = MultiVectors.from_arrays([RNG.normal(size=(3, 8)) for _ in range(4)])
INDEX = MuveraIndex.build(DOCUMENTS)


def ranking(*ids: str) -> Ranking:
    return Ranking(np.array(ids), np.arange(len(ids), 0, -1, dtype=np.float32))


def test_exact_ranking_of_all_sources() -> None:
    plain = INDEX.search(QUERIES, 5, candidates=20)
    assert [list(row) for row in hybrid_search(INDEX, QUERIES, {}, 5, candidates=20)] == [
        list(row) for row in plain
    ]
    words = [ranking("d3", "d9", "unknown"), ranking("d4"), ranking(), ranking("d1", "d2")]
    rankings = hybrid_search(INDEX, QUERIES, {"words": words}, 10, candidates=0)
    assert [sorted(row.ids.tolist()) for row in rankings] == [["d3", "d9"], ["d4"], [], ["d1", "d2"]]
    exact = dict(top_k(QUERIES, DOCUMENTS, 30)[0])
    assert dict(rankings[0]) == {name: exact[name] for name in ("d3", "d9")}


def test_weights() -> None:
    words = [ranking("d3", "d9", "d4")] * 4
    weights = {"maxsim": 0.4, "words": 0.6}
    rankings = hybrid_search(INDEX, QUERIES, {"words": words}, 6, candidates=10, weights=weights)
    for i, row in enumerate(rankings):
        own = INDEX.search(QUERIES[i : i + 1], 10, candidates=10)[0].ids.tolist()
        exact = INDEX.rerank(QUERIES[i : i + 1], [list(dict.fromkeys([*own, "d3", "d9", "d4"]))])[0]
        assert list(row) == list(fuse({"maxsim": exact, "words": words[i]}, weights, "minmax", 6))
    alone = {"maxsim": 0.0, "words": 1.0}
    rankings = hybrid_search(INDEX, QUERIES, {"words": words}, 3, candidates=0, weights=alone, method="sum")
    assert all(row.ids.tolist() == ["d3", "d9", "d4"] for row in rankings)
    for other in (None, {"maxsim": 0.5, "words": 0.5}):
        rankings = hybrid_search(
            INDEX, QUERIES, {"words": words}, 9, ids=["d3", "d5", "unknown"], weights=other
        )
        assert all(set(row.ids.tolist()) == {"d3", "d5"} for row in rankings)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"rankings": {"maxsim": []}}, "'maxsim'"),
        ({"rankings": {"words": [ranking("d1")]}}, "1 rankings for 4 queries"),
        ({"weights": {"words": 1.0}}, "maxsim, words, got words"),
        ({"k": 0}, "k"),
        ({"candidates": -1}, "candidates"),
        ({"ids": "d1"}, "'d1'"),
    ],
)
def test_bad_hybrid_searches(changed: dict[str, Any], message: str) -> None:
    values: dict[str, Any] = {"rankings": {"words": [ranking("d1")] * 4}, **changed}
    with pytest.raises((TypeError, ValueError), match=message):
        hybrid_search(INDEX, QUERIES, **values)


# -- vectors of whole documents -----------------------------------------------

TERMS = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d", 1, 2]), st.integers(-4, 4).map(float), max_size=4
)


@settings(max_examples=30)
@given(st.lists(TERMS, min_size=1, max_size=8), st.lists(TERMS, min_size=1, max_size=4), st.integers(1, 10))
def test_sparse_scores_are_sums_over_shared_terms(documents: Any, queries: Any, k: int) -> None:
    for query, row in zip(queries, SparseVectors(documents).search(queries, k), strict=True):
        scores = {
            i: score
            for i, document in enumerate(documents)
            if (score := sum(query[term] * document[term] for term in query.keys() & document.keys()))
        }
        expected = sorted(scores, key=lambda i: -scores[i])[:k]
        assert row.ids.tolist() == expected and row.scores.tolist() == [scores[i] for i in expected]


@pytest.mark.parametrize("form", ["csr_array", "csc_matrix", "coo_array", "dok_array"])
def test_sparse_matrices(form: str) -> None:
    rng = np.random.default_rng(0)
    dense, rows = (rng.random((n, 30)) * (rng.random((n, 30)) < 0.2) for n in (40, 5))
    vectors = SparseVectors(getattr(sparse, form)(dense), [f"d{i}" for i in range(40)])
    assert len(vectors) == 40
    scores = rows @ dense.T
    for i, row in enumerate(vectors.search(sparse.csr_array(rows), 10)):
        assert list(row) == list(vectors.search(sparse.csr_array(rows[i : i + 1]), 10)[0])
        assert row.scores == pytest.approx(sorted(scores[i][scores[i] > 0], reverse=True)[:10], rel=1e-6)


def test_empty_sparse_vectors() -> None:
    assert [len(row) for row in SparseVectors([]).search([{"a": 1.0}])] == [0]
    assert SparseVectors([{"a": 1.0}]).search([]) == []


EYE = sparse.csr_array(np.eye(3))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SparseVectors("text"), "got str"),
        (lambda: SparseVectors({"a": 1.0}), "got dict"),
        (lambda: SparseVectors([{"a": 1.0}, ["a"]]), r"documents\[1\] .* list"),
        (lambda: SparseVectors([{1.5: 1.0}]), r"documents\[0\] .* 1.5"),
        (lambda: SparseVectors([{"a": 1.0}, {"a": float("nan")}]), r"documents\[1\] .* nan"),
        (lambda: SparseVectors([{"a": 1.0}], ids=["x", "y"]), "2 .* 1 "),
        (lambda: SparseVectors([{"a": 1.0}] * 2, ids=["x", "x"]), "x"),
        (lambda: SparseVectors(EYE).search(sparse.csr_array(np.eye(2))), "2 columns, .* 3 terms"),
        (lambda: SparseVectors(EYE).search([{0: 1.0}]), "sparse matrix"),
        (lambda: SparseVectors([{"a": 1.0}]).search([{"a": 1.0}], 0), "k"),
    ],
)
def test_bad_vectors(make: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        make()
