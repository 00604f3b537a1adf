"""Exact Chamfer similarity (MaxSim) of packed queries with ragged documents.

Sizes: d columns of a token, M query tokens of all queries together, packed in panels of
LANES columns (panels, d, LANES), flat.  Documents come as float32 (`floats`) or float16
bit patterns (`halves`); the other array is empty.

A document's tokens pass through the tile, ROWS at a time, and only the maxima are
kept.  So no similarity is stored and nothing is padded: zero rows would change a
maximum below 0.

With bounds, a document is multiplied with two panels after another, and scoring stops
once it cannot be among the k best.  The maxima of the first panels bound the maxima of
the rest.  Suppose that all document tokens are at least the angle a away from one query
token, and that another query token is at the angle b from it.  Then they are at least a
- b away from the other query token.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .jit import helper, kernel
from .rows import fetch_tokens, square_sum, widened
from .selection import STOPPED, enough, enter, excluded, record_error
from .tile import LANES, ROWS, raise_maxima, tile_dot, tile_max, tile_max_of_two

# Rows prefetched ahead of the tile: far enough to arrive in time, close enough to stay
# cached.
_AHEAD = 32

# From this norm on, terms that underflow are far below the slack.
_MIN_NORM = 1e-15

# Up to this norm, no product overflows.
_MAX_NORM = 1e15


@kernel
def score_documents(floats, halves, offsets, documents, packed, query_offsets, out):
    """Write the Chamfer similarities of documents with all queries.

    `documents` (c,) are their numbers; `out` (c, q) gets -inf without tokens.  Sums run
    over query tokens in their order, in float64.
    """
    depth = max(floats.shape[1], halves.shape[1])
    panels = packed.shape[0] // (depth * LANES)
    best = np.empty(panels * LANES, np.float32)
    flat, bits = floats.reshape(-1), halves.reshape(-1)
    rows = flat
    for i in range(documents.shape[0]):
        start, stop = offsets[documents[i]], offsets[documents[i] + 1]
        if start == stop:
            out[i, :] = -np.inf
            continue
        following = documents[min(i + 1, documents.shape[0] - 1)]
        ahead, ahead_stop = offsets[following] * depth, offsets[following + 1] * depth
        first, last = start, stop
        if bits.shape[0] > 0:
            rows, first, last = widened(bits, start * depth, stop * depth), 0, stop - start
        best[:] = -np.inf
        for row in range(first, last, ROWS):
            fetch_tokens(flat, bits, ahead, min(ahead + ROWS * depth, ahead_stop))
            ahead += ROWS * depth
            for panel in range(0, panels, 2):
                raise_maxima(rows, row, last - 1, depth, packed, panel, panels, best)
        for query in range(out.shape[1]):
            total = 0.0
            for token in range(query_offsets[query], query_offsets[query + 1]):
                total += best[token]
            out[i, query] = total


@kernel
def score_pairs(floats, halves, offsets, documents, packed, panels, queries, counts, out):
    """Write the Chamfer similarities of pairs of a document and a query.

    ``out[i]`` gets the similarity of ``documents[i]`` with ``queries[i]`` for each
    i < p, -inf without tokens.  Query q has the panels ``panels[q]`` to ``panels[q +
    1]`` of `packed`, and ``counts[q]`` tokens.  Pairs of one document follow each
    other, so its tokens are read once.
    """
    depth = max(floats.shape[1], halves.shape[1])
    flat, bits = floats.reshape(-1), halves.reshape(-1)
    rows, best = flat, np.empty(np.max(np.diff(panels)) * LANES, np.float32)
    for i in range(documents.shape[0]):
        start, stop = offsets[documents[i]], offsets[documents[i] + 1]
        if start == stop:
            out[i] = -np.inf
            continue
        following = documents[min(i + 1, documents.shape[0] - 1)]
        ahead, ahead_stop = offsets[following] * depth, offsets[following + 1] * depth
        if following == documents[i]:
            ahead = ahead_stop
        first, last = start, stop
        if bits.shape[0] > 0:
            first, last = 0, stop - start
            if i == 0 or documents[i - 1] != documents[i]:
                rows = widened(bits, start * depth, stop * depth)
        begin, end = panels[queries[i]], panels[queries[i] + 1]
        best[: (end - begin) * LANES] = -np.inf
        for row in range(first, last, ROWS):
            fetch_tokens(flat, bits, ahead, min(ahead + ROWS * depth, ahead_stop))
            ahead += ROWS * depth
            for panel in range(begin, end - 1, 2):
                tile_max_of_two(rows, row, last - 1, depth, packed, panel, best, (panel - begin) * LANES)
            if (end - begin) % 2:
                tile_max(rows, row, last - 1, depth, packed, end - 1, best, (end - 1 - begin) * LANES)
        total = 0.0
        for token in range(counts[queries[i]]):
            total += best[token]
        out[i] = total


class BoundedQuery(NamedTuple):
    """A query whose tokens are packed in the order of :func:`prepare_query`.

    ``places[token]`` is a token's column.  `columns` are panels (panels, d, LANES),
    flat.  Without `cosines`, every document is scored completely.  `slack` bounds the
    rounding error of a product, relative to the norms; angles are rounded up by it.
    """

    columns: NDArray[np.float32]
    places: NDArray[np.int64]
    norms: NDArray[np.float64]
    cosines: NDArray[np.float32]
    sines: NDArray[np.float32]
    slack: float


class Progress(NamedTuple):
    """The state of a ranking.

    `heap` float32 (k,) is a min-heap of the k best scores so far, filled up with -inf;
    no document is skipped if it is empty.  `errors` float64 (3,) are as in
    :func:`record_error`, `parts` float64 (panels,) sums of scores after each panel.
    """

    heap: NDArray[np.float32]
    errors: NDArray[np.float64]
    parts: NDArray[np.float64]


@helper
def _pack(tokens, order, columns):
    """Write the tokens as columns in this order.

    The lanes after the last token stay unchanged.
    """
    count, depth = tokens.shape
    for i in range(count):
        first, token = i // LANES * depth * LANES + i % LANES, tokens[order[i]]
        for j in range(depth):
            columns[first + j * LANES] = token[j]


@kernel
def prepare_query(tokens, query):
    """Pack the tokens of a query, float32 (M, d).

    They go to its `columns`, which are zero, and their columns to `places`.  Unless its
    cosines are empty, also write norms, cosines and sines by column; return False if
    tokens are too long for that.  The first token is then the most central token, and
    each next one the least similar to those before it: so the first panel gives the
    tightest bounds for the rest.  Tokens without a direction count as opposite to all
    others.
    """
    count, depth = tokens.shape
    columns, places, norms = query.columns, query.places, query.norms
    cosines, sines = query.cosines, query.sines
    for i in range(count):
        places[i] = i
    _pack(tokens, places, columns)
    if cosines.shape[0] == 0:
        return False
    lengths = np.zeros(count)
    for i in range(count):
        for j in range(depth):
            lengths[i] += np.float64(tokens[i, j]) * np.float64(tokens[i, j])
        lengths[i] = np.sqrt(lengths[i])
        if not lengths[i] < _MAX_NORM:
            return False
    rows, tile = tokens.reshape(-1), np.empty(ROWS * LANES, np.float32)
    similarity, totals = np.empty((count, count)), np.zeros(count)
    for panel in range(0, (count + LANES - 1) // LANES):
        for row in range(0, count, ROWS):
            tile_dot(rows, row, count - 1, depth, columns, panel, tile, 0)
            for i in range(row, min(row + ROWS, count)):
                for j in range(panel * LANES, min((panel + 1) * LANES, count)):
                    cosine = -1.0
                    if min(lengths[i], lengths[j]) >= _MIN_NORM:
                        product = np.float64(tile[(i - row) * LANES + j - panel * LANES])
                        cosine = max(-1.0, min(1.0, product / (lengths[i] * lengths[j]) - query.slack))
                    similarity[i, j] = cosine
                    totals[i] += cosine
    order, nearest = np.empty(count, np.int64), np.full(count, -np.inf)
    first = np.argmax(totals)
    for position in range(count):
        order[position], places[first], norms[position] = first, position, lengths[first]
        for j in range(count):
            nearest[j] = max(nearest[j], similarity[first, j])
        nearest[first] = np.inf
        first = np.argmin(nearest)
    for i in range(count):
        for j in range(count):
            cosine = similarity[order[i], order[j]]
            cosines[i, j] = cosine
            sines[i, j] = np.sqrt(1.0 - cosine * cosine)
    _pack(tokens, order, columns)
    return True


@helper
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


@helper
def _tighten(best, begin, end, query, longest, bounds):
    """Lower the `bounds` (M,) of the tokens from `end` on.

    They are lowered by the maxima of the tokens begin..end.  A bound is the largest
    possible cosine with a document token, if all were as long as the longest.
    """
    norms, cosines, sines = query.norms, query.cosines, query.sines
    count = norms.shape[0]
    for i in range(begin, end):
        if norms[i] < _MIN_NORM:
            continue  # the token has no direction
        largest = min(1.0, max(-1.0, best[i] / (norms[i] * longest)) + query.slack)
        cosine, sine = np.float32(largest), np.float32(np.sqrt(1.0 - largest * largest))
        for j in range(end, count):
            bound = cosine * cosines[i, j] + sine * sines[i, j]
            bounds[j] = min(bounds[j], np.float32(1.0) if cosines[i, j] <= cosine else bound)


@helper
def _score(
    rows, first, last, depth, query, longest, least, best, bounds, parts, floats, halves,
    following, following_stop
):  # fmt: skip
    """Return the score of the document with the tokens first..last of `rows`.

    Also return an estimate of this score.  If the score is certainly below `least`, it
    is -inf, and the estimate is the sum of the panels so far, extrapolated with
    `parts`, the sums of earlier documents after each panel.  `longest` is the norm of
    its longest token, or 0 to score it completely.  The next document is prefetched.
    """
    norms, slack = query.norms, query.slack
    count, panels = norms.shape[0], query.columns.shape[0] // (depth * LANES)
    best[:] = -np.inf
    bounds[:] = 1.0
    is_half = halves.shape[0] > 0
    next_panel = 0 if is_half or panels <= 2 else 2
    for panel in range(0, panels, 2):
        done = panel * LANES
        if longest > 0 and panel > 0:
            _tighten(best, done - 2 * LANES, done, query, longest, bounds)
            total = 1e-30  # more than the sum of all terms that underflow
            known = 0.0
            for j in range(done):
                known += best[j]
                total += best[j] + norms[j] * longest * slack
            for j in range(done, count):
                total += norms[j] * longest * (bounds[j] + slack)
            if np.float32(total) < least:
                if parts[panel - 1] > 0:
                    known *= parts[panels - 1] / parts[panel - 1]
                return np.float32(-np.inf), np.float32(known)
        for row in range(first, last, ROWS):
            if panel == next_panel:
                ahead = following + row - first
                fetch_tokens(floats, halves, ahead * depth, min(ahead + ROWS, following_stop) * depth)
            if panel == 0 and not is_half:
                ahead, ahead_stop = row + _AHEAD, last
                if ahead >= last:
                    ahead, ahead_stop = following + ahead - last, following_stop
                fetch_tokens(floats, halves, ahead * depth, min(ahead + ROWS, ahead_stop) * depth)
            raise_maxima(rows, row, last - 1, depth, query.columns, panel, panels, best)
    total = 0.0
    for token in range(count):  # in the query's order, as without any bounds
        total += best[query.places[token]]
    known = 0.0
    for panel in range(panels):
        for j in range(panel * LANES, min(count, (panel + 1) * LANES)):
            known += best[j]
        parts[panel] += known
    return np.float32(total), np.float32(total)


@kernel
def score_with_pruning(floats, halves, offsets, documents, query, longest, stop_at, estimates, progress, out):
    """Write the Chamfer similarities of documents with one query.

    `documents` (c,) are their numbers; `out` (c,) is as in :func:`score_documents`.
    The score is -inf for a document that is certainly below the k best so far, and for
    all remaining ones once the expected misses of `stop_at` are low enough, or once an
    estimate excludes a document.

    `longest` are the norms of all documents' longest tokens, negative until they are
    measured here.  `stop_at` has the `products` of all candidates in the first stage,
    descending or empty, and the `state` of :func:`enough`.  `estimates` (c,) of scores
    are descending, or empty.
    """
    depth = max(floats.shape[1], halves.shape[1])
    is_half = halves.shape[0] > 0
    heap, errors = progress.heap, progress.errors
    best = np.empty(query.columns.shape[0] // depth, np.float32)
    bounds = np.empty(query.norms.shape[0], np.float32)
    flat, bits = floats.reshape(-1), halves.reshape(-1)
    rows = flat
    bounded = query.cosines.shape[0] > 0 and heap.shape[0] > 0
    stopping = stop_at.products.shape[0] > 0
    out[:] = -np.inf
    if stopping and stop_at.state[STOPPED] > 0:
        return
    for i in range(documents.shape[0]):
        if excluded(i, estimates, errors, heap):
            return
        document = documents[i]
        start, stop = offsets[document], offsets[document + 1]
        if start == stop:
            continue
        first = start
        if is_half:
            rows = widened(bits, start * depth, stop * depth)
            first = 0
        last = first + stop - start
        norm = 0.0
        if bounded and heap[0] > -np.inf:
            if longest[document] < 0:
                longest[document] = _longest_token(rows, first, last, depth) * (1 + query.slack)
            norm = np.float64(longest[document])
            if not _MIN_NORM < norm < _MAX_NORM:
                norm = 0.0
        least = heap[0] if heap.shape[0] > 0 else np.float32(np.inf)
        following = documents[min(i + 1, documents.shape[0] - 1)]
        out[i], estimate = _score(
            rows, first, last, depth, query, norm, least, best, bounds, progress.parts, flat, bits,
            offsets[following], offsets[following + 1],
        )  # fmt: skip
        record_error(i, out[i], estimates, errors)
        if out[i] > least:
            enter(heap, out[i])
        if stopping and enough(estimate, stop_at.products, heap, stop_at.state):
            return
