"""Saved indexes: same answers, files that stay, rebuilds, builds on disk.

Builds need bounded memory.
"""

import shutil
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.indexes import DOCUMENTS, MORE, WAYS, answers, built, every_way, files, token_files
from builders.realistic_collections import CONFIG, DIM, documents_like_real

import muvera.mips.hnsw as hnsw
from muvera import FDEConfig, FDEEncoder, MultiVectors, MuveraIndex
from muvera.index import persistence, token_store
from muvera.index.generations import IndexFolderError, read_manifest


@pytest.fixture
def early_staging(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_store, "_STAGING_BYTES", 1000)


@every_way
@pytest.mark.parametrize("ids", ["int", "str"])
def test_a_loaded_index_is_the_same(way: dict[str, Any], ids: str, folder: Path) -> None:
    documents = DOCUMENTS if ids == "int" else DOCUMENTS.with_ids([f"text {i}" for i in range(200)])
    index = built(documents, **way)
    index.delete(index.ids[10:20])
    index.update(documents[30:40])
    before = answers(index)
    index.save(folder)
    loaded = MuveraIndex.load(folder, verify_files=True)
    assert answers(loaded) == answers(index) == before
    assert loaded.info() == index.info() and loaded.ids.tolist() == index.ids.tolist()
    assert loaded.config == CONFIG and loaded.settings == index.settings
    for each in (loaded, index):  # saving maps the tokens of both
        segments = each.contents.tokens.stores[0].segments
        assert all(isinstance(segment.vectors.tokens, np.memmap) for segment in segments)
    names = [1000 + i if ids == "int" else f"new {i}" for i in range(20)]
    loaded.add(MORE.with_ids(names))
    loaded.save(folder)
    assert answers(MuveraIndex.load(folder)) == answers(loaded)


def test_empty_indexes_and_unused_encoders(folder: Path, tmp_path: Path) -> None:
    encoder = FDEEncoder(CONFIG).fit(MultiVectors.from_flat(MORE.tokens + 1, MORE.lengths))
    index = MuveraIndex(encoder, exact_tokens=900)
    index.save(folder)
    loaded = MuveraIndex.load(folder)
    loaded.add(MultiVectors.from_arrays([np.empty((0, DIM))] * 3))
    loaded.save(folder)
    loaded = MuveraIndex.load(folder)
    assert len(loaded) == 3
    loaded.rebuild()
    loaded.add(DOCUMENTS.with_ids(range(10, 210)))
    loaded.save(folder)
    loaded = MuveraIndex.load(folder)
    assert len(loaded) == 203 and isinstance(loaded.encoder, FDEEncoder)
    np.testing.assert_array_equal(loaded.encoder.center, encoder.center)


def test_token_files_stay_and_old_generations_go(folder: Path) -> None:
    index = built(path=folder)
    before = token_files(folder)
    for _ in range(3):
        index.delete(index.ids[:2])
        index.save(folder)
        assert token_files(folder) == before
    index.add(MORE)
    index.save(folder)
    after = token_files(folder)
    assert before.items() < after.items() and len(after) == 2
    folders = {path.name for path in folder.iterdir() if path.is_dir()}
    assert folders == {"generation-000001", "generation-000005"}
    size = sum(stats[1] for stats in after.values())
    index.delete(range(6, 206, 2))
    index.rebuild()
    index.save(folder)
    assert sum(stats[1] for stats in token_files(folder).values()) < 0.6 * size
    assert answers(MuveraIndex.load(folder)) == answers(index)


def test_overwrite_writes_no_tokens_of_its_own_folder_again(folder: Path) -> None:
    built(path=folder)
    index = MuveraIndex.load(folder)
    before = token_files(folder)
    index.delete([7])
    index.save(folder, overwrite=True)
    assert token_files(folder) == before
    assert answers(MuveraIndex.load(folder, verify_files=True)) == answers(index)


@pytest.mark.parametrize("damage", ["changed", "removed"])
def test_overwrite_replaces_its_own_folder_if_it_was(folder: Path, damage: str) -> None:
    index = built(path=folder)
    if damage == "changed":
        other = MuveraIndex.load(folder)
        other.delete([3])
        other.save(folder)
    else:
        (folder / next(iter(token_files(folder)))).unlink()
    index.save(folder, overwrite=True)
    assert answers(MuveraIndex.load(folder, verify_files=True)) == answers(index)


