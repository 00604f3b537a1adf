"""Fusion: one source alone is itself, sums are linear, ranks ignore scores, weights are found again."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muvera.data.ranking import Ranking
from muvera.reranking.fusion import fuse, ndcg, tune_weights


def ranking(scores: Mapping[Any, float]) -> Ranking:
    ordered = sorted(scores, key=lambda name: -scores[name])
    return Ranking(np.array(ordered), np.array([scores[name] for name in ordered], np.float32))


RANKINGS = st.dictionaries(st.integers(0, 9), st.integers(-50, 50), min_size=1, max_size=8).map(ranking)
METHODS = st.sampled_from(["sum", "minmax", "zscore", "rrf"])


@given(RANKINGS, METHODS)
def test_one_source_alone_keeps_its_order(one: Ranking, method: Any) -> None:
    assert fuse({"a": one}, method=method).ids.tolist() == one.ids.tolist()


@given(RANKINGS, RANKINGS, METHODS)
def test_a_weight_of_zero_leaves_the_other_sources_order(one: Ranking, two: Ranking, method: Any) -> None:
    fused = fuse({"a": one, "b": two}, {"a": 1, "b": 0}, method)
    assert set(fused.ids.tolist()) == {*one.ids.tolist(), *two.ids.tolist()}
    if method != "sum":  # where what is missing is not above what was found
        kept = [name for name in fused.ids.tolist() if name in one.ids]
        assert kept == one.ids.tolist()


@given(RANKINGS, RANKINGS)
def test_sums_are_linear(one: Ranking, two: Ranking) -> None:
    fused = dict(fuse({"a": one, "b": two}, {"a": 0.5, "b": 2}, "sum"))
    first, second = dict(one), dict(two)
    for name, score in fused.items():
        assert score == pytest.approx(0.5 * first.get(name, 0) + 2 * second.get(name, 0))


@given(RANKINGS, RANKINGS)
def test_ranks_ignore_scores_and_scales_ignore_units(one: Ranking, two: Ranking) -> None:
    monotone = Ranking(one.ids, np.arange(len(one), 0, -1).astype(np.float32) ** 3)
    assert list(fuse({"a": one, "b": two}, method="rrf")) == list(
        fuse({"a": monotone, "b": two}, method="rrf")
    )
    scaled = Ranking(one.ids, 4 * one.scores + 8)  # exact in float32
    for method in ("minmax", "zscore"):
        before = fuse({"a": one, "b": two}, method=method)
        after = fuse({"a": scaled, "b": two}, method=method)
        np.testing.assert_allclose(np.sort(before.scores), np.sort(after.scores), rtol=1e-5, atol=1e-6)


def test_ties_k_empty_sources_and_strings() -> None:
    one, two = ranking({"a": 1, "b": 1}), ranking({"c": 1})
    assert fuse({"x": one, "y": two}, method="sum").ids.tolist() == ["a", "b", "c"]
    assert len(fuse({"x": one, "y": two}, k=2)) == 2
    empty = Ranking(np.empty(0, np.int64), np.empty(0, np.float32))
    assert fuse({"x": one, "y": empty}, method="minmax").ids.tolist() == ["a", "b"]
    assert len(fuse({"x": empty})) == 0


@pytest.mark.parametrize(
    ("weights", "method", "message"),
    [
        ({"a": 1}, "sum", "weights must be of the sources a, b, got a"),
        ({"a": 1, "b": -1}, "sum", "weight of 'b' must be a finite number of at least 0, got -1"),
        (None, "max", "method must be one of sum, minmax, zscore, rrf, got 'max'"),
    ],
)
def test_wrong_settings(weights: Any, method: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fuse({"a": ranking({1: 1}), "b": ranking({2: 1})}, weights, method)


def test_weights_are_found_again_and_estimated_by_queries_that_did_not_choose() -> None:
    rng = np.random.default_rng(0)
    rankings, relevant = [], []
    for _ in range(40):
        good = int(rng.integers(20))
        signal = rng.normal(size=20)
        signal[good] += 2.5
        rankings.append(
            {
                "signal": ranking(dict(enumerate(signal))),
                "noise": ranking(dict(enumerate(rng.normal(size=20)))),
            }
        )
        relevant.append({good: 1})
    weights, estimate = tune_weights(rankings, relevant)
    assert weights["signal"] >= 0.7
    equal = np.mean([ndcg(fuse(both), judged, 10) for both, judged in zip(rankings, relevant, strict=True)])
    assert estimate > equal
    assert (weights, estimate) == tune_weights(rankings, relevant)
    with pytest.raises(ValueError, match="at least 2 queries with something relevant, got 0"):
        tune_weights(rankings, [{}] * 40)
    with pytest.raises(ValueError, match="rankings of 40 queries and judgements of 1"):
        tune_weights(rankings, [{}])
