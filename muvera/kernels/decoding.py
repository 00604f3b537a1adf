"""Decode token codes to floats, and score decoded documents: see :mod:`muvera.kernels.token_codes`."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .jit import kernel
from .recall import enter, excluded, record_error
from .row_operations import half_at, prefetch
from .tile import LANES, ROWS, tile_max
from .token_codes import FACTOR_BYTES, write_numbers

# Bytes per prefetch.
_LINE = 64

# Number of rows that are decoded together: a multiple of ROWS that fits into the first-level cache.
_BLOCK = 4 * ROWS


class Decoder(NamedTuple):
    """Flat arrays that decode a codec's codes.

    Without a `table`, a code has one byte per coordinate: 128 plus the number of steps from the only center.  Otherwise
    a code is a centroid's number and packed residuals.  Then `centers` are in units of `scales`, and `table` contains
    the levels of each byte's coordinates.  Each code contains a factor, in multiples of `unit`.
    """

    width: int
    id_bytes: int
    unit: np.float32
    centers: NDArray[np.float32]
    table: NDArray[np.float32]
    scales: NDArray[np.float32]


@kernel
def decode_codes(codes, decoder, out):
    """Write the decoded codes (flat) to `out`, float32 (n, d)."""
    count, dimension = out.shape
    start = decoder.id_bytes + FACTOR_BYTES
    if decoder.table.shape[0] == 0:
        for token in range(count):
            place = token * decoder.width + start
            step = half_at(codes, place - FACTOR_BYTES) * decoder.unit
            row, steps = out[token], codes[place : place + dimension]
            for j in range(dimension):
                row[j] = (np.float32(steps[j]) - np.float32(128)) * step + decoder.centers[j]
        return
    keys = decoder.table.shape[0] // 256
    whole, most = dimension // keys, decoder.centers.shape[0] // dimension - 1
    numbers = np.empty(count, np.int64)
    write_numbers(codes, 0, count, decoder.width, decoder.id_bytes, most, numbers)
    for token in range(count):
        place, row = token * decoder.width, out[token]
        center = decoder.centers[numbers[token] * dimension :]
        packed = codes[place + start : place + decoder.width]
        factor = half_at(codes, place + decoder.id_bytes) * decoder.unit
        # The compiler vectorizes loops of constant length.
        if keys == 8:
            for i in range(whole):
                for j in range(8):
                    row[8 * i + j] = center[8 * i + j] + decoder.table[8 * np.int64(packed[i]) + j]
        elif keys == 4:
            for i in range(whole):
                for j in range(4):
                    row[4 * i + j] = center[4 * i + j] + decoder.table[4 * np.int64(packed[i]) + j]
        elif keys == 2:
            for i in range(whole):
                for j in range(2):
                    row[2 * i + j] = center[2 * i + j] + decoder.table[2 * np.int64(packed[i]) + j]
        else:
            for i in range(whole):
                row[i] = center[i] + decoder.table[np.int64(packed[i])]
        for j in range(whole * keys, dimension):
            row[j] = center[j] + decoder.table[np.int64(packed[whole]) * keys + j - whole * keys]
        for j in range(dimension):
            row[j] = row[j] * decoder.scales[j] * factor


@kernel
def score_decoded(codes, offsets, documents, decoder, packed, count, estimates, errors, heap, out):
    """Write the Chamfer similarities of decoded `documents` (c,) with one query of `count` tokens to `out` (c,).

    They have the bits of :func:`muvera.kernels.chamfer.score_documents` for the tokens of :func:`decode_codes`.  The
    score is -inf for documents without tokens, and for all remaining ones once an estimate excludes a document.

    `codes` are flat.  For `packed` see :func:`muvera.kernels.tile.pack_columns`, for `estimates`, `errors` and `heap`
    :func:`muvera.kernels.pruning.score_with_pruning`.
    """
    depth = decoder.scales.shape[0]
    panels = packed.shape[0] // (depth * LANES)
    decoded = np.empty((_BLOCK, depth), np.float32)
    rows = decoded.reshape(-1)
    best = np.empty(panels * LANES, np.float32)
    out[:] = -np.inf
    for i in range(documents.shape[0]):
        if excluded(i, estimates, errors, heap):
            return
        start, stop = offsets[documents[i]], offsets[documents[i] + 1]
        if start == stop:
            continue
        following = offsets[documents[min(i + 1, documents.shape[0] - 1)]] * decoder.width
        best[:] = -np.inf
        for first in range(start, stop, _BLOCK):
            last = min(first + _BLOCK, stop)
            for place in range((first - start) * decoder.width, (last - start) * decoder.width, _LINE):
                prefetch(codes, following + place)
            decode_codes(
                codes[first * decoder.width : last * decoder.width], decoder, decoded[: last - first]
            )
            for row in range(0, last - first, ROWS):
                for panel in range(panels):
                    tile_max(rows, row, last - first - 1, depth, packed, panel, best, panel * LANES)
        total = 0.0
        for token in range(count):
            total += best[token]
        out[i] = total
        record_error(i, out[i], estimates, errors)
        if out[i] > heap[0]:
            enter(heap, out[i])
