"""ScanSearch: its recall; additions, removals, filters, threads and the disk do not change results."""

from pathlib import Path

import numpy as np
import pytest

import muvera.mips.scan as module
from muvera.mips import SavedState, ScanSearch

pytestmark = pytest.mark.compiled("thousands of vectors are too many for interpreted kernels")


def collection(count: int, dimension: int, seed: int = 0) -> np.ndarray:
    """Vectors with falling spread and topics, as encoders make them."""
    rng = np.random.default_rng(seed)
    topics = np.random.default_rng(99).normal(size=(50, dimension))
    spread = 1 / np.sqrt(1 + np.arange(dimension))
    vectors = (topics[rng.integers(0, 50, count)] + rng.normal(size=(count, dimension))) * spread
    return vectors.astype(np.float32)


def filled(vectors: np.ndarray, step: int = 10**9) -> ScanSearch:
    search = ScanSearch(vectors.shape[1])
    for start in range(0, len(vectors), step):
        part = vectors[start : start + step]
        search.add(np.arange(start, start + len(part)), part)
    return search


VECTORS, QUERIES = collection(6000, 32), collection(40, 32, seed=1)


def recall(labels: np.ndarray, vectors: np.ndarray = VECTORS) -> float:
    k = labels.shape[1]
    best = np.argsort(-(QUERIES @ vectors.T), axis=1)[:, :k]
    return float(np.mean([np.isin(a, b).mean() for a, b in zip(best, labels, strict=True)]))


def test_the_scan_finds_nearly_all() -> None:
    search = filled(VECTORS)
    labels, scores = search.search(QUERIES, 50)
    # Codes lose a little; the bytes that order the best candidates lose almost nothing.
    assert recall(labels) > 0.95
    assert search.measure_recall(QUERIES, 50) == pytest.approx(recall(labels), abs=0.02)
    exact = np.take_along_axis(QUERIES @ VECTORS.T, labels, 1)
    np.testing.assert_allclose(scores, exact, atol=0.01 * np.abs(exact).max())
    assert (np.diff(scores, axis=1) <= 0).all()


def test_few_vectors_are_ordered_by_bytes() -> None:
    search = filled(VECTORS[:300])
    assert recall(search.search(QUERIES, 10)[0], VECTORS[:300]) > 0.97


def test_same_bits_in_any_batch_and_with_any_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    search = filled(VECTORS)
    expected = search.search(QUERIES, 20, threads=1)
    monkeypatch.setattr(module, "_ROWS_PER_THREAD", 1000)
    monkeypatch.setattr(module, "_TILE", 512)
    for threads in (1, 2, 3):
        np.testing.assert_array_equal(search.search(QUERIES, 20, threads=threads), expected)
        for q in range(0, len(QUERIES), 7):
            alone = search.search(QUERIES[q : q + 1], 20, threads=threads)
            np.testing.assert_array_equal(alone, [part[q : q + 1] for part in expected])


def test_centroids_are_fitted_again_while_the_collection_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SAMPLE", 2000)
    grown = filled(VECTORS, step=300)
    assert grown._fitted_on >= 2000
    assert recall(grown.search(QUERIES, 50)[0]) > 0.95
    centroids = grown._centroids
    grown.add(np.arange(10_000, 10_000 + len(VECTORS)), VECTORS)
    assert grown._centroids is centroids


@pytest.mark.parametrize("count", [5, 1500, 5000])
def test_removed_and_forbidden_vectors_are_never_returned(count: int) -> None:
    search = filled(VECTORS)
    rng = np.random.default_rng(3)
    removed = rng.permutation(6000)[:1000]
    search.remove(removed)
    assert len(search) == 5000 and not len(search.existing(removed))
    allowed = rng.permutation(6000)[:count]
    labels, _ = search.search(QUERIES, 10, allowed=np.append(allowed, 77_777))
    visible = np.setdiff1d(allowed, removed)
    assert np.isin(labels, np.append(visible, -1)).all()
    products = QUERIES @ VECTORS[visible].T
    best = visible[np.argsort(-products, axis=1)[:, : min(10, len(visible))]]
    shares = [np.isin(a, b).mean() for a, b in zip(best, labels, strict=True)]
    assert np.mean(shares) > 0.95
    with pytest.raises(KeyError, match=str(removed[0])):
        search.remove(removed[:1])
    assert not search.can_add(removed[:1])
    with pytest.raises(ValueError, match="once"):
        search.add(removed[:1], VECTORS[:1])


@pytest.mark.parametrize("dimension", [1, 2, 7, 300])
def test_any_dimension(dimension: int) -> None:
    vectors = collection(3000, dimension)
    labels, _ = filled(vectors).search(vectors[:5] * 100, 40)
    best = np.argsort(-(vectors[:5] @ vectors.T), axis=1)[:, :40]
    assert np.mean([np.isin(a, b).mean() for a, b in zip(best, labels, strict=True)]) > 0.85


def test_a_saved_scan_is_mapped_and_goes_on(tmp_path: Path) -> None:
    search = filled(VECTORS[:5000])
    removed = np.arange(0, 5000, 9)
    search.remove(removed)
    search.save(tmp_path)
    loaded = ScanSearch.load(tmp_path, 32, SavedState(live=np.setdiff1d(np.arange(5000), removed)))
    np.testing.assert_array_equal(loaded.search(QUERIES, 20), search.search(QUERIES, 20))
    assert isinstance(loaded._codes, np.memmap) and len(loaded) == len(search)
    for one in (search, loaded):
        one.add(np.arange(5000, 6000), VECTORS[5000:])
    np.testing.assert_array_equal(loaded.search(QUERIES, 20), search.search(QUERIES, 20))
    np.testing.assert_array_equal(loaded.vectors(np.array([5001, 1])), search.vectors(np.array([5001, 1])))


@pytest.mark.parametrize("name", ["codes", "bytes", "sums", "units", "centroids", "columns"])
def test_files_of_another_shape_are_refused(tmp_path: Path, name: str) -> None:
    filled(VECTORS[:100]).save(tmp_path)
    file = tmp_path / f"vector_{name}.npy"
    array = np.load(file)
    damaged = [array[:-1], array.astype(np.float64)]
    if name == "columns":  # must be a permutation
        damaged.append(np.full(32, 10**6))
    for content in damaged:
        np.save(file, content)
        with pytest.raises(ValueError, match=name):
            ScanSearch.load(tmp_path, 32, SavedState())
