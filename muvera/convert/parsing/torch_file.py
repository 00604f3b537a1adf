"""Read and write ``.pt`` files without torch.

Since torch 1.6 a ``.pt`` file is an uncompressed zip archive.  ``<root>/data.pkl`` is a pickle that describes
tensors, and each ``<root>/data/<key>`` contains the bytes of one storage.  The pickle is read with an allowlist of
names (see :mod:`muvera.convert.parsing.pickles`).  The storages stay on disk as memory maps.
"""

from __future__ import annotations

import math
import operator
import pickle
import struct
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..damage import ReadError, naming_errors
from .files import float32_of_bfloat16, stored_bytes
from .pickles import load_pickle

#: NumPy's code of the numbers in torch's storages; bfloat16 is read as uint16, which torch's storages do not have.
_STORAGES = {
    "Float": "<f4", "Half": "<f2", "BFloat16": "<u2", "Double": "<f8", "Long": "<i8", "Int": "<i4",
    "Short": "<i2", "Char": "i1", "Byte": "u1", "Bool": "?",
}  # fmt: skip
_KINDS = {np.dtype(code): kind for kind, code in _STORAGES.items() if kind != "BFloat16"}

_MAX_AXES = 32

# Alignment of the members' bytes, as in torch, so that they can be mapped as any number type.
_ALIGNMENT = 64

# Size of a zip member's header without name and padding, and the tag of torch's padding.
_HEADER_SIZE, _PADDING_TAG = 30, b"FB"


# -- reading ----------------------------------------------------------------------


@dataclass(eq=False)
class _Storage:
    """All numbers of a storage, in which tensors are described."""

    numbers: NDArray[Any]


