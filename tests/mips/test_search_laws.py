"""Laws of the vector searches: error bounds, parts, filters, removals.

They hold for any batch and number of threads.
"""

import math
from collections.abc import Iterator
from copy import copy
from typing import Any

import numpy as np
import pytest
import strategies as some
from builders.vectors import filled
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import muvera.mips.base as base
import muvera.mips.exact as exact_module
import muvera.mips.scan as scan_module
from muvera.kernels.scan import make_tables
from muvera.mips.codebook import paired_columns
from muvera.mips.exact import ExactSearch, rounded
from muvera.mips.hnsw import HNSWSearch
from muvera.mips.scan import ScanSearch
from muvera.mips.settings import HNSWSettings

DIM = 20


def hnsw(dimension: int) -> HNSWSearch:
    return HNSWSearch(dimension, HNSWSettings(m=4, ef_construction=20, ef=20))


each_search = pytest.mark.parametrize("make", [ExactSearch, ScanSearch, hnsw], ids=["exact", "scan", "hnsw"])

#: A fixture of a module's settings serves all examples of a test.
shared_fixture = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)


def vectors_of(seed: int, count: int, dimension: int = DIM, kind: str = "normal") -> Any:
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((count, dimension))
    if kind == "lengths":
        vectors *= np.exp(rng.standard_normal((count, 1)))
    if kind == "ties":
        vectors = np.rint(vectors)
    if kind == "alike":
        vectors = vectors[:1] + 1e-4 * vectors
    return vectors.astype(np.float32)


KINDS = st.sampled_from(["normal", "lengths", "ties", "alike"])


