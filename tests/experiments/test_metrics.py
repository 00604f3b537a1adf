"""Metrics against their definitions, and the coverage of intervals."""

import numpy as np
import pytest

from experiments.evaluation.metrics import ExactAnswers, judge
from experiments.evaluation.statistics import mean_interval, pareto_front, ratio_interval


class Known(ExactAnswers):
    """Exact answers given as an array."""

    documents = 60

    def __init__(self, top: np.ndarray) -> None:
        self.top = top

    def best(self, count: int) -> np.ndarray:
        return self.top[:, :count]


def rankings(seed: int, length: int) -> np.ndarray:
    stream = np.random.default_rng(seed)
    return np.stack([stream.permutation(60)[:length] for _ in range(8)])


IDS, TOP = rankings(0, 20), rankings(1, 10)


def test_recall_is_the_share_of_the_exact_best() -> None:
    values = judge(["10-recall@5", "1-recall@20", "nDCG@10"], IDS, Known(TOP))
    assert list(values) == ["10-recall@5", "1-recall@20"]  # nDCG needs judgements
    for i, row in enumerate(IDS):
        assert values["10-recall@5"][i] == np.isin(TOP[i], row[:5]).mean()
        assert values["1-recall@20"][i] == (TOP[i, 0] in row)


def test_ndcg_and_reciprocal_rank_are_their_definitions() -> None:
    judgements = [{int(IDS[i, i]): 2, int(IDS[i, i + 1]): 1} for i in range(len(IDS))]
    values = judge(["nDCG@10", "RR@10"], IDS, Known(TOP), judgements)
    ideal = 2 / np.log2(2) + 1 / np.log2(3)
    for i in range(len(IDS)):
        gained = sum(gain / np.log2(rank + 2) for gain, rank in [(2, i), (1, i + 1)] if rank < 10)
        assert values["nDCG@10"][i] == pytest.approx(gained / ideal)
        assert values["RR@10"][i] == pytest.approx(1 / (i + 1))


def test_no_judgement_is_nan_and_no_results_are_zero() -> None:
    ids = np.array([[3, 4], [-1, -1], [5, 6]])
    values = judge(["nDCG@10", "10-recall@2"], ids, Known(TOP[:3]), [{3: 1}, {9: 1}, {}])
    np.testing.assert_array_equal(values["nDCG@10"], [1, 0, np.nan])
    assert values["10-recall@2"][1] == 0


def test_intervals_cover_the_true_mean() -> None:
    """95% nominal; 200 trials of 100 uniform values: below 90% or at 100% has odds under 1 in 1000."""
    stream = np.random.default_rng(3)
    found = [mean_interval(stream.random(100)) for _ in range(200)]
    assert 180 <= sum(one is not None and one["low"] <= 0.5 <= one["high"] for one in found) < 200
    assert mean_interval(np.array([1.0, np.nan, 1.0])) == {"mean": 1.0, "low": 1.0, "high": 1.0, "n": 2}
    assert mean_interval(np.full(3, np.nan)) is None


def test_a_ratio_of_medians_and_its_interval() -> None:
    rng = np.random.default_rng(0)
    slow = rng.uniform(3, 5, 400)
    assert ratio_interval(slow, slow / 4) == (4.0, 4.0, 4.0)
    ratio, low, high = ratio_interval(slow, rng.uniform(1.5, 2.5, 400))
    assert low < ratio < high and low < 2 < high and high - low < 0.3


def test_the_front_is_what_no_point_beats() -> None:
    points = [(float(q), float(c)) for q, c in np.random.default_rng(0).integers(1, 12, (40, 2))]
    beaten = [
        any(o != p and o[0] >= p[0] and o[1] <= p[1] for o in points) or points.index(p) < i
        for i, p in enumerate(points)
    ]
    assert sorted(pareto_front(points)) == [i for i, worse in enumerate(beaten) if not worse]
