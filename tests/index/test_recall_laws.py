"""Laws of the recall dial: levels by target, stops, weighted shares.

Also laws of hybrid search.
"""

from typing import Any

import numpy as np
import pytest
import strategies as some
from hypothesis import given, settings
from hypothesis import strategies as st

from muvera import MultiVectors, MuveraIndex, Ranking, hybrid_search, top_k
from muvera.index import calibration as dial
from muvera.index.calibration import TARGETS, Calibration, Dial, Level, MeasuredWindows, QueryGroup
from muvera.kernels.selection import LEAST, LIMIT, SLOPE, STATE, STEP, VARIANCE, trace_misses
from muvera.reranking.pruning import RerankOptions, score_candidates


def drawn(seed: int, count: int = 20, width: int = 96) -> tuple[Any, Any, Any, Any]:
    """Return products, scores, marks of the 10 best, and states.

    The queries are of one distribution.
    """
    rng = np.random.default_rng(seed)
    products = -np.sort(-rng.gumbel(size=(count, width)), axis=1).astype(np.float32)
    scores = (0.8 * products + 0.7 * rng.standard_normal(products.shape)).astype(np.float32)
    best = np.zeros(scores.shape, bool)
    np.put_along_axis(best, np.argsort(-scores, axis=1)[:, :10], True, axis=1)
    states = np.zeros((count, STATE))
    states[:, SLOPE], states[:, VARIANCE] = 0.8, 0.49
    return products, scores, best, states


def levels_of(seed: int, within: float = 1.0) -> tuple[Level, ...]:
    products, scores, best, states = drawn(seed)
    return dial._levels(TARGETS, within, products, scores, best, states)


@settings(max_examples=15)
@given(some.seeds, st.floats(0.9, 1.0))
def test_higher_targets_rank_more(seed: int, within: float) -> None:
    """Monotony: the fixed number and the cap never fall with the target.

    The cap has its bounds.
    """
    levels = levels_of(seed, within)
    caps = [level.cap for level in levels]
    assert caps == sorted(caps) and all(30 <= cap <= 96 for cap in caps)
    assert all(cap % 16 == 0 for cap in caps)
    fixed = [level.fixed for level in levels]
    assert fixed == sorted(fixed) and fixed[-1] <= 96


@settings(max_examples=15)
@given(some.seeds, st.floats(0.5, 0.99))
def test_what_the_candidates_lack_raises_what_they_must_reach(seed: int, within: float) -> None:
    """A level is that of all the best at ``target / within``, and reaches less."""
    products, scores, best, states = drawn(seed)
    raised = tuple(target / within for target in TARGETS)
    whole = dial._levels(raised, 1.0, products, scores, best, states)
    for level, other in zip(levels_of(seed, within), whole, strict=True):
        assert level[1:4] == other[1:4]
        if other.target <= 1 and other.stopped != other.target:
            assert level.stopped == pytest.approx(within * other.stopped)


def test_without_any_exact_best_every_candidate_is_ranked() -> None:
    assert {(level.fixed, level.cap, level.limit) for level in levels_of(0, within=0.0)} == {(96, 96, 0.0)}


