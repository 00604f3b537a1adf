"""The manifest of an index's folder: what the folder holds, and how to know that it is whole."""

from __future__ import annotations

import hashlib
import json
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

from ..utils.atomic_files import read_json, write_json

__all__ = [
    "FILE_PATTERNS",
    "FORMAT",
    "FORMAT_VERSION",
    "MANIFEST",
    "TEXTS",
    "IndexFolderError",
    "checksum",
    "is_index_file",
    "read_manifest",
    "verify",
    "write_manifest",
]

FORMAT = "muvera-index"
FORMAT_VERSION = 1
MANIFEST = "manifest.json"

#: The database of texts and metadata of a text index.
TEXTS = "texts.sqlite"

#: Names of the files that a generation has; see docs/index-format.md.  Nothing else is ever read or removed.
FILE_PATTERNS = (
    "tokens-*.npy",
    "lengths.npy",
    "ids.json",
    "alive.npy",
    "encoder_*.npy",
    "vectors.npy",
    "vectors.hnsw",
    "vector_*.npy",
    TEXTS,
)

# Without being asked, larger files are checked by their size alone: a checksum reads it all.
_QUICK_BYTES = 256 << 20


class IndexFolderError(ValueError):
    """A folder is not an index that can be read or written here; the message says why."""


def is_index_file(name: str) -> bool:
    """Whether a file of this name, without folders, is one that a generation has."""
    return any(fnmatch(name, pattern) for pattern in FILE_PATTERNS)


def write_manifest(folder: Path, content: dict[str, Any]) -> None:
    """Write the manifest with its format, version and own checksum."""
    content = {"format": FORMAT, "format_version": FORMAT_VERSION, **content}
    write_json(folder / MANIFEST, {**content, "sha256": _own_checksum(content)})


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of `folder`, checked to be whole and to name nothing outside of the folder.

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
        manifest = read_json(path)
    except ValueError as error:
        raise IndexFolderError(f"{error} Restore the folder from a copy.") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise IndexFolderError(f"{path} is not the manifest of a muvera index.")
    version = manifest.get("format_version")
    if version != FORMAT_VERSION:
        raise IndexFolderError(
            f"{folder} has format version {version}, but this muvera reads version {FORMAT_VERSION}. "
            "Use the muvera that wrote it, or build the index again."
        )
    if manifest.pop("sha256", None) != _own_checksum(manifest):
        raise IndexFolderError(
            f"{path} has another checksum than when it was written: it was changed or damaged. Restore the "
            "folder from a copy, or build the index again."
        )
    try:
        _check_names(folder, manifest)
    except (KeyError, TypeError, AttributeError) as error:
        raise IndexFolderError(
            f"{path} is incomplete: {error!r} is missing or wrong. Restore the folder from a copy."
        ) from error
    return manifest


def _own_checksum(content: dict[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _check_names(folder: Path, manifest: dict[str, Any]) -> None:
    """Raise IndexFolderError unless all that is named lies in the folder, and all that is used is listed."""
    files = manifest["files"]
    used = [entry["file"] for entry in manifest["segments"]]
    for name in [manifest["folder"], *files, *used]:
        parts = PurePosixPath(name).parts
        inside = parts and not PurePosixPath(name).is_absolute() and ".." not in parts and "\\" not in name
        if not inside or not (folder / name).resolve().is_relative_to(folder.resolve()):
            raise IndexFolderError(
                f"{folder / MANIFEST} names {name!r}, which does not lie within the folder. Put the files "
                "themselves into the folder, not links to them."
            )
    here = folder / manifest["folder"]
    if here.is_dir():
        used += [f"{manifest['folder']}/{path.name}" for path in here.iterdir() if is_index_file(path.name)]
    for name in used:
        if name not in files:
            raise IndexFolderError(
                f"{folder / name} is not listed in {MANIFEST}, so that nothing says whether it is whole. "
                "Restore the folder from a copy."
            )


def verify(folder: Path, files: dict[str, Any], thorough: bool | None = None) -> None:
    """Check that every file of a manifest's "files" is there, whole and unchanged.

    Parameters
    ----------
    folder : Path
    files : dict
        Size and checksum by name.
    thorough : bool, optional
        True: checksums of all files.  False: sizes alone.  Default: checksums of files up
        to 256 MiB.

    Raises
    ------
    IndexFolderError
        For a file that is missing or changed.
    """
    for name, entry in files.items():
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
            found = checksum(path)
            if found != entry["sha256"]:
                raise IndexFolderError(
                    f"{path} has another checksum than when it was written: its content was changed or "
                    "damaged. Restore the folder from a copy."
                )


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal digits."""
    with path.open("rb") as stream:
        digest = hashlib.sha256()  # Python 3.10 has no hashlib.file_digest
        while block := stream.read(1 << 20):
            digest.update(block)
        return digest.hexdigest()
