"""InvertedIndex: which rows contain a term, in arrays that files can map.

Rows are numbered as in :class:`muvera.index.token_store.TokenStore`, and a row is never
used twice.  A segment has the lists of at most SEGMENT_ROWS consecutive rows, so two
bytes hold a row.  Terms are 64-bit hashes, so segments share no dictionary.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..kernels.inverted import count_live, list_postings
from ..kernels.row_bounds import count_texts
from ..utils.arrays import load_npy

#: Maximum number of rows of a segment.
SEGMENT_ROWS = 1 << 16

# A segment is merged with the one before it unless that has over _GROWTH times as many
# rows.
_GROWTH = 2

# Numbers at the beginning of a file: rows, terms, postings, bytes of a value.
_HEADER = 4

# Types of values by their bytes; weights are never stored.
_FREQUENCIES = {1: np.uint8, 2: np.uint16, 4: np.uint32}


def term_hash(term: str | int) -> int:
    """Return the 64-bit hash of a term, the same on every machine.

    Two of a million terms have equal hashes with a probability of 3e-8.
    """
    content = term.encode("utf-8", "surrogatepass") if isinstance(term, str) else b"\xff%d" % term
    return int.from_bytes(blake2b(content, digest_size=8).digest(), "little")


class Segment(NamedTuple):
    """The inverted lists of ``size`` rows from row `first` on."""

    first: int
    size: int
    #: Hashes of the terms, ascending, uint64 (T,).
    terms: NDArray[np.uint64]
    #: Where the list of each term begins, and the end of the last one, int64 (T + 1,).
    starts: NDArray[np.int64]
    #: Rows, counted from `first`, ascending in each list, uint16 (P,).
    rows: NDArray[np.uint16]
    #: The value of each row: a frequency, or a weight.
    values: NDArray[Any]
    #: The file that the arrays map, if any.
    path: Path | None = None

    def to_bytes(self) -> NDArray[np.uint8]:
        """Return the content of a file; :meth:`read` reads it."""
        sizes = np.array([self.size, len(self.terms), len(self.rows), self.values.itemsize], np.int64)
        # The widest numbers come first, so that all are aligned.
        arrays: list[NDArray[Any]] = [sizes, self.terms, self.starts, self.values, self.rows]
        if self.values.itemsize == 1:
            arrays[3:] = [self.rows, self.values]
        return np.concatenate([np.ascontiguousarray(array).view(np.uint8) for array in arrays])

    @classmethod
    def read(cls, first: int, path: Path, final: Path | None = None) -> Segment:
        """Map a file; raise ValueError if it does not contain a segment.

        `final` is the later name of the file.
        """
        content = load_npy(path).view(np.ndarray)  # slices of it are faster
        if content.dtype != np.uint8 or content.ndim != 1 or len(content) < 8 * _HEADER:
            raise ValueError(f"{path} is not a segment of inverted lists.")
        size, terms, postings, width = content[: 8 * _HEADER].view(np.int64).tolist()
        whole = 8 * (_HEADER + 2 * terms + 1) + (2 + width) * postings
        known = width in _FREQUENCIES and 0 <= size <= SEGMENT_ROWS and min(terms, postings) >= 0
        if not known or len(content) != whole:
            raise ValueError(f"{path} has {len(content):,} bytes, but its sizes need {whole:,}.")
        kinds = [(np.uint16, postings), (_FREQUENCIES[width], postings)]
        arrays: list[NDArray[Any]] = []
        start = 8 * _HEADER
        for kind, count in [
            (np.uint64, terms),
            (np.int64, terms + 1),
            *(kinds if width == 1 else kinds[::-1]),
        ]:
            stop = start + np.dtype(kind).itemsize * count
            arrays.append(content[start:stop].view(kind))
            start = stop
        rows, values = arrays[2:] if width == 1 else arrays[:1:-1]
        starts = arrays[1]
        ordered = starts[0] == 0 and starts[-1] == postings and (starts[:-1] <= starts[1:]).all()
        if not ordered or (postings and rows.max() >= size):  # kernels do not check bounds
            raise ValueError(f"{path} has lists that are not inside its {size:,} rows.")
        return cls(first, size, arrays[0], arrays[1], rows, values, path if final is None else final)


class Places(NamedTuple):
    """Where the list of a term begins and ends in a segment."""

    segment: Segment
    start: int
    stop: int


class InvertedIndex:
    """Inverted lists of rows 0, 1, 2, ..., in segments.

    The list of segments is copied on write, so changing a copy (:func:`copy.copy`) does
    not change the original.
    """

    def __init__(self, segments: Sequence[Segment] = ()) -> None:
        self.segments = list(segments)

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.segments[-1].first + self.segments[-1].size if self.segments else 0

    @property
    def is_saved(self) -> bool:
        """True if files contain all segments."""
        return all(segment.path is not None for segment in self.segments)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        arrays = (array for segment in self.segments for array in segment[2:6])
        return sum(array.nbytes for array in arrays)

    def append(
        self, terms: NDArray[np.int64], offsets: NDArray[np.int64], hashes: NDArray[np.uint64]
    ) -> None:
        """Add rows with the terms that they contain, each as often as it occurs.

        ``terms[offsets[i] : offsets[i + 1]]`` are the terms of row i, as positions in
        `hashes`, which are distinct.
        """
        for start in range(0, len(offsets) - 1, SEGMENT_ROWS):
            stop = min(start + SEGMENT_ROWS, len(offsets) - 1)
            part = offsets[start : stop + 1]
            first = terms[part[0] : part[-1]]
            present = np.flatnonzero(np.bincount(first, minlength=len(hashes)))
            present = present[np.argsort(hashes[present])]
            rank = np.empty(len(hashes), np.int64)
            rank[present] = np.arange(len(present))
            self._push(_inverted(len(self), rank[first], part - part[0], hashes[present]))

    def append_weights(
        self, terms: NDArray[np.uint64], rows: NDArray[np.int64], weights: NDArray[np.float32], count: int
    ) -> None:
        """Add `count` rows with one weight per term.

        A posting has a term's hash, a row from 0 to `count`, and a weight.
        """
        for start in range(0, count, SEGMENT_ROWS):
            stop = min(start + SEGMENT_ROWS, count)
            inside = (rows >= start) & (rows < stop)
            self._push(_sorted(len(self), stop - start, terms[inside], rows[inside] - start, weights[inside]))

    def _push(self, segment: Segment) -> None:
        segments = list(self.segments)
        while segments and segments[-1].size <= _GROWTH * segment.size:
            before = segments[-1]
            if before.size + segment.size > SEGMENT_ROWS:
                break
            segments.pop()
            segment = _merged([before, segment], before.first, before.size + segment.size)
        self.segments = [*segments, segment]

    def kept(self, rows: NDArray[np.int64]) -> InvertedIndex:
        """Return the lists of ascending `rows`, which are numbered 0, 1, 2, ..."""
        result = InvertedIndex()
        numbers = np.full(len(self), -1, np.int64)
        numbers[rows] = np.arange(len(rows))
        for start in range(0, len(rows), SEGMENT_ROWS):
            chosen = rows[start : start + SEGMENT_ROWS]
            inside = [
                one for one in self.segments if one.first <= chosen[-1] and one.first + one.size > chosen[0]
            ]
            moved = [
                _moved(one, numbers[one.first : one.first + one.size] - start, len(chosen)) for one in inside
            ]
            result.segments.append(_merged(moved, start, len(chosen)))
        return result

    def lists(self, terms: Sequence[int]) -> list[list[Places]]:
        """Return where the rows of each term are; none for an unknown term."""
        found: list[list[Places]] = [[] for _ in terms]
        wanted = np.array(terms, np.uint64)
        for segment in self.segments:
            places = np.searchsorted(segment.terms, wanted)
            inside = np.flatnonzero(places < len(segment.terms))
            for at in inside[segment.terms[places[inside]] == wanted[inside]].tolist():
                start, stop = segment.starts[places[at] : places[at] + 2].tolist()
                found[at].append(Places(segment, start, stop))
        return found


def count_rows(lists: Iterable[Places], alive: NDArray[np.bool_] | None = None) -> int:
    """Return the number of rows in the list of a term, of those that are `alive`."""
    total = 0
    for segment, start, stop in lists:
        if alive is None:
            total += stop - start
        else:
            live = alive[segment.first : segment.first + segment.size]
            total += int(count_live(segment.rows, start, stop, live))
    return total


def _inverted(
    first: int, terms: NDArray[np.int64], offsets: NDArray[np.int64], hashes: NDArray[np.uint64]
) -> Segment:
    """Return a segment of rows from their terms, which are positions in `hashes`."""
    starts = np.zeros(len(hashes) + 1, np.int64)
    count_texts(terms, offsets, starts[1:])
    np.cumsum(starts, out=starts)
    rows, values = np.empty(starts[-1], np.uint16), np.empty(starts[-1], np.uint32)
    list_postings(terms, offsets, starts[:-1].copy(), rows, values)
    return Segment(first, len(offsets) - 1, hashes, starts, rows, _narrow(values))


def _narrow(values: NDArray[Any]) -> NDArray[Any]:
    """Return frequencies in as few bytes as they need."""
    return values.astype(np.min_scalar_type(int(values.max(initial=0))), copy=False)


def _sorted(
    first: int, size: int, terms: NDArray[np.uint64], rows: NDArray[np.int64], values: NDArray[Any]
) -> Segment:
    """Return a segment of postings.

    Terms may be in any order; equal terms have ascending rows.
    """
    order = np.argsort(terms, kind="stable")
    terms = terms[order]
    begins = (
        np.flatnonzero(np.diff(terms, prepend=terms[:1] ^ np.uint64(1))) if len(terms) else np.empty(0, int)
    )
    starts = np.append(begins, len(terms)).astype(np.int64)
    return Segment(first, size, terms[begins], starts, rows[order].astype(np.uint16), values[order])


def _moved(segment: Segment, numbers: NDArray[np.int64], count: int) -> Segment:
    """Return the postings of rows whose new numbers are from 0 to `count`."""
    rows = numbers[segment.rows]
    kept = (rows >= 0) & (rows < count)
    terms = np.repeat(segment.terms, np.diff(segment.starts))[kept]
    return _sorted(0, count, terms, rows[kept], segment.values[kept])


def _merged(segments: list[Segment], first: int, size: int) -> Segment:
    """Return one segment of consecutive segments, whose rows begin at `first`.

    Rows are counted from the first row of the first segment if it begins there.
    """
    if len(segments) == 1:
        return segments[0]._replace(first=first, size=size)
    terms = np.concatenate([np.repeat(one.terms, np.diff(one.starts)) for one in segments])
    rows = np.concatenate([one.rows.astype(np.int64) + (one.first - segments[0].first) for one in segments])
    values = np.concatenate([one.values for one in segments])
    merged = _sorted(first, size, terms, rows, values)
    return merged if values.dtype.kind == "f" else merged._replace(values=_narrow(merged.values))
