"""The steps of an FDE, compiled (arXiv 2405.19504, section 2).

    phi     SimHash assigns each token to one of B = 2**k_sim cells       :func:`_sign`
    (q, d)  a query's cell is the sum of its tokens, a document's the mean  :func:`_aggregate`
    fill    an empty document cell takes the nearest token                :func:`_fill_empty_cells`
    psi     each cell's vector is projected to d_proj floats              :func:`_project`
    F       blocks of all cells and repetitions stand side by side        :func:`_write`

Sizes: d columns of a token, `width` = d rounded up to LANES, R_reps `repetitions` of
k_sim `bits` hyperplanes each, C = 2**k_sim cells, d_proj columns of a `block`.  Rows of
`width` floats are stored flat.  Bit j of a cell's *code* is set if hyperplane j of its
repetition has a positive product.

Every sum has a fixed order, see :mod:`muvera.kernels.tile`.  So the bits of an FDE
depend neither on the batch nor on the number of threads, nor on the vector width.
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
    sum_rows,
    sum_scaled_rows,
)
from ..kernels.tile import LANES, ROWS, tile_dot, tile_scatter, tile_signs, tile_signs_of_two

#: Value of a document cell: the mean of its tokens, its direction with length 1, or its
#: direction with the mean length of the tokens.
CELL_MEAN = 0
CELL_UNIT = 1
CELL_LENGTH = 2

# Tokens cancel if the square of their sum is at most this share of the square of their
# total length.
_CANCELED = np.float32(1e-6)


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
        R_reps.
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
        d_proj.
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


class _Entries(NamedTuple):
    """Tokens with their cells in one repetition, in the order of the tokens.

    A document's token has one entry, a query's token up to two.
    """

    #: Code of the cell, uint32 (entries,); unsigned positions need no check for negative ones.
    codes: NDArray[np.uint32]
    #: Token, int64 (entries,), and its weight in the cell, float32 (entries,); documents
    #: need neither.
    tokens: NDArray[np.int64]
    shares: NDArray[np.float32]


class _Members(NamedTuple):
    """The same entries, sorted by cell; within a cell they keep their order.

    A *slot* is a cell that has entries.
    """

    #: Token of each entry, int64 (entries + C,), and its weight, float32 (entries,).
    tokens: NDArray[np.int64]
    shares: NDArray[np.float32]
    #: Number of entries before each code, int64 (C + 1,).
    starts: NDArray[np.int64]
    #: Of each slot: code, first entry and the one after the last, int64 (3, C).  The
    #: codes of the empty cells stand behind the slots.
    slots: NDArray[np.int64]


class _Blocks(NamedTuple):
    """The slots of one repetition on their way from sums to blocks of the FDE."""

    #: float32 (C * width,), sums of tokens.
    sums: NDArray[np.float32]
    #: float32 (C,), factors of the projected sums.
    scales: NDArray[np.float32]
    #: int64 (C,), positions of the blocks in the FDE.
    places: NDArray[np.int64]
    #: float32 (ROWS * LANES,), projected sums that do not fill LANES.
    tile: NDArray[np.float32]


# Helpers name the arrays of a tuple once, at their start: each look-up counts references.


@helper
def _new_members(entries, cells):
    """Return arrays for `entries` entries and one more per cell."""
    return _Members(
        np.empty(entries + cells, np.int64),
        np.empty(entries, np.float32),
        np.empty(cells + 1, np.int64),
        np.empty((3, cells), np.int64),
    )


@helper
def _new_blocks(cells, width):
    """Return arrays for the slots of a repetition."""
    sums, tile = empty_floats(cells * width), empty_floats(ROWS * LANES)
    return _Blocks(sums, np.empty(cells, np.float32), np.empty(cells, np.int64), tile)


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
    """Write the mean of the first `count` rows to `mean` and subtract it from each of them."""
    one, width = np.float32(1.0), mean.shape[0]
    mean[:] = 0.0
    for t in range(count):
        add_scaled(rows, t * width, width, one, mean, 0)
    set_scaled(mean, 0, width, one / np.float32(count), mean, 0)
    for t in range(count):
        add_scaled(mean, 0, width, -one, rows, t * width)


@helper
def _measure(rows, count, width, lengths):
    """Write the length of each row."""
    for t in range(count):
        lengths[t] = math.sqrt(square_sum(rows, t * width, width))


# -- phi: SimHash assigns tokens to cells


@helper
def _sign(rows, count, partition, masks):
    """Write the signs of the products with all hyperplanes to `masks` (panels + 1, room).

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
def _count_entries(codes, count, starts):
    """Write the number of entries before each code to ``starts[1:]``, and zero to the first."""
    starts[:] = 0
    sizes = starts[1:]
    for e in range(count):
        sizes[codes[e]] += 1
    total = np.int64(0)
    for code in range(sizes.shape[0]):
        size = sizes[code]
        sizes[code] = total
        total += size


