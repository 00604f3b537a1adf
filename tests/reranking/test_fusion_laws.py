"""Laws of fusion: order of sources, weights, dominated documents, and cut rankings."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muvera.data.ranking import Ranking
from muvera.reranking.fusion import fuse

METHODS = st.sampled_from(["sum", "minmax", "zscore", "rrf"])
WEIGHTS = st.floats(0.0625, 8)


def ranking(scores: dict[int, int]) -> Ranking:
    ordered = sorted(scores, key=lambda name: -scores[name])
    return Ranking(np.array(ordered, np.int64), np.array([scores[name] for name in ordered], np.float32))


RANKINGS = st.dictionaries(st.integers(0, 9), st.integers(-50, 50), max_size=8).map(ranking)


@given(RANKINGS, RANKINGS, WEIGHTS, WEIGHTS, METHODS)
def test_the_order_of_sources_changes_no_score(
    one: Ranking, two: Ranking, a: float, b: float, method: Any
) -> None:
    """Symmetry: only ties depend on which source comes first."""
    left = fuse({"a": one, "b": two}, {"a": a, "b": b}, method)
    right = fuse({"b": two, "a": one}, {"a": a, "b": b}, method)
    assert dict(left) == pytest.approx(dict(right))


@given(RANKINGS, RANKINGS, WEIGHTS, WEIGHTS, METHODS, st.integers(-4, 4))
def test_scores_are_homogeneous_in_the_weights(
    one: Ranking, two: Ranking, a: float, b: float, method: Any, exponent: int
) -> None:
    """Powers of two scale every score exactly and change no order."""
    times = 2.0**exponent
    plain = fuse({"a": one, "b": two}, {"a": a, "b": b}, method)
    scaled = fuse({"a": one, "b": two}, {"a": times * a, "b": times * b}, method)
    assert scaled.ids.tolist() == plain.ids.tolist()
    np.testing.assert_array_equal(scaled.scores, plain.scores * np.float32(times))


@given(RANKINGS, RANKINGS, METHODS, st.integers(1, 12))
def test_a_smaller_k_cuts_the_ranking(one: Ranking, two: Ranking, method: Any, k: int) -> None:
    """Prefixes, in descending order, of the union of all documents."""
    whole = fuse({"a": one, "b": two}, method=method)
    assert list(fuse({"a": one, "b": two}, method=method, k=k)) == list(whole)[:k]
    assert (np.diff(whole.scores) <= 0).all()
    assert sorted(whole.ids.tolist()) == sorted({*one.ids.tolist(), *two.ids.tolist()})


@given(RANKINGS, WEIGHTS, METHODS)
def test_a_document_that_no_source_prefers_does_not_win(one: Ranking, weight: float, method: Any) -> None:
    """Pareto: two sources that agree keep their common order."""
    fused = fuse({"a": one, "b": one}, {"a": 1, "b": weight}, method)
    assert fused.ids.tolist() == one.ids.tolist()


@given(RANKINGS, RANKINGS)
def test_scaled_scores_lie_between_zero_and_one(one: Ranking, two: Ranking) -> None:
    """minmax: the best of each source gets 1 and its lowest 0.

    A document that is missing from a source gets 0, too.
    """
    fused = dict(fuse({"a": one, "b": two}, method="minmax"))
    for name, score in fused.items():
        expected = 0.0
        for source in (dict(one), dict(two)):
            low, high = (min(source.values()), max(source.values())) if source else (0, 0)
            if name in source:
                expected += (source[name] - low) / (high - low) if high > low else 1.0
        assert score == pytest.approx(expected, abs=1e-6)
    assert all(0 <= score <= 2 for score in fused.values())


@given(RANKINGS, RANKINGS)
def test_zscores_are_distances_from_the_lowest_in_standard_deviations(one: Ranking, two: Ranking) -> None:
    """zscore: each source contributes (score - lowest) / deviation.

    It contributes 1 if all its scores are equal.
    """
    fused = dict(fuse({"a": one, "b": two}, {"a": 1, "b": 2}, "zscore"))
    for name, score in fused.items():
        expected = 0.0
        for weight, source in ((1, dict(one)), (2, dict(two))):
            if name in source:
                values = np.array(list(source.values()))
                deviation = values.std()
                own = (source[name] - values.min()) / deviation if deviation > 0 else 1.0
                expected += weight * own
        assert score == pytest.approx(expected, rel=1e-6, abs=1e-6)
