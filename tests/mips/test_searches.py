"""What every vector search promises.

Filters, removals and copies, any batch and number of threads, checked arrays.
"""

from collections.abc import Callable
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.vectors import clustered, filled, recall

import muvera.mips.base as base
import muvera.mips.scan as scan
from muvera.mips.base import SavedState
from muvera.mips.exact import ExactSearch
from muvera.mips.hnsw import HNSWSearch
from muvera.mips.scan import ScanSearch
from muvera.mips.settings import HNSWSettings

DIM = 6

SEARCHES = [ExactSearch, ScanSearch, HNSWSearch]

every_search = pytest.mark.parametrize("make", SEARCHES)


@pytest.fixture(params=SEARCHES, scope="module")
def large(request: pytest.FixtureRequest) -> tuple[Any, np.ndarray]:
    """A search, and its vectors: more than the scan orders without codes."""
    vectors = clustered(0, 1500 if request.param is HNSWSearch else 3000)
    return filled(request.param(32), vectors), vectors


def test_batches_blocks_and_threads_change_no_bit(large: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    search, _ = large
    queries = clustered(1, 9)
    whole = search.search(queries, 20, threads=1)
    for module, name, value in (
        (base, "_TASK", 9000),
        (base, "_BLOCK", 70_000),
        (scan, "_BLOCKS_PER_TASK", 10),
    ):
        monkeypatch.setattr(module, name, value)
    for threads in (1, 2, 3):
        np.testing.assert_array_equal(search.search(queries, 20, threads=threads), whole)
        for q in range(0, len(queries), 4):
            alone = search.search(queries[q : q + 1], 20, threads=threads)
            np.testing.assert_array_equal(alone, [part[q : q + 1] for part in whole])


def test_removed_and_forbidden_vectors_are_never_returned(large: Any) -> None:
    original, vectors = large
    search, queries, rng = copy(original), clustered(2, 20), np.random.default_rng(3)
    removed = rng.permutation(len(vectors))[:400]
    search.remove(removed)
    rest = np.setdiff1d(np.arange(len(vectors)), removed)
    assert len(search) == len(rest) and search.labels().tolist() == rest.tolist()
    assert len(original) == len(vectors)  # a copy leaves the original as it is
    few = rng.permutation(len(vectors))
    for allowed in (None, [], [rest[0]], [*rest[:2], *rest[:2], -5, 10**9], few[:50], few[: len(few) // 2]):
        chosen = None if allowed is None else np.array(allowed, np.int64)
        labels, scores = search.search(queries, 10, allowed=chosen)
        visible = rest if chosen is None else np.intersect1d(chosen, rest)
        wanted = min(10, len(visible))
        assert np.isin(labels[:, :wanted], visible).all() and (np.diff(scores[:, :wanted], axis=1) <= 0).all()
        assert (labels[:, wanted:] == -1).all() and (scores[:, wanted:] == -np.inf).all()
        if wanted:
            found = labels[:, :wanted]
            assert recall(np.searchsorted(visible, found), vectors[visible], queries) > 0.95
            products = np.take_along_axis(queries @ vectors.T, found, 1)
            # The scan scores by bytes, the graph by cosines.
            np.testing.assert_allclose(scores[:, :wanted], products, atol=0.01 * np.abs(products).max())
    assert search.existing(np.array([removed[0], rest[0], 50_000])).tolist() == [rest[0]]
    for call in (search.remove, search.vectors):
        with pytest.raises(KeyError, match=f"label {removed[0]} "):
            call(np.array([rest[0], removed[0]]))
    with pytest.raises(ValueError, match="once"):
        search.add(removed[:1], vectors[:1])


@pytest.mark.parametrize("make", [ExactSearch, ScanSearch])
def test_ties_go_to_the_earlier_vector(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ones = np.ones((3001, 3), np.float32)
    search = filled(make(3), ones[:-1], 1 + 2 * np.arange(3000))
    search.remove(np.array([3]))
    search.add(np.array([6002]), ones[:1])
    for block in (base._BLOCK, 2 * 4 * 16):  # all vectors, then two
        monkeypatch.setattr(base, "_BLOCK", block)
        assert search.search(ones[:1], 4)[0].tolist() == [[1, 5, 7, 9]]


@every_search
def test_copies_that_grow_apart(make: Any, tmp_path: Path) -> None:
    search, new = filled(make(32), clustered(0, 200)), 3 * clustered(1, 40)
    one, other = copy(search), copy(search)
    one.add(np.arange(200, 220), new[:20])
    assert np.isin(one.search(new, 30)[0], one.labels()).all()
    other.add(np.arange(220, 240), new[20:])
    grown: list[Any] = [(search, []), (one, range(200, 220)), (other, range(220, 240))]
    if make is HNSWSearch:  # copies of a graph share it
        with pytest.raises(RuntimeError, match="extended last"):
            one.search(new, 1)
        with pytest.raises(RuntimeError, match="extended last"):
            one.save(tmp_path, lambda path: None)
        del grown[1]
    for each, labels in grown:
        assert each.labels().tolist() == [*range(200), *labels]
        assert np.isin(each.search(new, 30)[0], each.labels()).all()


def rows(n: int, dimension: int = DIM, **values: float) -> np.ndarray:
    vectors = np.ones((n, dimension), np.float32)
    vectors[1:2, 2] = values.get("entry", 1)
    return vectors


BAD_CALLS: list[tuple[Callable[[Any], Any], type[Exception], str]] = [
    (lambda s: s.add(np.array([1, 2]), rows(2, 5)), ValueError, r"\(2, 5\)"),
    (lambda s: s.add(np.array([1, 2, 3]), rows(3, entry=np.nan)), ValueError, r"vectors\[1\]"),
    (lambda s: s.add(np.array([1]), np.full((1, DIM), 1e39)), ValueError, r"vectors\[0\]"),
    (lambda s: s.add(np.array([1, 2]), rows(3)), ValueError, "2 labels for 3"),
    (lambda s: s.add(np.array([1, 1]), rows(2)), ValueError, "labels"),
    (lambda s: s.add(np.array([-1, 41]), rows(2)), ValueError, "ascend"),
    (lambda s: s.add(np.array([1.0, 2.0]), rows(2)), TypeError, "float64"),
    (lambda s: s.add(np.array([40, 41, 42]), rows(3)), ValueError, "label 40"),
    (lambda s: s.search(rows(1, 7), 1), ValueError, r"\(1, 7\)"),
    (lambda s: s.search(rows(3, entry=np.nan), 1), ValueError, r"queries\[1\]"),
    (lambda s: s.vectors(np.array([10, 11])), KeyError, "11"),
    (lambda s: s.remove(np.array([10, 11])), KeyError, "11"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD_CALLS, ids=[row[2] for row in BAD_CALLS])
@every_search
def test_bad_arrays(make: Any, call: Any, error: type[Exception], message: str) -> None:
    search = make(DIM)
    search.add(np.arange(5) * 10, np.random.default_rng(0).standard_normal((5, DIM)))
    if make is HNSWSearch:
        search._graph.index = object()  # the graph must not be called
    with pytest.raises(error, match=message):
        call(search)
    assert len(search) == 5 and search.labels().tolist() == [0, 10, 20, 30, 40]


@every_search
def test_few_or_no_vectors(make: Any, tmp_path: Path) -> None:
    state, _ = make(DIM).save(tmp_path, lambda path: None)
    search = make.load(tmp_path, DIM, SavedState(state, []))
    labels, scores = search.search(rows(2), 3)
    assert labels.tolist() == [[-1] * 3] * 2 and (scores == -np.inf).all()
    assert search.vectors(np.empty(0, np.int64)).shape == (0, DIM)
    search.add(np.array([3, 7]), np.arange(2 * DIM).reshape(2, DIM))
    search.add(np.array([8]), np.zeros((1, DIM)))
    labels, scores = search.search(np.concatenate([rows(1), -rows(1)]), 4)
    assert labels.tolist() == [[7, 3, 8, -1], [8, 3, 7, -1]] and (scores[:, 3] == -np.inf).all()
    np.testing.assert_allclose(scores[:, :3], [[51, 15, 0], [0, -15, -51]], atol=0.3)


@every_search
def test_number_types_and_layouts(make: Any) -> None:
    values = np.arange(4 * DIM).reshape(4, DIM)
    search, other = make(DIM), make(DIM)
    search.add(np.arange(4, dtype=np.uint8), np.asfortranarray(values, np.float64))
    other.add(np.arange(4)[::-1].copy()[::-1], values.astype(np.int16))
    rounding = 1 / 254 if make is ScanSearch else 1e-6  # half a unit of a byte
    stored = search.vectors(np.arange(4))
    np.testing.assert_allclose(stored, values, atol=rounding * np.abs(values).max(), rtol=1e-6)
    np.testing.assert_array_equal(search.vectors(np.arange(4)), other.vectors(np.arange(4)))
    assert search.search(values[1:2].astype(np.float16), 2)[0].tolist() == [[3, 2]]
    assert search.info()["bytes_per_vector"] >= DIM


def test_settings_are_read() -> None:
    assert HNSWSettings.of({"m": 32}) == HNSWSettings(m=32)


@pytest.mark.parametrize(
    ("values", "message"), [({"ef_construction": True}, "ef_construction .* True"), ({"M": 32}, "'M'")]
)
def test_bad_settings(values: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        HNSWSettings.of(values)


def test_a_search_needs_a_dimension() -> None:
    with pytest.raises(ValueError, match=r"dimension .* 0"):
        ExactSearch(0)
