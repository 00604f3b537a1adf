"""Look up bytes in tables of 16 entries: one instruction looks up as many bytes as a register has."""

import platform
from typing import Any

from llvmlite import binding, ir
from numba.core import cgutils

from .llvm_helpers import BYTE, shuffle

_FEATURES = binding.get_host_cpu_features()
_ARM = platform.machine().lower() in ("aarch64", "arm64")

#: Bytes of a register and its instruction, by name; the last one is the fastest that this processor has.
SHUFFLES = {
    name: (size, instruction)
    for name, size, instruction, exists in (
        ("neon", 16, "llvm.aarch64.neon.tbl1.v16i8", _ARM),
        ("ssse3", 16, "llvm.x86.ssse3.pshuf.b.128", _FEATURES.get("ssse3", False)),
        ("avx2", 32, "llvm.x86.avx2.pshuf.b", _FEATURES.get("avx2", False)),
        ("avx512", 64, "llvm.x86.avx512.pshuf.b.512", _FEATURES.get("avx512bw", False)),
    )
    if exists
}

#: The fastest of the SHUFFLES; "plain" without any.
FASTEST = list(SHUFFLES)[-1] if SHUFFLES else "plain"


def look_up(builder: Any, name: str, table: Any, positions: Any) -> Any:
    """Emit the entries of `table`, a vector of 16 bytes, at `positions` below 16, whole registers of bytes."""
    size, instruction = SHUFFLES[name]
    vector = ir.VectorType(BYTE, size)
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(vector, [vector] * 2), instruction
    )
    tables = shuffle(builder, table, table, [i % 16 for i in range(size)])
    parts = []
    for start in range(0, positions.type.count, size):
        part = shuffle(builder, positions, positions, list(range(start, start + size)))
        parts.append(builder.call(function, [tables, part]))
    return joined_lanes(builder, parts)


def joined_lanes(builder: Any, vectors: list[Any]) -> Any:
    """Emit the lanes of 1, 2, 4, ... equal vectors as one vector."""
    while len(vectors) > 1:
        lanes = list(range(2 * vectors[0].type.count))
        pairs = zip(vectors[::2], vectors[1::2], strict=True)
        vectors = [shuffle(builder, left, right, lanes) for left, right in pairs]
    return vectors[0]
