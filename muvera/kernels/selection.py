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
    most, size = best.shape[0], 0
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
                _sink(scores, ties, best, 0, size)
    if size < most:
        for place in range(size // 2 - 1, -1, -1):
            _sink(scores, ties, best, place, size)
    for end in range(size - 1, 0, -1):
        best[0], best[end] = best[end], best[0]
        _sink(scores, ties, best, 0, end)
    return size
