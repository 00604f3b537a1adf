"""The sample that configurations are measured on: documents, two sets of queries, exact answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors
from ..data.ranking import best_first
from ..data.sampling import pseudo_queries
from ..reranking.chamfer import chamfer_matrix

__all__ = ["HELD_OUT", "TOP", "Asked", "TuningSample", "draw_sample"]

#: Whose exact top so many documents are to be found.
TOP = 10

#: Queries are held out, so many at least where there are twice as many.
HELD_OUT = 15

#: Tokens of a pseudo-query, as ColBERT's queries have.
WINDOW = 32

#: An encoder learns from at most so many documents, so it sees this share of a collection; half
#: of a sample at least, for less would say little of what so many teach, and three quarters at
#: most, for windows are cut out of the others.
_FIT_DOCUMENTS, _LEAST_SHARE, _MOST_SHARE = 4096, 0.5, 0.75

# Queries, and multiplications of exact Chamfer, some ten seconds' worth: longer or wider tokens
# mean fewer queries.
_QUERIES, _PRODUCTS, _FEWEST = 300, 3 * 10**11, 30


@dataclass(frozen=True)
class Asked:
    """Queries and what they should find.

    Parameters
    ----------
    queries : MultiVectors
    scores : float32 (n_queries, n_documents)
        Exact Chamfer similarities with the sample's documents; -inf for the own document.
    own : int64 (n_queries,)
        Position of the document that a query was cut out of, which does not count; -1: none.
    """

    queries: MultiVectors
    scores: NDArray[np.float32]
    own: NDArray[np.int64]

    def best(self, count: int) -> NDArray[np.int64]:
        """Return the exact best among the first `count` documents, int64 (n_queries, TOP)."""
        return np.stack([best_first(row[:count], TOP) for row in self.scores])


@dataclass(frozen=True)
class TuningSample:
    """What configurations are measured on.

    Parameters
    ----------
    documents : MultiVectors
        In random order: the first so many are a smaller sample.
    learning : int64 (n,)
        Positions of the documents that encoders learn from.
    choosing, held_out : Asked
        Queries that choose, and others that say what was found.  Encoders learn from neither, nor
        from the documents that windows were cut out of.
    windows : Asked or None
        Where queries were given: windows of documents, which would have chosen without them.
    """

    documents: MultiVectors
    learning: NDArray[np.int64]
    choosing: Asked
    held_out: Asked
    windows: Asked | None

    @property
    def pseudo(self) -> bool:
        """Whether the queries are windows of documents."""
        return self.windows is None


def draw_sample(
    documents: MultiVectors,
    filled: NDArray[np.int64],
    queries: MultiVectors | None,
    size: int,
    seed: int,
    threads: int | None = None,
) -> TuningSample:
    """Draw a sample and answer its queries exactly.

    Parameters
    ----------
    documents : MultiVectors
    filled : int64 (n,)
        Positions of the documents with a token; no others are read.
    queries : MultiVectors, optional
        Each with a token.
    size : int
        Documents, at most.
    seed : int
    threads : int, optional
    """
    streams = [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(4)]
    drawn, asked, split, learned = streams
    picked = _numbered(documents[filled[drawn.permutation(len(filled))[:size]]])
    picked.require_finite("documents")
    share = min(_MOST_SHARE, max(_LEAST_SHARE, _FIT_DOCUMENTS / len(filled)))
    order = learned.permutation(len(picked))
    learning, others = np.split(order, [round(share * len(picked))])
    length = WINDOW if queries is None else max(1, queries.num_tokens // len(queries))
    affordable = _PRODUCTS // (picked.num_tokens * picked.dimension * length)
    count = min(_QUERIES, max(_FEWEST, affordable))
    if queries is None:
        chosen, own = _windows(picked, np.sort(others), count, asked)
    else:
        chosen = queries[np.sort(asked.permutation(len(queries))[:count])]
        own = np.full(len(chosen), -1)
    order = split.permutation(len(chosen))
    held = max(round(len(chosen) / 3), min(HELD_OUT, len(chosen) // 2))
    parts = [
        _answered(chosen[rows], picked, own[rows], threads)
        for rows in (np.sort(order[held:]), np.sort(order[:held]))
    ]
    windows = None
    if queries is not None:
        cut, own = _windows(picked, np.sort(others), len(parts[0].queries), asked)
        windows = _answered(cut, picked, own, threads)
    return TuningSample(picked, np.sort(learning), parts[0], parts[1], windows)


def _windows(
    documents: MultiVectors, places: NDArray[np.int64], count: int, stream: np.random.Generator
) -> tuple[MultiVectors, NDArray[np.int64]]:
    """Cut windows out of the documents at `places`; return them and where each comes from."""
    queries, own = pseudo_queries(documents[places], min(count, len(places)), WINDOW, stream)
    return queries, places[own]


def _numbered(texts: MultiVectors) -> MultiVectors:
    """Let positions be the ids: others are of no use here."""
    return MultiVectors(texts.tokens, texts.offsets)


def _answered(
    queries: MultiVectors, documents: MultiVectors, own: NDArray[np.int64], threads: int | None
) -> Asked:
    scores = chamfer_matrix(queries, documents, threads=threads)
    with_own = np.flatnonzero(own >= 0)
    scores[with_own, own[with_own]] = -np.inf
    return Asked(queries, scores, own)
