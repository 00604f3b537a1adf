"""The single-vector heuristic against its definition in plain NumPy."""

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.system_inputs import ask, exact_scores, material, some_documents, unit_texts

from experiments.systems.registry import SYSTEMS
from experiments.systems.single_vector import SingleVector
from muvera import MultiVectors
from muvera.mips.hnsw import bytes_in_graph

QUERIES = unit_texts(50, [4, 1, 9])


def ranked_documents(query: np.ndarray, documents: MultiVectors) -> list[int]:
    """All tokens' documents: first the nearest token of every query token, then all second nearest..."""
    products = query.astype(np.float64) @ documents.tokens.astype(np.float64).T
    nearest = np.argsort(-products, axis=1, kind="stable")
    owner = np.repeat(np.arange(len(documents)), documents.lengths)
    order: list[int] = []
    for rank in range(products.shape[1]):
        tokens = nearest[:, rank]
        similar = products[np.arange(len(query)), tokens]
        order += owner[tokens[np.argsort(-similar, kind="stable")]].tolist()
    return order


def built(documents: MultiVectors, folder: Path, **build: Any) -> SingleVector:
    system = SingleVector(**build)
    system.build(material(documents, folder))
    return system


@pytest.mark.parametrize("count", [1, 5, 23, 60, 1000])
def test_candidates_are_the_first_documents_of_the_list(count: int, tmp_path: Path) -> None:
    documents = some_documents(0, 60)
    system = built(documents, tmp_path, backend="exact")
    for i in range(len(QUERIES)):
        order = ranked_documents(QUERIES[i], documents)
        query = QUERIES[i : i + 1]
        assert system.candidates(query, count).tolist() == list(islice(dict.fromkeys(order), count))
        with_repeats = system.candidates(query, count, deduplicate=False).tolist()
        assert with_repeats == list(dict.fromkeys(order[:count]))


@pytest.mark.parametrize("deduplicate", [True, False])
def test_candidates_are_ranked_by_chamfer(deduplicate: bool, tmp_path: Path) -> None:
    documents = some_documents(1, 40)
    system = built(documents, tmp_path, backend="exact")
    answers = ask(system, QUERIES, 8, candidates=12, deduplicate=deduplicate)
    exact = exact_scores(QUERIES, documents)
    for i in range(len(QUERIES)):
        candidates = system.candidates(QUERIES[i : i + 1], 12, deduplicate=deduplicate)
        best = candidates[np.argsort(-exact[i, candidates])][:8]
        assert answers.ids[i][answers.ids[i] >= 0].tolist() == best.tolist()
        np.testing.assert_allclose(answers.scores[i, : len(best)], exact[i, best], rtol=1e-5)


def test_all_candidates_give_the_exact_answer(tmp_path: Path) -> None:
    documents = some_documents(2, 30)
    answers = ask(built(documents, tmp_path, backend="exact"), QUERIES, 10, candidates=30)
    np.testing.assert_array_equal(answers.ids, np.argsort(-exact_scores(QUERIES, documents), axis=1)[:, :10])


def test_a_wide_walk_through_the_graph_answers_as_the_scan(tmp_path: Path) -> None:
    documents = some_documents(3, 80)
    settings = {"candidates": 20, "ef": 400}
    scan = ask(built(documents, tmp_path, backend="exact"), QUERIES, 10, **settings)
    graph = ask(built(documents, tmp_path), QUERIES, 10, **settings)
    np.testing.assert_array_equal(graph.ids, scan.ids)


def test_fewer_candidates_than_k_leave_places_empty(tmp_path: Path) -> None:
    answers = ask(built(some_documents(4, 20), tmp_path, backend="exact"), QUERIES, 5, candidates=2)
    assert (answers.ids[:, :2] >= 0).all()
    assert (answers.ids[:, 2:] == -1).all()


def test_bytes_are_those_of_the_graphs_tokens(tmp_path: Path) -> None:
    documents = unit_texts(0, [3, 5])
    assert built(documents, tmp_path, backend="exact").bytes_per_document() == 4 * 8
    assert built(documents, tmp_path, m=4).bytes_per_document() == 4 * (8 + bytes_in_graph(16, 4))


def test_it_is_registered() -> None:
    assert SYSTEMS["single_vector"] is SingleVector
