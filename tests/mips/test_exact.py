"""ExactSearch against NumPy, bit for bit in any batch.

Vectors are added, removed and saved.
"""

import math
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import strategies as some
from builders.vectors import filled
from hypothesis import given, settings
from hypothesis import strategies as st

import muvera.mips.base as base
import muvera.mips.exact as module
from muvera.mips.base import SavedState
from muvera.mips.exact import ExactSearch


def vectors_of(rng: np.random.Generator, n: int, dimension: int) -> np.ndarray:
    return rng.standard_normal((n, dimension)).astype(np.float32)


@settings(max_examples=25)
@given(some.seeds, some.dimensions, st.integers(1, 30), st.integers(0, 4), st.data())
def test_search_sorts_all_products(
    seed: int, dimension: int, count: int, queries: int, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    vectors, rows = vectors_of(rng, count, dimension), vectors_of(rng, queries, dimension)
    labels = np.sort(rng.permutation(1000)[:count])
    k = data.draw(st.integers(1, count))
    best, scores = filled(ExactSearch(dimension), vectors, labels).search(rows, k)
    exact = rows.astype(np.float64) @ vectors.T.astype(np.float64)
    size = np.linalg.norm(rows, axis=1, keepdims=True) * np.linalg.norm(vectors, axis=1).max() + 1
    assert best.shape == scores.shape == (queries, k) and (np.diff(scores, axis=1) <= 0).all()
    position = np.argsort(labels)[np.searchsorted(np.sort(labels), best)]
    # Up to ties: each product is its label's, and as large as the product of that rank.
    for expected in (np.take_along_axis(exact, position, 1), -np.sort(-exact, axis=1)[:, :k]):
        assert (np.abs(scores - expected) <= 1e-5 * size).all()
    assert all(len(set(row)) == k for row in best.tolist())


def test_no_second_copy_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """8 MB of vectors.

    A block is 64 kB, the rest are masks and scores of 2,000 labels.
    """
    monkeypatch.setattr(base, "_BLOCK", 1 << 16)
    search = filled(ExactSearch(1024), np.ones((2000, 1024), np.float32))
    tracemalloc.start()
    try:
        search.search(np.ones((1, 1024), np.float32), 5, allowed=np.arange(1, 2000))
        search.remove(np.arange(0, 1000, 7))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


@pytest.fixture
def identity(tmp_path: Path) -> Path:
    """The folder of a search with four vectors of seven floats."""
    filled(ExactSearch(7), np.eye(4, 7, dtype=np.float32)).save(tmp_path, lambda path: None)
    return tmp_path


def test_files_of_another_shape_are_refused(identity: Path) -> None:
    with pytest.raises(ValueError, match=r"\(n, 8\), got \(4, 7\)"):
        ExactSearch.load(identity, 8, SavedState({}, []))
    np.save(identity / "vector_labels.npy", np.arange(3))
    with pytest.raises(ValueError, match="3 labels for 4 vectors"):
        ExactSearch.load(identity, 7, SavedState({}, []))


@pytest.mark.parametrize(
    "damage",
    [lambda whole: b"", lambda whole: whole[:90], lambda whole: whole[:-5], lambda whole: b"garbage" * 40],
    ids=["empty", "header", "cut", "garbage"],
)
def test_damaged_files_are_refused(identity: Path, damage: Any) -> None:
    path = identity / "vectors.npy"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"vectors\.npy"):
        ExactSearch.load(identity, 7, SavedState({}, []))


# -- bytes before floats -----------------------------------------------------------


@pytest.fixture
def bytes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BYTES_FROM", 0)
    monkeypatch.setattr(module, "_MOST_READ", 1.0)


def without_bytes(vectors: np.ndarray, rows: np.ndarray, k: int) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BYTES_FROM", math.inf)
        patch.setattr(ExactSearch, "_by_bytes", lambda *_: pytest.fail("bytes are read"))
        return filled(ExactSearch(vectors.shape[1]), vectors).search(rows, k)


