"""What is left of a generation whose writer fails or dies, and of what is not its own."""

import errno
from pathlib import Path
from typing import Any

import pytest
from builders.generation_folders import failing, files, writing

import muvera.index.generations as module
from muvera.index.generations import Generation, commit
from muvera.index.manifest import IndexFolderError, read_manifest, verify, write_manifest
from muvera.utils.sibling_folders import sibling_folder

FAULTS = [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt(), MemoryError()]


@pytest.mark.parametrize("error", FAULTS, ids=lambda error: type(error).__name__)
def test_a_failed_first_save_leaves_nothing(folder: Path, error: BaseException) -> None:
    with pytest.raises(type(error)):
        commit(folder, failing(error), None)
    assert list(folder.parent.iterdir()) == []


@pytest.mark.parametrize("error", FAULTS, ids=lambda error: type(error).__name__)
def test_a_failed_save_leaves_the_old_index(folder: Path, error: BaseException) -> None:
    first = commit(folder, writing({"a": b"1"}), None)
    with pytest.raises(type(error)):
        commit(folder, failing(error), first)
    assert files(folder) == ["generation-000001/tokens-a.npy", "manifest.json"]
    verify(folder, read_manifest(folder)["files"], True)
    assert commit(folder, writing({"a": b"2"}), first).number == 2


@pytest.mark.parametrize("name", ["described_file", "sync", "write_manifest"])
def test_a_fault_of_any_step_leaves_the_old_index(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    first = commit(folder, writing({"a": b"1"}), None)

    def full(*_: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, name, full)
    with pytest.raises(OSError, match="No space left"):
        commit(folder, writing({"a": b"2"}), first)
    monkeypatch.undo()
    assert files(folder) == ["generation-000001/tokens-a.npy", "manifest.json"]
    assert Generation.of(read_manifest(folder)) == first


def test_a_fault_after_the_manifest_leaves_the_new_index(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rename is the moment: its files must not be removed because something failed after it."""
    first = commit(folder, writing({"a": b"1"}), None)

    def late(folder: Path, content: Any) -> None:
        write_manifest(folder, content)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "write_manifest", late)
    with pytest.raises(KeyboardInterrupt):
        commit(folder, writing({"a": b"2"}), first)
    monkeypatch.undo()
    manifest = read_manifest(folder)
    verify(folder, manifest["files"], True)
    assert manifest["generation"] == 2


def test_files_that_cannot_be_removed_are_left_to_the_next(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = commit(folder, writing({"a": b"1"}), None)

    def denied(*_: Any) -> Any:
        raise PermissionError

    monkeypatch.setattr(module, "_remove_unnamed", denied)
    second = commit(folder, writing({"a": b"2"}), first)
    monkeypatch.undo()
    assert "generation-000001/tokens-a.npy" in files(folder)
    commit(folder, writing({"a": b"3"}), second)
    assert files(folder) == ["generation-000003/tokens-a.npy", "manifest.json"]


def test_the_next_save_removes_what_killed_ones_left(folder: Path) -> None:
    first = commit(folder, writing({"a": b"1"}), None)
    mark = "0123456789abcdef"
    for name in (f".partial-{mark}/half", "generation-000002/lengths.npy", ".manifest.json.y"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"left")
    beside = [folder.parent / f".index.{purpose}-{mark}" for purpose in ("staging", "partial", "lock")]
    for path in beside[:2]:
        path.mkdir()
        (path / "tokens").write_bytes(b"left")
    beside[2].touch()
    others = [folder.parent / name for name in (".index.partial-mine", f".other.partial-{mark}")]
    for path in others:
        path.mkdir()
    with sibling_folder(folder, "staging") as used:
        commit(folder, writing({"a": b"2"}), first)
        assert used.exists()
    assert files(folder) == ["generation-000002/tokens-a.npy", "manifest.json"]
    assert not any(path.exists() for path in (*beside, used))
    assert all(path.exists() for path in others)


def test_what_killed_saves_left_is_removed_before_the_next_writes(folder: Path) -> None:
    """A save that is killed each night, as by the system for its memory, must not fill the disk."""
    first = commit(folder, writing({"a": b"1"}), None)
    for mark in range(3):
        (folder / f".partial-{mark:016x}").mkdir()
        (folder / f".partial-{mark:016x}" / "tokens-a.npy").write_bytes(b"left")
        with pytest.raises(MemoryError):
            commit(folder, failing(MemoryError()), first)
        assert files(folder) == ["generation-000001/tokens-a.npy", "manifest.json"]


@pytest.mark.parametrize("name", ["generation-000000", "generation-000002", ".partial-0123456789abcdef"])
def test_nothing_behind_a_link_is_removed_or_written(folder: Path, name: str) -> None:
    photos = folder.parent / "photos"
    photos.mkdir()
    (photos / "lengths.npy").write_bytes(b"dear")
    first = commit(folder, writing({"a": b"1"}), None)
    (folder / name).symlink_to(photos)
    second = commit(folder, writing({"a": b"2"}), first)
    commit(folder, writing({"a": b"3"}), second)
    assert [(path.name, path.read_bytes()) for path in photos.iterdir()] == [("lengths.npy", b"dear")]
    assert (folder / name).is_symlink()


def test_a_lock_that_is_a_link_is_refused(folder: Path) -> None:
    """Locking empties the file behind a link, with some versions of the library that does it."""
    first = commit(folder, writing({"a": b"1"}), None)
    letter = folder.parent / "letter"
    letter.write_bytes(b"dear")
    (folder / module.LOCK).unlink(missing_ok=True)
    (folder / module.LOCK).symlink_to(letter)
    with pytest.raises(IndexFolderError, match=r"\.lock is a link; an index has none"):
        commit(folder, writing({"a": b"2"}), first)
    assert letter.read_bytes() == b"dear"


def test_files_that_others_put_into_a_generation_stay(folder: Path) -> None:
    first = commit(folder, writing({"a": b"1"}), None)
    (folder / "generation-000001" / "notes.txt").write_bytes(b"mine")
    second = commit(folder, writing({"a": b"2"}), first)
    assert (folder / "generation-000001" / "notes.txt").read_bytes() == b"mine"
    assert "generation-000001/tokens-a.npy" not in files(folder) and second.number == 2
