"""TokenStore: token vectors by row number, in segments that are in memory or mapped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..chamfer import scores_at
from ..vectors import MultiVectors

__all__ = ["Segment", "TokenStore"]

# In memory, segments are merged until each is twice its successor: adding stays cheap.
_GROWTH = 2


@dataclass(frozen=True)
class Segment:
    """Consecutive rows of a store.

    Parameters
    ----------
    first : int
        Row number of the first text.
    vectors : MultiVectors
    path : Path or None
        The ``.npy`` file that `vectors` maps; None in memory.
    """

    first: int
    vectors: MultiVectors
    path: Path | None = None


class TokenStore:
    """Texts by row number 0, 1, 2, ...; a row is never used twice.

    Parameters
    ----------
    spool : Path, optional
        A folder to write full segments to, so that memory stays bounded.
    spool_tokens : int
        A segment is full at this many tokens.
    """

    def __init__(self, spool: Path | None = None, spool_tokens: int = 1 << 20) -> None:
        self.segments: list[Segment] = []
        self._spool, self._spool_tokens = spool, spool_tokens

    def __len__(self) -> int:
        return self.segments[-1].first + len(self.segments[-1].vectors) if self.segments else 0

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of every row."""
        return np.concatenate([np.empty(0, np.int64), *(part.vectors.lengths for part in self.segments)])

    def append(self, vectors: MultiVectors) -> None:
        """Add texts under the next row numbers."""
        last = Segment(len(self), vectors)
        while (
            self.segments
            and self.segments[-1].path is None
            and self.segments[-1].vectors.num_tokens <= _GROWTH * last.vectors.num_tokens
        ):
            before = self.segments.pop()
            last = Segment(before.first, join([before.vectors, last.vectors]))
        self.segments.append(last)
        if self._spool is not None and last.vectors.num_tokens >= self._spool_tokens:
            self.flush(self._spool)

    def flush(self, folder: Path) -> None:
        """Write what is in memory to a file of `folder`, and map it from there."""
        memory = [part for part in self.segments if part.path is None]
        if not memory:
            return
        first = memory[0].first
        joined = join([part.vectors for part in memory])
        path = folder / f"tokens-{first:012d}.npy"
        np.save(path, joined.tokens)
        self.segments = [part for part in self.segments if part.path is not None]
        self.segments.append(Segment(first, mapped(path, joined.lengths), path))

    def rows(self, positions: NDArray[np.int64]) -> MultiVectors:
        """Return the texts at these row numbers, ascending, copied into memory."""
        parts = [
            part.vectors[positions[lo:hi] - part.first] for part, lo, hi in self._split(positions) if hi > lo
        ]
        return join(parts) if parts else self.segments[0].vectors[0:0]

    def scores(
        self, queries: MultiVectors, positions: NDArray[np.int64], mean: bool, threads: int | None = None
    ) -> NDArray[np.float32]:
        """Return exact Chamfer of the rows at `positions` (c, ascending), float32 (c, n_queries)."""
        out = np.empty((len(positions), len(queries)), np.float32)
        for part, lo, hi in self._split(positions):
            if hi > lo:
                out[lo:hi] = scores_at(queries, part.vectors, positions[lo:hi] - part.first, mean, threads)
        return out

    def _split(self, positions: NDArray[np.int64]) -> list[tuple[Segment, int, int]]:
        """Return which slice of the ascending `positions` lies in each segment."""
        edges = np.searchsorted(positions, [*(part.first for part in self.segments), len(self)])
        return [(part, int(edges[i]), int(edges[i + 1])) for i, part in enumerate(self.segments)]


def join(parts: list[MultiVectors]) -> MultiVectors:
    """Concatenate without ids: a store knows texts by row."""
    if len(parts) == 1:
        return MultiVectors.from_flat(parts[0].tokens, offsets=parts[0].offsets)
    tokens = np.concatenate([part.tokens for part in parts])
    return MultiVectors.from_flat(tokens, np.concatenate([part.lengths for part in parts]))


def mapped(path: Path, lengths: NDArray[np.int64]) -> MultiVectors:
    """Map a segment's file."""
    return MultiVectors.from_flat(np.load(path, mmap_mode="r", allow_pickle=False), lengths)
