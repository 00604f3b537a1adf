"""Files and folders written atomically: beside the target, synced, then renamed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path
from tempfile import mkstemp
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .sibling_folders import exchange, remove_folder, sibling_folder, use_sibling

__all__ = ["atomic_folder", "read_json", "save_array", "sync", "write_bytes", "write_json"]


def sync(path: Path) -> None:
    """Flush a file's or, where the system allows it, a folder's contents to the disk."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:  # Windows opens no folders; its renames need no sync
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, content: bytes) -> None:
    """Replace the file at `path` in one step: readers see the old content or the new."""
    descriptor, name = mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def write_json(path: Path, content: Any) -> None:
    """Replace the file at `path` by `content` as JSON, in one step."""
    write_bytes(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Return what a JSON file says.

    Raises
    ------
    FileNotFoundError
        Where there is no such file.
    ValueError
        Where it is damaged; the message names it.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged, or not JSON: {error}.") from error


@contextmanager
def atomic_folder(
    target: str | os.PathLike[str], overwrite: bool = False, *, own: Sequence[str] | None = None
) -> Iterator[Path]:
    """Give a folder to fill that becomes `target` when the block ends without an error.

    Parameters
    ----------
    target : path
        The final name.  It must not exist (an empty folder may), unless `overwrite`.
    overwrite : bool
        Replace an existing folder; it is kept until the new one is complete.
    own : sequence of str, optional
        Patterns of the names that a folder of this kind has: one that holds any other is not
        replaced, so that a slip of the hand costs no other files.

    Yields
    ------
    Path
        A new, empty folder beside `target`, removed again when the block fails.

    Raises
    ------
    FileExistsError
        Where `target` exists and `overwrite` is False, or is a file.

    Notes
    -----
    What a killed process leaves beside `target` is removed by the next call.  Where the system can
    exchange two folders in one step (Linux), there is a folder under `target` at every moment;
    elsewhere the next call puts it back.
    """
    target = Path(target).absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    with sibling_folder(target, "partial") as beside:
        occupied = target.is_dir() and any(target.iterdir())
        if target.exists() and not target.is_dir():
            raise FileExistsError(f"{target} is a file; a folder is written here. Give another name.")
        if occupied and not overwrite:
            raise FileExistsError(
                f"{target} exists and is not empty. Give another name, or overwrite=True to replace it."
            )
        if occupied and own is not None:
            for path in sorted(target.iterdir()):
                if not any(fnmatch(path.name, pattern) for pattern in own):
                    raise FileExistsError(
                        f"{target} holds {path.name}, which is not of what is written here, so the folder is "
                        "not replaced. Give another name, or remove it yourself."
                    )
        beside.chmod(0o755)
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
            old = use_sibling(beside, "old")
            target.replace(old)
            try:
                beside.replace(target)
            except BaseException:
                old.replace(target)
                raise
            remove_folder(old)
        sync(target.parent)


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write a ``.npy`` file.

    Raises
    ------
    OSError
        Where it could not be written whole, as on a full disk; the message names the file.
    """
    try:
        np.save(path, array)
    except OSError as error:
        named = OSError(f"{path} could not be written whole: {error}. Is the disk full?")
        named.errno = error.errno
        raise named from error
