"""ScanSearch: any dimension, centroids, and files; the disk does not change results."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.vectors import clustered, filled, recall
from hypothesis import given
from hypothesis import strategies as st

import muvera.mips.scan as module
from muvera.kernels.scan import STEP
from muvera.mips.base import SavedState
from muvera.mips.codebook import Codebook, _coded_columns
from muvera.mips.scan import ScanSearch

VECTORS, QUERIES = clustered(0, 6000), clustered(1, 40)


def test_centroids_are_fitted_again_while_the_collection_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SAMPLE", 2000)
    grown = filled(ScanSearch(32), VECTORS, step=300)
    assert grown._fitted_on >= 2000
    assert recall(grown.search(QUERIES, 50)[0], VECTORS, QUERIES) > 0.95
    centroids = grown.codebook.centroids
    grown.add(np.arange(10_000, 10_000 + len(VECTORS)), VECTORS)
    assert grown.codebook.centroids is centroids


@pytest.mark.parametrize("dimension", [1, 2, 7, 300])
def test_any_dimension(dimension: int) -> None:
    vectors = clustered(0, 3000, dimension)
    labels, _ = filled(ScanSearch(dimension), vectors).search(vectors[:5] * 100, 40)
    assert recall(labels, vectors, vectors[:5]) > 0.85


def save(search: ScanSearch, index: Path, generation: str, current: set[str]) -> tuple[Any, set[str]]:
    """Save to a generation's folder.

    Return the state, and the names of the files in use.
    """
    folder = index / generation
    folder.mkdir()
    state, kept = search.save(folder, {index / name: name for name in current}.get)
    search.saved_in(folder)
    written = {f"{generation}/{path.name}" for path in folder.iterdir()}
    return (state, [index / name for name in kept]), {*kept, *written}


def test_saving_writes_only_new_codes_and_bytes(tmp_path: Path) -> None:
    search, whole = (filled(ScanSearch(32), VECTORS[:4000]) for _ in range(2))
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
        # The second addition joins the first one's part; both are written without the
        # first 4,000.
        kept = {"first/vector_codes.npy", "first/vector_bytes.npy"}
        assert names & before == kept
        written = np.load(tmp_path / f"{number}" / "vector_bytes.npy")
        assert len(written) == count - 4000
        np.testing.assert_array_equal(loaded.search(QUERIES, 20), whole.search(QUERIES, 20))
    assert loaded._fitted_on == 4000
    np.testing.assert_array_equal(loaded.vectors(np.array([5001, 1])), whole.vectors(np.array([5001, 1])))


@pytest.mark.parametrize("name", ["codes", "bytes", "sums", "units", "labels", "centroids", "columns"])
def test_files_of_another_shape_are_refused(tmp_path: Path, name: str) -> None:
    state, _ = filled(ScanSearch(32), VECTORS[:100]).save(tmp_path, lambda path: None)
    file = tmp_path / f"vector_{name}.npy"
    array = np.load(file)
    damaged = [array[:-1]] + [array.astype(np.float64)] * (name != "labels")
    if name == "columns":  # must be a permutation
        damaged.append(np.full(32, 10**6))
    for content in damaged:
        np.save(file, content)
        with pytest.raises(ValueError, match="vector"):
            ScanSearch.load(tmp_path, 32, SavedState(state, []))


def test_few_columns_make_the_codes_of_many_vectors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "_MANY", 4000)
    # A quarter of the columns has .98 of the squared variances, an eighth .86.
    rows = np.random.default_rng(0).normal(size=(6040, 64)).astype(np.float32)
    vectors, queries = np.split(rows * np.float32(0.94) ** np.arange(64, dtype=np.float32), [6000])
    search = filled(ScanSearch(64), vectors, step=1500)
    assert len(search.codebook.columns) == 16 and search._fitted_on == 4500
    found = search.search(queries, 20)
    assert recall(found[0], vectors, queries) > 0.95
    state, _ = save(search, tmp_path, "first", set())
    loaded = ScanSearch.load(tmp_path / "first", 64, SavedState(state[0], state[1], live=search.labels()))
    np.testing.assert_array_equal(loaded.search(queries, 20), found)
    flat = filled(ScanSearch(64), rows)
    assert len(flat.codebook.columns) == 64


@given(st.lists(st.floats(0.001, 0.1), min_size=1, max_size=4), st.integers(0, 1000))
def test_columns_without_codes_have_a_small_share_of_all_variance(shares: list[float], seed: int) -> None:
    """However often columns are halved, 97% of the squared variances remain.

    Each half has a share of what the columns before it have.
    """
    squares = np.ones(2 * STEP)
    for share in shares:
        squares = np.concatenate([squares, np.full(len(squares), share * squares.sum() / len(squares))])
    spreads = np.random.default_rng(seed).permutation(np.sqrt(squares))
    kept = _coded_columns(spreads)
    assert np.square(spreads[kept]).sum() >= 0.97 * np.square(spreads).sum() * (1 - 1e-12)
    smaller = np.sort(np.square(spreads))[::-1][: len(kept) // 2].sum()
    assert len(kept) == 2 * STEP or smaller < 0.97 * np.square(spreads).sum() * (1 + 1e-12)


def test_one_best_vector_is_among_the_many_that_bytes_order() -> None:
    """A few best by codes would not always contain it."""
    queries = clustered(5, 300)
    search = filled(ScanSearch(32), VECTORS)
    assert recall(search.search(queries, 1)[0], VECTORS, queries) > 0.95


def test_another_round_of_k_means_hardly_lowers_the_error_of_codes() -> None:
    sample = clustered(3, 4000)
    codebook = Codebook.fit(sample)
    points = codebook.paired(sample).reshape(len(sample), codebook.pairs, 2).astype(np.float64)
    errors = np.zeros(2)
    for pair in range(codebook.pairs):
        centers = codebook.centroids[pair].T.astype(np.float64)
        for lap in range(2):
            distances = np.square(points[:, pair, np.newaxis] - centers).sum(axis=2)
            errors[lap] += distances.min(axis=1).sum()
            nearest = distances.argmin(axis=1)
            centers = np.array([
                points[nearest == i, pair].mean(axis=0) if (nearest == i).any() else centers[i]
                for i in range(len(centers))
            ])  # fmt: skip
    assert errors[0] * 0.98 < errors[1] <= errors[0] * (1 + 1e-9)


@pytest.mark.parametrize("many", [False, True])
def test_pairs_of_columns_do_not_depend_on_the_mean_vector(many: bool) -> None:
    """A constant changes no ranking, so it must not decide which columns have codes."""
    sample = np.random.default_rng(4).normal(size=(3000, 64)).astype(np.float32)
    sample *= np.float32(0.9) ** np.arange(64, dtype=np.float32)
    shifted = sample + np.linspace(0, 8, 64, dtype=np.float32)
    np.testing.assert_array_equal(
        Codebook.fit(sample, many=many).columns, Codebook.fit(shifted, many=many).columns
    )
