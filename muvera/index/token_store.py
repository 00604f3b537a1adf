"""TokenStore: token vectors or their codes by row number, in segments that are in memory or mapped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..data.batches import token_batches
from ..data.multivectors import MultiVectors
from ..data.offsets import running_total
from ..reranking.codecs.base import CodedVectors
from ..utils.npy_files import load_npy
from ..utils.page_cache import ask_for, forget, resident_share

__all__ = ["Segment", "TokenStore", "mapped", "write_tokens"]

# In memory, segments are merged until each is this many times its successor: adding one by
# one stays cheap, and so does searching.  Larger segments than this stay as they were given:
# merging would read a memory map into memory.
_GROWTH, _MERGED_BYTES = 2, 64 << 20

# Memory that tokens take before they are written to the staging file.
_STAGING_BYTES = 64 << 20

# Texts and tokens of one batch when all are read, and rows written at a time.
_BATCH, _BATCH_TOKENS, _ROWS = 4096, 1 << 18, 1 << 16

# More rows than this are read one after the other, which needs no advice.
_MAX_ASKED = 4096

# After this many requests it is looked again whether files are in memory, at so many pages of each.
_REQUESTS, _PAGES = 64, 32

# Bytes of mapped files that this process may hold before it gives them up, and what it may hold beside a text:
# the system maps what is in memory anyway around a byte that is touched, up to a large page.
_HELD_BYTES, _AROUND = 256 << 20, 2 << 20

_Texts = TypeVar("_Texts", MultiVectors, CodedVectors)

#: Makes texts of an array with a row a token, and of the texts' lengths.
Make = Callable[[NDArray[Any], NDArray[np.int64]], _Texts]


@dataclass(frozen=True)
class Segment(Generic[_Texts]):
    """Consecutive rows of a store.

    Parameters
    ----------
    first : int
        Row number of the first text.
    vectors : MultiVectors or CodedVectors
    path : Path or None
        The ``.npy`` file that `vectors` maps; None in memory.
    """

    first: int
    vectors: _Texts
    path: Path | None = None

    @property
    def num_tokens(self) -> int:
        """Token vectors of the segment."""
        return self.vectors.num_tokens


class TokenStore(Generic[_Texts]):
    """Texts by row number 0, 1, 2, ...; a row is never used twice.

    Its list of segments is replaced, never changed: who kept the old list can go back to it,
    and who reads from it is not disturbed.

    Parameters
    ----------
    make : callable
        Makes texts, MultiVectors or CodedVectors, of an array and lengths.
    prefix : str
        How names of files begin.
    staging : Path, optional
        A folder for tokens once there are many, so that memory stays bounded.  They go to the
        end of one file.
    """

    def __init__(self, make: Make[_Texts], prefix: str, staging: Path | None = None) -> None:
        self.make: Make[_Texts] = make
        self.prefix = prefix
        self.segments: list[Segment[_Texts]] = []
        self.staging = staging
        self._requests, self._resident = 0, False
        self._mapped_bytes = 0

    def __len__(self) -> int:
        return self.segments[-1].first + len(self.segments[-1].vectors) if self.segments else 0

    def append(self, vectors: _Texts) -> None:
        """Add texts under the next row numbers; all of them or none."""
        if len(vectors) == 0:
            return
        last = Segment(len(self), self._join([vectors]))
        segments = list(self.segments)
        while (
            segments
            and segments[-1].path is None
            and segments[-1].num_tokens <= _GROWTH * last.num_tokens
            and last.vectors.tokens.nbytes <= _MERGED_BYTES
        ):
            before = segments.pop()
            last = Segment(before.first, self._join([before.vectors, last.vectors]))
        segments.append(last)
        memory = sum(part.vectors.tokens.nbytes for part in segments if part.path is None)
        if self.staging is not None and memory >= _STAGING_BYTES:
            segments = self._staged(segments, self.staging)
        self.segments = segments

    def flush(self) -> None:
        """Write what is in memory to the staging folder, where there is one."""
        if self.staging is not None and any(part.path is None for part in self.segments):
            self.segments = self._staged(self.segments, self.staging)

    def batches(self, rows: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], _Texts]]:
        """Yield (rows, texts) for ascending `rows`, as many at a time as have some hundred thousand tokens."""
        for start in range(0, len(rows), _BATCH):
            part = rows[start : start + _BATCH]
            lengths = [
                segment.vectors.lengths[part[lo:hi] - segment.first] for segment, lo, hi in self._split(part)
            ]
            offsets = running_total(np.concatenate(lengths))
            for first, stop in token_batches(offsets, _BATCH_TOKENS):
                yield part[first:stop], self.rows(part[first:stop])

    def rows(self, positions: NDArray[np.int64]) -> _Texts:
        """Return the texts at these row numbers, ascending, at least one."""
        return self._join(
            [
                part.vectors[positions[lo:hi] - part.first]
                for part, lo, hi in self._split(positions)
                if hi > lo
            ]
        )

    def slices(
        self, positions: NDArray[np.int64], in_order: bool
    ) -> list[tuple[_Texts, NDArray[np.int64], NDArray[np.int64]]]:
        """Return where the rows at `positions` (c, in any order) are, and their places in `positions`.

        Segment after segment, or exactly in the order of `positions` where `in_order`.
        """
        segments = self.segments
        if len(segments) == 1:
            return [(segments[0].vectors, positions, np.arange(len(positions)))]
        owner = np.searchsorted([part.first for part in segments], positions, side="right") - 1
        places = np.arange(len(positions)) if in_order else np.argsort(owner, kind="stable")
        edges = np.flatnonzero(np.diff(owner[places])) + 1
        runs = np.split(places, edges) if len(places) else []
        parts = [segments[owner[run[0]]] for run in runs]
        return [
            (part.vectors, positions[run] - part.first, run) for part, run in zip(parts, runs, strict=True)
        ]

    def read_ahead(self, positions: NDArray[np.int64]) -> int:
        """Let the system read what is mapped of the rows at `positions`; it is not waited for.

        Nothing is asked for while the files are in memory anyway.

        Returns
        -------
        int
            Number of ranges of the files that were asked for.
        """
        files = [part for part in self.segments if part.path is not None]
        if not files or len(positions) > _MAX_ASKED:
            return 0
        if self._requests % _REQUESTS == 0:
            shares = [resident_share(part.vectors.tokens, _PAGES) for part in files]
            self._resident = all(share is None or share == 1 for share in shares)
        self._requests += 1
        if self._resident:
            return 0
        asked = 0
        ascending = np.sort(positions)
        for part, lo, hi in self._split(ascending):
            if part.path is not None and hi > lo:
                rows, tokens = ascending[lo:hi] - part.first, part.vectors.tokens
                size = tokens.shape[1] * tokens.itemsize
                offsets = part.vectors.offsets
                filled = offsets[rows + 1] > offsets[rows]
                starts, stops = offsets[rows][filled] * size, offsets[rows + 1][filled] * size
                asked += ask_for(tokens.ctypes.data, starts, stops)
        return asked

    def look_again(self) -> None:
        """Look at the next request whether files are in memory, which is done after some requests else."""
        self._requests = 0

    def let_go(self, positions: NDArray[np.int64]) -> None:
        """Count what was read at `positions`; give up the pages of all mapped files once they are many.

        Files stay in the system's memory where there is room, and what is read again is read from there.
        """
        ascending = np.sort(positions)
        for part, lo, hi in self._split(ascending):
            if part.path is not None and hi > lo:
                rows, offsets = ascending[lo:hi] - part.first, part.vectors.offsets
                tokens = int((offsets[rows + 1] - offsets[rows]).sum())
                self._mapped_bytes += tokens * part.vectors.tokens.strides[0] + _AROUND * len(rows)
        if self._mapped_bytes < _HELD_BYTES:
            return
        self._mapped_bytes = 0
        for part in self.segments:
            if part.path is not None:
                forget(part.vectors.tokens)

    def _split(self, positions: NDArray[np.int64]) -> list[tuple[Segment[_Texts], int, int]]:
        """Return which slice of the ascending `positions` lies in each segment."""
        segments = self.segments
        edges: list[int] = np.searchsorted(positions, [part.first for part in segments]).tolist()
        return list(zip(segments, edges, [*edges[1:], len(positions)], strict=True))

    def _join(self, parts: list[_Texts]) -> _Texts:
        """Concatenate without ids: a store knows texts by row."""
        if len(parts) == 1:
            return self.make(parts[0].tokens, parts[0].lengths)
        tokens = np.concatenate([part.tokens for part in parts])
        return self.make(tokens, np.concatenate([part.lengths for part in parts]))

    def _staged(self, segments: list[Segment[_Texts]], staging: Path) -> list[Segment[_Texts]]:
        """Return the segments with those in memory written to the end of the last file, or a new one."""
        memory = [part for part in segments if part.path is None]
        kept: list[Segment[_Texts]] = segments[: len(segments) - len(memory)]
        vectors = [part.vectors for part in memory]
        dtype = np.result_type(*(part.tokens.dtype for part in vectors))
        first = memory[0].first
        lengths: list[NDArray[np.int64]] = [part.lengths for part in vectors]
        if kept and kept[-1].path is not None and kept[-1].vectors.tokens.dtype == dtype:
            last = kept.pop()
            assert last.path is not None
            rows = last.num_tokens + sum(part.num_tokens for part in vectors)
            with last.path.open("r+b") as stream:
                start = _write_header(stream, dtype, (rows, last.vectors.dimension))
                # Where the segments before it end, not the file: an append may have failed half way.
                stream.seek(start + last.vectors.tokens.nbytes)
                for part in vectors:
                    _write_rows(stream, part.tokens, dtype)
                stream.truncate()
            first, path, lengths = last.first, last.path, [last.vectors.lengths, *lengths]
        else:
            path = staging / f"{self.prefix}-{first:012d}.npy"
            write_tokens(path, vectors)
        kept.append(Segment(first, mapped(path, np.concatenate(lengths), self.make), path))
        return kept


def mapped(path: Path, lengths: NDArray[np.int64], make: Make[_Texts]) -> _Texts:
    """Map a segment's file."""
    return make(load_npy(path), lengths)


def write_tokens(path: Path, parts: list[_Texts]) -> None:
    """Write the tokens of `parts`, one after the other, to a new ``.npy`` file."""
    dtype = np.result_type(*(part.tokens.dtype for part in parts))
    shape = (sum(part.num_tokens for part in parts), parts[0].dimension)
    with path.open("wb") as stream:
        _write_header(stream, dtype, shape)
        for part in parts:
            _write_rows(stream, part.tokens, dtype)


def _write_header(stream: BinaryIO, dtype: np.dtype[Any], shape: tuple[int, int]) -> int:
    """Write the head of a ``.npy`` file, which NumPy pads so that more rows fit in; return its size."""
    described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, described)
    return stream.tell()


def _write_rows(stream: BinaryIO, tokens: NDArray[Any], dtype: np.dtype[Any]) -> None:
    for start in range(0, len(tokens), _ROWS):
        stream.write(np.ascontiguousarray(tokens[start : start + _ROWS], dtype).data)
