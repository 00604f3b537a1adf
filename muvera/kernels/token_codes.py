"""Token codes: write them, decode them, and score documents by them.

Scores are computed through floats or through products of bytes.  A code is a row of
bytes: the number of the token's centroid (``id_bytes``, little-endian, may be 0), the
token's factor (float16, 2 bytes), and packed residuals.  The bits of a coordinate run
from the lowest to the highest, coordinates one after the other, and the first bit of a
byte is its highest, as in PLAID indexes.  A byte therefore holds ``keys = 8 / bits``
coordinates.

For scores by bytes, a code unpacks to a row of unsigned bytes u and a factor f.  An
entry of u is the centroid's byte plus that of the residual; no sum exceeds 255.  Rows
of fewer than 8 bits per coordinate are unpacked in chunks: a shuffle looks up all half
bytes (*nibbles*) of a vector in a table of 16 bytes, one for each coordinate of a
nibble.

A query token is rounded to signed bytes v, a unit, a bias and a constant.  The product
of the two is ``constant + unit * f * (<u, v> - bias)``; <u, v> is an exact integer, and
the rest is rounded in the same way on every machine.  The codes of the next document
are prefetched during the products of the current one: in random order, waiting for them
would take longer than the products.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numpy.typing import NDArray

from .byte_tile import ADDITIONS, STEP, emit_sums
from .jit import (
    BYTE,
    FASTEST,
    FLOAT,
    Intrinsic,
    broadcast,
    constant,
    emitted,
    helper,
    kernel,
    load_vector,
    look_up,
    plus,
    shuffle,
    store_vector,
    tile_rows,
    times,
)
from .rows import fetch, half_at
from .selection import STOPPED, enough, enter, excluded, record_error
from .tile import LANES, ROWS, raise_maxima

#: Bytes of a factor.
FACTOR_BYTES = 2

#: Coordinates that are unpacked together.
CHUNK = 64

#: Rows of a tile of two panels, which has as many accumulators as one of ROWS rows and
#: one panel.
PAIR_ROWS = ROWS // 2

_FLOATS = ir.VectorType(FLOAT, LANES)

# Largest absolute value of a query's byte.
_MOST = 127

# Tokens whose bytes are unpacked together: a multiple of ROWS that fits into the
# first-level cache.
_UNPACKED = 64

# Tokens that are decoded to floats together, which take four times the memory.
_DECODED = 4 * ROWS


class CodeFormat(NamedTuple):
    """The layout of a codec's codes, and the values that they encode.

    A code has `width` bytes; the values are floats and bytes.  With `bits`, `centers`
    (flat) are in units of `scales`, and `levels` (flat) is the :func:`byte_table` of
    each byte's coordinates.  `center_bytes` (flat) has a row of whole chunks for each
    centroid; `level_bytes` has the tables of a nibble, or of a byte for 8 bits.
    Without `bits`, a coordinate is a byte: 128 plus the number of steps from the only
    center.  A code contains a factor, in multiples of `unit`.
    """

    width: int
    id_bytes: int
    bits: int
    unit: np.float32
    centers: NDArray[np.float32]
    levels: NDArray[np.float32]
    scales: NDArray[np.float32]
    center_bytes: NDArray[np.uint8]
    level_bytes: NDArray[np.uint8]


class QueryRounding(NamedTuple):
    """How to round a query to bytes.

    Its tokens are multiplied by `scales` (n,).  `zero` is the byte of the value 0 in
    document tokens.  `shift` (n,) is added to their decoded bytes: before these are
    multiplied by their factor if `shift_first`, or after.
    """

    scales: NDArray[np.float32]
    shift: NDArray[np.float32]
    shift_first: bool
    zero: float


class CodeQuery(NamedTuple):
    """A query of M tokens rounded to bytes, packed by pack_bytes.

    `biases` has an entry for each column of a panel.
    """

    packed: NDArray[np.int8]
    biases: NDArray[np.float32]
    units: NDArray[np.float32]
    constants: NDArray[np.float32]


def byte_table(weights: np.ndarray, nbits: int) -> np.ndarray:
    """Return the weights of each byte's coordinates, lowest first.

    The result is float32 (256, 8 // nbits).
    """
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
    buckets = (bits.reshape(256, 8 // nbits, nbits) << np.arange(nbits)).sum(2)
    return np.ascontiguousarray(weights[buckets], np.float32)


@helper
def _find_buckets(row, stretch, center, inverse_scales, thresholds, values, buckets):
    """Write the bucket of each scaled residual of the stretched `row`.

    A bucket is the number of `thresholds` below the residual.
    """
    for j in range(row.shape[0]):
        values[j] = (row[j] * stretch - center[j]) * inverse_scales[j]
    buckets[:] = 0
    for threshold in thresholds:
        for j in range(row.shape[0]):
            buckets[j] += np.uint8(values[j] > threshold)


@kernel
def write_residuals(
    rows, centers, numbers, inverse_scales, thresholds, levels, scales, bits, stretches, packed, norms
):  # fmt: skip
    """Write the bits of each row's residuals, and the norm of the decoded vector.

    The bits go to `packed` (n, bytes), which is zero.  Only the direction of that
    vector matters, since its length is restored by the factor.  So the row is stretched
    by the first of the `stretches` with the smallest angle.  `numbers` (n,) are the
    rows' centroids among `centers`.  Bucket i of a coordinate lies above i thresholds;
    levels are in units of its scale.
    """
    count, dimension = rows.shape
    values, buckets = np.empty(dimension, np.float32), np.empty(dimension, np.uint8)
    chosen = np.empty(dimension, np.uint8)
    for t in range(count):
        center = centers[numbers[t]]
        largest = -np.inf
        for stretch in stretches:
            _find_buckets(rows[t], stretch, center, inverse_scales, thresholds, values, buckets)
            square, inner = 0.0, 0.0
            for j in range(dimension):
                value = np.float64(center[j] + scales[j] * levels[buckets[j]])
                square += value * value
                inner += value * rows[t, j]
            cosine = inner / np.sqrt(square) if square > 0 else 0.0
            if cosine > largest:
                largest, norms[t] = cosine, np.sqrt(square)
                for j in range(dimension):
                    chosen[j] = buckets[j]
        place = 0
        for j in range(dimension):
            for bit in range(bits):
                if (chosen[j] >> bit) & 1:
                    packed[t, place >> 3] |= np.uint8(128 >> (place & 7))
                place += 1


@helper
def _write_numbers(codes, first, last, width, id_bytes, most, numbers):
    """Write the centroid numbers of the codes first..last, each limited to `most`."""
    for token in range(first, last):
        number = np.int64(codes[token * width])
        for i in range(1, id_bytes):
            number |= np.int64(codes[token * width + i]) << (8 * i)
        numbers[token - first] = min(number, most)


# -- decoding


@helper
def _decode_rows(numbers, centers, codes, start, width, levels, out):
    """Write each token's center plus the levels of its coordinates to `out` (n, d).

    `centers` and `codes` are flat; the residual bits of token i begin at ``start + i *
    width``.
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

    They are decoded from their centroids (n,) and residual bits (n, width).  `table` is
    that of :func:`byte_table`.  With `normalize`, a token is divided by the larger of
    its norm and 1e-12.
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


def decode_codes(codes: NDArray[np.uint8], form: CodeFormat, out: NDArray[np.float32]) -> None:
    """Write the decoded codes (flat) of the format `form` to `out`, float32 (n, d)."""
    (_decode_residuals if form.bits else _decode_bytes)(codes, form, out)


@kernel
def _decode_bytes(codes, form, out):
    """Decode codes without residual bits."""
    width = form.width
    for token in range(out.shape[0]):
        row, steps = out[token], codes[token * width + FACTOR_BYTES :]
        factor = half_at(codes, token * width) * form.unit
        for j in range(out.shape[1]):
            row[j] = (np.float32(steps[j]) - np.float32(128)) * factor + form.centers[j]


@kernel
def _decode_residuals(codes, form, out):
    """Decode codes with residual bits."""
    count, dimension = out.shape
    width, start = form.width, form.id_bytes + FACTOR_BYTES
    numbers = np.empty(count, np.int64)
    _write_numbers(codes, 0, count, width, form.id_bytes, len(form.centers) // dimension - 1, numbers)
    _decode_rows(numbers, form.centers, codes, start, width, form.levels, out)
    for token in range(count):
        row, factor = out[token], half_at(codes, token * width + form.id_bytes) * form.unit
        for j in range(dimension):
            row[j] = row[j] * form.scales[j] * factor


def _scoring_decoded(residuals: bool) -> Any:
    """Return the kernel of :func:`score_decoded` for codes with or without residuals.

    Only the branch of these codes is compiled.
    """

    @kernel
    def score(codes, offsets, documents, form, packed, count, estimates, errors, heap, out):
        depth, width = len(form.scales), form.width
        panels = packed.shape[0] // (depth * LANES)
        decoded = np.empty((_DECODED, depth), np.float32)
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
            for first in range(start, stop, _DECODED):
                last = min(first + _DECODED, stop)
                fetch(codes, following + (first - start) * width, following + (last - start) * width)
                part, written = codes[first * width : last * width], decoded[: last - first]
                if residuals:
                    _decode_residuals(part, form, written)
                else:
                    _decode_bytes(part, form, written)
                for row in range(0, last - first, ROWS):
                    for panel in range(0, panels, 2):
                        raise_maxima(rows, row, last - first - 1, depth, packed, panel, panels, best)
            total = 0.0
            for token in range(count):
                total += best[token]
            out[i] = total
            record_error(i, out[i], estimates, errors)
            if out[i] > heap[0]:
                enter(heap, out[i])

    return score


_score_decoded_bytes = _scoring_decoded(residuals=False)
_score_decoded_residuals = _scoring_decoded(residuals=True)


def score_decoded(
    codes: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    documents: NDArray[np.int64],
    form: CodeFormat,
    *arguments: Any,
) -> None:
    """Write the Chamfer similarities of decoded documents with one query.

    `documents` (c,) are their numbers, `out` is (c,), and the query has `count`
    tokens.  They have the bits of :func:`muvera.kernels.chamfer.score_documents`, or
    are -inf for all documents that remain once an estimate excludes one.  See
    :func:`muvera.kernels.chamfer.score_with_pruning`.
    """
    score = _score_decoded_residuals if form.bits else _score_decoded_bytes
    score(codes, offsets, documents, form, *arguments)


# -- scores by bytes


def make_unpack(bits: int, shuffles: str) -> Intrinsic:
    """Return the intrinsic that unpacks CHUNK coordinates by one of the SHUFFLES.

    It looks up the bits from ``codes[start]`` on in `tables`, adds
    ``centers[center:]``, and writes the sums to ``out[position:]``; all are flat bytes.
    """
    per_nibble, width = 4 // bits, CHUNK * bits // 8
    order = [i + half * width for i in range(width) for half in range(2) for _ in range(per_nibble)]

    @emitted
    def unpack(builder, codes, start, centers, center, tables, out, position):
        packed = load_vector(builder, builder.gep(codes, [start]), ir.VectorType(BYTE, width), align=1)
        high = builder.lshr(packed, constant(packed.type, 4))
        nibbles = shuffle(builder, high, builder.and_(packed, constant(packed.type, 15)), order)
        residuals = constant(nibbles.type, 0)
        for i in range(per_nibble):
            place = builder.gep(tables, [ir.Constant(start.type, 16 * i)])
            table = load_vector(builder, place, ir.VectorType(BYTE, 16), align=1)
            lanes = [j + CHUNK * (j % per_nibble == i) for j in range(CHUNK)]
            residuals = shuffle(builder, residuals, look_up(builder, shuffles, table, nibbles), lanes)
        base = load_vector(builder, builder.gep(centers, [center]), nibbles.type, align=1)
        store_vector(builder, builder.add(residuals, base), builder.gep(out, [position]), align=1)

    return unpack


def _unpack_rows(bits: int) -> Callable[..., Any]:
    """Return a function that unpacks the residuals of codes to rows.

    It takes `tokens` codes of `size` bytes each; a row has `stride` bytes.
    """
    unpack, step = make_unpack(bits, FASTEST), CHUNK * bits // 8

    @helper
    def rows(codes, start, width, size, tokens, centers, tables, numbers, rest, stride, out):
        whole = size // step
        for token in range(tokens):
            place, center, row = start + token * width, numbers[token] * stride, token * stride
            for i in range(whole):
                chunk = i * CHUNK
                unpack(codes, place + i * step, centers, center + chunk, tables, out, row + chunk)
            if whole * step < size:
                for i in range(size - whole * step):
                    rest[i] = codes[place + whole * step + i]
                chunk = whole * CHUNK
                unpack(rest, 0, centers, center + chunk, tables, out, row + chunk)

    return rows


# One loop per number of bits: with the choice inside, the tables would be loaded for
# every chunk.
_rows_of_1, _rows_of_2, _rows_of_4 = _unpack_rows(1), _unpack_rows(2), _unpack_rows(4)


@helper
def _unpack_residuals(
    codes, first, last, width, id_bytes, bits, centers, tables, numbers, rest, stride, out
):  # fmt: skip
    """Write the codes first..last to `out` and their centroids to `numbers`.

    `out` has rows of `stride` bytes, whole chunks.  `centers` and `tables` are the
    bytes of a :class:`CodeFormat`; `rest`, uint8 (CHUNK / 2,), is scratch memory.
    """
    residuals, tokens = id_bytes + FACTOR_BYTES, last - first
    start, size = first * width + residuals, width - residuals
    _write_numbers(codes, first, last, width, id_bytes, len(centers) // stride - 1, numbers)
    if bits == 1:
        _rows_of_1(codes, start, width, size, tokens, centers, tables, numbers, rest, stride, out)
    elif bits == 2:
        _rows_of_2(codes, start, width, size, tokens, centers, tables, numbers, rest, stride, out)
    elif bits == 4:
        _rows_of_4(codes, start, width, size, tokens, centers, tables, numbers, rest, stride, out)
    else:
        for token in range(tokens):
            place, center, row = start + token * width, numbers[token] * stride, token * stride
            for i in range(size):
                out[row + i] = centers[center + i] + tables[codes[place + i]]


def _raising(addition: str, panels: int) -> Intrinsic:
    """Return the intrinsic that raises maxima of `panels` panels.

    `addition` is one of the ADDITIONS.
    """

    @emitted
    def raise_maxima(builder, rows, start, stride, row, last, depth, packed, panel, biases, factors, best):
        places = tile_rows(builder, row, last, ROWS if panels == 1 else PAIR_ROWS)
        begins = [builder.add(start, builder.mul(place, stride)) for place in places]
        starts = [builder.gep(rows, [begin]) for begin in begins]
        numbers = [plus(builder, panel, i) for i in range(panels)]
        size = times(builder, depth, LANES)
        columns = [builder.gep(packed, [builder.mul(number, size)]) for number in numbers]
        panel_sums = emit_sums(builder, starts, depth, columns, ADDITIONS[addition])
        scales = [broadcast(builder, builder.load(builder.gep(factors, [place])), LANES) for place in places]
        for number, sums in zip(numbers, panel_sums, strict=True):
            column = times(builder, number, LANES)
            bias = load_vector(builder, builder.gep(biases, [column]), _FLOATS)
            target = builder.gep(best, [column])
            most = load_vector(builder, target, _FLOATS)
            for total, scale in zip(sums, scales, strict=True):
                value = builder.fmul(builder.fsub(builder.sitofp(total, _FLOATS), bias), scale)
                most = builder.select(builder.fcmp_ordered(">", value, most), value, most)
            store_vector(builder, most, target)

    return raise_maxima


def make_maxima(addition: str) -> tuple[Intrinsic, Intrinsic]:
    """Return the intrinsics that raise the maxima of one panel and of two.

    `addition` is one of the ADDITIONS.
    """
    return _raising(addition, 1), _raising(addition, 2)


#: Raise ``best`` to the products (without constants and units) of ROWS rows with one
#: panel, or of PAIR_ROWS rows with two panels.  Row i begins at ``start + i * stride``
#: of `rows` (flat).
one_panel, two_panels = make_maxima(list(ADDITIONS)[-1])


@kernel
def round_query(tokens, rounding, unit, query):
    """Round each scaled token (m, n), and write it to `query`.

    An entry is a multiple of a 127th of the token's largest entry.  Each factor is
    multiplied by `unit`.  The bytes and biases of `query` are zero before.
    """
    packed, depth = query.packed, query.packed.shape[0] // query.biases.shape[0]
    for i in range(tokens.shape[0]):
        product, peak = 0.0, np.float32(0)
        for j in range(tokens.shape[1]):
            value = tokens[i, j] * rounding.scales[j]
            product += np.float64(value) * np.float64(rounding.shift[j])
            peak = max(peak, abs(value))
        step = peak / np.float32(_MOST) if peak > 0 else np.float32(1)
        inverse = np.float32(1) / step
        total = 0
        panel = i // LANES * depth * LANES + i % LANES * STEP
        for j in range(tokens.shape[1]):
            number = int(np.rint(tokens[i, j] * rounding.scales[j] * inverse))
            number = max(-_MOST, min(_MOST, number))
            packed[panel + j // STEP * LANES * STEP + j % STEP] = number
            total += number
        query.biases[i] = rounding.zero * total
        query.units[i] = step * unit
        query.constants[i] = product
        if rounding.shift_first:
            query.biases[i] -= query.constants[i] / step
            query.constants[i] = 0.0


@helper
def _raise_block(
    rows, start, stride, count, packed, biases, factors, best, codes, width, ahead, ahead_stop
):  # fmt: skip
    """Raise `best` by `count` unpacked rows.

    Prefetch `count` codes from `ahead` on, but not beyond `ahead_stop`.
    """
    panels, depth = biases.shape[0] // LANES, packed.shape[0] // biases.shape[0]
    paired = panels - panels % 2
    ahead_stop = min(ahead + count * width, ahead_stop)
    if paired > 0:
        for row in range(0, count, PAIR_ROWS):
            fetch(codes, ahead, min(ahead + PAIR_ROWS * width, ahead_stop))
            ahead += PAIR_ROWS * width
            for panel in range(0, paired, 2):
                two_panels(rows, start, stride, row, count - 1, depth, packed, panel, biases, factors, best)
    if paired < panels:
        for row in range(0, count, ROWS):
            fetch(codes, ahead, min(ahead + ROWS * width, ahead_stop))
            ahead += ROWS * width
            one_panel(rows, start, stride, row, count - 1, depth, packed, paired, biases, factors, best)


def _scoring(residuals: bool) -> Any:
    """Return the kernel of :func:`score_codes` for codes with or without residuals.

    Only the branch of these codes is compiled.
    """

    @kernel
    def score(codes, offsets, documents, form, query, stop_at, heap, out):
        width, stride = form.width, -(-len(form.scales) // CHUNK) * CHUNK
        rows = np.zeros(_UNPACKED * stride, np.uint8)
        numbers, factors = np.empty(_UNPACKED, np.int64), np.empty(_UNPACKED, np.float32)
        rest = np.empty(CHUNK // 2, np.uint8)
        # Helpers take arrays: a call with a tuple counts references to all its arrays.
        packed, biases = query.packed, query.biases
        center_bytes, level_bytes = form.center_bytes, form.level_bytes
        best = np.empty(biases.shape[0], np.float32)
        stopping = stop_at.products.shape[0] > 0
        if stopping:
            out[:] = -np.inf
            if stop_at.state[STOPPED] > 0:
                return
        for i in range(documents.shape[0]):
            start, stop = offsets[documents[i]], offsets[documents[i] + 1]
            if start == stop:
                out[i] = -np.inf
                continue
            following = documents[min(i + 1, documents.shape[0] - 1)]
            ahead, ahead_stop = offsets[following] * width, offsets[following + 1] * width
            best[:] = -np.inf
            for first in range(start, stop, _UNPACKED):
                last = min(first + _UNPACKED, stop)
                count = last - first
                for token in range(count):
                    factors[token] = half_at(codes, (first + token) * width + form.id_bytes)
                if residuals:
                    _unpack_residuals(
                        codes, first, last, width, form.id_bytes, form.bits, center_bytes, level_bytes,
                        numbers, rest, stride, rows,
                    )  # fmt: skip
                    _raise_block(
                        rows, 0, stride, count, packed, biases, factors, best, codes, width, ahead, ahead_stop
                    )
                else:
                    begin = first * width + FACTOR_BYTES
                    _raise_block(
                        codes, begin, width, count, packed, biases, factors, best, codes, width, ahead,
                        ahead_stop,
                    )  # fmt: skip
                ahead += count * width
            fetch(codes, ahead, ahead_stop)
            total = 0.0
            for token in range(query.units.shape[0]):
                total += query.constants[token] + query.units[token] * best[token]
            out[i] = total
            if stopping:
                if out[i] > heap[0]:
                    enter(heap, out[i])
                if enough(out[i], stop_at.products, heap, stop_at.state):
                    return

    return score


_score_bytes, _score_residuals = _scoring(residuals=False), _scoring(residuals=True)


def score_codes(
    codes: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    documents: NDArray[np.int64],
    form: CodeFormat,
    *arguments: Any,
) -> None:
    """Write the Chamfer similarities of coded documents with one query.

    `documents` (c,) are their numbers; `out` (c,) gets -inf without tokens.  All
    remaining ones are -inf once the expected misses of `stop_at` are low enough, see
    :func:`muvera.kernels.chamfer.score_with_pruning`.
    """
    score = _score_residuals if form.bits else _score_bytes
    score(codes, offsets, documents, form, *arguments)
