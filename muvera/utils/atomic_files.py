"""Write files and folders atomically, and compute checksums of files.

They are written beside their target, synced, and then renamed.

A folder that will become ``NAME`` is first called ``.NAME.PURPOSE-RANDOM``.  Before it
is created, ``.NAME.lock-RANDOM`` is locked; the system frees that lock when the process
dies.  So any process that can take the lock may remove the folder.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

import filelock

from .checks import as_path
from .hints import Argument, Message

# Purposes of folders beside a target: the new target, its tokens while it is built, and
# the old target to restore.
_PURPOSES = ("partial", "staging", "old")

# Another process can take a lock with a random name only while it removes leftovers.
_ATTEMPTS = 10

# Values of Linux's renameat2(2): paths are relative to the working directory, and both
# names are exchanged.
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2

# Larger files are checked by size only, unless `thorough` is set: a checksum reads the
# whole file.
_QUICK_BYTES = 256 << 20


# Errors of a full disk, and of a place that cannot be written at all.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM)


# -- errors -------------------------------------------------------------------


@contextmanager
def named_errors(what: str) -> Iterator[None]:
    """Turn an OSError of the block into a sentence that begins with `what`.

    `what` names the file, and what could not be done with it, as in "PATH could not be
    written: Read-only file system. Make it writable, or give another folder."  The
    error's type and number stay.  Errors that are sentences already do not change.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or not str(error).startswith("[Errno"):
            raise
        advice = "Check the disk, or give another folder."
        if error.errno in _FULL:
            advice = "Is the disk full? Free some space."
        elif error.errno in _REFUSED:
            advice = "Make it writable, or give another folder."
        ours = Path(error.filename or "").name.startswith(".")  # named after a target
        place = "" if error.filename is None or ours else f" ({error.filename})"
        named = type(error)(f"{what}: {error.strerror}{place}. {advice}")
        named.errno = error.errno
        raise named from error


# -- files --------------------------------------------------------------------


def sync(path: Path) -> None:
    """Flush a file or, if the system allows it, a folder to the disk."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:  # Windows opens no folders; its renames need no sync
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_file(target: str | os.PathLike[str], overwrite: bool = False) -> Iterator[Path]:
    """Yield a new file, which becomes `target` if the block ends without an error.

    The file is empty and beside the target.  Raise FileExistsError if `target` is a
    folder, or exists and `overwrite` is False.
    """
    target = as_path(target).absolute()
    if target.is_dir():
        raise FileExistsError(f"{target} is a folder, so it cannot be written as a file. Give another name.")
    if target.exists() and not overwrite:
        raise FileExistsError(
            Message(
                f"{target} exists. Give another name, or ", Argument("overwrite", "True"), " to replace it."
            )
        )
    beside = target.with_name(f".{target.name}.partial-{secrets.token_hex(8)}")
    try:
        with named_errors(f"{target.parent} could not be written"):
            beside.touch(exist_ok=False)
        yield beside
        sync(beside)
        beside.replace(target)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    sync(target.parent)


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file in one step: readers see the old content or the new."""
    with atomic_file(path, overwrite=True) as beside:
        beside.write_bytes(content)


