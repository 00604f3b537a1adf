"""The recall dial: calibration keeps a mean recall.

Results equal those of some fixed number of candidates.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import strategies as some
from builders.indexes import recall
from builders.realistic_collections import DIM, documents_like_real, queries_like_real
from hypothesis import assume, given
from hypothesis import strategies as st

from muvera import MultiVectors, MuveraIndex, top_k
from muvera.index import calibration as dial
from muvera.index.calibration import TARGETS, Calibration, QueryGroup
from muvera.kernels.selection import SLOPE, STATE, STEP, VARIANCE, trace_misses

DOCUMENTS = documents_like_real(1300)
QUERIES = queries_like_real(DOCUMENTS, 40)


@pytest.fixture(scope="module")
def index() -> MuveraIndex:
    built = MuveraIndex.build(DOCUMENTS[:1000], "mean", exact_tokens=0, backend="exact")
    built.add(DOCUMENTS[1000:])  # two segments of tokens
    return built


def drawn(stream: np.random.Generator, count: int) -> tuple[Any, Any, Any]:
    """Return products and scores of queries from one distribution.

    Their errors do not fit the error model.
    """
    products = -np.sort(-stream.gumbel(size=(count, 300)), axis=1).astype(np.float32)
    tokens = stream.integers(4, 40, count)
    noise = (
        stream.standard_t(4, products.shape) * stream.gamma(4, 0.05, (count, 1)) * np.sqrt(tokens)[:, None]
    )
    scores = (0.7 * products + noise + stream.normal(size=(count, 1))).astype(np.float32)
    best = np.zeros(scores.shape, bool)
    np.put_along_axis(best, np.argsort(-scores, axis=1)[:, :10], True, axis=1)
    return products, scores, (best, tokens)


@pytest.mark.parametrize("target", [0.8, 0.9, 0.95, 0.98])
def test_the_calibration_keeps_the_mean_recall_of_exchangeable_queries(target: float) -> None:
    """Mean over 12 calibrations with 128 queries each.

    The recall is that of 500 other queries of the same distribution.

    A calibration's own mean recall is at least the target.  A query's recall has a
    standard deviation of at most .2 here, so that the mean of 12 calibrations is off by
    .2 / sqrt(12 * 128) = .005: three of these are allowed.
    """
    stream = np.random.default_rng(0)
    means = []
    for _ in range(12):
        products, scores, (best, tokens) = drawn(stream, 628)
        slope, variance = dial._error_model(products[:128], scores[:128], tokens[:128])
        states = np.zeros((628, STATE))
        states[:, SLOPE], states[:, VARIANCE] = slope, variance * tokens
        level = dial._levels((target,), 1.0, products[:128], scores[:128], best[:128], states[:128])[0]
        assert level.stopped * 128 > 0 and level.cap <= 300
        cut = slice(128, None), slice(0, level.cap)
        expected = np.full((500, level.cap // STEP + 1), np.inf)
        caps = np.array([level.cap])
        trace_misses(scores[cut], products[cut], caps, 10, states[128:], expected[np.newaxis])
        expected[:, : level.fixed // 2 // STEP + 1] = np.inf  # no query stops yet
        stops = np.where(
            (expected <= level.limit * 10).any(axis=1),
            (expected <= level.limit * 10).argmax(axis=1) * STEP,
            level.cap,
        )
        ranked = np.arange(level.cap) < stops[:, None]
        means.append((best[cut] & ranked).sum() / (10 * 500))
    assert target - 0.015 < np.mean(means) < target + 0.3 * (1 - target) + 0.015


def test_more_recall_ranks_more(index: MuveraIndex) -> None:
    calibration = index.contents.candidates.calibration  # type: ignore[union-attr]
    assert calibration is not None and calibration.pseudo_queries
    for group in calibration.groups:
        assert [level.target for level in group.levels] == list(TARGETS)
        assert np.all(np.diff([level.cap for level in group.levels]) >= 0)
        assert group.level(0.91, 10).target == 0.925 and group.level(0.9999, 10).target == 1
    shares = []
    for target in (0.5, 0.9, 0.98):
        rankings = index.search(QUERIES, 10, recall=target)
        shares.append(recall(rankings, top_k(QUERIES, DOCUMENTS, 10)))
        levels = [
            calibration.group(count).level(target, 10) for count in dial.distinct_tokens(QUERIES).tolist()
        ]
        expected = [{level.stopped, level.capped} for level in levels]
        assert all(own.expected_recall in pair for own, pair in zip(rankings, expected, strict=True))
    assert shares == sorted(shares) and shares[-1] > 0.93


@pytest.mark.parametrize("tokens", ["float32", "int8", "2bit"])
def test_a_search_is_that_of_some_number_of_candidates(tokens: Any, tmp_path: Path) -> None:
    index = MuveraIndex.build(DOCUMENTS[:1000], "mean", exact_tokens=0, backend="exact", tokens=tokens)
    index.add(DOCUMENTS[1000:])
    got = index.search(QUERIES, 10, recall=0.9)
    for q, ranking in enumerate(got[:12]):
        ways = [index.search(QUERIES[q], 10, candidates=count)[0] for count in range(12, 240, STEP)]
        assert any(list(ranking) == list(way) for way in ways)
    index.save(tmp_path / "index")
    loaded = MuveraIndex.load(tmp_path / "index")
    for rankings in (
        index.search(QUERIES, 10, recall=0.9, threads=2),
        [index.search(query, 10, recall=0.9, threads=2)[0] for query in QUERIES],
        loaded.search(QUERIES, 10, recall=0.9, threads=1),
    ):
        assert [list(ranking) for ranking in rankings] == [list(ranking) for ranking in got]
        assert [ranking.expected_recall for ranking in rankings] == [r.expected_recall for r in got]


def test_calibrate_with_real_queries(index: MuveraIndex, tmp_path: Path) -> None:
    index.save(tmp_path / "index")
    loaded = MuveraIndex.load(tmp_path / "index")
    before = loaded.contents
    loaded.calibrate([*queries_like_real(DOCUMENTS, 70, seed=5), np.empty((0, DIM))])
    calibration = loaded.contents.candidates.calibration  # type: ignore[union-attr]
    assert calibration is not None and calibration.queries == 70 and not calibration.pseudo_queries
    assert before.candidates.calibration.pseudo_queries  # type: ignore[union-attr]
    loaded.save(tmp_path / "index")
    again = MuveraIndex.load(tmp_path / "index").contents.candidates
    assert again is not None and again.calibration == calibration


def test_it_is_measured_again_once_the_index_has_doubled() -> None:
    index = MuveraIndex.build(DOCUMENTS[:300], "mean", exact_tokens=0)
    sizes = []
    for start, stop in ((300, 400), (400, 1300)):
        index.add(DOCUMENTS[start:stop])
        sizes.append(index.contents.candidates.calibration.documents)  # type: ignore[union-attr]
    assert sizes == [int((DOCUMENTS[:count].lengths > 0).sum()) for count in (300, 1300)]
    assert index.candidates_by_recall[0.9] >= 10


def test_everything_is_ranked_where_nothing_is_calibrated(
    index: MuveraIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = MuveraIndex.build(DOCUMENTS[:40], "mean", exact_tokens=0)
    small = MuveraIndex.build(DOCUMENTS[:300], "mean")  # reads all tokens
    for each, count in ((few, 40), (small, 300)):
        rankings = each.search(QUERIES, 5, recall=0.9)
        assert [list(r) for r in rankings] == [list(r) for r in top_k(QUERIES, DOCUMENTS[:count], 5)]
        assert {ranking.expected_recall for ranking in rankings} == {1.0}
    assert index.search(QUERIES[:1], 5)[0].expected_recall is None
    some = index.search(QUERIES[:1], 5, ids=range(20), recall=0.9)[0]
    assert some.expected_recall == 1 and some[:2].expected_recall == 1
    assert len(index.search([QUERIES[0], np.empty((0, DIM))], 5, recall=0.9)[1]) == 0
    assert index.contents.candidates is not None
    without = dataclasses.replace(index.contents.candidates, calibration=None)
    monkeypatch.setattr(index, "_contents", dataclasses.replace(index.contents, candidates=without))
    with pytest.raises(ValueError, match=r"recall=0.9 needs a calibration, .* calibrate"):
        index.search(QUERIES, 5, recall=0.9)


@pytest.mark.parametrize(("count", "number"), [(1, 0), (4, 0), (5, 0), (9, 1), (31, 2), (32, 3), (99, 3)])
def test_a_query_takes_the_limits_of_windows_with_no_more_tokens(
    index: MuveraIndex, count: int, number: int
) -> None:
    candidates = index.contents.candidates
    assert candidates is not None and candidates.calibration is not None
    windows = candidates.calibration.groups
    groups = [
        group._replace(least=least) for group, least in zip(windows, (4.0, 7.9, 15.2, 31.5), strict=True)
    ]
    calibrated = dataclasses.replace(candidates.calibration, groups=tuple(groups))
    candidates = dataclasses.replace(candidates, calibration=calibrated)
    different = np.eye(99, dtype=np.float32)  # tokens that have nothing in common
    queries = [different[:40], different[:count], np.repeat(different[:count], 3, axis=0)]
    dials = candidates.dials(0.9, 10, MultiVectors.from_arrays(queries))
    assert dials is not None and [dial.group for dial in dials] == [groups[3], groups[number], groups[number]]


@given(some.seeds, st.integers(0, 30), st.integers(1, 9), st.integers(2, 40))
def test_tokens_that_are_like_earlier_ones_are_not_distinct(
    seed: int, count: int, kinds: int, dimension: int
) -> None:
    """Definition, token by token.  Neither norms nor other queries matter."""
    rng = np.random.default_rng(seed)
    centers = rng.standard_normal((kinds, dimension))
    tokens = centers[rng.integers(0, kinds, count)] + 0.2 * rng.standard_normal((count, dimension))
    tokens = (tokens * rng.uniform(0.1, 9, (count, 1))).astype(np.float32)
    unit = tokens / np.linalg.norm(tokens, axis=1, keepdims=True)
    kept: list[int] = []
    for i in range(count):
        cosines = unit[kept] @ unit[i]
        assume(np.all(np.abs(cosines - 0.9) > 1e-5))
        if not np.any(cosines > 0.9):
            kept.append(i)
    queries = MultiVectors.from_arrays([tokens[:1], tokens, tokens[:0]], dimension=dimension)
    assert dial.distinct_tokens(queries).tolist() == [min(count, 1), len(kept), 0]


def test_short_queries_reach_the_recall_too() -> None:
    """The limits of longer windows promise short queries too much: .887 for .9.

    The mean recall of 1,500 queries has a standard error of .004: two are allowed.
    """
    documents = documents_like_real(4100)
    index = MuveraIndex.build(documents[:2600], "simhash", exact_tokens=0)
    queries = [document[:2] for document in documents[2600:] if len(document) > 1]
    best = index.search(queries, 10, candidates=2600)
    for target in (0.9, 0.95):
        assert recall(index.search(queries, 10, recall=target), best) > target - 0.008


def test_the_limits_of_an_older_folder_are_for_queries_of_any_length(index: MuveraIndex) -> None:
    candidates = index.contents.candidates
    assert candidates is not None and candidates.calibration is not None
    values = candidates.calibration.to_dict()
    _, slope, variance, levels = candidates.calibration.groups[1]
    del values["groups"]
    older = {**values, "slope": slope, "variance": variance, "levels": [list(level) for level in levels]}
    loaded = Calibration.from_dict(older)
    assert loaded.groups == (QueryGroup(0, slope, variance, levels),)
    assert loaded.group(1) == loaded.group(100) == loaded.groups[0]


def test_large_k_and_single_tokens(index: MuveraIndex) -> None:
    queries = MultiVectors.from_arrays([query[:1] for query in QUERIES])
    assert recall(index.search(queries, 100, recall=0.9), top_k(queries, DOCUMENTS, 100)) > 0.7
    assert [len(r) for r in index.search(queries, 1, recall=0.9)] == [1] * len(queries)
