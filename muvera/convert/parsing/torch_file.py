"""Reading ``.pt`` files without torch.

Since torch 1.6 a ``.pt`` file is an uncompressed zip archive: ``<root>/data.pkl`` is a
pickle that describes tensors, ``<root>/data/<key>`` the bytes of one storage each.  The
pickle is read through an allow-list (see :mod:`muvera.convert.parsing.safe_pickle`), and the
storages stay on the disk as memory maps.
"""

from __future__ import annotations

import io
import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from .safe_pickle import Unpickler

__all__ = ["StoredTensor", "read_array", "read_torch"]

#: torch's name of a dtype: NumPy's code, and whether it is bfloat16 (read as uint16).
_KINDS = {
    "float32": "<f4", "float16": "<f2", "bfloat16": "<u2", "float64": "<f8", "int64": "<i8", "int32": "<i4",
    "int16": "<i2", "int8": "i1", "uint8": "u1", "bool": "?", "uint16": "<u2", "uint32": "<u4",
    "uint64": "<u8",
}  # fmt: skip
_STORAGES = {
    "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "DoubleStorage": "float64", "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16",
    "CharStorage": "int8", "ByteStorage": "uint8", "BoolStorage": "bool",
}  # fmt: skip
_LEGACY = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"  # the magic number, pickled


