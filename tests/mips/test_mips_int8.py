"""Vectors of one byte an entry: half a step at most, exact products, through adding and the disk."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import strategies as some
from hypothesis import given
from hypothesis import strategies as st

import muvera.mips.int8 as module
from muvera.mips import ExactSearch, Int8Search, SavedState
from muvera.mips.int8 import quantize


def vectors_of(rng: np.random.Generator, n: int, dimension: int) -> np.ndarray:
    return rng.standard_normal((n, dimension)).astype(np.float32)


def filled(vectors: np.ndarray, labels: Any = None) -> Int8Search:
    search = Int8Search(vectors.shape[1])
    search.add(np.arange(len(vectors)) if labels is None else np.asarray(labels), vectors)
    return search


@given(some.seeds, some.dimensions, st.sampled_from([127, 2047]), st.floats(-30, 30))
def test_no_entry_is_off_by_more_than_half_a_step(seed: int, dimension: int, most: int, power: float) -> None:
    vectors = vectors_of(np.random.default_rng(seed), 4, dimension) * np.float32(10**power)
    numbers, steps = quantize(vectors, most)
    assert numbers.dtype == np.int16 and np.abs(numbers.astype(int)).max() == most
    np.testing.assert_allclose(steps, np.abs(vectors).max(axis=1) / most, rtol=1e-6)
    errors = np.abs(numbers * steps[:, np.newaxis].astype(np.float64) - vectors)
    assert (errors <= steps[:, np.newaxis] * (0.5 + 1e-4)).all()  # the rest is rounding of v / step


def test_zero_tiny_and_huge_vectors() -> None:
    vectors = np.array([[0, 0], [1e-45, -1e-42], [3e38, -1e38]], np.float32)
    decoded = filled(vectors).vectors(np.arange(3))
    assert (decoded[:2] == 0).all()
    np.testing.assert_allclose(decoded[2], vectors[2], atol=3e38 / 254 * 1.001)
    assert filled(np.zeros((3, 5), np.float32)).search(np.zeros((1, 5), np.float32), 3)[1].tolist() == [
        [0, 0, 0]
    ]


@given(some.seeds, some.dimensions, st.integers(1, 20))
def test_scores_are_products_of_rounded_vectors(seed: int, dimension: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    vectors, asked = vectors_of(rng, count, dimension), vectors_of(rng, 2, dimension)
    labels = rng.permutation(1000)[:count]
    found, scores = filled(vectors, labels).search(asked, count)
    numbers, steps = quantize(vectors)
    query_numbers, query_steps = quantize(asked, 2047)
    exact = (query_numbers.astype(np.int64) @ numbers.astype(np.int64).T) * np.outer(query_steps, steps)
    at = np.argsort(labels)[np.searchsorted(np.sort(labels), found)]
    np.testing.assert_allclose(scores, np.take_along_axis(exact, at, 1), rtol=1e-5)
    assert (np.diff(scores, axis=1) <= 0).all()
    # Off from the exact product by half a step an entry on both sides.
    bound = 0.5 * np.abs(asked).sum(1)[:, np.newaxis] * steps[at]
    bound += 0.5 * query_steps[:, np.newaxis] * (np.abs(vectors).sum(1) + dimension * steps)[at]
    products = np.take_along_axis(asked.astype(np.float64) @ vectors.T, at, 1)
    assert (np.abs(scores - products) <= 1.01 * bound + 1e-6).all()


def test_bits_do_not_depend_on_batch_threads_or_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    vectors, asked = vectors_of(rng, 40, 21), vectors_of(rng, 5, 21)
    found, scores = filled(vectors).search(asked, 20)
    monkeypatch.setattr(module, "_TASK_BYTES", 100)
    for i in range(len(asked)):
        alone = filled(vectors).search(asked[i : i + 1], 20, threads=2)
        np.testing.assert_array_equal(alone[0][0], found[i])
        np.testing.assert_array_equal(alone[1][0], scores[i])
        among = filled(vectors).search(asked[i : i + 1], 40, allowed=found[i])
        np.testing.assert_array_equal(among[0][0, :20], found[i])
        np.testing.assert_array_equal(among[1][0, :20], scores[i])
        assert (among[0][0, 20:] == -1).all()


def test_nearly_the_exact_best_are_found() -> None:
    rng = np.random.default_rng(2)
    vectors, asked = vectors_of(rng, 300, 64), vectors_of(rng, 10, 64)
    exact = ExactSearch(64)
    exact.add(np.arange(300), vectors)
    found, expected = filled(vectors).search(asked, 10)[0], exact.search(asked, 10)[0]
    hits = [len(np.intersect1d(a, b)) for a, b in zip(found, expected, strict=True)]
    assert np.mean(hits) > 9.5  # scores are off by a hundredth, tenth and eleventh differ by a few


def test_adding_and_removing_in_steps_is_building_at_once(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    vectors = vectors_of(rng, 30, 7)
    search = Int8Search(7)
    for start in range(0, 30, 6):
        search.add(np.arange(start, start + 6), vectors[start : start + 6])
        search.remove(np.array([start + 1]))
        search.save(tmp_path)
        search = Int8Search.load(tmp_path, 7, SavedState())
    kept = np.setdiff1d(np.arange(30), np.arange(1, 30, 6))
    assert search.labels().tolist() == kept.tolist() and len(search) == 25
    np.testing.assert_array_equal(search.vectors(kept), filled(vectors).vectors(kept))
    for found, expected in zip(
        search.search(vectors[:3], 25), filled(vectors[kept], kept).search(vectors[:3], 25), strict=True
    ):
        np.testing.assert_array_equal(found, expected)
    assert search.info() == {"kind": "int8", "vectors": 25, "dimension": 7, "bytes_per_vector": 7 + 4 + 8}


def test_load_refuses_what_does_not_fit(tmp_path: Path) -> None:
    filled(np.eye(4, 7, dtype=np.float32)).save(tmp_path)
    with pytest.raises(ValueError, match=r"vector_bytes\.npy must be int8 \(4, 8\), got int8 \(4, 7\)"):
        Int8Search.load(tmp_path, 8, SavedState())
    np.save(tmp_path / "vector_labels.npy", np.arange(3))
    with pytest.raises(ValueError, match=r"must be int8 \(3, 7\), got int8 \(4, 7\)"):
        Int8Search.load(tmp_path, 7, SavedState())
    np.save(tmp_path / "vector_labels.npy", np.array([0, 1, 1, 2]))
    with pytest.raises(ValueError, match="labels must be all different"):
        Int8Search.load(tmp_path, 7, SavedState())
    np.save(tmp_path / "vector_labels.npy", np.arange(4))
    np.save(tmp_path / "vector_steps.npy", np.ones(4))
    with pytest.raises(ValueError, match=r"vector_steps\.npy must be float32 \(4,\), got float64 \(4,\)"):
        Int8Search.load(tmp_path, 7, SavedState())
    np.save(tmp_path / "vector_steps.npy", np.array([1, np.nan, 1, 1], np.float32))
    with pytest.raises(ValueError, match=r"vector_steps\.npy is damaged: it has a number that is not finite"):
        Int8Search.load(tmp_path, 7, SavedState())
    (tmp_path / "vector_bytes.npy").write_bytes(b"garbage")
    with pytest.raises(ValueError, match=r"vector_bytes\.npy is (truncated|not a .npy file)"):
        Int8Search.load(tmp_path, 7, SavedState())
