"""The folder of a saved index: generations of files behind one manifest.

``manifest.json`` names every file with its size and checksum.  A new generation is written
beside the old one; replacing the manifest, one rename, makes it the index; only then are
files that it does not name removed.  So a crash, a kill or a full disk at any moment leaves
the old index or the new one, and a reader that has mapped old files keeps them.  Writers
hold a lock that the system frees when they die; readers need none.
"""

from __future__ import annotations

import errno
import hashlib
import json
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock

from ..utils.atomic_files import atomic_folder, sync, write_json

__all__ = [
    "FORMAT",
    "FORMAT_VERSION",
    "Generation",
    "IndexFolderError",
    "commit",
    "read_manifest",
    "staging_beside",
    "verify",
]

FORMAT = "muvera-index"
FORMAT_VERSION = 1
MANIFEST = "manifest.json"
LOCK = ".lock"

# Without being asked, larger files are checked by their size alone: a checksum reads it all.
_QUICK_BYTES = 256 << 20

#: Fills a generation's folder, see :func:`commit`.
Fill = Callable[[Path, str, set[str]], tuple[dict[str, Any], list[str]]]


class IndexFolderError(ValueError):
    """A folder is not an index that can be read or written here; the message says why."""


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of `folder`, its format and version checked.

    Raises
    ------
    FileNotFoundError
        Where there is no manifest.
    IndexFolderError
        For a damaged manifest, another format or a newer version.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is not a muvera index: it has no {MANIFEST}.")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise IndexFolderError(f"{path} is damaged: {error}.") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise IndexFolderError(f"{path} is not the manifest of a muvera index.")
    version = manifest.get("format_version")
    if version != FORMAT_VERSION:
        raise IndexFolderError(
            f"{folder} has format version {version}, but this muvera reads version {FORMAT_VERSION}. "
            "Use the muvera that wrote it, or build the index again."
        )
    return manifest


def verify(folder: Path, manifest: dict[str, Any], thorough: bool | None = None) -> None:
    """Check that every file that the manifest names is there, whole and unchanged.

    Parameters
    ----------
    thorough : bool, optional
        True: checksums of all files.  False: sizes alone.  Default: checksums of files up
        to 256 MiB.
    """
    for name, entry in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise IndexFolderError(f"{folder} lacks its file {name}. Restore the folder from a copy.")
        size = path.stat().st_size
        if size != entry["bytes"]:
            raise IndexFolderError(
                f"{path} has {size} bytes instead of {entry['bytes']}: it was cut off or changed. "
                "Restore the folder from a copy."
            )
        if thorough or (thorough is None and size <= _QUICK_BYTES):
            found = _checksum(path)
            if found != entry["sha256"]:
                raise IndexFolderError(
                    f"{path} has another checksum than when it was written: its content was changed or "
                    "damaged. Restore the folder from a copy."
                )


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


def commit(target: Path, fill: Fill, known: Generation | None) -> Generation:
    """Write a new generation of the index in `target` and make it current.

    Parameters
    ----------
    target : Path
        A new folder, or that of an index.
    fill : callable
        Given a folder to fill, its later name within `target`, and the names of the files of
        the current generation, relative to `target`; writes this generation's files and
        returns the manifest's own entries and which of those names to keep.
    known : Generation or None
        What the caller loaded or wrote last in this folder; None for an index that was never
        there.  Another one on the disk means that somebody else wrote since.

    Returns
    -------
    Generation
        The new one.
    """
    remove_stale_siblings(target)
    if not (target / MANIFEST).exists():
        if target.is_dir() and any(path.name != LOCK for path in target.iterdir()):
            raise FileExistsError(
                f"{target} exists and is not empty, and is not a muvera index. Give another name, or empty "
                "it yourself."
            )
        return _commit_first(target, fill)
    with locked(target):
        manifest = read_manifest(target)
        current = Generation.of(manifest)
        if current != known:
            if known is None:
                since = "this index was made elsewhere"
            elif known.number == current.number:
                since = "it is another one than you loaded"
            else:
                since = f"you loaded {known.number}"
            raise IndexFolderError(
                f"{target} holds generation {current.number}, but {since}. Saving would lose what is there: "
                "load it and change that, save to another folder, or remove the folder first."
            )
        return _write_generation(target, fill, current.number + 1, manifest["files"])


