"""Writing beside the target: whatever fails, the old content stays and nothing half-made is left."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import muvera.utils.atomic_files as atomic_files
from muvera.utils.atomic_files import atomic_folder, save_array, sync, write_bytes, write_json
from muvera.utils.sibling_folders import recover_folder


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
    monkeypatch.setattr(atomic_files, "exchange", lambda *_: False)  # as on systems that have none
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


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="folders are exchanged on Linux alone")
def test_there_is_a_target_at_every_moment(tmp_path: Path) -> None:
    target, missing, done = tmp_path / "target", [], threading.Event()
    with atomic_folder(target) as beside:
        (beside / "file").write_text("0")

    def watch() -> None:
        while not done.is_set():
            try:
                (target / "file").read_text()
            except FileNotFoundError:
                missing.append(1)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for i in range(100):
        with atomic_folder(target, overwrite=True) as beside:
            (beside / "file").write_text(str(i))
    done.set()
    watcher.join()
    assert missing == [] and names(tmp_path) == ["target"]


KILLED = """
import os, signal, sys
from pathlib import Path
import muvera.utils.atomic_files as module

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

place, target = sys.argv[1:]
replace = Path.replace
if place == "after the exchange":
    exchange = module.exchange
    module.exchange = lambda *names: die() if exchange(*names) else None
if place == "between two renames":
    module.exchange = lambda *_: False
    Path.replace = lambda path, to: die() if "partial" in path.name else replace(path, to)
with module.atomic_folder(target, overwrite=True) as beside:
    (beside / "file").write_text("new")
    if place == "while writing":
        die()
"""


@pytest.mark.parametrize(
    ("place", "content"),
    [("while writing", "old"), ("between two renames", None), ("after the exchange", "new")],
)
def test_what_a_kill_leaves_is_mended_by_the_next_call(tmp_path: Path, place: str, content: Any) -> None:
    target = tmp_path / "target"
    with atomic_folder(target) as beside:
        (beside / "file").write_text("old")
    for _ in range(2):  # and it does not pile up
        run = subprocess.run([sys.executable, "-c", KILLED, place, str(target)], check=False)
        assert run.returncode == -9
        assert len(names(tmp_path)) <= 4
    if content is None:
        assert not target.exists()
        recover_folder(target)
        content = "old"
    assert (target / "file").read_text() == content
    with atomic_folder(target, overwrite=True) as beside:
        (beside / "file").write_text("last")
    assert (target / "file").read_text() == "last" and names(tmp_path) == ["target"]


def test_a_link_in_the_place_of_the_target_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "tokens.npy").write_text("kept")
    (tmp_path / "target").symlink_to(tmp_path / "photos")
    with atomic_folder(tmp_path / "target", overwrite=True) as beside:
        (beside / "file").write_text("new")
    assert (tmp_path / "photos" / "tokens.npy").read_text() == "kept"
    assert names(tmp_path / "target") == ["file"] and not (tmp_path / "target").is_symlink()
    assert names(tmp_path) == ["photos", "target"]


@pytest.mark.parametrize("purpose", ["partial", "staging", "old", "lock"])
def test_links_that_look_like_what_was_left_are_not_followed(tmp_path: Path, purpose: str) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").write_text("kept")
    link = tmp_path / f".target.{purpose}-0123456789abcdef"
    link.symlink_to(tmp_path / "photos" / ("one.jpg" if purpose == "lock" else ""))
    with atomic_folder(tmp_path / "target"):
        pass
    assert (tmp_path / "photos" / "one.jpg").read_text() == "kept"


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


# -- arrays -------------------------------------------------------------------


def test_an_array_on_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_array(tmp_path / "array.npy", np.arange(3))
    assert np.load(tmp_path / "array.npy").tolist() == [0, 1, 2]

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OSError, match=r"array\.npy could not be written whole: .*Is the disk full") as caught:
        save_array(tmp_path / "array.npy", np.arange(3))
    assert caught.value.errno == 28
    assert str(caught.value).startswith(str(tmp_path)) and str(caught.value).endswith("Is the disk full?")
