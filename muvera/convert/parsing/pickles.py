"""Interpreter of pickles of plain data, which never runs code from the pickle.

A pickle is a program: loading an untrusted one with :mod:`pickle` can run any code, or use all memory.
:func:`load_pickle` interprets only the instructions that picklers write for plain data, and calls only the
stand-ins in a table of names.  :mod:`pickletools` splits the program into instructions.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ...utils.npy_files import load_npy, read_npy_header
from ..damage import ReadError, naming_errors

__all__ = ["RefusedPickleError", "StandIn", "load_npy_safely", "load_pickle", "load_plain", "read_objects"]

# Layout of a number after its instruction.  Id maps and token vectors are mostly runs of numbers of one kind; each
# run is read at once.
_NUMBERS = {
    ord(code): np.dtype([("instruction", "u1"), ("value", kind)])
    for code, kind in (("G", ">f8"), ("K", "u1"), ("M", "<u2"), ("J", "<i4"))
}
_RUN = re.compile(rb"(?:G.{8})+|(?:K.)+|(?:M..)+|(?:J....)+", re.DOTALL)

# Accepted types of dict keys and set members.  Others would allow attacks by slow hashing: hashing a tuple of shared
# tuples can take 2**40 steps, and many integers of more than 64 bits can share one hash.
_KEYS = (str, bytes, int, float, bool, type(None))
_INTEGERS = range(-(2**63), 2**64)

# Bytes that may be passed to stand-ins in addition to the size of the pickle.
_SMALL = 1 << 16


class RefusedPickleError(ReadError, pickle.UnpicklingError):
    """Error for a pickle that names something other than plain data."""


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
    """Return the object of a pickle; raise ReadError if the pickle contains anything but plain data.

    `names` maps each ``"module.name"`` that the pickle may use to its stand-in: a function or class to call, or a plain
    value.  No stand-in may return a callable.  `stored_elsewhere` returns the object of a persistent id.  Messages
    call the pickle `source`.
    """
    with naming_errors(source, "pickle of plain data"):
        return _Interpreter(content, source, names, stored_elsewhere).run()


class _Interpreter:
    def __init__(self, content: bytes, source: str, names: Mapping[str, Any], stored_elsewhere: Any) -> None:
        self.content, self.source, self.names = content, source, names
        self.stored_elsewhere = stored_elsewhere
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.passed = 0  # bytes that were passed to stand-ins

    def run(self) -> Any:
        stream = io.BytesIO(self.content)
        for instruction, argument, _ in pickletools.genops(stream):
            if instruction.name not in _ACTIONS:
                raise ValueError(f"{instruction.name} is not an instruction of plain data")
            _ACTIONS[instruction.name](self, argument)
            if instruction.name == "STOP":
                break
            if numbers := _RUN.match(self.content, stream.tell()):
                kind = _NUMBERS[self.content[numbers.start()]]
                self.stack.extend(np.frombuffer(numbers[0], kind)["value"].tolist())
                stream.seek(numbers.end())
        return self.stack.pop()

    def push(self, value: Any) -> None:
        if type(value) is int and value not in _INTEGERS:
            raise ValueError("an integer has more than 64 bits")
        self.stack.append(value)

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
                raise ValueError(
                    f"keys and members of sets must be numbers, strings, bytes or None, not {type(key).__name__}"
                )
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

    def named(self, name: str) -> None:
        if name not in self.names:
            raise RefusedPickleError(
                f"{self.source} is a pickle that refers to {name}, which is not plain data, so it was not loaded. "
                "If you trust its origin, load it with the library that wrote it and save it as .npy or .json."
            )
        self.stack.append(self.names[name])

    def stored(self) -> None:
        if self.stored_elsewhere is None:
            raise ValueError("it refers to an object stored elsewhere")
        self.stack.append(self.stored_elsewhere(self.stack.pop()))


_PUSHED = (
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
    "SHORT_BINBYTES", "BINBYTES", "BINBYTES8",
)  # fmt: skip
_ACTIONS: dict[str, Callable[[_Interpreter, Any], Any]] = {
    **dict.fromkeys(_PUSHED, _Interpreter.push),
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), lambda machine, _: None),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda machine, number: machine.push(machine.memo[number])),
    **dict.fromkeys(
        ("BINPUT", "LONG_BINPUT"), lambda machine, number: machine.memo.update({number: machine.stack[-1]})
    ),
    "MEMOIZE": lambda machine, _: machine.memo.update({len(machine.memo): machine.stack[-1]}),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "EMPTY_SET": lambda machine, _: machine.push(set()),
    "TUPLE1": lambda machine, _: machine.push(tuple(machine.popped(1))),
    "TUPLE2": lambda machine, _: machine.push(tuple(machine.popped(2))),
    "TUPLE3": lambda machine, _: machine.push(tuple(machine.popped(3))),
    "MARK": lambda machine, _: machine.marks.append(len(machine.stack)),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.above_mark())),
    "APPEND": lambda machine, _: machine.change(list, machine.popped(1)),
    "APPENDS": lambda machine, _: machine.change(list, machine.above_mark()),
    "SETITEM": lambda machine, _: machine.change(dict, machine.popped(2)),
    "SETITEMS": lambda machine, _: machine.change(dict, machine.above_mark()),
    "ADDITEMS": lambda machine, _: machine.change(set, machine.above_mark()),
    "REDUCE": lambda machine, _: machine.call(),
    "NEWOBJ": lambda machine, _: machine.call(),
    "BUILD": lambda machine, _: machine.build(),
    "GLOBAL": lambda machine, name: machine.named(name.replace(" ", ".")),
    "STACK_GLOBAL": lambda machine, _: machine.named(".".join(machine.popped(2))),
    "BINPERSID": lambda machine, _: machine.stored(),
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


_PLAIN: dict[str, Any] = {
    "_codecs.encode": _encode,
    "__builtin__.bytes": lambda: b"",  # protocol 2 writes empty bytes as a call
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


def load_plain(content: bytes, source: str) -> Any:
    """Read a pickle of dicts, lists, tuples, sets, strings, bytes, and numbers of Python or NumPy."""
    return load_pickle(content, source, _PLAIN)


def load_npy_safely(path: Path) -> NDArray[Any]:
    """Return the array of a .npy file: memory-mapped numbers, or the objects of :func:`read_objects`."""
    if path.is_file():
        with path.open("rb") as stream:
            if read_npy_header(stream, path.name).dtype.hasobject:
                return read_objects(stream, path.name)
    return load_npy(path)


def read_objects(stream: IO[bytes], source: str) -> NDArray[Any]:
    """Return an array of objects, which NumPy stores as a pickle after the header of a .npy file.

    Its elements may be arrays of numbers, numbers, strings, and containers of numbers and strings.
    """
    stored = load_pickle(stream.read(), source, _ARRAYS)
    if not isinstance(stored, _Array):
        raise ReadError(f"{source} must hold an array, got a {type(stored).__name__}. Copy it again.")
    return stored.array
