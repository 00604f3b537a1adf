"""Systems of single tokens against their definitions in plain NumPy."""

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.system_inputs import ask, built, exact_scores, some_documents, unit_texts
from hypothesis import given, settings
from hypothesis import strategies as st

from muvera import MultiVectors
from muvera.mips.graph_file import bytes_in_graph

pytestmark = pytest.mark.compiled("searches whole collections")

QUERIES = unit_texts(50, [4, 1, 9])


def products_of(query: Any, documents: MultiVectors) -> np.ndarray:
    return np.asarray(np.asarray(query, float) @ documents.tokens.astype(float).T)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("count", [1, 40, 10_000])
def test_the_scan_finds_what_a_sort_finds(
    count: int, dtype: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("experiments.systems.token_systems._BLOCK", 1000)
    documents = unit_texts(0, [700, 2001, 300, 5], dtype=dtype)
    query = np.asarray(unit_texts(1, [19]).tokens, np.float32)
    system = built("single_vector", documents, tmp_path, backend="exact")
    tokens, scores = system.nearest(query, count)
    products = products_of(query, documents)
    best = -np.sort(-products, axis=1)[:, :count]
    np.testing.assert_allclose(scores, best, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(products, tokens, axis=1), best, rtol=1e-5, atol=1e-6)


@settings(max_examples=15)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(1, 60))
def test_ties_go_to_the_earlier_token(kinds: list[int], count: int) -> None:
    documents = MultiVectors.from_arrays([np.eye(4, 16, dtype=np.float32)[kinds]])
    query = np.array([[3, 2, 1, 1] + [0] * 12], np.float32)
    tokens, _ = built("single_vector", documents, Path("unused"), backend="exact").nearest(query, count)
    expected = np.argsort(-(query @ documents.tokens.T), axis=1, kind="stable")[:, :count]
    np.testing.assert_array_equal(tokens, expected)


def test_single_vector_candidates_follow_the_definition(tmp_path: Path) -> None:
    """First the nearest token of every query token, then all second nearest, and so on."""
    documents = some_documents(0, 60)
    system = built("single_vector", documents, tmp_path, backend="exact")
    owner = np.repeat(np.arange(60), documents.lengths)
    exact = exact_scores(QUERIES, documents)
    for i in range(len(QUERIES)):
        products = products_of(QUERIES[i], documents)
        nearest = np.argsort(-products, axis=1, kind="stable")
        order: list[int] = []
        for rank in range(products.shape[1]):
            similar = products[np.arange(len(products)), nearest[:, rank]]
            order += owner[nearest[np.argsort(-similar, kind="stable"), rank]].tolist()
        query = QUERIES[i : i + 1]
        for count in (1, 23, 1000):
            assert system.candidates(query, count).tolist() == list(islice(dict.fromkeys(order), count))
            counted = system.candidates(query, count, deduplicate=False).tolist()
            assert counted == list(dict.fromkeys(order[:count]))
        candidates = system.candidates(query, 12)
        best = candidates[np.argsort(-exact[i, candidates])][:8]
        assert ask(system, query, 8, candidates=12).ids[0].tolist() == best.tolist()
    assert (ask(system, QUERIES, 5, candidates=2).ids[:, 2:] == -1).all()


def test_a_wide_search_in_the_graph_answers_as_the_scan(tmp_path: Path) -> None:
    documents = some_documents(5, 80)
    scan, graph = (
        built("single_vector", documents, tmp_path, backend=backend) for backend in ("exact", "hnsw")
    )
    np.testing.assert_array_equal(ask(graph, QUERIES, 10, ef=400).ids, ask(scan, QUERIES, 10, ef=400).ids)
    per_document = documents.num_tokens / 80
    assert scan.bytes_per_document() == pytest.approx(8 * per_document)
    assert graph.bytes_per_document() == pytest.approx((8 + bytes_in_graph(16, 16)) * per_document)
    with pytest.raises(ValueError, match="no backend 'tree'"):
        built("single_vector", documents, tmp_path, backend="tree")
