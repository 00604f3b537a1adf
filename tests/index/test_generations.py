"""The folder of an index: generations, locks, and what is left by a writer that fails or dies."""

import errno
import json
import threading
from pathlib import Path
from typing import Any

import pytest

import muvera.index.generations as module
import muvera.index.manifest as manifest_module
import muvera.utils.checksums as checksums
from muvera.index.generations import Generation, commit, staging_beside
from muvera.index.manifest import IndexFolderError, read_manifest, verify, write_manifest
from muvera.utils.sibling_folders import sibling_folder


def writing(content: dict[str, bytes], keep: Any = ()) -> Any:
    """A `fill` that writes these values into files of tokens."""

    def fill(folder: Path, name: str, old: set[str]) -> tuple[dict[str, Any], list[str]]:
        for file, value in content.items():
            (folder / f"tokens-{file}.npy").write_bytes(value)
        return {"content": sorted(content), "segments": []}, [file for file in keep if file in old]

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
        "generation-000001/tokens-a.npy",
        "generation-000001/tokens-b.npy",
        "manifest.json",
    ]
    stat = (target / "generation-000001/tokens-b.npy").stat()
    second = commit(target, writing({"c": b"333"}, ["generation-000001/tokens-b.npy"]), first)
    assert files(target) == [
        "generation-000001/tokens-b.npy",
        "generation-000002/tokens-c.npy",
        "manifest.json",
    ]
    kept = (target / "generation-000001/tokens-b.npy").stat()
    assert (kept.st_ino, kept.st_mtime_ns) == (stat.st_ino, stat.st_mtime_ns)
    manifest = read_manifest(target)
    assert Generation.of(manifest) == second and manifest["content"] == ["c"]
    assert manifest["format"] == "muvera-index" and manifest["format_version"] == 1
    verify(target, manifest["files"], True)
    commit(target, writing({}), second)
    assert files(target) == ["manifest.json"] and not (target / "generation-000001").exists()


def test_fill_learns_names_and_old_files(target: Path) -> None:
    seen: list[Any] = []

    def fill(folder: Path, name: str, old: set[str]) -> Any:
        seen.append((name, old))
        (folder / "ids.json").write_bytes(b"")
        return {"segments": []}, []

    commit(target, fill, commit(target, fill, None))
    assert seen == [("generation-000001", set()), ("generation-000002", {"generation-000001/ids.json"})]


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
        and (target / "generation-000002/tokens-a.npy").read_bytes() == b"2"
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
    assert files(target) == ["generation-000001/tokens-a.npy", "manifest.json"]
    verify(target, read_manifest(target)["files"], True)
    assert commit(target, writing({"a": b"2"}), first).number == 2


@pytest.mark.parametrize("name", ["described_file", "sync", "write_manifest"])
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
    assert files(target) == ["generation-000001/tokens-a.npy", "manifest.json"]
    assert Generation.of(read_manifest(target)) == first


