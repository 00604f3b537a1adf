"""ScanSearch: its recall; additions, removals, filters, threads and the disk do not change results."""

from pathlib import Path
from typing import Any

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
    exact = np.take_along_axis(QUERIES @ VECTORS.T, labels, 1)
    np.testing.assert_allclose(scores, exact, atol=0.01 * np.abs(exact).max())
    assert (np.diff(scores, axis=1) <= 0).all()


def test_centroids_are_fitted_again_while_the_collection_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SAMPLE", 2000)
    grown = filled(VECTORS, step=300)
    assert grown._fitted_on >= 2000
    assert recall(grown.search(QUERIES, 50)[0]) > 0.95
    centroids = grown._centroids
    grown.add(np.arange(10_000, 10_000 + len(VECTORS)), VECTORS)
    assert grown._centroids is centroids


@pytest.mark.parametrize("dimension", [1, 2, 7, 300])
def test_any_dimension(dimension: int) -> None:
    vectors = collection(3000, dimension)
    labels, _ = filled(vectors).search(vectors[:5] * 100, 40)
    best = np.argsort(-(vectors[:5] @ vectors.T), axis=1)[:, :40]
    assert np.mean([np.isin(a, b).mean() for a, b in zip(best, labels, strict=True)]) > 0.85


def save(search: ScanSearch, index: Path, generation: str, current: set[str]) -> tuple[Any, set[str]]:
    """Save to a generation's folder; return the state, and the names of the files in use."""
    folder = index / generation
    folder.mkdir()

    def keep(path: Path) -> str | None:
        name = path.relative_to(index).as_posix() if index in path.parents else ""
        return name if name in current else None

    state, kept = search.save(folder, keep)
    search.saved_in(folder)
    return (state, [index / name for name in kept]), {
        *kept,
        *(path.relative_to(index).as_posix() for path in folder.iterdir()),
    }


def test_saving_writes_only_new_codes_and_bytes(tmp_path: Path) -> None:
    search, whole = filled(VECTORS[:4000]), filled(VECTORS[:4000])
    removed = np.arange(0, 4000, 9)
    search.remove(removed)
    whole.remove(removed)
    state, names = save(search, tmp_path, "first", set())
    loaded, count = search, 4000
    for number, more in enumerate((1, 300, 1000), 4000):
        live = loaded.labels()
        folder = tmp_path / ("first" if number == 4000 else f"{number - 1}")
        loaded = ScanSearch.load(folder, 32, SavedState(state[0], state[1], live=live))
        np.testing.assert_array_equal(loaded.search(QUERIES, 20), whole.search(QUERIES, 20))
        assert all(isinstance(part.bytes, np.memmap) for part in loaded._parts)
        first = loaded._parts[0].codes
        for each in (loaded, whole):
            each.add(np.arange(count, count + more), VECTORS[count : count + more])
        count += more
        assert loaded._parts[0].codes is first  # adding does not copy what was mapped
        for threads in (1, 2):
            np.testing.assert_array_equal(
                loaded.search(QUERIES, 20, threads=threads), whole.search(QUERIES, 20)
            )
        before = names
        state, names = save(loaded, tmp_path, f"{number}", names)
        # The second addition joins the first one's part; both are written without the first 4,000.
        kept = {"first/vector_codes.npy", "first/vector_bytes.npy"}
        assert names & before == kept
        written = np.load(tmp_path / f"{number}" / "vector_bytes.npy")
        assert len(written) == count - 4000
        np.testing.assert_array_equal(loaded.search(QUERIES, 20), whole.search(QUERIES, 20))
    assert loaded._fitted_on == 4000
    np.testing.assert_array_equal(loaded.vectors(np.array([5001, 1])), whole.vectors(np.array([5001, 1])))


@pytest.mark.parametrize("name", ["codes", "bytes", "sums", "units", "labels", "centroids", "columns"])
def test_files_of_another_shape_are_refused(tmp_path: Path, name: str) -> None:
    state, _ = filled(VECTORS[:100]).save(tmp_path, lambda path: None)
    file = tmp_path / f"vector_{name}.npy"
    array = np.load(file)
    damaged = [array[:-1]] + [array.astype(np.float64)] * (name != "labels")
    if name == "columns":  # must be a permutation
        damaged.append(np.full(32, 10**6))
    for content in damaged:
        np.save(file, content)
        with pytest.raises(ValueError, match="vector"):
            ScanSearch.load(tmp_path, 32, SavedState(state, []))