@pytest.mark.usefixtures("bytes_first")
@pytest.mark.parametrize("kind", ["normal", "ties", "long tail", "one direction", "tiny", "huge", "zeros"])
@pytest.mark.parametrize("dimension", [3, 129, 5249])
def test_bytes_first_give_the_bits_of_all_floats(dimension: int, kind: str) -> None:
    rng = np.random.default_rng([dimension, len(kind)])
    vectors, rows = vectors_of(rng, 300, dimension), vectors_of(rng, 5, dimension)
    if kind == "ties":
        vectors, rows = np.rint(vectors), np.rint(rows)
    elif kind == "long tail":
        vectors *= np.exp(3 * rng.standard_normal((300, 1))).astype(np.float32)
        vectors /= np.arange(1, dimension + 1, dtype=np.float32) ** 2
    elif kind == "one direction":
        vectors = vectors[:1] + vectors * np.float32(1e-4)
    elif kind == "tiny":
        vectors, rows = vectors * np.float32(1e-30), rows * np.float32(1e-12)
    elif kind == "huge":
        vectors, rows = vectors * np.float32(1e25), rows * np.float32(1e12 * min(1, 129 / dimension))
    elif kind == "zeros":
        vectors[::2] = rows[1] = 0
    for k in (1, 7, 40, 300):
        own = filled(ExactSearch(dimension), vectors).search(rows, k)
        np.testing.assert_array_equal(own, without_bytes(vectors, rows, k))


@pytest.mark.usefixtures("bytes_first")
def test_few_floats_are_read_after_the_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """For vectors like those of learned maps, whose columns have decreasing spread."""
    rng = np.random.default_rng(0)
    vectors, rows = (vectors_of(rng, n, 256) / np.sqrt(np.arange(1.0, 257)) for n in (4000, 5))
    monkeypatch.setattr(module, "_MOST_READ", 150 / 4000)  # reads all floats if more are possible
    monkeypatch.setattr(ExactSearch, "_by_floats", lambda *_: pytest.fail("too many vectors are possible"))
    labels, _ = filled(ExactSearch(256), vectors.astype(np.float32)).search(rows.astype(np.float32), 40)
    assert labels.tolist() == np.argsort(-rows @ vectors.T)[:, :40].tolist()


@pytest.mark.usefixtures("bytes_first")
@pytest.mark.parametrize("k", [1, 10, 90])
def test_all_floats_are_read_if_too_many_vectors_are_possible(
    k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes cannot tell vectors apart that differ by less than their rounding."""
    rng = np.random.default_rng(0)
    vectors, rows = vectors_of(rng, 400, 32), vectors_of(rng, 5, 32)
    vectors = vectors[:1] + vectors * np.float32(1e-4)
    monkeypatch.setattr(module, "_MOST_READ", 0.25)
    own = filled(ExactSearch(32), vectors).search(rows, k)
    np.testing.assert_array_equal(own, without_bytes(vectors, rows, k))


@pytest.mark.usefixtures("bytes_first")
def test_bytes_after_changes_and_a_reload(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    vectors, rows = vectors_of(rng, 200, 70), vectors_of(rng, 3, 70)
    search = filled(ExactSearch(70), vectors[:50])
    search.add(np.arange(50, 200), vectors[50:], threads=2)
    search.remove(np.arange(0, 200, 3))
    rest = np.setdiff1d(np.arange(200), np.arange(0, 200, 3))
    expected, products = without_bytes(vectors[rest], rows, 20)
    search.save(tmp_path, lambda path: None)
    assert {file.name for file in tmp_path.iterdir()} == {"vectors.npy", "vector_labels.npy"}
    for each in (search, ExactSearch.load(tmp_path, 70, SavedState({}, []))):
        np.testing.assert_array_equal(each.search(rows, 20), (rest[expected], products))
