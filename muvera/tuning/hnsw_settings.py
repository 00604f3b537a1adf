"""The cheapest graph that finds nearly all of what reading every vector finds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..mips import HNSWSearch, HNSWSettings

__all__ = ["EF_VALUES", "M_VALUES", "select_hnsw_settings"]

#: Values of HNSW's m and ef to try, the cheapest first.
M_VALUES = (16, 32)
EF_VALUES = (100, 200, 400, 800)

#: Recall of the exact best vectors from which a graph is good enough.
TARGET_RECALL = 0.98


def select_hnsw_settings(
    vectors: NDArray[np.float32],
    queries: NDArray[np.float32],
    candidates: int,
    m_values: Sequence[int] = M_VALUES,
) -> tuple[dict[str, int], float]:
    """Return the cheapest settings that reach the target recall, or those of the highest recall.

    Parameters
    ----------
    vectors : float32 (n, dimension)
        More than `candidates`.
    queries : float32 (m, dimension)
    candidates : int
        Number of best vectors to find.
    m_values : sequence of int
        Values of m to try, at least one.

    Returns
    -------
    dict
        m and ef for :class:`muvera.mips.HNSWSettings`.
    float
        The graph's recall of the exact best.  It is lower in a graph of more vectors.
    """
    best: dict[str, int] = {}
    highest = -1.0
    for m in m_values:
        graph = HNSWSearch(vectors.shape[1], HNSWSettings(m=m))
        graph.add(np.arange(len(vectors)), vectors, 1)  # one thread: the same graph each time
        # hnswlib searches with an ef of at least `candidates`: lower values would be the same setting.
        for ef in sorted({max(ef, candidates) for ef in EF_VALUES}):
            recall = graph.measure_recall(queries, candidates, 1, ef=ef)
            if recall > highest:
                best, highest = {"m": m, "ef": ef}, recall
            if recall >= TARGET_RECALL:
                return {"m": m, "ef": ef}, recall
    return best, highest