def test_copies_and_removed_folders(folder: Path, tmp_path: Path) -> None:
    built(path=folder)
    loaded = MuveraIndex.load(folder)
    (tmp_path / "link").symlink_to(folder)
    loaded.add(MORE)
    loaded.save(tmp_path / "link")  # a link to the folder is the folder
    assert len(MuveraIndex.load(folder)) == 220
    loaded.save(tmp_path / "copy")
    shutil.rmtree(folder)
    assert answers(MuveraIndex.load(tmp_path / "copy", verify_files=True)) == answers(loaded)
    loaded.save(folder)  # from the mapped tokens
    assert answers(MuveraIndex.load(folder, verify_files=True)) == answers(loaded)
    shutil.rmtree(folder)
    MuveraIndex.build(MORE, CONFIG, path=folder)  # another index with the same name and generation
    with pytest.raises(IndexFolderError, match="generation 1"):
        loaded.save(folder)
    assert len(MuveraIndex.load(folder)) == 20


def texts(first: int, count: int) -> MultiVectors:
    return documents_like_real(count, first, ids=range(first, first + count))


GRAPH = "generation-000001/vectors.hnsw"


def graphs(folder: Path) -> list[str]:
    return [name for name in read_manifest(folder)["files"] if name.endswith(".hnsw")]


def same(a: MuveraIndex, b: MuveraIndex) -> bool:
    queries = [texts(7, 1)[0], texts(100, 1)[0]]
    left, right = ([list(row) for row in each.search(queries, 5)] for each in (a, b))
    return a.ids.tolist() == b.ids.tolist() and left == right


@pytest.fixture
def with_additions(folder: Path) -> MuveraIndex:
    """An index whose last generation has 18 new vectors beside its graph."""
    index = built(texts(0, 60), "mean", backend="hnsw", path=folder)
    assert graphs(folder) == [GRAPH]
    for step in range(3):  # additions, updates and deletions; in the index in use and in a loaded one
        index.add(texts(100 + 10 * step, 5), threads=1)
        index.update(texts(10 * step, 2), threads=1)
        index.delete([100 + 10 * step, 30 + step])
        index.save(folder)
        assert graphs(folder) == [GRAPH]
        loaded = MuveraIndex.load(folder, verify_files=True)
        assert same(index, loaded)
        index = loaded
    return index


def test_a_graph_stays_and_new_vectors_are_written_beside_it(
    with_additions: MuveraIndex, folder: Path
) -> None:
    added = folder / "generation-000004" / hnsw.ADDED
    assert np.load(added).shape == (18, 17)
    np.save(added, np.zeros((3, 17), np.float64))
    with pytest.raises(IndexFolderError, match=hnsw.ADDED):
        MuveraIndex.load(folder)


def test_another_folder_gets_the_whole_graph(with_additions: MuveraIndex, tmp_path: Path) -> None:
    with_additions.save(tmp_path / "other")
    assert graphs(tmp_path / "other") == [GRAPH]
    assert not list((tmp_path / "other").rglob(hnsw.ADDED))
    assert same(with_additions, MuveraIndex.load(tmp_path / "other"))


def test_many_new_vectors_are_written_with_the_whole_graph(
    with_additions: MuveraIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_additions.save(tmp_path / "other")
    monkeypatch.setattr(hnsw, "_FEW", 8)
    many = MuveraIndex.load(tmp_path / "other")
    many.add(texts(200, 9), threads=1)
    many.save(tmp_path / "other")
    assert graphs(tmp_path / "other") == [GRAPH.replace("1/", "2/")]


@pytest.mark.usefixtures("early_staging")
@pytest.mark.parametrize("fault", [KeyboardInterrupt(), ValueError("a bad line"), MemoryError()])
def test_an_interrupted_build_leaves_nothing(folder: Path, fault: BaseException) -> None:
    seen: list[list[str]] = []

    def batches() -> Iterator[MultiVectors]:
        for start in range(0, 150, 50):
            yield DOCUMENTS[start : start + 50]
            seen.append([path.name for path in folder.parent.rglob("tokens-*")])
        raise fault

    with pytest.raises(type(fault)):
        MuveraIndex.build(batches(), CONFIG, path=folder)
    assert seen[-1] == ["tokens-000000000000.npy"] and list(folder.parent.iterdir()) == []
    with pytest.raises(ValueError, match="id 0 "):
        MuveraIndex.build(iter([DOCUMENTS[:50], DOCUMENTS[:50]]), CONFIG, path=folder)
    assert list(folder.parent.iterdir()) == []


@pytest.mark.usefixtures("early_staging")
@pytest.mark.parametrize(
    ("way", "tokens"),
    [("all tokens", {"tokens": "2bit", "keep_exact": True}), ("exact", {}), ("hnsw", {"tokens": "int8"})],
)
def test_a_rebuild_on_disk_is_one_in_memory_saved(
    way: str, tokens: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_store, "_BATCH_TOKENS", 50)
    for name in ("one", "two"):
        built(path=tmp_path / name, **tokens, **WAYS[way])
    one, two = (MuveraIndex.load(tmp_path / name) for name in ("one", "two"))
    for index in (one, two):
        index.delete(range(20, 60))
    one.rebuild(threads=1)
    one.save(tmp_path / "one")
    two.rebuild(path=tmp_path / "two", threads=1)
    assert answers(two) == answers(one) and files(tmp_path / "two") == files(tmp_path / "one")
    assert two.info() == one.info() and two.info().deleted_documents == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]
    assert answers(MuveraIndex.load(tmp_path / "two", verify_files=True)) == answers(one)
    two.rebuild(path=tmp_path / "three")
    assert len(MuveraIndex.load(tmp_path / "three")) == 160 == len(MuveraIndex.load(tmp_path / "two"))


