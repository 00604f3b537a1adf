"""Interpreter of pickles of plain data, which never runs code from the pickle.

A pickle is a program: loading an untrusted one with :mod:`pickle` can run any code, or use all memory.
:func:`load_pickle` accepts only the instructions that picklers write for plain data, and calls only the
stand-ins in a table of names.
"""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ...utils.arrays import load_npy, read_npy_header
from ..damage import ReadError, naming_errors

# Layout of a number with its instruction.  Id maps and token vectors are mostly runs of numbers of one kind; each
# run is read at once.
_NUMBERS = {
    code: np.dtype([("instruction", "S1"), ("value", kind)])
    for code, kind in (
        (pickle.BINFLOAT, ">f8"), (pickle.BININT1, "u1"), (pickle.BININT2, "<u2"), (pickle.BININT, "<i4"),
    )
}  # fmt: skip
_RUN = re.compile(rb"(?:G.{8})+|(?:K.)+|(?:M..)+|(?:J....)+", re.DOTALL)

# Accepted types of dict keys and set members.  Others would allow attacks by slow hashing: hashing a tuple of shared
# tuples can take 2**40 steps, and many integers of more than 64 bits can share one hash.
_KEYS = (str, bytes, int, float, bool, type(None))
_INTEGERS = range(-(2**63), 2**64)

# Bytes and arguments that may be passed to stand-ins in addition to the size of the pickle.
_SMALL = 1 << 16

# Characters of a refused name in its message.
_SHOWN = 200


class RefusedPickleError(ReadError, pickle.UnpicklingError):
    """Error for a pickle that names something other than plain data."""


class StandIn:
    """Base class of objects that replace the objects in a pickle; by default, they ignore the state."""

    def __init__(self, *_: Any) -> None:
        """Accept the arguments of the object's constructor."""

    def set_state(self, state: Any) -> None:
        """Accept the object's state in the pickle."""


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
        return _PlainUnpickler(content, source, names, stored_elsewhere).load()


#: Instructions that Python's own interpreter may run: numbers, strings, lists, tuples, the memo and names.
_UNCHANGED = b"".join(
    (
        pickle.PROTO, pickle.STOP, pickle.MARK, pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE,
        pickle.SHORT_BINUNICODE, pickle.BINUNICODE, pickle.BINUNICODE8,
        pickle.SHORT_BINBYTES, pickle.BINBYTES, pickle.BINBYTES8,
        pickle.EMPTY_LIST, pickle.EMPTY_DICT, pickle.EMPTY_SET, pickle.EMPTY_TUPLE,
        pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3, pickle.TUPLE, pickle.APPEND, pickle.APPENDS,
        pickle.BINGET, pickle.LONG_BINGET, pickle.BINPUT, pickle.LONG_BINPUT, pickle.MEMOIZE,
        pickle.GLOBAL, pickle.STACK_GLOBAL, pickle.BINPERSID,
    )
)  # fmt: skip

# Python's interpreter, written in Python.  Unlike the one in C, it can be limited to some instructions.
_Unpickler: Any = pickle._Unpickler


