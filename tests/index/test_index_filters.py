"""Searches that are restricted to some ids."""

from typing import Any

import numpy as np
import pytest
from builders.searched_indexes import DOCUMENTS, EMPTY, QUERIES, answers, built, every_way, recall

from muvera import top_k


@every_way
def test_filters_allow_ids_or_ask_a_predicate(way: dict[str, Any]) -> None:
    index = built(**way)
    everything = [dict(row) for row in answers(index, k=200, candidates=300)]
    odd = list(range(1, 300, 2))
    for allowed in (odd, np.array(odd), set(odd), range(1, 300, 2), [*odd, 10**9, -4], lambda i: i % 2 == 1):
        found = answers(index, filter=allowed)
        assert all(name % 2 == 1 for row in found for name, _ in row)
        assert all(len(row) == 8 for row in found)
        for row, scores in zip(found, everything, strict=True):
            assert all(scores.get(name, score) == score for name, score in row)
    expected = [list(row) for row in top_k(QUERIES, DOCUMENTS[[i for i in odd if i not in EMPTY]], 8)]
    assert recall(found, expected) > 0.93


@every_way
@pytest.mark.parametrize("allowed", [[], (), set(), np.empty(0, np.int64), [9999], lambda i: False])
def test_an_empty_filter_finds_nothing(way: dict[str, Any], allowed: Any) -> None:
    found = built(**way).search(QUERIES, filter=allowed)
    assert [len(row) for row in found] == [0] * len(QUERIES)
    assert found[0].ids.dtype == np.int64 and found[0].scores.dtype == np.float32


@every_way
def test_a_small_filter_is_searched_exactly(way: dict[str, Any]) -> None:
    index = built(**way)
    allowed = [3, 14, 15, 92, 65, 35, 89, 79]
    expected = [list(row) for row in top_k(QUERIES, DOCUMENTS[sorted(allowed)], 5)]
    assert answers(index, k=5, candidates=8, filter=allowed) == expected
    assert len(answers(index, k=20, candidates=20, filter=allowed)[0]) == 8


def test_a_filter_within_the_token_budget_is_searched_exactly() -> None:
    index = built(exact_tokens=1000, backend="hnsw")
    allowed = list(range(100, 180))
    assert index.info().search == "hnsw"
    expected = [list(row) for row in top_k(QUERIES, DOCUMENTS[100:180][DOCUMENTS[100:180].lengths > 0], 3)]
    assert answers(index, k=3, candidates=3, filter=allowed) == expected


@pytest.mark.parametrize(
    ("allowed", "message"),
    [
        (5, "filter must be a collection of ids, got int 5"),
        ("abc", "filter must be a collection of ids, got str 'abc'"),
        (["3"], "This index has int ids, got '3', which is str"),
        ([3.0], "ids must be int or str, got float"),
        (np.ones(300, bool), "ids must be int or str, got bool"),
        ([[1, 2]], "ids must be int or str, got list"),
        (
            {"lang": "en"},
            "filter must be a collection of ids or a function of an id, got a dict: an index knows",
        ),
    ],
)
def test_filters_of_a_wrong_kind_are_named(allowed: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        built().search(QUERIES, filter=allowed)


def test_what_a_predicate_raises_comes_through() -> None:
    with pytest.raises(ZeroDivisionError):
        built().search(QUERIES, filter=lambda name: 1 / (name - name) > 0)
