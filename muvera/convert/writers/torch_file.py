"""Writer of ``.pt`` files that needs no torch: tensors as ``torch.save`` writes them, for its ``torch.load``.

The file is a zip archive whose members are stored: a pickle that describes tensors, and the bytes of each.
The pickle is written opcode by opcode, since nothing here is an object of torch.
"""

from __future__ import annotations

import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

__all__ = ["write_torch"]

_STORAGES = {
    "<f4": "FloatStorage", "<f2": "HalfStorage", "<i8": "LongStorage", "<i4": "IntStorage", "|u1": "ByteStorage",
}  # fmt: skip

# Members' bytes begin at multiples of this, as torch's do: so they map as any type of number.
_ALIGNMENT = 64

# Size of a member's header without its name and padding, and the tag of padding that torch uses.
_HEADER, _PADDING = 30, b"FB"


def write_torch(path: Path, *tensors: NDArray[Any]) -> None:
    """Write one tensor, or several as a tuple.

    Parameters
    ----------
    path : Path
        A new file.
    *tensors : float32, float16, int64, int32 or uint8
        Of any shape.
    """
    arrays = [np.ascontiguousarray(tensor).reshape(tensor.shape) for tensor in tensors]
    described = b"".join(_tensor(key, array) for key, array in enumerate(arrays))
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
            archive.writestr(_member(f"{path.stem}/{name}", stream), content)


def _member(name: str, stream: BinaryIO) -> zipfile.ZipInfo:
    """Return a member without a date that is padded to begin at a multiple of the alignment."""
    info = zipfile.ZipInfo(name)
    begin = stream.tell() + _HEADER + len(name) + 4
    count = -begin % _ALIGNMENT
    info.extra = _PADDING + struct.pack("<H", count) + b"Z" * count
    return info


def _tensor(key: int, array: NDArray[Any]) -> bytes:
    """Return the opcodes that make the tensor of storage `key`."""
    strides = [step // array.itemsize for step in array.strides]
    storage = _group(
        _text("storage"),
        _name("torch", _STORAGES[array.dtype.str]),
        _text(str(key)),
        _text("cpu"),
        _number(array.size),
    )
    arguments = _group(
        storage + pickle.BINPERSID,
        _number(0),
        _group(*map(_number, array.shape)),
        _group(*map(_number, strides)),
        pickle.NEWFALSE,
        _name("collections", "OrderedDict") + pickle.EMPTY_TUPLE + pickle.REDUCE,
    )
    return _name("torch._utils", "_rebuild_tensor_v2") + arguments + pickle.REDUCE


def _name(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


def _group(*values: bytes) -> bytes:
    return pickle.MARK + b"".join(values) + pickle.TUPLE


def _text(value: str) -> bytes:
    encoded = value.encode()
    return pickle.BINUNICODE + struct.pack("<I", len(encoded)) + encoded


def _number(value: int) -> bytes:
    if value < 1 << 31:
        return pickle.BININT + struct.pack("<i", value)
    return pickle.LONG1 + b"\x08" + struct.pack("<q", value)
