"""hybrid_search: exact scores of several sources' candidates, and weighted sums."""

from typing import Any

import numpy as np
import pytest

from muvera import MultiVectors, MuveraIndex, Ranking, fuse, hybrid_search, top_k

IDS = [f"d{i}" for i in range(30)]
RNG = np.random.default_rng(0)
DOCUMENTS = MultiVectors.from_arrays([RNG.normal(size=(4, 8)) for _ in IDS], ids=IDS)
QUERIES = MultiVectors.from_arrays([RNG.normal(size=(3, 8)) for _ in range(4)])
INDEX = MuveraIndex.build(DOCUMENTS)


def ranking(*ids: str) -> Ranking:
    return Ranking(np.array(ids), np.arange(len(ids), 0, -1, dtype=np.float32))


def test_exact_ranking_of_all_sources() -> None:
    plain, alone = (
        INDEX.search(QUERIES, 5, candidates=20),
        hybrid_search(INDEX, QUERIES, {}, 5, candidates=20),
    )
    assert list(map(list, alone)) == list(map(list, plain))
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
        ({"rankings": {"words": [ranking("d1")]}}, "one ranking per query, got 1 for 4"),
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
