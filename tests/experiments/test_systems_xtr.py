"""XTR's scores against the paper's formula in plain NumPy."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.system_inputs import ask, exact_scores, material, some_documents, unit_texts

from experiments.systems.registry import SYSTEMS
from experiments.systems.xtr import XTR
from muvera import MultiVectors

QUERIES = unit_texts(50, [4, 1, 9])


def imputed(query: np.ndarray, documents: MultiVectors, tokens: int) -> dict[int, float]:
    """Score of every document with a retrieved token."""
    products = query.astype(np.float64) @ documents.tokens.astype(np.float64).T
    owner = np.repeat(np.arange(len(documents)), documents.lengths)
    best: list[dict[int, float]] = []
    lowest: list[float] = []
    for row in products:
        retrieved = np.argsort(-row)[:tokens]
        lowest.append(row[retrieved[-1]])
        best.append({})
        for token in retrieved:
            document = int(owner[token])
            best[-1][document] = max(row[token], best[-1].get(document, -np.inf))
    return {
        document: sum(of.get(document, least) for of, least in zip(best, lowest, strict=True))
        for document in set().union(*best)
    }


def built(documents: MultiVectors, folder: Path, **build: Any) -> XTR:
    system = XTR(**build)
    system.build(material(documents, folder))
    return system


@pytest.mark.parametrize("tokens", [1, 6, 50, 10_000])
def test_missing_similarities_are_the_lowest_that_was_retrieved(tokens: int, tmp_path: Path) -> None:
    documents = some_documents(0, 60)
    system = built(documents, tmp_path, backend="exact")
    for _ in range(2):  # the second time shows that nothing is left from the first
        for i in range(len(QUERIES)):
            expected = imputed(QUERIES[i], documents, tokens)
            found, scores = system.imputed(QUERIES[i : i + 1], tokens)
            assert sorted(found.tolist()) == sorted(expected)
            np.testing.assert_allclose(scores, [expected[d] for d in found.tolist()], rtol=1e-5, atol=1e-6)


def test_documents_are_ranked_by_imputed_scores(tmp_path: Path) -> None:
    documents = some_documents(1, 40)
    answers = ask(built(documents, tmp_path, backend="exact"), QUERIES, 8, tokens=20)
    for i in range(len(QUERIES)):
        expected = sorted(imputed(QUERIES[i], documents, 20).items(), key=lambda item: -item[1])[:8]
        assert answers.ids[i].tolist() == [document for document, _ in expected]
        np.testing.assert_allclose(answers.scores[i], [score for _, score in expected], rtol=1e-5)


def test_all_tokens_retrieved_give_chamfer(tmp_path: Path) -> None:
    documents = some_documents(2, 30)
    answers = ask(built(documents, tmp_path, backend="exact"), QUERIES, 10, tokens=documents.num_tokens)
    exact = exact_scores(QUERIES, documents)
    np.testing.assert_array_equal(answers.ids, np.argsort(-exact, axis=1)[:, :10])
    np.testing.assert_allclose(answers.scores, -np.sort(-exact, axis=1)[:, :10], rtol=1e-5)


def test_the_best_are_ranked_again_by_chamfer(tmp_path: Path) -> None:
    documents = some_documents(3, 40)
    system = built(documents, tmp_path, backend="exact")
    first = ask(system, QUERIES, 12, tokens=20)
    again = ask(system, QUERIES, 5, tokens=20, candidates=12)
    exact = exact_scores(QUERIES, documents)
    for i in range(len(QUERIES)):
        best = first.ids[i][np.argsort(-exact[i, first.ids[i]])][:5]
        assert again.ids[i].tolist() == best.tolist()
        np.testing.assert_allclose(again.scores[i], exact[i, best], rtol=1e-5)


def test_few_tokens_leave_places_empty(tmp_path: Path) -> None:
    answers = ask(built(some_documents(4, 20), tmp_path, backend="exact"), QUERIES[1:2], 5, tokens=1)
    assert (answers.ids >= 0).sum() == 1


def test_a_wide_walk_through_the_graph_answers_as_the_scan(tmp_path: Path) -> None:
    documents = some_documents(5, 80)
    settings = {"tokens": 30, "ef": 400}
    scan = ask(built(documents, tmp_path, backend="exact"), QUERIES, 10, **settings)
    graph = ask(built(documents, tmp_path), QUERIES, 10, **settings)
    np.testing.assert_array_equal(graph.ids, scan.ids)


def test_bytes_are_those_of_the_tokens_owners(tmp_path: Path) -> None:
    assert built(unit_texts(0, [3, 5]), tmp_path, backend="exact").bytes_per_document() == 4 * 8


def test_it_is_registered() -> None:
    assert SYSTEMS["xtr"] is XTR
