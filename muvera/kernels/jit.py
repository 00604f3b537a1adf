"""How kernels are compiled: numba's flags, and intrinsics that emit LLVM instructions.

Kernels release the interpreter lock and use none of numba's threads, which abort if two
Python threads enter them. No fastmath: signs determine cells, and every sum keeps its
written order on every machine.

numba compiles loops over arrays, but has neither an explicit fused multiply-add nor
vectors of a fixed number of lanes.  Intrinsics emit both, so that no bit depends on the
vector width of the machine.  A *lane* is one entry of a vector.
"""

import gc
import hashlib
import inspect
import os
import platform
import signal
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numba
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.core.compiler_lock import global_compiler_lock
from numba.extending import intrinsic

#: True if compiled kernels are cached on disk.  numba's cache ignores edits in other
#: modules.
CACHE = os.environ.get("MUVERA_KERNEL_CACHE", "1") != "0"

#: Function that only compiled kernels call, made by :func:`emitted`.
Intrinsic = Callable[..., Any]

# numba's type stubs lack some flags and settings.
_njit: Any = numba.njit
_settings: Any = numba.config
_FLAGS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}


def kernel(function: Callable[..., object]) -> Any:
    """Compile `function` with the project's flags."""
    return _compiled(function)


def helper(function: Callable[..., object]) -> Any:
    """Make `function` part of the kernels that call it; Python cannot call it.

    It is translated once, and optimized in each kernel.  By itself, numba would also
    optimize it and compile it to machine code that nothing runs.  That takes a third of
    the time of a first call.
    """
    flags = {**_FLAGS, "no_cpython_wrapper": True}
    return _prepared(_njit(pipeline_class=_HelperCompiler, **flags)(function))


class _HelperCompiler(Compiler):
    """numba's compiler, which uses the library of a helper."""

    def compile_extra(self, func: Callable[..., object]) -> Any:
        self.state.library = _HelperLibrary(self.state.targetctx.codegen(), func.__qualname__)
        return super().compile_extra(func)


class _HelperLibrary(JITCodeLibrary):
    """Code to be linked into kernels: neither optimized nor compiled."""

    @property
    def codegen(self) -> Any:
        """Return an object that sets no environment, as there is no machine code."""
        return _NoEnvironment

    def get_pointer_to_function(self, name: str) -> int:
        self._ensure_finalized()
        return 0

    def _optimize_functions(self, ll_module: binding.ModuleRef) -> None:
        ll_module.data_layout = str(self._codegen.target_data)

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalized = True


class _NoEnvironment:
    @staticmethod
    def set_env(name: str, environment: object) -> None:
        pass


def _compiled(function: Callable[..., object]) -> Any:
    """Return the dispatcher of `function`, cached on disk if a folder is writable.

    numba uses the folder of the module, or a folder in the home directory.  If neither
    is writable, as for many users of containers, a private folder in the temporary
    folder takes their place.  Without that, each process compiles.
    """
    if CACHE:
        try:
            dispatcher = _njit(cache=False, **_FLAGS)(function)
            dispatcher._cache = _Cache(function)
            return _prepared(dispatcher)
        except RuntimeError as error:
            if "cannot cache" not in str(error):
                raise
        if not _settings.CACHE_DIR and (folder := _private_folder()):
            _settings.CACHE_DIR = folder
            return _compiled(function)
    return _prepared(_njit(cache=False, **_FLAGS)(function))


class _CacheFile(IndexDataCacheFile):
    """numba's files of a kernel, each named after its content.

    numba numbers them.  Two processes that compile a kernel for different arguments at
    the same time choose the same number, and the cache then has the code of other
    arguments.
    """

    def save(self, key: object, data: object) -> None:
        content = self._dump((key, self._version, self._source_stamp))
        name = f"{self._index_name.removesuffix('.nbi')}.{hashlib.sha256(content).hexdigest()[:16]}.nbc"
        self._save_data(name, data)
        overloads = self._load_index()
        overloads[key] = name
        self._save_index(overloads)


class _Cache(FunctionCache):
    """numba's cache of a kernel, in files of :class:`_CacheFile`."""

    def __init__(self, function: Callable[..., object]) -> None:
        super().__init__(function)
        locator = self._impl.locator
        self._cache_file = _CacheFile(self._cache_path, self._impl.filename_base, locator.get_source_stamp())


def _private_folder() -> str | None:
    """Return a folder of this user in the temporary folder, or None.

    The cache contains code that is run, so nobody else may write there.
    """
    try:
        folder = Path(tempfile.gettempdir()) / f"muvera-kernels-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except (OSError, AttributeError):
        return None
    is_ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()
    return str(folder) if is_ours and not status.st_mode & 0o022 else None


def _prepared(dispatcher: Any) -> Any:
    return _without_literals(_interruptible(dispatcher))


