"""The folder of an index: generations, manifest, locks, faults, and files of others."""

import errno
import linecache
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from builders.indexes import files

import muvera.index.generations as module
from muvera.index.generations import (
    Destination,
    FolderLock,
    Generation,
    IndexFolderError,
    Save,
    commit,
    read_manifest,
    staging_beside,
    verify,
    write_manifest,
)
from muvera.utils import atomic_files
from muvera.utils.atomic_files import sibling_folder

ENTRIES: dict[str, Any] = {"segments": [], "codes": None, "candidates": None}


def writing(content: dict[str, bytes]) -> Any:
    """Return a function that writes these values into token files."""

    def write(save: Save) -> dict[str, Any]:
        for file, value in content.items():
            (save.folder / f"tokens-{file}.npy").write_bytes(value)
        return {"content": sorted(content), **ENTRIES}

    return write


def failing(error: BaseException) -> Any:
    """Return a function that writes half and raises."""

    def write(save: Save) -> Any:
        (save.folder / "half").write_bytes(b"x")
        raise error

    return write


def save(folder: Path, write: Any, expected: Generation | None, overwrite: bool = False) -> Generation:
    return commit(Destination(folder, overwrite), write, expected, set())


OLD = ["generation-000001/tokens-a.npy", "manifest.json"]


def test_only_an_index_is_replaced(folder: Path) -> None:
    folder.mkdir()
    save(folder, writing({"a": b"1"}), None)  # into an empty folder
    other = folder.parent / "other"
    other.mkdir()
    (other / "letter").write_bytes(b"dear")
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match="other exists"):
            save(other, writing({"a": b"1"}), None, overwrite)
    with pytest.raises(FileExistsError, match="is a file"):
        save(other / "letter", writing({"a": b"1"}), None)
    with pytest.raises(MemoryError):
        save(folder, failing(MemoryError()), None, overwrite=True)
    assert (folder / "generation-000001/tokens-a.npy").read_bytes() == b"1"
    new = save(folder, writing({"b": b"2"}), None, overwrite=True)
    assert files(folder) == ["generation-000001/tokens-b.npy", "manifest.json"]
    assert Generation.of(read_manifest(folder)) == new and files(other) == ["letter"]
    assert sorted(path.name for path in folder.parent.iterdir()) == ["index", "other"]


def test_a_manifest_is_read_while_a_writer_removes_its_generation(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(folder, writing({"a": b"1"}), None)
    resolve = Path.resolve

    def overtaken(self: Path, strict: bool = False) -> Path:
        shutil.rmtree(folder / "generation-000001", ignore_errors=True)
        return resolve(self, strict)

    monkeypatch.setattr(Path, "resolve", overtaken)  # before the generation is listed
    assert read_manifest(folder)["generation"] == 1


def test_another_writer_is_first(folder: Path) -> None:
    def overtaken(own: Save) -> Any:
        save(folder, writing({"a": b"1"}), None)
        return writing({"a": b"2"})(own)

    with pytest.raises(IndexFolderError, match="Another process has written"):
        save(folder, overtaken, None)
    assert (folder / "generation-000001/tokens-a.npy").read_bytes() == b"1"
    assert [path.name for path in folder.parent.iterdir()] == ["index"]


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt(), MemoryError()], ids=repr
)
def test_a_failed_save_leaves_the_old_state(folder: Path, error: BaseException) -> None:
    with pytest.raises(type(error)):
        save(folder, failing(error), None)
    with pytest.raises(type(error)), staging_beside(folder) as staging:
        assert staging.parent == folder.parent
        raise error
    assert list(folder.parent.iterdir()) == []
    first = save(folder, writing({"a": b"1"}), None)
    with pytest.raises(type(error)):
        save(folder, failing(error), first)
    assert files(folder) == OLD
    verify(folder, read_manifest(folder)["files"], True)
    assert save(folder, writing({"a": b"2"}), first).number == 2


