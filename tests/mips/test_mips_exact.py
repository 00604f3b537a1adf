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


# -- bytes before floats -----------------------------------------------------------


@pytest.fixture
def bytes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BYTES_FROM", 0)
    monkeypatch.setattr(module, "_MOST_READ", 1.0)


def without_bytes(vectors: np.ndarray, asked: np.ndarray, k: int) -> Any:
    search = filled(vectors)
    search._rounded = False
    return search.search(asked, k)


@pytest.mark.compiled("interpreted products are NumPy's, whose bits depend on the shape")
@pytest.mark.usefixtures("bytes_first")
@pytest.mark.parametrize("kind", ["normal", "ties", "long tail", "one direction", "tiny", "huge", "zeros"])
@pytest.mark.parametrize("dimension", [1, 3, 64, 129])
def test_reading_bytes_first_gives_the_bits_of_reading_all(dimension: int, kind: str) -> None:
    rng = np.random.default_rng([dimension, len(kind)])
    vectors, asked = vectors_of(rng, 300, dimension), vectors_of(rng, 5, dimension)
    if kind == "ties":
        vectors = np.rint(vectors)
        asked = np.rint(asked)
    elif kind == "long tail":
        vectors *= np.exp(3 * rng.standard_normal((300, 1))).astype(np.float32)
        vectors /= np.arange(1, dimension + 1, dtype=np.float32) ** 2
    elif kind == "one direction":
        vectors = vectors[:1] + vectors * np.float32(1e-4)
    elif kind == "tiny":
        vectors, asked = vectors * np.float32(1e-30), asked * np.float32(1e-12)
    elif kind == "huge":
        vectors, asked = vectors * np.float32(1e25), asked * np.float32(1e12)
    elif kind == "zeros":
        vectors[::2] = 0
        asked[1] = 0
    for k in (1, 7, 40, 300):
        found, scores = filled(vectors).search(asked, k)
        expected, products = without_bytes(vectors, asked, k)
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(scores, products)


@pytest.mark.usefixtures("bytes_first")
def test_few_floats_are_read_after_the_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of vectors as learned maps make them, whose columns spread less and less."""
    rng = np.random.default_rng(0)
    vectors, asked = (vectors_of(rng, n, 256) / np.sqrt(np.arange(1.0, 257)) for n in (4000, 5))
    read = []

    def counted(self: ExactSearch, query: np.ndarray, places: np.ndarray) -> np.ndarray:
        read.append(len(places))
        return original(self, query, places)

    original = ExactSearch._scores_at
    monkeypatch.setattr(ExactSearch, "_scores_at", counted)
    filled(vectors.astype(np.float32)).search(asked.astype(np.float32), 40)
    assert len(read) == 5 and max(read) < 150


@pytest.mark.compiled("interpreted products are NumPy's, whose bits depend on the shape")
@pytest.mark.usefixtures("bytes_first")
def test_bytes_stay_beside_their_floats(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    vectors, asked = vectors_of(rng, 200, 70), vectors_of(rng, 3, 70)
    search = filled(vectors[:50])
    search.add(np.arange(50, 200), vectors[50:], threads=2)
    search.remove(np.arange(0, 200, 3))
    kept = np.setdiff1d(np.arange(200), np.arange(0, 200, 3))
    expected, products = without_bytes(vectors[kept], asked, 20)
    search.save(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"vectors.npy", "vector_labels.npy"}
    for each in (search, ExactSearch.load(tmp_path, 70, SavedState())):
        found, scores = each.search(asked, 20)
        np.testing.assert_array_equal(found, kept[expected])
        np.testing.assert_array_equal(scores, products)


def test_long_vectors_have_no_bytes_beside_them() -> None:
    beside = 2048 + 3 * 4
    assert ExactSearch(2048).info()["bytes_per_vector"] == 4 * 2048 + beside + 8
    assert ExactSearch(2049).info()["bytes_per_vector"] == 4 * 2064 + 8
