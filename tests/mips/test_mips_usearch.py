"""The graph of usearch: its recall in 2, 1 and 4 bytes a number, removal, restriction, its mapped file."""

import struct
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("usearch", reason="usearch is optional")

import muvera.mips.usearch as module
from muvera.mips import ExactSearch, SavedState, USearchSearch, USearchSettings

PRECISIONS = ["bfloat16", "int8", "float32"]

#: Relative error of an inner product of vectors kept so.
ROUNDING = {"bfloat16": 2e-2, "int8": 2e-2, "float32": 1e-5}

every_precision = pytest.mark.parametrize("precision", PRECISIONS)


def like_fdes(seed: int, n: int, dimension: int = 64) -> np.ndarray:
    """Clustered directions with norms that differ by some ten per cent, as FDEs have."""
    rng = np.random.default_rng(seed)
    centers = np.random.default_rng(99).standard_normal((20, dimension))  # queries and vectors share them
    vectors = centers[rng.integers(0, 20, n)] + rng.standard_normal((n, dimension))
    vectors *= rng.normal(1, 0.1, (n, 1)) / np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32)


def filled(vectors: np.ndarray, **settings: Any) -> USearchSearch:
    search = USearchSearch(
        vectors.shape[1], USearchSettings(**{"ef_construction": 100, "ef": 100, **settings})
    )
    search.add(np.arange(len(vectors)), vectors, threads=1)
    return search


