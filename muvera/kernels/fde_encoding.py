"""Fixed Dimensional Encodings of ragged sets of tokens (MUVERA, section 2).

Sizes: d columns of a token, `width` = d rounded up to LANES, R `repetitions` of k `bits` hyperplanes each, C = 2**k
cells, p columns of a `block`.  Matrices are packed panels (panels, width, LANES), flat; an empty `projection` is the
identity.  Bit j of a cell's *code* is set if hyperplane j has a positive product; `position` (C,) is the position
of a code's block in its repetition.
"""

import math

import numpy as np

from .jit import helper, kernel
from .rows import add_scaled, load_rows, longest_text, set_scaled, square_sum
from .tile import LANES, ROWS, tile_dot, tile_signs

# Value of a document cell: the mean of its tokens, its direction with length 1, or its
# direction with the mean length of the tokens.
CELL_MEAN = 0
CELL_UNIT = 1
CELL_LENGTH = 2

# Tokens cancel if the square of their sum is at most this share of the square of their total length.
_CANCELED = np.float32(1e-6)


@helper
def write_blocks(sums, scales, slot_codes, slots, width, repetition, position, projection, block, tile, out):
    """Project row s of `sums`, scale it by ``scales[s]``, and write it to the block of ``slot_codes[s]`` in `out`."""
    cells = position.shape[0]
    if projection.shape[0] == 0:
        for s in range(slots):
            start = (repetition * cells + position[slot_codes[s]]) * block
            for j in range(block):
                out[start + j] = sums[s * width + j] * scales[s]
        return
    panels = (block + LANES - 1) // LANES
    for panel in range(panels):
        used = min(LANES, block - panel * LANES)
        for row in range(0, slots, ROWS):
            tile_dot(sums, row, slots - 1, width, projection, repetition * panels + panel, tile, 0)
            for i in range(min(ROWS, slots - row)):
                s = row + i
                start = (repetition * cells + position[slot_codes[s]]) * block + panel * LANES
                set_scaled(tile, i * LANES, used, scales[s], out, start)
                for j in range(used // LANES * LANES, used):
                    out[start + j] = tile[i * LANES + j] * scales[s]


@helper
def nearest_token(code, codes, count):
    """Return the token whose code differs from `code` in the fewest bits; of ties, the first one."""
    best, chosen = 64, 0
    for t in range(count):
        distance = 0
        value = codes[t] ^ code
        while value:
            value &= value - 1
            distance += 1
        if distance < best:
            best, chosen = distance, t
            if distance == 1:  # no token is nearer, because the cell is empty
                break
    return chosen


@helper
def subtract_mean(rows, count, width, mean):
    """Write the mean of the first `count` rows to `mean` and subtract it from each of them."""
    one = np.float32(1.0)
    mean[:] = 0.0
    for t in range(count):
        add_scaled(rows, t * width, width, one, mean, 0)
    set_scaled(mean, 0, width, one / np.float32(count), mean, 0)
    for t in range(count):
        add_scaled(mean, 0, width, -one, rows, t * width)


@kernel
def encode_documents(
    floats, halves, offsets, first, last, center, planes, repetitions, bits, position, projection, block,
    fill, cell_values, split, weight, out,
):  # fmt: skip
    """Write the FDEs of documents first..last to ``out[0 : last - first]``: zero without tokens.

    `center` (width,) is subtracted from every token.  `cell_values` is one of the CELL constants, `weight` multiplies
    every entry.  With `split`, the document's mean token is subtracted after tokens are assigned to cells.
    """
    depth = max(floats.shape[1], halves.shape[1])
    width = center.shape[0]
    cells = position.shape[0]
    panels = (repetitions * bits + LANES - 1) // LANES
    step = panels + 1  # one extra mask, because a code may be read across two masks
    longest = longest_text(offsets, first, last)
    rows = np.empty((longest + ROWS) * width + LANES, np.float32)
    masks = np.zeros((longest + ROWS) * step, np.uint16)
    codes = np.empty(longest, np.int64)
    slot_of = np.empty(cells, np.int64)
    slot_codes = np.empty(cells, np.int64)
    counts = np.empty(cells, np.int64)
    sums = np.empty((cells + ROWS) * width, np.float32)
    scales = np.empty(cells, np.float32)
    measured = cell_values == CELL_LENGTH or (split and cell_values == CELL_UNIT)
    lengths = np.empty(longest if measured else 0, np.float32)
    cell_lengths = np.empty(cells, np.float32)
    mean = np.empty(width, np.float32)
    tile = np.empty(ROWS * LANES, np.float32)
    one = np.float32(1.0)
    for document in range(first, last):
        fde = out[document - first, : repetitions * cells * block]
        start = offsets[document]
        count = offsets[document + 1] - start
        if count == 0:
            fde[:] = 0.0
            continue
        load_rows(floats, halves, start, start + count, depth, width, center, rows)
        for panel in range(panels):
            for row in range(0, count, ROWS):
                tile_signs(rows, row, count - 1, width, planes, panel, masks, row * step + panel, step)
        if split:
            subtract_mean(rows, count, width, mean)
        if measured:
            for t in range(count):
                lengths[t] = math.sqrt(square_sum(rows, t * width, width))
        for repetition in range(repetitions):
            at = (repetition * bits) >> 4
            shift = (repetition * bits) & 15
            slot_of[:] = -1
            slots = np.int64(0)
            for t in range(count):
                word = np.int64(masks[t * step + at]) | (np.int64(masks[t * step + at + 1]) << 16)
                code = (word >> shift) & (cells - 1)
                codes[t] = code
                slot = slot_of[code]
                if slot < 0:
                    slot_of[code] = slots
                    slot_codes[slots] = code
                    counts[slots] = 1
                    if measured:
                        cell_lengths[slots] = lengths[t]
                    set_scaled(rows, t * width, width, one, sums, slots * width)
                    slots += 1
                else:
                    counts[slot] += 1
                    if measured:
                        cell_lengths[slot] += lengths[t]
                    add_scaled(rows, t * width, width, one, sums, slot * width)
            if slots < cells:
                for code in range(cells):
                    if slot_of[code] >= 0:
                        continue
                    if not fill:
                        begin = (repetition * cells + position[code]) * block
                        for j in range(begin, begin + block):
                            fde[j] = 0.0
                        continue
                    t = nearest_token(code, codes, count)
                    slot_codes[slots] = code
                    counts[slots] = 1
                    if measured:
                        cell_lengths[slots] = lengths[t]
                    set_scaled(rows, t * width, width, one, sums, slots * width)
                    slots += 1
            for s in range(slots):
                if cell_values == CELL_MEAN:
                    scales[s] = weight / np.float32(counts[s])
                    continue
                square = square_sum(sums, s * width, width)
                # Tokens that cancel exactly have no direction: their block stays zero.
                scales[s] = weight / math.sqrt(square) if square > 0 else np.float32(0.0)
                if cell_values == CELL_LENGTH:
                    scales[s] *= cell_lengths[s] / np.float32(counts[s])
                # Residuals cancel if one cell has all tokens: their sum has only the direction of rounding errors.
                if measured and square <= _CANCELED * cell_lengths[s] * cell_lengths[s]:
                    scales[s] = np.float32(0.0)
            write_blocks(
                sums, scales, slot_codes, slots, width, repetition, position, projection, block, tile, fde
            )


@kernel
def encode_queries(
    floats, halves, offsets, first, last, center, planes, repetitions, bits, position, projection, block,
    inverse_norms, softness, weight, out,
):  # fmt: skip
    """Write the FDEs of queries first..last to ``out[0 : last - first]``; `weight` multiplies every entry.

    Tokens are assigned to cells after subtracting `center`; values are not centered, because that would
    change the ranking.  With `softness` tau > 0 a token at distance m from its nearest hyperplane goes to the
    cell across it with weight exp(-m / tau) / 2, and to its own with the rest.
    """
    depth = max(floats.shape[1], halves.shape[1])
    width = center.shape[0]
    cells = position.shape[0]
    panels = (repetitions * bits + LANES - 1) // LANES
    longest = longest_text(offsets, first, last)
    room = longest + ROWS
    rows = np.empty(room * width + LANES, np.float32)
    centered = np.empty(room * width + LANES, np.float32)
    no_center = np.zeros(width, np.float32)
    products = np.empty(panels * room * LANES, np.float32)
    slot_of = np.empty(cells, np.int64)
    slot_codes = np.empty(cells, np.int64)
    sums = np.empty((cells + ROWS) * width, np.float32)
    scales = np.full(cells, weight, np.float32)
    tile = np.empty(ROWS * LANES, np.float32)
    for query in range(first, last):
        fde = out[query - first, : repetitions * cells * block]
        fde[:] = 0.0
        start = offsets[query]
        count = offsets[query + 1] - start
        load_rows(floats, halves, start, start + count, depth, width, center, centered)
        for panel in range(panels):
            for row in range(0, count, ROWS):
                at = (panel * room + row) * LANES
                tile_dot(centered, row, count - 1, width, planes, panel, products, at)
        load_rows(floats, halves, start, start + count, depth, width, no_center, rows)
        for repetition in range(repetitions):
            slot_of[:] = -1
            slots = np.int64(0)
            for t in range(count):
                code = 0
                nearest = 0
                margin = np.float32(np.inf)
                for j in range(bits):
                    plane = repetition * bits + j
                    value = products[((plane // LANES) * room + t) * LANES + plane % LANES]
                    if value > 0:
                        code |= 1 << j
                    distance = abs(value) * inverse_norms[plane]
                    if distance < margin:
                        margin = distance
                        nearest = j
                across = np.float32(0.0)
                if softness > 0 and bits > 0:
                    across = np.float32(0.5) * np.float32(math.exp(-margin / softness))
                for other in range(2 if across > 0 else 1):
                    share = across if other == 1 else np.float32(1.0) - across
                    cell = code ^ (1 << nearest) if other == 1 else code
                    slot = slot_of[cell]
                    if slot < 0:
                        slot_of[cell] = slots
                        slot_codes[slots] = cell
                        set_scaled(rows, t * width, width, share, sums, slots * width)
                        slots += 1
                    else:
                        add_scaled(rows, t * width, width, share, sums, slot * width)
            write_blocks(
                sums, scales, slot_codes, slots, width, repetition, position, projection, block, tile, fde
            )
