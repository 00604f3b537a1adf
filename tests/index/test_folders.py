"""The folder of an index: generations, manifest, locks, faults, and files of others."""

import errno
from pathlib import Path
from typing import Any

import pytest
from builders.indexes import files

import muvera.index.generations as module
import muvera.index.manifest as manifest_module
from muvera.index.generations import Generation, Save, commit, staging_beside
from muvera.index.manifest import IndexFolderError, read_manifest, verify, write_manifest
from muvera.utils import atomic_files
from muvera.utils.atomic_files import sibling_folder

ENTRIES: dict[str, Any] = {"segments": [], "codes": None, "candidates": None}


def writing(content: dict[str, bytes], keep: Any = ()) -> Any:
    """Return a function that writes these values into token files."""

    def write(save: Save) -> dict[str, Any]:
        for file, value in content.items():
            (save.folder / f"tokens-{file}.npy").write_bytes(value)
        save.kept += [file for file in keep if save.target / file in save.old_names]
        return {"content": sorted(content), **ENTRIES}

    return write


def failing(error: BaseException) -> Any:
    """Return a function that writes half and raises."""

    def write(save: Save) -> Any:
        (save.folder / "half").write_bytes(b"x")
        raise error

    return write


OLD = ["generation-000001/tokens-a.npy", "manifest.json"]


# -- generations --------------------------------------------------------------


def test_only_an_index_is_replaced(folder: Path) -> None:
    folder.mkdir()
    commit(folder, writing({"a": b"1"}), None)  # into an empty folder
    other = folder.parent / "other"
    other.mkdir()
    (other / "letter").write_bytes(b"dear")
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match="other exists"):
            commit(other, writing({"a": b"1"}), None, overwrite)
    with pytest.raises(FileExistsError, match="is a file"):
        commit(other / "letter", writing({"a": b"1"}), None)
    with pytest.raises(MemoryError):
        commit(folder, failing(MemoryError()), None, overwrite=True)
    assert (folder / "generation-000001/tokens-a.npy").read_bytes() == b"1"
    new = commit(folder, writing({"b": b"2"}), None, overwrite=True)
    assert files(folder) == ["generation-000001/tokens-b.npy", "manifest.json"]
    assert Generation.of(read_manifest(folder)) == new and files(other) == ["letter"]
    assert sorted(path.name for path in folder.parent.iterdir()) == ["index", "other"]


def test_another_writer_is_first(folder: Path) -> None:
    def overtaken(save: Save) -> Any:
        commit(folder, writing({"a": b"1"}), None)
        return writing({"a": b"2"})(save)

    with pytest.raises(IndexFolderError, match="Another process has written"):
        commit(folder, overtaken, None)
    assert (folder / "generation-000001/tokens-a.npy").read_bytes() == b"1"
    assert [path.name for path in folder.parent.iterdir()] == ["index"]


# -- faults -------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt(), MemoryError()], ids=repr
)
def test_a_failed_save_leaves_the_old_state(folder: Path, error: BaseException) -> None:
    with pytest.raises(type(error)):
        commit(folder, failing(error), None)
    with pytest.raises(type(error)), staging_beside(folder) as staging:
        assert staging.parent == folder.parent
        raise error
    assert list(folder.parent.iterdir()) == []
    first = commit(folder, writing({"a": b"1"}), None)
    with pytest.raises(type(error)):
        commit(folder, failing(error), first)
    assert files(folder) == OLD
    verify(folder, read_manifest(folder)["files"], True)
    assert commit(folder, writing({"a": b"2"}), first).number == 2


