"""Faster reranking: skip candidates that cannot be, or are unlikely to be, among the k best.

Candidates are scored in the order in which they are likely to be best.  The exact method stops scoring a
document once bounds show that it is worse than the k best so far.  Two methods are approximate.  `stop` ends
the ranking once few of the k best are expected among the candidates that are left.  `estimates` end it once the
next candidate is unlikely to be among the k best, given the errors of the estimates so far.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors, as_kernel_arrays
from ..data.ranking import best_first
from ..kernels.chamfer import score_pairs
from ..kernels.pruning import prepare_bounds, score_with_pruning
from ..kernels.recall import STATE
from ..kernels.tile import LANES, pack_columns
from ..utils.parallel import SMALL, run_in_ranges, split_by_count

# Queries with more tokens are scored without bounds: the cosines take memory quadratic in the tokens.
_MAX_BOUNDED_TOKENS = 512

# Inner products of longer tokens could overflow float32.
_MAX_NORM = 1e15

# Maximum number of tasks of one query, and pairs of a short query and a candidate per task.
_TASKS, _PAIRS = 8, 512

#: Positions of candidates in a result; ``slice(None)`` for all, in order.
Places = NDArray[np.int64] | slice

#: Documents of a segment, positions of candidates in them, and the places of their scores in the result.
DocumentSlice = tuple[MultiVectors, NDArray[np.int64], Places]


class Stop(NamedTuple):
    """When to stop ranking a query's candidates, see :mod:`muvera.kernels.recall`.

    `products`, float32 (c,), are the candidates' products in the first stage, descending.  The ranking updates `state`,
    float64 (STATE,).
    """

    products: NDArray[np.float32]
    state: NDArray[np.float64]


#: Rank every candidate.
ALL = Stop(np.empty(0, np.float32), np.zeros(STATE))


@dataclass(frozen=True, eq=False)
class RerankOptions:
    """Settings of the reranking of one query's candidates.

    Parameters
    ----------
    k : int
        Number of best candidates to find.
    early_exit : bool
        Stop scoring a document once it cannot be among the k best.  The result stays the same.
    stop : Stop
        When to stop ranking.
    estimates : float32 (c,), optional
        Estimated scores of the candidates, descending.  Ranking stops before the first candidate that would
        need a five-sigma error to be among the k best, judged by the errors of at least 8 and at least k
        candidates before it.
    """

    k: int
    early_exit: bool = True
    stop: Stop = ALL
    estimates: NDArray[np.float32] | None = None

    @property
    def in_order(self) -> bool:
        """True if the score of a candidate determines if the next one is scored."""
        return self.stop is not ALL or self.estimates is not None


def score_slices(
    score: Callable[[Any, NDArray[np.int64], Places, NDArray[np.float32]], object],
    slices: Sequence[tuple[Any, NDArray[np.int64], Places]],
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


def score_candidates(
    query: NDArray[np.float32],
    slices: Sequence[DocumentSlice],
    size: int,
    options: RerankOptions,
    threads: int | None = None,
) -> NDArray[np.float32]:
    """Return the scores of one query's `size` candidates, float32 (size,), -inf for pruned ones.

    The slices list the likely best candidates first.  The k best do not depend on `threads`; only one thread
    is used if ``options.in_order``.
    """
    packed = _PackedQuery(query, options)
    out = np.empty(size, np.float32)
    keeps_best = options.in_order or (len(packed.cosines) > 0 and options.k < size)
    estimates = np.empty(0, np.float32) if options.estimates is None else options.estimates
    states: deque[_State] = deque()  # of tasks that ended; the next task continues with one

    def score(
        documents: MultiVectors, positions: NDArray[np.int64], places: Places, scores: NDArray[np.float32]
    ) -> None:
        try:
            state = states.pop()
        except IndexError:
            state = _State(options.k if keeps_best else 0, packed.panels)
        score_with_pruning(
            *as_kernel_arrays(documents), documents.offsets, positions, packed.columns, packed.places,
            packed.norms, packed.cosines, packed.sines, packed.slack, documents.longest_tokens, *options.stop,
            estimates[places] if len(estimates) else estimates, state.errors, state.heap, state.parts, scores,
        )  # fmt: skip
        states.append(state)

    score_slices(score, slices, out, 0 if options.in_order else len(packed.columns), threads)
    return out


def rank_candidates(
    query: NDArray[Any],
    positions: NDArray[np.int64],
    slices_of: Callable[[NDArray[np.int64], bool], Sequence[DocumentSlice]],
    options: RerankOptions,
    threads: int | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the k best candidates, int64 (n,), best first, and their Chamfer similarities, float32 (n,).

    Ties go to the lower position; documents without tokens are skipped.

    `query` has a token; `positions` int64 (c,) are the candidates, without repeats, the likely best first.  `slices_of`
    returns the slices of documents at positions, in the given order if ``options.in_order``, its second argument.
    """
    slices = slices_of(positions, options.in_order)
    scores = score_candidates(np.asarray(query, np.float32), slices, len(positions), options, threads)
    return ranked(positions, scores, options.k)


