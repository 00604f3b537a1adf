"""Fusion: one source keeps its order, sums are linear, ranks ignore scores."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muvera.data.ranking import Ranking
from muvera.reranking.fusion import fuse


def ranking(scores: Mapping[Any, float]) -> Ranking:
    ordered = sorted(scores, key=lambda name: -scores[name])
    return Ranking(np.array(ordered), np.array([scores[name] for name in ordered], np.float32))


RANKINGS = st.dictionaries(st.integers(0, 9), st.integers(-50, 50), min_size=1, max_size=8).map(ranking)
METHODS = st.sampled_from(["sum", "minmax", "zscore", "rrf"])


@given(RANKINGS, RANKINGS, METHODS)
def test_a_source_with_all_weight_keeps_its_order(one: Ranking, two: Ranking, method: Any) -> None:
    assert fuse({"a": one}, method=method).ids.tolist() == one.ids.tolist()
    fused = fuse({"a": one, "b": two}, {"a": 1, "b": 0}, method)
    assert set(fused.ids.tolist()) == {*one.ids.tolist(), *two.ids.tolist()}
    if method != "sum":  # a missing document could be above negative scores
        assert [name for name in fused.ids.tolist() if name in one.ids] == one.ids.tolist()


def test_reciprocal_ranks_are_those_of_the_paper() -> None:
    """1 / (60 + rank) per source, with ranks from 1.

    Cormack, Clarke and Büttcher, SIGIR 2009.
    """
    fused = dict(fuse({"a": ranking({1: 9, 2: 8}), "b": ranking({2: 1, 3: 0})}, {"a": 1, "b": 2}, "rrf"))
    assert fused == pytest.approx({2: 1 / 62 + 2 / 61, 3: 2 / 62, 1: 1 / 61})


@given(RANKINGS, RANKINGS)
def test_identities(one: Ranking, two: Ranking) -> None:
    """Sums are linear; "rrf" ignores scores; "minmax" and "zscore" ignore units."""
    first, second = dict(one), dict(two)
    for name, score in fuse({"a": one, "b": two}, {"a": 0.5, "b": 2}, "sum"):
        assert score == pytest.approx(0.5 * first.get(name, 0) + 2 * second.get(name, 0))
    monotone = Ranking(one.ids, np.arange(len(one), 0, -1).astype(np.float32) ** 3)
    by_ranks = [list(fuse({"a": source, "b": two}, method="rrf")) for source in (one, monotone)]
    assert by_ranks[0] == by_ranks[1]
    scaled = Ranking(one.ids, 4 * one.scores + 8)  # exact in float32
    for method in ("minmax", "zscore"):
        scores = [np.sort(fuse({"a": source, "b": two}, method=method).scores) for source in (one, scaled)]
        np.testing.assert_allclose(scores[0], scores[1], rtol=1e-5, atol=1e-6)


def test_ties_k_empty_sources_and_strings() -> None:
    one, two = ranking({"a": 1, "b": 1}), ranking({"c": 1})
    assert fuse({"x": one, "y": two}, method="sum").ids.tolist() == ["a", "b", "c"]
    assert len(fuse({"x": one, "y": two}, k=2)) == 2
    empty = Ranking(np.empty(0, np.int64), np.empty(0, np.float32))
    assert fuse({"x": one, "y": empty}, method="minmax").ids.tolist() == ["a", "b"]
    assert len(fuse({"x": empty})) == 0


@pytest.mark.parametrize(
    ("weights", "method", "words"),
    [
        ({"a": 1}, "sum", "a, b.* a"),
        ({"a": 1, "b": -1}, "sum", "'b'.*-1"),
        (None, "max", "sum, minmax, zscore, rrf, got 'max'"),
    ],
)
def test_bad_settings(weights: Any, method: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        fuse({"a": ranking({1: 1}), "b": ranking({2: 1})}, weights, method)
    with pytest.raises(TypeError, match="rankings must be a dictionary"):
        fuse([ranking({1: 1})])  # type: ignore[arg-type]
