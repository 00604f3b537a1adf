"""Access to the bytes of a zip file's members where they lie in the file."""

from __future__ import annotations

import zipfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["stored_bytes"]

#: Bytes of a local header before the member's name.
_HEADER = 30


def stored_bytes(file: NDArray[np.uint8], member: zipfile.ZipInfo) -> NDArray[np.uint8]:
    """Return the bytes of an uncompressed member, a view of the whole file's bytes.

    Parameters
    ----------
    file : uint8 (n,)
        The zip file, usually memory-mapped.
    member : ZipInfo
        From its directory.

    Raises
    ------
    ValueError
        Where the member is compressed, or does not lie within the file.
    """
    if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
        raise ValueError(f"{member.filename} is compressed or encrypted")
    header: Any = file[member.header_offset : member.header_offset + _HEADER]
    if member.header_offset < 0 or len(header) < _HEADER or bytes(header[:4]) != b"PK\x03\x04":
        raise ValueError(f"{member.filename} has no header where the directory says")
    # The local header counts: writers pad its extra field so that the data is aligned.
    lengths = int.from_bytes(bytes(header[26:28]), "little") + int.from_bytes(bytes(header[28:30]), "little")
    start = member.header_offset + _HEADER + lengths
    if start + member.file_size > len(file):
        raise ValueError(f"{member.filename} reaches past the end of the file")
    return file[start : start + member.file_size]
