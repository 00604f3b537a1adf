"""Pickles of plain data, read without running what they ask for.

A pickle is a program: loading a foreign one may do anything.  Here the names that it may
look up are listed, and each is answered by a stand-in of this module, so that none of the
pickle's own choosing is ever called.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

__all__ = ["RefusedPickleError", "Unpickler", "load_plain", "read_object_array"]


#: What unpickling a damaged file raises.
_DAMAGE = (
    pickle.UnpicklingError, EOFError, IndexError, KeyError, AttributeError, TypeError, ValueError,
    OverflowError, MemoryError,
)  # fmt: skip


class RefusedPickleError(pickle.UnpicklingError):
    """A pickle asks for something that is not plain data."""

    def __init__(self, source: str, name: str) -> None:
        super().__init__(
            f"{source} is a pickle that asks for {name}, which is not plain data, so it was not loaded. "
            "If you trust its origin, load it with the library that wrote it and save it as .npy or .json."
        )


class _Call:
    """A function that a pickle may call and not change: BUILD would set its attributes."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise ValueError("a state for a function")


class Unpickler(pickle.Unpickler):
    """Unpickler that answers listed names only.

    Parameters
    ----------
    stream : binary file
    source : str
        The file's name, for the errors.
    names : dict
        ``"module.name"`` to what stands in for it.
    """

    def __init__(self, stream: BinaryIO, source: str, names: dict[str, Any]) -> None:
        super().__init__(stream)
        self._source = source
        self._names = names

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in, or refuse by name."""
        full = f"{module}.{name}"
        if full not in self._names:
            raise RefusedPickleError(self._source, full)
        found = self._names[full]
        return _Call(found) if isinstance(found, FunctionType) else found

    def persistent_load(self, pid: Any) -> Any:
        """Refuse: plain data refers to nothing outside."""
        raise RefusedPickleError(self._source, "an object stored elsewhere")

    def read(self) -> Any:
        """Return the object; damage becomes a ValueError that names the file."""
        try:
            return self.load()
        except RefusedPickleError:
            raise
        except _DAMAGE as error:
            raise ValueError(
                f"{self._source} is damaged or not what its name says ({error}). Copy it again."
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
    """Stand-in for numpy.ndarray; :func:`_plain` makes the array."""

    def __init__(self, *_: Any) -> None:
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def array(self) -> NDArray[Any]:
        _, shape, kind, columns_first, data = self.state
        if kind.code == "O8":
            array: NDArray[Any] = np.empty(len(data), object)
            for i, item in enumerate(data):
                array[i] = _plain(item)
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


def _plain(value: Any) -> Any:
    return value.array() if isinstance(value, _Array) else value


_PLAIN: dict[str, Any] = {"_codecs.encode": _encode, "__builtin__.bytes": _bytes, "builtins.bytes": _bytes}
_ARRAYS: dict[str, Any] = {**_PLAIN, "numpy.ndarray": _Array, "numpy.dtype": _Dtype}
for _core in ("numpy.core", "numpy._core"):
    _PLAIN[f"{_core}.multiarray.scalar"] = _scalar
    _ARRAYS[f"{_core}.multiarray.scalar"] = _scalar
    _ARRAYS[f"{_core}.multiarray._reconstruct"] = _Array
    _ARRAYS[f"{_core}.numeric._frombuffer"] = _frombuffer
_PLAIN["numpy.dtype"] = _Dtype


def load_plain(content: Path | bytes, source: str | None = None) -> Any:
    """Read a pickle of dicts, lists, tuples, strings, bytes and numbers (also NumPy's).

    Raises
    ------
    pickle.UnpicklingError
        Where it asks for anything else, naming that.
    ValueError
        Where it is damaged.
    """
    if isinstance(content, Path):
        source, content = str(content), content.read_bytes()
    return Unpickler(io.BytesIO(content), source or "The pickle", _PLAIN).read()


def read_object_array(path: Path) -> list[NDArray[Any]]:
    """Read an object ``.npy``, a pickle of number arrays, without running it.

    Returns
    -------
    list of ndarray
        Its entries.
    """
    readers: dict[tuple[int, int], Callable[[BinaryIO], Any]] = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    with path.open("rb") as stream:
        try:
            version = np.lib.format.read_magic(stream)
            header = readers[version](stream)
        except (ValueError, KeyError, EOFError) as error:
            raise ValueError(f"{path} is damaged or no .npy ({error}). Copy it again.") from error
        if header[2] != np.dtype(object):
            return list(np.load(path, mmap_mode="r", allow_pickle=False))
        items = _plain(Unpickler(stream, str(path), _ARRAYS).read())
    if not isinstance(items, np.ndarray) or not all(isinstance(item, np.ndarray) for item in items.flat):
        raise ValueError(f"{path} must hold one array a document; it holds something else.")
    return list(items.flat)