def exact_best(vectors: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    return np.argsort(-(queries.astype(np.float64) @ vectors.T.astype(np.float64)), axis=1)[:, :k]


def shared(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.mean([len(np.intersect1d(a, b)) / len(b) for a, b in zip(found, expected, strict=True)]))


# -- finding ------------------------------------------------------------------


@every_precision
def test_recall_is_high_and_measured(precision: Any) -> None:
    """Of the 10 best, .95 are among the 20 found: numbers that were rounded change the order of near ones."""
    vectors, queries = like_fdes(0, 3000), like_fdes(1, 50) * 3
    search = filled(vectors, precision=precision)
    found, scores = search.search(queries, 20)
    assert shared(found, exact_best(vectors, queries, 10)) > 0.97
    assert search.measure_recall(queries, 10) > 0.97  # of the vectors as they are kept
    assert (np.diff(scores, axis=1) <= 0).all()
    products = np.take_along_axis(queries @ vectors.T, found, 1)
    np.testing.assert_allclose(scores, products, atol=ROUNDING[precision] * 3)


@every_precision
def test_stored_vectors_come_back_as_they_are_kept(precision: Any) -> None:
    vectors = like_fdes(2, 200)
    search = filled(vectors, precision=precision)
    kept = search.vectors(np.array([7, 3, 199]))
    assert kept.dtype == np.float32
    np.testing.assert_allclose(kept, vectors[[7, 3, 199]], atol=ROUNDING[precision])


def test_a_poor_graph_says_so() -> None:
    vectors, queries = like_fdes(2, 2000), like_fdes(3, 40)
    poor = filled(vectors, m=2, ef_construction=2, ef=1)
    assert 0 < poor.measure_recall(queries, 10) < 0.9 < filled(vectors).measure_recall(queries, 10)


def test_one_thread_builds_the_same_graph_twice() -> None:
    vectors, queries = like_fdes(4, 800), like_fdes(5, 10)
    first, second = (filled(vectors).search(queries, 20) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


@every_precision
def test_batches_and_threads_do_not_matter_to_a_search(precision: Any) -> None:
    vectors, queries = like_fdes(6, 1500), like_fdes(7, 12)
    search = filled(vectors, precision=precision)
    whole = search.search(queries, 10, threads=2)
    for i in range(len(queries)):
        alone = search.search(queries[i : i + 1], 10, threads=1)
        np.testing.assert_array_equal(alone[0][0], whole[0][i])
        np.testing.assert_array_equal(alone[1][0], whole[1][i])


def test_a_search_may_have_an_ef_of_its_own() -> None:
    vectors, queries = like_fdes(9, 2000, 16), like_fdes(10, 50, 16)
    search = filled(vectors, m=4, ef=200)
    wide = search.search(queries, 10, threads=1)[0]
    narrow = search.search(queries, 10, threads=1, ef=10)[0]
    np.testing.assert_array_equal(search.search(queries, 10, threads=1)[0], wide)
    assert not np.array_equal(narrow, wide)
    with pytest.raises(ValueError, match="ef must be at least 1, got 0"):
        search.search(queries, 10, ef=0)


@every_precision
def test_zero_vectors_and_one_vector(precision: Any) -> None:
    search = filled(np.array([[0.0, 0.0], [0.0, 3.0]], np.float32), precision=precision)
    found, scores = search.search(np.array([[0.0, 2.0], [0.0, -2.0]]), 2)
    assert found.tolist() == [[1, 0], [0, 1]]
    np.testing.assert_allclose(scores, [[6, 0], [0, -6]], atol=0.05)
    one = filled(np.ones((1, 3), np.float32), precision=precision)
    assert one.search(np.ones((2, 3), np.float32), 1)[0].tolist() == [[0], [0]]


def test_threads_may_search_at_once() -> None:
    """usearch itself gives wrong answers then: its searches share their working memory."""
    vectors, queries = like_fdes(30, 2000), like_fdes(31, 200)
    search = filled(vectors)
    expected = search.search(queries, 10, threads=1)[0]
    wrong: list[int] = []

    def ask() -> None:
        for _ in range(5):
            wrong.append(int((search.search(queries, 10, threads=1)[0] != expected).sum()))

    workers = [threading.Thread(target=ask) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == [0] * 20


# -- removing -----------------------------------------------------------------


@every_precision
def test_removed_vectors_are_never_returned(precision: Any, tmp_path: Path) -> None:
    vectors, queries = like_fdes(8, 400), like_fdes(9, 20)
    search = filled(vectors, precision=precision)
    gone = np.unique(exact_best(vectors, queries, 8))
    search.save(tmp_path)
    before = USearchSearch.load(tmp_path, 64, SavedState(search.settings, removed=gone))
    search.remove(gone)
    (tmp_path / "after").mkdir()
    search.save(tmp_path / "after")
    after = USearchSearch.load(tmp_path / "after", 64, SavedState(search.settings, removed=gone))
    for one in (search, before, after):
        assert len(one) == 400 - len(gone) and not np.isin(one.labels(), gone).any()
        found, _ = one.search(queries, 50)
        assert not np.isin(found, gone).any() and (found >= 0).all()
        assert one.existing(np.array([gone[0], 5000])).tolist() == []
        with pytest.raises(KeyError, match=f"label {gone[0]} is not here"):
            one.remove(gone[:1])
        with pytest.raises(KeyError, match=f"label {gone[0]} is not here"):
            one.vectors(gone[:1])
        kept = np.setdiff1d(np.arange(400), gone)
        assert shared(one.search(queries, 20)[0], kept[exact_best(vectors[kept], queries, 10)]) > 0.97
        one.add(np.array([500]), queries[:1] * 9)
        assert one.search(queries[:1], 1)[0].tolist() == [[500]] and len(one) == 401 - len(gone)


def test_removing_some_unknown_removes_nothing() -> None:
    search = filled(like_fdes(10, 20))
    with pytest.raises(KeyError, match="label 77 is not here"):
        search.remove(np.array([3, 77]))
    assert len(search) == 20 and 3 in search.labels()


def test_removing_everything() -> None:
    search = filled(like_fdes(11, 30))
    search.remove(np.arange(30))
    assert search.search(like_fdes(12, 1), 1)[0].tolist() == [[-1]]
    search.add(np.array([30]), like_fdes(13, 1))
    assert search.search(like_fdes(12, 2), 1)[0].tolist() == [[30], [30]]


# -- restricting --------------------------------------------------------------


@every_precision
@pytest.mark.parametrize("allowed", [[], [17], [17, 17, -5, 10**9], list(range(0, 600, 3)), list(range(50))])
def test_allowed_labels_alone_are_returned(precision: Any, allowed: list[int]) -> None:
    vectors, queries = like_fdes(14, 600), like_fdes(15, 10)
    search = filled(vectors, precision=precision)
    found, scores = search.search(queries, 10, allowed=np.array(allowed, np.int64))
    present = np.unique([label for label in allowed if 0 <= label < 600]).astype(np.int64)
    wanted = min(10, len(present))
    assert (found[:, wanted:] == -1).all() and (scores[:, wanted:] == -np.inf).all()
    assert np.isin(found[:, :wanted], present).all()
    if wanted:
        expected = present[exact_best(search.vectors(present), queries, wanted)]
        assert shared(found[:, :wanted], expected) > 0.95


def test_removed_labels_are_not_found_though_allowed() -> None:
    search = filled(like_fdes(16, 100))
    search.remove(np.arange(50))
    found, _ = search.search(like_fdes(17, 3), 5, allowed=np.arange(40, 53))
    assert (np.sort(found[:, :3], axis=1) == [50, 51, 52]).all() and (found[:, 3:] == -1).all()


def test_where_the_graph_finds_too_few_vectors_are_scored_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, queries = like_fdes(20, 120), like_fdes(21, 4)
    search = filled(vectors, precision="float32")
    walk = search._walk

    def lame(*args: Any) -> Any:
        labels, distances, counts = walk(*args)
        return labels, distances, np.minimum(counts, 3)

    monkeypatch.setattr(search, "_walk", lame)
    monkeypatch.setattr(module, "_BLOCK_BYTES", 64 * 4 * 7)  # several blocks, the last one shorter
    exact = ExactSearch(64)
    exact.add(np.arange(120), vectors)
    for allowed in (None, np.arange(0, 120, 2)):
        found, scores = search.search(queries, 60, allowed=allowed)
        expected, products = exact.search(queries, 60, allowed=allowed)
        np.testing.assert_allclose(scores, products, atol=1e-5)
        np.testing.assert_array_equal(np.sort(found, axis=1), np.sort(expected, axis=1))


# -- a failing add ------------------------------------------------------------


def test_an_add_that_fails_within_usearch_adds_nothing() -> None:
    vectors = like_fdes(22, 60)
    search = filled(vectors[:40])

    class Breaks:
        def __getattr__(self, name: str) -> Any:
            return getattr(graph, name)

        def add(self, labels: Any, data: Any, **kwargs: Any) -> None:
            graph.add(labels[:7], data[:7], **kwargs)
            raise MemoryError

    graph, search._index = search._index, Breaks()
    with pytest.raises(MemoryError):
        search.add(np.arange(40, 60), vectors[40:])
    search._index = graph
    assert len(search) == 40 and search.labels().tolist() == list(range(40))
    assert search.search(vectors[40:], 40)[0].max() < 40
    search.add(np.arange(40, 60), vectors[40:])
    assert search.search(vectors[40:], 1)[0].ravel().tolist() == list(range(40, 60))


# -- the file -----------------------------------------------------------------


@pytest.fixture(params=PRECISIONS)
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, USearchSearch]:
    search = filled(like_fdes(23, 300, 16), ef=77, precision=request.param)
    search.remove(np.array([5, 150]))
    search.save(tmp_path)
    return tmp_path / module.FILE, search


def load(path: Path, search: USearchSearch, dimension: int = 16, **changes: Any) -> USearchSearch:
    return USearchSearch.load(path.parent, dimension, SavedState(replace(search.settings, **changes)))


def test_loaded_answers_are_the_same_mapped_or_not(saved: tuple[Path, USearchSearch]) -> None:
    path, search = saved
    queries = like_fdes(24, 20, 16)
    loaded = load(path, search)
    assert (loaded.settings, loaded.mapped) == (search.settings, True)
    for found, expected in zip(loaded.search(queries, 30), search.search(queries, 30), strict=True):
        np.testing.assert_array_equal(found, expected)
    path.unlink()  # as another process may do
    loaded.remove(np.array([7]))
    loaded.add(np.arange(300, 2000), like_fdes(25, 1700, 16))
    assert (loaded.mapped, len(loaded)) == (False, 1997)
    assert (loaded.search(queries, 1997)[0] >= 0).all()


def test_an_empty_graph_is_saved_too(tmp_path: Path) -> None:
    search = USearchSearch(16)
    search.save(tmp_path)
    loaded = load(tmp_path / module.FILE, search)
    loaded.add(np.arange(3), like_fdes(26, 3, 16))
    assert len(loaded) == 3


def test_fewer_bytes_a_number_make_a_smaller_file(tmp_path: Path) -> None:
    sizes = {}
    for precision in PRECISIONS:
        filled(like_fdes(0, 200, 512), precision=precision).save(tmp_path)
        sizes[precision] = (tmp_path / module.FILE).stat().st_size
    links = sizes["float32"] - 200 * 512 * 4
    assert sizes["bfloat16"] - links == 200 * 512 * 2 and sizes["int8"] - links == 200 * 512


def test_load_refuses_another_dimension_m_or_precision(saved: tuple[Path, USearchSearch]) -> None:
    path, search = saved
    with pytest.raises(ValueError, match="holds vectors of 16 floats, but 17 are wanted"):
        load(path, search, 17)
    with pytest.raises(ValueError, match="has m=16, but m=8 is wanted"):
        load(path, search, m=8)
    other = "int8" if search.settings.precision != "int8" else "bfloat16"
    with pytest.raises(ValueError, match="in another way than its settings say"):
        load(path, search, precision=other)
    np.save(path.parent / module.NORMS, np.ones(200, np.float32))
    with pytest.raises(ValueError, match="has no norm for vector 299"):
        load(path, search)


def test_load_refuses_a_file_that_was_cut_anywhere(saved: tuple[Path, USearchSearch]) -> None:
    path, search = saved
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for size in [0, 5, 95, 96, len(whole) - 1, *rng.integers(96, len(whole), 20)]:
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="cut off"):
            load(path, search)
    path.write_bytes(whole + b"\0\0\0")
    with pytest.raises(ValueError, match="3 bytes follow its end"):
        load(path, search)
    path.write_bytes(b"\1\0\0\0\1\0\0\0" * 1000)
    with pytest.raises(ValueError, match="not a file of usearch 2: its header contradicts itself"):
        load(path, search)


def test_load_refuses_links_that_lead_nowhere(saved: tuple[Path, USearchSearch]) -> None:
    """usearch would follow them out of its memory."""
    path, search = saved
    whole = path.read_bytes()
    rows, width = struct.unpack_from("<2I", whole)
    graph = 8 + rows * width + 64
    nodes = graph + 40 + 2 * rows
    for place, value in [(nodes + 10, 40), (nodes + 14, 10**6), (graph + 32, 10**6), (graph + 24, 9)]:
        damaged = bytearray(whole)
        struct.pack_into("<I", damaged, place, value)
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"links that lead nowhere|entry point"):
            load(path, search)


def test_random_damage_is_refused_or_harmless(saved: tuple[Path, USearchSearch]) -> None:
    path, search = saved
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    queries = like_fdes(27, 3, 16)
    for position in rng.integers(0, len(whole), 60):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            loaded = load(path, search)
        except ValueError as error:
            assert str(path) in str(error) or "no norm" in str(error)
        else:
            with np.errstate(all="ignore"):
                loaded._walk(queries, 5, 50, 1)
