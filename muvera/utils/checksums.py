"""Checksums of files and of the JSON that describes them: what is read back is what was written."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

__all__ = ["content_checksum", "described_file", "require_unchanged"]

# Without being asked, larger files are checked by their size alone: a checksum reads it all.
_QUICK_BYTES = 256 << 20


def content_checksum(content: dict[str, Any]) -> str:
    """Return the SHA-256 of a JSON object, whatever the order and the white space of its text."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def described_file(path: Path) -> dict[str, Any]:
    """Return a file's size and the SHA-256 of its content."""
    return {"bytes": path.stat().st_size, "sha256": _checksum(path)}


def require_unchanged(path: Path, described: dict[str, Any], thorough: bool | None = None) -> None:
    """Raise ValueError unless a file is as :func:`described_file` described it.

    Parameters
    ----------
    path : Path
    described : dict
    thorough : bool, optional
        True: compare its checksum.  False: its size alone.  Default: the checksum of a file up to 256 MiB.

    Raises
    ------
    ValueError
        Where the file is missing or changed.
    """
    if not path.is_file():
        raise ValueError(f"{path.parent} lacks its file {path.name}. Restore the folder from a copy.")
    size = path.stat().st_size
    if size != described["bytes"]:
        raise ValueError(
            f"{path} has {size} bytes instead of {described['bytes']}: it was cut off or changed. "
            "Restore the folder from a copy."
        )
    if (thorough or (thorough is None and size <= _QUICK_BYTES)) and _checksum(path) != described["sha256"]:
        raise ValueError(
            f"{path} has another checksum than when it was written: its content was changed or "
            "damaged. Restore the folder from a copy."
        )


def _checksum(path: Path) -> str:
    with path.open("rb") as stream:
        digest = hashlib.sha256()  # Python 3.10 has no hashlib.file_digest
        while block := stream.read(1 << 20):
            digest.update(block)
        return digest.hexdigest()
