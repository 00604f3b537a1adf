"""Nearest tokens: the scan against a sort of all products, the graph against the scan."""

from typing import Any

import numpy as np
import pytest
from builders.system_inputs import some_documents, unit_texts
from hypothesis import given
from hypothesis import strategies as st

from experiments.systems.token_kernels import documents_in_order
from experiments.systems.token_search import TokenSearch
from muvera import MultiVectors
from muvera.mips.hnsw import bytes_in_graph


def search(documents: MultiVectors, backend: Any = "exact") -> TokenSearch:
    return TokenSearch(documents, backend, m=16, ef_construction=100, seed=1, threads=1)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("count", [1, 7, 40, 1000])
def test_the_scan_finds_what_a_sort_finds(count: int, dtype: type) -> None:
    documents = some_documents(0, 60, dtype=dtype)
    query = np.asarray(unit_texts(1, [19]).tokens, np.float32)
    tokens, scores = search(documents).nearest(query, count)
    products = query.astype(np.float64) @ documents.tokens.astype(np.float64).T
    expected = np.argsort(-products, axis=1, kind="stable")[:, :count]
    assert tokens.shape == (19, min(count, documents.num_tokens))
    np.testing.assert_array_equal(tokens, expected)
    np.testing.assert_allclose(scores, np.take_along_axis(products, expected, axis=1), rtol=1e-5, atol=1e-6)


@pytest.mark.compiled("reads thousands of tokens")
def test_the_scan_crosses_its_blocks() -> None:
    documents = unit_texts(0, [700, 2001, 300], dtype=np.float16)
    query = np.asarray(unit_texts(1, [3]).tokens, np.float32)
    products = query @ documents.tokens.astype(np.float32).T
    tokens, _ = search(documents).nearest(query, 50)
    np.testing.assert_array_equal(tokens, np.argsort(-products, axis=1, kind="stable")[:, :50])


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(1, 60))
def test_ties_go_to_the_earlier_token(kinds: list[int], count: int) -> None:
    """Few different tokens, so that most scores are equal."""
    documents = MultiVectors.from_arrays([np.eye(4, 16, dtype=np.float32)[kinds]])
    query = np.array([[3, 2, 1, 1] + [0] * 12], np.float32)
    tokens, _ = search(documents).nearest(query, count)
    products = query @ documents.tokens.T
    np.testing.assert_array_equal(tokens, np.argsort(-products, axis=1, kind="stable")[:, :count])


def test_a_wide_walk_through_the_graph_finds_what_the_scan_finds() -> None:
    documents = some_documents(3, 80)
    query = np.asarray(unit_texts(4, [5]).tokens, np.float32)
    exact, scores = search(documents).nearest(query, 20)
    found, similar = search(documents, "hnsw").nearest(query, 20, ef=400)
    np.testing.assert_array_equal(found, exact)
    np.testing.assert_allclose(similar, scores, rtol=1e-5, atol=1e-6)


def test_tokens_know_their_documents_and_what_they_cost() -> None:
    documents = unit_texts(0, [2, 1, 3])
    assert search(documents).document_of.tolist() == [0, 0, 1, 2, 2, 2]
    assert search(documents).bytes_per_token == 8
    assert search(documents, "hnsw").bytes_per_token == 8 + bytes_in_graph(16, 16)


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(ValueError, match=r"backend must be 'hnsw' or 'exact', got 'tree'\."):
        search(unit_texts(0, [2]), "tree")


@pytest.mark.parametrize("count", [0, -3])
def test_retrieving_nothing_is_refused(count: int) -> None:
    documents = unit_texts(0, [2])
    with pytest.raises(ValueError, match=rf"must retrieve at least 1 token, got {count}\."):
        search(documents).nearest(np.asarray(documents.tokens, np.float32), count)


@given(st.lists(st.integers(0, 9), max_size=40), st.integers(0, 12))
def test_distinct_documents_in_their_order(documents: list[int], most: int) -> None:
    seen, out = np.zeros(10, np.bool_), np.empty(most, np.int64)
    count = documents_in_order(np.array(documents, np.int64), seen, out)
    assert out[:count].tolist() == list(dict.fromkeys(documents))[:most]
    assert not seen.any()
