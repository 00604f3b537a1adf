"""Advice to Linux about the pages of mapped files; other systems get none.

Without advice, the first access to a page waits for the disk.  It also reads the pages of the system's read-ahead,
which are mostly useless for single documents.
"""

from __future__ import annotations

import ctypes
import mmap
import sys

import numpy as np
from numpy.typing import NDArray

_LINUX = sys.platform.startswith("linux")
_LIBC = ctypes.CDLL(None, use_errno=True) if _LINUX else None
_PAGE = mmap.PAGESIZE

# Values of Linux's madvise(2).
_WILLNEED, _DONTNEED = 3, 4

# Ranges with smaller gaps are read as one.
_GAP = 64 << 10


def ask_for(address: int, starts: NDArray[np.int64], stops: NDArray[np.int64]) -> int:
    """Prefetch ranges of a mapped file without waiting; return their number after merging.

    `starts` and `stops`, int64 (n,), are offsets from `address` in bytes, ascending.
    """
    if _LIBC is None or len(starts) == 0:
        return 0
    first = (address + starts) // _PAGE * _PAGE
    last = address + stops
    apart = first[1:] - np.maximum.accumulate(last)[:-1] > _GAP
    opening = np.flatnonzero(np.concatenate([[True], apart]))
    closing = np.concatenate([opening[1:] - 1, [len(last) - 1]])
    for low, high in zip(first[opening].tolist(), np.maximum.accumulate(last)[closing].tolist(), strict=True):
        _LIBC.madvise(ctypes.c_void_p(low), ctypes.c_size_t(high - low), _WILLNEED)
    return len(opening)


def forget(array: NDArray[np.generic]) -> None:
    """Release a mapped array's pages in this process; an array without a file is not changed."""
    if _LIBC is None or array.nbytes == 0 or not _is_mapped(array):
        return
    low = array.ctypes.data // _PAGE * _PAGE
    size = array.ctypes.data + array.nbytes - low
    if _LIBC.madvise(ctypes.c_void_p(low), ctypes.c_size_t(size), _DONTNEED):
        raise OSError(ctypes.get_errno(), "madvise failed")


def _is_mapped(array: NDArray[np.generic]) -> bool:
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base, mmap.mmap)


def resident_share(array: NDArray[np.generic], samples: int) -> float | None:
    """Return the share of a mapped array's pages in memory, of at most `samples`; None if the system cannot tell."""
    if _LIBC is None or array.nbytes == 0:
        return None
    low = array.ctypes.data // _PAGE * _PAGE
    pages = -(-(array.ctypes.data + array.nbytes - low) // _PAGE)
    resident, flag = 0, (ctypes.c_ubyte * 1)()
    checked = np.linspace(0, pages - 1, min(samples, pages)).astype(np.int64).tolist()
    for page in checked:
        if _LIBC.mincore(ctypes.c_void_p(low + page * _PAGE), ctypes.c_size_t(1), flag):
            return None
        resident += flag[0] & 1
    return resident / len(checked)
