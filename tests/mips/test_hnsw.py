"""HNSWSearch: ef, lengths, failed additions, damaged files, added checks.

hnswlib lacks these checks.
"""

import os
import struct
import subprocess
import sys
import types
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("hnswlib", reason="hnswlib is not installed")


from builders.vectors import clustered, filled, recall

from muvera.mips.base import OutdatedError, SavedState
from muvera.mips.hnsw import GRAPH, NORMS, HNSWSearch
from muvera.mips.settings import HNSWSettings


def graph(vectors: np.ndarray, **settings: Any) -> Any:
    """Return a graph of these vectors under the labels 0, 1, ..."""
    chosen = HNSWSettings(**{"ef_construction": 100, "ef": 100, **settings})
    return filled(HNSWSearch(vectors.shape[1], chosen), vectors)


def load(folder: Path, search: HNSWSearch, dimension: int = 16, **changes: Any) -> HNSWSearch:
    """Load the files of `search`, with changed settings."""
    return HNSWSearch.load(folder, dimension, SavedState({}, [], replace(search.settings, **changes)))


# -- searching ----------------------------------------------------------------


def test_ef_of_a_search() -> None:
    """`ef` applies to one search.

    Neither `ef` nor a large `k` changes later searches.
    """
    vectors, queries = clustered(9, 1500, 16), clustered(10, 40, 16)
    search = graph(vectors, m=4, ef=200)
    wide = search.search(queries, 10, threads=1)[0]
    narrow = search.search(queries, 10, threads=1, ef=10)[0]
    built_narrow = graph(vectors, m=4, ef=10).search(queries, 10, threads=1)[0]
    np.testing.assert_array_equal(search.search(queries, 10, threads=1, ef=20)[0], built_narrow)
    assert search.search(queries, 1200)[0].shape == (40, 1200)
    np.testing.assert_array_equal(search.search(queries, 10, threads=1)[0], wide)
    assert not np.array_equal(narrow, wide)


def test_later_vectors_longer_than_the_first(tmp_path: Path) -> None:
    vectors, queries = clustered(43, 600, 16), clustered(44, 20, 16)
    vectors[400:] *= 2
    search = graph(vectors[:400])
    search.save(tmp_path, lambda path: None)
    for each in (search, load(tmp_path, search)):
        each.add(np.arange(400, 600), vectors[400:], threads=1)
        np.testing.assert_allclose(each.vectors(np.arange(600)), vectors, atol=3e-5)
        labels, scores = each.search(queries, 20)
        assert recall(labels, vectors, queries) > 0.95
        products = np.take_along_axis(queries @ vectors.T, labels, 1)
        np.testing.assert_allclose(scores, products, atol=3e-5)


# -- changing -----------------------------------------------------------------


class Wrapped:
    """A library's graph with some methods replaced."""

    def __init__(self, graph: Any, **methods: Any) -> None:
        self._graph = graph
        vars(self).update(methods)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._graph, name)


def test_a_failing_add_adds_nothing_and_its_labels_stay_free(tmp_path: Path) -> None:
    vectors = clustered(22, 60)
    search = graph(vectors[:40])
    own = search._graph.index

    def add_items(data: Any, labels: Any, **options: Any) -> None:
        own.add_items(data[:7], labels[:7], **options)
        raise MemoryError

    search._graph.index = Wrapped(own, add_items=add_items)
    with pytest.raises(MemoryError):
        search.add(np.arange(40, 60), vectors[40:])
    search._graph.index = own
    assert search.labels().tolist() == list(range(40)) and search.search(vectors[40:], 40)[0].max() < 40
    search.save(tmp_path, lambda path: None)  # with the vectors of the failed addition
    search.saved_in(tmp_path)
    search.add(np.arange(40, 60), vectors[:39:-1])
    state, kept = search.save(tmp_path, lambda path: path.name)
    saved = SavedState(state, [tmp_path / name for name in kept], search.settings, np.arange(60))
    for each in (search, HNSWSearch.load(tmp_path, 32, saved)):
        assert each.search(vectors[:39:-1], 1)[0].ravel().tolist() == list(range(40, 60)) and len(each) == 60
        np.testing.assert_allclose(each.vectors(np.arange(40, 60)), vectors[:39:-1], atol=3e-5)


# -- files --------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, HNSWSearch]:
    search = graph(clustered(23, 300, 16), ef=77)
    search.save(tmp_path, lambda path: None)
    return tmp_path / GRAPH, search


@pytest.mark.parametrize(
    ("dimension", "changes", "message"), [(17, {}, "16 floats, but 17"), (16, {"m": 8}, "m=16, but m=8")]
)
def test_graphs_of_other_settings_are_refused(
    saved: tuple[Path, HNSWSearch], dimension: int, changes: dict[str, Any], message: str
) -> None:
    path, search = saved
    with pytest.raises(ValueError, match=message):
        load(path.parent, search, dimension, **changes)