def test_faults_after_the_manifest(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new generation is already the index, so its files stay.

    The next writer removes the old ones.
    """
    first = save(folder, writing({"a": b"1"}), None)

    def late(folder: Path, content: Any) -> None:
        write_manifest(folder, content)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "write_manifest", late)
    with pytest.raises(KeyboardInterrupt):
        save(folder, writing({"a": b"2"}), first)
    monkeypatch.undo()
    manifest = read_manifest(folder)
    verify(folder, manifest["files"], True)
    monkeypatch.setattr(module, "_remove_unnamed", lambda _: None)  # as if the process had died
    third = save(folder, writing({"a": b"3"}), Generation.of(manifest))
    monkeypatch.undo()
    assert manifest["generation"] == 2 and "generation-000002/tokens-a.npy" in files(folder)
    save(folder, writing({"a": b"4"}), third)
    assert files(folder) == ["generation-000004/tokens-a.npy", "manifest.json"]


def test_leftovers_of_killed_writers_are_removed(folder: Path) -> None:
    first = save(folder, writing({"a": b"1"}), None)
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
    with pytest.raises(MemoryError):  # before the new files are written, so that kills do not fill the disk
        save(folder, failing(MemoryError()), first)
    assert files(folder) == OLD
    with sibling_folder(folder, "staging") as used:
        save(folder, writing({"a": b"2"}), first)
        assert used.exists()
    assert files(folder) == ["generation-000002/tokens-a.npy", "manifest.json"]
    assert not any(path.exists() for path in (*beside, used)) and all(path.exists() for path in others)


@pytest.mark.parametrize("name", ["generation-000000", "generation-000002", ".partial-0123456789abcdef"])
def test_nothing_behind_a_link_is_removed_or_written(folder: Path, name: str) -> None:
    photos = folder.parent / "photos"
    photos.mkdir()
    (photos / "lengths.npy").write_bytes(b"dear")
    first = save(folder, writing({"a": b"1"}), None)
    (folder / "generation-000001" / "notes.txt").write_bytes(b"mine")
    (folder / name).symlink_to(photos)
    second = save(folder, writing({"a": b"2"}), first)
    third = save(folder, writing({"a": b"3"}), second)
    assert [(path.name, path.read_bytes()) for path in photos.iterdir()] == [("lengths.npy", b"dear")]
    assert (folder / name).is_symlink()
    assert (folder / "generation-000001" / "notes.txt").read_bytes() == b"mine"
    assert "generation-000001/tokens-a.npy" not in files(folder)
    (folder / module.LOCK).unlink(missing_ok=True)
    (folder / module.LOCK).symlink_to(photos / "lengths.npy")  # locking would empty the file
    with pytest.raises(IndexFolderError, match=r"\.lock is a link"):
        save(folder, writing({"a": b"4"}), third)
    assert (photos / "lengths.npy").read_bytes() == b"dear"


def test_no_manifest(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_manifest(folder)
    folder.mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"no manifest\.json"):
        read_manifest(folder)
    (folder / "tokens.npy").touch()
    with pytest.raises(FileNotFoundError, match=r"token embeddings.* muvera index "):
        read_manifest(folder)


def test_large_files_are_checked_by_size_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(folder, writing({"a": b"1234"}), None)
    (folder / OLD[0]).write_bytes(b"1235")
    listed = read_manifest(folder)["files"]
    with pytest.raises(IndexFolderError, match=r"tokens-a\.npy .*checksum"):
        verify(folder, listed)
    monkeypatch.setattr(atomic_files, "_QUICK_BYTES", 3)
    verify(folder, listed)


@pytest.mark.parametrize("line", ["return held", "self._file = (folder / LOCK).stat()"])
def test_an_interrupted_lock_is_free_while_its_traceback_lives(tmp_path: Path, line: str) -> None:
    folder = tmp_path

    def interrupt(frame: Any, event: str, _: object) -> Any:
        at = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
        if event == "line" and at == line:
            raise KeyboardInterrupt
        return interrupt

    before = sys.gettrace()
    with pytest.raises(KeyboardInterrupt) as caught:
        try:
            sys.settrace(interrupt)
            FolderLock(folder)
        finally:
            sys.settrace(before)
    FolderLock(folder).release()
    assert caught.traceback
