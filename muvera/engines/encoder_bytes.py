"""A fitted encoder as bytes, which an engine keeps beside the documents, and their checksum."""

from __future__ import annotations

import hashlib
import io
import tempfile
import zipfile
from pathlib import Path

from ..encoders.base import Encoder
from ..encoders.registry import load_encoder

__all__ = ["encoder_from_bytes", "encoder_hash", "encoder_to_bytes"]

# The same for everyone: the bytes of an encoder depend on what it is and on nothing else.
_TIME = (1980, 1, 1, 0, 0, 0)


def encoder_to_bytes(encoder: Encoder) -> bytes:
    """Return a fitted encoder as the bytes of a ZIP archive of the folder that it saves."""
    stream = io.BytesIO()
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "encoder"
        encoder.save(folder)
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
            for path in sorted(folder.iterdir()):
                if path.is_file() and not path.name.startswith("."):
                    archive.writestr(zipfile.ZipInfo(path.name, _TIME), path.read_bytes())
    return stream.getvalue()


def encoder_hash(content: bytes) -> str:
    """Return the SHA-256 of an encoder's bytes, in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def encoder_from_bytes(content: bytes, expected: str, place: str) -> Encoder:
    """Return the encoder of such bytes.

    Raises
    ------
    ValueError
        Where the bytes are not those of this checksum.
    """
    found = encoder_hash(content)
    if found != expected:
        raise ValueError(
            f"The encoder in {place} has the checksum {found[:16]}, but its documents were encoded by "
            f"{expected[:16]}: it was changed or is incomplete. Load the documents again."
        )
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for name in archive.namelist():
                (Path(folder) / Path(name).name).write_bytes(archive.read(name))
        return load_encoder(folder)
