"""Laws of the selection kernels: best scores, bounds, expected misses.

The bounds are of bytes.
"""

import math
from typing import Any

import numpy as np
import pytest
import strategies as some
from hypothesis import given, settings
from hypothesis import strategies as st

from muvera.kernels.byte_product import Bounds, bound_products, multiply_possible
from muvera.kernels.jit import kernel
from muvera.kernels.rows import inner_products, inner_products_at
from muvera.kernels.scan import MAX_SUM, keep_best
from muvera.kernels.selection import (
    FIRST_CHECK,
    SLOPE,
    STATE,
    STEP,
    VARIANCE,
    enter,
    excluded,
    record_error,
    select_best,
    trace_misses,
)
from muvera.kernels.tile import LANES

SCORES = st.one_of(st.integers(-3, 3).map(float), st.just(-np.inf))


@given(st.lists(SCORES, max_size=40), st.integers(1, 45), some.seeds)
def test_the_best_are_those_of_a_sort_by_score_and_tie(scores: list[float], k: int, seed: int) -> None:
    """Total order: score descending, then the smaller tie; -inf is never selected."""
    ties = np.random.default_rng(seed).permutation(len(scores)).astype(np.int64)
    best = np.full(min(k, len(scores)), -1, np.int64)
    count = select_best(np.array(scores, np.float32), ties, best)
    filled = [i for i in range(len(scores)) if scores[i] > -np.inf]
    expected = sorted(filled, key=lambda i: (-scores[i], ties[i]))[: len(best)]
    assert best[:count].tolist() == expected


@given(st.lists(st.integers(0, 2000), min_size=1, max_size=120), st.data())
def test_the_greatest_sums_are_kept_in_order(numbers: list[int], data: st.DataObject) -> None:
    """Stability: rows stay ascending, and the earlier of equal sums are kept.

    The edge is the smallest sum.
    """
    wanted = data.draw(st.integers(1, len(numbers)))
    sums, rows = np.array(numbers, np.uint16), np.arange(5, 5 + len(numbers))
    edge = keep_best(sums, rows, len(sums), wanted)
    order = sorted(sorted(range(len(numbers)), key=lambda i: -numbers[i])[:wanted])
    assert rows[:wanted].tolist() == [5 + i for i in order]
    assert sums[:wanted].tolist() == [numbers[i] for i in order]
    assert edge == min(numbers[i] for i in order)


@pytest.mark.parametrize("most", [3, MAX_SUM])  # up to 3, thousands of sums are equal
def test_the_greatest_of_many_sums_are_kept(most: int) -> None:
    numbers = np.random.default_rng(0).integers(0, most + 1, 10_000).astype(np.uint16)
    sums, rows = numbers.copy(), np.arange(len(numbers))
    edge = keep_best(sums, rows, len(sums), 4500)
    order = np.sort(np.argsort(-numbers.astype(int), kind="stable")[:4500])
    np.testing.assert_array_equal(rows[:4500], order)
    assert edge == numbers[order].min()


def uncertain(seed: int, count: int, queries: int = 2) -> Any:
    """Return exact products of integers, approximations, and errors.

    The errors bound their differences.
    """
    rng = np.random.default_rng(seed)
    vectors = rng.integers(-5, 6, (count, LANES)).astype(np.float32)
    rows = rng.integers(-3, 4, (queries, LANES)).astype(np.float32)
    exact = rows @ vectors.T
    errors = rng.uniform(0, 2, count).astype(np.float32)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    products = exact + rng.uniform(-1, 1, exact.shape) * errors * lengths
    return vectors, rows, exact, errors, products.astype(np.float32)


@given(some.seeds, st.integers(1, 60), st.integers(1, 20))
def test_group_bounds_never_exceed_the_best_product_of_their_group(
    seed: int, count: int, groups: int
) -> None:
    """Lower bounds: the k-th best bound is at most the k-th best product.

    This holds for every k; products are exact.
    """
    _, rows, exact, errors, products = uncertain(seed, count)
    lengths, bounds = np.empty(2, np.float32), np.empty((2, groups), np.float32)
    bound_products(products, Bounds(errors, lengths, np.float32(1e-4)), rows, bounds)
    exact_lengths = np.linalg.norm(rows.astype(np.float64), axis=1)
    assert (lengths >= exact_lengths).all() and (lengths <= exact_lengths * 1.00001).all()
    for q in range(2):
        for g in range(groups):
            assert bounds[q, g] <= exact[q, g::groups].max(initial=-np.inf)
        lower = products[q] - errors * lengths[q] - np.float32(1e-4)
        tightest = [lower[g::groups].max(initial=-np.inf) for g in range(groups)]
        np.testing.assert_allclose(bounds[q], tightest, rtol=1e-5, atol=1e-5)


