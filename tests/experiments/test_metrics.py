"""Metrics against plain definitions, and intervals against what they must cover."""

import numpy as np
import pytest

from experiments.evaluation.intervals import mean_interval, ratio_interval
from experiments.evaluation.metrics import Judge, parse_metric


class Known:
    """Exact answers that are given."""

    def __init__(self, top: np.ndarray, documents: int = 60) -> None:
        self.top, self.documents = top, documents

    def best(self, count: int) -> np.ndarray:
        return self.top[:, :count]


@pytest.fixture
def ids() -> np.ndarray:
    stream = np.random.default_rng(0)
    return np.stack([stream.permutation(60)[:20] for _ in range(8)])


@pytest.fixture
def top() -> np.ndarray:
    stream = np.random.default_rng(1)
    return np.stack([stream.permutation(60)[:10] for _ in range(8)])


def test_recall_against_exact_chamfer_is_the_share_that_is_found(ids: np.ndarray, top: np.ndarray) -> None:
    found = Judge(["10-recall@20", "10-recall@5", "1-recall@20"], Known(top)).values(ids)
    for (exact, cutoff), name in zip(
        [(10, 20), (10, 5), (1, 20)], ["10-recall@20", "10-recall@5", "1-recall@20"], strict=True
    ):
        expected = [np.isin(top[i, :exact], ids[i, :cutoff]).mean() for i in range(len(ids))]
        np.testing.assert_allclose(found[name], expected)


def test_ndcg_and_reciprocal_rank_are_their_definitions(ids: np.ndarray, top: np.ndarray) -> None:
    judgements = [{int(ids[i, i]): 2, int(ids[i, i + 1]): 1} for i in range(len(ids))]
    found = Judge(["nDCG@10", "RR@10"], Known(top), judgements).values(ids)
    ideal = 2 / np.log2(2) + 1 / np.log2(3)
    for i in range(len(ids)):
        gains = [(2, i), (1, i + 1)]
        gained = sum(gain / np.log2(rank + 2) for gain, rank in gains if rank < 10)
        assert found["nDCG@10"][i] == pytest.approx(gained / ideal)
        assert found["RR@10"][i] == pytest.approx(1 / (i + 1))


def test_ties_keep_the_order_in_which_they_were_returned(top: np.ndarray) -> None:
    judgements: list[dict[int, int]] = [{7: 1}]
    for place, row in enumerate(([7, 1, 2], [1, 7, 2], [1, 2, 7])):
        found = Judge(["RR@10"], Known(top[:1]), judgements).values(np.array([row]))
        assert found["RR@10"][0] == pytest.approx(1 / (place + 1))


def test_a_query_without_judgement_does_not_count_and_one_without_results_counts_zero(
    top: np.ndarray,
) -> None:
    ids = np.array([[3, 4], [-1, -1], [5, 6]])
    found = Judge(["nDCG@10", "10-recall@2"], Known(top[:3]), [{3: 1}, {9: 1}, {}]).values(ids)
    np.testing.assert_array_equal(found["nDCG@10"], [1, 0, np.nan])
    assert found["10-recall@2"][1] == 0


def test_without_judgements_only_exact_chamfer_is_judged_by(ids: np.ndarray, top: np.ndarray) -> None:
    assert list(Judge(["nDCG@10", "10-recall@10"], Known(top)).values(ids)) == ["10-recall@10"]


def test_unseen_documents_are_judged_among_themselves() -> None:
    stream = np.random.default_rng(2)
    exact = np.stack([stream.permutation(60) for _ in range(8)])
    ids = np.stack([stream.permutation(60)[:40] for _ in range(8)])
    seen = np.arange(0, 60, 4)
    found = Judge(["5-recall@10 unseen", "5-recall@10"], Known(exact)).values(ids, seen)
    for i in range(8):
        best = [p for p in exact[i] if p % 4][:5]
        first = [p for p in ids[i] if p % 4][:10]
        assert found["5-recall@10 unseen"][i] == np.isin(best, first).mean()
        assert found["5-recall@10"][i] == np.isin(exact[i, :5], ids[i, :10]).mean()


def test_without_a_sample_nothing_is_unseen(top: np.ndarray, ids: np.ndarray) -> None:
    judge = Judge(["10-recall@10 unseen", "10-recall@10"], Known(top))
    assert list(judge.values(ids)) == ["10-recall@10"]
    assert list(judge.values(ids, np.empty(0, np.int64))) == ["10-recall@10"]


def test_too_short_a_ranking_has_no_recall_of_unseen_documents() -> None:
    exact = np.stack([np.arange(60), np.arange(60)[::-1]])
    judge = Judge(["5-recall@15 unseen"], Known(exact))
    with pytest.raises(
        ValueError, match=r"looks at 15 documents .* a ranking of k=20 holds fewer\. Raise k\."
    ):
        judge.values(exact[:, :20], np.arange(10))
    # A ranking that ends early holds all that was found.
    short = np.full((2, 20), -1)
    short[:, :6] = exact[:, :6]
    np.testing.assert_array_equal(judge.values(short, np.arange(3))["5-recall@15 unseen"], [3 / 5, 1])


def test_names_are_taken_apart() -> None:
    assert (parse_metric("1-recall@500").exact, parse_metric("1-recall@500").cutoff) == (1, 500)
    assert parse_metric("10-recall@50 unseen").unseen and not parse_metric("10-recall@50").unseen
    assert (parse_metric("nDCG@10").exact, parse_metric("nDCG@10").cutoff) == (0, 10)


def test_intervals_cover_the_true_mean_about_as_often_as_they_say() -> None:
    """95% nominal; 200 trials of 100 uniform values: below 90% or at 100% has odds under 1 in 1000."""
    stream = np.random.default_rng(3)
    covered = 0
    for _ in range(200):
        found = mean_interval(stream.random(100))
        assert found is not None
        covered += found["low"] <= 0.5 <= found["high"]
    assert 180 <= covered < 200


def test_a_paired_difference_is_tighter_than_the_two_means() -> None:
    stream = np.random.default_rng(4)
    hard = stream.random(200)  # some queries are hard for every system
    better = hard + 0.02 + 0.01 * stream.normal(size=200)
    difference, alone = mean_interval(better - hard), mean_interval(hard)
    assert difference is not None and alone is not None
    assert difference["low"] > 0
    assert difference["high"] - difference["low"] < (alone["high"] - alone["low"]) / 5


def test_what_is_nan_does_not_count() -> None:
    values = np.array([1.0, np.nan, 1.0])
    assert mean_interval(values) == {"mean": 1.0, "low": 1.0, "high": 1.0, "n": 2}
    assert mean_interval(np.full(3, np.nan)) is None


def test_a_ratio_of_medians_and_its_interval() -> None:
    """Of ten thousand draws the interval is narrow; its width is that of a median's error."""
    rng = np.random.default_rng(0)
    slow = rng.uniform(3, 5, 400)
    ratio, low, high = ratio_interval(slow, slow / 4)
    assert ratio == low == high == 4.0  # query by query the same
    ratio, low, high = ratio_interval(slow, rng.uniform(1.5, 2.5, 400))
    assert low < ratio < high and low < 2 < high and high - low < 0.3
