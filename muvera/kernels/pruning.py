"""Exact Chamfer of candidates, best first, that stops a document once it cannot be among the k best.

Sizes: d columns of a token, M tokens of one query, packed in panels of LANES columns
(panels, d, LANES), flat, in an order of their own: ``places[token]`` is a token's column.
Documents come as float32 (`floats`) or float16 bit patterns (`halves`), the other being empty.

A document is read panel by panel.  What the panels that are done found bounds the rest: a
document token that is at least the angle a away from one query token is at least a - b away
from another whose angle to the first is b.
"""

import numpy as np

from .jit import kernel
from .row_operations import prefetch, square_sum, widen_halves
from .tile import LANES, ROWS, tile_max

# Rows fetched ahead of the tile: far enough to arrive in time, near enough to stay cached.
_AHEAD = 32

# Bytes that a prefetch brings.
_LINE = 64

# Norms between which no product overflows, and what underflows is far below the slack.
_LEAST, _GREATEST = 1e-15, 1e15


@kernel
def prepare_bounds(products, norms, slack, order, ordered_norms, cosines, sines):
    """Write an order of the query's tokens, and what the bounds need of them in it.

    The first token is the most central one, then comes ever the one that is least like those
    before it: what the first panel finds says most of the others.

    Parameters
    ----------
    products : float32 (M, M)
        Of all tokens with each other.
    norms : float64 (M,)
    slack : float
        Rounding of a product, relative to the norms.
    order : int64 (M,)
    ordered_norms : float64 (M,)
    cosines, sines : float32 (M, M)
        Of the angles between tokens, the angles rounded up.  Tokens that are too short to have
        a direction are opposite to all.
    """
    count = norms.shape[0]
    likeness = np.empty((count, count))
    nearest = np.full(count, -np.inf)
    first, largest = 0, -np.inf
    for i in range(count):
        total = 0.0
        for j in range(count):
            cosine = -1.0
            if min(norms[i], norms[j]) >= _LEAST:
                cosine = max(-1.0, min(1.0, products[i, j] / (norms[i] * norms[j]) - slack))
            likeness[i, j] = cosine
            total += cosine
        if total > largest:
            first, largest = i, total
    for position in range(count):
        order[position] = first
        ordered_norms[position] = norms[first]
        for j in range(count):
            nearest[j] = max(nearest[j], likeness[first, j])
        nearest[first] = np.inf
        for j in range(count):
            if nearest[j] < nearest[first]:
                first = j
    for i in range(count):
        for j in range(count):
            cosine = likeness[order[i], order[j]]
            cosines[i, j] = cosine
            sines[i, j] = np.sqrt(1.0 - cosine * cosine)


@kernel
def _longest_token(rows, first, last, depth):
    """Return the largest norm of the tokens first..last of `rows` (flat)."""
    whole = depth // LANES * LANES
    largest = 0.0
    for row in range(first, last):
        square = np.float64(square_sum(rows, row * depth, whole))
        for i in range(row * depth + whole, (row + 1) * depth):
            square += np.float64(rows[i]) * np.float64(rows[i])
        largest = max(largest, square)
    return np.sqrt(largest)


@kernel
def _tighten(best, begin, end, count, norms, longest, slack, cosines, sines, bounds):
    """Lower the `bounds` (M,) of the tokens end..count by what tokens begin..end found.

    Bounds are cosines to the nearest document token, were all of those as long as the
    longest.  Everything is rounded towards a higher bound.
    """
    rest = bounds[end:count]
    for i in range(begin, end):
        if norms[i] < _LEAST:
            continue  # it has no direction
        found = min(1.0, max(-1.0, best[i] / (norms[i] * longest)) + slack)
        cosine, sine = np.float32(found), np.float32(np.sqrt(1.0 - found * found))
        between, across = cosines[i, end:count], sines[i, end:count]
        for j in range(rest.shape[0]):
            bound = cosine * between[j] + sine * across[j]
            rest[j] = min(rest[j], np.float32(1.0) if between[j] <= cosine else bound)


@kernel
def _enter(heap, score):
    """Put `score` in place of the least of `heap`, its first: no entry is above those at 2i + 1, 2i + 2."""
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
def _fetch(source, row, stop, depth, line):
    """Ask for the next ROWS rows of `source` (flat), before `stop`; `line` entries come at once."""
    for i in range(row * depth, min(row + ROWS, stop) * depth, line):
        prefetch(source, i)


