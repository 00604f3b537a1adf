"""Candidates in several segments of a collection, and their scores on several threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..utils.parallel import SMALL, run_in_ranges

__all__ = ["Places", "Slice", "score_slices"]

#: Positions of candidates in a result; ``slice(None)`` for all, in order.
Places = NDArray[np.int64] | slice

#: Texts of a segment, positions of candidates in them, and the places of their scores in the result.
Slice = tuple[Any, NDArray[np.int64], Places]

# Maximum number of tasks.
_TASKS = 8


def score_slices(
    score: Callable[[Any, NDArray[np.int64], Places, NDArray[np.float32]], object],
    slices: Sequence[Slice],
    out: NDArray[np.float32],
    operations: float,
    threads: int | None = 1,
) -> None:
    """Call ``score(texts, positions, places, scores)`` for all slices, and write the scores to their places in `out`.

    `operations` is the number of multiply-adds per token, or 0 to use one thread.  Each of several tasks scores every
    eighth candidate, in order, so it begins with likely good ones.
    """

    def score_every(step: int, start: int) -> None:
        for texts, positions, places in slices:
            if step > 1:
                # Contiguous: kernels would be compiled again for strided arrays.
                positions = np.ascontiguousarray(positions[start::step])
                places = np.arange(len(out))[places][start::step]
            own = out if isinstance(places, slice) else np.empty(len(positions), np.float32)
            score(texts, positions, places, own)
            if own is not out:
                out[places] = own

    if threads == 1 or operations == 0:
        score_every(1, 0)
        return
    tokens = sum(len(positions) * texts.num_tokens / max(1, len(texts)) for texts, positions, _ in slices)
    if tokens * operations < SMALL:
        score_every(1, 0)
    else:
        tasks = [(i, i + 1) for i in range(min(_TASKS, len(out)))]
        run_in_ranges(lambda i, _: score_every(len(tasks), i), tasks, threads, tokens * operations)