def rank_short(
    queries: Sequence[NDArray[Any]],
    positions: Sequence[NDArray[np.int64]],
    slices_of: Callable[[NDArray[np.int64], bool], Sequence[DocumentSlice]],
    k: int,
    threads: int | None = None,
) -> list[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Return the result of :func:`rank_candidates` for several queries of 1 to LANES tokens.

    Each document is read once for all queries.  Queries of one panel gain nothing from bounds.
    """
    columns = np.concatenate([pack_columns(np.asarray(query, np.float32)) for query in queries]).reshape(-1)
    counts = np.array([len(query) for query in queries])
    owners = np.repeat(np.arange(len(queries)), [len(own) for own in positions])
    candidates = np.concatenate(positions)
    order = candidates.argsort(kind="stable")
    scores = np.empty(len(candidates), np.float32)

    def work(start: int, stop: int) -> None:
        pairs = order[start:stop]
        for documents, at, places in slices_of(candidates[pairs], False):
            out = np.empty(len(at), np.float32)
            score_pairs(
                *as_kernel_arrays(documents),
                documents.offsets,
                at,
                columns,
                owners[pairs[places]],
                counts,
                out,
            )
            scores[pairs[places]] = out

    run_in_ranges(work, split_by_count(len(order), _PAIRS), threads)
    ends = np.cumsum([len(own) for own in positions])[:-1]
    return [ranked(own, part, k) for own, part in zip(positions, np.split(scores, ends), strict=True)]


def ranked(
    positions: NDArray[np.int64], scores: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the `k` best positions and their scores, best first; ties go to the lower position."""
    order = positions.argsort()
    best = order[best_first(scores[order], k)]
    return positions[best], scores[best]


class _PackedQuery:
    """One query packed for the kernel, with the angles between its tokens if they bound scores."""

    def __init__(self, tokens: NDArray[np.float32], options: RerankOptions) -> None:
        count, depth = tokens.shape
        # Bound on the rounding error of an inner product and of the angles, relative to the norms.
        self.slack = (depth + 64) * 2.0**-23
        self.norms = np.zeros(count)
        self.cosines = self.sines = np.empty((0, count), np.float32)
        self.places = np.arange(count)
        packed = pack_columns(tokens)
        # A query of one panel takes a single product per document token, so bounds would save nothing.
        if options.early_exit and LANES < count <= _MAX_BOUNDED_TOKENS:
            norms = np.sqrt(np.einsum("ij,ij->i", tokens, tokens, dtype=np.float64))
            if norms.max() < _MAX_NORM:
                products = tokens @ tokens.T
                order = np.empty(count, np.int64)
                self.norms = np.empty(count)
                self.cosines, self.sines = np.empty_like(products), np.empty_like(products)
                prepare_bounds(products, norms, self.slack, order, self.norms, self.cosines, self.sines)
                self.places[order] = np.arange(count)
                packed = pack_columns(tokens[order])
        self.panels, self.columns = len(packed), packed.reshape(-1)


class _State:
    """The k best scores of a task, the errors of its estimates, and its sums of scores after each panel."""

    def __init__(self, k: int, panels: int) -> None:
        self.heap, self.errors, self.parts = np.full(k, -np.inf, np.float32), np.zeros(3), np.zeros(panels)
