"""Interpreter of pickles of plain data, which never runs code from the pickle.

A pickle is a program: loading an untrusted one with :mod:`pickle` can run any code, or use all memory.
:func:`load_pickle` does not use that module.  It interprets only the instructions that picklers write for
plain data, and calls only the stand-ins in a table of names.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ...utils.npy_files import load_npy, read_npy_header
from ..damage import ExplainedError, ReadError

__all__ = ["RefusedPickleError", "StandIn", "load_npy_safely", "load_pickle", "load_plain", "read_objects"]

# Layout of a number after its instruction.  Id maps and token vectors are mostly runs of numbers of one kind; each
# run is read at once.
_NUMBERS = {
    ord(code): np.dtype([("instruction", "u1"), ("value", kind)])
    for code, kind in (("G", ">f8"), ("K", "u1"), ("M", "<u2"), ("J", "<i4"))
}
_RUN = re.compile(rb"(?:G.{8})+|(?:K.)+|(?:M..)+|(?:J....)+", re.DOTALL)

_CONSTANTS = {ord("N"): None, 0x88: True, 0x89: False}
_EMPTY: dict[int, type] = {ord("]"): list, ord("}"): dict, ord(")"): tuple, 0x8F: set}
_TUPLES = {0x85: 1, 0x86: 2, 0x87: 3}
# Size in bytes of the length field before a string or bytes.
_TEXTS, _BYTES = {0x8C: 1, ord("X"): 4, 0x8D: 8}, {ord("C"): 1, ord("B"): 4, 0x8E: 8}
# Size in bytes of the number of a memo entry.
_GETS, _PUTS = {ord("h"): 1, ord("j"): 4}, {ord("q"): 1, ord("r"): 4}
# Bytes to skip: the protocol, and the size of a frame.
_SKIPPED = {0x80: 1, 0x95: 8}
_LONG, _MEMOIZE, _GLOBAL, _STOP = 0x8A, 0x94, ord("c"), ord(".")

# Accepted types of dict keys and set members.  Others would allow attacks by slow hashing: hashing a tuple of shared
# tuples can take 2**40 steps, and many integers of more than 64 bits can share one hash.
_KEYS = (str, bytes, int, float, bool, type(None))
_MAX_INTEGER_BYTES = 9

# Bytes that may be passed to stand-ins in addition to the size of the pickle.
_SMALL = 1 << 16

#: Errors of interpreting a damaged pickle.
_DAMAGE = (
    IndexError, KeyError, AttributeError, TypeError, ValueError, OverflowError, MemoryError, RecursionError,
)  # fmt: skip


class RefusedPickleError(ExplainedError, pickle.UnpicklingError):
    """Error for a pickle that names something other than plain data."""

    def __init__(self, source: str, name: str) -> None:
        super().__init__(
            f"{source} is a pickle that refers to {name}, which is not plain data, so it was not loaded. "
            "If you trust its origin, load it with the library that wrote it and save it as .npy or .json."
        )


class StandIn:
    """Base class of objects that replace the objects in a pickle; by default, they ignore the state."""

    def __init__(self, *_: Any) -> None:
        """Accept the arguments of the object's constructor."""

    def set_state(self, state: Any) -> None:
        """Accept the state that the pickle gives to the object."""


def load_pickle(
    content: bytes,
    source: str,
    names: Mapping[str, Any],
    stored_elsewhere: Callable[[Any], Any] | None = None,
) -> Any:
    """Return the object of a pickle.

    Parameters
    ----------
    content : bytes
    source : str
        Name of the pickle in messages.
    names : mapping
        Stand-in of each ``"module.name"`` that the pickle may use: a function or class to call, or a value
        that is not callable.  What they return must not be callable.
    stored_elsewhere : callable, optional
        Returns the object of a persistent id.

    Raises
    ------
    RefusedPickleError
        If the pickle uses any other name.
    ReadError
        If it is damaged, or has instructions that picklers do not write for plain data.
    """
    try:
        return _Interpreter(content, source, names, stored_elsewhere).run()
    except RefusedPickleError:
        raise
    except _DAMAGE as error:
        raise ReadError(
            f"{source} is damaged or not a pickle of plain data ({error}). Copy it again."
        ) from error