@helper
def _find_slots(members):
    """List the cells with entries as slots, and behind them the empty cells; return the number of slots."""
    starts, slots, held = members.starts, members.slots, np.int64(0)
    cells = slots.shape[1]
    for code in range(cells):
        occupied = starts[code + 1] > starts[code]
        # Without a branch, which the processor could not predict.
        slot = held if occupied else cells - 1 - (code - held)
        slots[0, slot] = code
        slots[1, slot] = starts[code]
        slots[2, slot] = starts[code + 1]
        held += occupied
    return held


@helper
def _group_tokens(codes, count, members):
    """Sort a document's tokens by cell; return the number of slots."""
    starts, tokens = members.starts, members.tokens
    _count_entries(codes, count, starts)
    following = starts[1:]
    for t in range(count):
        place = following[codes[t]]
        # In the end this is the end of the cell, where the next one starts.
        following[codes[t]] = place + 1
        tokens[place] = t
    return _find_slots(members)


@helper
def _group_entries(entries, count, members):
    """Sort a query's entries by cell; return the number of slots."""
    codes, entry_tokens, entry_shares = entries.codes, entries.tokens, entries.shares
    starts, tokens, shares = members.starts, members.tokens, members.shares
    _count_entries(codes, count, starts)
    following = starts[1:]
    for e in range(count):
        place = following[codes[e]]
        following[codes[e]] = place + 1
        tokens[place] = entry_tokens[e]
        shares[place] = entry_shares[e]
    return _find_slots(members)


# -- aggregate: the sum of a cell's tokens; factors make it their mean


@helper
def _aggregate(rows, members, held, width, sums):
    """Write the sum of the tokens of each of `held` slots."""
    tokens, slots = members.tokens, members.slots
    for slot in range(held):
        sum_rows(rows, tokens, slots[1, slot], slots[2, slot], width, sums, slot * width)


@helper
def _aggregate_shares(rows, members, held, width, sums):
    """Write the sum of the tokens of each of `held` slots, times their shares."""
    tokens, shares, slots = members.tokens, members.shares, members.slots
    for slot in range(held):
        start, stop = slots[1, slot], slots[2, slot]
        sum_scaled_rows(rows, tokens, shares, start, stop, width, sums, slot * width)


@helper
def _scale(members, held, lengths, cells, weight, blocks):
    """Write the factors that turn sums into the values of document cells, times `weight`.

    The mean of a cell's tokens is their sum divided by their number, its direction the
    sum divided by its length.
    """
    tokens, slots, sums, scales = members.tokens, members.slots, blocks.sums, blocks.scales
    width = sums.shape[0] // scales.shape[0]
    for slot in range(held):
        start, stop = slots[1, slot], slots[2, slot]
        number = np.float32(stop - start)
        if cells.value == CELL_MEAN:
            scales[slot] = weight / number
            continue
        square = square_sum(sums, slot * width, width)
        # Tokens that cancel exactly have no direction: their block stays zero.
        scale = weight / math.sqrt(square) if square > 0 else np.float32(0.0)
        if cells.split or cells.value == CELL_LENGTH:
            total = np.float32(0.0)
            for place in range(start, stop):
                total += lengths[tokens[place]]
            if cells.value == CELL_LENGTH:
                scale *= total / number
            # Residuals cancel if one cell has all tokens: their sum has only the
            # direction of rounding errors.
            if square <= _CANCELED * total * total:
                scale = np.float32(0.0)
        scales[slot] = scale


