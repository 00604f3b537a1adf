"""Read .npy files safely: validate the headers, and refuse pickles.

NumPy's own reader allocates as much memory as the header requires before it checks the file's size.  It raises a dozen
types of exceptions for damaged files.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


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
        """Raise ValueError if the numbers need more than `available` bytes."""
        if self.nbytes > available:
            raise ValueError(
                f"{place} is truncated: shape {self.shape} of {self.dtype} needs {self.nbytes} bytes of "
                f"numbers, but the file has {available}. Copy or export it again."
            )

    def require_numbers(self, place: str) -> None:
        """Raise ValueError for an array of Python objects, which are pickled."""
        if self.dtype.hasobject:
            raise ValueError(
                f"{place} contains pickled objects, which can run arbitrary code when they are read. "
                "Save it as an array of numbers or strings."
            )


def read_npy_header(stream: IO[bytes], place: str) -> NpyHeader:
    """Read the header of a .npy file; `stream` is at the first number afterwards.

    Raises
    ------
    ValueError
        If it is damaged, or not a .npy file; the message names it as `place`.
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
        # Headers are Python literals: tokenizer, parser and dtype raise many types of exceptions.
        reason = str(error).rstrip(".") or type(error).__name__
        raise ValueError(f"{place} is not a .npy file, or its beginning is damaged: {reason}.") from error
    return NpyHeader(tuple(int(size) for size in shape), bool(fortran), dtype, stream.tell())


def load_npy(path: Path, *, mmap: bool = True) -> NDArray[Any]:
    """Return the array of a .npy file of numbers or strings, memory-mapped by default.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If it is damaged, truncated or contains pickled objects.
    """
    try:
        stream = path.open("rb")
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing. Copy or export it again.") from None
    with stream:
        header = read_npy_header(stream, str(path))
        header.require_numbers(str(path))
        header.require_bytes(path.stat().st_size - header.begins, str(path))
        order: Any = "F" if header.fortran_order else "C"
        if not header.nbytes:  # an empty file cannot be mapped
            return _empty(header, str(path))
        if not mmap:
            flat: NDArray[Any] = np.fromfile(stream, header.dtype, math.prod(header.shape))
            return flat.reshape(header.shape, order=order)
    mapped: NDArray[Any] = np.memmap(path, header.dtype, "r", header.begins, header.shape, order)
    return mapped


def _empty(header: NpyHeader, place: str) -> NDArray[Any]:
    try:
        return np.empty(header.shape, header.dtype)
    except ValueError as error:
        raise ValueError(f"{place} has an impossible shape, {header.shape}: {error}.") from error