def _commit_first(target: Path, fill: Fill) -> Generation:
    lock = None
    try:
        with atomic_folder(target) as beside:
            # The lock tells a later `remove_stale_siblings` that this folder is in use.
            lock = _acquire(beside, target)
            new = _write_generation(beside, fill, 1, {})
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST) and (target / MANIFEST).exists():
            raise IndexFolderError(
                f"Another process has written {target} meanwhile. Load it, or save to another folder."
            ) from error
        raise
    finally:
        if lock is not None:
            lock.release()
    return new


def _write_generation(target: Path, fill: Fill, number: int, old: dict[str, Any]) -> Generation:
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=target))
    name = f"generation-{number:06d}"
    final = target / name
    new = Generation(number, secrets.token_hex(8))
    try:
        partial.chmod(0o755)
        entries, kept = fill(partial, name, set(old))
        files = {key: old[key] for key in kept}
        for path in sorted(partial.rglob("*")):
            if path.is_file():
                sync(path)
                relative = f"{name}/{path.relative_to(partial).as_posix()}"
                files[relative] = {"bytes": path.stat().st_size, "sha256": _checksum(path)}
        sync(partial)
        shutil.rmtree(final, ignore_errors=True)  # left by a process that died before its manifest
        partial.replace(final)
        sync(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    manifest = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "generation": number,
        "stamp": new.stamp,
        "folder": name,
        **entries,
        "files": files,
    }
    try:
        write_json(target / MANIFEST, manifest)
    except BaseException:
        # The rename may have happened: then the new files are the index.
        if not _is_current(target, new):
            shutil.rmtree(final, ignore_errors=True)
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
    """Remove what no manifest names any more, also what killed processes left."""
    for path in target.iterdir():
        if path.name.startswith(".partial-"):
            shutil.rmtree(path, ignore_errors=True)
        elif path.name.startswith(f".{MANIFEST}."):
            path.unlink(missing_ok=True)
        elif path.is_dir() and path.name.startswith("generation-"):
            for file in path.rglob("*"):
                if file.is_file() and file.relative_to(target).as_posix() not in named:
                    file.unlink(missing_ok=True)
            if not any(path.iterdir()):
                path.rmdir()


@contextmanager
def staging_beside(target: Path) -> Iterator[Path]:
    """Give a folder beside `target` for what is on its way there; it is removed in the end."""
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_stale_siblings(target)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.spool-", dir=target.parent))
    try:
        with locked(staging):
            yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def remove_stale_siblings(target: Path) -> None:
    """Remove the folders beside `target` that a killed process left: their locks are free."""
    if not target.parent.is_dir():
        return
    prefixes = (f".{target.name}.spool-", f".{target.name}.partial-")
    for path in target.parent.iterdir():
        if path.name.startswith(prefixes) and (path / LOCK).is_file():
            with suppress(IndexFolderError, OSError), locked(path):
                shutil.rmtree(path, ignore_errors=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder`, which the system frees when its process dies.

    Raises
    ------
    IndexFolderError
        At once, where another process or thread holds it.
    """
    lock = _acquire(folder, folder)
    try:
        yield
    finally:
        lock.release()


def _acquire(folder: Path, target: Path) -> filelock.BaseFileLock:
    lock = filelock.FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise IndexFolderError(
            f"Another process is writing {target}. Wait for it, then load the index again."
        ) from None
    return lock


def _checksum(path: Path) -> str:
    with path.open("rb") as stream:
        digest = hashlib.sha256()  # Python 3.10 has no hashlib.file_digest
        while block := stream.read(1 << 20):
            digest.update(block)
        return digest.hexdigest()
