"""A fitted encoder as files: what it drew and what it learned.

Matrices are kept although the seed gives them, since random streams may change between
versions of NumPy.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...utils.atomic_files import read_array
from .compact_maps import CompactMaps
from .config import FDEConfig
from .encoder import FDEEncoder
from .matrices import FDEMatrices

__all__ = ["load_encoder", "save_encoder"]


def save_encoder(encoder: FDEEncoder, folder: Path) -> None:
    """Write the encoder's arrays as ``encoder_*.npy``; its configuration is the caller's to keep."""
    for name, array in encoder.matrices.to_arrays().items():
        np.save(folder / f"encoder_{name}.npy", array)
    np.save(folder / "encoder_center.npy", encoder.center)
    if encoder.compact is not None:
        for name, values in encoder.compact.to_arrays().items():
            np.save(folder / f"encoder_compact_{name}.npy", values)


def load_encoder(folder: Path, config: FDEConfig) -> FDEEncoder:
    """Read what :func:`save_encoder` wrote.

    Raises
    ------
    FileNotFoundError
        For a missing file.
    ValueError
        For a damaged file, or arrays that do not fit the configuration.
    """
    maps = None
    if config.compact_dimension is not None:
        maps = CompactMaps(**{f.name: _load(folder, f"compact_{f.name}") for f in fields(CompactMaps)})
    return FDEEncoder(
        config,
        matrices=FDEMatrices(**{f.name: _load(folder, f.name) for f in fields(FDEMatrices)}),
        center=_load(folder, "center") if config.center else None,
        compact=maps,
    )


def _load(folder: Path, name: str) -> NDArray[Any]:
    return read_array(folder / f"encoder_{name}.npy")