@pytest.fixture
def few_by_bytes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Use codes from 65 rows on, order 8 rows by bytes, and never fit again."""
    for name, value in (("_FEW", 8), ("_MIN_BY_BYTES", 8), ("_BY_BYTES", 0), ("_GROWTH", 10**9)):
        monkeypatch.setattr(scan_module, name, value)
    monkeypatch.setattr(scan_module, "_BLOCKS_PER_TASK", 1)
    yield


# -- every search -------------------------------------------------------------


@each_search
@settings(max_examples=12)
@given(some.seeds, st.integers(1, 60), KINDS, st.integers(1, 70))
def test_results_are_true_products_in_order_without_repeats(
    make: Any, seed: int, count: int, kind: str, k: int
) -> None:
    """Soundness: each score is the product of its label.

    The margin is bytes' bound, or 3e-6 of the lengths.
    """
    vectors, queries = vectors_of(seed, count, kind=kind), vectors_of(seed + 1, 3)
    labels, scores = filled(make(DIM), vectors).search(queries, k)
    wanted = min(k, count)
    assert labels.shape == scores.shape == (3, k) and (labels[:, wanted:] == -1).all()
    found = labels[:, :wanted]
    assert all(len(set(row)) == wanted for row in found.tolist()) and (found >= 0).all()
    lengths = np.linalg.norm(queries, axis=1, keepdims=True)
    exact = np.take_along_axis(queries.astype(np.float64) @ vectors.T, found, 1)
    bounds = rounded(vectors, 1)[-1] if make is ScanSearch else 4e-6 * np.linalg.norm(vectors, axis=1).max()
    bounds = np.broadcast_to(bounds, count)[found] * lengths * 1.000001
    assert (np.abs(scores[:, :wanted] - exact) <= bounds).all()
    assert (scores[:, wanted:] == -np.inf).all() and (np.diff(scores[:, :wanted], axis=1) <= 0).all()


@each_search
@settings(max_examples=10)
@given(some.seeds, st.integers(1, 60), st.data())
def test_results_are_allowed_and_not_removed(make: Any, seed: int, count: int, data: st.DataObject) -> None:
    """Filters: as many results as visible vectors.

    There is never a removed or unknown label.
    """
    search = filled(make(DIM), vectors_of(seed, count), 3 * np.arange(count))
    numbers = st.sets(st.integers(0, count - 1), max_size=count)
    removed = 3 * np.array(sorted(data.draw(numbers)), np.int64)
    allowed = np.array([3 * i for i in data.draw(st.lists(st.integers(0, count + 2)))], np.int64)
    search.remove(removed)
    visible = np.setdiff1d(3 * np.arange(count), removed)
    for chosen, own in ((None, visible), (allowed, np.intersect1d(visible, allowed))):
        for labels in search.search(vectors_of(seed + 1, 2), count, allowed=chosen)[0]:
            assert sorted(labels[labels >= 0].tolist()) == own.tolist()
    assert search.labels().tolist() == visible.tolist() and len(search) == len(visible)


@each_search
@settings(max_examples=8)
@given(some.seeds, st.integers(2, 50), st.data())
def test_a_removal_leaves_the_rest_of_the_results(
    make: Any, seed: int, count: int, data: st.DataObject
) -> None:
    """Independence: all results are those of a filter with the same labels.

    A copy's results do not change.
    """
    search, queries = filled(make(DIM), vectors_of(seed, count)), vectors_of(seed + 1, 2)
    expected = search.search(queries, count)
    before = copy(search)
    removed = np.array(sorted(data.draw(st.sets(st.integers(0, count - 1), min_size=1))), np.int64)
    search.remove(removed)
    rest = np.setdiff1d(np.arange(count), removed)
    found, filtered = search.search(queries, count), before.search(queries, count, allowed=rest)
    # A graph computes a product by cosines or by floats, depending on how it finds it.
    np.testing.assert_allclose(found[1], filtered[1], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(before.search(queries, count), expected)
    np.testing.assert_array_equal(before.labels(), np.arange(count))


@each_search
@settings(max_examples=8)
@given(some.seeds, st.integers(1, 60), st.integers(1, 5))
def test_a_query_alone_has_the_bits_of_the_batch(make: Any, seed: int, count: int, queries: int) -> None:
    """Batches and threads: results depend on the query and the vectors only."""
    search, rows = filled(make(DIM), vectors_of(seed, count)), vectors_of(seed + 1, queries)
    together = search.search(rows, 7, threads=2)
    for q in range(queries):
        alone = search.search(rows[q : q + 1], 7, threads=1)
        np.testing.assert_array_equal(alone, [part[q : q + 1] for part in together])


@each_search
@settings(max_examples=8)
@given(some.seeds, st.integers(1, 60), st.integers(-6, 6))
def test_scaling_a_query_scales_its_scores(make: Any, seed: int, count: int, exponent: int) -> None:
    """Homogeneity: a power of two changes no label and scales the scores.

    Scores are exact, but a graph's only up to rounding.
    """
    search, rows = filled(make(DIM), vectors_of(seed, count)), vectors_of(seed + 1, 2)
    labels, scores = search.search(rows, 9)
    scaled_labels, scaled = search.search(rows * np.float32(2.0**exponent), 9)
    if make is hnsw:  # distances are 1 minus a cosine of any length
        np.testing.assert_allclose(scaled, scores * 2.0**exponent, rtol=1e-3, atol=1e-4 * 2.0**exponent)
    else:
        np.testing.assert_array_equal(scaled_labels, labels)
        np.testing.assert_array_equal(scaled, scores * np.float32(2.0**exponent))


@each_search
@settings(max_examples=8)
@given(some.seeds, st.integers(1, 60), st.data())
def test_stored_vectors_are_the_added_ones(make: Any, seed: int, count: int, data: st.DataObject) -> None:
    """Round trip: exact for floats, half a 127th for bytes.

    Bytes are relative to the largest entry; cosines have rounding.
    """
    vectors = vectors_of(seed, count, kind="lengths")
    search = filled(make(DIM), vectors, 2 * np.arange(count), step=data.draw(st.integers(1, 60)))
    chosen = np.array(data.draw(st.lists(st.integers(0, count - 1), max_size=9)), np.int64)
    found, expected = search.vectors(2 * chosen), vectors[chosen]
    peaks = np.abs(expected).max(axis=1, keepdims=True, initial=0)
    slack = {ExactSearch: 0.0, ScanSearch: 0.5001 / 127}.get(make, 2e-6)
    assert found.shape == expected.shape and (np.abs(found - expected) <= slack * peaks * 1.0001).all()


# -- exact search -------------------------------------------------------------


@pytest.fixture
def bytes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact_module, "_BYTES_FROM", 0)
    monkeypatch.setattr(exact_module, "_MOST_READ", 1.0)


class FloatSearch(ExactSearch):
    """Reads the floats of all vectors."""

    def _by_bytes(self, *arguments: Any) -> None:
        self._by_floats(*arguments)


@pytest.mark.usefixtures("bytes_first")
@shared_fixture
@given(some.seeds, st.integers(1, 80), KINDS, some.dimensions, st.data())
def test_bytes_before_floats_find_what_all_floats_find(
    seed: int, count: int, kind: str, dimension: int, data: st.DataObject
) -> None:
    """Exactness: error bounds leave no best vector out.

    Labels, bits and ties are those of reading all floats.
    """
    vectors, queries = vectors_of(seed, count, dimension, kind), vectors_of(seed + 1, 3, dimension, kind)
    k = data.draw(st.integers(1, count))
    search, floats = (filled(made(dimension), vectors) for made in (ExactSearch, FloatSearch))
    removed = np.array(sorted(data.draw(st.sets(st.integers(0, count - 1), max_size=count - 1))), np.int64)
    for each in (search, floats):
        each.remove(removed)
    for threads in (1, 2):
        np.testing.assert_array_equal(search.search(queries, k, threads=threads), floats.search(queries, k))


@shared_fixture
@given(some.seeds, st.integers(1, 60), KINDS, st.integers(1, 60), st.integers(1, 9))
def test_blocks_merge_to_the_ranking_of_all(
    monkeypatch: pytest.MonkeyPatch, seed: int, count: int, kind: str, k: int, rows: int
) -> None:
    """Blocks: merging the best of parts keeps order and ties.

    A product is NumPy's up to rounding.
    """
    vectors, queries = vectors_of(seed, count, kind=kind), vectors_of(seed + 1, 2, kind=kind)
    search = filled(ExactSearch(DIM), vectors)
    with monkeypatch.context() as patch:
        patch.setattr(base, "_BLOCK", rows * 4 * 32)
        labels, scores = search.search(queries, k)
    np.testing.assert_array_equal((labels, scores), search.search(queries, k))
    if kind == "ties":  # whole numbers: products are exact, and equal ones keep the order of the labels
        products = queries @ vectors.T
        order = np.argsort(-products, axis=1, kind="stable")[:, :k]
        np.testing.assert_array_equal(labels[:, : min(k, count)], order)


# -- scan ---------------------------------------------------------------------


@settings(max_examples=25)
@given(some.seeds, st.integers(1, 80), KINDS, some.dimensions, st.integers(1, 9))
def test_the_exact_best_lose_at_most_twice_the_error_bound(
    seed: int, count: int, kind: str, dimension: int, k: int
) -> None:
    """The product at each rank is the exact one of this rank.

    The margin is two errors of bytes times the query.
    """
    vectors, queries = vectors_of(seed, count, dimension, kind), vectors_of(seed + 1, 3, dimension)
    k = min(k, count)
    labels, _ = filled(ScanSearch(dimension), vectors).search(queries, k)
    exact = queries.astype(np.float64) @ vectors.T.astype(np.float64)
    error = rounded(vectors, 1)[-1].max() * np.linalg.norm(queries, axis=1, keepdims=True)
    best = -np.sort(-exact, axis=1)[:, :k]
    found = -np.sort(-np.take_along_axis(exact, labels, 1), axis=1)
    assert (found >= best - 2 * error).all()


@pytest.mark.usefixtures("few_by_bytes")
@shared_fixture
@given(some.seeds, st.integers(70, 300), KINDS, st.data())
def test_any_division_into_parts_and_threads_gives_the_same_results(
    seed: int, count: int, kind: str, data: st.DataObject
) -> None:
    """Parts: additions in any steps find the same by the same bits.

    The centroids are of the first 40 vectors.
    """
    vectors, queries = vectors_of(seed, count, kind=kind), vectors_of(seed + 1, 5)
    removed = np.array(sorted(data.draw(st.sets(st.integers(0, count - 1), max_size=20))), np.int64)
    results = []
    for step in (count, data.draw(st.integers(1, count))):
        search = filled(ScanSearch(DIM), vectors[:40])
        filled(search, vectors[40:], np.arange(40, count), step)
        search.remove(removed)
        results += [search.search(queries, 5, threads=threads) for threads in (1, 2)]
        alone = [search.search(query[np.newaxis], 5, threads=2) for query in queries]
        results.append(tuple(np.concatenate(part) for part in zip(*alone, strict=True)))
    for found in results[1:]:
        np.testing.assert_array_equal(found, results[0])


@pytest.mark.usefixtures("few_by_bytes")
@shared_fixture
@given(some.seeds, st.integers(70, 300), KINDS, st.data())
def test_the_scan_orders_by_bytes_the_best_sums_of_codes(
    seed: int, count: int, kind: str, data: st.DataObject
) -> None:
    """Definition by NumPy: 8 visible rows with the largest sums.

    The earlier of equals is taken, and bytes order them.
    """
    vectors, queries = vectors_of(seed, count, kind=kind), vectors_of(seed + 1, 3)
    search = filled(ScanSearch(DIM), vectors, step=data.draw(st.integers(40, 300)))
    hidden = np.array(sorted(data.draw(st.sets(st.integers(0, count - 1), max_size=40))), np.int64)
    allowed = np.setdiff1d(np.arange(count), hidden)
    labels, _ = search.search(queries, 8, allowed=allowed)
    pairs = search.codebook.paired(vectors).reshape(count, -1, 2)
    distances = np.square(pairs[:, :, :, None].astype(np.float64) - search.codebook.centroids).sum(axis=2)
    for query, own in zip(queries, labels, strict=True):
        tables = np.empty(search.codebook.pairs * 16, np.uint8)
        scratch = np.empty((search.codebook.pairs, 16), np.float32)
        make_tables(search.codebook.paired(query[None])[0], search.codebook.centroids, scratch, tables)
        sums = np.take_along_axis(tables.reshape(1, -1, 16), distances.argmin(axis=2)[:, :, None], 2)
        best = allowed[np.argsort(-sums.sum(axis=(1, 2), dtype=int)[allowed], kind="stable")[:8]]
        assert sorted(own.tolist()) == sorted(best.tolist())
        numbers, _, units, _ = rounded(vectors[own], 1)
        products = (numbers[:, :DIM] * units[:, None]) @ query
        assert (np.diff(products) <= 1e-4 * np.linalg.norm(query) * np.abs(vectors).max()).all()


@given(st.lists(st.floats(0, 10), min_size=1, max_size=70))
def test_pairs_are_a_permutation_of_large_and_small_spreads(spreads: list[float]) -> None:
    """The i-th largest is paired with the i-th smallest.

    Steps have equal sums of ranks.
    """
    columns = paired_columns(np.array(spreads))
    assert sorted(columns.tolist()) == list(range(len(spreads)))
    ranks = np.argsort(np.argsort(-np.array(spreads), kind="stable"), kind="stable")[columns]
    whole = len(spreads) // 2 * 2
    assert (ranks[0:whole:2] < ranks[1:whole:2]).all()
    assert (ranks[0:whole:2] + ranks[1:whole:2] == len(spreads) - 1).all()
    steps = ranks[0:whole:2][: whole // 8 * 4].reshape(-1, 4).sum(axis=1)
    assert len(set(steps.tolist())) <= 1


@settings(max_examples=25)
@given(some.seeds, st.integers(1, 40), some.dimensions)
def test_columns_in_pairs_keep_all_products(seed: int, count: int, dimension: int) -> None:
    """A permutation of columns and zeros: products of whole numbers stay the same."""
    vectors, queries = (np.rint(3 * vectors_of(seed + i, count, dimension)) for i in range(2))
    search = filled(ScanSearch(dimension), vectors)
    np.testing.assert_array_equal(
        search.codebook.paired(vectors) @ search.codebook.paired(queries).T, vectors @ queries.T
    )


@settings(max_examples=10)
@given(some.seeds, st.integers(1, 60), KINDS)
def test_vectors_of_a_graph_have_length_one(seed: int, count: int, kind: str) -> None:
    """Filling: cosines rank like products because all lengths are equal.

    A margin of 1e-6 is for float32.
    """
    search = filled(hnsw(DIM), vectors_of(seed, count, kind=kind))
    stored = np.asarray(search._graph.index.get_items(list(range(count)), return_type="numpy"))
    np.testing.assert_allclose(np.linalg.norm(stored.astype(np.float64), axis=1), 1, atol=1e-6)


@settings(max_examples=10)
@given(some.seeds, st.integers(40, 80))
def test_nearly_all_vectors_have_their_length_in_a_graph(seed: int, count: int) -> None:
    """Ranking by products needs it; only the longest twentieth counts as shorter."""
    vectors = vectors_of(seed, count, kind="lengths")
    search = filled(hnsw(DIM), vectors)
    stored = np.asarray(search._graph.index.get_items(list(range(count)), return_type="numpy"))
    lengths = np.linalg.norm(vectors, axis=1)
    ratios = np.linalg.norm(stored[:, :DIM], axis=1) / lengths
    kept = np.isclose(ratios, ratios.max(), rtol=1e-4)
    assert np.count_nonzero(~kept) <= math.ceil((count - 1) / 20)  # beyond the 95th percentile
    assert lengths[kept].max() <= lengths[~kept].min()
