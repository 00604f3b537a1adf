"""Limits on what compressed files may unpack to, so that a small file cannot fill the memory.

Token vectors and their JSON texts become two to ten times smaller by compression; zeros become
a thousand times smaller, and a file of them is made to fill memory, or hardly worth reading.
"""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import Any, BinaryIO

__all__ = ["ALWAYS_UNPACKED", "MOST_UNPACKED", "open_gzip", "require_unpackable", "unpack_limit"]

#: So many bytes may always come out.
ALWAYS_UNPACKED = 16 << 20

#: Beyond that, so many times the compressed size.
MOST_UNPACKED = 100


def unpack_limit(packed: int) -> int:
    """Return the most bytes that `packed` compressed ones may unpack to."""
    return max(ALWAYS_UNPACKED, MOST_UNPACKED * packed)


def require_unpackable(unpacked: int, packed: int, place: str) -> None:
    """Raise ValueError where `unpacked` bytes are more than `packed` compressed ones may become."""
    if unpacked > unpack_limit(packed):
        raise ValueError(
            f"{place} unpacks {packed} bytes to more than {unpack_limit(packed)}, which token vectors do not: "
            "small files that fill the memory are refused. Store it uncompressed if you trust it."
        )


def open_gzip(path: Path) -> BinaryIO:
    """Return a stream of what a .gz file unpacks to, which raises ValueError beyond the limit."""
    return io.BufferedReader(_Bounded(gzip.GzipFile(path, "rb"), path))


class _Bounded(io.RawIOBase):
    def __init__(self, inner: Any, path: Path) -> None:
        self._inner, self._path = inner, path
        self._packed = path.stat().st_size
        self._count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = int(self._inner.readinto(buffer))
        self._count += count
        require_unpackable(self._count, self._packed, str(self._path))
        return count

    def close(self) -> None:
        self._inner.close()
        super().close()
