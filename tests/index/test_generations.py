"""The folder of an index: generations, locks, and what is left by a writer that fails or dies."""

import errno
import json
import threading
from pathlib import Path
from typing import Any

import pytest

import muvera.index.generations as module
from muvera.index.generations import (
    Generation,
    IndexFolderError,
    commit,
    locked,
    read_manifest,
    staging_beside,
    verify,
)


def writing(content: dict[str, bytes], keep: Any = ()) -> Any:
    """A `fill` that writes these files."""

    def fill(folder: Path, name: str, old: set[str]) -> tuple[dict[str, Any], list[str]]:
        for file, value in content.items():
            (folder / file).write_bytes(value)
        return {"content": sorted(content)}, [file for file in keep if file in old]

    return fill


def failing(error: BaseException) -> Any:
    def fill(folder: Path, name: str, old: set[str]) -> Any:
        (folder / "half").write_bytes(b"x")
        raise error

    return fill


def files(target: Path) -> list[str]:
    """Everything in a folder but its lock, which stays."""
    found = [path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()]
    return sorted(set(found) - {module.LOCK})


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "index"


# -- generations --------------------------------------------------------------


def test_a_new_generation_keeps_what_it_names_and_drops_the_rest(target: Path) -> None:
    first = commit(target, writing({"a": b"1", "b": b"22"}), None)
    assert first.number == 1 and files(target) == [
        "generation-000001/a",
        "generation-000001/b",
        "manifest.json",
    ]
    stat = (target / "generation-000001/b").stat()
    second = commit(target, writing({"c": b"333"}, ["generation-000001/b"]), first)
    assert files(target) == ["generation-000001/b", "generation-000002/c", "manifest.json"]
    kept = (target / "generation-000001/b").stat()
    assert (kept.st_ino, kept.st_mtime_ns) == (stat.st_ino, stat.st_mtime_ns)
    manifest = read_manifest(target)
    assert Generation.of(manifest) == second and manifest["content"] == ["c"]
    assert manifest["format"] == "muvera-index" and manifest["format_version"] == 1
    verify(target, manifest, True)
    commit(target, writing({}), second)
    assert files(target) == ["manifest.json"] and not (target / "generation-000001").exists()


def test_fill_learns_names_and_old_files(target: Path) -> None:
    seen: list[Any] = []

    def fill(folder: Path, name: str, old: set[str]) -> Any:
        seen.append((name, old))
        (folder / "x").write_bytes(b"")
        return {}, []

    commit(target, fill, commit(target, fill, None))
    assert seen == [("generation-000001", set()), ("generation-000002", {"generation-000001/x"})]


def test_a_folder_of_something_else_is_left_alone(target: Path) -> None:
    target.mkdir()
    commit(target, writing({"a": b"1"}), None)  # an empty folder is taken
    other = target.parent / "other"
    other.mkdir()
    (other / "letter").write_bytes(b"dear")
    with pytest.raises(FileExistsError, match="exists and is not empty"):
        commit(other, writing({"a": b"1"}), None)
    with pytest.raises(FileExistsError, match="is a file"):
        commit(other / "letter", writing({"a": b"1"}), None)
    assert files(other) == ["letter"] and sorted(p.name for p in target.parent.iterdir()) == [
        "index",
        "other",
    ]


def test_lost_updates_are_refused(target: Path) -> None:
    first = commit(target, writing({"a": b"1"}), None)
    second = commit(target, writing({"a": b"2"}), first)
    for known, message in (
        (first, "holds generation 2, but you loaded 1. Saving would lose what is there"),
        (None, "holds generation 2, but this index was made elsewhere"),
        (Generation(2, "0000"), "holds generation 2, but it is another one than you loaded"),
    ):
        with pytest.raises(IndexFolderError, match=message):
            commit(target, writing({"a": b"3"}), known)
    assert (
        Generation.of(read_manifest(target)) == second
        and (target / "generation-000002/a").read_bytes() == b"2"
    )


# -- failing ------------------------------------------------------------------

FAULTS = [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt(), MemoryError()]


@pytest.mark.parametrize("error", FAULTS, ids=lambda error: type(error).__name__)
def test_a_failed_first_save_leaves_nothing(target: Path, error: BaseException) -> None:
    with pytest.raises(type(error)):
        commit(target, failing(error), None)
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize("error", FAULTS, ids=lambda error: type(error).__name__)
def test_a_failed_save_leaves_the_old_index(target: Path, error: BaseException) -> None:
    first = commit(target, writing({"a": b"1"}), None)
    with pytest.raises(type(error)):
        commit(target, failing(error), first)
    assert files(target) == ["generation-000001/a", "manifest.json"]
    verify(target, read_manifest(target), True)
    assert commit(target, writing({"a": b"2"}), first).number == 2


