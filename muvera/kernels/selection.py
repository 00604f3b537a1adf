"""Select the best scores, and stop a ranking early.

Ranking stops once few of the k best are expected among the remaining candidates.
Candidates are ranked in the order of their products in the first stage, or of estimated
scores.  In the first case, a candidate's score is ``a + slope * product`` plus a nearly
normal error.  The ranked candidates determine `a` and the standard deviation of the
errors.  In the second case, the ranking ends before the first candidate that is
unlikely to be among the k best.
"""

import math

import numpy as np

from .jit import helper, kernel

#: Positions in the state of a query: parameters of its calibration, then counts and
#: sums of its ranking.
SLOPE, VARIANCE, LIMIT, LEAST, RANKED, SUM, SQUARES, STOPPED, STATE = range(9)

#: Number of candidates that are ranked before the first check.
FIRST_CHECK = 12

#: Number of candidates that are ranked between two checks.
STEP = 4

# Errors to record before estimates may stop a ranking.
_LEAST_ERRORS = 8

# Standard deviations of the errors by which an estimate may be too low.
_DEVIATIONS = 5.0

# The calibration's variance counts as much as this number of measured errors.
_PRIOR = 16

# The table of the normal tail runs from -_EDGE to _EDGE: the tail is 0 or 1 beyond, up
# to 1e-15.
_EDGE = 8

# Steps of the table per standard deviation, between which the tail is nearly linear.
_FINE = 32

# The table has the same bits on every machine.
_TAIL = np.array([0.5 * math.erfc((i / _FINE - _EDGE) / math.sqrt(2)) for i in range(2 * _EDGE * _FINE + 2)])


@helper
def _add_misses(total, start, stop, least, products, state, most):
    """Add the expected misses among the candidates from `start` to `stop` to `total`.

    The result is any number above `most` if there are more.
    """
    count = np.int64(state[RANKED])
    mean = state[SUM] / count
    spread = max(0.0, state[SQUARES] - count * mean * mean) * count / (count - 1)
    deviation = np.sqrt((spread + _PRIOR * state[VARIANCE]) / (count + _PRIOR))
    inverse = 1.0 / max(deviation, 1e-30)
    reach = (least - mean) * inverse
    step = state[SLOPE] * inverse
    for i in range(start, stop):
        place = (reach - step * products[i] + _EDGE) * _FINE
        if place >= 2 * _EDGE * _FINE:
            continue
        at = np.int64(max(place, 0.0))
        rest = max(place, 0.0) - at
        total += _TAIL[at] + rest * (_TAIL[at + 1] - _TAIL[at])
        if total > most:
            break
    return total


@helper
def _expected_misses(least, products, state, most):
    """Return how many of the k best are expected among the remaining candidates.

    The result is any number above `most` if there are more.
    """
    return _add_misses(0.0, np.int64(state[RANKED]), products.shape[0], least, products, state, most)


@helper
def enough(score, products, heap, state):
    """Record a ranked candidate.

    Return True if more than the state's least number are ranked, and the expected
    misses are at most its limit.
    """
    error = np.float64(score) - state[SLOPE] * products[np.int64(state[RANKED])]
    state[RANKED] += 1
    state[SUM] += error
    state[SQUARES] += error * error
    count = np.int64(state[RANKED])
    if count < max(FIRST_CHECK, heap.shape[0] + 2) or count % STEP or count == products.shape[0]:
        return False
    if count <= state[LEAST]:
        return False
    if _expected_misses(np.float64(heap[0]), products, state, state[LIMIT]) > state[LIMIT]:
        return False
    state[STOPPED] = 1
    return True


@helper
def excluded(i, estimates, errors, heap):
    """Return True if estimate `i` is unlikely to enter `heap`.

    The `errors` of the estimates before it decide.
    """
    count = errors[0]
    if estimates.shape[0] == 0 or count < max(heap.shape[0], _LEAST_ERRORS):
        return False
    mean = errors[1] / count
    deviation = np.sqrt(max(0.0, errors[2] / count - mean * mean) * count / (count - 1))
    return estimates[i] + mean + _DEVIATIONS * deviation < heap[0]


@helper
def record_error(i, score, estimates, errors):
    """Add the error of estimate `i` to `errors`.

    They are the number of errors, their sum and the sum of their squares.
    """
    if estimates.shape[0] > 0 and score > -np.inf:
        error = np.float64(score) - np.float64(estimates[i])
        errors[0] += 1
        errors[1] += error
        errors[2] += error * error


@helper
def enter(heap, score):
    """Replace the first (smallest) entry of the min-heap `heap` by `score`."""
    place, size = 0, heap.shape[0]
    while 2 * place + 1 < size:
        child = 2 * place + 1
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= score:
            break
        heap[place] = heap[child]
        place = child
    heap[place] = score


@kernel
def trace_misses(scores, products, caps, k, states, expected):
    """Write the expected misses at every check of a ranking, for several caps.

    Candidates are in the order of `products` (n, c).  ``expected[l, q, j]`` receives
    the misses of query q that are expected after ``STEP * j`` candidates, if only the
    first ``caps[l]`` can be ranked.  `expected` is float64 (levels, n, c // STEP + 1),
    and entries without a check stay unchanged.  `caps` are ascending, so that one sum
    serves all of them.  `states`, float64 (n, STATE), are updated.
    """
    heap = np.empty(k, np.float32)
    for q in range(scores.shape[0]):
        heap[:] = -np.inf
        for i in range(scores.shape[1]):
            if scores[q, i] > heap[0]:
                enter(heap, scores[q, i])
            states[q, LIMIT] = -1.0
            enough(scores[q, i], products[q], heap, states[q])
            seen = i + 1
            if seen % STEP or seen < max(FIRST_CHECK, k + 2) or seen == scores.shape[1]:
                continue
            total, start = 0.0, seen
            for level in range(caps.shape[0]):
                if seen < caps[level]:
                    least = np.float64(heap[0])
                    total = _add_misses(total, start, caps[level], least, products[q], states[q], np.inf)
                    start = caps[level]
                    expected[level, q, seen // STEP] = total


@helper
def _sink(scores, ties, heap, place, size):
    """Move the entry at `place` down in a heap of positions.

    The heap's first entry is the worst.
    """
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
    """Write the positions of the best scores above -inf to `best`, best first.

    `best` is int64 (k,).  Return the number of positions.  Of equal scores, the one
    with the smaller entry of `ties` is better.
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
def add_scores(rows, scores, sums, found, totals):
    """Add the scores of each row; write distinct rows and their sums.

    `sums` has an entry for each possible row, all 0, before and after.  Each sum is
    above 0.  `found` and `totals` are as long as `rows`.  Return the number of
    distinct rows.  Sums are added in the order of `rows`.
    """
    for i in range(rows.shape[0]):
        sums[rows[i]] += scores[i]
    count = np.int64(0)
    for i in range(rows.shape[0]):
        if sums[rows[i]] > 0:
            found[count], totals[count] = rows[i], sums[rows[i]]
            sums[rows[i]] = 0
            count += 1
    return count
