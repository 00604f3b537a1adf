"""From a preset, a file and single options to one configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..encoders.base import EncoderConfig
from ..encoders.registry import PRESETS, config_from_dict

__all__ = ["configuration", "read_config"]

#: What a configuration file may say besides the encoder's parameters.
INDEX_SETTINGS = ("backend", "hnsw", "usearch", "exact_tokens", "tokens", "keep_exact")


def configuration(
    dimension: int, preset: str, file: Path | None, changes: dict[str, Any]
) -> tuple[EncoderConfig, dict[str, Any]]:
    """Return the FDEs' configuration and the index's settings.

    Parameters
    ----------
    dimension : int
        Of the source's tokens; a file that says another one is an error where they meet.
    preset : str
        What to start from.
    file : Path, optional
        Changes the preset.
    changes : dict
        Single options, which change both; those that are None were not given.

    Returns
    -------
    FDEConfig or LearnedConfig
    dict
        Fields of IndexSettings that were given.
    """
    if preset not in PRESETS:
        raise ValueError(f"There is no preset {preset!r}. There are: {', '.join(PRESETS)}.")
    values: dict[str, Any] = {"dimension": dimension, **PRESETS[preset]}
    values.update({} if file is None else read_config(file))
    values.update({name: value for name, value in changes.items() if value is not None})
    settings = {name: values.pop(name) for name in INDEX_SETTINGS if name in values}
    return config_from_dict(values), settings


def read_config(file: Path) -> dict[str, Any]:
    """Return the JSON object in `file`."""
    from ..utils.atomic_files import read_json

    values = read_json(file)
    if not isinstance(values, dict):
        raise ValueError(f"{file} must hold a JSON object of parameters, got {type(values).__name__}.")
    for name, example in (
        ("hnsw", '{"m": 32}'),
        ("usearch", '{"precision": "int8"}'),
    ):
        if not isinstance(values.get(name, {}), dict):
            raise ValueError(f"{file}: {name} must be an object such as {example}, got {values[name]!r}.")
    return values