@dataclass
class _Interpreter:
    content: bytes
    source: str
    names: Mapping[str, Any]
    stored_elsewhere: Callable[[Any], Any] | None
    at: int = 0
    stack: list[Any] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)
    #: Bytes that were passed to stand-ins.
    passed: int = 0

    def run(self) -> Any:
        content, stack, memo = self.content, self.stack, self.memo
        while True:
            if self.at >= len(content):
                raise ValueError("it ends before its last instruction")
            code = content[self.at]
            self.at += 1
            if code == _MEMOIZE:
                memo[len(memo)] = stack[-1]
            elif code in _NUMBERS:
                stack.extend(self.numbers(_NUMBERS[code]))
            elif code in _TEXTS:
                stack.append(self.prefixed(_TEXTS[code]).decode("utf-8", "surrogatepass"))
            elif code in _BYTES:
                stack.append(self.prefixed(_BYTES[code]))
            elif code in _GETS:
                stack.append(memo[self.number(_GETS[code])])
            elif code in _PUTS:
                memo[self.number(_PUTS[code])] = stack[-1]
            elif code in _CONSTANTS:
                stack.append(_CONSTANTS[code])
            elif code in _EMPTY:
                stack.append(_EMPTY[code]())
            elif code in _TUPLES:
                stack.append(tuple(self.popped(_TUPLES[code])))
            elif code in _ACTIONS:
                _ACTIONS[code](self)
            elif code in _SKIPPED:
                self.take(_SKIPPED[code])
            elif code == _LONG:
                size = self.number(1)
                if size > _MAX_INTEGER_BYTES:
                    raise ValueError(f"an integer has {size} bytes, more than fit in 64 bits")
                stack.append(int.from_bytes(self.take(size), "little", signed=True))
            elif code == _GLOBAL:
                stack.append(self.named(self.line(), self.line()))
            elif code == _STOP:
                return stack.pop()
            else:
                raise ValueError(f"byte {self.at - 1} is not an instruction of plain data")

    # -- arguments of instructions --

    def numbers(self, kind: np.dtype[Any]) -> list[Any]:
        run = _RUN.match(self.content, self.at - 1)
        if run is None:
            raise ValueError("it ends within a number")
        self.at = run.end()
        numbers: list[Any] = np.frombuffer(run[0], kind)["value"].tolist()
        return numbers

    def take(self, count: int) -> bytes:
        start, self.at = self.at, self.at + count
        if self.at > len(self.content):
            raise ValueError(f"an instruction needs {count} bytes, but {len(self.content) - start} follow")
        return self.content[start : self.at]

    def number(self, count: int) -> int:
        return int.from_bytes(self.take(count), "little")

    def prefixed(self, width: int) -> bytes:
        return self.take(self.number(width))

    def line(self) -> str:
        start = self.at
        self.at = self.content.index(b"\n", start) + 1
        return self.content[start : self.at - 1].decode()

    # -- the stack --

    def above_mark(self) -> list[Any]:
        return self.popped(len(self.stack) - self.marks.pop())

    def popped(self, count: int) -> list[Any]:
        first = len(self.stack) - count
        if first < 0 or count < 0:
            raise ValueError("it pops more objects than the stack has")
        values = self.stack[first:]
        del self.stack[first:]
        return values

    def change(self, kind: Any, values: list[Any]) -> None:
        """Add values to the list, dict or set at the top of the stack."""
        target = self.stack[-1]
        if type(target) is not kind:
            raise ValueError(f"it changes a {type(target).__name__} as a {kind.__name__}")
        if kind is list:
            target.extend(values)
            return
        for key in values[::2] if kind is dict else values:
            if type(key) not in _KEYS:
                raise ValueError(f"a {type(key).__name__} is a key or a member of a set")
        target.update(zip(values[::2], values[1::2], strict=True) if kind is dict else values)

    def call(self) -> None:
        function, arguments = self.popped(2)
        if not callable(function) or type(arguments) is not tuple:
            raise ValueError(f"it calls a {type(function).__name__}")
        # A small pickle could fill the memory: it can pass one string to a function that copies it many times.
        self.passed += sum(len(value) for value in arguments if isinstance(value, (str, bytes)))
        if self.passed > len(self.content) + _SMALL:
            raise ValueError("it copies more bytes than it contains")
        self.stack.append(function(*arguments))

    def build(self) -> None:
        (state,) = self.popped(1)
        if not isinstance(self.stack[-1], StandIn):
            raise ValueError(f"it sets the state of a {type(self.stack[-1]).__name__}")
        self.stack[-1].set_state(state)

    def named(self, module: Any, name: Any) -> Any:
        full = f"{module}.{name}"
        if full not in self.names:
            raise RefusedPickleError(self.source, full)
        return self.names[full]

    def stored(self) -> Any:
        if self.stored_elsewhere is None:
            raise RefusedPickleError(self.source, "an object stored elsewhere")
        return self.stored_elsewhere(self.stack.pop())