@pytest.mark.parametrize("name", ["_checksum", "sync", "write_json"])
def test_a_fault_of_any_step_leaves_the_old_index(
    target: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    first = commit(target, writing({"a": b"1"}), None)

    def full(*_: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, name, full)
    with pytest.raises(OSError, match="No space left"):
        commit(target, writing({"a": b"2"}), first)
    monkeypatch.undo()
    assert files(target) == ["generation-000001/a", "manifest.json"]
    assert Generation.of(read_manifest(target)) == first


def test_a_fault_after_the_manifest_leaves_the_new_index(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rename is the moment: its files must not be removed because something failed after it."""
    first = commit(target, writing({"a": b"1"}), None)
    write = module.write_json

    def late(path: Path, content: Any) -> None:
        write(path, content)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "write_json", late)
    with pytest.raises(KeyboardInterrupt):
        commit(target, writing({"a": b"2"}), first)
    monkeypatch.undo()
    manifest = read_manifest(target)
    verify(target, manifest, True)
    assert manifest["generation"] == 2


def test_files_that_cannot_be_removed_are_left_to_the_next(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = commit(target, writing({"a": b"1"}), None)

    def denied(*_: Any) -> Any:
        raise PermissionError

    monkeypatch.setattr(module, "_remove_unnamed", denied)
    second = commit(target, writing({"a": b"2"}), first)
    monkeypatch.undo()
    assert "generation-000001/a" in files(target)
    commit(target, writing({"a": b"3"}), second)
    assert files(target) == ["generation-000003/a", "manifest.json"]


def test_the_next_save_removes_what_killed_ones_left(target: Path) -> None:
    first = commit(target, writing({"a": b"1"}), None)
    for name in (".partial-x/half", "generation-000002/whole", ".manifest.json.y"):
        (target / name).parent.mkdir(exist_ok=True)
        (target / name).write_bytes(b"left")
    beside = [target.parent / name for name in (".index.spool-x", ".index.partial-y", ".index.partial-z")]
    for path in beside:
        path.mkdir()
    for path in beside[:2]:
        (path / module.LOCK).touch()
    (target.parent / ".index.spool-mine").mkdir()
    with locked(target.parent / ".index.spool-mine"):
        commit(target, writing({"a": b"2"}), first)
        assert (target.parent / ".index.spool-mine").exists()  # in use
    assert files(target) == ["generation-000002/a", "manifest.json"]
    # Without a lock it is of another kind, such as that of MultiVectors.save.
    assert [path.exists() for path in beside] == [False, False, True]


# -- locks --------------------------------------------------------------------


def test_two_writers_of_one_folder(target: Path) -> None:
    first = commit(target, writing({"a": b"1"}), None)
    entered, may_go = threading.Event(), threading.Event()
    done: list[Any] = []

    def slow(folder: Path, name: str, old: set[str]) -> Any:
        entered.set()
        assert may_go.wait(20)
        return writing({"a": b"2"})(folder, name, old)

    writer = threading.Thread(target=lambda: done.append(commit(target, slow, first)))
    writer.start()
    assert entered.wait(20)
    with pytest.raises(IndexFolderError, match=r"Another process is writing .*index\. Wait for it"):
        commit(target, writing({"a": b"3"}), first)
    may_go.set()
    writer.join()
    assert Generation.of(read_manifest(target)) == done[0]
    verify(target, read_manifest(target), True)


def test_two_first_writers_of_one_folder(target: Path) -> None:
    def overtaken(folder: Path, name: str, old: set[str]) -> Any:
        commit(target, writing({"a": b"1"}), None)
        return writing({"a": b"2"})(folder, name, old)

    with pytest.raises(IndexFolderError, match=r"Another process has written .* meanwhile"):
        commit(target, overtaken, None)
    assert (target / "generation-000001/a").read_bytes() == b"1"
    verify(target, read_manifest(target), True)
    assert [path.name for path in target.parent.iterdir()] == ["index"]


def test_a_spool_is_removed_in_the_end(target: Path) -> None:
    with pytest.raises(KeyboardInterrupt), staging_beside(target) as staging:
        (staging / "tokens").write_bytes(b"1")
        assert staging.parent == target.parent
        with pytest.raises(IndexFolderError, match="Another process is writing"), locked(staging):
            pass
        raise KeyboardInterrupt
    assert list(target.parent.iterdir()) == []


# -- reading ------------------------------------------------------------------


def test_a_folder_without_manifest(target: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"index is not a muvera index: it has no manifest\.json"):
        read_manifest(target)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is damaged"),
        ('{"format": "muvera-index", "format_ver', "is damaged"),
        ("[1]", "is not the manifest of a muvera index"),
        ('{"format": "other"}', "is not the manifest of a muvera index"),
        ('{"format": "muvera-index"}', "has format version None, but this muvera reads version 1"),
        (
            '{"format": "muvera-index", "format_version": 2}',
            "has format version 2, but this muvera reads version 1. Use the muvera that wrote it",
        ),
    ],
)
def test_a_manifest_of_another_kind(target: Path, content: str, message: str) -> None:
    target.mkdir()
    (target / "manifest.json").write_text(content)
    with pytest.raises(IndexFolderError, match=message):
        read_manifest(target)


def test_damaged_files_are_named(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(target, writing({"a": b"1234"}), None)
    path, manifest = target / "generation-000001/a", read_manifest(target)
    path.write_bytes(b"123")
    with pytest.raises(IndexFolderError, match="a has 3 bytes instead of 4: it was cut off or changed"):
        verify(target, manifest, False)
    path.write_bytes(b"1235")
    for thorough in (True, None):
        with pytest.raises(IndexFolderError, match="a has another checksum than when it was written"):
            verify(target, manifest, thorough)
    verify(target, manifest, False)
    monkeypatch.setattr(module, "_QUICK_BYTES", 3)
    verify(target, manifest)  # too large to be read without being asked
    path.unlink()
    with pytest.raises(IndexFolderError, match=r"lacks its file generation-000001/a\. Restore"):
        verify(target, manifest, False)


def test_the_manifest_is_json_for_people(target: Path) -> None:
    commit(target, writing({"a": b"1"}), None)
    manifest = json.loads((target / "manifest.json").read_text())
    assert set(manifest) == {"format", "format_version", "generation", "stamp", "folder", "content", "files"}
    assert manifest["files"]["generation-000001/a"]["bytes"] == 1
