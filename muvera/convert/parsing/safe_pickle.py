"""Reader of pickles of plain data that never runs code from the pickle.

A pickle is a program, so loading an untrusted one can run any code.  Here
:mod:`~muvera.convert.parsing.pickle_scan` checks its instructions first.  Only listed names can be looked up,
and each resolves to a stand-in in this module, so a pickle cannot call anything else.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from types import FunctionType, MethodType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ...utils.npy_files import load_npy, read_npy_header
from ..damage import ExplainedError, ReadError
from .pickle_scan import scan_pickle

__all__ = ["RefusedPickleError", "Unpickler", "load_npy_safely", "load_plain", "read_objects"]


#: Errors of unpickling a damaged file.
_DAMAGE = (
    pickle.UnpicklingError, EOFError, IndexError, KeyError, AttributeError, TypeError, ValueError,
    OverflowError, MemoryError, RecursionError,
)  # fmt: skip

# Bytes that may always be passed to functions, even if the pickle is smaller.
_SMALL = 1 << 16


class RefusedPickleError(ExplainedError, pickle.UnpicklingError):
    """Error for a pickle that names something other than plain data."""

    def __init__(self, source: str, name: str) -> None:
        super().__init__(
            f"{source} is a pickle that refers to {name}, which is not plain data, so it was not loaded. "
            "If you trust its origin, load it with the library that wrote it and save it as .npy or .json."
        )


class _Call:
    """A function that a pickle may call but not change: BUILD would set its attributes."""

    __slots__ = ("_function", "_unpickler")

    def __init__(self, function: Callable[..., Any], unpickler: Unpickler) -> None:
        self._function = function
        self._unpickler = unpickler

    def __call__(self, *arguments: Any) -> Any:
        self._unpickler.spend(sum(len(value) for value in arguments if isinstance(value, (str, bytes))))
        return self._function(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise ValueError("it sets the state of a function")


class Unpickler(pickle.Unpickler):
    """Unpickler that resolves listed names only.

    `names` maps ``"module.name"`` to the class or function that stands in for it.  A function must not
    return a tuple, because :mod:`~muvera.convert.parsing.pickle_scan` allows its results as keys.
    """

    def __init__(self, stream: IO[bytes], source: str, names: dict[str, Any]) -> None:
        content = stream.read()
        super().__init__(io.BytesIO(content))
        self._content = content
        self._source = source
        self._names = names
        self._budget = len(content) + _SMALL

    def spend(self, count: int) -> None:
        """Count bytes passed to functions, because one text can be copied again and again."""
        self._budget -= count
        if self._budget < 0:
            raise ValueError("it copies more bytes than it contains")

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in of a listed name; refuse all others."""
        full = f"{module}.{name}"
        if full not in self._names:
            raise RefusedPickleError(self._source, full)
        stand_in = self._names[full]
        return _Call(stand_in, self) if isinstance(stand_in, (FunctionType, MethodType)) else stand_in

    def persistent_load(self, pid: Any) -> Any:
        """Refuse: plain data has no references to the outside."""
        raise RefusedPickleError(self._source, "an object stored elsewhere")

    def read(self) -> Any:
        """Return the object; raise RefusedPickleError for anything but plain data, ReadError for damage."""
        try:
            scan_pickle(self._content)
            return self.load()
        except RefusedPickleError:
            raise
        except _DAMAGE as error:
            raise ReadError(
                f"{self._source} is damaged or not a pickle of plain data ({error}). Copy it again."
            ) from error


class _Dtype:
    """Stand-in for numpy.dtype: numbers and objects only."""

    def __init__(self, code: str, *_: Any) -> None:
        if code != "O8" and (not isinstance(code, str) or code[:1] not in "iufbU" or len(code) > 8):
            raise ValueError(f"dtype {code!r}")
        self.code = code
        self.order = "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = str(state[1])

    def dtype(self) -> np.dtype[Any]:
        kind: np.dtype[Any] = np.dtype(object if self.code == "O8" else self.code)
        swapped: np.dtype[Any] = kind.newbyteorder(">")
        return swapped if self.order == ">" else kind


class _Array:
    """Stand-in for numpy.ndarray; :meth:`array` makes the array."""

    def __init__(self, *_: Any) -> None:
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def array(self, objects: bool = False) -> NDArray[Any]:
        """Return the array; raise ValueError for an array of objects unless `objects` is true."""
        _, shape, kind, columns_first, data = self.state
        if kind.code == "O8":
            if not objects:
                raise ValueError("nested arrays of objects")
            array: NDArray[Any] = np.empty(len(data), object)
            for i, item in enumerate(data):
                array[i] = item.array() if isinstance(item, _Array) else item
        else:
            array = np.frombuffer(data, kind.dtype())
        return np.reshape(array, shape, order="F" if columns_first else "C")


def _frombuffer(data: Any, kind: _Dtype, shape: tuple[int, ...], order: str) -> NDArray[Any]:
    return np.frombuffer(data, kind.dtype()).reshape(shape, order="F" if order == "F" else "C")


def _scalar(kind: _Dtype, data: bytes) -> Any:
    return np.frombuffer(data, kind.dtype())[0].item()


def _encode(text: str, encoding: str = "latin1") -> bytes:
    return text.encode("latin1")  # how protocol 2 writes bytes


def _bytes(*arguments: Any) -> bytes:
    return b""  # protocol 2 writes empty bytes as a call


_PLAIN: dict[str, Any] = {"_codecs.encode": _encode, "__builtin__.bytes": _bytes, "builtins.bytes": _bytes}
_ARRAYS: dict[str, Any] = {**_PLAIN, "numpy.ndarray": _Array, "numpy.dtype": _Dtype}
for _core in ("numpy.core", "numpy._core"):
    _PLAIN[f"{_core}.multiarray.scalar"] = _scalar
    _ARRAYS[f"{_core}.multiarray.scalar"] = _scalar
    _ARRAYS[f"{_core}.multiarray._reconstruct"] = _Array
    _ARRAYS[f"{_core}.numeric._frombuffer"] = _frombuffer
_PLAIN["numpy.dtype"] = _Dtype


def load_plain(content: Path | bytes, source: str | None = None) -> Any:
    """Read a pickle of dicts, lists, tuples, strings, bytes and numbers (also NumPy's)."""
    if isinstance(content, Path):
        source, content = str(content), content.read_bytes()
    return Unpickler(io.BytesIO(content), source or "The pickle", _PLAIN).read()


def load_npy_safely(path: Path) -> NDArray[Any]:
    """Return the array of a .npy file: numbers memory-mapped, objects as :func:`read_objects` reads them."""
    if path.is_file():
        with path.open("rb") as stream:
            if read_npy_header(stream, str(path)).dtype.hasobject:
                return read_objects(stream, str(path))
    return load_npy(path)


def read_objects(stream: IO[bytes], source: str) -> NDArray[Any]:
    """Return an array of objects, which NumPy stores as a pickle after the header of a .npy file.

    It may contain arrays of numbers, strings, numbers, and containers of the last two.
    """
    stored = Unpickler(stream, source, _ARRAYS).read()
    try:
        if not isinstance(stored, _Array):
            raise ValueError(f"a {type(stored).__name__} instead of an array")
        return stored.array(objects=True)
    except _DAMAGE as error:
        raise ReadError(f"{source} is damaged ({error}). Copy it again.") from error
