"""Generations of an index's folder: what a new one keeps, drops and replaces, and who may write."""

import threading
from pathlib import Path
from typing import Any

import pytest
from builders.generation_folders import failing, files, writing

from muvera.index.generations import Generation, commit, staging_beside
from muvera.index.manifest import IndexFolderError, read_manifest, verify

# -- generations --------------------------------------------------------------


def test_a_new_generation_keeps_what_it_names_and_drops_the_rest(folder: Path) -> None:
    first = commit(folder, writing({"a": b"1", "b": b"22"}), None)
    assert first.number == 1 and files(folder) == [
        "generation-000001/tokens-a.npy",
        "generation-000001/tokens-b.npy",
        "manifest.json",
    ]
    stat = (folder / "generation-000001/tokens-b.npy").stat()
    second = commit(folder, writing({"c": b"333"}, ["generation-000001/tokens-b.npy"]), first)
    assert files(folder) == [
        "generation-000001/tokens-b.npy",
        "generation-000002/tokens-c.npy",
        "manifest.json",
    ]
    kept = (folder / "generation-000001/tokens-b.npy").stat()
    assert (kept.st_ino, kept.st_mtime_ns) == (stat.st_ino, stat.st_mtime_ns)
    manifest = read_manifest(folder)
    assert Generation.of(manifest) == second and manifest["content"] == ["c"]
    assert manifest["format"] == "muvera-index" and manifest["format_version"] == 1
    verify(folder, manifest["files"], True)
    commit(folder, writing({}), second)
    assert files(folder) == ["manifest.json"] and not (folder / "generation-000001").exists()


def test_fill_learns_names_and_old_files(folder: Path) -> None:
    seen: list[Any] = []

    def fill(folder: Path, name: str, old: set[str]) -> Any:
        seen.append((name, old))
        (folder / "ids.json").write_bytes(b"")
        return {"segments": []}, []

    commit(folder, fill, commit(folder, fill, None))
    assert seen == [("generation-000001", set()), ("generation-000002", {"generation-000001/ids.json"})]


def test_a_folder_of_something_else_is_left_alone(folder: Path) -> None:
    folder.mkdir()
    commit(folder, writing({"a": b"1"}), None)  # an empty folder is taken
    other = folder.parent / "other"
    other.mkdir()
    (other / "letter").write_bytes(b"dear")
    with pytest.raises(FileExistsError, match="exists and is not empty"):
        commit(other, writing({"a": b"1"}), None)
    with pytest.raises(FileExistsError, match="is a file"):
        commit(other / "letter", writing({"a": b"1"}), None)
    assert files(other) == ["letter"] and sorted(p.name for p in folder.parent.iterdir()) == [
        "index",
        "other",
    ]


def test_lost_updates_are_refused(folder: Path) -> None:
    first = commit(folder, writing({"a": b"1"}), None)
    second = commit(folder, writing({"a": b"2"}), first)
    for known, message in (
        (first, "holds generation 2, but you loaded 1. Saving would lose what is there"),
        (None, "holds generation 2, but this index was made elsewhere"),
        (Generation(2, "0000"), "holds generation 2, but it is another one than you loaded"),
    ):
        with pytest.raises(IndexFolderError, match=message):
            commit(folder, writing({"a": b"3"}), known)
    assert (
        Generation.of(read_manifest(folder)) == second
        and (folder / "generation-000002/tokens-a.npy").read_bytes() == b"2"
    )


# -- replacing ----------------------------------------------------------------


def test_an_index_is_replaced_in_one_step(folder: Path) -> None:
    commit(folder, writing({"a": b"1"}), None)
    with pytest.raises(MemoryError):
        commit(folder, failing(MemoryError()), None, overwrite=True)
    assert (folder / "generation-000001/tokens-a.npy").read_bytes() == b"1"
    new = commit(folder, writing({"b": b"2"}), None, overwrite=True)
    assert files(folder) == ["generation-000001/tokens-b.npy", "manifest.json"]
    assert Generation.of(read_manifest(folder)) == new and len(list(folder.parent.iterdir())) == 1
    (folder.parent / "other").mkdir()
    (folder.parent / "other" / "letter").write_bytes(b"dear")
    with pytest.raises(FileExistsError, match="is not a muvera index, so it is not replaced"):
        commit(folder.parent / "other", writing({"a": b"1"}), None, overwrite=True)


# -- locks --------------------------------------------------------------------


def test_two_writers_of_one_folder(folder: Path) -> None:
    first = commit(folder, writing({"a": b"1"}), None)
    entered, may_go = threading.Event(), threading.Event()
    done: list[Any] = []

    def slow(folder: Path, name: str, old: set[str]) -> Any:
        entered.set()
        assert may_go.wait(20)
        return writing({"a": b"2"})(folder, name, old)

    writer = threading.Thread(target=lambda: done.append(commit(folder, slow, first)))
    writer.start()
    assert entered.wait(20)
    with pytest.raises(IndexFolderError, match=r"Another process is writing .*index\. Wait for it"):
        commit(folder, writing({"a": b"3"}), first)
    may_go.set()
    writer.join()
    assert Generation.of(read_manifest(folder)) == done[0]
    verify(folder, read_manifest(folder)["files"], True)


def test_two_first_writers_of_one_folder(folder: Path) -> None:
    def overtaken(staged: Path, name: str, old: set[str]) -> Any:
        commit(folder, writing({"a": b"1"}), None)
        return writing({"a": b"2"})(staged, name, old)

    with pytest.raises(IndexFolderError, match=r"Another process has written .* meanwhile"):
        commit(folder, overtaken, None)
    assert (folder / "generation-000001/tokens-a.npy").read_bytes() == b"1"
    verify(folder, read_manifest(folder)["files"], True)
    assert [path.name for path in folder.parent.iterdir()] == ["index"]


def test_staging_is_removed_in_the_end(folder: Path) -> None:
    with pytest.raises(KeyboardInterrupt), staging_beside(folder) as staging:
        (staging / "tokens").write_bytes(b"1")
        assert staging.parent == folder.parent
        raise KeyboardInterrupt
    assert list(folder.parent.iterdir()) == []
