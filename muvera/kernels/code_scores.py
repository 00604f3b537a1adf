"""Chamfer similarities of one query with coded documents, by products of bytes.

A token's code unpacks to a row of unsigned bytes u and a factor f, a query token to signed bytes v, a unit, a
bias and a constant.  Their product is ``constant + unit * f * (<u, v> - bias)``; <u, v> is an exact integer,
and the rest is rounded in the same way on every machine.  The codes of the next document are prefetched
during the products of the current one: in random order, waiting for them would take longer than the products.
"""

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from .byte_tile import ADDITIONS, STEP, emit_sums
from .chamfer import fetch
from .jit import helper, kernel
from .llvm_helpers import FLOAT, broadcast, entry_address, load_vector, store_vector, tile_rows
from .recall import STOPPED, enough, enter
from .tile import LANES, ROWS
from .token_codes import CHUNK, FACTOR_BYTES, unpack_residuals, write_factors

#: Rows in a tile of two panels, which has the same number of accumulators as a tile of ROWS rows and one
#: panel.
PAIR_ROWS = ROWS // 2

_FLOATS = ir.VectorType(FLOAT, LANES)

# Largest absolute value of a query's byte.
_MOST = 127

# Tokens that are unpacked together: a multiple of ROWS, few enough to stay in the first-level cache.
_BLOCK = 64


class QueryRounding(NamedTuple):
    """How to round a query to bytes.

    Its tokens are multiplied by `scales` (n,).  `zero` is the byte of the value 0 in document tokens.  `shift` (n,) is
    added to their decoded bytes: before these are multiplied by their factor if `shift_first`, or after.
    """

    scales: NDArray[np.float32]
    shift: NDArray[np.float32]
    shift_first: bool
    zero: float


class CodeQuery(NamedTuple):
    """A query of M tokens rounded to bytes.

    `packed` has panels of LANES tokens of `depth` bytes, as :func:`muvera.kernels.byte_tile.pack_bytes` packs them, and
    `biases` (panels * LANES,), `units` and `constants` (M,) are those of the tokens.
    """

    packed: NDArray[np.int8]
    biases: NDArray[np.float32]
    units: NDArray[np.float32]
    constants: NDArray[np.float32]


def _raising(addition: str, panels: int) -> Any:
    """Return the intrinsic that raises maxima of `panels` panels; `addition` is one of the ADDITIONS."""

    @intrinsic
    def compiled(typingctx, rows, start, stride, row, last, depth, packed, panel, biases, factors, best):
        word = types.intp
        signature = types.void(rows, word, word, word, word, word, packed, word, biases, factors, best)

        def generate(context, builder, signature, args):
            start, stride, row, last, depth, panel = args[1], args[2], args[3], args[4], args[5], args[7]

            def address(which: int, index: Any) -> Any:
                return entry_address(context, builder, signature.args[which], args[which], index)

            def times(value: Any, count: int) -> Any:
                return builder.mul(value, ir.Constant(value.type, count))

            places = tile_rows(builder, row, last, ROWS if panels == 1 else PAIR_ROWS)
            starts = [address(0, builder.add(start, builder.mul(place, stride))) for place in places]
            numbers = [builder.add(panel, ir.Constant(panel.type, i)) for i in range(panels)]
            columns = [address(6, builder.mul(number, times(depth, LANES))) for number in numbers]
            panel_sums = emit_sums(builder, starts, depth, columns, ADDITIONS[addition])
            scales = [broadcast(builder, builder.load(address(9, place)), LANES) for place in places]
            for number, sums in zip(numbers, panel_sums, strict=True):
                bias = load_vector(builder, address(8, times(number, LANES)), _FLOATS)
                target = address(10, times(number, LANES))
                best = load_vector(builder, target, _FLOATS)
                for total, scale in zip(sums, scales, strict=True):
                    value = builder.fsub(builder.sitofp(total, _FLOATS), bias)
                    value = builder.fmul(value, scale)
                    best = builder.select(builder.fcmp_ordered(">", value, best), value, best)
                store_vector(builder, best, target)
            return context.get_dummy_value()

        return signature, generate

    return compiled


def make_maxima(addition: str) -> tuple[Any, Any]:
    """Return the intrinsics that raise the maxima of one panel and of two, made with one of the ADDITIONS."""
    return _raising(addition, 1), _raising(addition, 2)


#: Raise ``best`` to the products (without constants and units) of ROWS rows with one panel, or of PAIR_ROWS
#: rows with two panels.  Row i begins at ``start + i * stride`` of `rows` (flat).
one_panel, two_panels = make_maxima(list(ADDITIONS)[-1])


@kernel
def round_query(tokens, rounding, unit, query):
    """Round each scaled token to whole multiples of a 127th of its largest entry, and write them to `query`.

    Tokens are float32 (m, n).  Each factor is multiplied by `unit`.  The bytes and biases of `query` are zero before.
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
    """Raise `best` by `count` unpacked rows; prefetch `count` codes from `ahead` on, but not beyond `ahead_stop`."""
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


@kernel
def score_codes(codes, offsets, documents, form, query, stop_at, heap, out):
    """Write the Chamfer similarities of coded `documents` (c,) with one query to `out` (c,).

    The score is -inf for documents without tokens, and for all remaining ones once the expected misses are low enough.

    `codes` are flat and of the format `form`.  For `stop_at` and `heap` see
    :func:`muvera.kernels.pruning.score_with_pruning`.
    """
    width, stride = form.width, -(-len(form.scales) // CHUNK) * CHUNK
    rows = np.zeros(_BLOCK * stride, np.uint8)
    numbers, factors = np.empty(_BLOCK, np.int64), np.empty(_BLOCK, np.float32)
    rest = np.empty(CHUNK // 2, np.uint8)
    # Helpers take arrays: a call with a tuple counts references to all arrays in it.
    packed, biases, center_bytes, level_bytes = (
        query.packed,
        query.biases,
        form.center_bytes,
        form.level_bytes,
    )
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
        for first in range(start, stop, _BLOCK):
            last = min(first + _BLOCK, stop)
            count = last - first
            write_factors(codes, first, last, width, form.id_bytes, factors)
            if form.bits > 0:
                unpack_residuals(
                    codes, first, last, width, form.id_bytes, form.bits, center_bytes, level_bytes, numbers, rest,
                    stride, rows,
                )  # fmt: skip
                _raise_block(
                    rows, 0, stride, count, packed, biases, factors, best, codes, width, ahead, ahead_stop
                )
            else:
                begin = first * width + FACTOR_BYTES
                _raise_block(
                    codes, begin, width, count, packed, biases, factors, best, codes, width, ahead, ahead_stop
                )
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
