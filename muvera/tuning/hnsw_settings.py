"""How dense a graph must be, and how far searched, to find what reading all vectors finds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..mips import HNSWSearch

__all__ = ["EFS", "LINKS", "choose_graph"]

#: HNSW's M and ef, from the cheapest on.
LINKS = (16, 32)
EFS = (100, 200, 400, 800)

#: A graph that finds this share of the exact best vectors is good enough.
ENOUGH = 0.98


def choose_graph(
    vectors: NDArray[np.float32],
    queries: NDArray[np.float32],
    candidates: int,
    links: Sequence[int] = LINKS,
) -> tuple[dict[str, int], float]:
    """Return the cheapest settings of a graph that finds enough, or those that find most.

    Parameters
    ----------
    vectors : float32 (n, dimension)
        More than `candidates`.
    queries : float32 (m, dimension)
    candidates : int
        How many best vectors are to be found.
    links : sequence of int
        Values of m to try, at least one.

    Returns
    -------
    dict
        m and ef for :class:`muvera.mips.HNSWSearch`.
    float
        The share of the exact best that the graph found.  A graph of more vectors finds less.
    """
    best: dict[str, int] = {}
    most = -1.0
    for m in links:
        graph = HNSWSearch(vectors.shape[1], m=m)
        graph.add(np.arange(len(vectors)), vectors, 1)  # one thread: the same graph each time
        # hnswlib walks with `candidates` at least, so that fewer are no setting of their own.
        for ef in sorted({max(ef, candidates) for ef in EFS}):
            graph.set_ef(ef)
            share = graph.measure_recall(queries, candidates, 1)
            if share > most:
                best, most = {"m": m, "ef": ef}, share
            if share >= ENOUGH:
                return {"m": m, "ef": ef}, share
    return best, most