@settings(max_examples=15)
@given(some.seeds, st.sampled_from(TARGETS))
def test_a_level_reaches_its_target_on_the_calibrations_queries(seed: int, target: float) -> None:
    """Control: the mean recall when stopping is at least the target.

    The worst query counts twice.
    """
    products, scores, best, states = drawn(seed)
    level = dial._levels((target,), 1.0, products, scores, best, states)[0]
    expected = np.full((20, level.cap // STEP + 1), np.inf)
    caps = np.array([level.cap])
    trace_misses(scores[:, : level.cap], products[:, : level.cap], caps, 10, states, expected[np.newaxis])
    expected[:, : level.fixed // 2 // STEP + 1] = np.inf  # no query stops yet
    below = expected <= level.limit * 10 * (1 + 1e-12)
    ends = np.where(below.any(axis=1), below.argmax(axis=1) * STEP, level.cap)
    recalls = np.array([best[q, : ends[q]].sum() / 10 for q in range(20)])
    worst_twice = (recalls.sum() + recalls.min()) / 21
    stopped = recalls[ends < level.cap]
    assert level.stopped == pytest.approx(stopped.mean() if len(stopped) else target)
    assert level.limit == 0 or worst_twice >= target - 1e-9
    # The cap may cause half of the misses.
    assert best[:, : level.cap].sum() / best.sum() >= 1 - 0.5 * (1 - target) - 1e-8


@pytest.mark.parametrize("entries", [1, 700])
def test_levels_that_are_traced_together_are_those_of_each(entries: int, monkeypatch: Any) -> None:
    products, scores, best, states = drawn(3)
    together = dial._levels(TARGETS, 0.99, products, scores, best, states)
    single = [dial._levels((target,), 0.99, products, scores, best, states) for target in TARGETS]
    monkeypatch.setattr(dial, "_TRACED", entries)
    assert together == dial._levels(TARGETS, 0.99, products, scores, best, states)
    assert together == tuple(level for levels in single for level in levels)


@given(some.seeds, st.floats(0.01, 1.0))
def test_a_number_of_candidates_is_the_smallest_that_reaches_the_recall(seed: int, recall: float) -> None:
    """Definition: the mean share of the best among the first n candidates.

    The number is the smallest n.
    """
    best = drawn(seed, 7)[2]
    number = dial._number(best, recall)
    shares = [best[:, :n].sum() / best.sum() for n in range(best.shape[1] + 1)]
    assert shares[number] >= recall - 1e-8 and shares[number - 1] < recall
    numbers = list(dial.numbers_of(best).values())
    assert numbers == sorted(numbers)


LEVELS = tuple(Level(target, 10, 30 + 16 * i, 0.1 / (1 + i), 0.9, 0.95) for i, target in enumerate(TARGETS))
GROUP = QueryGroup(0, 0.7, 0.2, LEVELS)
CALIBRATION = Calibration((GROUP,), 100, 64, True, "floats")


@given(st.floats(0.001, 0.9999), st.integers(1, 100))
def test_a_search_takes_the_lowest_level_that_suffices(recall: float, k: int) -> None:
    """The level's target is at least the recall, and no lower one is.

    Its cap has room for 3 k documents.
    """
    level = GROUP.level(recall, k)
    assert level.target >= recall
    assert not any(recall <= other.target < level.target for other in LEVELS)
    expected = LEVELS[TARGETS.index(level.target)]
    assert level.cap == max(expected.cap, 3 * k) and level.limit == expected.limit


@given(st.lists(st.integers(1, 40), max_size=5), st.sampled_from(LEVELS), st.integers(1, 50))
def test_stops_scale_with_tokens_and_results(tokens: list[int], level: Level, k: int) -> None:
    """Units: variance grows with the query's tokens.

    The limit of expected misses grows with k.
    """
    for count in tokens:
        stop = Dial(GROUP, level).stop(np.zeros(3, np.float32), count, k)
        assert stop.state[VARIANCE] == 0.2 * count and stop.state[SLOPE] == 0.7
        assert stop.state[LIMIT] == level.limit * k
        assert stop.state[LEAST] == level.fixed // 2 and np.count_nonzero(stop.state) == 4


@settings(max_examples=15)
@given(some.seeds, st.integers(1, 10), st.floats(0.001, 0.5), st.floats(1, 4), st.integers(0, 60))
def test_a_higher_limit_stops_no_later(seed: int, k: int, limit: float, times: float, fixed: int) -> None:
    """Ranked candidates are a prefix, which a higher limit shortens.

    They end where the misses reach the limit, after half of the fixed number.
    """
    rng = np.random.default_rng(seed)
    documents = MultiVectors.from_flat(rng.standard_normal((120, 4)).astype(np.float32), [2] * 60)
    query = rng.standard_normal((3, 4)).astype(np.float32)
    exact = score_candidates(query, [(documents, np.arange(60))], RerankOptions(60, early_exit=False))
    products = (exact + 0.5 * rng.standard_normal(60)).astype(np.float32)
    order = np.argsort(-products)
    ranked = []
    for own in (limit, limit * times):
        level = Level(0.9, fixed, 60, own, 1.0, 1.0)
        stop = Dial(QueryGroup(0, 1.0, 0.1, (level,)), level).stop(products[order], 3, k)
        options = RerankOptions(k, early_exit=False, stop=stop)
        scores = score_candidates(query, [(documents, order)], options)
        count = int((scores > -np.inf).sum())
        np.testing.assert_array_equal(scores[:count], exact[order][:count])
        # Definition: at the first check after half of the fixed number whose expected
        # misses are at most the limit.
        states, misses = np.zeros((1, STATE)), np.full((1, 60 // STEP + 1), np.inf)
        states[:, SLOPE], states[:, VARIANCE] = 1.0, 0.3
        traced = exact[order][np.newaxis], products[order][np.newaxis]
        trace_misses(*traced, np.array([60]), k, states, misses[np.newaxis])
        misses[:, : fixed // 2 // STEP + 1] = np.inf
        checks = np.flatnonzero(misses[0] <= own * k)
        assert count == (checks[0] * STEP if len(checks) else 60)
        ranked.append(count)
    assert max(12, k + 2) <= ranked[1] <= ranked[0]


@given(st.lists(st.floats(0, 1), max_size=40), st.integers(0, 200), st.data())
def test_shares_are_weighted_by_the_size_of_their_group(
    shares: list[float], fitted: int, data: st.DataObject
) -> None:
    """The recall of all documents is the mean of old and new windows.

    The weights are the numbers of documents.
    """
    rows = np.array(data.draw(st.permutations(range(200)))[: len(shares)], np.int64)
    # Most rows are left, so that there often are old and new windows.
    live = np.setdiff1d(np.arange(200), data.draw(st.lists(st.integers(0, 199), max_size=199)))
    own = np.array(shares, np.float64)
    windows = MeasuredWindows(rows, own, 200, 200, 200)
    found = windows.first_stage(live, fitted)
    known = np.isin(rows, live)
    total, weights = 0.0, 0
    for group, size in (
        (own[known & (rows < fitted)], int((live < fitted).sum())),
        (own[known & (rows >= fitted)], int((live >= fitted).sum())),
    ):
        if len(group):
            total, weights = total + size * float(group.mean()), weights + size
    if not weights:
        assert found.everything is None and found.added is None
        return
    assert found.everything is not None and found.everything.recall == pytest.approx(total / weights)
    assert found.everything.queries == known.sum()
    assert (found.added is not None) == ((known & (rows >= fitted)).sum() >= 8)


@given(st.lists(st.floats(0, 1), min_size=8, max_size=30), st.lists(st.floats(0, 1), max_size=30))
def test_a_warning_needs_a_clearly_lower_recall(new: list[float], old: list[float]) -> None:
    """No warning at a recall of .95, nor if new documents are as good."""
    later, earlier = np.array(new), np.array(old)
    before = float(earlier.mean()) if old else 1.0
    warning = dial._warning(earlier, later)
    if warning is not None:
        assert later.mean() < min(0.95, before - 0.02)
    if not old and later.mean() < 0.8 and later.std() < 0.2:
        assert warning is not None
    better = np.minimum(1, later + 0.1)
    assert dial._warning(earlier, better) is None or warning is not None


@given(st.lists(st.floats(0, 1), max_size=9), st.integers(0, 99))
def test_windows_and_calibrations_survive_their_dictionaries(shares: list[float], size: int) -> None:
    """Round trip through plain values."""
    windows = MeasuredWindows(np.arange(len(shares)), np.array(shares, np.float64), 5, 6, size)
    again = MeasuredWindows.from_dict(windows.to_dict(), size)
    np.testing.assert_array_equal(again.shares, windows.shares)
    np.testing.assert_array_equal(again.rows, windows.rows)
    assert (again.stop, again.documents, again.size) == (5, 6, size)
    assert Calibration.from_dict(CALIBRATION.to_dict()) == CALIBRATION


# -- hybrid search ------------------------------------------------------------

IDS = [f"d{i}" for i in range(30)]
RNG = np.random.default_rng(0)
DOCUMENTS = MultiVectors.from_arrays([RNG.normal(size=(3, 8)) for _ in IDS], ids=IDS)
QUERIES = MultiVectors.from_arrays([RNG.normal(size=(3, 8)) for _ in range(2)])
NAMES = st.lists(st.sampled_from([*IDS, "unknown"]), unique=True, max_size=8)


@pytest.fixture(scope="module")
def index() -> MuveraIndex:
    return MuveraIndex.build(DOCUMENTS)


def ranking(names: list[str]) -> Ranking:
    return Ranking(np.array(names, np.str_), np.arange(len(names), 0, -1, dtype=np.float32))


@settings(max_examples=15)
@given(st.lists(NAMES, min_size=4, max_size=4), st.integers(1, 9), st.integers(0, 9))
def test_hybrid_search_ranks_the_union_by_exact_scores(
    index: MuveraIndex, names: list[list[str]], k: int, candidates: int
) -> None:
    """Without weights the result is the exact ranking of all proposals.

    The order of the sources does not matter.
    """
    sources = {"words": [ranking(own) for own in names[:2]], "others": [ranking(own) for own in names[2:]]}
    found = hybrid_search(index, QUERIES, sources, k, candidates=candidates)
    swapped = dict(reversed(sources.items()))
    again = hybrid_search(index, QUERIES, swapped, k, candidates=candidates)
    for q, exact in enumerate(top_k(QUERIES, DOCUMENTS, 30)):
        proposed = {*names[q], *names[q + 2]}
        if candidates:
            proposed.update(index.search(QUERIES[q], candidates, candidates=candidates)[0].ids.tolist())
        assert list(found[q]) == [pair for pair in exact if pair[0] in proposed][:k]
        assert list(again[q]) == list(found[q])


@settings(max_examples=15)
@given(st.lists(NAMES, min_size=2, max_size=2), NAMES)
def test_hybrid_weights_are_relative_and_ids_restrict_the_result(
    index: MuveraIndex, names: list[list[str]], allowed: list[str]
) -> None:
    """Scaling all weights changes no order, and every result is allowed.

    A smaller k cuts the list.
    """
    sources = {"words": [ranking(own) for own in names]}
    weights = {"maxsim": 0.5, "words": 1.0}
    call: Any = {"candidates": 10, "method": "rrf", "ids": allowed}
    found = hybrid_search(index, QUERIES, sources, 9, weights=weights, **call)
    double = {source: 2 * weight for source, weight in weights.items()}
    scaled = hybrid_search(index, QUERIES, sources, 9, weights=double, **call)
    short = hybrid_search(index, QUERIES, sources, 2, weights=weights, **call)
    for q in range(2):
        assert found[q].ids.tolist() == scaled[q].ids.tolist()
        assert set(found[q].ids.tolist()) <= set(allowed) - {"unknown"}
        assert list(short[q]) == list(found[q])[:2]
