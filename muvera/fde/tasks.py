"""run_tasks: fill one row per text, in parallel, with the same bits for any split."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors, as_kernel_arrays
from ..utils.parallel import require_threads, run_in_ranges, split_by_weight
from .kernels import Tokens

__all__ = ["CellWriter", "Side", "Tokens", "Write", "new_rows", "run_tasks"]

#: The two sides of a search.
Side = Literal["documents", "queries"]

#: Writes rows for the texts start..stop.
Write = Callable[[Tokens, int, int, NDArray[np.float32]], None]


class CellWriter(Protocol):
    """The cells of one encoder."""

    def write(
        self, side: Side, weight: float, tokens: Tokens, start: int, stop: int, out: NDArray[np.float32]
    ) -> None:
        """Write `weight` times the cells of texts start..stop to `out`."""


#: Tokens per task: enough to hide the cost of starting it, few enough to balance
#: threads.
TASK_TOKENS = 2048


def run_tasks(
    write: Write,
    texts: MultiVectors,
    out: NDArray[np.float32],
    threads: int | None = None,
    tokens: int = TASK_TOKENS,
    most: int | None = None,
) -> NDArray[np.float32]:
    """Fill `out`, float32 (n, any width), one row per text, and return it.

    ``write(tokens, start, stop, rows)`` writes the rows of texts start..stop.  A task
    has about `tokens` tokens, and at most `most` texts.
    """
    arrays = Tokens(*as_kernel_arrays(texts), texts.offsets)
    if len(texts) == 1:  # one task; planning it takes as long as some encoders do
        require_threads(threads)
        write(arrays, 0, 1, out)
        return out
    ranges = split_by_weight(texts.offsets, tokens, most or max(1, len(texts)))
    run_in_ranges(lambda start, stop: write(arrays, start, stop, out[start:stop]), ranges, threads)
    return out


def new_rows(
    write: Write,
    texts: MultiVectors,
    width: int,
    threads: int | None = None,
    tokens: int = TASK_TOKENS,
    most: int | None = None,
) -> NDArray[np.float32]:
    """Return a new array (n, width) that :func:`run_tasks` fills."""
    out = np.empty((len(texts), width), np.float32)
    return run_tasks(write, texts, out, threads, tokens, most)
