"""Decoding of packed residuals, the layout that PLAID indexes share.

A token is stored as the number of its centroid and, for each coordinate, ``nbits`` bits that
select a weight to add.  The bits of a coordinate run from the lowest to the highest, coordinates
one after the other, and the first bit of a byte is its highest.  The sum is normalized again.

A table of all 256 bytes maps each byte to its ``keys = 8 / nbits`` weights at once.  numba does
not vectorize over so few entries, so one intrinsic emits vectors of LANES coordinates: it joins
``nbits`` rows of the table, adds the centroid and sums the squares, in a fixed order of lanes.
The result does not depend on the machine's vector width.

Sizes: ``n`` tokens, ``dimension`` coordinates, ``width = dimension * nbits / 8`` bytes a token.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .jit import INTERPRETED, kernel
from .llvm_helpers import (
    FLOAT,
    broadcast,
    concatenate,
    entry_address,
    load_vector,
    new_sums,
    store_vector,
    sum_lanes,
)

#: Coordinates decoded together.
LANES = 8

_VECTOR = ir.VectorType(FLOAT, LANES)


def byte_table(weights: np.ndarray, nbits: int) -> np.ndarray:
    """Return the weights that each byte stands for, lowest coordinate first.

    Parameters
    ----------
    weights : float32 (2 ** nbits,)
        Weight of each bucket.
    nbits : {1, 2, 4, 8}
        Bits for each coordinate.

    Returns
    -------
    float32 (256, 8 // nbits)
    """
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
    buckets = (bits.reshape(256, 8 // nbits, nbits) << np.arange(nbits)).sum(2)
    return np.ascontiguousarray(weights[buckets], np.float32)


def _decoder(keys: int) -> Any:
    """Return the intrinsic for tables of `keys` weights a byte."""

    @intrinsic
    def decode_row(typingctx, packed, byte, count, centroids, source, table, out, target):
        flat = (packed, types.intp, types.intp, centroids, types.intp, table, out, types.intp)

        def generate(context, builder, signature, args):
            packed, byte, count, centroids, source, table, out, target = args
            kinds = signature.args
            codes = entry_address(context, builder, kinds[0], packed, byte)
            center = entry_address(context, builder, kinds[3], centroids, source)
            token = entry_address(context, builder, kinds[6], out, target)
            total = new_sums(builder, _VECTOR, 1)[0]
            word = count.type
            with cgutils.for_range(builder, count) as loop:
                first = builder.mul(loop.index, ir.Constant(word, LANES // keys))
                parts = []
                for i in range(LANES // keys):
                    code = builder.load(builder.gep(codes, [builder.add(first, ir.Constant(word, i))]))
                    row = builder.mul(builder.zext(code, word), ir.Constant(word, keys))
                    entry = entry_address(context, builder, kinds[5], table, row)
                    parts.append(load_vector(builder, entry, ir.VectorType(FLOAT, keys)))
                offset = builder.mul(loop.index, ir.Constant(word, LANES))
                value = load_vector(builder, builder.gep(center, [offset]), _VECTOR)
                value = builder.fadd(value, concatenate(builder, parts))
                store_vector(builder, value, builder.gep(token, [offset]))
                builder.store(builder.fadd(builder.load(total), builder.fmul(value, value)), total)
            return sum_lanes(builder, builder.load(total))

        return types.float32(*flat), generate

    return decode_row


@intrinsic
def _compiled_scale(typingctx, out, target, count, factor):
    signature = types.void(out, types.intp, types.intp, types.float32)

    def generate(context, builder, signature, args):
        row = entry_address(context, builder, signature.args[0], args[0], args[1])
        factors = broadcast(builder, args[3], LANES)
        with cgutils.for_range(builder, args[2]) as loop:
            address = builder.gep(row, [builder.mul(loop.index, ir.Constant(args[2].type, LANES))])
            value = load_vector(builder, address, _VECTOR)
            store_vector(builder, builder.fmul(value, factors), address)
        return context.get_dummy_value()

    return signature, generate


def _interpreted_scale(out, target, count, factor):
    out[target : target + count * LANES] *= factor


def _interpreted(keys: int) -> Any:
    def decode_row(packed, byte, count, centroids, source, table, out, target):
        dimension = count * LANES
        weights = table.reshape(-1, keys)[packed[byte : byte + dimension // keys]].reshape(-1)
        row = centroids[source : source + dimension] + weights
        out[target : target + dimension] = row
        return np.float32(row @ row)

    return decode_row


_make = _interpreted if INTERPRETED else _decoder
_scale: Any = _interpreted_scale if INTERPRETED else _compiled_scale
_decode_1, _decode_2, _decode_4, _decode_8 = _make(8), _make(4), _make(2), _make(1)


@kernel
def decode_residuals(codes, packed, centroids, table, normalize, out):
    """Write the decoded tokens to `out`.

    Parameters
    ----------
    codes : int32 or int64 (n,)
        Centroid of each token, from 0 to len(centroids) - 1; it is not checked here.
    packed : uint8 (n, width)
        Residual bits of each token.
    centroids : float32 (k, dimension)
        All centroids.
    table : float32 (256, keys)
        Weights of each byte, from :func:`byte_table`.
    normalize : bool
        Whether each token is divided by the larger of its norm and 1e-12.
    out : float32 (n, dimension)
        Receives the tokens.
    """
    count, width = packed.shape
    dimension = out.shape[1]
    keys = table.shape[1]
    groups = dimension // LANES
    whole = groups * LANES
    bytes_flat, centers, weights, flat = (
        packed.reshape(-1),
        centroids.reshape(-1),
        table.reshape(-1),
        out.reshape(-1),
    )
    for t in range(count):
        source = np.int64(codes[t]) * dimension
        target = t * dimension
        if keys == 8:
            total = _decode_1(bytes_flat, t * width, groups, centers, source, weights, flat, target)
        elif keys == 4:
            total = _decode_2(bytes_flat, t * width, groups, centers, source, weights, flat, target)
        elif keys == 2:
            total = _decode_4(bytes_flat, t * width, groups, centers, source, weights, flat, target)
        else:
            total = _decode_8(bytes_flat, t * width, groups, centers, source, weights, flat, target)
        for i in range(whole, dimension):  # dimensions past the last whole group of lanes
            value = centers[source + i] + table[bytes_flat[t * width + i // keys], i % keys]
            flat[target + i] = value
            total += value * value
        if normalize:
            factor = np.float32(1.0) / max(np.sqrt(total), np.float32(1e-12))
            _scale(flat, target, groups, factor)
            for i in range(whole, dimension):
                flat[target + i] *= factor
