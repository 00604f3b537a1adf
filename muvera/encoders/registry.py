"""Create encoders from presets, configurations and folders."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..utils.arrays import load_npy
from ..utils.atomic_files import content_checksum, read_json, recover_folder, require_unchanged
from ..utils.checks import as_path
from .base import ENCODER_FILE, ENCODER_FORMAT, Encoder, EncoderConfig
from .fde import PRESETS as FDE_PRESETS
from .fde import FDEEncoder
from .learned import LearnedEncoder
from .moments import MomentsConfig, MomentsEncoder

#: Every kind of encoder, by the ``kind`` of its configuration.
ENCODERS: dict[str, Any] = {"moments": MomentsEncoder, "learned": LearnedEncoder, "fde": FDEEncoder}

#: Parameters of each preset besides the dimension.
PRESETS: dict[str, dict[str, Any]] = {
    "moments": {"encoder": "moments"},
    "learned": {"encoder": "learned"},
    "mean": {"encoder": "moments", "covariance": False, "compact_dimension": None},
    **{name: {"encoder": "fde", **values} for name, values in FDE_PRESETS.items()},
}

#: The preset that is used without `encoder`.
DEFAULT_PRESET = "moments"


def config_from_dict(values: dict[str, Any]) -> EncoderConfig:
    """Create a configuration from the result of its ``to_dict``; the default ``encoder`` is "moments"."""
    kind = values.get("encoder", MomentsConfig.kind)
    if not isinstance(kind, str) or kind not in ENCODERS:
        raise ValueError(f"encoder must be one of {', '.join(map(repr, ENCODERS))}, got {kind!r}.")
    config: EncoderConfig = ENCODERS[kind].config_class.from_dict(values)
    return config


def preset_config(name: str, dimension: int, **changes: Any) -> EncoderConfig:
    """Return the configuration of a preset, with `changes` to it."""
    if name not in PRESETS:
        raise ValueError(f"There is no preset {name!r}. The presets are: {', '.join(PRESETS)}.")
    return config_from_dict({"dimension": dimension, **PRESETS[name], **changes})


def as_encoder(
    value: EncoderConfig | Encoder | str | None, dimension: int
) -> tuple[EncoderConfig, Encoder | None]:
    """Return the configuration of an ``encoder=`` argument, and the encoder if the argument is a fitted one."""
    if value is None or isinstance(value, str):
        return preset_config(value or DEFAULT_PRESET, dimension), None
    encoder = value if isinstance(value, Encoder) and not value.needs_fit else None
    config = value.config if isinstance(value, Encoder) else value
    classes = [kind.config_class for kind in ENCODERS.values()]
    if type(config) not in classes:
        names = ", ".join(each.__name__ for each in classes)
        raise TypeError(
            f"encoder must be a preset's name, a fitted encoder or one of {names}, got {type(value).__name__}."
        )
    if config.dimension != dimension:
        raise ValueError(
            f"The encoder has dimension={config.dimension}, but the tokens have {dimension} columns. "
            f"Use dimension={dimension}."
        )
    return config, encoder


def make_encoder(config: EncoderConfig) -> Encoder:
    """Return a new encoder, which may need ``fit``."""
    encoder: Encoder = ENCODERS[config.kind](config)
    return encoder


def read_encoder(folder: Path, config: EncoderConfig) -> Encoder:
    """Read an encoder of this configuration from the ``encoder_*.npy`` in `folder`.

    Raise FileNotFoundError for a missing file, and ValueError for a damaged one or for arrays of another configuration.
    """

    def read(name: str) -> NDArray[Any]:
        file = folder / f"encoder_{name}.npy"
        array = load_npy(file, mmap=False)
        if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
            raise ValueError(f"{file} is damaged: its {array.dtype} values must be finite numbers.")
        return array

    kind = ENCODERS[config.kind]
    arrays = {name: each.from_files(read) for name, each in kind._array_classes(config).items()}
    encoder: Encoder = kind(config, **arrays)
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


def load_encoder(path: str | os.PathLike[str]) -> Encoder:
    """Load an encoder that was written by its ``save``; it makes the same vectors as the saved one.

    Parameters
    ----------
    path : path
        The folder.  For the encoder of an index use ``MuveraIndex.load(path).encoder``.

    Raises
    ------
    FileNotFoundError
        If the folder contains no encoder.
    ValueError
        For a missing or damaged file, another format, or arrays that do not fit the configuration.
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
        config = config_from_dict(state["config"])
    except ValueError as error:  # the file matches its checksum
        raise ValueError(
            f"{file} has the configuration of another version: {error} Use the muvera that wrote it, or fit the "
            "encoder again."
        ) from error
    present = {path.name for path in folder.glob("encoder_*.npy")}
    for name in sorted(present ^ set(state["files"])):
        raise ValueError(f"{file} and its folder disagree about {name!r}. Restore both from a copy.")
    for name in present:
        require_unchanged(folder / name, state["files"][name])
    return read_encoder(folder, config)