# -- fill empty document cells


@helper
def _nearest_token(code, slots, held, tokens):
    """Return the token whose code differs from `code` in the fewest bits; of ties, the first."""
    # The number of bits above the token, so that one minimum compares both.
    nearest = np.int64(1) << 62
    for slot in range(held):
        nearest = min(nearest, (count_bits(slots[0, slot] ^ code) << 48) | tokens[slots[1, slot]])
    return nearest & ((np.int64(1) << 48) - 1)


@helper
def _fill_empty_cells(count, held, members):
    """Give each cell without tokens the nearest token as its only one; return the number of slots."""
    slots, tokens = members.slots, members.tokens
    cells = slots.shape[1]
    for slot in range(held, cells):
        place = count + slot - held
        tokens[place] = _nearest_token(slots[0, slot], slots, held, tokens)
        slots[1, slot] = place
        slots[2, slot] = place + 1
    return cells


@helper
def _clear_empty_cells(held, members, position, columns, blocks_of_repetition):
    """Write zero to the blocks of the cells without tokens."""
    slots = members.slots
    for slot in range(held, slots.shape[1]):
        start = position[slots[0, slot]] * columns
        for j in range(start, start + columns):
            blocks_of_repetition[j] = 0.0


# -- psi: project each cell, and write its block


@helper
def _write(blocks, members, held, partition, repetition, projection, fde):
    """Project the sums of `held` slots, scale them, and write them to their blocks of `fde`."""
    sums, scales, tile, slots = blocks.sums, blocks.scales, blocks.tile, members.slots
    position, places = partition.position, blocks.places
    matrices, columns = projection.matrices, projection.columns
    width, cells = sums.shape[0] // scales.shape[0], position.shape[0]
    for slot in range(held):
        places[slot] = (repetition * cells + position[slots[0, slot]]) * columns
    if matrices.shape[0] == 0:
        for slot in range(held):
            for j in range(columns):
                fde[places[slot] + j] = sums[slot * width + j] * scales[slot]
        return
    panels = (columns + LANES - 1) // LANES
    for panel in range(panels):
        at, first = repetition * panels + panel, panel * LANES
        for row in range(0, held, ROWS):
            if first + LANES <= columns:
                tile_scatter(sums, row, held - 1, width, matrices, at, scales, fde, places, first)
                continue
            tile_dot(sums, row, held - 1, width, matrices, at, tile, 0)
            for slot in range(row, min(row + ROWS, held)):
                for j in range(first, columns):
                    fde[places[slot] + j] = tile[(slot - row) * LANES + j - first] * scales[slot]


