"""Codecs of token vectors: a few bytes per token instead of floats.  Fit them by name, save and load them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...utils.arrays import load_npy
from .base import TokenCodec
from .int8 import Int8Codec
from .residual import ResidualCodec

__all__ = ["CODECS", "FLOATS", "fit_codec", "read_codec", "write_codec"]

#: Types of tokens that are stored as floats, by name.
FLOATS: dict[str, type[np.floating[Any]]] = {"float32": np.float32, "float16": np.float16}

#: Functions that fit a codec, by its name; arguments: tokens (n, dimension) and the number of threads.
CODECS: dict[str, Callable[..., TokenCodec]] = {
    "int8": Int8Codec.fit,
    **{f"{bits}bit": partial(ResidualCodec.fit, bits=bits) for bits in (4, 2, 1)},
}

_CLASSES: dict[str, type[TokenCodec]] = {kind.kind: kind for kind in (Int8Codec, ResidualCodec)}


def fit_codec(name: str, tokens: NDArray[np.float32], threads: int | None = None) -> TokenCodec:
    """Fit the codec `name` to tokens, float32 (n, dimension), at least one."""
    return CODECS[name](tokens, threads=threads)


def write_codec(codec: TokenCodec, folder: Path) -> str:
    """Write a codec as ``codec_*.npy`` and return its kind for :func:`read_codec`."""
    for name, array in codec.to_arrays().items():
        np.save(folder / f"codec_{name}.npy", array)
    return codec.kind


def read_codec(folder: Path, kind: str, dimension: int) -> TokenCodec:
    """Load a codec written by :func:`write_codec`.

    Raises
    ------
    ValueError
        If the kind is unknown or a file is damaged.
    FileNotFoundError
        If a file is missing.
    """
    if kind not in _CLASSES:
        raise ValueError(f"Unknown kind of codec {kind!r}. Known kinds: {', '.join(_CLASSES)}.")
    return _CLASSES[kind].from_arrays(
        lambda name: load_npy(folder / f"codec_{name}.npy", mmap=False), dimension
    )
