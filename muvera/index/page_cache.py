"""PageCache: prefetch and release the pages of mapped token files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..utils.arrays import ask_for, forget, memory_size, resident_share

# For more rows than this, the system's own read-ahead is enough.
_MAX_ASKED = 4096

# After this many requests, a search checks again if what it reads is in memory.
_REQUESTS = 64

# Rows of each file that such a check looks at.
_CHECKED = 32

# Nothing is prefetched if at most this share of the checked rows is missing.  To
# prefetch 20 documents takes 70 us, about as long as one page fault on an SSD.  The
# share is above 0 because a file that only searches have read is rarely in memory
# completely.
_MISSING = 1 / 16

# Bytes of mapped files that this process may hold before it releases them: a quarter of
# the machine's memory.  Each released page costs a page fault when it is read again.
_HELD_BYTES = memory_size() / 4

# The same while most documents are read once.
_BRIEFLY_HELD_BYTES = 512 << 20

# Bytes that Linux maps at a page fault if they are in the system's cache: up to a folio
# of 2 MB in recent versions, 64 KB in older ones, which then release too often at a
# small cost.
_MAPPED = 1 << 21


class MappedTokens(NamedTuple):
    """A mapped token file: its first row, token offsets by document, and tokens."""

    first: int
    offsets: NDArray[np.int64]
    tokens: NDArray[Any]


class PageCache:
    """Decides which pages of token files to prefetch, and when to release all of them.

    The counters are approximate if several threads search.
    """

    def __init__(self) -> None:
        #: True while many documents are read, most of them once: little is held then.
        self.is_brief = False
        self._requests = 0
        self._resident = False
        self._held_bytes = 0

    def read_ahead(self, files: Sequence[MappedTokens], rows: NDArray[np.int64]) -> int:
        """Prefetch the tokens of `rows` without waiting, unless most are in memory.

        The rows can be in any order; rows in no file are ignored.  Return the number of
        requested ranges of bytes.
        """
        if not files or not 0 < len(rows) <= _MAX_ASKED:
            return 0
        if self._requests % _REQUESTS == 0:
            self._resident = _are_resident(files, rows)
        self._requests += 1
        if self._resident:
            return 0
        ranges = 0
        for file, starts, stops in _token_ranges(files, rows):
            tokens = file.tokens
            filled = stops > starts
            size = tokens.shape[1] * tokens.itemsize
            ranges += ask_for(tokens.ctypes.data, starts[filled] * size, stops[filled] * size)
        return ranges

    def let_go(self, files: Sequence[MappedTokens], rows: NDArray[np.int64]) -> None:
        """Count the bytes that reading `rows` maps as held in memory.

        Release all pages of `files` once too many bytes are held.  Files that fit into
        memory are never released.  Rows in no file are ignored.
        """
        most = min(_HELD_BYTES, _BRIEFLY_HELD_BYTES) if self.is_brief else _HELD_BYTES
        if sum(file.tokens.nbytes for file in files) <= most:
            return
        for file, starts, stops in _token_ranges(files, rows):
            filled = stops > starts
            size = file.tokens.strides[0]
            first, last = starts[filled] * size // _MAPPED, (stops[filled] * size - 1) // _MAPPED
            first[1:] = np.maximum(first[1:], last[:-1] + 1)  # rows share what a fault maps
            self._held_bytes += int((last - first + 1).sum()) * _MAPPED
        if self._held_bytes >= most:
            self._held_bytes = 0
            for file in files:
                forget(file.tokens)


def release(files: Sequence[MappedTokens], rows: NDArray[np.int64]) -> None:
    """Release the pages from the first to the last of `rows`, which ascend."""
    for file, starts, stops in _token_ranges(files, rows):
        if len(starts):
            forget(file.tokens[starts[0] : stops[-1]])


def _are_resident(files: Sequence[MappedTokens], rows: NDArray[np.int64]) -> bool:
    """Return True if nearly all of `rows` are in memory.

    The first tokens of up to 32 rows of each file are checked.
    """
    for file, starts, stops in _token_ranges(files, rows):
        filled = starts[stops > starts]
        checked = filled[np.linspace(0, len(filled) - 1, min(len(filled), _CHECKED)).astype(np.int64)]
        size = file.tokens.shape[1] * file.tokens.itemsize
        share = resident_share(file.tokens, checked * size) if len(checked) else None
        if share is not None and share < 1 - _MISSING:
            return False
    return True


def _token_ranges(
    files: Sequence[MappedTokens], rows: NDArray[np.int64]
) -> Iterator[tuple[MappedTokens, NDArray[np.int64], NDArray[np.int64]]]:
    """Yield each file with the starts and stops of the tokens of `rows` in it."""
    ascending = np.sort(rows)
    for file in files:
        count = len(file.offsets) - 1
        low, high = np.searchsorted(ascending, [file.first, file.first + count])
        documents = ascending[low:high] - file.first
        yield file, file.offsets[documents], file.offsets[documents + 1]
