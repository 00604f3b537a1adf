"""The folder of a saved index: generations of files behind one manifest.

``manifest.json`` names every file with its size and checksum.  A new generation is written
beside the old one; replacing the manifest, one rename, makes it the index; only then are
files that it does not name removed.  So a crash, a kill or a full disk at any moment leaves
the old index or the new one, and a reader that has mapped old files keeps them.  What it leaves
beside that is removed by the next writer.  Writers hold a lock that the system frees when they
die; readers need none.
"""

from __future__ import annotations

import errno
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import filelock

from ..utils.atomic_files import atomic_folder, sync
from ..utils.checksums import described_file
from ..utils.sibling_folders import remove_folder, remove_stale_siblings, sibling_folder
from .manifest import (
    MANIFEST,
    IndexFolderError,
    is_index_file,
    read_manifest,
    write_manifest,
)

__all__ = ["Generation", "commit", "require_place", "staging_beside"]

LOCK = ".lock"

_GENERATION, _PARTIAL = re.compile(r"generation-\d{6,}"), re.compile(r"\.partial-[0-9a-f]{16}")

#: Fills a generation's folder, see :func:`commit`.
Fill = Callable[[Path, str, set[str]], tuple[dict[str, Any], list[str]]]


@dataclass(frozen=True)
class Generation:
    """One state of a folder.

    Parameters
    ----------
    number : int
        Counts up from 1.
    stamp : str
        Random, so that another index under the same name and number is told apart.
    """

    number: int
    stamp: str

    @classmethod
    def of(cls, manifest: dict[str, Any]) -> Generation:
        """Return the generation that a manifest describes."""
        return cls(int(manifest["generation"]), str(manifest["stamp"]))

    @property
    def folder(self) -> str:
        """Name of its folder within that of the index."""
        return f"generation-{self.number:06d}"


def require_place(target: Path, overwrite: bool = False) -> None:
    """Raise FileExistsError where no index can be built: only an index is ever replaced."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not target.is_dir():
        raise FileExistsError(f"{target} is a file; an index is a folder. Give another name.")
    if not overwrite:
        raise FileExistsError(
            f"{target} exists and is not empty. Give another name, load the index there and change it, or "
            "give overwrite=True to replace it."
        )
    if not (target / MANIFEST).is_file():
        raise FileExistsError(
            f"{target} exists and is not empty, and is not a muvera index, so it is not replaced. Give "
            "another name, or empty it yourself."
        )


def commit(
    target: Path, fill: Fill, expected_generation: Generation | None, overwrite: bool = False
) -> Generation:
    """Write a new generation of the index in `target` and make it current.

    Parameters
    ----------
    target : Path
        A new folder, or that of an index.
    fill : callable
        Given a folder to fill, its later name within `target`, and the names of the files of
        the current generation, relative to `target`; writes this generation's files and
        returns the manifest's own entries and which of those names to keep.
    expected_generation : Generation or None
        What the caller loaded or wrote last in this folder; None for an index that was never
        there.  Another one on the disk means that somebody else wrote since.
    overwrite : bool
        Replace an index in `target`, whatever it holds, in one step.

    Returns
    -------
    Generation
        The new one.

    Raises
    ------
    IndexFolderError
        Where another process is writing the folder, or has changed it.
    FileExistsError
        Where the folder holds something else.
    """
    remove_stale_siblings(target)
    if overwrite or not (target / MANIFEST).exists():
        require_place(target, overwrite)
        return _commit_first(target, fill, overwrite)
    with locked(target):
        manifest = read_manifest(target)
        current = Generation.of(manifest)
        if current != expected_generation:
            if expected_generation is None:
                since = "this index was made elsewhere"
            elif expected_generation.number == current.number:
                since = "it is another one than you loaded"
            else:
                since = f"you loaded {expected_generation.number}"
            raise IndexFolderError(
                f"{target} holds generation {current.number}, but {since}. Saving would lose what is there: "
                "load it and change that, save to another folder, or remove the folder first."
            )
        with suppress(OSError):  # what killed writers left: a folder holds one such generation at most
            _remove_unnamed(target, set(manifest["files"]))
        return _write_generation(target, fill, current.number + 1, manifest["files"])


def _commit_first(target: Path, fill: Fill, overwrite: bool) -> Generation:
    try:
        with atomic_folder(target, overwrite) as beside:
            return _write_generation(beside, fill, 1, {})
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST) and (target / MANIFEST).exists():
            raise IndexFolderError(
                f"Another process has written {target} meanwhile. Load it, or save to another folder."
            ) from error
        raise


def _write_generation(target: Path, fill: Fill, number: int, old: dict[str, Any]) -> Generation:
    partial = target / f".partial-{secrets.token_hex(8)}"
    new = Generation(number, secrets.token_hex(8))
    while (target / new.folder).exists() or (target / new.folder).is_symlink():  # not ours to remove
        new = replace(new, number=new.number + 1)
    name, final = new.folder, target / new.folder
    try:
        partial.mkdir()
        entries, kept = fill(partial, name, set(old))
        files = {key: old[key] for key in kept}
        for path in sorted(partial.rglob("*")):
            if path.is_file():
                sync(path)
                relative = f"{name}/{path.relative_to(partial).as_posix()}"
                files[relative] = described_file(path)
        sync(partial)
        partial.replace(final)
        sync(target)
    except BaseException:
        remove_folder(partial)
        raise
    described = {"generation": new.number, "stamp": new.stamp, "folder": name, **entries, "files": files}
    try:
        write_manifest(target, described)
    except BaseException:
        # The rename may have happened: then the new files are the index.
        if not _is_current(target, new):
            remove_folder(final)
        raise
    with suppress(OSError):  # what is left is removed by the next writer
        _remove_unnamed(target, set(files))
    return new


def _is_current(target: Path, generation: Generation) -> bool:
    try:
        return Generation.of(read_manifest(target)) == generation
    except (OSError, ValueError, KeyError):
        return False


def _remove_unnamed(target: Path, named: set[str]) -> None:
    """Remove what writers wrote and no manifest names any more; nothing else, and nothing behind a link."""
    for path in target.iterdir():
        if path.is_symlink():
            continue
        if _PARTIAL.fullmatch(path.name):
            remove_folder(path)
        elif path.name.startswith(f".{MANIFEST}.") and path.is_file():
            path.unlink(missing_ok=True)
        elif _GENERATION.fullmatch(path.name) and path.is_dir():
            for file in path.iterdir():
                ours = is_index_file(file.name) and file.is_file() and not file.is_symlink()
                if ours and file.relative_to(target).as_posix() not in named:
                    file.unlink(missing_ok=True)
            if not any(path.iterdir()):
                path.rmdir()


@contextmanager
def staging_beside(target: Path, overwrite: bool = False) -> Iterator[Path]:
    """Give a folder beside `target` for what is on its way there; it is removed in the end.

    Raises
    ------
    FileExistsError
        Where `target` cannot be written, see :func:`require_place`.
    """
    require_place(target, overwrite)
    target.parent.mkdir(parents=True, exist_ok=True)
    with sibling_folder(target, "staging") as staging:
        yield staging


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder`, which the system frees when its process dies.

    Raises
    ------
    IndexFolderError
        At once, where another process or thread holds it.
    """
    path = folder / LOCK
    if path.is_symlink():  # locking would empty the file behind it
        raise IndexFolderError(f"{path} is a link; an index has none. Remove it.")
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise IndexFolderError(
            f"Another process is writing {folder}. Wait for it, then load the index again."
        ) from None
    try:
        yield
    finally:
        lock.release()
