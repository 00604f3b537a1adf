"""Heaps of an HDF5 file, checked before its library walks through them.

Rows of varying length and texts lie in global heaps: collections of objects, each of which says
where the next one begins.  One that says "here" makes libhdf5 walk for ever, which nothing
stops, so the heaps are walked here first.
"""

from __future__ import annotations

import mmap
from pathlib import Path

__all__ = ["require_sound_heaps"]

#: How a heap begins: its signature and the only version there is.
_BEGIN = b"GCOL\x01"


def require_sound_heaps(path: Path, size_bytes: int, address_bytes: int, *, filtered: bool) -> None:
    """Raise ValueError where a heap's objects lead outside it or not forward.

    Parameters
    ----------
    path : Path
        The HDF5 file.
    size_bytes, address_bytes : int
        How many bytes the file uses for sizes and for addresses.
    filtered : bool
        Whether the rows that refer to heaps may be compressed.  Where they are not, what only
        looks like a heap is told from one by that no row refers to it.

    Raises
    ------
    ValueError
        Naming the file and where the heap begins.
    """
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        at = content.find(_BEGIN)
        while at >= 0:
            if not _is_sound(content, at, size_bytes) and (
                filtered or content.find(at.to_bytes(address_bytes, "little")) >= 0
            ):
                raise ValueError(
                    f"{path} is damaged: its heap of rows or texts at byte {at} is not sound. "
                    "Copy or export it again."
                )
            at = content.find(_BEGIN, at + 1)


def _is_sound(content: mmap.mmap, begins: int, size_bytes: int) -> bool:
    """Say whether every object of a heap lies in it and before the next one."""
    header = 8 + size_bytes  # of the heap: signature, version, 3 bytes, size
    ends = begins + int.from_bytes(content[begins + 8 : begins + header], "little")
    if ends > len(content):
        return False
    at = begins + _aligned(header)
    while at + _aligned(header) <= ends:
        number = int.from_bytes(content[at : at + 2], "little")
        size = int.from_bytes(content[at + 8 : at + header], "little")
        # Object 0 is the free space, whose size counts its own header.
        step = size if number == 0 else _aligned(header) + _aligned(size)
        if step < _aligned(header) or at + step > ends:
            return False
        at += step
    return True


def _aligned(size: int) -> int:
    return -(-size // 8) * 8
