"""HNSWSearch: what hnswlib needs checked, and its file."""

import resource
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import hnswlib
import numpy as np
import pytest
from builders.graph_vectors import like_fdes

from muvera.mips import HNSWSearch, HNSWSettings, SavedState
from muvera.mips.hnsw import find_lists


def filled(vectors: np.ndarray, **settings: Any) -> HNSWSearch:
    search = HNSWSearch(vectors.shape[1], HNSWSettings(**{"ef_construction": 100, "ef": 100, **settings}))
    search.add(np.arange(len(vectors)), vectors, threads=1)
    return search


@pytest.mark.parametrize("removed", [0, 60])
@pytest.mark.parametrize("share", [None, 0.5, 0.1, 0.01])
def test_k_alone_walks_as_ef_does(removed: int, share: float | None) -> None:
    """With ef = 1, asking for k = max(wanted, ef) gives the labels of that ef, with filters and removals."""
    vectors, queries = like_fdes(0, 600, 16), like_fdes(1, 30, 16)
    index = hnswlib.Index("ip", 16)
    index.init_index(600, M=8, ef_construction=50)
    index.add_items(vectors, num_threads=1)
    for label in range(removed):
        index.mark_deleted(label)
    rng = np.random.default_rng(2)
    allowed = np.arange(removed, 600)
    if share is not None:
        allowed = rng.choice(allowed, int(share * 600), replace=False)
    accept = None if share is None else set(allowed.tolist()).__contains__

    def walk(ef: int, k: int) -> np.ndarray | None:
        index.set_ef(ef)
        try:
            return np.asarray(index.knn_query(queries, k=k, num_threads=1, filter=accept)[0])
        except RuntimeError:  # fewer were found
            return None

    for ef in (10, 80):
        for wanted in (1, 5, 40):
            wanted = min(wanted, len(allowed))
            k = min(max(wanted, ef), len(allowed))
            by_ef, by_k = walk(ef, k), walk(1, k)
            assert (by_ef is None) == (by_k is None)
            if by_ef is not None and by_k is not None:
                np.testing.assert_array_equal(by_k[:, :wanted], by_ef[:, :wanted])


def test_unreachable_vectors_are_found() -> None:
    """With so few links some vectors lose all links to them."""
    vectors = like_fdes(18, 1500, 8) * np.geomspace(1, 1000, 1500)[:, np.newaxis].astype(np.float32)
    search = filled(vectors[::-1].copy(), m=2, ef_construction=2, ef=1)
    with pytest.raises(RuntimeError):  # otherwise the test shows nothing
        search._index.knn_query(vectors[:1], k=1500, num_threads=1)
    labels, _ = search.search(like_fdes(19, 3, 8), 1500, threads=2)
    assert (np.sort(labels, axis=1) == np.arange(1500)).all()


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, HNSWSearch]:
    search = filled(like_fdes(23, 300, 16), ef=77)
    search.save(tmp_path)
    return tmp_path / HNSWSearch.file, search


def load(path: Path, search: HNSWSearch) -> HNSWSearch:
    return HNSWSearch.load(path.parent, 16, SavedState(search.settings))


def test_a_mark_that_contradicts_the_index(saved: tuple[Path, HNSWSearch]) -> None:
    """hnswlib would say "Label not found" later, when the vector is read."""
    path, search = saved
    search.remove(np.array([7]))
    search.save(path.parent)
    with pytest.raises(ValueError, match=r"vectors\.hnsw has vector 7"):
        load(path, search)


def test_links_without_a_target(saved: tuple[Path, HNSWSearch]) -> None:
    """hnswlib would follow them out of its memory."""
    path, search = saved
    whole = bytearray(path.read_bytes())
    step, floats_at = struct.unpack_from("=QQQ", whole, 24)[::2]
    assert floats_at == 4 * 33 and len(whole) > 96 + 300 * step
    upper = next(at for at in range(96 + 300 * step, len(whole), 4) if whole[at] or whole[at + 1])
    damages = {
        "target does not exist": [(96 + 7 * step + 4, 10**6), (96 + 9 * step, 40), (upper + 8, 300)],
        "entry point": [(52, 300), (52, 2**31), (48, 99)],
        "label twice": [(96 + step + floats_at + 4 * 32, 0)],
        "contradicts itself": [(16, 10**9), (0, 1), (56, 3)],
        "cut off": [(96 + 300 * step, 68), (upper, 67)],
    }
    for message, places in damages.items():
        for position, value in places:
            damaged = bytearray(whole)
            struct.pack_into("=I", damaged, position, value)
            path.write_bytes(damaged)
            with pytest.raises(ValueError, match=message):
                load(path, search)


@pytest.mark.parametrize(
    ("numbers", "size", "node", "levels"),
    [
        ([0, 12, 7, 7, 7, 0], 24, 3, [0, 1, 0]),
        ([0, 12, 7], 12, 1, [0, 0, 0]),
        ([0, 8, 7, 7], 16, 1, [0, 0, 0]),
    ],
)
def test_lists_of_upper_links(numbers: list[int], size: int, node: int, levels: list[int]) -> None:
    counts, starts = np.zeros(3, np.int64), np.zeros(3, np.int64)
    assert find_lists(np.array(numbers, np.uint32), size, 3, counts, starts)[0] == node
    assert counts.tolist() == levels


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from muvera.mips import HNSWSearch
search = HNSWSearch(64)
search.add(np.arange(200), np.random.default_rng(0).standard_normal((200, 64)))
# A write past this size fails, as on a full disk.
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    search.save(Path(sys.argv[1]))
except OSError as error:
    print(error)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ") or not resource, reason="needs limits of file sizes")
def test_a_full_disk(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Is the disk full?" in run.stdout


def test_hnswlib_still_needs_these_checks(tmp_path: Path) -> None:
    """Once one of these raises, its check in muvera may go."""
    index = hnswlib.Index(space="ip", dim=4)
    index.init_index(max_elements=10)
    index.add_items(np.eye(4, dtype=np.float32), np.arange(4))
    assert index.knn_query(np.full((1, 4), np.nan, np.float32), k=1)[0].shape == (1, 1)
    index.set_ef(55)
    index.save_index(str(tmp_path / "x"))
    other = hnswlib.Index(space="l2", dim=4)
    other.load_index(str(tmp_path / "x"))
    assert other.ef != 55
    index.save_index(str(tmp_path / "no" / "such" / "folder"))
