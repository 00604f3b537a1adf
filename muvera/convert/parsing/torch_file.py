"""Reader of ``.pt`` files that does not need torch.

Since torch 1.6 a ``.pt`` file is an uncompressed zip archive: ``<root>/data.pkl`` is a pickle that
describes tensors, ``<root>/data/<key>`` holds the bytes of one storage each.  An allow-list reads the
pickle (see :mod:`muvera.convert.parsing.pickles`); the storages stay on disk as memory maps.
"""

from __future__ import annotations

import math
import operator
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..damage import ReadError
from .files import stored_bytes
from .pickles import load_pickle

__all__ = ["StoredTensor", "read_array", "read_torch"]

#: NumPy's code of the numbers in torch's storages; bfloat16 is read as uint16.
_STORAGES = {
    "Float": "<f4", "Half": "<f2", "BFloat16": "<u2", "Double": "<f8", "Long": "<i8", "Int": "<i4",
    "Short": "<i2", "Char": "i1", "Byte": "u1", "Bool": "?",
}  # fmt: skip
_MAX_AXES = 32


@dataclass(frozen=True)
class StoredTensor:
    """Tensor whose numbers are still in the file.

    Attributes
    ----------
    raw : ndarray
        View of the memory map; bfloat16 as its bits in uint16.
    kind : str
        torch's name of the type of its storage, such as ``"BFloat16"``.
    """

    raw: NDArray[Any]
    kind: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape, known without reading the numbers."""
        return self.raw.shape

    def numpy(self) -> NDArray[Any]:
        """Return the array: a view of the file, or float32 for bfloat16."""
        if self.kind != "BFloat16":
            return self.raw
        wide: NDArray[np.uint32] = self.raw.astype(np.uint32) << np.uint32(16)
        return wide.view(np.float32)


class _Storage(StoredTensor):
    """All numbers of a storage, in which tensors are described."""


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
        if tag != "storage" or kind not in _STORAGES or not isinstance(key, str):
            raise ValueError(f"a reference to {tag!r}")
        content = stored_bytes(self._file, self._archive.getinfo(f"{self._root}data/{key}"))
        code = np.dtype(_STORAGES[kind])
        return _Storage(content[: len(content) // code.itemsize * code.itemsize].view(code), kind)

    def _tensor(self, storage: Any, first: Any, size: Any, strides: Any, *_: Any) -> StoredTensor:
        if not isinstance(storage, _Storage):
            raise ValueError(f"a tensor in a {type(storage).__name__}")
        first, shape, steps = operator.index(first), _whole(size), _whole(strides)
        if len(shape) != len(steps) or min((first, *shape, *steps)) < 0:
            raise ValueError(f"a tensor of shape {shape} with strides {steps} from number {first} on")
        count, numbers = math.prod(shape), storage.raw
        if count == 0:
            return StoredTensor(np.empty(shape, numbers.dtype), storage.kind)
        last = first + sum((s - 1) * step for s, step in zip(shape, steps, strict=True))
        # Strides of zero and overlapping tensors can describe more numbers than the file has.
        self._room -= count * numbers.itemsize
        if last >= len(numbers) or self._room < 0:
            raise ValueError(
                f"a tensor of shape {shape} with strides {steps} from number {first} on, in a storage of "
                f"{len(numbers)} numbers"
            )
        view = np.lib.stride_tricks.as_strided(
            numbers[first:], shape, tuple(step * numbers.itemsize for step in steps), writeable=False
        )
        return StoredTensor(view, storage.kind)


def _whole(sizes: Any) -> tuple[int, ...]:
    if not isinstance(sizes, (list, tuple)) or len(sizes) > _MAX_AXES:
        raise ValueError(f"a {type(sizes).__name__} as the shape of a tensor")
    return tuple(operator.index(size) for size in sizes)


def read_torch(path: Path) -> Any:
    """Return what ``torch.save`` of torch 1.6 or newer wrote: tensors in tuples, lists and dicts.

    Tensors stay in the file until :meth:`StoredTensor.numpy`.  A pickle of anything else is refused.
    """
    if not path.is_file():
        raise ReadError(f"{path} is missing. Copy the whole folder again.")
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise ReadError(
            f"{path} is truncated, or is not a .pt file of torch 1.6 or newer ({error}). Copy it again."
        ) from error
    with archive:
        if len(set(archive.namelist())) < len(archive.namelist()):
            raise ReadError(f"{path} has two members of one name. Copy it again.")
        roots = [name[: -len("data.pkl")] for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise ReadError(f"{path} is a zip file without a data.pkl, not a .pt file of torch.")
        try:
            _require_little_endian(archive, roots[0])
            description = _stored(archive, f"{roots[0]}data.pkl")
        except (zipfile.BadZipFile, ValueError, EOFError) as error:
            raise ReadError(f"{path} cannot be read: {error}. Copy it again from its origin.") from error
        storages = _Storages(path, archive, roots[0])
        return load_pickle(description, str(path), storages.names, storages.storage)


def _require_little_endian(archive: zipfile.ZipFile, root: str) -> None:
    if f"{root}byteorder" in archive.namelist() and _stored(archive, f"{root}byteorder") != b"little":
        raise ValueError("it is big-endian; save it on a little-endian machine")


def _stored(archive: zipfile.ZipFile, name: str) -> bytes:
    """Return an uncompressed member, as torch writes it: a compressed one can unpack to any size."""
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed")
    return archive.read(name)


def read_array(path: Path) -> NDArray[Any]:
    """Return the only tensor of a ``.pt`` file, memory-mapped."""
    value = read_torch(path)
    if not isinstance(value, StoredTensor):
        raise ReadError(f"{path} must hold one tensor, got {type(value).__name__}. Copy it again.")
    return value.numpy()
