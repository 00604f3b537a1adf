"""Decode token codes to floats, and score decoded documents: see :mod:`muvera.kernels.token_codes`."""

import numpy as np

from .chamfer import fetch
from .jit import helper, kernel
from .recall import enter, excluded, record_error
from .row_operations import half_at
from .tile import LANES, ROWS, tile_max
from .token_codes import FACTOR_BYTES, write_numbers

# Number of rows that are decoded together: a multiple of ROWS that fits into the first-level cache.
_BLOCK = 4 * ROWS


@helper
def _decode_rows(numbers, centers, codes, start, width, levels, out):
    """Write each token's center plus the levels of its coordinates to `out` (n, d).

    `centers` and `codes` are flat; the residual bits of token i begin at ``start + i * width``.  For `levels` see
    :class:`muvera.kernels.token_codes.CodeFormat`.
    """
    count, dimension = out.shape
    keys = len(levels) // 256
    whole = dimension // keys
    for token in range(count):
        row, center = out[token], centers[numbers[token] * dimension :]
        packed = codes[start + token * width :]
        # The compiler vectorizes loops of constant length.
        if keys == 8:
            for i in range(whole):
                for j in range(8):
                    row[8 * i + j] = center[8 * i + j] + levels[8 * np.int64(packed[i]) + j]
        elif keys == 4:
            for i in range(whole):
                for j in range(4):
                    row[4 * i + j] = center[4 * i + j] + levels[4 * np.int64(packed[i]) + j]
        elif keys == 2:
            for i in range(whole):
                for j in range(2):
                    row[2 * i + j] = center[2 * i + j] + levels[2 * np.int64(packed[i]) + j]
        else:
            for i in range(whole):
                row[i] = center[i] + levels[np.int64(packed[i])]
        for j in range(whole * keys, dimension):
            row[j] = center[j] + levels[np.int64(packed[whole]) * keys + j - whole * keys]


@kernel
def decode_residuals(codes, packed, centroids, table, normalize, out):
    """Write the decoded tokens of a PLAID index to `out`.

    `codes` int32 or int64 (n,) are the tokens' centroids, which are not checked here, and `packed` uint8 (n, width) are
    their residual bits.  `table` is that of :func:`muvera.kernels.token_codes.byte_table`.  With `normalize`, each
    token is divided by the larger of its norm and 1e-12.
    """
    count, dimension = out.shape
    _decode_rows(codes, centroids.reshape(-1), packed.reshape(-1), 0, packed.shape[1], table.reshape(-1), out)
    if not normalize:
        return
    whole = dimension // 8 * 8
    sums = np.empty(8, np.float32)
    for t in range(count):
        row = out[t]
        # Eight sums, added as a tree.
        sums[:] = 0
        for i in range(0, whole, 8):
            for j in range(8):
                sums[j] += row[i + j] * row[i + j]
        total = ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]))
        for i in range(whole, dimension):
            total += row[i] * row[i]
        factor = np.float32(1.0) / max(np.sqrt(total), np.float32(1e-12))
        for i in range(dimension):
            row[i] *= factor


@kernel
def decode_codes(codes, form, out):
    """Write the decoded codes (flat) of the format `form` to `out`, float32 (n, d)."""
    count, dimension = out.shape
    width, start = form.width, form.id_bytes + FACTOR_BYTES
    if form.bits == 0:
        for token in range(count):
            row, steps = out[token], codes[token * width + start :]
            factor = half_at(codes, token * width) * form.unit
            for j in range(dimension):
                row[j] = (np.float32(steps[j]) - np.float32(128)) * factor + form.centers[j]
        return
    numbers = np.empty(count, np.int64)
    write_numbers(
        codes, np.int64(0), count, width, form.id_bytes, len(form.centers) // dimension - 1, numbers
    )
    _decode_rows(numbers, form.centers, codes, start, width, form.levels, out)
    for token in range(count):
        row, factor = out[token], half_at(codes, token * width + form.id_bytes) * form.unit
        for j in range(dimension):
            row[j] = row[j] * form.scales[j] * factor


@kernel
def score_decoded(codes, offsets, documents, form, packed, count, estimates, errors, heap, out):
    """Write the Chamfer similarities of decoded `documents` (c,) with one query of `count` tokens to `out` (c,).

    They have the bits of :func:`muvera.kernels.chamfer.score_documents` for the tokens of :func:`decode_codes`.  The
    score is -inf for documents without tokens, and for all remaining ones once an estimate excludes a document.

    `codes` are flat.  For `packed` see :func:`muvera.kernels.tile.pack_columns`.  For `estimates`, `errors` and `heap`
    see :func:`muvera.kernels.pruning.score_with_pruning`.
    """
    depth, width = len(form.scales), form.width
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
        following = offsets[documents[min(i + 1, documents.shape[0] - 1)]] * width
        best[:] = -np.inf
        for first in range(start, stop, _BLOCK):
            last = min(first + _BLOCK, stop)
            fetch(codes, following + (first - start) * width, following + (last - start) * width)
            decode_codes(codes[first * width : last * width], form, decoded[: last - first])
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