def test_files_that_are_no_graphs_are_refused(saved: tuple[Path, HNSWSearch]) -> None:
    path, search = saved
    path.write_bytes(b"\1\0\0\0\1\0\0\0" * 1000)
    with pytest.raises(ValueError, match="not a file of"):
        load(path.parent, search)


def replaced(norms: Any, place: int, value: float) -> Any:
    """Return a copy of the norms with another one in a place."""
    changed = norms.copy()
    changed[place] = value
    return changed


@pytest.mark.parametrize(
    "damage",
    [
        lambda norms: replaced(norms, 300, np.nan),
        lambda norms: replaced(norms, 7, 0),
        lambda norms: replaced(norms, 0, -1),
        lambda norms: replaced(norms, 0, np.inf),
        lambda norms: replaced(norms, 0, 0),
        lambda norms: replaced(norms, 0, norms[0] * 1.1),
        lambda norms: replaced(norms, 5, norms[0] / 2),
        lambda norms: norms[:200],
        lambda norms: norms[:0],
        lambda norms: norms.astype(np.float64),
        lambda norms: norms[np.newaxis],
    ],
    ids=[
        "nan", "zero", "negative", "infinite", "no first norm", "long", "short",
        "200 of 301", "empty", "float64", "two axes",
    ],
)  # fmt: skip
def test_damaged_norms(saved: tuple[Path, HNSWSearch], damage: Any) -> None:
    path, search = saved
    norms = path.parent / NORMS
    np.save(norms, damage(np.load(norms)))
    with pytest.raises(ValueError, match=r"vector_norms\.npy"):
        load(path.parent, search)


def test_cut_files_are_refused(saved: tuple[Path, HNSWSearch]) -> None:
    path, search = saved
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for size in [0, 5, 95, 96, len(whole) - 1, *rng.integers(96, len(whole), 12)]:
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="truncated"):
            load(path.parent, search)


def test_files_with_more_bytes_are_refused(saved: tuple[Path, HNSWSearch]) -> None:
    path, search = saved
    path.write_bytes(path.read_bytes() + b"\0\0\0")
    with pytest.raises(ValueError, match="3 bytes follow its end"):
        load(path.parent, search)


def test_a_changed_byte_is_noticed_or_leaves_a_valid_graph(saved: tuple[Path, HNSWSearch]) -> None:
    path, search = saved
    whole = path.read_bytes()
    rng, queries = np.random.default_rng(0), clustered(27, 3, 16)
    for position in rng.integers(0, len(whole), 60):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            loaded = load(path.parent, search)
        except ValueError as error:
            assert str(path) in str(error) or "no norm" in str(error)
        else:
            with np.errstate(all="ignore"):
                loaded.search(queries, 5, threads=1)


# -- checks that hnswlib lacks ------------------------------------------------


def test_another_library_under_the_name_of_hnswlib(monkeypatch: pytest.MonkeyPatch) -> None:
    """chroma-hnswlib has the same module name.

    Its index lacks `index_file_size` and `return_type`.
    """

    class Index:
        def get_items(self, ids: Any = None) -> Any:
            """get_items(self: hnswlib.Index, ids: object = None) -> list"""

    chroma = types.ModuleType("hnswlib")
    chroma.Index, chroma.__file__ = Index, "/somewhere/hnswlib.so"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "hnswlib", chroma)
    with pytest.raises(
        ImportError, match=r"/somewhere/hnswlib.so has no index_file_size and no get_items"
    ) as error:
        HNSWSearch(16)
    assert "chroma-hnswlib" in str(error.value) and "pip install" in str(error.value)


def test_unreachable_vectors_are_found() -> None:
    """With so few links, no link leads to some vectors.

    All allowed vectors are then scored.
    """
    vectors = clustered(18, 1500, 8) * np.geomspace(1, 1000, 1500)[:, np.newaxis].astype(np.float32)
    search, queries = graph(vectors[::-1].copy(), m=2, ef_construction=2, ef=1), clustered(19, 3, 8)
    with pytest.raises(RuntimeError):  # otherwise the test shows nothing
        search._graph.index.knn_query(vectors[:1], k=1500, num_threads=1)
    for allowed in (None, np.arange(0, 1500, 2)):
        labels, scores = search.search(queries, 1500, allowed=allowed, threads=2)
        present = np.arange(1500) if allowed is None else allowed
        found = labels[:, : len(present)]
        assert (np.sort(found, axis=1) == present).all() and (labels[:, len(present) :] == -1).all()
        products = np.take_along_axis(queries @ search.vectors(np.arange(1500)).T, found, 1)
        np.testing.assert_allclose(scores[:, : len(present)], products, rtol=1e-4, atol=1e-3)


