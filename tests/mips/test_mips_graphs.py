"""What both graphs promise alike: searches, removal, restriction, failed additions, damaged files."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.graph_vectors import exact_best, like_fdes, shared

import muvera.mips.graph
import muvera.mips.hnsw
import muvera.mips.usearch
from muvera.mips import ExactSearch, HNSWSearch, HNSWSettings, SavedState, USearchSearch, USearchSettings


@dataclass(frozen=True)
class Graph:
    """One way of keeping a graph: its classes, what sets it apart, and what an inner product may be off by."""

    search: Any
    settings: Any
    differs: dict[str, Any]
    file: str
    rounding: float = 1e-5

    def filled(self, vectors: np.ndarray, **settings: Any) -> Any:
        """Return a graph of these vectors under the labels 0, 1, ..."""
        how = {"ef_construction": 100, "ef": 100, **self.differs, **settings}
        search = self.search(vectors.shape[1], self.settings(**how))
        search.add(np.arange(len(vectors)), vectors, threads=1)
        return search

    def load(self, folder: Path, search: Any, dimension: int = 16, **changes: Any) -> Any:
        """Read what `search` wrote, with changed settings."""
        return self.search.load(folder, dimension, SavedState(replace(search.settings, **changes)))


GRAPHS = {
    "hnsw": Graph(HNSWSearch, HNSWSettings, {}, HNSWSearch.file),
    **{
        f"usearch-{precision}": Graph(
            USearchSearch, USearchSettings, {"precision": precision}, USearchSearch.file, rounding
        )
        for precision, rounding in (("bfloat16", 2e-2), ("int8", 2e-2), ("float32", 1e-5))
    },
}


@pytest.fixture(params=GRAPHS)
def graph(request: pytest.FixtureRequest) -> Graph:
    if request.param.startswith("usearch"):
        pytest.importorskip("usearch", reason="usearch is optional")
    return GRAPHS[request.param]


# -- finding ------------------------------------------------------------------


def test_a_poor_graph_says_so(graph: Graph) -> None:
    vectors, queries = like_fdes(2, 2000), like_fdes(3, 40)
    poor = graph.filled(vectors, m=2, ef_construction=2, ef=1).measure_recall(queries, 10)
    assert 0 < poor < 0.9 < graph.filled(vectors).measure_recall(queries, 10)


def test_one_thread_builds_the_same_graph_twice(graph: Graph) -> None:
    vectors, queries = like_fdes(4, 800), like_fdes(5, 10)
    first, second = (graph.filled(vectors).search(queries, 20) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


def test_batches_and_threads_do_not_matter_to_a_search(graph: Graph) -> None:
    vectors, queries = like_fdes(6, 1500), like_fdes(7, 12)
    search = graph.filled(vectors)
    whole = search.search(queries, 10, threads=2)
    for i in range(len(queries)):
        alone = search.search(queries[i : i + 1], 10, threads=1)
        np.testing.assert_array_equal(alone[0][0], whole[0][i])
        np.testing.assert_array_equal(alone[1][0], whole[1][i])


def test_a_search_may_have_an_ef_of_its_own(graph: Graph) -> None:
    vectors, queries = like_fdes(9, 2000, 16), like_fdes(10, 50, 16)
    search = graph.filled(vectors, m=4, ef=200)
    wide = search.search(queries, 10, threads=1)[0]
    narrow = search.search(queries, 10, threads=1, ef=10)[0]
    built_narrow = graph.filled(vectors, m=4, ef=10).search(queries, 10, threads=1)[0]
    np.testing.assert_array_equal(narrow, built_narrow)
    np.testing.assert_array_equal(search.search(queries, 10, threads=1)[0], wide)
    assert not np.array_equal(narrow, wide)
    with pytest.raises(ValueError, match="ef must be at least 1, got 0"):
        search.search(queries, 10, ef=0)


def test_zero_vectors_and_one_vector(graph: Graph) -> None:
    search = graph.filled(np.array([[0.0, 0.0], [0.0, 3.0]], np.float32))
    found, scores = search.search(np.array([[0.0, 2.0], [0.0, -2.0]]), 2)
    assert found.tolist() == [[1, 0], [0, 1]]
    np.testing.assert_allclose(scores, [[6, 0], [0, -6]], atol=6 * graph.rounding)
    one = graph.filled(np.ones((1, 3), np.float32))
    assert one.search(np.ones((2, 3), np.float32), 1)[0].tolist() == [[0], [0]]


def test_what_the_graph_does_not_give_is_scored_one_by_one(
    graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors, queries = like_fdes(20, 120), like_fdes(21, 4)
    search = graph.filled(vectors)
    monkeypatch.setattr(muvera.mips.graph, "_BLOCK_BYTES", 64 * 4 * 7)  # several blocks, the last one shorter
    exact = ExactSearch(64)
    exact.add(np.arange(120), search.vectors(np.arange(120)))
    for among in (np.arange(120), np.arange(0, 120, 2)):
        found, scores = search._search_among(among, queries, 60)
        expected, products = exact.search(queries, 60, allowed=among)
        np.testing.assert_allclose(scores, products, atol=1e-5)
        np.testing.assert_array_equal(found, expected)


def test_lengths_that_differ_by_factors_are_no_harder(graph: Graph) -> None:
    """Of the best by inner product, the best by cosine are few: a walk by cosine finds less than half."""
    rng = np.random.default_rng(40)
    vectors = like_fdes(41, 3000) * rng.lognormal(0, 0.5, (3000, 1)).astype(np.float32)
    queries = like_fdes(42, 50)
    expected = exact_best(vectors, queries, 10)
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert shared(exact_best(units, queries, 40), expected) < 0.5
    search = graph.filled(vectors, ef=40)
    assert shared(search.search(queries, 20)[0], expected) > 0.95
    assert search.vectors(np.arange(9)).shape == (9, 64)


def test_later_vectors_may_be_longer_than_the_first(graph: Graph, tmp_path: Path) -> None:
    """Nothing fills them up, but their scores are right, and they are found; also after a load."""
    vectors, queries = like_fdes(43, 600, 16), like_fdes(44, 20, 16)
    vectors[400:] *= 2
    search = graph.filled(vectors[:400])
    search.save(tmp_path)
    for one in (search, graph.load(tmp_path, search)):
        one.add(np.arange(400, 600), vectors[400:], threads=1)
        np.testing.assert_allclose(one.vectors(np.arange(600)), vectors, atol=3 * graph.rounding)
        found, scores = one.search(queries, 20)
        assert shared(found, exact_best(vectors, queries, 10)) > 0.95
        products = np.take_along_axis(queries @ vectors.T, found, 1)
        np.testing.assert_allclose(scores, products, atol=3 * graph.rounding)


# -- removing -----------------------------------------------------------------


def test_removing_some_unknown_removes_nothing(graph: Graph) -> None:
    search = graph.filled(like_fdes(10, 20))
    with pytest.raises(KeyError, match="label 77 is not here"):
        search.remove(np.array([3, 77]))
    assert len(search) == 20 and 3 in search.labels()


def test_removing_everything(graph: Graph) -> None:
    search = graph.filled(like_fdes(11, 30))
    search.remove(np.arange(30))
    assert search.search(like_fdes(12, 1), 1)[0].tolist() == [[-1]]
    search.add(np.array([30]), like_fdes(13, 1))
    assert search.search(like_fdes(12, 2), 1)[0].tolist() == [[30], [30]]


def test_a_label_in_use_is_refused(graph: Graph) -> None:
    search = graph.filled(like_fdes(10, 20))
    with pytest.raises(ValueError, match="label 4 is in use"):
        search.add(np.array([30, 9, 4]), like_fdes(11, 3))
    assert len(search) == 20


# -- restricting --------------------------------------------------------------


@pytest.mark.parametrize("allowed", [[], [17], [17, 17, -5, 10**9], list(range(0, 600, 3)), list(range(50))])
def test_allowed_labels_alone_are_returned(graph: Graph, allowed: list[int]) -> None:
    vectors, queries = like_fdes(14, 600), like_fdes(15, 10)
    search = graph.filled(vectors)
    found, scores = search.search(queries, 10, allowed=np.array(allowed, np.int64))
    present = np.unique([label for label in allowed if 0 <= label < 600]).astype(np.int64)
    wanted = min(10, len(present))
    assert (found[:, wanted:] == -1).all() and (scores[:, wanted:] == -np.inf).all()
    assert np.isin(found[:, :wanted], present).all()
    if wanted:
        expected = present[exact_best(search.vectors(present), queries, wanted)]
        assert shared(found[:, :wanted], expected) > 0.95


def test_removed_labels_are_not_found_though_allowed(graph: Graph) -> None:
    search = graph.filled(like_fdes(16, 100))
    search.remove(np.arange(50))
    found, _ = search.search(like_fdes(17, 3), 5, allowed=np.arange(40, 53))
    assert (np.sort(found[:, :3], axis=1) == [50, 51, 52]).all() and (found[:, 3:] == -1).all()


# -- a failing add ------------------------------------------------------------


class Breaks:
    """A library's graph that takes seven vectors of an addition and then fails."""

    def __init__(self, graph: Any) -> None:
        self._graph = graph

    def __getattr__(self, name: str) -> Any:
        return getattr(self._graph, name)

    def add_items(self, data: Any, labels: Any, **kwargs: Any) -> None:
        """Add as hnswlib does."""
        self._graph.add_items(data[:7], labels[:7], **kwargs)
        raise MemoryError

    def add(self, labels: Any, data: Any, **kwargs: Any) -> None:
        """Add as usearch does."""
        self._graph.add(labels[:7], data[:7], **kwargs)
        raise MemoryError


