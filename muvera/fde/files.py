"""Encoders as arguments, and from folders."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..utils.arrays import load_npy
from ..utils.atomic_files import content_checksum, read_json, recover_folder, require_unchanged
from ..utils.checks import as_path
from .config import DEFAULT_PRESET, FDEConfig
from .encoder import ENCODER_FILE, ENCODER_FORMAT, FDEEncoder, array_classes

# Largest number in an array.  Entries of tokens are below 2**20 in a fit, so fitted
# arrays have no larger numbers; the square of a larger one could overflow float32.
_LARGEST = 1e18


def as_encoder(
    value: FDEConfig | FDEEncoder | str | None, dimension: int
) -> tuple[FDEConfig, FDEEncoder | None]:
    """Return the configuration of an ``encoder=`` argument, and its fitted encoder.

    None stands for the default preset.  Raise TypeError for any other type, and
    ValueError if the preset does not exist or the encoder has another dimension.
    """
    if value is None or isinstance(value, str):
        return FDEConfig.preset(value or DEFAULT_PRESET, dimension), None
    encoder = value if isinstance(value, FDEEncoder) and not value.needs_fit else None
    config = value.config if isinstance(value, FDEEncoder) else value
    if not isinstance(config, FDEConfig):
        raise TypeError(
            "encoder must be a preset's name, an FDEConfig or a fitted FDEEncoder, got "
            f"{type(value).__name__}."
        )
    if config.dimension != dimension:
        raise ValueError(
            f"The encoder has dimension={config.dimension}, but the tokens have {dimension} columns. "
            f"Use dimension={dimension}."
        )
    return config, encoder


def read_encoder(folder: Path, config: FDEConfig) -> FDEEncoder:
    """Read an encoder of this configuration from the ``encoder_*.npy`` in `folder`.

    Raise FileNotFoundError for a missing file, and ValueError for a damaged one or for
    arrays of another configuration.
    """

    def read(name: str) -> NDArray[Any]:
        file = folder / f"encoder_{name}.npy"
        array = load_npy(file, mmap=False)
        if array.dtype.kind not in "fiu" or not (np.abs(array.astype(np.float64)) <= _LARGEST).all():
            raise ValueError(
                f"{file} is damaged: its {array.dtype} values must be finite numbers of at most "
                f"{_LARGEST:.0e}. Restore it from a copy."
            )
        return array

    arrays = {name: each.from_files(read) for name, each in array_classes(config).items()}
    encoder = FDEEncoder(config, **arrays)
    if (folder / "encoder_scale.npy").exists():
        scale = read("scale")
        if scale.shape != (1,) or scale[0] <= 0:
            raise ValueError(
                f"{folder / 'encoder_scale.npy'} is damaged: it must contain one positive number."
            )
        encoder.scale = float(scale[0])
    return encoder


def is_encoder_folder(path: str | os.PathLike[str]) -> bool:
    """Return True if the folder was written by an encoder's ``save``."""
    return (Path(path) / ENCODER_FILE).is_file()


def load_encoder(path: str | os.PathLike[str]) -> FDEEncoder:
    """Load a saved encoder, which makes the same vectors as before.

    Parameters
    ----------
    path : path
        The folder.  For the encoder of an index use ``MuveraIndex.load(path).encoder``.

    Returns
    -------
    FDEEncoder

    Raises
    ------
    FileNotFoundError
        If the folder contains no encoder.
    ValueError
        For a missing or damaged file, another format, or arrays that do not fit the
        configuration.
    """
    folder = as_path(path)
    file = folder / ENCODER_FILE
    recover_folder(folder)
    if not file.is_file():
        raise FileNotFoundError(f"{folder} has no {ENCODER_FILE}, so it is not an encoder's folder.")
    state = read_json(file)
    if (
        not isinstance(state, dict)
        or not ENCODER_FORMAT.items() <= state.items()
        or not isinstance(state.get("config"), dict)
        or not isinstance(state.get("files"), dict)
    ):
        raise ValueError(f"{file} does not describe an encoder that this version of muvera reads.")
    if state.pop("sha256", None) != content_checksum(state):
        raise ValueError(f"{file} does not match its checksum. Restore it from a copy.")
    try:
        config = FDEConfig.from_dict(state["config"])
    except ValueError as error:  # the file matches its checksum
        raise ValueError(
            f"{file} has the configuration of another version: {error} Use the muvera that wrote it, or "
            "fit the encoder again."
        ) from error
    present = {path.name for path in folder.glob("encoder_*.npy")}
    for name in sorted(present ^ set(state["files"])):
        raise ValueError(f"{file} and its folder disagree about {name!r}. Restore both from a copy.")
    for name in present:
        require_unchanged(folder / name, state["files"][name])
    return read_encoder(folder, config)
