"""Exact Chamfer similarity (MaxSim) of packed queries with ragged documents.

Sizes: d columns of a token, M query tokens of all queries together, packed in panels of
LANES columns (panels, d, LANES), flat.  Documents come as float32 (`floats`) or float16
bit patterns (`halves`); the other array is empty.

A document's tokens pass through the tile, ROWS at a time, and only the maxima are kept.  So no similarity is
stored and nothing is padded: zero rows would change a maximum below 0.
"""

import numpy as np

from .jit import helper, kernel
from .row_operations import prefetch, widened
from .tile import LANES, ROWS, tile_max

# Bytes of a cache line.
_LINE = 64


@helper
def fetch(codes, start, stop):
    """Prefetch the bytes start..stop."""
    for i in range(start, stop, _LINE):
        prefetch(codes, i)


@helper
def fetch_tokens(floats, halves, start, stop):
    """Prefetch the entries start..stop of the tokens, flat."""
    if halves.shape[0] > 0:
        for i in range(start, stop, _LINE // 2):
            prefetch(halves, i)
    else:
        for i in range(start, stop, _LINE // 4):
            prefetch(floats, i)


@kernel
def score_documents(floats, halves, offsets, documents, packed, query_offsets, out):
    """Write the Chamfer similarities of `documents` (c,) with all queries to `out` (c, q).

    A document without tokens scores -inf.  Sums run over query tokens in their order, in
    float64.
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
            for panel in range(panels):
                tile_max(rows, row, last - 1, depth, packed, panel, best, panel * LANES)
        for query in range(out.shape[1]):
            total = 0.0
            for token in range(query_offsets[query], query_offsets[query + 1]):
                total += best[token]
            out[i, query] = total


@kernel
def pack_short(tokens, offsets, queries, columns):
    """Pack each of the `queries` (m,), of at most LANES tokens, into a panel of `columns` (m, d, LANES), all zero."""
    for i in range(queries.shape[0]):
        first = offsets[queries[i]]
        for token in range(first, offsets[queries[i] + 1]):
            for j in range(tokens.shape[1]):
                columns[i, j, token - first] = tokens[token, j]


@kernel
def score_pairs(floats, halves, offsets, documents, packed, queries, counts, out):
    """Write the Chamfer similarity of each of the `documents` (p,) with its query of `queries` (p,) to `out` (p,).

    A query has one panel of `packed`, and `counts` (m,) tokens.  Pairs of one document follow each other, so its tokens
    are read once.  Scores have the bits of :func:`score_documents`.
    """
    depth = max(floats.shape[1], halves.shape[1])
    flat, bits = floats.reshape(-1), halves.reshape(-1)
    rows, best = flat, np.empty(LANES, np.float32)
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
        best[:] = -np.inf
        for row in range(first, last, ROWS):
            fetch_tokens(flat, bits, ahead, min(ahead + ROWS * depth, ahead_stop))
            ahead += ROWS * depth
            tile_max(rows, row, last - 1, depth, packed, queries[i], best, 0)
        total = 0.0
        for token in range(counts[queries[i]]):
            total += best[token]
        out[i] = total
