"""Bytes unpacked in vectors: the residuals' bits of a code become a byte a coordinate.

Half a byte, a *nibble*, of packed residuals of ``bits`` bits stands for ``4 / bits`` coordinates.  A shuffle
looks up all nibbles of a vector in a table of 16 bytes at once; there is one table for each coordinate of
a nibble.  A processor without that instruction looks up whole bytes, see
:func:`muvera.kernels.token_codes.unpack_residuals`; both give the same bytes.
"""

from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .jit import INTERPRETED
from .llvm_helpers import BYTE, constant, entry_address, load_vector, shuffle, store_vector

#: Coordinates that are unpacked together.
CHUNK = 64

_FEATURES = binding.get_host_cpu_features()

#: Bytes of a shuffle, by name; without any, whole bytes are looked up.
SHUFFLES = {
    name: size
    for name, size, feature in (("avx2", 32, "avx2"), ("avx512", 64, "avx512bw"))
    if _FEATURES.get(feature, False)
}

#: Whether nibbles can be unpacked.
HAS_SHUFFLES = INTERPRETED or bool(SHUFFLES)

_INSTRUCTIONS = {32: "llvm.x86.avx2.pshuf.b", 64: "llvm.x86.avx512.pshuf.b.512"}


def _look_up(builder: Any, size: int, table: Any, positions: Any) -> Any:
    """Emit the entries of `table`, a vector of 16 bytes, at CHUNK positions, `size` at a time."""
    vector = ir.VectorType(BYTE, size)
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(vector, [vector] * 2), _INSTRUCTIONS[size]
    )
    tables = shuffle(builder, table, table, [i % 16 for i in range(size)])
    parts = [
        builder.call(
            function, [tables, shuffle(builder, positions, positions, list(range(start, start + size)))]
        )
        for start in range(0, CHUNK, size)
    ]
    return parts[0] if len(parts) == 1 else shuffle(builder, parts[0], parts[1], list(range(CHUNK)))


def _compiled_unpack(bits: int, size: int) -> Any:
    per_nibble = 4 // bits
    width = CHUNK * bits // 8

    @intrinsic
    def compiled(typingctx, codes, start, centers, center, tables, out, position):
        word = types.intp
        signature = types.void(codes, word, centers, word, tables, out, word)

        def generate(context, builder, signature, args):
            kinds = signature.args

            def address(which: int, index: Any) -> Any:
                return entry_address(context, builder, kinds[which], args[which], index)

            packed = load_vector(builder, address(0, args[1]), ir.VectorType(BYTE, width), align=1)
            high = builder.lshr(packed, constant(packed.type, 4))
            low = builder.and_(packed, constant(packed.type, 15))
            order = [i + half * width for i in range(width) for half in range(2) for _ in range(per_nibble)]
            nibbles = shuffle(builder, high, low, order)
            found = None
            for i in range(per_nibble):
                table = load_vector(
                    builder,
                    address(4, ir.Constant(args[1].type, 16 * i)),
                    ir.VectorType(BYTE, 16),
                    align=1,
                )
                entries = _look_up(builder, size, table, nibbles)
                if found is None:
                    found = entries
                else:
                    picked = [j + CHUNK * (j % per_nibble == i) for j in range(CHUNK)]
                    found = shuffle(builder, found, entries, picked)
            base = load_vector(builder, address(2, args[3]), ir.VectorType(BYTE, CHUNK), align=1)
            store_vector(builder, builder.add(found, base), address(5, args[6]), align=1)
            return context.get_dummy_value()

        return signature, generate

    return compiled


def _interpreted_unpack(bits: int) -> Any:
    per_nibble = 4 // bits

    def interpreted(codes, start, centers, center, tables, out, position):
        packed = codes[start : start + CHUNK * bits // 8]
        nibbles = np.stack([packed >> 4, packed & 15], axis=1).reshape(-1)
        entries = tables.reshape(per_nibble, 16)[:, nibbles].T.reshape(-1)
        out[position : position + CHUNK] = centers[center : center + CHUNK] + entries

    return interpreted


def make_unpack(bits: int, shuffles: str) -> Any:
    """Return what unpacks CHUNK coordinates, made of one of the SHUFFLES.

    It adds ``centers[center:]`` to what ``tables``, 16 bytes for each coordinate of a nibble, have for the
    bits from ``codes[start]`` on, and writes the sums to ``out[position:]``; all are flat bytes.
    """
    return _interpreted_unpack(bits) if INTERPRETED else _compiled_unpack(bits, SHUFFLES[shuffles])


_BEST = list(SHUFFLES)[-1] if SHUFFLES else ""


@intrinsic
def _compiled_never(typingctx, codes, start, centers, center, tables, out, position):
    word = types.intp
    signature = types.void(codes, word, centers, word, tables, out, word)

    def generate(context, builder, signature, args):
        return context.get_dummy_value()

    return signature, generate


def _unpack(bits: int) -> Any:
    if HAS_SHUFFLES:
        return make_unpack(bits, _BEST)
    return _compiled_never


unpack_1, unpack_2, unpack_4 = _unpack(1), _unpack(2), _unpack(4)
