"""EncoderArrays: drawn and fitted arrays of an encoder, checked and stored by name."""

from __future__ import annotations

import dataclasses
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from .config import FDEConfig

Shapes = tuple[tuple[int, ...], ...]

_Arrays = TypeVar("_Arrays", bound="EncoderArrays")


def array(dtype: type[np.generic], unit_of_columns: str | None = None) -> Any:
    """Return a dataclass field for an array of `dtype`.

    `unit_of_columns` names the field with the unit of each column of an array of bytes.
    Its length is the width of that array, which is stored as deflated rows.
    """
    return dataclasses.field(metadata={"dtype": np.dtype(dtype), "unit_of_columns": unit_of_columns})


class EncoderArrays(ABC):
    """Base class of frozen dataclasses whose fields are made by :func:`array`."""

    #: Precedes the names of the arrays in files.
    prefix: ClassVar[str] = ""

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays by the names under which they are saved."""
        return {self.prefix + field.name: getattr(self, field.name) for field in _fields(type(self))}

    @classmethod
    def from_files(cls: type[_Arrays], read: Callable[[str], NDArray[Any]]) -> _Arrays:
        """Return the arrays that :func:`write_encoder_arrays` stored.

        `read` returns an array by its name.  Raise ValueError if an array of bytes is
        damaged.
        """
        arrays = {f.name: np.ascontiguousarray(read(cls.prefix + f.name)) for f in _fields(cls)}
        for field in _fields(cls):
            unit = field.metadata["unit_of_columns"]
            if unit is not None:
                rows = _inflated(arrays[field.name], field.name, len(arrays[unit]))
                arrays[field.name] = rows.view(field.metadata["dtype"])
        return cls(**arrays)

    @abstractmethod
    def _shapes(self, config: FDEConfig) -> Shapes:
        """Return the shapes that a configuration needs, in the order of the fields."""

    def require_shape(self, config: FDEConfig) -> None:
        """Raise ValueError if the arrays belong to another configuration.

        Compiled code reads these arrays without bounds checks.
        """
        for field, shape in zip(_fields(type(self)), self._shapes(config), strict=True):
            given, dtype = getattr(self, field.name), field.metadata["dtype"]
            if given.shape != shape or given.dtype != dtype:
                raise ValueError(
                    f"The encoder's array {field.name!r} has shape {given.shape} and dtype "
                    f"{given.dtype}, but its configuration needs {shape} and {dtype}. Restore the "
                    "encoder from a copy."
                )


def _fields(arrays: type[EncoderArrays]) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(arrays)  # type: ignore[arg-type]


def write_encoder_arrays(arrays: dict[str, NDArray[Any]], folder: Path) -> None:
    """Write the arrays as ``encoder_*.npy``, bytes compressed.

    The caller stores the configuration.
    """
    for name, values in arrays.items():
        if values.dtype.itemsize == 1:
            # A search for repeated bytes takes longer and saves no space.
            packer = zlib.compressobj(1, strategy=zlib.Z_HUFFMAN_ONLY)
            values = np.frombuffer(packer.compress(values.tobytes()) + packer.flush(), np.uint8)
        np.save(folder / f"encoder_{name}.npy", values)


def _inflated(packed: NDArray[Any], name: str, columns: int) -> NDArray[np.uint8]:
    """Return the bytes that :func:`write_encoder_arrays` compressed, in rows."""
    unpacker = zlib.decompressobj()
    try:
        # A Huffman code has at least one bit per byte.
        content = unpacker.decompress(packed.tobytes(), 8 * packed.nbytes + 1)
    except zlib.error:
        content = b""
    if not unpacker.eof or columns == 0 or len(content) % columns:
        raise ValueError(
            f"The encoder's array {name!r} must be deflated rows of {columns} bytes. Restore the "
            "encoder from a copy."
        )
    return np.frombuffer(content, np.uint8).reshape(-1, columns)
