"""Selection of the best scores."""

import numpy as np

from .jit import helper, kernel


@helper
def _sink(scores, ties, heap, place, size):
    """Move the entry at `place` down in a heap of positions, whose first entry is the worst."""
    entry = heap[place]
    score, tie = scores[entry], ties[entry]
    while 2 * place + 1 < size:
        child = 2 * place + 1
        if child + 1 < size:
            left, right = scores[heap[child]], scores[heap[child + 1]]
            if right < left or (right == left and ties[heap[child + 1]] > ties[heap[child]]):
                child += 1
        other = scores[heap[child]]
        if other > score or (other == score and ties[heap[child]] < tie):
            break
        heap[place] = heap[child]
        place = child
    heap[place] = entry


@kernel
def select_best(scores, ties, best):
    """Write the positions of the best scores to `best`, int64 (k,), best first; return their number.

    Of equal scores, the one with the smaller entry of `ties` is better.  A score of -inf is never selected.
    """
    most, size, top = best.shape[0], np.int64(0), np.int64(0)  # with literals, _sink would be compiled again
    for i in range(scores.shape[0]):
        if size < most:
            if scores[i] > -np.inf:
                best[size] = i
                size += 1
                if size == most:
                    for place in range(size // 2 - 1, -1, -1):
                        _sink(scores, ties, best, place, size)
        elif size > 0:
            worst = best[0]
            if scores[i] > scores[worst] or (scores[i] == scores[worst] and ties[i] < ties[worst]):
                best[0] = i
                _sink(scores, ties, best, top, size)
    if size < most:
        for place in range(size // 2 - 1, -1, -1):
            _sink(scores, ties, best, place, size)
    for end in range(size - 1, 0, -1):
        best[0], best[end] = best[end], best[0]
        _sink(scores, ties, best, top, end)
    return size


@kernel
def select_rows(scores, rows, ends, best_rows, best_scores, counts):
    """Write the best of several queries' rows and their scores to `best_rows` and `best_scores` (m, k), best first.

    The rows of query q and their scores end at ``ends[q]``.  `counts` int64 (m,) receives the numbers of results.  Ties
    go to the lower row.
    """
    start = 0
    best = np.empty(best_rows.shape[1], np.int64)
    for q in range(ends.shape[0]):
        own, own_rows = scores[start : ends[q]], rows[start : ends[q]]
        counts[q] = select_best(own, own_rows, best)
        for i in range(counts[q]):
            best_rows[q, i], best_scores[q, i] = own_rows[best[i]], own[best[i]]
        start = ends[q]
