"""Exact search against NumPy, to the bit in any batch, through adding, removing and the disk."""

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import strategies as some
from hypothesis import given
from hypothesis import strategies as st

import muvera.mips.exact as module
import muvera.mips.flat as rows_module
from muvera.mips import ExactSearch, SavedState


def vectors_of(rng: np.random.Generator, n: int, dimension: int) -> np.ndarray:
    return rng.standard_normal((n, dimension)).astype(np.float32)


def filled(vectors: np.ndarray, labels: Any = None) -> ExactSearch:
    search = ExactSearch(vectors.shape[1])
    search.add(np.arange(len(vectors)) if labels is None else np.asarray(labels), vectors)
    return search


@given(some.seeds, some.dimensions, st.integers(1, 30), st.integers(0, 4), st.data())
def test_search_is_a_sort_of_all_products(
    seed: int, dimension: int, count: int, queries: int, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    vectors, asked = vectors_of(rng, count, dimension), vectors_of(rng, queries, dimension)
    labels = rng.permutation(1000)[:count]
    k = data.draw(st.integers(1, count))
    found, scores = filled(vectors, labels).search(asked, k)
    exact = asked.astype(np.float64) @ vectors.T.astype(np.float64)
    size = np.linalg.norm(asked, axis=1, keepdims=True) * np.linalg.norm(vectors, axis=1).max() + 1
    assert found.shape == scores.shape == (queries, k)
    assert (np.diff(scores, axis=1) <= 0).all()
    position = np.argsort(labels)[np.searchsorted(np.sort(labels), found)]
    # Up to ties: each found product is its label's, and as large as the one of that rank.
    for expected in (np.take_along_axis(exact, position, 1), -np.sort(-exact, axis=1)[:, :k]):
        assert (np.abs(scores - expected) <= 1e-5 * size).all()
    assert all(len(set(row)) == k for row in found.tolist())


@pytest.mark.compiled("interpreted products are NumPy's, whose bits depend on the shape")
def test_bits_do_not_depend_on_batch_threads_or_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    vectors, asked = vectors_of(rng, 70, 37), vectors_of(rng, 9, 37)
    found, scores = filled(vectors).search(asked, 20)
    monkeypatch.setattr(module, "_TASK_BYTES", 1000)
    monkeypatch.setattr(rows_module, "_QUERIES", 2)
    monkeypatch.setattr(rows_module, "_BLOCK_BYTES", 700)
    for i in range(len(asked)):
        alone = filled(vectors).search(asked[i : i + 1], 20, threads=2)
        np.testing.assert_array_equal(alone[0][0], found[i])
        np.testing.assert_array_equal(alone[1][0], scores[i])
        among = filled(vectors).search(asked[i : i + 1], 70, allowed=found[i])
        np.testing.assert_array_equal(among[0][0, :20], found[i])
        np.testing.assert_array_equal(among[1][0, :20], scores[i])


def test_ties_go_to_the_earlier_vector() -> None:
    search = filled(np.ones((5, 3), np.float32), [7, 3, 9, 1, 5])
    assert search.search(np.ones((1, 3), np.float32), 4)[0].tolist() == [[7, 3, 9, 1]]
    search.remove(np.array([3]))
    search.add(np.array([3]), np.ones((1, 3), np.float32))
    assert search.search(np.ones((1, 3), np.float32), 5)[0].tolist() == [[7, 9, 1, 5, 3]]


@pytest.mark.parametrize("allowed", [[], [4], [1, 4, 4, 99, -3], range(10)])
def test_allowed_labels_alone_are_returned(allowed: Any) -> None:
    rng = np.random.default_rng(2)
    vectors, asked = vectors_of(rng, 6, 8), vectors_of(rng, 2, 8)
    found, scores = filled(vectors).search(asked, 6, allowed=np.array(allowed, np.int64))
    order = np.argsort(-(asked @ vectors.T), axis=1)
    for row, products, expected in zip(found, scores, order, strict=True):
        wanted = [label for label in expected if label in allowed]
        assert row.tolist() == wanted + [-1] * (6 - len(wanted))
        assert (products[len(wanted) :] == -np.inf).all()


@given(some.seeds)
def test_adding_and_removing_in_steps_is_building_at_once(seed: int) -> None:
    rng = np.random.default_rng(seed)
    search = ExactSearch(5)
    expected: dict[int, Any] = {}
    for step in range(6):
        new = np.arange(step * 10, step * 10 + rng.integers(0, 10))
        vectors = vectors_of(rng, len(new), 5)
        search.add(rng.permutation(new), vectors)
        expected.update(zip(search._labels[search._count - len(new) : search._count], vectors, strict=True))
        gone = rng.permutation(list(expected))[: rng.integers(0, len(expected) + 1)].astype(np.int64)
        search.remove(gone)
        for label in gone:
            del expected[label]
    assert len(search) == len(expected) and search.labels().tolist() == sorted(expected)
    assert search.existing(np.arange(60)).tolist() == sorted(expected)
    assert search._labels[: len(search)].tolist() == list(expected)  # in the order of adding
    if expected:
        np.testing.assert_array_equal(
            search.vectors(search.labels()), [expected[i] for i in sorted(expected)]
        )


def test_labels_are_free_again_after_removal() -> None:
    search = filled(np.eye(3, dtype=np.float32))
    assert not search.can_add(np.array([3, 1])) and search.can_add(np.array([3]))
    search.remove(np.array([1]))
    assert search.can_add(np.array([1]))
    search.add(np.array([1]), np.full((1, 3), 5.0))
    assert search.search(np.ones((1, 3), np.float32), 1)[1].tolist() == [[15.0]]


def test_removing_and_restricting_make_no_second_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """8 MB of vectors; a block is 64 kB and the rest are masks and scores of 2,000 labels."""
    monkeypatch.setattr(rows_module, "_BLOCK_BYTES", 1 << 16)
    search = filled(np.ones((2000, 1024), np.float32))
    tracemalloc.start()
    try:
        search.search(np.ones((1, 1024), np.float32), 5, allowed=np.arange(1, 2000))
        search.remove(np.arange(0, 1000, 7))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


def test_saved_and_loaded_is_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    search = filled(vectors_of(rng, 9, 7), rng.permutation(9))
    search.remove(np.array([2, 5]))
    search.save(tmp_path)
    loaded = ExactSearch.load(tmp_path, 7, SavedState())
    asked = vectors_of(rng, 3, 7)
    for found, expected in zip(loaded.search(asked, 7), search.search(asked, 7), strict=True):
        np.testing.assert_array_equal(found, expected)
    loaded.add(np.array([5]), vectors_of(rng, 1, 7))
    assert len(loaded) == 8 and loaded.info()["recall"] == 1.0
    empty = ExactSearch(7)
    empty.save(tmp_path)
    assert len(ExactSearch.load(tmp_path, 7, SavedState())) == 0


def test_load_refuses_what_does_not_fit(tmp_path: Path) -> None:
    filled(np.eye(4, 7, dtype=np.float32)).save(tmp_path)
    with pytest.raises(ValueError, match=r"vectors must have shape \(n, 8\), got \(4, 7\)"):
        ExactSearch.load(tmp_path, 8, SavedState())
    np.save(tmp_path / "vector_labels.npy", np.arange(3))
    with pytest.raises(ValueError, match="3 labels for 4 vectors"):
        ExactSearch.load(tmp_path, 7, SavedState())
    path = tmp_path / "vectors.npy"
    whole = path.read_bytes()
    for content in (b"", whole[:90], whole[:-5], b"garbage" * 40):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"vectors\.npy is (truncated|not a .npy file)"):
            ExactSearch.load(tmp_path, 7, SavedState())
