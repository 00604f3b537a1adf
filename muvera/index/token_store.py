"""TokenStore: token vectors, or their codes, by row number, in segments in memory or in mapped files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..data.batches import token_batches
from ..data.multivectors import MultiVectors
from ..data.offsets import running_total
from ..reranking.codecs.base import CodedVectors
from ..utils.npy_files import load_npy
from ..utils.page_cache import ask_for, forget, resident_share

# Segments in memory are merged until each has more than _GROWTH times the tokens of its successor.  So adding documents
# one by one stays cheap, and so do searches.  Segments of more than _MERGED_BYTES are not merged.
_GROWTH, _MERGED_BYTES = 2, 64 << 20

# Segments in memory of up to this many bytes are merged at the end of a build: ranking in order is slower if the
# candidates are in several segments.
_JOINED_BYTES = 2 << 30

# Bytes of tokens in memory before they are written to the staging file.
_STAGING_BYTES = 64 << 20

# Texts and tokens per batch, and rows written at a time.
_BATCH, _BATCH_TOKENS, _ROWS = 4096, 1 << 18, 1 << 16

# For more rows than this, the system's own read-ahead is enough.
_MAX_ASKED = 4096

# After this many requests, check again if the files are in memory, at this many pages of each.
_REQUESTS, _PAGES = 64, 32

# Bytes of mapped files that this process may hold before it releases them, and extra bytes that each text
# counts: the system maps up to a large page around each byte that is read.
_HELD_BYTES, _AROUND = 256 << 20, 2 << 20

_Texts = TypeVar("_Texts", MultiVectors, CodedVectors)

#: Function that makes texts from an array with one row per token and the texts' lengths.
Make = Callable[[NDArray[Any], NDArray[np.int64]], _Texts]


@dataclass(frozen=True)
class Segment(Generic[_Texts]):
    """Consecutive rows of a store from row `first` on; `path` is the ``.npy`` file that `vectors` maps, if any."""

    first: int
    vectors: _Texts
    path: Path | None = None


class TokenStore(Generic[_Texts]):
    """Texts by row number 0, 1, 2, ...; a row is never used twice.

    The list of segments is copied on write, so changing a copy (:func:`copy.copy`) does not change the original.
    `make` makes texts, MultiVectors or CodedVectors, from an array and lengths; file names begin with `prefix`.
    """

    def __init__(self, make: Make[_Texts], prefix: str) -> None:
        self.make: Make[_Texts] = make
        self.prefix = prefix
        self.segments: list[Segment[_Texts]] = []
        self._requests, self._resident = 0, False
        self._held_bytes = 0

    def __len__(self) -> int:
        return self.segments[-1].first + len(self.segments[-1].vectors) if self.segments else 0

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each text, int64 (n,)."""
        return np.concatenate(
            [np.empty(0, np.int64), *(segment.vectors.lengths for segment in self.segments)]
        )

    # -- changing -------------------------------------------------------------

    def append(self, vectors: _Texts, staging: Path | None = None) -> None:
        """Add texts under the next row numbers: all of them or none.

        If many tokens are in memory, they are moved to the folder `staging`.
        """
        if len(vectors) == 0:
            return
        last = Segment(len(self), self._join([vectors]))
        segments = list(self.segments)
        while (
            segments
            and segments[-1].path is None
            and segments[-1].vectors.num_tokens <= _GROWTH * last.vectors.num_tokens
            and last.vectors.tokens.nbytes <= _MERGED_BYTES
        ):
            before = segments.pop()
            last = Segment(before.first, self._join([before.vectors, last.vectors]))
        segments.append(last)
        memory = sum(segment.vectors.tokens.nbytes for segment in segments if segment.path is None)
        if staging is not None and memory >= _STAGING_BYTES:
            segments = self._staged(segments, staging)
        self.segments = segments

    def stage(self, staging: Path) -> None:
        """Move the tokens in memory to the folder `staging`."""
        if any(segment.path is None for segment in self.segments):
            self.segments = self._staged(self.segments, staging)

    def join(self) -> None:
        """Merge all segments into one, unless one is mapped or they are very large."""
        parts = [segment.vectors for segment in self.segments if segment.path is None]
        if (
            len(parts) == len(self.segments) > 1
            and sum(part.tokens.nbytes for part in parts) <= _JOINED_BYTES
        ):
            self.segments = [Segment(0, self._join(parts))]

    def _staged(self, segments: list[Segment[_Texts]], staging: Path) -> list[Segment[_Texts]]:
        """Write the segments in memory to the end of the last file, or to a new one; return all segments."""
        memory = [segment for segment in segments if segment.path is None]
        files = segments[: len(segments) - len(memory)]
        texts = [segment.vectors for segment in memory]
        first, path = memory[0].first, staging / f"{self.prefix}-{memory[0].first:012d}.npy"
        before: list[_Texts] = []
        if files and files[-1].vectors.tokens.dtype == _dtype(texts):
            last = files.pop()
            first, path, before = last.first, last.path or path, [last.vectors]
        write_tokens(path, texts, *before)
        lengths = np.concatenate([each.lengths for each in before + texts])
        files.append(Segment(first, self.make(load_npy(path), lengths), path))
        return files

    # -- reading --------------------------------------------------------------

    def batches(self, rows: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], _Texts]]:
        """Yield (rows, texts) for ascending `rows`, about a hundred thousand tokens at a time."""
        lengths = self.lengths
        for start in range(0, len(rows), _BATCH):
            block = rows[start : start + _BATCH]
            for first, stop in token_batches(running_total(lengths[block]), _BATCH_TOKENS):
                yield block[first:stop], self.rows(block[first:stop])

    def rows(self, rows: NDArray[np.int64]) -> _Texts:
        """Return the texts at `rows`, at least one, each once, in their order."""
        ascending = np.sort(rows)
        texts = self._join([texts[positions] for texts, positions in self.runs(ascending)])
        return texts if np.array_equal(ascending, rows) else texts[np.searchsorted(ascending, rows)]

    def _owners(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of the segment of each row."""
        return np.searchsorted([segment.first for segment in self.segments], rows, side="right") - 1

    def grouped(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return `rows` one segment after another, otherwise in their order."""
        return rows if len(self.segments) == 1 else rows[np.argsort(self._owners(rows), kind="stable")]

    def runs(self, rows: NDArray[np.int64]) -> list[tuple[_Texts, NDArray[np.int64]]]:
        """Split `rows`, in any order, wherever the segment changes: return texts and positions in them."""
        segments = self.segments
        if len(segments) == 1:
            return [(segments[0].vectors, rows)]
        owners, runs = self._owners(rows), []
        starts = np.flatnonzero(np.diff(owners, prepend=-1))
        for start, run in zip(starts, np.split(rows, starts[1:]), strict=False):
            segment = segments[owners[start]]
            runs.append((segment.vectors, run - segment.first))
        return runs

    def _join(self, texts: list[_Texts]) -> _Texts:
        """Concatenate texts, without ids."""
        if len(texts) == 1:
            return self.make(texts[0].tokens, texts[0].lengths)
        tokens = np.concatenate([each.tokens for each in texts])
        return self.make(tokens, np.concatenate([each.lengths for each in texts]))

    # -- advice to the system -------------------------------------------------

    def _mapped_rows(
        self, rows: NDArray[np.int64]
    ) -> Iterator[tuple[_Texts, NDArray[np.int64], NDArray[np.int64]]]:
        """Yield the texts of mapped files, and the first tokens and ends of the `rows` in them."""
        ascending = np.sort(rows)
        for segment in self.segments:
            if segment.path is not None:
                lo, hi = np.searchsorted(ascending, [segment.first, segment.first + len(segment.vectors)])
                local, offsets = ascending[lo:hi] - segment.first, segment.vectors.offsets
                yield segment.vectors, offsets[local], offsets[local + 1]

    def read_ahead(self, rows: NDArray[np.int64]) -> int:
        """Prefetch the mapped tokens of `rows` without waiting; return the number of requested ranges.

        Nothing is requested while the files are in memory.
        """
        files = [segment.vectors.tokens for segment in self.segments if segment.path is not None]
        if not files or len(rows) > _MAX_ASKED:
            return 0
        if self._requests % _REQUESTS == 0:
            self._resident = all(resident_share(tokens, _PAGES) in (None, 1) for tokens in files)
        self._requests += 1
        ranges = 0
        for texts, starts, stops in () if self._resident else self._mapped_rows(rows):
            tokens, filled = texts.tokens, stops > starts
            size = tokens.shape[1] * tokens.itemsize
            ranges += ask_for(tokens.ctypes.data, starts[filled] * size, stops[filled] * size)
        return ranges

    def let_go(self, rows: NDArray[np.int64]) -> None:
        """Count the mapped tokens of `rows` as held; release all mapped pages once too many bytes are held.

        The files stay in the system's page cache while there is room.
        """
        for texts, starts, stops in self._mapped_rows(rows):
            self._held_bytes += int((stops - starts).sum()) * texts.tokens.strides[0] + _AROUND * len(starts)
        if self._held_bytes >= _HELD_BYTES:
            self._held_bytes = 0
            for segment in self.segments:
                if segment.path is not None:
                    forget(segment.vectors.tokens)


def write_tokens(path: Path, texts: list[_Texts], after: _Texts | None = None) -> None:
    """Write the tokens of `texts`, one after another, to a new ``.npy`` file, or to that of the texts `after`."""
    dtype = _dtype(texts)
    rows = sum(each.num_tokens for each in texts) + (0 if after is None else after.num_tokens)
    header = {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": False,
        "shape": (rows, texts[0].dimension),
    }
    with path.open("wb" if after is None else "r+b") as stream:
        np.lib.format.write_array_header_1_0(stream, header)  # NumPy pads it so that more rows fit in
        stream.seek(0, os.SEEK_END)
        for each in texts:
            for start in range(0, len(each.tokens), _ROWS):
                stream.write(np.ascontiguousarray(each.tokens[start : start + _ROWS], dtype).data)


def _dtype(texts: list[_Texts]) -> np.dtype[Any]:
    return np.result_type(*(each.tokens.dtype for each in texts))
