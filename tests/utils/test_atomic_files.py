"""Writing beside the target: whatever fails, the old content stays and nothing half-made is left."""

import json
import os
from pathlib import Path

import pytest

from muvera.utils.atomic_files import atomic_folder, sync, write_bytes, write_json


def names(folder: Path) -> list[str]:
    """Everything in a folder, hidden names too."""
    return sorted(path.name for path in folder.iterdir())


class Killed(BaseException):
    """What a signal raises: no Exception."""


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old")
    write_bytes(path, b"new\0\n")
    assert path.read_bytes() == b"new\0\n"
    assert path.stat().st_mode & 0o777 == 0o644
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("moment", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), Killed()], ids=["full", "killed"])
def test_a_failed_write_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, error: BaseException
) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old")

    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(os, "fsync", fail) if moment == "fsync" else monkeypatch.setattr(
        Path, "replace", fail
    )
    with pytest.raises(type(error)):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_json_is_readable_text(tmp_path: Path) -> None:
    content = {"ä": [1, None, "x"], "b": 0.5}
    write_json(tmp_path / "file", content)
    text = (tmp_path / "file").read_text(encoding="utf-8")
    assert json.loads(text) == content
    assert "ä" in text
    assert text.endswith("\n")
    with pytest.raises(TypeError):
        write_json(tmp_path / "file", object())
    assert json.loads((tmp_path / "file").read_text(encoding="utf-8")) == content


def test_a_folder_appears_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "target"
    with atomic_folder(target) as beside:
        assert beside.parent == target.parent
        assert not target.exists()
        (beside / "inside").mkdir()
        (beside / "inside" / "file").write_text("new")
    assert (target / "inside" / "file").read_text() == "new"
    assert target.stat().st_mode & 0o777 == 0o755
    assert names(target.parent) == ["target"]


def test_a_relative_path_and_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("target").mkdir()
    with atomic_folder("target") as beside:
        (beside / "file").write_text("new")
    assert names(tmp_path / "target") == ["file"]
    assert names(tmp_path) == ["target"]


def test_what_exists_is_replaced_only_when_told(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "file").write_text("old")
    with pytest.raises(FileExistsError, match="overwrite=True to replace it"), atomic_folder(target):
        raise AssertionError("the block must not run")
    with atomic_folder(target, overwrite=True) as beside:
        (beside / "other").write_text("new")
        assert names(target) == ["file"]
    assert names(target) == ["other"]
    assert names(tmp_path) == ["target"]


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("")
    for overwrite in (False, True):
        with (
            pytest.raises(FileExistsError, match="is a file; a folder is written here"),
            atomic_folder(tmp_path / "target", overwrite),
        ):
            raise AssertionError("the block must not run")
    assert names(tmp_path) == ["target"]


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("error", [ValueError("no"), Killed()], ids=["error", "killed"])
def test_a_failed_block_leaves_what_was(tmp_path: Path, existing: bool, error: BaseException) -> None:
    target = tmp_path / "target"
    if existing:
        target.mkdir()
        (target / "file").write_text("old")
    with pytest.raises(type(error)), atomic_folder(target, overwrite=True) as beside:
        (beside / "file").write_text("half")
        raise error
    assert names(tmp_path) == (["target"] if existing else [])
    if existing:
        assert (target / "file").read_text() == "old"


def test_a_failed_rename_puts_the_old_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "file").write_text("old")
    replace = Path.replace

    def fail_for_the_new(self: Path, to: Path) -> Path:
        if "partial" in self.name:
            raise OSError(28, "No space left on device")
        return replace(self, to)

    monkeypatch.setattr(Path, "replace", fail_for_the_new)
    with pytest.raises(OSError, match="No space"), atomic_folder(target, overwrite=True) as beside:
        (beside / "file").write_text("new")
    assert (target / "file").read_text() == "old"
    assert not [name for name in names(tmp_path) if "partial" in name]


def test_two_writers_do_not_mix(tmp_path: Path) -> None:
    """The last to finish wins, whole."""
    target = tmp_path / "target"
    with atomic_folder(target) as one:
        (one / "one").write_text("1")
        with atomic_folder(target) as two:
            (two / "two").write_text("2")
        assert names(target) == ["two"]
        with pytest.raises(OSError):
            one.replace(target)  # a folder that is not empty is never replaced by chance
        (target / "two").unlink()
    assert names(target) == ["one"]
    assert names(tmp_path) == ["target"]


def test_sync_takes_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    sync(tmp_path)
    sync(tmp_path / "file")
    with pytest.raises(FileNotFoundError):
        sync(tmp_path / "nothing")


def test_only_a_folder_of_its_kind_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "photos"
    target.mkdir()
    (target / "one.jpg").write_text("kept")
    with (
        pytest.raises(FileExistsError, match=r"photos holds one\.jpg, .* not replaced"),
        atomic_folder(target, overwrite=True, own=("tokens.npy",)),
    ):
        pass
    assert (target / "one.jpg").read_text() == "kept"
    (target / "one.jpg").unlink()
    (target / "tokens.npy").touch()
    with atomic_folder(target, overwrite=True, own=("tokens.npy",)) as beside:
        (beside / "tokens.npy").touch()
    assert [path.name for path in target.iterdir()] == ["tokens.npy"]
