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

# Rows fetched ahead of the tile: far enough to arrive in time, near enough to stay cached.
_AHEAD = 32


@kernel
def best_similarities(floats, halves, start, stop, depth, packed, panels, scratch, best):
    """Write each query token's largest inner product with tokens start..stop to `best`."""
    best[:] = -np.inf
    if halves.shape[0] > 0:
        widen_halves(halves.reshape(-1), start * depth, stop * depth, scratch)
        for row in range(0, stop - start, ROWS):
            for panel in range(panels):
                tile_max(scratch, row, stop - start - 1, depth, packed, panel, best, panel * LANES)
        return
    rows = floats.reshape(-1)
    for row in range(start, stop, ROWS):
        ahead = (row + _AHEAD) * depth
        for i in range(0, ROWS * depth, LANES):
            prefetch(rows, ahead + i)
        for panel in range(panels):
            tile_max(rows, row, stop - 1, depth, packed, panel, best, panel * LANES)


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
    scratch = np.empty(longest * depth + LANES, np.float32)
    best = np.empty(panels * LANES, np.float32)
    for i in range(documents.shape[0]):
        start, stop = offsets[documents[i]], offsets[documents[i] + 1]
        if start == stop:
            out[i, :] = -np.inf
            continue
        best_similarities(floats, halves, start, stop, depth, packed, panels, scratch, best)
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
