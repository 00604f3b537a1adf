"""Registry of encoders: which configuration makes which, by name, from presets and from the disk."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..utils.atomic_files import read_json
from ..utils.checksums import content_checksum, require_unchanged
from ..utils.npy_files import load_npy
from ..utils.sibling_folders import recover_folder
from .base import (
    ENCODER_FILE,
    ENCODER_FORMAT,
    ENCODER_FORMAT_VERSION,
    BaseConfig,
    Encoder,
    EncoderConfig,
    ReadArray,
)
from .fde.config import PRESETS as FDE_PRESETS
from .fde.config import FDEConfig
from .fde.encoder import FDEEncoder
from .learned.config import LearnedConfig
from .learned.encoder import LearnedEncoder
from .moments.config import MeanConfig
from .moments.encoder import MeanEncoder

__all__ = [
    "ENCODERS",
    "PRESETS",
    "EncoderKind",
    "as_config",
    "as_encoder",
    "config_from_dict",
    "is_encoder_folder",
    "load_encoder",
    "make_encoder",
    "possible_presets",
    "preset_config",
    "read_encoder",
    "require_config",
]


@dataclass(frozen=True)
class EncoderKind:
    """What the library knows of a kind of encoder.

    Parameters
    ----------
    config : type
        The configuration's class; its ``kind`` is the name.
    make : callable
        Returns a new encoder of a configuration.
    restore : callable
        Returns a fitted encoder of a configuration and a function that reads its arrays by name.
    """

    config: type[BaseConfig]
    make: Callable[[Any], Encoder]
    restore: Callable[[Any, ReadArray], Encoder]


#: Every kind of encoder by its name, the "encoder" of a configuration's ``to_dict``.
ENCODERS: dict[str, EncoderKind] = {
    kind.config.kind: kind
    for kind in (
        EncoderKind(FDEConfig, FDEEncoder, FDEEncoder.from_arrays),
        EncoderKind(LearnedConfig, LearnedEncoder, LearnedEncoder.from_arrays),
        EncoderKind(MeanConfig, MeanEncoder, MeanEncoder.from_arrays),
    )
}

#: Named configurations, for Python, the command line and configuration files: what each says
#: besides the dimension.
PRESETS: dict[str, dict[str, Any]] = {
    **FDE_PRESETS,
    "compact": {"compact_dimension": 512},
    "learned": {"encoder": "learned"},
    "mean": {"encoder": "mean"},
    "moments": {"encoder": "mean", "covariance": True, "compact_dimension": 256},
    "fde": {},
    "covariance": {"encoder": "mean", "covariance": True},
    "compact_covariance": {"encoder": "mean", "covariance": True, "compact_dimension": 256},
}


def config_from_dict(values: dict[str, Any]) -> EncoderConfig:
    """Return the configuration that ``to_dict`` described.

    Parameters
    ----------
    values : dict
        Parameters of the configuration of the kind that ``encoder`` names, by default "fde".

    Raises
    ------
    ValueError
        For an unknown encoder or parameter, or a wrong value.
    """
    kind = values.get("encoder", FDEConfig.kind)
    if kind not in ENCODERS:
        raise ValueError(f"encoder must be one of {', '.join(map(repr, ENCODERS))}, got {kind!r}.")
    return _typed(ENCODERS[kind].config.from_dict(values))


def _typed(config: Any) -> EncoderConfig:
    checked: EncoderConfig = config
    return checked


def preset_config(name: str, dimension: int, **changes: Any) -> EncoderConfig:
    """Return the configuration of a preset, with `changes` to it.

    Raises
    ------
    ValueError
        For an unknown preset or parameter, or a wrong value.
    """
    if name not in PRESETS:
        raise ValueError(f"There is no preset {name!r}. There are: {', '.join(PRESETS)}.")
    return config_from_dict({"dimension": dimension, **PRESETS[name], **changes})


def possible_presets(dimension: int) -> dict[str, EncoderConfig]:
    """Return the configurations of all presets that tokens of `dimension` columns allow, by name.

    Tokens of few columns have no covariance of hundreds of floats, and those of many too long a one.
    """
    found = {}
    for name in PRESETS:
        try:
            found[name] = preset_config(name, dimension)
        except ValueError:
            continue
    return found


def require_config(config: Any) -> EncoderConfig:
    """Return `config` where it is an encoder's, or raise TypeError."""
    kind = ENCODERS.get(getattr(config, "kind", ""))
    if kind is None or type(config) is not kind.config:
        names = " or ".join(entry.config.__name__ for entry in ENCODERS.values())
        raise TypeError(f"config must be a preset's name or an {names}, got {type(config).__name__}.")
    return _typed(config)


