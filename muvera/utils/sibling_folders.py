"""Folders that are written beside their target, and what killed processes left of them.

A folder of this kind is called ``.NAME.PURPOSE-RANDOM``.  Before it is made, ``.NAME.lock-RANDOM`` is
locked; the system frees that lock when its process dies.  So whoever can lock it may remove the folder.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import filelock

__all__ = [
    "exchange",
    "recover_folder",
    "remove_folder",
    "remove_stale_siblings",
    "sibling_folder",
    "use_sibling",
]

#: What the folders are for: to become the target, to hold what is on its way there, to be put back.
_PURPOSES = ("partial", "staging", "old")

# Of Linux' renameat2.
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@contextmanager
def sibling_folder(target: Path, purpose: str) -> Iterator[Path]:
    """Make a folder beside `target`; unless it was renamed, it is removed in the end.

    What killed processes left beside `target` is removed first.
    """
    remove_stale_siblings(target)
    lock = None
    while lock is None:
        mark = secrets.token_hex(8)
        lock = _try_lock(_named(target, "lock", mark))
    folder = _named(target, purpose, mark)
    try:
        folder.mkdir()
        yield folder
    finally:
        remove_folder(folder)
        _unlock(lock, _named(target, "lock", mark))


def use_sibling(folder: Path, purpose: str) -> Path:
    """Return another name under the lock of a :func:`sibling_folder`."""
    head, _, mark = folder.name.rpartition("-")
    return folder.with_name(f"{head.rpartition('.')[0]}.{purpose}-{mark}")


def remove_stale_siblings(target: Path) -> None:
    """Remove what killed processes left beside `target`, and put back a target that they moved away."""
    if not target.parent.is_dir():
        return
    names = "|".join((*_PURPOSES, "lock"))
    pattern = re.compile(rf"\.{re.escape(target.name)}\.(?:{names})-([0-9a-f]{{16}})")
    marks = {found[1] for path in target.parent.iterdir() if (found := pattern.fullmatch(path.name))}
    for mark in sorted(marks):
        with suppress(OSError):
            lock = _try_lock(_named(target, "lock", mark))
            if lock is None:
                continue
            old = _named(target, "old", mark)
            if old.is_dir() and not old.is_symlink() and not os.path.lexists(target):
                old.replace(target)
            for purpose in _PURPOSES:
                if not _named(target, purpose, mark).is_symlink():  # nothing here makes links
                    remove_folder(_named(target, purpose, mark))
            _unlock(lock, _named(target, "lock", mark))


def recover_folder(target: Path) -> None:
    """Put back a folder that a killed process had moved away, where `target` is missing."""
    if not os.path.lexists(target):
        remove_stale_siblings(target.absolute())


def remove_folder(folder: Path) -> None:
    """Remove a folder where it is there; a link is removed and not followed."""
    if folder.is_symlink():
        folder.unlink(missing_ok=True)
    else:
        shutil.rmtree(folder, ignore_errors=True)


def exchange(one: Path, other: Path) -> bool:
    """Exchange two folders' names in one step; False where the system cannot."""
    rename = _renameat2()
    if rename is None:
        return False
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.EPERM):  # this kernel or file system has none
        return False
    raise OSError(number, os.strerror(number), str(one), None, str(other))


@cache
def _renameat2() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is not None:
        rename.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    return rename


def _named(target: Path, purpose: str, mark: str) -> Path:
    return target.with_name(f".{target.name}.{purpose}-{mark}")


def _try_lock(path: Path) -> filelock.BaseFileLock | None:
    """Return a held lock; None where another holds it, or has removed the file meanwhile."""
    if path.is_symlink():  # older filelocks would empty the file behind it
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
    path.unlink(missing_ok=True)  # while it is held: whoever locks it later sees that it is gone
    lock.release()