@given(some.seeds, st.integers(1, 60), st.data())
def test_no_vector_that_can_reach_the_edge_is_left_out(seed: int, count: int, data: st.DataObject) -> None:
    """Completeness: vectors whose exact product reaches the edge are possible.

    Few others are.
    """
    vectors, rows, exact, errors, products = uncertain(seed, count)
    lengths = np.linalg.norm(rows, axis=1).astype(np.float32) * np.float32(1.000001)
    k, least = data.draw(st.integers(1, count)), np.float32(1e-4)
    edges = np.sort(exact, axis=1)[:, -k].astype(np.float32)
    possible, found = np.zeros((2, count), np.int64), np.empty((2, count), np.float32)
    counts, names = np.empty(2, np.int64), np.arange(count)[::-1].copy()
    multiply_possible(
        products,
        Bounds(errors, lengths, least),
        rows,
        edges,
        vectors[::-1].copy(),
        names,
        possible,
        found,
        counts,
    )
    for q in range(2):
        own = names[possible[q, : counts[q]]].tolist()
        assert set(np.flatnonzero(exact[q] >= edges[q])) <= set(own) and own == sorted(own)
        assert (products[q, own] + errors[own] * lengths[q] + 2e-4 >= edges[q]).all()
        np.testing.assert_array_equal(found[q, : counts[q]], exact[q, own])
        assert (found[q, counts[q] :] == -np.inf).all()


@given(some.seeds, st.integers(1, 40), st.integers(1, 30))
def test_a_full_buffer_gives_no_results(seed: int, count: int, room: int) -> None:
    """Overflow: a count above the room is reported, and then no product is."""
    vectors, rows, _, errors, products = uncertain(seed, count, 1)
    room = min(room, count)
    possible, found, counts = np.zeros((1, room), np.int64), np.empty((1, room), np.float32), np.empty(1, int)
    lowest, none = np.full(1, -np.inf, np.float32), np.empty(0, np.int64)
    most = multiply_possible(
        products,
        Bounds(errors, np.zeros(1, np.float32), np.float32(0)),
        rows,
        lowest,
        vectors,
        none,
        possible,
        found,
        counts,
    )
    assert most == counts[0] == min(count, room + 1)
    assert possible[0].tolist() == list(range(room))
    assert (found[0] == -np.inf).all() == (count > room)


@given(some.seeds, st.integers(1, 40), st.integers(1, 4), st.integers(1, 4))
def test_products_have_the_same_bits_alone_and_together(
    seed: int, count: int, queries: int, panels: int
) -> None:
    """Batches: a product depends on its two vectors only.

    It is within float32 rounding of float64.
    """
    rng = np.random.default_rng(seed)
    width = panels * LANES
    vectors, rows = (rng.standard_normal((n, width)).astype(np.float32) for n in (count, queries))
    out, part = np.empty((count, queries), np.float32), np.empty((1, queries), np.float32)
    inner_products(vectors.reshape(-1), 0, count, width, rows.reshape(-1), queries, out)
    lengths = np.outer(np.linalg.norm(vectors, axis=1), np.linalg.norm(rows, axis=1))
    assert (np.abs(out - vectors.astype(np.float64) @ rows.T) <= 2e-6 * lengths).all()
    chosen = rng.integers(0, count, 3)
    for i in chosen:
        inner_products(vectors.reshape(-1), i, i + 1, width, rows.reshape(-1), queries, part)
        np.testing.assert_array_equal(part[0], out[i])
    for q, row in enumerate(rows):
        some_of = np.empty(3, np.float32)
        inner_products_at(vectors, chosen, row, some_of)
        np.testing.assert_array_equal(some_of, out[chosen, q])


# -- expected misses ----------------------------------------------------------


def misses_by_hand(scores: Any, products: Any, k: int, slope: float, variance: float, seen: int) -> float:
    """Return how many of the k best are expected after the first `seen`.

    Errors are normal.
    """
    errors = scores[:seen].astype(np.float64) - slope * products[:seen]
    spread = errors.var(ddof=1) * seen
    deviation = math.sqrt((spread + 16 * variance) / (seen + 16))
    least = np.sort(scores[:seen])[-k]
    reach = (least - errors.mean() - slope * products[seen:]) / deviation
    return float(sum(0.5 * math.erfc(x / math.sqrt(2)) for x in reach))