def _without_literals(dispatcher: Any) -> Any:
    """Let kernels call `dispatcher` with 0 or True as with any other number.

    numba would compile it again for each literal.
    """
    get_call_template = dispatcher.get_call_template

    def get_template(args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        named = {name: types.unliteral(kind) for name, kind in keywords.items()}
        return get_call_template(tuple(types.unliteral(kind) for kind in args), named)

    vars(dispatcher)["get_call_template"] = get_template
    return dispatcher


def _interruptible(dispatcher: Any) -> Any:
    """Make Ctrl-C wait until a first call has compiled or loaded its kernel.

    An exception inside numba's compiler can leave it unusable for the whole process.
    """
    compile_for_args = dispatcher._compile_for_args

    def compile_whole(*args: Any, **keywords: Any) -> Any:
        with _postponed_interrupt(), _paused_collector():
            return compile_for_args(*args, **keywords)

    vars(dispatcher)["_compile_for_args"] = compile_whole
    return dispatcher


@contextmanager
def _paused_collector() -> Iterator[None]:
    """Collect no garbage in the block.

    The compiler makes many objects and keeps most of them: looking through them again
    and again takes a tenth of the time of a first call.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


@contextmanager
def _postponed_interrupt() -> Iterator[None]:
    """Call the handler of SIGINT after the block, if a signal came meanwhile."""
    usual = signal.getsignal(signal.SIGINT)
    if not callable(usual) or threading.current_thread() is not threading.main_thread():
        # Only the main thread gets signals.
        yield
        return
    came: list[Any] = []
    signal.signal(signal.SIGINT, lambda *signal_and_frame: came.append(signal_and_frame))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
        if came:
            usual(*came[-1])


# If a process forks while another thread compiles, the child would wait for the
# compiler lock forever.
_compiling: Any = global_compiler_lock._lock
_held: list[bool] = []

# Seconds that a fork waits for the compiler.
_PATIENCE = 30


def _before_fork() -> None:
    _held.append(_compiling.acquire(timeout=_PATIENCE))


def _after_fork_in_parent() -> None:
    if _held.pop():
        _compiling.release()


def _after_fork_in_child() -> None:
    _held.clear()
    _compiling._at_fork_reinit()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
    )

# -- intrinsics

FLOAT = ir.FloatType()
BYTE = ir.IntType(8)
INT32 = ir.IntType(32)

FEATURES = binding.get_host_cpu_features()
_ARM = platform.machine().lower() in ("aarch64", "arm64")

#: Bytes of a register and its instruction, by name; the last one is the fastest that
#: this processor has.
SHUFFLES = {
    name: (size, instruction)
    for name, size, instruction, exists in (
        ("plain", 16, "", True),
        ("neon", 16, "llvm.aarch64.neon.tbl1.v16i8", _ARM),
        ("ssse3", 16, "llvm.x86.ssse3.pshuf.b.128", FEATURES.get("ssse3", False)),
        ("avx2", 32, "llvm.x86.avx2.pshuf.b", FEATURES.get("avx2", False)),
        ("avx512", 64, "llvm.x86.avx512.pshuf.b.512", FEATURES.get("avx512bw", False)),
    )
    if exists
}

FASTEST = list(SHUFFLES)[-1]


def emitted(emit: Callable[..., ir.Value | None], returned: types.Type = types.void) -> Intrinsic:
    """Return an intrinsic whose instructions `emit` emits.

    `emit` gets a builder and the arguments.  For a flat array, `emit` gets the address
    of its first entry.  Integers are 64 bits wide, floats 32.
    """

    def typed(typingctx, *given):
        numbers = [types.float32 if isinstance(kind, types.Float) else types.intp for kind in given]
        kinds = [
            kind if isinstance(kind, types.Array) else number
            for kind, number in zip(given, numbers, strict=True)
        ]

        def generate(context, builder, signature, args):
            values = [
                context.make_array(kind)(context, builder, value).data
                if isinstance(kind, types.Array)
                else value
                for kind, value in zip(signature.args, args, strict=True)
            ]
            result = emit(builder, *values)
            return context.get_dummy_value() if result is None else result

        return returned(*kinds), generate

    typed.__signature__ = inspect.signature(emit)  # type: ignore[attr-defined]  # numba counts the arguments
    return intrinsic(typed)


def call(builder: ir.IRBuilder, name: str, returned: ir.Type, *arguments: ir.Value) -> ir.Value:
    """Emit a call of an LLVM function."""
    kind = ir.FunctionType(returned, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


def plus(builder: ir.IRBuilder, value: ir.Value, number: int) -> ir.Value:
    """Emit the sum of an integer and a constant."""
    return builder.add(value, ir.Constant(value.type, number))


def times(builder: ir.IRBuilder, value: ir.Value, number: int) -> ir.Value:
    """Emit the product of an integer and a constant."""
    return builder.mul(value, ir.Constant(value.type, number))


def constant(vector: ir.VectorType, value: float) -> ir.Constant:
    """Return the constant of type `vector` whose lanes are all `value`."""
    kind = float if isinstance(vector.element, ir.FloatType) else int
    return ir.Constant(vector, [kind(value)] * vector.count)


def load_vector(builder: ir.IRBuilder, address: ir.Value, vector: ir.VectorType, align: int = 4) -> ir.Value:
    """Emit a load of type `vector`, aligned to `align` bytes."""
    return builder.load(builder.bitcast(address, vector.as_pointer()), align=align)


def store_vector(builder: ir.IRBuilder, value: ir.Value, address: ir.Value, align: int = 4) -> None:
    """Emit a store of the vector `value`, aligned to `align` bytes."""
    builder.store(value, builder.bitcast(address, value.type.as_pointer()), align=align)


def new_sums(builder: ir.IRBuilder, vector: ir.VectorType, count: int) -> list[ir.Value]:
    """Emit `count` accumulators of type `vector` that start at zero.

    Return their addresses.
    """
    sums = [cgutils.alloca_once(builder, vector) for _ in range(count)]
    for total in sums:
        builder.store(constant(vector, 0), total)
    return sums


@contextmanager
def each_vector(builder: ir.IRBuilder, count: ir.Value, lanes: int) -> Iterator[ir.Value]:
    """Emit a loop over the whole vectors of `count` numbers.

    The block emits what is repeated, for the vector at the offset that it gets.
    """
    width = ir.Constant(count.type, lanes)
    with cgutils.for_range(builder, builder.sdiv(count, width)) as loop:
        yield builder.mul(loop.index, width)


def shuffle(builder: ir.IRBuilder, left: ir.Value, right: ir.Value, order: list[int]) -> ir.Value:
    """Emit a vector of the lanes `order`, counted through `left` and then `right`."""
    return builder.shuffle_vector(left, right, ir.Constant(ir.VectorType(INT32, len(order)), order))


def broadcast(builder: ir.IRBuilder, scalar: ir.Value, lanes: int) -> ir.Value:
    """Emit a vector of `lanes` copies of `scalar`."""
    undefined = ir.Constant(ir.VectorType(scalar.type, lanes), ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(INT32, 0))
    return shuffle(builder, first, undefined, [0] * lanes)


def emit_prefetch(builder: ir.IRBuilder, address: ir.Value) -> None:
    """Emit the prefetch of the cache line at `address`, which may be any address."""
    # Read, into the second-level cache: the first would evict the packed columns.
    flags = [ir.Constant(INT32, flag) for flag in (0, 2, 1)]
    call(builder, "llvm.prefetch.p0", ir.VoidType(), address, *flags)


def fused_multiply_add(builder: ir.IRBuilder, left: ir.Value, right: ir.Value, total: ir.Value) -> ir.Value:
    """Emit ``left * right + total`` over float32 vectors, rounded once."""
    return call(builder, f"llvm.fma.v{total.type.count}f32", total.type, left, right, total)


def sum_lanes(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    """Emit the sum of the lanes of a float vector.

    Lanes are added as a tree, in the same order on every machine.
    """
    lanes = value.type.count
    half = lanes // 2
    while half:
        swapped = shuffle(builder, value, value, [(j + half) % lanes for j in range(lanes)])
        value = builder.fadd(value, swapped)
        half //= 2
    return builder.extract_element(value, ir.Constant(INT32, 0))


def tile_rows(builder: ir.IRBuilder, row: ir.Value, last: ir.Value, count: int) -> list[ir.Value]:
    """Emit the positions of `count` rows from `row` on.

    Those after `last` repeat it: fewer rows need no other code.
    """
    positions = [plus(builder, row, i) for i in range(count)]
    return [builder.select(builder.icmp_signed("<", place, last), place, last) for place in positions]


def look_up(builder: ir.IRBuilder, name: str, table: ir.Value, positions: ir.Value) -> ir.Value:
    """Emit the entries of `table`, a vector of 16 bytes, at `positions`.

    The positions are below 16 and fill whole registers.
    """
    lanes, (size, instruction) = positions.type.count, SHUFFLES[name]
    if not instruction:
        entries = constant(positions.type, 0)
        for i in range(16):
            entry = broadcast(builder, builder.extract_element(table, ir.Constant(INT32, i)), lanes)
            here = builder.icmp_unsigned("==", positions, constant(positions.type, i))
            entries = builder.select(here, entry, entries)
        return entries
    tables = shuffle(builder, table, table, [i % 16 for i in range(size)])
    parts = []
    for start in range(0, lanes, size):
        part = shuffle(builder, positions, positions, list(range(start, start + size)))
        parts.append(call(builder, instruction, part.type, tables, part))
    return joined_lanes(builder, parts)


def joined_lanes(builder: ir.IRBuilder, vectors: list[ir.Value]) -> ir.Value:
    """Emit the lanes of 1, 2, 4, ... vectors of one type as one vector."""
    while len(vectors) > 1:
        lanes = list(range(2 * vectors[0].type.count))
        pairs = zip(vectors[::2], vectors[1::2], strict=True)
        vectors = [shuffle(builder, left, right, lanes) for left, right in pairs]
    return vectors[0]


def _count_bits(builder, number):
    return call(builder, "llvm.ctpop.i64", number.type, number)


#: Return the number of set bits of a 64-bit integer.
count_bits = emitted(_count_bits, types.intp)