@dataclass(frozen=True)
class StoredTensor:
    """A tensor whose numbers are still in the file.

    Attributes
    ----------
    raw : ndarray
        A view of the memory map; bfloat16 as its bits in uint16.
    kind : str
        torch's name of the dtype, such as ``"bfloat16"``.
    """

    raw: NDArray[Any]
    kind: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape, known without reading the numbers."""
        return self.raw.shape

    def numpy(self) -> NDArray[Any]:
        """Return the array: a view of the file, bfloat16 read into float32."""
        if self.kind != "bfloat16":
            return self.raw
        wide: NDArray[np.uint32] = self.raw.astype(np.uint32) << np.uint32(16)
        return wide.view(np.float32)


@dataclass(frozen=True)
class _Name:
    """Stand-in for a storage class or a dtype: ``kind`` is None for an untyped storage."""

    kind: str | None

    def __setstate__(self, state: object) -> None:
        raise ValueError("a state for a name")  # it is shared: a pickle must not change it


@dataclass(frozen=True)
class _Storage:
    file: str
    member: str
    start: int
    size: int
    kind: str | None


def _tensor(
    storage: Any, first: int, size: tuple[int, ...], strides: tuple[int, ...], kind: str
) -> StoredTensor:
    code = np.dtype(_KINDS[kind])
    shape, steps = tuple(int(s) for s in size), tuple(int(s) for s in strides)
    if len(shape) != len(steps) or first < 0 or min(shape, default=0) < 0 or min(steps, default=0) < 0:
        raise ValueError(f"a tensor of shape {shape} with strides {steps}")
    available = storage.size // code.itemsize
    last = first + sum((s - 1) * step for s, step in zip(shape, steps, strict=True))
    if 0 in shape:
        return StoredTensor(np.empty(shape, code), kind)
    if last >= available:
        raise ValueError(f"a tensor that reaches number {last} of a storage of {available}")
    flat = np.memmap(storage.file, code, "r", storage.start, (available,))
    view = np.lib.stride_tricks.as_strided(
        flat[first:], shape, tuple(step * code.itemsize for step in steps), writeable=False
    )
    return StoredTensor(view.view(np.ndarray), kind)


def _rebuild_v2(storage: Any, first: int, size: Any, strides: Any, *_: Any) -> StoredTensor:
    if storage.kind is None:
        raise ValueError("an untyped storage without a dtype")
    return _tensor(storage, first, size, strides, storage.kind)


def _rebuild_v3(
    storage: Any, first: int, size: Any, strides: Any, grad: Any, hooks: Any, dtype: _Name, *_: Any
) -> StoredTensor:
    return _tensor(storage, first, size, strides, str(dtype.kind))


def _rebuild_parameter(data: StoredTensor, *_: Any) -> StoredTensor:
    return data


_NAMES: dict[str, Any] = {
    "collections.OrderedDict": OrderedDict,
    "torch._utils._rebuild_tensor": _rebuild_v2,
    "torch._utils._rebuild_tensor_v2": _rebuild_v2,
    "torch._utils._rebuild_tensor_v3": _rebuild_v3,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch.Size": tuple,
    "torch.storage.UntypedStorage": _Name(None),
    "torch.UntypedStorage": _Name(None),
    **{f"torch.{name}": _Name(kind) for name, kind in _STORAGES.items()},
    **{f"torch.{kind}": _Name(kind) for kind in _KINDS},
}


class _TorchUnpickler(Unpickler):
    def __init__(self, stream: BinaryIO, path: Path, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(stream, str(path), _NAMES)
        self._path = path
        self._archive = archive
        self._root = root

    def persistent_load(self, pid: Any) -> _Storage:
        """Find the storage that ``("storage", class, key, device, numbers)`` names."""
        tag, name, key, _, _ = pid
        if tag != "storage" or not isinstance(name, _Name):
            raise ValueError(f"a reference to {tag!r}")
        member = self._archive.getinfo(f"{self._root}data/{key}")
        if member.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{member.filename} is compressed")
        # The local header counts: writers pad its extra field so that the data is aligned.
        with self._path.open("rb") as stream:
            stream.seek(member.header_offset)
            header = stream.read(30)
        start = member.header_offset + 30 + sum(np.frombuffer(header[26:30], "<u2").tolist())
        if start + member.file_size > self._path.stat().st_size:
            raise ValueError(f"{member.filename} reaches past the end of the file")
        return _Storage(str(self._path), member.filename, start, member.file_size, name.kind)


def read_torch(path: Path) -> Any:
    """Read what ``torch.save`` wrote: tensors in tuples, lists and dicts.

    Parameters
    ----------
    path : Path
        A file of torch 1.6 or newer.

    Returns
    -------
    StoredTensor, tuple, list, dict, number or str
        Tensors stay in the file until :meth:`StoredTensor.numpy`.

    Raises
    ------
    FileNotFoundError, ValueError
        For a missing, damaged, truncated or legacy file.
    pickle.UnpicklingError
        For a pickle that asks for anything but tensors, naming it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing. Copy the whole folder again.")
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        with path.open("rb") as stream:
            start = stream.read(len(_LEGACY))
        if start == _LEGACY:
            raise ValueError(
                f"{path} was written by torch before 1.6, which cannot be read without torch. "
                "With torch: torch.save(torch.load(file), file) writes it anew."
            ) from None
        what = "is truncated" if start.startswith(b"PK") else "is not a .pt file of torch 1.6 or newer"
        raise ValueError(f"{path} {what} ({error}). Copy it again from its origin.") from error
    with archive:
        roots = [name[: -len("data.pkl")] for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise ValueError(f"{path} is a zip file without a data.pkl, not a .pt file of torch.")
        try:
            if f"{roots[0]}byteorder" in archive.namelist():
                order = archive.read(f"{roots[0]}byteorder")
                if order != b"little":
                    raise ValueError("it is big-endian; save it on a little-endian machine")
            description = archive.read(f"{roots[0]}data.pkl")
        except (zipfile.BadZipFile, ValueError, EOFError) as error:
            raise ValueError(f"{path} cannot be read: {error}. Copy it again from its origin.") from error
        return _TorchUnpickler(io.BytesIO(description), path, archive, roots[0]).read()


def read_array(path: Path) -> NDArray[Any]:
    """Read a ``.pt`` file that holds one tensor, memory-mapped."""
    value = read_torch(path)
    if not isinstance(value, StoredTensor):
        raise ValueError(f"{path} must hold one tensor; it holds a {type(value).__name__}.")
    return value.numpy()