@settings(max_examples=20)
@given(some.seeds, st.integers(13, 60), st.integers(1, 8), st.floats(0.1, 2))
def test_expected_misses_are_the_tails_of_normal_errors(seed: int, count: int, k: int, slope: float) -> None:
    """Definition by erfc, of which the kernel has a table in steps of 1/32.

    It is off by at most 1/8 of (1/32)^2 * .25 per candidate.
    """
    rng = np.random.default_rng(seed)
    products = -np.sort(-rng.standard_normal((1, count))).astype(np.float32)
    scores = (slope * products + 0.3 * rng.standard_normal(products.shape)).astype(np.float32)
    states = np.zeros((1, STATE))
    states[:, SLOPE], states[:, VARIANCE] = slope, 0.05
    expected = np.full((1, count // STEP + 1), -1.0)
    trace_misses(scores, products, np.array([count]), k, states, expected[np.newaxis])
    for check in range(count // STEP + 1):
        seen = check * STEP
        if not max(FIRST_CHECK, k + 2) <= seen < count:
            assert expected[0, check] == -1
            continue
        wanted = misses_by_hand(scores[0], products[0], k, slope, 0.05, seen)
        assert expected[0, check] == pytest.approx(wanted, abs=4e-5 * count)


@given(some.seeds, st.lists(st.integers(1, 60), min_size=1, max_size=6).map(sorted))
def test_misses_below_a_cap_are_those_of_a_ranking_that_ends_there(seed: int, caps: list[int]) -> None:
    rng = np.random.default_rng(seed)
    products = -np.sort(-rng.standard_normal((2, 60))).astype(np.float32)
    scores = (products + 0.3 * rng.standard_normal(products.shape)).astype(np.float32)
    states = np.zeros((2, STATE))
    states[:, SLOPE], states[:, VARIANCE] = 1.0, 0.05
    together = np.full((len(caps), 2, 60 // STEP + 1), -1.0)
    trace_misses(scores, products, np.array(caps), 3, states.copy(), together)
    for cap, traced in zip(caps, together, strict=True):
        alone = np.full((1, 2, 60 // STEP + 1), -1.0)
        cut = np.ascontiguousarray(scores[:, :cap]), np.ascontiguousarray(products[:, :cap])
        trace_misses(*cut, np.array([cap]), 3, states.copy(), alone)
        np.testing.assert_array_equal(traced, alone[0])


@given(some.seeds, st.integers(1, 8))
def test_lower_products_of_the_rest_mean_fewer_expected_misses(seed: int, k: int) -> None:
    """Monotony in the products of the remaining candidates.

    Those already ranked stay the same.
    """
    rng = np.random.default_rng(seed)
    products = -np.sort(-rng.standard_normal((1, 40))).astype(np.float32)
    lower = products.copy()
    lower[0, 20:] -= np.float32(0.5)
    scores = (products + 0.3 * rng.standard_normal(products.shape)).astype(np.float32)
    results = []
    for own in (products, lower):
        states = np.zeros((1, STATE))
        states[:, SLOPE], states[:, VARIANCE] = 1.0, 0.05
        expected = np.zeros((1, 11))
        trace_misses(scores[:, :20], own, np.array([40]), k, states, expected[np.newaxis])
        results.append(expected[0])
    assert (results[1] <= results[0] + 1e-12).all()


# -- heaps and estimates ------------------------------------------------------


@kernel
def _enter_all(scores: Any, heap: Any) -> None:
    for i in range(scores.shape[0]):
        if scores[i] > heap[0]:
            enter(heap, scores[i])


@given(st.lists(SCORES, max_size=40), st.integers(1, 20))
def test_a_heap_keeps_the_greatest_scores_and_begins_with_the_smallest(scores: list[float], k: int) -> None:
    """Definition: the entries are the k greatest scores, or -inf if there are fewer."""
    heap = np.full(k, -np.inf, np.float32)
    _enter_all(np.array(scores, np.float32), heap)
    expected = sorted([*scores, *[-np.inf] * k], reverse=True)[:k]
    assert sorted(heap.tolist(), reverse=True) == expected and heap[0] == expected[-1]


@kernel
def _judge(scores: Any, estimates: Any, heap: Any, out: Any) -> None:
    errors = np.zeros(3, np.float64)
    for i in range(scores.shape[0]):
        out[i] = excluded(i, estimates, errors, heap)
        record_error(i, scores[i], estimates, errors)


def excluded_by_hand(scores: Any, estimates: Any, least: float, k: int, i: int) -> bool:
    """The estimate plus five standard deviations is below the smallest score.

    The heap has the k best scores.
    """
    seen = scores[:i] > -np.inf
    errors = scores[:i][seen].astype(np.float64) - estimates[:i][seen]
    if len(errors) < max(k, 8):
        return False
    return bool(estimates[i] + errors.mean() + 5 * errors.std(ddof=1) < least)


@given(some.seeds, st.integers(1, 30), st.integers(1, 12), st.floats(-2, 2), st.sampled_from([0.05, 0.4]))
def test_an_estimate_is_excluded_at_five_standard_deviations(
    seed: int, count: int, k: int, least: float, noise: float
) -> None:
    """Definition by NumPy, after at least 8 and k errors.

    Scores of -inf have no error.
    """
    rng = np.random.default_rng(seed)
    estimates = rng.standard_normal(count).astype(np.float32)
    scores = (estimates + 0.3 + noise * rng.standard_normal(count)).astype(np.float32)
    scores[rng.random(count) < 0.2] = -np.inf
    heap, out = np.full(k, least, np.float32), np.zeros(count, bool)
    _judge(scores, estimates, heap, out)
    expected = [excluded_by_hand(scores, estimates, float(heap[0]), k, i) for i in range(count)]
    assert out.tolist() == expected


def test_without_estimates_nothing_is_excluded() -> None:
    out = np.ones(20, bool)
    _judge(np.arange(20, dtype=np.float32), np.empty(0, np.float32), np.full(1, 1e9, np.float32), out)
    assert not out.any()