def test_a_marked_vector_is_not_found(saved: tuple[Path, HNSWSearch]) -> None:
    """A marked vector is not read: hnswlib would raise "Label not found"."""
    path, search = saved
    search.remove(np.array([7]))
    search.settle()
    search.save(path.parent, lambda path: None)
    loaded = load(path.parent, search)
    assert 7 not in loaded.labels() and len(loaded) == len(search)  # an index compares them with its rows


def test_a_label_of_a_failed_addition_is_not_loaded(tmp_path: Path) -> None:
    """Its label can be that of a document without tokens, which has no vector."""
    search = graph(clustered(23, 300, 16))
    failed = copy(search)
    failed.add(np.arange(300, 310), clustered(24, 10, 16))
    search.save(tmp_path, lambda path: None)
    live = np.append(np.arange(300), 305)
    loaded = HNSWSearch.load(tmp_path, 16, SavedState({}, [], search.settings, live))
    assert loaded.labels().tolist() == list(range(300))


#: Places in a graph's file of 300 vectors, from the size of a vector's entry and the
#: start of the upper lists, and the numbers to write there.
DAMAGES: dict[str, Callable[[int, int], list[tuple[int, int]]]] = {
    "target does not exist": lambda step, upper: [
        (96 + 7 * step + 4, 10**6), (96 + 9 * step, 40), (upper + 8, 300)
    ],
    "entry point": lambda step, upper: [(52, 300), (52, 2**31), (48, 99)],
    "label twice": lambda step, upper: [(96 + step + 4 * 33 + 4 * 32, 0)],
    "contradicts itself": lambda step, upper: [
        (16, 10**9), (0, 1), (56, 3), (84, 0x7FE00000), (84, 0), (92, 1)
    ],
    "truncated": lambda step, upper: [(96 + 300 * step, 68), (upper, 67)],
}  # fmt: skip


@pytest.mark.parametrize("message", DAMAGES)
def test_links_without_a_target(saved: tuple[Path, HNSWSearch], message: str) -> None:
    """hnswlib would follow them out of its memory."""
    path, search = saved
    whole = bytearray(path.read_bytes())
    step, floats_at = struct.unpack_from("=QQQ", whole, 24)[::2]
    assert floats_at == 4 * 33 and len(whole) > 96 + 300 * step
    upper = next(at for at in range(96 + 300 * step, len(whole), 4) if whole[at] or whole[at + 1])
    for position, value in DAMAGES[message](step, upper):
        damaged = bytearray(whole)
        struct.pack_into("=I", damaged, position, value)
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=message):
            load(path.parent, search)


def test_added_labels_without_a_norm(saved: tuple[Path, HNSWSearch]) -> None:
    """Without the check, arrays would grow to the size of a damaged label.

    They are indexed by label.
    """
    path, search = saved
    np.save(path.parent / "vector_added_labels.npy", np.array([2**40]))
    np.save(path.parent / "vector_added.npy", np.ones((1, 16), np.float32))
    with pytest.raises(ValueError, match=f"no norm for vector {2**40}"):
        load(path.parent, search)


def test_a_full_disk(saved: tuple[Path, HNSWSearch], tmp_path: Path) -> None:
    """hnswlib does not notice that its file is incomplete."""
    index = saved[1]._graph.index
    saved[1]._graph.index = Wrapped(index, save_index=lambda path: Path(path).write_bytes(b"part"))
    with pytest.raises(OSError, match=r"only 4 of \d+ bytes\. Is the disk full\?"):
        saved[1].save(tmp_path, lambda path: None)


_INTERRUPTED = """
import os, signal, sys, time
import numpy
from muvera.mips.hnsw import HNSWSearch

def unraisable(hook):
    # Python cannot raise an interrupt that arrives in a callback of the garbage
    # collector, and says so on standard error: this Ctrl-C interrupts nothing.
    if hook.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(hook)

def interrupted(delay):
    try:
        signal.setitimer(signal.ITIMER_REAL, delay)
        HNSWSearch(8)
        signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        pass
    HNSWSearch(8)

def child(work):
    process = os.fork()
    if not process:
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        sys.unraisablehook = unraisable
        try:
            work()
        except BaseException as error:
            print(repr(error), flush=True)
        os._exit(0)
    os.waitpid(process, 0)

begun = time.perf_counter()
child(lambda: HNSWSearch(8))
seconds = time.perf_counter() - begun
for i in range(30):
    child(lambda: interrupted(seconds * (i + 1) / 20))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_an_interrupt_of_the_import_leaves_the_backend_usable() -> None:
    done = subprocess.run([sys.executable, "-c", _INTERRUPTED], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("", "")


def test_an_earlier_copy_is_refused_after_a_later_one_is_settled() -> None:
    vectors = clustered(3, 200, 8)
    search = graph(vectors)
    later = copy(search)
    later.remove(np.arange(100))
    search.search(vectors[:1], 5)  # until then, both can be searched
    later.settle()
    with pytest.raises(OutdatedError):
        search.search(vectors[:1], 5)
    assert later.search(vectors[:1], 100)[0].min() == 100