def test_faults_after_the_manifest(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new generation is already the index: its files stay, and the next writer removes the old ones."""
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
    monkeypatch.setattr(module, "_remove_unnamed", lambda _: None)  # as if the process had died
    third = commit(folder, writing({"a": b"3"}), Generation.of(manifest))
    monkeypatch.undo()
    assert manifest["generation"] == 2 and "generation-000002/tokens-a.npy" in files(folder)
    commit(folder, writing({"a": b"4"}), third)
    assert files(folder) == ["generation-000004/tokens-a.npy", "manifest.json"]


def test_leftovers_of_killed_writers_are_removed(folder: Path) -> None:
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
    with pytest.raises(MemoryError):  # before the new files are written, so that kills do not fill the disk
        commit(folder, failing(MemoryError()), first)
    assert files(folder) == OLD
    with sibling_folder(folder, "staging") as used:
        commit(folder, writing({"a": b"2"}), first)
        assert used.exists()
    assert files(folder) == ["generation-000002/tokens-a.npy", "manifest.json"]
    assert not any(path.exists() for path in (*beside, used)) and all(path.exists() for path in others)


# -- files of others ----------------------------------------------------------


@pytest.mark.parametrize("name", ["generation-000000", "generation-000002", ".partial-0123456789abcdef"])
def test_nothing_behind_a_link_is_removed_or_written(folder: Path, name: str) -> None:
    photos = folder.parent / "photos"
    photos.mkdir()
    (photos / "lengths.npy").write_bytes(b"dear")
    first = commit(folder, writing({"a": b"1"}), None)
    (folder / "generation-000001" / "notes.txt").write_bytes(b"mine")
    (folder / name).symlink_to(photos)
    second = commit(folder, writing({"a": b"2"}), first)
    third = commit(folder, writing({"a": b"3"}), second)
    assert [(path.name, path.read_bytes()) for path in photos.iterdir()] == [("lengths.npy", b"dear")]
    assert (folder / name).is_symlink()
    assert (folder / "generation-000001" / "notes.txt").read_bytes() == b"mine"
    assert "generation-000001/tokens-a.npy" not in files(folder)
    (folder / module.LOCK).unlink(missing_ok=True)
    (folder / module.LOCK).symlink_to(photos / "lengths.npy")  # locking would empty the file
    with pytest.raises(IndexFolderError, match=r"\.lock is a link"):
        commit(folder, writing({"a": b"4"}), third)
    assert (photos / "lengths.npy").read_bytes() == b"dear"


# -- the manifest -------------------------------------------------------------


def test_no_manifest(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_manifest(folder)
    folder.mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"no manifest\.json"):
        read_manifest(folder)
    (folder / "tokens.npy").touch()
    with pytest.raises(FileNotFoundError, match=r"token embeddings.* muvera index "):
        read_manifest(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is damaged"),
        ('{"format": "muvera-index", "format_ver', "is damaged"),
        ("[" * 100_000, "is damaged"),
        ("[1]", "not the manifest"),
        ('{"format": "other"}', "not the manifest"),
        ('{"format": "muvera-index"}', "version None, .* version 2"),
        ('{"format": "muvera-index", "format_version": 1}', "version 1, .* version 2"),
        ('{"format": "muvera-index", "format_version": 3}', "version 3, .* version 2"),
    ],
)
def test_other_manifests(folder: Path, content: str, message: str) -> None:
    folder.mkdir()
    (folder / "manifest.json").write_text(content)
    with pytest.raises(IndexFolderError, match=message):
        read_manifest(folder)


LISTED = {"bytes": 1, "sha256": "0"}
HOSTILE: dict[str, tuple[dict[str, Any], str]] = {
    "absolute file": ({"files": {"/etc/hostname": LISTED}}, "'/etc/hostname'"),
    "parent file": ({"files": {"../x.npy": LISTED}}, r"'\.\./x\.npy'"),
    "windows parent": ({"files": {"..\\x.npy": LISTED}}, "not inside"),
    "absolute folder": ({"folder": "/etc"}, "'/etc'"),
    "other folder": ({"folder": "../other/generation-000001"}, "not inside"),
    "linked folder": ({"folder": "link"}, "'link'"),
    "segment elsewhere": ({"segments": [{"first": 0, "file": "/x.npy"}]}, "not inside"),
    "codes elsewhere": ({"codes": {"segments": [{"first": 0, "file": "../x.npy"}]}}, "not inside"),
    "graph elsewhere": ({"candidates": {"kept": ["../other/vectors.hnsw"]}}, "not inside"),
    "unlisted segment": ({"segments": [{"first": 0, "file": "x.npy"}]}, "not listed"),
    "nothing listed": ({"files": {}}, r"tokens-a\.npy is not listed"),
    "no files": ({"files": None}, "incomplete"),
    "numbers": ({"folder": 3}, "incomplete"),
}


@pytest.mark.parametrize(("changes", "message"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_manifests(folder: Path, changes: dict[str, Any], message: str) -> None:
    """With the right checksum, as an attacker writes it."""
    commit(folder, writing({"a": b"1"}), None)
    (folder / "link").symlink_to("/etc")
    manifest = read_manifest(folder)
    del manifest["format"], manifest["format_version"]
    manifest_module.write_manifest(folder, {**manifest, **changes})
    with pytest.raises(IndexFolderError, match=message):
        read_manifest(folder)


def test_large_files_are_checked_by_size_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(folder, writing({"a": b"1234"}), None)
    (folder / OLD[0]).write_bytes(b"1235")
    listed = read_manifest(folder)["files"]
    with pytest.raises(IndexFolderError, match=r"tokens-a\.npy .*checksum"):
        verify(folder, listed)
    monkeypatch.setattr(atomic_files, "_QUICK_BYTES", 3)
    verify(folder, listed)
