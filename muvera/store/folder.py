"""The folder of a saved index: generations of files behind one manifest.

``manifest.json`` names every file with its size and checksum.  A new generation is written
beside the old one; replacing the manifest, one rename, makes it the index; only then are
files that it does not name removed.  So a crash, a kill or a full disk at any moment leaves
the old index or the new one, and a reader that has mapped old files keeps them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock

from ..files import folder_beside, sync, write_json

__all__ = ["FORMAT", "FORMAT_VERSION", "IndexFolderError", "commit", "read_manifest", "verify"]

FORMAT = "muvera-index"
FORMAT_VERSION = 1
MANIFEST = "manifest.json"

# Without being asked, larger files are checked by their size alone: a checksum reads it all.
_QUICK_BYTES = 256 << 20

#: Fills a generation's folder and returns (manifest entries, kept files of older generations).
Fill = Callable[[Path], tuple[dict[str, Any], list[str]]]


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


def commit(target: Path, fill: Fill, generation: int | None) -> int:
    """Write a new generation of the index in `target` and make it current.

    Parameters
    ----------
    target : Path
        A new folder, or that of an index.
    fill : callable
        Given a folder inside `target`, writes this generation's files and returns the
        manifest's own entries and the names, relative to `target`, of files to keep.
    generation : int or None
        The generation that the caller loaded or wrote last in this folder; None for an index
        that was never there.  Another one on the disk means that somebody else wrote since.

    Returns
    -------
    int
        The new generation.
    """
    if not (target / MANIFEST).exists():
        with folder_beside(target) as beside:
            _write_generation(beside, fill, 1, {})
        return 1
    with _locked(target):
        current = read_manifest(target)
        if current["generation"] != generation:
            loaded = "this index was made elsewhere" if generation is None else f"you loaded {generation}"
            raise IndexFolderError(
                f"{target} holds generation {current['generation']}, but {loaded}. Another process has "
                "changed it: load it again, or save to another folder."
            )
        _write_generation(target, fill, current["generation"] + 1, current["files"])
        return int(current["generation"]) + 1


def _write_generation(target: Path, fill: Fill, generation: int, old: dict[str, Any]) -> None:
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=target))
    name = f"generation-{generation:06d}"
    try:
        partial.chmod(0o755)
        entries, kept = fill(partial)
        files = {key: old[key] for key in kept}
        for path in sorted(partial.rglob("*")):
            if path.is_file():
                sync(path)
                relative = f"{name}/{path.relative_to(partial).as_posix()}"
                files[relative] = {"bytes": path.stat().st_size, "sha256": _checksum(path)}
        sync(partial)
        final = target / name
        shutil.rmtree(final, ignore_errors=True)  # left by a process that died before its manifest
        partial.replace(final)
        sync(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    manifest = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "generation": generation,
        "folder": name,
        **entries,
        "files": files,
    }
    try:
        write_json(target / MANIFEST, manifest)
    except BaseException:
        shutil.rmtree(final, ignore_errors=True)
        raise
    _remove_unnamed(target, set(files))


def _remove_unnamed(target: Path, named: set[str]) -> None:
    """Remove what no manifest names any more, also what killed processes left."""
    for path in target.iterdir():
        if path.name.startswith(".partial-"):
            shutil.rmtree(path, ignore_errors=True)
        elif path.is_dir() and path.name.startswith("generation-"):
            for file in path.rglob("*"):
                if file.is_file() and file.relative_to(target).as_posix() not in named:
                    file.unlink(missing_ok=True)
            if not any(path.iterdir()):
                path.rmdir()


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    lock = filelock.FileLock(target / ".lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise IndexFolderError(
            f"Another process is writing {target}. Wait for it, then load the index again."
        ) from None
    try:
        yield
    finally:
        lock.release()


def _checksum(path: Path) -> str:
    with path.open("rb") as stream:
        return (
            hashlib.file_digest(stream, "sha256").hexdigest()
            if hasattr(hashlib, "file_digest")
            else (_checksum_in_blocks(stream))
        )


def _checksum_in_blocks(stream: Any) -> str:
    """Python 3.10 has no hashlib.file_digest."""
    digest = hashlib.sha256()
    while block := stream.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def move(source: Path, target: Path) -> None:
    """Move a file, also to another disk."""
    try:
        os.replace(source, target)  # noqa: PTH105 - shutil.move would hide which of the two it did
    except OSError:
        shutil.copyfile(source, target)
        source.unlink()
