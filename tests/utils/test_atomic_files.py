"""Atomic files and folders: after a failure or a kill the old content stays.

Nothing half-made is left.
"""

import errno
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import muvera.utils.atomic_files as module
from muvera.utils.arrays import save_array
from muvera.utils.atomic_files import (
    atomic_file,
    atomic_folder,
    named_errors,
    recover_folder,
    sync,
    write_bytes,
    write_json,
)


class Killed(BaseException):
    """Simulates a signal."""


FULL = OSError(28, "No space left on device")

FAULTS = pytest.mark.parametrize("error", [FULL, Killed()], ids=["full", "killed"])


def raising(error: BaseException) -> Any:
    """Return a function that raises `error`."""

    def fail(*_: object) -> None:
        raise error

    return fail


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def replace(target: Path, content: str) -> None:
    """Replace a folder by one with the file "file"."""
    with atomic_folder(target, overwrite=True) as beside:
        (beside / "file").write_text(content)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A folder with old content."""
    replace(tmp_path / "target", "old")
    return tmp_path / "target"


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o007])
def test_files_and_folders_follow_the_umask(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        write_bytes(tmp_path / "file", b"x")
        with atomic_file(tmp_path / "written", overwrite=False) as path:
            path.write_bytes(b"x")
        with atomic_folder(tmp_path / "folder") as folder:
            write_bytes(folder / "inner", b"x")
    finally:
        os.umask(before)
    for name, full in (("file", 0o666), ("written", 0o666), ("folder", 0o777), ("folder/inner", 0o666)):
        assert (tmp_path / name).stat().st_mode & 0o777 == full & ~mask


@FAULTS
@pytest.mark.parametrize("moment", [(os, "fsync"), (Path, "replace")], ids=["fsync", "replace"])
def test_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: Any, error: BaseException) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"first")
    write_bytes(path, b"old\0\n")
    owner, name = moment
    monkeypatch.setattr(owner, name, raising(error))
    with pytest.raises(type(error)):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old\0\n" and names(tmp_path) == ["file"]


def test_json_and_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = {"ä": [1, None, "x"], "b": 0.5}
    write_json(tmp_path / "file", content)
    with pytest.raises(TypeError):
        write_json(tmp_path / "file", object())
    assert json.loads((tmp_path / "file").read_text(encoding="utf-8")) == content
    save_array(tmp_path / "array.npy", np.arange(3))
    assert np.load(tmp_path / "array.npy").tolist() == [0, 1, 2]
    monkeypatch.setattr(np, "save", raising(FULL))
    with pytest.raises(OSError, match=r"array\.npy .*Is the disk full") as caught:
        save_array(tmp_path / "array.npy", np.arange(3))
    assert caught.value.errno == 28
    with pytest.raises(FileNotFoundError):
        sync(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (FULL, "a could not be written: No space left on device. Is the disk full? Free some space."),
        (
            OSError(errno.EROFS, "Read-only file system", "b"),
            "a could not be written: Read-only file system (b). Make it writable, or give another folder.",
        ),
        (
            OSError(errno.EACCES, "Permission denied", "a/.b.partial-0123456789abcdef"),
            "a could not be written: Permission denied. Make it writable, or give another folder.",
        ),
        (
            OSError(errno.EIO, "Input/output error"),
            "a could not be written: Input/output error. Check the disk, or give another folder.",
        ),
    ],
    ids=["full", "read-only", "beside", "failing"],
)
def test_an_error_of_the_system_becomes_a_sentence(error: OSError, sentence: str) -> None:
    with (
        pytest.raises(OSError, match="^" + re.escape(sentence) + "$") as caught,
        named_errors("b is unchanged"),
        named_errors("a could not be written"),  # the inner one names it
    ):
        raise error
    assert caught.value.errno == error.errno


# -- folders ------------------------------------------------------------------


def test_a_folder_appears_whole_and_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "target"
    with atomic_folder(target) as beside:
        (beside / "inside").mkdir()
        (beside / "inside" / "file").write_text("old")
        assert beside.parent == target.parent and not target.exists()
    assert (target / "inside" / "file").read_text() == "old"
    replace(target, "new")
    assert names(target) == ["file"] and names(target.parent) == ["target"]


@pytest.mark.parametrize(
    ("place", "overwrite", "message"),
    [("", False, "overwrite=True"), ("file", False, "is a file"), ("file", True, "is a file")],
)
def test_existing_folders_and_files_are_not_replaced(
    tmp_path: Path, place: str, overwrite: bool, message: str
) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "file").write_text("old")
    with (
        pytest.raises(FileExistsError, match=message),
        atomic_folder(tmp_path / "target" / place, overwrite),
    ):
        raise AssertionError("the block must not run")
    assert (tmp_path / "target" / "file").read_text() == "old"


def test_an_empty_folder_is_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    with atomic_folder("empty") as beside:
        (beside / "file").touch()
    assert names(tmp_path / "empty") == ["file"]


@FAULTS
@pytest.mark.parametrize("existing", [False, True])
def test_a_failed_block(tmp_path: Path, existing: bool, error: BaseException) -> None:
    target = tmp_path / "target"
    if existing:
        replace(target, "old")
    with pytest.raises(type(error)), atomic_folder(target, overwrite=True) as beside:
        (beside / "file").write_text("half")
        raise error
    assert names(tmp_path) == (["target"] if existing else [])
    assert not existing or (target / "file").read_text() == "old"


def test_a_failed_rename(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "exchange", lambda *_: False)  # as on other systems than Linux
    rename, fail = Path.replace, raising(FULL)
    monkeypatch.setattr(
        Path, "replace", lambda path, to: (fail if "partial" in path.name else rename)(path, to)
    )
    with pytest.raises(OSError, match="No space"):
        replace(target, "new")
    assert (target / "file").read_text() == "old" and names(target.parent) == ["target"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux exchanges folders")
def test_the_target_exists_at_every_moment(target: Path) -> None:
    missing, done = list[int](), threading.Event()

    def watch() -> None:
        while not done.is_set():
            if not (target / "file").exists():
                missing.append(1)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(40):
        replace(target, "new")
    done.set()
    watcher.join()
    assert missing == [] and names(target.parent) == ["target"]


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
def test_kills(target: Path, place: str, content: str | None) -> None:
    for _ in range(2):  # leftovers do not pile up
        run = subprocess.run([sys.executable, "-c", KILLED, place, str(target)], check=False)
        assert run.returncode == -9 and len(names(target.parent)) <= 4
    if content is None:
        assert not target.exists()
        recover_folder(target)
    assert (target / "file").read_text() == (content or "old")
    replace(target, "last")
    assert (target / "file").read_text() == "last" and names(target.parent) == ["target"]


def test_links_are_not_followed(tmp_path: Path) -> None:
    photos, target = tmp_path / "photos", tmp_path / "target"
    photos.mkdir()
    (photos / "tokens.npy").write_text("dear")
    target.symlink_to(photos)
    for purpose in ("partial", "staging", "old", "lock"):  # like leftovers of a killed writer
        link = tmp_path / f".target.{purpose}-0123456789abcdef"
        link.symlink_to(photos / ("tokens.npy" if purpose == "lock" else ""))
    replace(target, "new")
    assert (photos / "tokens.npy").read_text() == "dear"
    assert names(target) == ["file"] and not target.is_symlink()


def test_two_writers_do_not_mix(tmp_path: Path) -> None:
    target = tmp_path / "target"
    with atomic_folder(target) as one:
        (one / "one").write_text("1")
        with atomic_folder(target) as two:
            (two / "two").write_text("2")
        assert names(target) == ["two"]
        with pytest.raises(OSError):
            one.replace(target)  # a folder that is not empty is never replaced by accident
        (target / "two").unlink()
    assert names(target) == ["one"] and names(tmp_path) == ["target"]


def test_only_a_folder_of_its_kind_is_replaced(target: Path) -> None:
    with pytest.raises(FileExistsError, match="file"), atomic_folder(target, True, own=("*.npy",)):
        pass
    assert (target / "file").read_text() == "old"
    with atomic_folder(target, True, own=("f*",)) as beside:
        (beside / "array.npy").touch()
    assert names(target) == ["array.npy"]
