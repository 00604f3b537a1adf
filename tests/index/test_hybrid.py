"""Hybrid search: candidates of several first stages, ranked exactly or by fused scores."""

from typing import Any

import numpy as np
import pytest

from muvera import MultiVectors, MuveraIndex, Ranking, fuse, hybrid_search, top_k

IDS = [f"d{i}" for i in range(30)]


@pytest.fixture(scope="module")
def documents() -> MultiVectors:
    rng = np.random.default_rng(0)
    return MultiVectors.from_arrays([rng.normal(size=(4, 8)) for _ in IDS], ids=IDS)


@pytest.fixture(scope="module")
def index(documents: MultiVectors) -> MuveraIndex:
    return MuveraIndex.build(documents)


@pytest.fixture(scope="module")
def queries() -> MultiVectors:
    rng = np.random.default_rng(1)
    return MultiVectors.from_arrays([rng.normal(size=(3, 8)) for _ in range(4)])


def ranking(*ids: str) -> Ranking:
    return Ranking(np.array(ids), np.arange(len(ids), 0, -1, dtype=np.float32))


def test_without_other_sources_it_is_the_indexs_search(index: MuveraIndex, queries: MultiVectors) -> None:
    plain = index.search(queries, 5, candidates=20)
    for one, other in zip(hybrid_search(index, queries, {}, 5, candidates=20), plain, strict=True):
        assert list(one) == list(other)


def test_what_any_source_found_is_ranked_exactly(
    index: MuveraIndex, documents: MultiVectors, queries: MultiVectors
) -> None:
    given = [ranking("d3", "d9", "unknown"), ranking("d4"), ranking(), ranking("d1", "d2")]
    found = hybrid_search(index, queries, {"words": given}, 10, candidates=0)
    assert [sorted(one.ids.tolist()) for one in found] == [["d3", "d9"], ["d4"], [], ["d1", "d2"]]
    exact = dict(top_k(queries, documents, 30)[0])
    assert dict(found[0]) == {name: exact[name] for name in ("d3", "d9")}


def test_weights_fuse_the_sources_with_exact_scores(index: MuveraIndex, queries: MultiVectors) -> None:
    given = [ranking("d3", "d9", "d4")] * 4
    weights = {"maxsim": 0.4, "words": 0.6}
    found = hybrid_search(index, queries, {"words": given}, 6, candidates=10, weights=weights)
    for i, one in enumerate(found):
        own = index.search(queries[i : i + 1], 10, candidates=10)[0].ids.tolist()
        exact = index.rerank(queries[i : i + 1], [list(dict.fromkeys([*own, "d3", "d9", "d4"]))])[0]
        assert list(one) == list(fuse({"maxsim": exact, "words": given[i]}, weights, "minmax", 6))


def test_one_source_alone_keeps_its_order(index: MuveraIndex, queries: MultiVectors) -> None:
    given = [ranking("d3", "d9", "d4")] * 4
    found = hybrid_search(
        index, queries, {"words": given}, 3, candidates=0, weights={"maxsim": 0, "words": 1}, method="sum"
    )
    assert all(one.ids.tolist() == ["d3", "d9", "d4"] for one in found)


@pytest.mark.parametrize("allowed", [["d3", "d5", "unknown"], lambda name: name in ("d3", "d5")])
def test_a_filter_holds_for_all_sources(index: MuveraIndex, queries: MultiVectors, allowed: Any) -> None:
    given = [ranking("d3", "d9")] * 4
    for weights in (None, {"maxsim": 0.5, "words": 0.5}):
        found = hybrid_search(index, queries, {"words": given}, 9, filter=allowed, weights=weights)
        assert all(set(one.ids.tolist()) == {"d3", "d5"} for one in found)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"rankings": {"maxsim": []}}, "'maxsim' is the name of the exact scores"),
        ({"rankings": {"words": [ranking("d1")]}}, "'words' has 1 rankings for 4 queries"),
        ({"weights": {"words": 1.0}}, "must be of the sources maxsim, words, got words"),
        ({"k": 0}, "k"),
        ({"candidates": -1}, "candidates"),
    ],
)
def test_what_is_refused(
    index: MuveraIndex, queries: MultiVectors, changed: dict[str, Any], message: str
) -> None:
    given: dict[str, Any] = {"rankings": {"words": [ranking("d1")] * 4}, **changed}
    with pytest.raises((TypeError, ValueError), match=message):
        hybrid_search(index, queries, **given)