@kernel
def encode_documents(tokens, first, last, partition, projection, cells, weight, out):
    """Write the FDEs of documents first..last to ``out[0 : last - first]``: zero without tokens.

    Parameters
    ----------
    tokens : Tokens
    first, last : int
    partition : Partition
    projection : Projection
    cells : Cells
    weight : numpy.float32
        Multiplies every entry.
    out : numpy.ndarray
        float32 (last - first, at least R_reps * C * d_proj).
    """
    width, cell_count = partition.center.shape[0], partition.position.shape[0]
    size = partition.repetitions * cell_count * projection.columns
    longest = longest_text(tokens.offsets, first, last)
    room = longest + ROWS
    rows = empty_floats(room * width + LANES)
    panels = (partition.repetitions * partition.bits + LANES - 1) // LANES
    masks = np.zeros((panels + 1, room), np.uint16)
    codes = np.empty(longest, np.uint32)
    members, blocks = _new_members(longest, cell_count), _new_blocks(cell_count, width)
    mean, lengths = np.empty(width, np.float32), np.empty(longest, np.float32)
    position, block = partition.position, cell_count * projection.columns
    for document in range(first, last):
        fde = out[document - first, :size]
        count = _load(tokens, document, partition.center, rows)
        if count == 0:
            fde[:] = 0.0
            continue
        _sign(rows, count, partition, masks)
        if cells.split:
            _subtract_mean(rows, count, mean)
        if cells.value != CELL_MEAN:
            _measure(rows, count, width, lengths)
        for repetition in range(partition.repetitions):
            _read_codes(masks, count, repetition, partition.bits, codes)
            held = _group_tokens(codes, count, members)
            if cells.fill:
                held = _fill_empty_cells(count, held, members)
            else:
                start = repetition * block
                _clear_empty_cells(held, members, position, projection.columns, fde[start : start + block])
            _aggregate(rows, members, held, width, blocks.sums)
            _scale(members, held, lengths, cells, weight, blocks)
            _write(blocks, members, held, partition, repetition, projection, fde)


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
def _assign_softly(products, count, partition, repetition, softness, entries):
    """Write the entries of a query's tokens in one repetition; return their number.

    A token at distance m from its nearest hyperplane belongs to the cell across it with
    weight exp(-m / softness) / 2, and to its own cell with the rest.
    """
    number, bits, norms = np.int64(0), partition.bits, partition.inverse_norms
    codes, tokens, shares = entries.codes, entries.tokens, entries.shares
    for t in range(count):
        code, nearest = 0, 0
        margin = np.float32(np.inf)
        for j in range(bits):
            plane = repetition * bits + j
            value = products[plane // LANES, t, plane % LANES]
            if value > 0:
                code |= 1 << j
            distance = abs(value) * norms[plane]
            if distance < margin:
                margin = distance
                nearest = j
        across = np.float32(0.0)
        if softness > 0 and bits > 0:
            across = np.float32(0.5) * np.float32(math.exp(-margin / softness))
        codes[number] = code
        tokens[number] = t
        shares[number] = np.float32(1.0) - across
        number += 1
        if across > 0:
            codes[number] = code ^ (1 << nearest)
            tokens[number] = t
            shares[number] = across
            number += 1
    return number


@kernel
def encode_queries(tokens, first, last, partition, projection, softness, weight, out):
    """Write the FDEs of queries first..last to ``out[0 : last - first]``.

    Tokens are assigned to cells after subtracting the center.  Their values are not
    centered, because that would change the ranking.

    Parameters
    ----------
    tokens : Tokens
    first, last : int
    partition : Partition
    projection : Projection
    softness : numpy.float32
        tau of soft cells, 0 without them.
    weight : numpy.float32
        Multiplies every entry.
    out : numpy.ndarray
        float32 (last - first, at least R_reps * C * d_proj).
    """
    width, cell_count = partition.center.shape[0], partition.position.shape[0]
    size = partition.repetitions * cell_count * projection.columns
    longest = longest_text(tokens.offsets, first, last)
    room = longest + ROWS
    rows = empty_floats(room * width + LANES)
    no_center = np.zeros(width, np.float32)
    panels = (partition.repetitions * partition.bits + LANES - 1) // LANES
    products = np.empty((panels, room, LANES), np.float32)
    entries = _Entries(
        np.empty(2 * longest, np.uint32), np.empty(2 * longest, np.int64), np.empty(2 * longest, np.float32)
    )
    members, blocks = _new_members(2 * longest, cell_count), _new_blocks(cell_count, width)
    blocks.scales[:] = weight
    for query in range(first, last):
        fde = out[query - first, :size]
        fde[:] = 0.0
        count = _load(tokens, query, partition.center, rows)
        _multiply(rows, count, partition, products)
        _load(tokens, query, no_center, rows)
        for repetition in range(partition.repetitions):
            number = _assign_softly(products, count, partition, repetition, softness, entries)
            held = _group_entries(entries, number, members)
            _aggregate_shares(rows, members, held, width, blocks.sums)
            _write(blocks, members, held, partition, repetition, projection, fde)
