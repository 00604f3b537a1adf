"""Rebuilding into a folder: the same as in memory, all or nothing, and in bounded memory."""

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.kept_indexes import DOCUMENTS, WAYS, answers, built, files

from muvera import FDEConfig, MultiVectors, MuveraIndex
from muvera.index import contents, persistence, token_store
from muvera.index.manifest import IndexFolderError
from muvera.index.token_store import TokenStore


@pytest.mark.parametrize("tokens", ["as_given", {"codec": "2bit", "keep_exact": True}, "int8"], ids=str)
@pytest.mark.parametrize("way", WAYS)
def test_it_is_the_rebuild_in_memory_saved(
    way: str, tokens: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TokenStore.__init__, "__defaults__", (None, 1000))  # to the disk early
    monkeypatch.setattr(token_store, "_BATCH_TOKENS", 50)
    for name in ("one", "two"):
        built(tokens=tokens, **WAYS[way]).save(tmp_path / name)
    one, two = (MuveraIndex.load(tmp_path / name) for name in ("one", "two"))
    for index in (one, two):
        index.delete(range(20, 60))
    one.rebuild(threads=1)
    one.save(tmp_path / "one")
    two.rebuild(path=tmp_path / "two", threads=1)
    assert answers(two) == answers(one)
    assert two.info() == one.info() and two.info().deleted_documents == 0
    assert files(tmp_path / "two") == files(tmp_path / "one")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]
    loaded = MuveraIndex.load(tmp_path / "two", verify_files=True)
    assert answers(loaded) == answers(one)
    two.add(MultiVectors.from_flat(DOCUMENTS.tokens, DOCUMENTS.lengths))
    two.save(tmp_path / "two")
    assert len(MuveraIndex.load(tmp_path / "two")) == 360


def test_it_goes_to_another_folder_too(tmp_path: Path) -> None:
    index = built()
    index.save(tmp_path / "old")
    index.delete([0])
    index.rebuild(path=tmp_path / "new")
    assert len(MuveraIndex.load(tmp_path / "old")) == 200
    assert answers(MuveraIndex.load(tmp_path / "new")) == answers(index)


@pytest.mark.parametrize("place", ["measure", "save"])
def test_what_fails_changes_neither_the_index_nor_its_folder(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = built()
    index.save(tmp_path / "index")
    index.delete([1, 2])
    before, kept = answers(index), files(tmp_path / "index")

    def breaks(*_: Any, **__: Any) -> None:
        raise MemoryError

    if place == "measure":
        monkeypatch.setattr(contents.IndexContents, "measure", breaks)
    else:
        monkeypatch.setattr(persistence, "save_array", breaks)
    with pytest.raises(MemoryError):
        index.rebuild(path=tmp_path / "index")
    monkeypatch.undo()
    assert answers(index) == before and index.info().deleted_documents == 2
    assert files(tmp_path / "index") == kept
    assert [path.name for path in tmp_path.iterdir()] == ["index"]
    index.rebuild(path=tmp_path / "index")
    assert index.info().deleted_documents == 0


def test_a_folder_that_is_not_this_indexs_is_refused(tmp_path: Path) -> None:
    index = built()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "list.txt").touch()
    with pytest.raises(FileExistsError, match="is not a muvera index"):
        index.rebuild(path=tmp_path / "notes")
    built().save(tmp_path / "other")
    with pytest.raises(IndexFolderError, match="this index was made elsewhere"):
        index.rebuild(path=tmp_path / "other")


@pytest.mark.compiled("so many tokens take minutes")
def test_memory_is_bounded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """31 MB of mapped tokens are rebuilt in batches of 1 MB, 1 MB waiting in memory.

    Each may stand twice while it is picked and joined; vectors, ids and offsets of 1,000 documents take 1 MB.
    """
    monkeypatch.setattr(TokenStore.__init__, "__defaults__", (None, 1 << 20))
    monkeypatch.setattr(token_store, "_BATCH_TOKENS", 1 << 12)
    config = FDEConfig(dimension=64, num_repetitions=2, num_simhash_projections=1, projection_dimension=8)
    rng = np.random.default_rng(0)

    def batches() -> Iterator[MultiVectors]:
        for _ in range(50):
            yield MultiVectors.from_flat(rng.standard_normal((2400, 64)).astype(np.float32), [120] * 20)

    settings: dict[str, Any] = {"exact_tokens": 0, "backend": "exact", "threads": 1}
    for place in (folder.with_name("compiles"), folder):
        MuveraIndex.build(batches(), config, path=place, **settings)
        index = MuveraIndex.load(place)
        index.delete(range(0, 1000, 10))
        tracemalloc.start()
        try:
            index.rebuild(path=place, threads=1)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert len(index) == 900 and index.info().tokens == 900 * 120
    assert peak < 6 << 20