def test_a_fault_after_the_manifest_leaves_the_new_index(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rename is the moment: its files must not be removed because something failed after it."""
    first = commit(target, writing({"a": b"1"}), None)

    def late(folder: Path, content: Any) -> None:
        write_manifest(folder, content)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "write_manifest", late)
    with pytest.raises(KeyboardInterrupt):
        commit(target, writing({"a": b"2"}), first)
    monkeypatch.undo()
    manifest = read_manifest(target)
    verify(target, manifest["files"], True)
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
    assert "generation-000001/tokens-a.npy" in files(target)
    commit(target, writing({"a": b"3"}), second)
    assert files(target) == ["generation-000003/tokens-a.npy", "manifest.json"]


def test_the_next_save_removes_what_killed_ones_left(target: Path) -> None:
    first = commit(target, writing({"a": b"1"}), None)
    mark = "0123456789abcdef"
    for name in (f".partial-{mark}/half", "generation-000002/lengths.npy", ".manifest.json.y"):
        (target / name).parent.mkdir(exist_ok=True)
        (target / name).write_bytes(b"left")
    beside = [target.parent / f".index.{purpose}-{mark}" for purpose in ("staging", "partial", "lock")]
    for path in beside[:2]:
        path.mkdir()
        (path / "tokens").write_bytes(b"left")
    beside[2].touch()
    others = [target.parent / name for name in (".index.partial-mine", f".other.partial-{mark}")]
    for path in others:
        path.mkdir()
    with sibling_folder(target, "staging") as used:
        commit(target, writing({"a": b"2"}), first)
        assert used.exists()
    assert files(target) == ["generation-000002/tokens-a.npy", "manifest.json"]
    assert not any(path.exists() for path in (*beside, used))
    assert all(path.exists() for path in others)


def test_what_killed_saves_left_is_removed_before_the_next_writes(target: Path) -> None:
    """A save that is killed each night, as by the system for its memory, must not fill the disk."""
    first = commit(target, writing({"a": b"1"}), None)
    for mark in range(3):
        (target / f".partial-{mark:016x}").mkdir()
        (target / f".partial-{mark:016x}" / "tokens-a.npy").write_bytes(b"left")
        with pytest.raises(MemoryError):
            commit(target, failing(MemoryError()), first)
        assert files(target) == ["generation-000001/tokens-a.npy", "manifest.json"]


@pytest.mark.parametrize("name", ["generation-000000", "generation-000002", ".partial-0123456789abcdef"])
def test_nothing_behind_a_link_is_removed_or_written(target: Path, name: str) -> None:
    photos = target.parent / "photos"
    photos.mkdir()
    (photos / "lengths.npy").write_bytes(b"dear")
    first = commit(target, writing({"a": b"1"}), None)
    (target / name).symlink_to(photos)
    second = commit(target, writing({"a": b"2"}), first)
    commit(target, writing({"a": b"3"}), second)
    assert [(path.name, path.read_bytes()) for path in photos.iterdir()] == [("lengths.npy", b"dear")]
    assert (target / name).is_symlink()


def test_a_lock_that_is_a_link_is_refused(target: Path) -> None:
    """Locking empties the file behind a link, with some versions of the library that does it."""
    first = commit(target, writing({"a": b"1"}), None)
    letter = target.parent / "letter"
    letter.write_bytes(b"dear")
    (target / module.LOCK).unlink(missing_ok=True)
    (target / module.LOCK).symlink_to(letter)
    with pytest.raises(IndexFolderError, match=r"\.lock is a link; an index has none"):
        commit(target, writing({"a": b"2"}), first)
    assert letter.read_bytes() == b"dear"


def test_files_that_others_put_into_a_generation_stay(target: Path) -> None:
    first = commit(target, writing({"a": b"1"}), None)
    (target / "generation-000001" / "notes.txt").write_bytes(b"mine")
    second = commit(target, writing({"a": b"2"}), first)
    assert (target / "generation-000001" / "notes.txt").read_bytes() == b"mine"
    assert "generation-000001/tokens-a.npy" not in files(target) and second.number == 2


# -- replacing ----------------------------------------------------------------


def test_an_index_is_replaced_in_one_step(target: Path) -> None:
    commit(target, writing({"a": b"1"}), None)
    with pytest.raises(MemoryError):
        commit(target, failing(MemoryError()), None, overwrite=True)
    assert (target / "generation-000001/tokens-a.npy").read_bytes() == b"1"
    new = commit(target, writing({"b": b"2"}), None, overwrite=True)
    assert files(target) == ["generation-000001/tokens-b.npy", "manifest.json"]
    assert Generation.of(read_manifest(target)) == new and len(list(target.parent.iterdir())) == 1
    (target.parent / "other").mkdir()
    (target.parent / "other" / "letter").write_bytes(b"dear")
    with pytest.raises(FileExistsError, match="is not a muvera index, so it is not replaced"):
        commit(target.parent / "other", writing({"a": b"1"}), None, overwrite=True)


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
    verify(target, read_manifest(target)["files"], True)


def test_two_first_writers_of_one_folder(target: Path) -> None:
    def overtaken(folder: Path, name: str, old: set[str]) -> Any:
        commit(target, writing({"a": b"1"}), None)
        return writing({"a": b"2"})(folder, name, old)

    with pytest.raises(IndexFolderError, match=r"Another process has written .* meanwhile"):
        commit(target, overtaken, None)
    assert (target / "generation-000001/tokens-a.npy").read_bytes() == b"1"
    verify(target, read_manifest(target)["files"], True)
    assert [path.name for path in target.parent.iterdir()] == ["index"]


def test_staging_is_removed_in_the_end(target: Path) -> None:
    with pytest.raises(KeyboardInterrupt), staging_beside(target) as staging:
        (staging / "tokens").write_bytes(b"1")
        assert staging.parent == target.parent
        raise KeyboardInterrupt
    assert list(target.parent.iterdir()) == []


# -- reading ------------------------------------------------------------------


def test_a_folder_without_manifest(target: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"index does not exist\. Give the folder of an index"):
        read_manifest(target)
    target.mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"index is not a muvera index: it has no manifest\.json"):
        read_manifest(target)
    (target / "tokens.npy").touch()
    with pytest.raises(FileNotFoundError, match=r"it holds token embeddings.* muvera index .*index INDEX\."):
        read_manifest(target)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is damaged"),
        ('{"format": "muvera-index", "format_ver', "is damaged"),
        ("[" * 100_000, "is damaged"),
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


CHANGES: dict[str, tuple[Any, str]] = {
    "a digit": (lambda m: m.update(generation=2), "another checksum than when it was written"),
    "a key": (lambda m: m.pop("content"), "another checksum than when it was written"),
    "no checksum": (lambda m: m.pop("sha256"), "another checksum than when it was written"),
}


@pytest.mark.parametrize(("change", "message"), CHANGES.values(), ids=CHANGES)
def test_a_changed_manifest_is_noticed(target: Path, change: Any, message: str) -> None:
    commit(target, writing({"a": b"1"}), None)
    manifest = json.loads((target / "manifest.json").read_text())
    change(manifest)
    (target / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(IndexFolderError, match=message):
        read_manifest(target)


LISTED = {"bytes": 1, "sha256": "0"}
HOSTILE: dict[str, tuple[dict[str, Any], str]] = {
    "absolute file": (
        {"files": {"/etc/hostname": LISTED}},
        "names '/etc/hostname', which does not lie within",
    ),
    "parent file": ({"files": {"../x.npy": LISTED}}, r"names '\.\./x\.npy', which does not lie within"),
    "windows parent": ({"files": {"..\\x.npy": LISTED}}, "which does not lie within"),
    "absolute folder": ({"folder": "/etc"}, "names '/etc', which does not lie within"),
    "other folder": ({"folder": "../other/generation-000001"}, "which does not lie within"),
    "linked folder": (
        {"folder": "link"},
        "names 'link', which does not lie within the folder. Put the files",
    ),
    "segment elsewhere": ({"segments": [{"first": 0, "file": "/x.npy"}]}, "which does not lie within"),
    "unlisted segment": ({"segments": [{"first": 0, "file": "x.npy"}]}, "is not listed in manifest.json"),
    "nothing listed": ({"files": {}}, r"tokens-a\.npy is not listed in manifest\.json"),
    "no files": ({"files": None}, "is incomplete"),
    "numbers": ({"folder": 3}, "is incomplete"),
}


@pytest.mark.parametrize(("changes", "message"), HOSTILE.values(), ids=HOSTILE)
def test_a_manifest_leads_nowhere_else(target: Path, changes: dict[str, Any], message: str) -> None:
    """Also where its checksum is right, as an attacker makes it."""
    commit(target, writing({"a": b"1"}), None)
    (target / "link").symlink_to("/etc")
    manifest = read_manifest(target)
    del manifest["format"], manifest["format_version"]
    manifest_module.write_manifest(target, {**manifest, **changes})
    with pytest.raises(IndexFolderError, match=message):
        read_manifest(target)


def test_damaged_files_are_named(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(target, writing({"a": b"1234"}), None)
    path, manifest = target / "generation-000001/tokens-a.npy", read_manifest(target)
    path.write_bytes(b"123")
    with pytest.raises(
        IndexFolderError, match=r"tokens-a\.npy has 3 bytes instead of 4: it was cut off or changed"
    ):
        verify(target, manifest["files"], False)
    path.write_bytes(b"1235")
    for thorough in (True, None):
        with pytest.raises(
            IndexFolderError, match=r"tokens-a\.npy has another checksum than when it was written"
        ):
            verify(target, manifest["files"], thorough)
    verify(target, manifest["files"], False)
    monkeypatch.setattr(checksums, "_QUICK_BYTES", 3)
    verify(target, manifest["files"])  # too large to be read without being asked
    path.unlink()
    with pytest.raises(IndexFolderError, match=r"generation-000001 lacks its file tokens-a\.npy\. Restore"):
        verify(target, manifest["files"], False)


def test_the_manifest_is_json_for_people(target: Path) -> None:
    commit(target, writing({"a": b"1"}), None)
    manifest = json.loads((target / "manifest.json").read_text())
    assert set(manifest) == {
        "format",
        "format_version",
        "generation",
        "stamp",
        "folder",
        "content",
        "files",
        "segments",
        "sha256",
    }
    assert manifest["files"]["generation-000001/tokens-a.npy"]["bytes"] == 1
