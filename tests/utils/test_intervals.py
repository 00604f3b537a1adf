"""Intervals of mean shares contain the mean at every look, and are narrow enough."""

import numpy as np
import pytest
from numpy.typing import NDArray

from muvera.utils.intervals import share_interval

# Each query finds each of its ten best with a chance that varies by query.
MEAN, RUNS, QUERIES = 0.9485, 100, 1000
LOOKS = np.unique(np.geomspace(3, QUERIES, 25).astype(int))


def drawn(stream: np.random.Generator, means: NDArray[np.float64]) -> NDArray[np.float64]:
    return stream.binomial(10, stream.beta(9 * means, 9 * (1 - means))) / 10


def covered(shares: NDArray[np.float64], means: NDArray[np.float64]) -> bool:
    """Return True if all intervals contain the mean of the means so far."""
    truth = np.cumsum(means) / np.arange(1, len(means) + 1)
    intervals = [(look, *share_interval(shares[:look])) for look in LOOKS]
    return all(low <= truth[look - 1] <= high for look, low, high in intervals)


@pytest.mark.parametrize("kind", ["constant", "falling", "bursts"])
def test_the_mean_so_far_is_in_the_interval_at_every_look(kind: str) -> None:
    stream = np.random.default_rng(5)
    inside = 0
    for _ in range(RUNS):
        means = np.full(QUERIES, MEAN)
        if kind == "falling":
            means = np.linspace(0.98, 0.90, QUERIES)
        elif kind == "bursts":
            means = np.repeat(stream.beta(19, 1, QUERIES), stream.geometric(1 / 20, QUERIES))[:QUERIES]
            means = means.clip(0.5, 0.998)
        inside += covered(drawn(stream, means), means)
    # Three standard errors of a coverage of .95; the experiment `meter` has 2,000 runs.
    assert inside / RUNS > 0.95 - 3 * np.sqrt(0.95 * 0.05 / RUNS)


def test_widths_are_those_of_predictable_plug_in_bets() -> None:
    stream = np.random.default_rng(1)
    looks = {100: 0.097, 300: 0.042, 1000: 0.020, 3000: 0.012}
    ends = np.array([
        [share_interval(shares[:look]) for look in looks]
        for shares in drawn(stream, np.full((20, max(looks)), MEAN))
    ])  # fmt: skip
    assert (np.diff(ends).mean(axis=(0, 2)) < 1.1 * np.array([*looks.values()])).all()


def test_the_interval_excludes_a_mean_exactly_if_a_gambler_got_rich_against_it() -> None:
    shares = drawn(np.random.default_rng(2), np.full(60, 0.8))
    bets = np.geomspace(0.002, 0.97, 8)

    def capital(mean: float) -> float:
        higher = [np.prod([1 + bet / mean * (x - mean) for x in shares]) for bet in bets]
        lower = [np.prod([1 - bet / (1 - mean) * (x - mean) for x in shares]) for bet in bets]
        return float(max(np.mean(higher), np.mean(lower)) / 2)

    low, high = share_interval(shares, confidence=0.9)
    assert capital(low - 1e-6) > 10 > capital(low + 1e-6)
    assert capital(high + 1e-6) > 10 > capital(high - 1e-6)


def test_only_how_often_each_share_occurred_matters() -> None:
    shares = drawn(np.random.default_rng(1), np.full(50, 0.8))
    values, counts = np.unique(shares, return_counts=True)
    expected = share_interval(values, counts)
    assert share_interval(shares) == share_interval(shares[::-1]) == expected
    assert share_interval(1 - shares) == pytest.approx((1 - expected[1], 1 - expected[0]), abs=1e-9)
    assert share_interval(shares, confidence=0.8)[0] > expected[0]


def test_equal_shares_do_not_promise_that_all_queries_have_them() -> None:
    few, many = share_interval(np.ones(30)), share_interval(np.ones(300))
    assert 0.7 < few[0] < many[0] < many[1] == few[1] == 1.0
    assert share_interval(np.zeros(30))[0] == 0.0
    assert share_interval(np.empty(0)) == (0.0, 1.0)


@pytest.mark.parametrize("share", [5e-324, 1e-200, 1e-13, 1 - 1e-16])
def test_an_interval_contains_the_mean_of_shares_near_an_end(share: float) -> None:
    low, high = share_interval(np.array([share, share]))
    assert 0 <= low <= share <= high <= 1