def write_json(path: Path, content: object) -> None:
    """Replace the file at `path` with `content` as JSON, in one step."""
    write_bytes(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Return the content of a JSON file; raise ValueError if it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged, or not JSON: {error}.") from error


# -- checksums ----------------------------------------------------------------


def content_checksum(content: dict[str, Any]) -> str:
    """Return the SHA-256 of a JSON object.

    It does not depend on the order and the white space of the object's text.
    """
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def described_file(path: Path) -> dict[str, Any]:
    """Return the size and SHA-256 of a file."""
    return {"bytes": path.stat().st_size, "sha256": _checksum(path)}


def require_unchanged(path: Path, described: dict[str, Any], thorough: bool | None = None) -> None:
    """Raise ValueError unless a file is as :func:`described_file` described it.

    A `thorough` check compares the checksum, for which the whole file is read;
    otherwise only the size is compared.  Default: thorough for files up to 256 MiB.
    """
    if not path.is_file():
        raise ValueError(
            f"{path.parent} has no file {path.name}, which its manifest lists. Restore the folder from a "
            "copy."
        )
    size = path.stat().st_size
    if size != described["bytes"]:
        raise ValueError(
            f"{path} has {size} bytes instead of {described['bytes']}: it was truncated or changed. "
            "Restore the folder from a copy."
        )
    if (thorough or (thorough is None and size <= _QUICK_BYTES)) and _checksum(path) != described["sha256"]:
        raise ValueError(
            f"{path} does not match its checksum: it was changed or damaged. Restore the folder from a copy."
        )


def _checksum(path: Path) -> str:
    with path.open("rb") as stream:
        digest = hashlib.sha256()  # Python 3.10 has no hashlib.file_digest
        while block := stream.read(1 << 20):
            digest.update(block)
        return digest.hexdigest()


# -- folders ------------------------------------------------------------------


@contextmanager
def atomic_folder(
    target: str | os.PathLike[str], overwrite: bool = False, *, own: Sequence[str] | None = None
) -> Iterator[Path]:
    """Yield an empty folder, which becomes `target` if the block ends without an error.

    `overwrite` allows replacing a folder that is not empty, if all its files match the
    patterns `own` (default: all files).  Otherwise, and if `target` is a file, raise
    FileExistsError.

    Linux exchanges both folders in one step; elsewhere, the next call restores `target`
    after a kill.
    """
    target = as_path(target).absolute()
    with sibling_folder(target, "partial") as beside:
        if target.exists() and not target.is_dir():
            raise FileExistsError(f"{target} is a file, but a folder is written here. Give another name.")
        occupied = sorted(target.iterdir()) if target.is_dir() else []
        if occupied and not overwrite:
            raise FileExistsError(
                Message(
                    f"{target} exists and is not empty. Give another name, or ",
                    Argument("overwrite", "True"),
                    " to replace it.",
                )
            )
        for path in occupied:
            if own is not None and not any(fnmatch(path.name, pattern) for pattern in own):
                raise FileExistsError(
                    f"{target} contains {path.name}, which does not belong there, so the folder is not "
                    "replaced. Give another name, or remove that file yourself."
                )
        yield beside
        for path in beside.rglob("*"):
            if not path.is_symlink():
                sync(path)
        sync(beside)
        if not occupied:
            with suppress(FileNotFoundError):
                target.rmdir()
            beside.replace(target)
        elif not exchange(beside, target):
            old = _sibling(target, "old", beside.name.rpartition("-")[2])
            target.replace(old)
            try:
                beside.replace(target)
            except BaseException:
                old.replace(target)
                raise
            remove_folder(old)
        sync(target.parent)


@contextmanager
def sibling_folder(target: Path, purpose: str) -> Iterator[Path]:
    """Remove leftovers, then yield a new folder beside `target`.

    Make the folder that contains both if it is missing.  Remove the new folder at the
    end, unless it was renamed.
    """
    with named_errors(f"{target.parent} could not be written"):
        target.parent.mkdir(parents=True, exist_ok=True)
    remove_stale_siblings(target)
    for _ in range(_ATTEMPTS):
        mark = secrets.token_hex(8)
        with named_errors(f"{target.parent} could not be written"):
            lock = _try_lock(_sibling(target, "lock", mark))
        if lock is not None:
            break
    else:
        raise OSError(f"{target.parent} does not keep new files. Give another folder.")
    folder = _sibling(target, purpose, mark)
    try:
        folder.mkdir()
        yield folder
    finally:
        remove_folder(folder)
        _unlock(lock, _sibling(target, "lock", mark))


def remove_stale_siblings(target: Path) -> None:
    """Remove leftovers of killed processes beside `target`.

    Restore a target that they moved away.
    """
    if not target.parent.is_dir():
        return
    names = "|".join((*_PURPOSES, "lock"))
    pattern = re.compile(rf"\.{re.escape(target.name)}\.(?:{names})-([0-9a-f]{{16}})")
    marks = {match[1] for path in target.parent.iterdir() if (match := pattern.fullmatch(path.name))}
    for mark in sorted(marks):
        with suppress(OSError):
            lock = _try_lock(_sibling(target, "lock", mark))
            if lock is None:
                continue
            old = _sibling(target, "old", mark)
            if old.is_dir() and not old.is_symlink() and not os.path.lexists(target):
                old.replace(target)
            for purpose in _PURPOSES:
                if not _sibling(target, purpose, mark).is_symlink():  # this module makes no links
                    remove_folder(_sibling(target, purpose, mark))
            _unlock(lock, _sibling(target, "lock", mark))


def recover_folder(target: Path) -> None:
    """Restore a missing `target` that a killed process had moved away."""
    if not os.path.lexists(target):
        remove_stale_siblings(target.absolute())


def remove_folder(folder: Path) -> None:
    """Remove a folder if it exists; a link is removed and not followed."""
    if folder.is_symlink():
        folder.unlink(missing_ok=True)
    else:
        shutil.rmtree(folder, ignore_errors=True)


def exchange(first: Path, second: Path) -> bool:
    """Exchange the names of two folders of one file system in one step.

    Return False if the system cannot do it.  Raise OSError if it failed for another
    reason.
    """
    rename = _renameat2()
    if rename is None:
        return False
    if rename(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.EPERM):  # not supported by this kernel or file system
        return False
    raise OSError(number, os.strerror(number), str(first), None, str(second))


@cache
def _renameat2() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is not None:
        rename.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    return rename


def _sibling(target: Path, purpose: str, mark: str) -> Path:
    return target.with_name(f".{target.name}.{purpose}-{mark}")


def _try_lock(path: Path) -> filelock.BaseFileLock | None:
    """Return a held lock; None if another process holds it or removed its file."""
    if path.is_symlink():  # older versions of filelock would empty the file behind it
        return None
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        return None
    if not path.exists():
        lock.release()
        return None
    return lock


def _unlock(lock: filelock.BaseFileLock, path: Path) -> None:
    path.unlink(missing_ok=True)  # first, so that the next holder sees that the file was removed
    lock.release()
