"""Kernels over single token vectors: the nearest tokens of each query token, and scores of their documents.

Sizes: n document tokens of `depth` floats, m query tokens, c tokens per query token.  Document tokens are
float32, or float16 bits as uint16, with the other array empty.
"""

import numpy as np
from numpy.typing import NDArray

from muvera.kernels.jit import kernel
from muvera.kernels.row_operations import widen_halves
from muvera.kernels.tile import LANES, ROWS, tile_dot

# Halves widened at a time: they stay in the second-level cache.
_BLOCK = 1024

_Floats = NDArray[np.float32]
_Halves = NDArray[np.uint16]
_Integers = NDArray[np.int64]


@kernel
def _sift_down(scores: _Floats, tokens: _Integers, length: int) -> None:
    """Restore the heap of the first `length` entries after its root, the worst entry, was replaced.

    Among equal scores the later token is worse.
    """
    at = 0
    while True:
        child = 2 * at + 1
        if child >= length:
            return
        other = child + 1
        if other < length and (
            scores[other] < scores[child]
            or (scores[other] == scores[child] and tokens[other] > tokens[child])
        ):
            child = other
        if scores[at] < scores[child] or (scores[at] == scores[child] and tokens[at] > tokens[child]):
            return
        scores[at], scores[child] = scores[child], scores[at]
        tokens[at], tokens[child] = tokens[child], tokens[at]
        at = child


@kernel
def nearest_tokens(
    floats: _Floats, halves: _Halves, packed: _Floats, scores: _Floats, tokens: _Integers
) -> None:
    """Write each query token's c best document tokens, best first, to `scores` and `tokens` (m, c).

    Ties go to the earlier token; c must not exceed n.  No product is stored: every tile is compared with the
    worst entry of the heap, and most tiles are dropped there.
    """
    count = max(floats.shape[0], halves.shape[0])
    depth = max(floats.shape[1], halves.shape[1])
    width, kept = scores.shape
    panels = packed.shape[0] // (depth * LANES)
    rows, bits = floats.reshape(-1), halves.reshape(-1)
    scratch = np.empty(_BLOCK * depth + LANES if halves.shape[0] > 0 else 0, np.float32)
    tile = np.empty(ROWS * LANES, np.float32)
    worst = np.full(panels * LANES, np.inf, np.float32)  # columns of padding stay empty
    worst[:width] = -np.inf
    scores[:] = -np.inf
    tokens[:] = count
    for start in range(0, count, _BLOCK):
        stop = min(start + _BLOCK, count)
        source, first = rows, start
        if halves.shape[0] > 0:
            widen_halves(bits, start * depth, stop * depth, scratch, 0)
            source, first = scratch, 0
        last = first + stop - start - 1
        for panel in range(panels):
            for row in range(first, last + 1, ROWS):
                tile_dot(source, row, last, depth, packed, panel, tile, 0)
                for j in range(LANES):
                    # The best of the tile first, without a branch: most tiles are dropped whole.
                    best = tile[j]
                    for i in range(1, ROWS):
                        best = max(best, tile[i * LANES + j])
                    column = panel * LANES + j
                    if best > worst[column]:
                        for i in range(min(ROWS, last + 1 - row)):
                            # Tokens are read in order: an equal score is a later token.
                            if tile[i * LANES + j] > worst[column]:
                                scores[column, 0] = tile[i * LANES + j]
                                tokens[column, 0] = start + row + i - first
                                _sift_down(scores[column], tokens[column], kept)
                                worst[column] = scores[column, 0]
    for column in range(width):  # heap sort: move the worst to the end
        for length in range(kept - 1, 0, -1):
            score, token = scores[column, 0], tokens[column, 0]
            scores[column, 0], tokens[column, 0] = scores[column, length], tokens[column, length]
            scores[column, length], tokens[column, length] = score, token
            _sift_down(scores[column], tokens[column], length)


@kernel
def documents_in_order(documents: _Integers, seen: NDArray[np.bool_], out: _Integers) -> int:
    """Write the distinct values of `documents` (n,) to `out` in order of first appearance; return their number.

    Stops when `out` is full.  `seen` has False for every document, before and afterwards.
    """
    count = 0
    for document in documents:
        if count == out.shape[0]:
            break
        if not seen[document]:
            seen[document] = True
            out[count] = document
            count += 1
    for i in range(count):
        seen[out[i]] = False
    return count


@kernel
def imputed_scores(
    documents: _Integers,
    scores: _Floats,
    last: _Integers,
    gains: NDArray[np.float64],
    found: _Integers,
    out: _Floats,
) -> int:
    """Write the documents behind tokens (m, c) to `found`, their XTR scores to `out`; return how many.

    A query token gives a document its best retrieved similarity, or the lowest retrieved one if none of the
    document's tokens was retrieved: the sum of all lowest ones plus the gains over them, in float64.  `last`
    has -1 and `gains` 0 for every document, before and afterwards.
    """
    floor = 0.0
    count = 0
    for i in range(documents.shape[0]):
        lowest = np.float64(scores[i, scores.shape[1] - 1])
        floor += lowest
        for j in range(documents.shape[1]):
            document = documents[i, j]
            if last[document] == i:  # a worse token of the same document
                continue
            if last[document] < 0:
                found[count] = document
                count += 1
            last[document] = i
            gains[document] += scores[i, j] - lowest
    for i in range(count):
        out[i] = floor + gains[found[i]]
        gains[found[i]] = 0.0
        last[found[i]] = -1
    return count