_ACTIONS: dict[int, Callable[[_Interpreter], None]] = {
    ord("("): lambda machine: machine.marks.append(len(machine.stack)),
    ord("t"): lambda machine: machine.stack.append(tuple(machine.above_mark())),
    ord("a"): lambda machine: machine.change(list, machine.popped(1)),
    ord("e"): lambda machine: machine.change(list, machine.above_mark()),
    ord("s"): lambda machine: machine.change(dict, machine.popped(2)),
    ord("u"): lambda machine: machine.change(dict, machine.above_mark()),
    0x90: lambda machine: machine.change(set, machine.above_mark()),
    ord("R"): _Interpreter.call,
    0x81: _Interpreter.call,
    ord("b"): _Interpreter.build,
    0x93: lambda machine: machine.stack.append(machine.named(*machine.popped(2))),
    ord("Q"): lambda machine: machine.stack.append(machine.stored()),
}


# -- NumPy ------------------------------------------------------------------------


class _Dtype(StandIn):
    """Stand-in for numpy.dtype: numbers, texts and objects only."""

    def __init__(self, code: str, *_: Any) -> None:
        if code != "O8" and (not isinstance(code, str) or code[:1] not in "iufbU" or len(code) > 8):
            raise ValueError(f"it has an array of dtype {code!r}")
        self.dtype: np.dtype[Any] = np.dtype(object if code == "O8" else code)

    def set_state(self, state: Any) -> None:
        if state[1] == ">":
            self.dtype = self.dtype.newbyteorder(">")


class _Array(StandIn):
    """Stand-in for numpy.ndarray; `array` exists after :meth:`set_state`."""

    array: NDArray[Any]

    def set_state(self, state: Any) -> None:
        _, shape, kind, columns_first, data = state
        if kind.dtype.hasobject:
            array: NDArray[Any] = np.empty(len(data), object)
            for i, item in enumerate(data):
                array[i] = item.array if isinstance(item, _Array) else item
                if isinstance(array[i], np.ndarray) and array[i].dtype.hasobject:
                    raise ValueError("it has an array of objects in an array")
        else:
            array = np.frombuffer(data, kind.dtype)
        self.array = np.reshape(array, shape, order="F" if columns_first else "C")


def _scalar(kind: _Dtype, data: bytes) -> Any:
    return np.frombuffer(data, kind.dtype)[0].item()


def _encode(text: str, encoding: str = "latin1") -> bytes:
    return text.encode("latin1")  # how protocol 2 writes bytes


def _empty_bytes() -> bytes:
    return b""  # protocol 2 writes empty bytes as a call


_PLAIN: dict[str, Any] = {
    "_codecs.encode": _encode,
    "__builtin__.bytes": _empty_bytes,
    "numpy.dtype": _Dtype,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy._core.multiarray.scalar": _scalar,
}
_ARRAYS: dict[str, Any] = {
    **_PLAIN,
    "numpy.ndarray": _Array,  # an argument of _reconstruct
    "numpy.core.multiarray._reconstruct": _Array,
    "numpy._core.multiarray._reconstruct": _Array,
}


def load_plain(content: Path | bytes, source: str = "The pickle") -> Any:
    """Read a pickle of dicts, lists, tuples, strings, bytes and numbers (also NumPy's)."""
    if isinstance(content, Path):
        return load_pickle(content.read_bytes(), str(content), _PLAIN)
    return load_pickle(content, source, _PLAIN)


def load_npy_safely(path: Path) -> NDArray[Any]:
    """Return the array of a .npy file: numbers memory-mapped, objects as :func:`read_objects` reads them."""
    if path.is_file():
        with path.open("rb") as stream:
            if read_npy_header(stream, str(path)).dtype.hasobject:
                return read_objects(stream, str(path))
    return load_npy(path)


def read_objects(stream: IO[bytes], source: str) -> NDArray[Any]:
    """Return an array of objects, which NumPy stores as a pickle after the header of a .npy file.

    Its elements may be arrays of numbers, numbers, strings, and containers of numbers and strings.
    """
    stored = load_pickle(stream.read(), source, _ARRAYS)
    if not isinstance(stored, _Array):
        raise ReadError(f"{source} holds a {type(stored).__name__} instead of an array. Copy it again.")
    return stored.array
