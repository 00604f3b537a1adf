"""The graph of usearch: its recall in 2, 1 and 4 bytes a number, removal, its mapped file."""

import struct
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.graph_vectors import exact_best, like_fdes, shared

pytest.importorskip("usearch", reason="usearch is optional")

import muvera.mips.graph
from muvera.mips import ExactSearch, SavedState, USearchSearch, USearchSettings

PRECISIONS = ["bfloat16", "int8", "float32"]

#: Relative error of an inner product of vectors kept so.
ROUNDING = {"bfloat16": 2e-2, "int8": 2e-2, "float32": 1e-5}

every_precision = pytest.mark.parametrize("precision", PRECISIONS)


def filled(vectors: np.ndarray, **settings: Any) -> USearchSearch:
    search = USearchSearch(
        vectors.shape[1], USearchSettings(**{"ef_construction": 100, "ef": 100, **settings})
    )
    search.add(np.arange(len(vectors)), vectors, threads=1)
    return search


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


# -- what the graph does not give ----------------------------------------------


def test_where_the_graph_finds_too_few_vectors_are_scored_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, queries = like_fdes(20, 120), like_fdes(21, 4)
    search = filled(vectors, precision="float32")
    walk = search._walk

    def lame(*args: Any) -> Any:
        labels, distances, counts = walk(*args)
        return labels, distances, np.minimum(counts, 3)

    monkeypatch.setattr(search, "_walk", lame)
    monkeypatch.setattr(muvera.mips.graph, "_BLOCK_BYTES", 64 * 4 * 7)  # several blocks, the last one shorter
    exact = ExactSearch(64)
    exact.add(np.arange(120), vectors)
    for allowed in (None, np.arange(0, 120, 2)):
        found, scores = search.search(queries, 60, allowed=allowed)
        expected, products = exact.search(queries, 60, allowed=allowed)
        np.testing.assert_allclose(scores, products, atol=1e-5)
        np.testing.assert_array_equal(np.sort(found, axis=1), np.sort(expected, axis=1))


# -- the file -----------------------------------------------------------------


@pytest.fixture(params=PRECISIONS)
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, USearchSearch]:
    search = filled(like_fdes(23, 300, 16), ef=77, precision=request.param)
    search.remove(np.array([5, 150]))
    search.save(tmp_path)
    return tmp_path / USearchSearch.file, search


def load(path: Path, search: USearchSearch, **changes: Any) -> USearchSearch:
    return USearchSearch.load(path.parent, 16, SavedState(replace(search.settings, **changes)))


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


def test_fewer_bytes_a_number_make_a_smaller_file(tmp_path: Path) -> None:
    sizes = {}
    for precision in PRECISIONS:
        filled(like_fdes(0, 200, 512), precision=precision).save(tmp_path)
        sizes[precision] = (tmp_path / USearchSearch.file).stat().st_size
    links = sizes["float32"] - 200 * 528 * 4
    assert sizes["bfloat16"] - links == 200 * 528 * 2 and sizes["int8"] - links == 200 * 528


def test_load_refuses_another_precision(saved: tuple[Path, USearchSearch]) -> None:
    path, search = saved
    other = "int8" if search.settings.precision != "int8" else "bfloat16"
    with pytest.raises(ValueError, match="in another way than its settings say"):
        load(path, search, precision=other)


def test_load_refuses_another_file(saved: tuple[Path, USearchSearch]) -> None:
    path, search = saved
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
