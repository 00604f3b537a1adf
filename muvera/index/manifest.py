"""The manifest of an index's folder: names, sizes and checksums of its files."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

from ..utils.atomic_files import content_checksum, read_json, require_unchanged, write_json
from ..utils.checks import as_path

FORMAT = "muvera-index"
FORMAT_VERSION = 2
MANIFEST = "manifest.json"

#: The database of a text index.
TEXTS = "texts.sqlite"

# Maximum number of characters in the name of a file.
_LONGEST = 200

#: Names of the files in a generation, see docs/index-format.md.  No other file is read or removed.
FILE_PATTERNS = (
    "tokens-*.npy",
    "codes-*.npy",
    "codec_*.npy",
    "lengths.npy",
    "ids.json",
    "alive.npy",
    "encoder_*.npy",
    "vectors.npy",
    "vectors.hnsw",
    "vector_*.npy",
    TEXTS,
)


class IndexFolderError(ValueError):
    """Error for a folder whose index cannot be read or written."""


def is_index_file(name: str) -> bool:
    """Return True if a generation can contain a file of this name."""
    return any(fnmatch(name, pattern) for pattern in FILE_PATTERNS)


def write_manifest(folder: Path, content: dict[str, Any]) -> None:
    """Write the manifest with its format, version and checksum."""
    content = {"format": FORMAT, "format_version": FORMAT_VERSION, **content}
    write_json(folder / MANIFEST, {**content, "sha256": content_checksum(content)})


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of `folder`, checked; raise FileNotFoundError or IndexFolderError."""
    path = folder / MANIFEST
    if not folder.exists():
        as_path(folder)  # refuses a URL
        raise FileNotFoundError(f"{folder} does not exist. Give the folder of an index.")
    if (folder / "tokens.npy").is_file() and not path.is_file():
        raise FileNotFoundError(
            f"{folder} is not a muvera index: it contains token embeddings. Build an index of them with: "
            f"muvera index {folder} INDEX."
        )
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} is not a muvera index: it has no {MANIFEST}. Give the folder of an index."
        )
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
    if manifest.pop("sha256", None) != content_checksum(manifest):
        raise IndexFolderError(
            f"{path} does not match its checksum: it was changed or damaged. Restore the "
            "folder from a copy, or build the index again."
        )
    try:
        _check_names(folder, manifest)
    except (KeyError, TypeError, AttributeError) as error:
        raise IndexFolderError(
            f"{path} is incomplete: {error!r} is missing or wrong. Restore the folder from a copy."
        ) from error
    return manifest


def texts_file(folder: Path) -> Path | None:
    """Return the database in the folder of a text index; None for an index of token vectors."""
    manifest = read_manifest(folder)
    name = f"{manifest['folder']}/{TEXTS}"
    return folder / name if name in manifest["files"] else None


def _check_names(folder: Path, manifest: dict[str, Any]) -> None:
    """Raise IndexFolderError unless every file is inside the folder and every file in use is listed."""
    files, codes, candidates = manifest["files"], manifest["codes"], manifest["candidates"]
    segments = manifest["segments"] + ([] if codes is None else codes["segments"])
    used = [segment["file"] for segment in segments]
    used += [] if candidates is None else candidates["kept"]
    root = folder.resolve()
    for name in dict.fromkeys([manifest["folder"], *files, *used]):
        parts = PurePosixPath(name).parts
        inside = parts and not PurePosixPath(name).is_absolute() and ".." not in parts and "\\" not in name
        plain = name.isascii() and name.isprintable() and len(name) <= _LONGEST
        if not inside or not plain or not (folder / name).resolve().is_relative_to(root):
            raise IndexFolderError(
                f"{folder / MANIFEST} names {name!r:.200}, which is not inside the folder. Put the files themselves "
                "into the folder, not links to them."
            )
    generation = folder / manifest["folder"]
    if generation.is_dir():
        used += [
            f"{manifest['folder']}/{path.name}" for path in generation.iterdir() if is_index_file(path.name)
        ]
    for name in used:
        if name not in files:
            raise IndexFolderError(
                f"{folder / name} is not listed in {MANIFEST}, so it cannot be checked. Restore the folder from "
                "a copy."
            )


def verify(folder: Path, files: dict[str, Any], thorough: bool | None = None) -> None:
    """Raise IndexFolderError unless every file of a manifest exists and is unchanged; see require_unchanged."""
    for name, described in files.items():
        try:
            require_unchanged(folder / name, described, thorough)
        except ValueError as error:
            raise IndexFolderError(str(error)) from error