def as_config(config: EncoderConfig | str | None, dimension: int) -> EncoderConfig:
    """Return a configuration, that of a preset's name, or the default for `dimension`.

    Raises
    ------
    TypeError
        For anything else.
    ValueError
        For an unknown preset.
    """
    if config is None or isinstance(config, str):
        return preset_config("default" if config is None else config, dimension)
    return require_config(config)


def as_encoder(value: Any, dimension: int) -> tuple[EncoderConfig, Encoder | None]:
    """Return the configuration that an ``encoder=`` argument stands for, and the encoder if it is fitted."""
    if isinstance(value, str) or value is None:
        name = "moments" if value is None else value
        if name == "moments" and name not in possible_presets(dimension):
            name = "covariance"
        return preset_config(name, dimension), None
    if hasattr(value, "encode_documents"):
        return require_config(value.config), None if value.needs_fit else value
    return require_config(value), None


def make_encoder(config: EncoderConfig) -> Encoder:
    """Return a new encoder, which may need ``fit``."""
    return ENCODERS[config.kind].make(config)


def read_encoder(folder: Path, config: EncoderConfig) -> Encoder:
    """Read an encoder of this configuration from the ``encoder_*.npy`` in `folder`.

    Raises
    ------
    FileNotFoundError
        For a missing file.
    ValueError
        For a damaged file, or arrays that do not fit the configuration.
    """

    def read(name: str) -> NDArray[Any]:
        array = load_npy(folder / f"encoder_{name}.npy", mmap=False)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"{folder / f'encoder_{name}.npy'} is damaged: it has a NaN or an infinity.")
        return array

    return ENCODERS[config.kind].restore(config, read)


def is_encoder_folder(path: str | os.PathLike[str]) -> bool:
    """Whether an encoder's ``save`` wrote this folder."""
    return (Path(path) / ENCODER_FILE).is_file()


def load_encoder(path: str | os.PathLike[str]) -> Encoder:
    """Read an encoder that its ``save`` wrote.

    Parameters
    ----------
    path : path
        The folder.  An index's folder has its encoder inside: ``MuveraIndex.load(path).encoder``.

    Returns
    -------
    FDEEncoder, LearnedEncoder or another kind
        Fitted: it makes the same vectors as the one that was saved.

    Raises
    ------
    FileNotFoundError
        Where the folder holds no encoder, or a file of it is missing.
    ValueError
        For a damaged file, another format, or arrays that do not fit the configuration.
    """
    folder = Path(path)
    file = folder / ENCODER_FILE
    recover_folder(folder)
    if not file.is_file():
        raise FileNotFoundError(f"{folder} has no {ENCODER_FILE}: an encoder's folder has one.")
    state = read_json(file)
    known = isinstance(state, dict) and state.get("format") == ENCODER_FORMAT
    if not known or state.get("format_version") != ENCODER_FORMAT_VERSION:
        raise ValueError(f"{file} does not describe an encoder that this muvera reads.")
    if state.pop("sha256", None) != content_checksum(state):
        raise ValueError(f"{file} has another checksum than when it was written. Restore it from a copy.")
    config = config_from_dict(state["config"])
    present = {path.name for path in folder.glob("encoder_*.npy")}
    for name in sorted(present.union(state["files"])):
        if (
            name not in state["files"]
            or not fnmatch(Path(name).name, "encoder_*.npy")
            or Path(name).name != name
        ):
            raise ValueError(
                f"{file} and the files beside it disagree over {name!r}. Restore them from a copy."
            )
        require_unchanged(folder / name, state["files"][name])
    return read_encoder(folder, config)
