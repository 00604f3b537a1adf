"""Save and load token codecs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..utils.arrays import load_npy
from .codecs import Int8Codec, ResidualCodec, TokenCodec
from .table_codec import TableCodec

# Classes of codecs by their kind.
_CLASSES: dict[str, type[TokenCodec]] = {kind.kind: kind for kind in (Int8Codec, ResidualCodec, TableCodec)}

# In place of the unit of a codec without one.
_ONE = np.ones(1)


def write_codec(codec: TokenCodec, folder: Path, prefix: str = "codec") -> str:
    """Write a codec as ``codec_*.npy`` to an existing folder, with another `prefix`.

    Return the kind of the codec, for :func:`read_codec`.
    """
    for name, array in codec.arrays.items():
        np.save(folder / f"{prefix}_{name}.npy", array)
    return codec.kind


def read_codec(folder: Path, kind: str, dimension: int, prefix: str = "codec") -> TokenCodec:
    """Load a codec of a kind that :func:`write_codec` returned, with the same prefix.

    Raise FileNotFoundError or ValueError if a file is missing or damaged, or if the
    codec's tokens do not have this dimension.
    """
    if kind not in _CLASSES:
        raise ValueError(f"Unknown kind of codec {kind!r}. Known kinds: {', '.join(_CLASSES)}.")
    codec = _CLASSES[kind]
    arrays = {name: load_npy(folder / f"{prefix}_{name}.npy", mmap=False) for name in codec.names}
    unit = arrays.get("unit", _ONE)
    if unit.shape != (1,):
        raise ValueError(f"The codec's array of its unit must have one number, got shape {unit.shape}.")
    read = codec.of_arrays(arrays)
    if read.dimension != dimension:
        raise ValueError(f"The codec has dimension={read.dimension}, but the index has {dimension}.")
    return read