class _Storages:
    """Storages of a file, and the functions that describe tensors in them."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, root: str) -> None:
        self._archive = archive
        self._root = root
        # One map for all storages, because each map holds a file open.
        self._file: NDArray[np.uint8] = np.memmap(path, np.uint8, "r").view(np.ndarray)
        self._room = len(self._file)
        self.names = {
            "collections.OrderedDict": lambda: {},
            "torch._utils._rebuild_tensor_v2": self._tensor,
            **{f"torch.{kind}Storage": kind for kind in _STORAGES},
        }

    def storage(self, pid: Any) -> _Storage:
        """Return the storage that ``("storage", class, key, device, count)`` names."""
        tag, kind, key, _, _ = pid
        # Only strings: the hash or repr of shared tuples can take any time.
        if (
            not all(isinstance(part, str) for part in (tag, kind, key))
            or tag != "storage"
            or kind not in _STORAGES
        ):
            raise ValueError("a reference to something other than a storage")
        content = stored_bytes(self._file, self._archive.getinfo(f"{self._root}data/{key}"))
        code = np.dtype(_STORAGES[kind])
        return _Storage(content[: len(content) // code.itemsize * code.itemsize].view(code))

    def _tensor(self, storage: Any, first: Any, size: Any, strides: Any, *_: Any) -> NDArray[Any]:
        if not isinstance(storage, _Storage):
            raise ValueError(f"a tensor in a {type(storage).__name__}")
        first, shape, steps = operator.index(first), _sizes(size), _sizes(strides)
        count, numbers = math.prod(shape), storage.numbers
        # The last number's position.  Strides of zero and overlapping tensors can describe more than the file has.
        last = first + sum((s - 1) * step for s, step in zip(shape, steps, strict=True)) if count else -1
        self._room -= count * numbers.itemsize
        if min((first, *shape, *steps)) < 0 or last >= len(numbers) or self._room < 0:
            raise ValueError(
                f"a tensor of shape {shape} with strides {steps} from number {first} on, in a storage of "
                f"{len(numbers)} numbers"
            )
        view = np.empty(shape, numbers.dtype)
        if count:
            bytes_apart = tuple(step * numbers.itemsize for step in steps)
            view = np.lib.stride_tricks.as_strided(numbers[first:], shape, bytes_apart, writeable=False)
        return float32_of_bfloat16(view) if numbers.dtype == np.uint16 else view


def _sizes(values: Any) -> tuple[int, ...]:
    if not isinstance(values, (list, tuple)) or len(values) > _MAX_AXES:
        raise ValueError(f"a {type(values).__name__} as the shape of a tensor")
    return tuple(operator.index(value) for value in values)


def read_torch(path: Path) -> Any:
    """Return what ``torch.save`` of torch 1.6 or newer wrote: tensors in tuples, lists and dicts.

    Tensors are views of the file; only bfloat16 is read, as float32.  A pickle of anything else is refused.
    """
    with naming_errors(str(path), "pt of torch 1.6 or newer"), zipfile.ZipFile(path) as archive:
        members = archive.namelist()
        roots = [name[: -len("data.pkl")] for name in members if name.endswith("/data.pkl")]
        if len(roots) != 1 or len(set(members)) < len(members):
            raise ReadError(
                "it must have one data.pkl, and no two members with the same name. Copy it again."
            )
        if f"{roots[0]}byteorder" in members and _stored(archive, f"{roots[0]}byteorder") != b"little":
            raise ReadError("it is big-endian. Save it on a little-endian machine.")
        storages = _Storages(path, archive, roots[0])
        description = _stored(archive, f"{roots[0]}data.pkl")
        return load_pickle(description, path.name, storages.names, storages.storage)


def _stored(archive: zipfile.ZipFile, name: str) -> bytes:
    """Return an uncompressed member, as torch writes it: a compressed one can unpack to any size."""
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise ReadError(f"{name} is compressed, which torch never does. Copy it again.")
    return archive.read(name)


def read_array(path: Path) -> NDArray[Any]:
    """Return the only tensor of a ``.pt`` file, memory-mapped."""
    value = read_torch(path)
    if not isinstance(value, np.ndarray):
        raise ReadError(f"{path} must contain one tensor, got {type(value).__name__}. Copy it again.")
    return value


# -- writing ----------------------------------------------------------------------


def write_torch(path: Path, *tensors: NDArray[Any]) -> None:
    """Write one tensor, or a tuple of several, for ``torch.load``; `_KINDS` lists the possible dtypes."""
    arrays = [np.ascontiguousarray(tensor).reshape(tensor.shape) for tensor in tensors]
    described = b"".join(_pickled_tensor(key, array) for key, array in enumerate(arrays))
    if len(arrays) > 1:
        described = pickle.MARK + described + pickle.TUPLE
    members: dict[str, bytes | memoryview] = {
        "data.pkl": pickle.PROTO + b"\x02" + described + pickle.STOP,
        "byteorder": b"little",
        **{f"data/{key}": array.reshape(-1).view(np.uint8).data for key, array in enumerate(arrays)},
        "version": b"3\n",
    }
    with path.open("wb") as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(_aligned_member(f"{path.stem}/{name}", stream), content)


def _aligned_member(name: str, stream: BinaryIO) -> zipfile.ZipInfo:
    """Return a member without a date, padded so that its bytes are aligned."""
    info = zipfile.ZipInfo(name)
    start = stream.tell() + _HEADER_SIZE + len(name) + 4
    count = -start % _ALIGNMENT
    info.extra = _PADDING_TAG + struct.pack("<H", count) + b"Z" * count
    return info


def _pickled_tensor(key: int, array: NDArray[Any]) -> bytes:
    """Return the instructions of a pickle that make the tensor of storage `key`."""
    parts = (
        b"ctorch._utils\n_rebuild_tensor_v2\n(",  # the function, and the mark of its arguments
        b"(", _text("storage"), f"ctorch\n{_KINDS[array.dtype]}Storage\n".encode(), _text(str(key)),
        _text("cpu"), _whole(array.size), pickle.TUPLE, pickle.BINPERSID,
        _whole(0), _tuple(array.shape), _tuple([step // array.itemsize for step in array.strides]),
        pickle.NEWFALSE, b"ccollections\nOrderedDict\n", pickle.EMPTY_TUPLE, pickle.REDUCE,
        pickle.TUPLE, pickle.REDUCE,
    )  # fmt: skip
    return b"".join(parts)


def _text(value: str) -> bytes:
    return pickle.BINUNICODE + struct.pack("<I", len(value)) + value.encode()


def _whole(value: int) -> bytes:
    if value < 1 << 31:
        return pickle.BININT + struct.pack("<i", value)
    return pickle.LONG1 + b"\x08" + struct.pack("<q", value)


def _tuple(values: Sequence[int]) -> bytes:
    return pickle.MARK + b"".join(map(_whole, values)) + pickle.TUPLE
