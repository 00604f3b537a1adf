"""The steps of an FDE, compiled (MUVERA, arXiv 2405.19504, section 2).

For each text, and for each of its R_reps repetitions:

1. load the tokens (:func:`_load`);
2. SimHash phi: the signs of products with k_sim hyperplanes are the code of a token's
   cell, one of B = 2**k_sim (:func:`_sign`, :func:`_read_codes`);
3. aggregate per cell: a query's value is the sum of its tokens, a document's the mean
   (:func:`_aggregate`, :func:`_scale`);
4. fill: an empty document cell takes the nearest token (:func:`_fill_empty_cells`);
5. project the value of each cell by psi to d_proj floats, and write them to the block
   of this cell in the FDE (:func:`_write`).

Sizes: d columns of a token, `width` = d rounded up to LANES, R_reps `repetitions` of
k_sim `bits`, C = 2**k_sim cells, d_proj `columns` of a block.  Rows of `width` floats
are stored flat.  Bit j of a cell's *code* is set if hyperplane j of its repetition has
a positive product.  The cells with tokens are listed as *slots*.

Every sum has a fixed order, see :mod:`muvera.kernels.tile`.  So the bits of an FDE
depend neither on the batch nor on the number of threads, nor on the vector width.

Helpers get arrays, not tuples of arrays, where they run once per repetition: each array
that is looked up in a tuple costs two atomic operations, which count references.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..kernels.jit import count_bits, helper, kernel
from ..kernels.rows import (
    add_scaled,
    empty_floats,
    load_rows,
    longest_text,
    set_scaled,
    square_sum,
    sum_list,
    sum_shares,
)
from ..kernels.tile import LANES, ROWS, tile_dot, tile_scatter, tile_signs, tile_signs_of_two

#: Value of a document cell: the mean of its tokens, its direction with length 1, or its
#: direction with the mean length of the tokens.
CELL_MEAN = 0
CELL_UNIT = 1
CELL_LENGTH = 2

#: Tokens cancel if the square of their sum is at most this share of the square of their
#: total length.
CANCELED = np.float32(1e-6)

# Bits of a token's number in a document.
_TOKEN_BITS = 48


class Tokens(NamedTuple):
    """Token vectors of texts, one text after the other.

    Parameters
    ----------
    floats : numpy.ndarray
        float32 (n, d), or (0, d) if the tokens are `halves`.
    halves : numpy.ndarray
        uint16 (n, d), bit patterns of float16, or (0, d).
    offsets : numpy.ndarray
        int64 (texts + 1,): text i has the tokens ``offsets[i]:offsets[i + 1]``.
    """

    floats: NDArray[np.float32]
    halves: NDArray[np.uint16]
    offsets: NDArray[np.int64]


class Partition(NamedTuple):
    """SimHash partitions of all repetitions (section 2, step 1).

    Parameters
    ----------
    center : numpy.ndarray
        float32 (width,), subtracted from tokens before they are assigned to cells.
    planes : numpy.ndarray
        Hyperplanes, float32, packed panels (panels, width, LANES), flat.
    inverse_norms : numpy.ndarray
        float32 (R_reps * k_sim,), one over the length of each normal.
    position : numpy.ndarray
        int64 (C,), the position of each code's block in its repetition.
    repetitions : int
        R_reps, the number of repetitions.
    bits : int
        k_sim, at most 16.
    """

    center: NDArray[np.float32]
    planes: NDArray[np.float32]
    inverse_norms: NDArray[np.float32]
    position: NDArray[np.int64]
    repetitions: int
    bits: int


class Projection(NamedTuple):
    """Inner projections psi of all repetitions (section 2, step 2).

    Parameters
    ----------
    matrices : numpy.ndarray
        float32, packed panels (R_reps * panels, width, LANES), flat; empty for the
        identity.
    columns : int
        d_proj, the columns of a projected token.
    """

    matrices: NDArray[np.float32]
    columns: int


class Cells(NamedTuple):
    """The value of document cells.

    Parameters
    ----------
    fill : bool
        Assign the nearest token to an empty cell.
    value : int
        One of the CELL constants.
    split : bool
        Subtract the document's mean token after tokens are assigned to cells.
    """

    fill: bool
    value: int
    split: bool


# -- load tokens


@helper
def _load(tokens, text, center, rows):
    """Write the tokens of a text minus `center` to `rows`; return their number."""
    start, stop = tokens.offsets[text], tokens.offsets[text + 1]
    depth = max(tokens.floats.shape[1], tokens.halves.shape[1])
    load_rows(tokens.floats, tokens.halves, start, stop, depth, center.shape[0], center, rows)
    return stop - start


@helper
def _subtract_mean(rows, count, mean):
    """Write the mean of the first `count` rows to `mean`, and subtract it from them."""
    unit, width = np.float32(1.0), mean.shape[0]
    mean[:] = 0.0
    for t in range(count):
        add_scaled(rows, t * width, width, unit, mean, 0)
    set_scaled(mean, 0, width, unit / np.float32(count), mean, 0)
    for t in range(count):
        add_scaled(mean, 0, width, -unit, rows, t * width)


@helper
def _measure(rows, count, width, lengths):
    """Write the length of each row."""
    for t in range(count):
        lengths[t] = math.sqrt(square_sum(rows, t * width, width))


# -- phi: SimHash assigns tokens to cells


@helper
def _sign(rows, count, partition, masks):
    """Write the signs of all products to `masks`, uint16 (panels + 1, room).

    Bit j of a mask is the sign at hyperplane j of the panel.
    """
    width, planes, flat = partition.center.shape[0], partition.planes, masks.reshape(-1)
    panels, room = masks.shape[0] - 1, masks.shape[1]
    for panel in range(0, panels, 2):
        for row in range(0, count, ROWS):
            at = panel * room + row
            if panel + 1 < panels:
                tile_signs_of_two(rows, row, count - 1, width, planes, panel, flat, at, room)
            else:
                tile_signs(rows, row, count - 1, width, planes, panel, flat, at, 1)


@helper
def _read_codes(masks, count, repetition, bits, codes):
    """Write the tokens' codes in one repetition; a code may span two masks."""
    first = repetition * bits
    shift, most = np.int32(first % LANES), np.int32((1 << bits) - 1)
    low, high = masks[first // LANES, :count], masks[first // LANES + 1, :count]
    for t in range(count):
        word = np.int32(low[t]) | (np.int32(high[t]) << 16)
        codes[t] = np.uint32((word >> shift) & most)


@helper
def _find_slots(counts, heads, slots):
    """List cells with tokens as slots, and behind them the empty cells.

    A slot is the code of a cell, its first token and the number of its tokens.  Return
    the number of slots.
    """
    held, cells = np.int64(0), slots.shape[1]
    for code in range(cells):
        # Without a branch, which the processor could not predict.
        occupied = counts[code] > 0
        slot = held if occupied else cells - 1 - (code - held)
        slots[0, slot] = code
        slots[1, slot] = heads[code]
        slots[2, slot] = counts[code]
        held += occupied
    return held


@helper
def _list_tokens(codes, count, counts, heads, following, slots):
    """Link each cell's tokens to a list, in order; return the number of slots."""
    counts[:] = 0
    # Backwards, so that the first token becomes the head.  One pass is faster than
    # sorting, because each access to a counter waits for the last access.
    for t in range(count - 1, -1, -1):
        code = codes[t]
        following[t] = heads[code]
        heads[code] = t
        counts[code] += 1
    return _find_slots(counts, heads, slots)


# -- aggregate: the sum of a cell's tokens; factors make it their mean


@helper
def _aggregate(rows, following, slots, held, width, sums):
    """Write the sum of the tokens of each of `held` slots."""
    for slot in range(held):
        sum_list(rows, following, slots[1, slot], slots[2, slot], width, sums, slot * width)


@helper
def _scale(following, slots, held, lengths, cells, weight, sums, scales):
    """Write the factors that turn sums into values of document cells, times `weight`.

    The mean of a cell's tokens is their sum divided by their number, its direction the
    sum divided by its length.
    """
    width = sums.shape[0] // scales.shape[0]
    for slot in range(held):
        token, count = slots[1, slot], slots[2, slot]
        number = np.float32(count)
        if cells.value == CELL_MEAN:
            scales[slot] = weight / number
            continue
        square = square_sum(sums, slot * width, width)
        # Tokens that cancel exactly have no direction: their block stays zero.
        scale = weight / math.sqrt(square) if square > 0 else np.float32(0.0)
        if cells.split or cells.value == CELL_LENGTH:
            total = np.float32(0.0)
            for _ in range(count):
                total += lengths[token]
                token = following[token]
            if cells.value == CELL_LENGTH:
                scale *= total / number
            # Residuals cancel if one cell has all tokens: their sum has only the
            # direction of rounding errors.
            if square <= CANCELED * total * total:
                scale = np.float32(0.0)
        scales[slot] = scale


# -- fill empty document cells


@helper
def _nearest_token(code, slots, held):
    """Return the token whose code differs least from `code`; of ties, the first.

    A cell's first token stands for the cell, because all its tokens have one code.
    """
    # The number of bits stands above the token, so that one minimum compares both.
    nearest = np.int64(1) << 62
    for slot in range(held):
        distance = count_bits(slots[0, slot] ^ code)
        nearest = min(nearest, (distance << _TOKEN_BITS) | slots[1, slot])
    return nearest & ((np.int64(1) << _TOKEN_BITS) - 1)


@helper
def _fill_empty_cells(held, slots):
    """Make each empty cell a slot of the nearest token; return the number of slots."""
    cells = slots.shape[1]
    for slot in range(held, cells):
        slots[1, slot] = _nearest_token(slots[0, slot], slots, held)
        slots[2, slot] = 1
    return cells


@helper
def _clear_empty_cells(places, held, columns, fde):
    """Write zero to the blocks of the empty cells, which stand behind the slots."""
    for slot in range(held, places.shape[0]):
        for j in range(places[slot], places[slot] + columns):
            fde[j] = 0.0


# -- psi: project each cell, and write its block


@helper
def _place(slots, position, repetition, columns, places):
    """Write the positions of all cells' blocks in the FDE, in the order of `slots`."""
    cells = position.shape[0]
    for slot in range(cells):
        places[slot] = (repetition * cells + position[slots[0, slot]]) * columns


@helper
def _write(sums, scales, places, held, matrices, repetition, columns, fde):
    """Project and scale the sums of `held` slots, and write them to their places."""
    width = sums.shape[0] // scales.shape[0]
    if matrices.shape[0] == 0:
        for slot in range(held):
            for j in range(columns):
                fde[places[slot] + j] = sums[slot * width + j] * scales[slot]
        return
    panels = (columns + LANES - 1) // LANES
    for panel in range(columns // LANES):
        at = repetition * panels + panel
        for row in range(0, held, ROWS):
            tile_scatter(sums, row, held - 1, width, matrices, at, scales, fde, places, panel * LANES)
    first = columns // LANES * LANES
    if first < columns:
        tile = np.empty(ROWS * LANES, np.float32)
        for row in range(0, held, ROWS):
            tile_dot(sums, row, held - 1, width, matrices, repetition * panels + panels - 1, tile, 0)
            for slot in range(row, min(row + ROWS, held)):
                for j in range(first, columns):
                    fde[places[slot] + j] = tile[(slot - row) * LANES + j - first] * scales[slot]


@kernel
def encode_documents(tokens, first, last, partition, projection, cells, weight, out):
    """Write the FDEs of documents first..last - 1 (section 2, F_doc).

    For repetition r and cell c, with the tokens P_c of document P in this cell:

        F_doc(P)_(r, c) = weight * psi_r(sum of P_c / |P_c|)

    `partition` assigns tokens to cells, and `projection` is psi.  `cells` gives the
    value of a cell, if it is not the mean.  An empty cell takes the token whose code
    differs least from c, or stays zero without ``cells.fill``.  The FDE of a document
    without tokens is zero.

    `out` is float32 (last - first, n), where n is at least R_reps * C * d_proj.  Row i
    receives the FDE of document ``first + i`` in its first columns; the others stay
    unchanged.
    """
    width, cell_count = partition.center.shape[0], partition.position.shape[0]
    repetitions, bits, columns = partition.repetitions, partition.bits, projection.columns
    position, matrices = partition.position, projection.matrices
    longest = longest_text(tokens.offsets, first, last)
    rows = empty_floats((longest + ROWS) * width + LANES)
    # One extra mask, because a code may be read across two masks.
    masks = np.zeros(((repetitions * bits + LANES - 1) // LANES + 1, longest + ROWS), np.uint16)
    codes = np.empty(longest, np.uint32)
    counts, heads = np.empty(cell_count, np.int64), np.zeros(cell_count, np.int64)
    following = np.empty(longest, np.int64)
    slots, places = np.empty((3, cell_count), np.int64), np.empty(cell_count, np.int64)
    sums, scales = empty_floats(cell_count * width), np.empty(cell_count, np.float32)
    mean, lengths = np.empty(width, np.float32), np.empty(longest, np.float32)
    for document in range(first, last):
        fde = out[document - first, : repetitions * cell_count * columns]
        count = _load(tokens, document, partition.center, rows)
        if count == 0:
            fde[:] = 0.0
            continue
        _sign(rows, count, partition, masks)
        if cells.split:
            _subtract_mean(rows, count, mean)
        if cells.value != CELL_MEAN:
            _measure(rows, count, width, lengths)
        for repetition in range(repetitions):
            _read_codes(masks, count, repetition, bits, codes)
            held = _list_tokens(codes, count, counts, heads, following, slots)
            _place(slots, position, repetition, columns, places)
            if cells.fill:
                held = _fill_empty_cells(held, slots)
            else:
                _clear_empty_cells(places, held, columns, fde)
            _aggregate(rows, following, slots, held, width, sums)
            _scale(following, slots, held, lengths, cells, weight, sums, scales)
            _write(sums, scales, places, held, matrices, repetition, columns, fde)


# -- queries: soft cells


@helper
def _multiply(rows, count, partition, products):
    """Write the products with all hyperplanes to `products` (panels, room, LANES)."""
    width, planes, flat = partition.center.shape[0], partition.planes, products.reshape(-1)
    panels, room, _ = products.shape
    for panel in range(panels):
        for row in range(0, count, ROWS):
            at = (panel * room + row) * LANES
            tile_dot(rows, row, count - 1, width, planes, panel, flat, at)


@helper
def _assign(products, count, repetition, partition, codes, nearest, margins):
    """Write each token's code, its nearest hyperplane and the distance from that."""
    flat, room = products.reshape(-1), products.shape[1]
    bits, norms = partition.bits, partition.inverse_norms
    for t in range(count):
        codes[t], nearest[t], margins[t] = 0, 0, np.inf
    for j in range(bits):
        plane = repetition * bits + j
        start, norm = plane // LANES * room * LANES + plane % LANES, norms[plane]
        for t in range(count):
            value = flat[start + t * LANES]
            distance = abs(value) * norm
            # Without branches, which the processor could not predict.
            codes[t] |= np.uint32(value > 0) << np.uint32(j)
            nearest[t] = j if distance < margins[t] else nearest[t]
            margins[t] = min(distance, margins[t])


@helper
def _share(codes, nearest, margins, count, softness, entries, shares):
    """Divide each token among two cells.

    A token at distance m from its nearest hyperplane belongs to the cell across it with
    the share exp(-m / softness) / 2, and to its cell with the rest.  The `entries`
    2 t and 2 t + 1 are the codes of the cells of token t.
    """
    for t in range(count):
        across = np.float32(0.5) * np.float32(math.exp(-margins[t] / softness))
        entries[2 * t], shares[2 * t] = codes[t], np.float32(1.0) - across
        # A share of zero stays in the token's cell, where it changes nothing.
        other = codes[t] ^ (np.uint32(1) << nearest[t])
        entries[2 * t + 1], shares[2 * t + 1] = other if across > 0 else codes[t], across


@helper
def _list_entries(entries, count, step, counts, heads, following, slots):
    """Link each cell's entries to a list, in order, of every `step`-th entry.

    Return the number of slots.
    """
    counts[:] = 0
    for e in range(2 * count - step, -1, -step):
        code = entries[e]
        following[e] = heads[code]
        heads[code] = e
        counts[code] += 1
    return _find_slots(counts, heads, slots)


@helper
def _aggregate_shares(rows, following, shares, slots, held, width, sums):
    """Write the sum of the entries of each of `held` slots."""
    for slot in range(held):
        head, count = slots[1, slot], slots[2, slot]
        sum_shares(rows, following, shares, head, count, width, sums, slot * width)


@kernel
def encode_queries(tokens, first, last, partition, projection, softness, weight, out):
    """Write the FDEs of queries first..last - 1 (section 2, F_q).

    For repetition r and cell c, with the tokens Q_c of query Q in this cell:

        F_q(Q)_(r, c) = weight * psi_r(sum of Q_c)

    Tokens are assigned to cells after subtracting the center.  Their values are not
    centered, because that would change the ranking.

    `softness` is tau of soft cells, which are not in the paper: a token at distance m
    from its nearest hyperplane is in the cell across it with weight exp(-m / tau) / 2,
    and in the token's cell with the rest.  0 turns them off.

    `out` is as for :func:`encode_documents`.
    """
    width, cell_count = partition.center.shape[0], partition.position.shape[0]
    repetitions, bits, columns = partition.repetitions, partition.bits, projection.columns
    position, matrices = partition.position, projection.matrices
    longest = longest_text(tokens.offsets, first, last)
    rows = empty_floats((longest + ROWS) * width + LANES)
    no_center = np.zeros(width, np.float32)
    panels = (repetitions * bits + LANES - 1) // LANES
    products = empty_floats(panels * (longest + ROWS) * LANES).reshape(panels, longest + ROWS, LANES)
    codes, nearest = np.empty(longest, np.uint32), np.empty(longest, np.uint32)
    margins = np.empty(longest, np.float32)
    # A token has two entries, of which only the first is used without soft cells.
    entries, following = np.empty(2 * longest, np.uint32), np.empty(2 * longest, np.int64)
    shares = np.ones(2 * longest, np.float32)
    counts, heads = np.empty(cell_count, np.int64), np.zeros(cell_count, np.int64)
    slots, places = np.empty((3, cell_count), np.int64), np.empty(cell_count, np.int64)
    sums, scales = empty_floats(cell_count * width), np.full(cell_count, weight, np.float32)
    for query in range(first, last):
        fde = out[query - first, : repetitions * cell_count * columns]
        count = _load(tokens, query, partition.center, rows)
        _multiply(rows, count, partition, products)
        _load(tokens, query, no_center, rows)
        for repetition in range(repetitions):
            _assign(products, count, repetition, partition, codes, nearest, margins)
            if softness > 0:
                _share(codes, nearest, margins, count, softness, entries, shares)
            else:
                for t in range(count):
                    entries[2 * t] = codes[t]
            step = 1 if softness > 0 else 2
            held = _list_entries(entries, count, step, counts, heads, following, slots)
            _place(slots, position, repetition, columns, places)
            _clear_empty_cells(places, held, columns, fde)
            _aggregate_shares(rows, following, shares, slots, held, width, sums)
            _write(sums, scales, places, held, matrices, repetition, columns, fde)