def test_an_add_that_fails_within_the_library_adds_nothing(graph: Graph) -> None:
    vectors = like_fdes(22, 60)
    search = graph.filled(vectors[:40])
    own, search._index = search._index, Breaks(search._index)
    with pytest.raises(MemoryError):
        search.add(np.arange(40, 60), vectors[40:])
    search._index = own
    assert len(search) == 40 and search.labels().tolist() == list(range(40))
    assert search.search(vectors[40:], 40)[0].max() < 40
    # hnswlib takes a label once, also one that it marks as deleted.
    spent = graph.search is HNSWSearch
    assert search.can_add(np.arange(40, 60)) is not spent and search.can_add(np.arange(60, 80))
    search.add(np.arange(60, 80), vectors[40:])
    assert search.search(vectors[40:], 1)[0].ravel().tolist() == list(range(60, 80)) and len(search) == 60


# -- the file -----------------------------------------------------------------


@pytest.fixture
def saved(graph: Graph, tmp_path: Path) -> tuple[Path, Any]:
    search = graph.filled(like_fdes(23, 300, 16), ef=77)
    search.save(tmp_path)
    return tmp_path / graph.file, search


def test_loaded_answers_are_the_same_and_ef_is_kept(graph: Graph, saved: tuple[Path, Any]) -> None:
    path, search = saved
    queries = like_fdes(24, 20, 16)
    loaded = graph.load(path.parent, search)
    assert loaded.settings == search.settings
    for found, expected in zip(loaded.search(queries, 30), search.search(queries, 30), strict=True):
        np.testing.assert_array_equal(found, expected)
    loaded.add(np.arange(300, 2000), like_fdes(25, 1700, 16))  # it grows
    assert len(loaded) == 2000 and (loaded.search(queries, 2000)[0] >= 0).all()


