"""LLVM instructions that the intrinsics of this package share.

numba compiles loops over arrays, but it offers neither an explicit fused multiply-add nor vectors of a
fixed number of lanes.  The intrinsics emit both, so that the bits of a result do not depend on the
vector width of the machine.  A *lane* is one entry of a vector; an *address* is a typed pointer.
"""

import platform
from typing import Any

from llvmlite import binding, ir
from numba.core import cgutils

FLOAT, BYTE, INT32 = ir.FloatType(), ir.IntType(8), ir.IntType(32)

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


def constant(vector: Any, value: float) -> Any:
    """Return the constant of type `vector` whose lanes are all `value`."""
    kind = float if isinstance(vector.element, ir.FloatType) else int
    return ir.Constant(vector, [kind(value)] * vector.count)


def entry_address(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    """Return the address of entry `index` of a flat array."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [index])


def load_vector(builder: Any, address: Any, vector: Any, align: int = 4) -> Any:
    """Emit a load of type `vector`, aligned to `align` bytes, from `address`."""
    return builder.load(builder.bitcast(address, vector.as_pointer()), align=align)


def store_vector(builder: Any, value: Any, address: Any, align: int = 4) -> None:
    """Emit a store of the vector `value`, aligned to `align` bytes, to `address`."""
    builder.store(value, builder.bitcast(address, value.type.as_pointer()), align=align)


def new_sums(builder: Any, vector: Any, count: int) -> list[Any]:
    """Emit `count` accumulators of type `vector` that start at zero; return their addresses."""
    sums = [cgutils.alloca_once(builder, vector) for _ in range(count)]
    for total in sums:
        builder.store(constant(vector, 0), total)
    return sums


def shuffle(builder: Any, left: Any, right: Any, order: list[int]) -> Any:
    """Emit a vector of the lanes `order`, counted through `left` and then `right`."""
    return builder.shuffle_vector(left, right, ir.Constant(ir.VectorType(INT32, len(order)), order))


def broadcast(builder: Any, scalar: Any, lanes: int) -> Any:
    """Emit a vector of `lanes` copies of `scalar`."""
    undefined = ir.Constant(ir.VectorType(scalar.type, lanes), ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(INT32, 0))
    return shuffle(builder, first, undefined, [0] * lanes)


def fused_multiply_add(builder: Any, left: Any, right: Any, total: Any) -> Any:
    """Emit ``left * right + total`` over float32 vectors, rounded once."""
    vector = total.type
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fma.v{vector.count}f32"
    )
    return builder.call(function, [left, right, total])


def sum_lanes(builder: Any, value: Any) -> Any:
    """Emit the sum of the lanes of a float vector, added as a tree: the same order on every machine."""
    lanes = value.type.count
    half = lanes // 2
    while half:
        swapped = shuffle(builder, value, value, [(j + half) % lanes for j in range(lanes)])
        value = builder.fadd(value, swapped)
        half //= 2
    return builder.extract_element(value, ir.Constant(INT32, 0))


def sum_each(builder: Any, values: list[Any]) -> Any:
    """Emit a vector of four lanes: the sum of the lanes of each of four integer vectors."""
    one, two, three, four = values
    lanes = one.type.count
    total = _halved(
        builder, _halved(builder, one, two, lanes, 1), _halved(builder, three, four, lanes, 1), lanes, 2
    )
    while lanes > 4:
        lanes //= 2
        parts = (shuffle(builder, total, total, list(range(start, start + lanes))) for start in (0, lanes))
        total = builder.add(*parts)
    return total


def _halved(builder: Any, left: Any, right: Any, lanes: int, size: int) -> Any:
    """Emit the sum of each two neighboring groups of `size` lanes, alternately from `left` and `right`."""
    order = [
        start + side * lanes + i
        for start in range(0, lanes, 2 * size)
        for side in (0, 1)
        for i in range(size)
    ]
    return builder.add(
        shuffle(builder, left, right, order), shuffle(builder, left, right, [place + size for place in order])
    )


def tile_rows(builder: Any, row: Any, last: Any, count: int) -> list[Any]:
    """Emit the positions of `count` rows from `row` on; positions after `last` repeat `last`.

    The repetition saves separate code for tiles of fewer rows.
    """
    positions = []
    for i in range(count):
        position = builder.add(row, ir.Constant(row.type, i))
        positions.append(builder.select(builder.icmp_signed("<", position, last), position, last))
    return positions


def look_up(builder: Any, name: str, table: Any, positions: Any) -> Any:
    """Emit the entries of `table`, a vector of 16 bytes, at `positions` below 16, which fill whole registers."""
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
    """Emit the lanes of 1, 2, 4, ... vectors of one type as one vector."""
    while len(vectors) > 1:
        lanes = list(range(2 * vectors[0].type.count))
        pairs = zip(vectors[::2], vectors[1::2], strict=True)
        vectors = [shuffle(builder, left, right, lanes) for left, right in pairs]
    return vectors[0]
