"""A fitted learned encoder as files."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np

from ...utils.atomic_files import read_array
from .config import LearnedConfig
from .encoder import LearnedEncoder
from .maps import LearnedMaps

__all__ = ["load_encoder", "save_encoder"]


def save_encoder(encoder: LearnedEncoder, folder: Path) -> None:
    """Write the maps as ``encoder_*.npy``; the configuration is the caller's to keep."""
    if encoder.maps is None:
        raise ValueError("An encoder that is not fitted has nothing to save: call fit(documents) first.")
    for name, array in encoder.maps.to_arrays().items():
        np.save(folder / f"encoder_{name}.npy", array)


def load_encoder(folder: Path, config: LearnedConfig) -> LearnedEncoder:
    """Read what :func:`save_encoder` wrote.

    Raises
    ------
    FileNotFoundError
        For a missing file.
    ValueError
        For a damaged file, or maps that do not fit the configuration.
    """
    arrays = {field.name: read_array(folder / f"encoder_{field.name}.npy") for field in fields(LearnedMaps)}
    return LearnedEncoder(config, maps=LearnedMaps(**arrays))
