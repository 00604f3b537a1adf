"""Exact Chamfer similarity (MaxSim) of packed queries with ragged documents.

Sizes: d columns of a token, M query tokens of all queries together, packed in panels of
LANES columns (panels, d, LANES), flat.  Documents come as float32 (`floats`) or float16
bit patterns (`halves`), the other being empty.

A document's tokens run through the tile ROWS at a time and leave only the maxima, so no
similarity is ever stored and nothing is padded: zero rows would change a maximum below 0.
"""

import numpy as np

from .jit import kernel
from .row_operations import prefetch, widen_halves
from .tile import LANES, ROWS, tile_dot, tile_max

# Entries that are fetched ahead of their use at most: they stay in the second-level cache until then.
_AHEAD = 32768

# Rows that are fetched once more so far ahead: the processor drops requests that it has no room for.
_NEAR = 32

# Bytes that a prefetch brings.
_LINE = 64


@kernel
def _fetch(source, start, stop, line):
    """Fetch the entries start..stop of `source`, `line` of them at a time."""
    for place in range(start, stop, line):
        prefetch(source, place)


@kernel
def _read_floats(rows, first, last, depth, packed, best, ahead, ahead_stop):
    """Raise maxima by the tokens first..last of `rows`, and fetch its entries ahead..ahead_stop."""
    panels = best.shape[0] // LANES
    share = -(-ROWS * depth // panels)
    for row in range(first, last, ROWS):
        near = (row + _NEAR) * depth
        for panel in range(panels):
            _fetch(rows, near, min(near + share, last * depth), _LINE // 4)
            _fetch(rows, ahead, min(ahead + share, ahead_stop), _LINE // 4)
            near += share
            ahead += share
            tile_max(rows, row, last - 1, depth, packed, panel, best, panel * LANES)
    _fetch(rows, ahead, ahead_stop, _LINE // 4)


@kernel
def _read_halves(
    halves, widened, start, first, last, depth, packed, best, ahead, ahead_stop
):  # fmt: skip
    """Do the same with tokens of float16, which are written to `widened`, where `start` is the first."""
    panels = best.shape[0] // LANES
    share = -(-ROWS * depth // panels)
    for row in range(first, last, ROWS):
        stop = min(row + ROWS, last)
        widen_halves(halves, row * depth, stop * depth, widened[(row - start) * depth :])
        near = (row + _NEAR) * depth
        for panel in range(panels):
            _fetch(halves, near, min(near + share, last * depth), _LINE // 2)
            _fetch(halves, ahead, min(ahead + share, ahead_stop), _LINE // 2)
            near += share
            ahead += share
            tile_max(widened, row - start, last - start - 1, depth, packed, panel, best, panel * LANES)
    _fetch(halves, ahead, ahead_stop, _LINE // 2)


@kernel
def _read_document(
    floats, halves, widened, start, stop, following, following_stop, depth, packed, best
):  # fmt: skip
    """Raise `best` by a document that was not read before, and fetch the one that follows.

    Parameters
    ----------
    floats : float32
    halves : uint16
        All tokens, flat; one is empty.
    widened : float32
        Receives the document's float16 tokens: room for it and LANES entries more.
    start, stop, following, following_stop : int
        The document's tokens, and those of the next one.
    depth : int
    packed : float32
    best : float32 (panels * LANES,)
    """
    block = max(ROWS, _AHEAD // depth)
    for first in range(start, stop, block):
        last = min(first + block, stop)
        ahead, ahead_stop = (last, stop) if last < stop else (following, following_stop)
        ahead, ahead_stop = ahead * depth, min(ahead + block, ahead_stop) * depth
        if halves.shape[0] > 0:
            _read_halves(halves, widened, start, first, last, depth, packed, best, ahead, ahead_stop)
        else:
            _read_floats(floats, first, last, depth, packed, best, ahead, ahead_stop)


@kernel
def score_documents(floats, halves, offsets, documents, packed, query_offsets, mean, out):
    """Write the Chamfer similarities of `documents` (c,) with all queries to `out` (c, q).

    A document without tokens scores -inf.  Sums run over query tokens in their order, in
    float64.
    """
    depth = max(floats.shape[1], halves.shape[1])
    panels = packed.shape[0] // (depth * LANES)
    longest = 0
    if halves.shape[0] > 0:
        for document in documents:
            longest = max(longest, offsets[document + 1] - offsets[document])
    widened = np.empty(longest * depth + LANES, np.float32)
    best = np.empty(panels * LANES, np.float32)
    rows, bits = floats.reshape(-1), halves.reshape(-1)
    for i in range(documents.shape[0]):
        start, stop = offsets[documents[i]], offsets[documents[i] + 1]
        if start == stop:
            out[i, :] = -np.inf
            continue
        following = documents[min(i + 1, documents.shape[0] - 1)]
        best[:] = -np.inf
        _read_document(
            rows, bits, widened, start, stop, offsets[following], offsets[following + 1], depth, packed, best
        )  # fmt: skip
        for query in range(out.shape[1]):
            total = 0.0
            for token in range(query_offsets[query], query_offsets[query + 1]):
                total += best[token]
            if mean:
                total /= query_offsets[query + 1] - query_offsets[query]
            out[i, query] = total


@kernel
def match_tokens(document, packed, tokens, similarities):
    """Write each query token's best document token, the first of equals, and its similarity.

    `document` is float32 (t, d), t > 0.
    """
    count, depth = document.shape
    rows = document.reshape(-1)
    tile = np.empty(ROWS * LANES, np.float32)
    similarities[:] = -np.inf
    for panel in range(packed.shape[0] // (depth * LANES)):
        first = panel * LANES
        for row in range(0, count, ROWS):
            tile_dot(rows, row, count - 1, depth, packed, panel, tile, 0)
            for i in range(min(ROWS, count - row)):
                for j in range(min(LANES, tokens.shape[0] - first)):
                    if tile[i * LANES + j] > similarities[first + j]:
                        similarities[first + j] = tile[i * LANES + j]
                        tokens[first + j] = row + i