def test_an_empty_graph_is_saved_too(graph: Graph, tmp_path: Path) -> None:
    search = graph.search(16, graph.settings(**graph.differs))
    search.save(tmp_path)
    loaded = graph.load(tmp_path, search)
    loaded.add(np.arange(3), like_fdes(26, 3, 16))
    assert len(loaded) == 3


def test_load_refuses_another_dimension_or_m(graph: Graph, saved: tuple[Path, Any]) -> None:
    path, search = saved
    with pytest.raises(ValueError, match="holds vectors of 16 floats, but 17 are wanted"):
        graph.load(path.parent, search, 17)
    with pytest.raises(ValueError, match="has m=16, but m=8 is wanted"):
        graph.load(path.parent, search, m=8)


def test_load_refuses_damaged_norms(graph: Graph, saved: tuple[Path, Any]) -> None:
    path, search = saved
    norms = path.parent / muvera.mips.graph.NORMS
    whole = np.load(norms)
    np.save(norms, whole[:200])
    with pytest.raises(ValueError, match="has no norm for vector 299"):
        graph.load(path.parent, search)
    changes = {
        "a norm is no positive number": [(300, np.nan), (7, 0), (0, -1), (0, np.inf)],
        "a norm is less than the graph's reach": [(0, 0), (0, whole[0] * 1.1), (5, whole[0] / 2)],
    }
    for message, damages in changes.items():
        for place, value in damages:
            damaged = whole.copy()
            damaged[place] = value
            np.save(norms, damaged)
            with pytest.raises(ValueError, match=rf"vector_norms\.npy is damaged: {message}"):
                graph.load(path.parent, search)
    for wrong in (whole[:0], whole.astype(np.float64), whole[np.newaxis]):
        np.save(norms, wrong)
        with pytest.raises(ValueError, match=r"vector_norms\.npy is damaged: it has float.* for norms"):
            graph.load(path.parent, search)
    norms.write_bytes(b"")
    with pytest.raises(ValueError, match=r"vector_norms\.npy is (truncated|not a .npy file)"):
        graph.load(path.parent, search)


def test_load_refuses_a_file_that_was_cut_anywhere(graph: Graph, saved: tuple[Path, Any]) -> None:
    path, search = saved
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for size in [0, 5, 95, 96, len(whole) - 1, *rng.integers(96, len(whole), 20)]:
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="cut off"):
            graph.load(path.parent, search)
    path.write_bytes(whole + b"\0\0\0")
    with pytest.raises(ValueError, match="3 bytes follow its end"):
        graph.load(path.parent, search)


def test_random_damage_is_refused_or_harmless(graph: Graph, saved: tuple[Path, Any]) -> None:
    """Outside of the floats every changed byte of a structure is seen, or a valid graph is left."""
    path, search = saved
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    queries = like_fdes(27, 3, 16)
    for position in rng.integers(0, len(whole), 60):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            loaded = graph.load(path.parent, search)
        except ValueError as error:
            assert str(path) in str(error) or "no norm" in str(error)
        else:
            with np.errstate(all="ignore"):
                loaded.search(queries, 5, threads=1)
