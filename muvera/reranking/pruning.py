"""Cheaper reranking: which candidates are scored at all, in the order in which they are likely to be best.

Two ways to do less.  Exact: a document is left once bounds say that it cannot be among the k best
of those before it.  Approximate: scoring ends after so many candidates that brought nothing new.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors, as_kernel_arrays
from ..data.ranking import best_first
from ..data.validation import read_only_view
from ..kernels.pruning import prepare_bounds, score_promising
from ..kernels.tile import LANES, multiply, pack_columns
from ..utils.parallel import run_in_ranges, thread_count
from .ball_carving import carved_tokens

__all__ = ["DocumentSlice", "RerankOptions", "rank_candidates", "require_patience", "screen"]

# Queries of more tokens are scored without bounds: the cosines grow with the square.
_MOST_TOKENS = 512

# Longer tokens could overflow float32.
_GREATEST = 1e15

_NO_PATIENCE = np.iinfo(np.int64).max

#: Documents, positions in them, and where their scores go.
DocumentSlice = tuple[MultiVectors, NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True, eq=False)
class RerankOptions:
    """How one query's candidates are screened.

    Parameters
    ----------
    k : int
        How many best are wanted.
    early_exit : bool
        Stop a document that cannot be among them.  The k best and their scores stay the same.
    patience : int, optional
        End after so many candidates in a row that brought nothing new into the k best.
    mean : bool
        Divide by the number of query tokens.
    products : list of int
        Gets the number of products of a document token and a panel of LANES query tokens
        that a call made.
    """

    k: int
    early_exit: bool = True
    patience: int | None = None
    mean: bool = False
    products: list[int] = field(default_factory=list)


def screen(
    query: NDArray[np.float32],
    pieces: Sequence[DocumentSlice],
    size: int,
    how: RerankOptions,
    threads: int | None = None,
) -> NDArray[np.float32]:
    """Return the scores of one query's candidates, float32 (size,), -inf for those that were left.

    Parameters
    ----------
    query : float32 (m, dim)
        Its tokens, at least one.
    pieces : sequence of (MultiVectors, int64 (c,), int64 (c,))
        The candidates, the likely best first.
    size : int
        How many there are altogether.
    how : Screening
    threads : int, optional
        Default: all usable cores.  The k best do not depend on it.  One is used with
        `patience`, whose end each candidate decides for the next.
    """
    plan = PackedQuery(query, how)
    workers = thread_count(threads) if how.patience is None else 1
    out = np.empty(size, np.float32)

    def work(start: int, stop: int) -> None:
        for worker in range(start, stop):
            plan.score([(texts, at[worker::workers], to[worker::workers]) for texts, at, to in pieces], out)

    run_in_ranges(work, [(worker, worker + 1) for worker in range(workers)], threads)
    return out


def rank_candidates(
    query: NDArray[Any],
    ball_carving_tau: float | None,
    positions: NDArray[np.int64],
    pieces: Callable[[NDArray[np.int64]], Sequence[DocumentSlice]],
    how: RerankOptions,
    threads: int | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the k best candidates, best first, and their Chamfer similarities.

    Parameters
    ----------
    query : float32 or float16 (m, dim)
        Its tokens, at least one.
    ball_carving_tau : float, optional
        Choose the k best by the query as :func:`muvera.carve_queries` makes it with this tau; they
        are then ordered, and scored, by the whole query.  Where the carved query fills as many
        panels of LANES tokens and would save nothing, the whole one chooses.
    positions : int64 (c,)
        The candidates, each once, the likely best first.
    pieces : callable
        Returns where the documents at some positions are, their scores' places being those in
        what it was given.
    how : Screening
    threads : int, optional

    Returns
    -------
    int64 (n,), float32 (n,)
        Ties go to the lower position; documents without tokens are left out.
    """
    tokens = np.asarray(query, np.float32)
    asked = tokens
    if ball_carving_tau is not None and _panels(tokens) > 1:
        carved, _ = carved_tokens(tokens, np.array([0, len(tokens)]), ball_carving_tau)
        asked = carved if _panels(carved) < _panels(tokens) else tokens
    scores = screen(asked, pieces(positions), len(positions), how, threads)
    found, scores = _best(positions, scores, how.k)
    if asked is not tokens:
        whole = RerankOptions(how.k, early_exit=False, mean=how.mean, products=how.products)
        found, scores = _best(found, screen(tokens, pieces(found), len(found), whole, threads), how.k)
    return found, scores


def _panels(tokens: NDArray[np.float32]) -> int:
    return -(-len(tokens) // LANES)


def _best(
    positions: NDArray[np.int64], scores: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    order = np.argsort(positions)
    best = order[best_first(scores[order], k)]
    return positions[best], scores[best]


class PackedQuery:
    """One query packed for the kernel, and what its bounds need."""

    def __init__(self, tokens: NDArray[np.float32], how: RerankOptions) -> None:
        count, depth = tokens.shape
        self.how = how
        # Rounding of an inner product as long as this, relative to the norms, and of what is made of it.
        self.slack = (depth + 64) * 2.0**-23
        self.norms = np.zeros(count)
        self.cosines = self.sines = np.empty((0, count), np.float32)
        self.places = np.arange(count)
        packed = pack_columns(tokens)
        # One panel is either multiplied or not: there is nothing to stop.
        if how.early_exit and LANES < count <= _MOST_TOKENS:
            norms = np.sqrt(np.einsum("ij,ij->i", tokens, tokens, dtype=np.float64))
            if norms.max() < _GREATEST:
                products = np.empty((count, count), np.float32)
                multiply(read_only_view(tokens), packed, products)
                order = np.empty(count, np.int64)
                self.norms = np.empty(count)
                self.cosines, self.sines = np.empty_like(products), np.empty_like(products)
                prepare_bounds(products, norms, self.slack, order, self.norms, self.cosines, self.sines)
                self.places[order] = np.arange(count)
                packed = pack_columns(tokens[order])
        self.packed = packed.reshape(-1)

    def score(self, pieces: Sequence[DocumentSlice], out: NDArray[np.float32]) -> None:
        """Write the scores of the pieces' candidates, one after the other."""
        size = sum(len(positions) for _, positions, _ in pieces)
        watched = self.how.patience is not None or (len(self.cosines) > 0 and self.how.k < size)
        heap = np.full(self.how.k if watched else 0, -np.inf, np.float32)
        counts = np.zeros(2, np.int64)
        patience = _NO_PATIENCE if self.how.patience is None else self.how.patience
        for documents, positions, places in pieces:
            scores = np.empty(len(positions), np.float32)
            score_promising(
                *as_kernel_arrays(documents), documents.offsets, positions, self.packed, self.places,
                self.norms, self.cosines, self.sines, self.slack, documents.longest_tokens, self.how.mean,
                patience, heap, counts, scores,
            )  # fmt: skip
            out[places] = scores
        self.how.products.append(int(counts[1]))


def require_patience(patience: Any) -> None:
    """Raise unless `patience` is None or an int of at least 1."""
    if patience is None:
        return
    if isinstance(patience, bool) or not isinstance(patience, (int, np.integer)):
        raise TypeError(f"patience must be an int or None, got {type(patience).__name__}.")
    if patience < 1:
        raise ValueError(f"patience must be at least 1, got {patience}. Use None to score every candidate.")
