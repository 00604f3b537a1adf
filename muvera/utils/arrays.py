"""Arrays that grow, arrays in .npy files, and the pages of mapped ones."""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import sys
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_LINUX = sys.platform.startswith("linux")
_LIBC = ctypes.CDLL(None, use_errno=True) if _LINUX else None
_PAGE = mmap.PAGESIZE

# Values of Linux's madvise(2).
_WILLNEED = 3
_DONTNEED = 4

# Ranges with smaller gaps are read as one.
_GAP = 64 << 10


class GrowingArray:
    """An array whose capacity grows by half, so that appending rows takes linear time.

    The first `values` decide the dtype and the further axes.

    A copy (:func:`copy.copy`) shares the buffer: values that are appended to it are
    invisible to the original.  Only one of the two can append to the shared buffer; the
    other copies it first.
    """

    def __init__(self, values: NDArray[Any]) -> None:
        self._buffer = values
        self._count = len(values)
        self._written = [self._count]  # values in the buffer, shared by copies

    def __len__(self) -> int:
        return self._count

    @property
    def values(self) -> NDArray[Any]:
        """The values, as a view that later appends do not change."""
        return self._buffer[: self._count]

    def extend(self, values: NDArray[Any]) -> None:
        """Append rows."""
        needed = self._count + len(values)
        dtype = np.result_type(self._buffer, values) if self._count else values.dtype
        if needed > len(self._buffer) or dtype != self._buffer.dtype or self._written != [self._count]:
            grown = np.zeros((max(needed, self._count * 3 // 2), *values.shape[1:]), dtype)
            grown[: self._count] = self.values
            self._buffer, self._written = grown, [self._count]
        self._written[0] = needed
        self._buffer[self._count : needed] = values
        self._count = needed


# -- .npy files ---------------------------------------------------------------


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array of numbers or strings to a ``.npy`` file.

    Raise OSError, which names the file, if it was not written completely.
    """
    try:
        np.save(path, array)
    except OSError as error:
        named = OSError(f"{path} could not be written completely: {error}. Is the disk full?")
        named.errno = error.errno
        raise named from error


class NpyHeader(NamedTuple):
    """Header of a .npy file."""

    shape: tuple[int, ...]
    #: True if the first axis varies fastest.
    fortran_order: bool
    dtype: np.dtype[Any]
    #: Number of bytes before the first number.
    begins: int

    @property
    def nbytes(self) -> int:
        """Bytes of the numbers, exact for any shape."""
        return math.prod(self.shape) * self.dtype.itemsize

    def require_bytes(self, available: int, place: str) -> None:
        """Raise ValueError if the numbers need more than the file's `available` bytes.

        `place` names the file in the message.
        """
        if self.nbytes > available:
            raise ValueError(
                f"{place} is truncated: shape {self.shape} of {self.dtype} needs {self.nbytes} bytes of "
                f"numbers, but the file has {available}. Copy or export it again."
            )


def read_npy_header(stream: IO[bytes], place: str) -> NpyHeader:
    """Read the header of a .npy file, and leave the stream at the first number.

    NumPy's reader allocates as much memory as the header requires before it checks the
    file's size.

    `place` names the file in messages.  Raise ValueError if the header is damaged.
    """
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0
        shape, fortran, dtype = (read if version == (1, 0) else np.lib.format.read_array_header_2_0)(stream)
        if min(shape, default=0) < 0:
            raise ValueError(f"its shape is {shape}")
    except OSError:
        raise
    except Exception as error:
        # Headers are Python literals: tokenizer, parser and dtype raise many types of
        # exceptions.
        reason = str(error).rstrip(".") or type(error).__name__
        raise ValueError(f"{place} is not a .npy file, or its beginning is damaged: {reason}.") from error
    return NpyHeader(tuple(int(size) for size in shape), bool(fortran), dtype, stream.tell())


def load_npy(path: Path, *, mmap: bool = True) -> NDArray[Any]:
    """Return the array of a .npy file of numbers or strings, mapped if `mmap`.

    Raise FileNotFoundError if the file does not exist, and ValueError if it is damaged,
    truncated or contains pickled objects.
    """
    try:
        stream = path.open("rb")
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing. Copy or export it again.") from None
    with stream:
        header = read_npy_header(stream, str(path))
        if header.dtype.hasobject:
            raise ValueError(
                f"{path} contains pickled objects, which can run arbitrary code when they are read. "
                "Save it as an array of numbers or strings."
            )
        header.require_bytes(path.stat().st_size - header.begins, str(path))
        order: Any = "F" if header.fortran_order else "C"
        if not header.nbytes:  # an empty file cannot be mapped
            try:
                return np.empty(header.shape, header.dtype)
            except ValueError as error:
                raise ValueError(f"{path} has an impossible shape, {header.shape}: {error}.") from error
        if not mmap:
            flat: NDArray[Any] = np.fromfile(stream, header.dtype, math.prod(header.shape))
            return flat.reshape(header.shape, order=order)
    mapped: NDArray[Any] = np.memmap(path, header.dtype, "r", header.begins, header.shape, order)
    return mapped


# -- pages of mapped files ----------------------------------------------------


def ask_for(address: int, starts: NDArray[np.int64], stops: NDArray[np.int64]) -> int:
    """Prefetch ranges of a mapped file without waiting.

    `starts` and `stops` are ascending offsets in bytes from `address`, the first byte
    of the mapped array.  Ranges with small gaps are merged.  Return the number of
    merged ranges, or 0 if the system cannot prefetch.
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
    """Release a mapped array's pages in this process.

    An array without a file is not changed.
    """
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


def memory_size() -> float:
    """Return the bytes of this machine's memory, infinity if the system cannot tell."""
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * _PAGE)
    except (AttributeError, ValueError):  # not Unix, or a Unix without this name
        return math.inf


def resident_share(array: NDArray[np.generic], places: NDArray[np.int64]) -> float | None:
    """Return the share of some bytes of a mapped array that are in memory.

    `places` are offsets in bytes from the start of the array, at least one.  Return
    None if the system does not report residency.
    """
    if _LIBC is None or array.nbytes == 0:
        return None
    resident = 0
    flag = (ctypes.c_ubyte * 1)()
    for address in ((array.ctypes.data + places) // _PAGE * _PAGE).tolist():
        if _LIBC.mincore(ctypes.c_void_p(address), ctypes.c_size_t(1), flag):
            return None
        resident += flag[0] & 1
    return resident / len(places)
