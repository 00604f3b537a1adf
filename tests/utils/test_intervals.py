"""Intervals of mean shares contain the mean, and are no wider than they must be."""

import numpy as np
import pytest

from muvera.utils.intervals import share_interval

# Each query finds each of its ten best with a chance that varies by query.
MEAN, SAMPLES, QUERIES = 0.9, 200, 100


def test_the_interval_contains_the_mean_and_is_narrower_than_that_of_single_outcomes() -> None:
    stream = np.random.default_rng(0)
    chances = stream.beta(9, 1, (SAMPLES, QUERIES))
    shares = stream.binomial(10, chances) / 10
    intervals = np.array([share_interval(row) for row in shares])
    inside = ((intervals[:, 0] <= MEAN) & (intervals[:, 1] >= MEAN)).mean()
    # Three standard errors of a coverage of .95, and .01 because the bootstrap is
    # asymptotic.
    assert inside > 0.95 - 3 * np.sqrt(0.95 * 0.05 / SAMPLES) - 0.01
    outcomes = np.repeat([0.0, 1.0], [QUERIES // 10, QUERIES - QUERIES // 10])
    low, high = share_interval(outcomes)
    assert np.diff(intervals).mean() < 0.7 * (high - low)
    # Of single outcomes it is the normal interval.
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.09 / QUERIES), rel=0.1)


def test_equal_shares_do_not_promise_that_all_queries_have_them() -> None:
    few, many = share_interval(np.ones(30)), share_interval(np.ones(300))
    assert few == pytest.approx((30 / (30 + 1.96**2), 1.0))
    assert few[0] < many[0] < many[1] == 1.0
    assert share_interval(np.zeros(30))[0] == 0.0


def test_the_same_shares_and_seed_have_the_same_interval() -> None:
    shares = np.random.default_rng(1).binomial(10, 0.8, 50) / 10
    assert share_interval(shares, 3) == share_interval(shares, 3)
    assert share_interval(shares, 3) != share_interval(shares, 4)