def test_a_rebuild_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = built(path=tmp_path / "index")
    index.delete([1, 2])
    before, unchanged = answers(index), files(tmp_path / "index")

    def breaks(*_: Any) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(persistence, "save_array", breaks)
        with pytest.raises(MemoryError):
            index.rebuild(path=tmp_path / "index")
    assert answers(index) == before and index.info().deleted_documents == 2
    assert files(tmp_path / "index") == unchanged
    assert [path.name for path in tmp_path.iterdir()] == ["index"]
    index.rebuild(path=tmp_path / "index")
    assert index.info().deleted_documents == 0
    built(path=tmp_path / "other")
    with pytest.raises(IndexFolderError, match="not loaded from there"):
        index.rebuild(path=tmp_path / "other")


LONG_CONFIG = FDEConfig.preset(
    "simhash", 64, num_repetitions=2, num_simhash_projections=1, projection_dimension=8
)


def peak_of(work: Callable[[Path], object], folder: Path) -> int:
    work(folder.with_name("first"))  # compiles, which takes memory too
    tracemalloc.start()
    try:
        work(folder)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_memory_of_builds_and_rebuilds(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """31 MB of tokens in batches of 0.6 MB, with 1 MB waiting in memory.

    Each of these may exist twice.

    The rest, below 1.3 MB, is in proportion to documents: vectors of 97 floats and
    their 140 bytes, ids, offsets. The calibration of recall= takes the same 24 MB for
    any larger collection: 1,024 windows (four lengths for each of 256 documents) of
    1,000 candidates each, with their rows, products, scores and stops (24 bytes).
    """
    calibration = 24 << 20
    monkeypatch.setattr(token_store, "_STAGING_BYTES", 1 << 20)
    monkeypatch.setattr(token_store, "_BATCH_TOKENS", 1 << 12)
    pool = np.random.default_rng(0).standard_normal((2400, 64)).astype(np.float32)

    def build(path: Path) -> None:
        batches = (MultiVectors.from_flat(pool.copy(), [120] * 20) for _ in range(50))
        MuveraIndex.build(batches, LONG_CONFIG, path=path, threads=1, **WAYS["exact"])

    assert peak_of(build, folder) < (4 << 20) + 1000 * 1300 + calibration

    def rebuild(path: Path) -> None:
        if path != folder:
            build(path)
        index = MuveraIndex.load(path)
        index.delete(range(0, 1000, 10))
        index.rebuild(path=path, threads=1)
        assert index.info().tokens == 900 * 120

    shutil.rmtree(folder.with_name("first"))
    assert peak_of(rebuild, folder) < (6 << 20) + calibration


def test_memory_of_a_mapped_collection(tmp_path: Path) -> None:
    """20 MB of mapped tokens are searched; only ids and lengths are in memory."""
    rng = np.random.default_rng(0)
    np.save(tmp_path / "tokens.npy", rng.standard_normal((80_000, 64)).astype(np.float32))
    mapped = np.load(tmp_path / "tokens.npy", mmap_mode="r")

    def build_and_search(path: Path) -> None:
        documents = MultiVectors.from_flat(mapped, [80] * 1000)
        MuveraIndex.build(documents, exact_tokens=10**6, path=path).search(mapped[:3], k=1)
        assert MuveraIndex.load(path).search(mapped[:3], k=1)[0].ids.tolist() == [0]

    assert peak_of(build_and_search, tmp_path / "index") < 5 << 20


class AbandonedError(Exception):
    pass


@every_way
def test_an_empty_document_in_the_place_of_an_abandoned_one_can_be_loaded(
    way: dict[str, Any], tmp_path: Path
) -> None:
    index = built(**way)
    with pytest.raises(AbandonedError), index.change() as change:
        change.add(MORE[:3], ids=[1000, 1001, 1002], threads=1)  # a graph keeps its vectors
        raise AbandonedError
    index.add(MultiVectors.from_arrays([np.empty((0, DIM), np.float32)] * 2, ids=[2000, 2001]), threads=1)
    index.save(tmp_path / "index")
    loaded = MuveraIndex.load(tmp_path / "index", verify_files=True)
    assert loaded.ids.tolist() == index.ids.tolist() and answers(loaded) == answers(index)