class _PlainUnpickler(_Unpickler):  # type: ignore[misc]
    """Python's interpreter without the instructions that plain data does not need."""

    def __init__(self, content: bytes, source: str, names: Mapping[str, Any], stored_elsewhere: Any) -> None:
        self.stream = io.BytesIO(content)
        super().__init__(self.stream)
        self.content, self.source, self.names = content, source, names
        if stored_elsewhere is not None:
            self.persistent_load = stored_elsewhere  # the default raises an error
        self.passed = 0  # bytes that were passed to stand-ins

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in of a name."""
        full = f"{module}.{name}"
        if full not in self.names:
            shown = full[:_SHOWN]
            raise RefusedPickleError(
                f"{self.source} is a pickle that refers to {shown}, which is not plain data, so it was not loaded. "
                "If you trust its origin, load it with the library that wrote it and save it as .npy or .json."
            )
        return self.names[full]

    def load_frame(self) -> None:
        """Skip the size of a frame: the frames follow each other."""
        self.read(8)

    def refuse(self) -> None:
        raise ValueError("it has an instruction that plain data does not need")

    def load_numbers(self) -> None:
        run = _RUN.match(self.content, self.stream.tell() - 1)
        if run is None:
            raise EOFError("it ends in a number")
        self.stack.extend(np.frombuffer(run[0], _NUMBERS[run[0][:1]])["value"].tolist())
        self.stream.seek(run.end())

    def load_integer(self) -> None:
        self.load_long1()
        if self.stack[-1] not in _INTEGERS:
            raise ValueError("an integer has more than 64 bits")

    def load_pair(self) -> None:
        self.fill(dict, [self.stack.pop(-2), self.stack.pop()])

    def fill(self, kind: Any, values: list[Any]) -> None:
        """Add values to the dict or set at the top of the stack."""
        target = self.stack[-1]
        if type(target) is not kind:
            raise ValueError(f"it changes a {type(target).__name__} as a {kind.__name__}")
        for key in values[::2] if kind is dict else values:
            if type(key) not in _KEYS:
                raise ValueError(
                    f"keys and members of sets must be numbers, strings, bytes or None, not {type(key).__name__}"
                )
        target.update(zip(values[::2], values[1::2], strict=True) if kind is dict else values)

    def call(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not callable(function) or type(arguments) is not tuple:
            raise ValueError(f"it calls a {type(function).__name__}")
        # A small pickle could take all memory or time: it can pass one string, or one tuple of many, to many calls.
        self.passed += len(arguments) + sum(
            len(value) for value in arguments if isinstance(value, (str, bytes))
        )
        if self.passed > len(self.content) + _SMALL:
            raise ValueError("it copies more bytes than it contains")
        self.stack.append(function(*arguments))

    def build(self) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], StandIn):
            raise ValueError(f"it sets the state of a {type(self.stack[-1]).__name__}")
        self.stack[-1].set_state(state)

    #: Action of each instruction.
    dispatch = {  # noqa: RUF012
        **dict.fromkeys(range(256), refuse),
        **{code: _Unpickler.dispatch[code] for code in _UNCHANGED},
        **dict.fromkeys((code[0] for code in _NUMBERS), load_numbers),
        pickle.FRAME[0]: load_frame,
        pickle.LONG1[0]: load_integer,
        pickle.SETITEM[0]: load_pair,
        pickle.SETITEMS[0]: lambda self: self.fill(dict, self.pop_mark()),
        pickle.ADDITEMS[0]: lambda self: self.fill(set, self.pop_mark()),
        pickle.REDUCE[0]: call,
        pickle.NEWOBJ[0]: call,
        pickle.BUILD[0]: build,
    }


# -- NumPy ------------------------------------------------------------------------


class _Dtype(StandIn):
    """Stand-in for numpy.dtype: numbers, texts and objects only."""

    def __init__(self, code: str, *_: Any) -> None:
        if not isinstance(code, str):  # the repr of shared lists can be of any size
            raise ValueError(f"it has an array with a {type(code).__name__} as dtype")
        if code != "O8" and (code[:1] not in "iufbU" or len(code) > 8):
            raise ValueError(f"it has an array of dtype {code!r}")
        self.dtype: np.dtype[Any] = np.dtype(object if code == "O8" else code)

    def set_state(self, state: Any) -> None:
        if state[1] == ">":
            self.dtype = self.dtype.newbyteorder(">")


class _Array(StandIn):
    """Stand-in for numpy.ndarray."""

    def set_state(self, state: Any) -> None:
        _, self._shape, kind, self._columns_first, self._data = state
        self.dtype: np.dtype[Any] = kind.dtype

    def array(self) -> NDArray[Any]:
        """Return the array; a copy of the list of an array of objects, of which a pickle can have many."""
        if self.dtype.hasobject:
            flat: NDArray[Any] = np.empty(len(self._data), object)
            for i, item in enumerate(self._data):
                if isinstance(item, _Array) and item.dtype.hasobject:
                    raise ValueError("it has an array of objects in an array")
                flat[i] = item.array() if isinstance(item, _Array) else item
        else:
            flat = np.frombuffer(self._data, self.dtype)
        return np.reshape(flat, self._shape, order="F" if self._columns_first else "C")


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
        raise ReadError(f"{source} must contain an array, got a {type(stored).__name__}. Copy it again.")
    with naming_errors(source, "pickle of plain data"):
        return stored.array()