@kernel
def _score(
    rows, first, last, depth, packed, places, norms, cosines, sines, slack, longest, mean, least,
    best, bounds, counts, source, following, following_stop, line, widened,
):  # fmt: skip
    """Return the score of the document with the tokens first..last of `rows`, -inf once it is below `least`.

    `longest` is its longest token's norm, 0 where nothing is to be stopped.  Meanwhile the next
    document, following..following_stop of `source`, is fetched: the first panel has too little to
    do with each row to wait for the memory.
    """
    count = places.shape[0]
    best[:] = -np.inf
    bounds[:] = 1.0
    panels = packed.shape[0] // (depth * LANES)
    # A document that was widened has been read already.
    next_panel = 0 if widened or panels == 1 else 1
    for panel in range(panels):
        done = panel * LANES
        if longest > 0 and panel > 0:
            _tighten(best, done - LANES, done, count, norms, longest, slack, cosines, sines, bounds)
            total = 1e-30  # more than all that underflows
            for j in range(done):
                total += best[j] + norms[j] * longest * slack
            for j in range(done, count):
                total += norms[j] * longest * (bounds[j] + slack)
            if mean:
                total /= count
            if np.float32(total) < least:
                return np.float32(-np.inf)
        for row in range(first, last, ROWS):
            if panel == 0 and not widened:
                ahead = row + _AHEAD
                if ahead < last:
                    _fetch(source, ahead, last, depth, line)
                else:
                    _fetch(source, following + ahead - last, following_stop, depth, line)
            if panel == next_panel:
                _fetch(source, following + row - first, following_stop, depth, line)
            tile_max(rows, row, last - 1, depth, packed, panel, best, done)
        counts[1] += last - first
    total = 0.0
    for token in range(count):  # in the query's order, as without any bounds
        total += best[places[token]]
    if mean:
        total /= count
    return np.float32(total)


@kernel
def score_promising(
    floats, halves, offsets, documents, packed, places, norms, cosines, sines, slack, longest, mean,
    patience, heap, counts, out,
):  # fmt: skip
    """Write the Chamfer similarities of `documents` (c,) with one query to `out` (c,).

    -inf stands for documents without tokens, for those that are certainly below the k best
    before them, and for all after `patience` in a row brought nothing new into the k best.
    Every other score has the bits that :func:`muvera.kernels.chamfer.score_documents` gives.

    Parameters
    ----------
    norms, cosines, sines, slack
        Of the query's tokens in packed order, (M,), (M, M), (M, M); their rounding.  Without
        rows in `cosines` no document is stopped.
    longest : float32 (all documents,)
        The longest token's norm where it is known, else negative; what is found is kept.
    heap : float32 (k,)
        The k best scores so far, the least first, -inf where there are fewer.  Changed.
        Empty where nothing is to be left out.
    counts : int64 (2,)
        Documents in a row that brought nothing new; pairs of a document token and a panel
        that were multiplied.  Changed.
    """
    depth = max(floats.shape[1], halves.shape[1])
    longest_text = 0
    if halves.shape[0] > 0:
        for document in documents:
            longest_text = max(longest_text, offsets[document + 1] - offsets[document])
    scratch = np.empty(longest_text * depth + LANES, np.float32)
    best = np.empty(packed.shape[0] // depth, np.float32)
    bounds = np.empty(places.shape[0], np.float32)
    rows, bits = floats.reshape(-1), halves.reshape(-1)
    stopping = cosines.shape[0] > 0 and heap.shape[0] > 0
    out[:] = -np.inf
    for i in range(documents.shape[0]):
        if counts[0] >= patience:
            return
        document = documents[i]
        start, stop = offsets[document], offsets[document + 1]
        counts[0] += 1
        if start == stop:
            continue
        if halves.shape[0] > 0:
            widen_halves(bits, start * depth, stop * depth, scratch)
        norm = 0.0
        if stopping and heap[0] > -np.inf:
            if longest[document] < 0:
                if halves.shape[0] > 0:
                    norm = _longest_token(scratch, 0, stop - start, depth)
                else:
                    norm = _longest_token(rows, start, stop, depth)
                longest[document] = norm * (1 + slack)
            norm = np.float64(longest[document])
            if not _LEAST < norm < _GREATEST:
                norm = 0.0
        least = heap[0] if heap.shape[0] > 0 else np.float32(np.inf)
        following = documents[min(i + 1, documents.shape[0] - 1)]
        begin, end = offsets[following], offsets[following + 1]
        if halves.shape[0] > 0:
            out[i] = _score(
                scratch, 0, stop - start, depth, packed, places, norms, cosines, sines, slack, norm, mean,
                least, best, bounds, counts, bits, begin, end, _LINE // 2, True,
            )  # fmt: skip
        else:
            out[i] = _score(
                rows, start, stop, depth, packed, places, norms, cosines, sines, slack, norm, mean,
                least, best, bounds, counts, rows, begin, end, _LINE // 4, False,
            )  # fmt: skip
        if out[i] > least:
            _enter(heap, out[i])
            counts[0] = 0
