"""Encoder configurations of the library from build arguments, and the documents that encoders are fitted on."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from muvera.encoders.base import BaseConfig, EncoderConfig
from muvera.encoders.registry import ENCODERS, PRESETS, config_from_dict

from ..known_names import require_known

__all__ = ["ENCODER_ARGUMENTS", "encoder_config", "fit_sample"]

# Dimension and seed come from the runner.
_GIVEN = ("dimension", "seed")


def _arguments(config: type[BaseConfig]) -> tuple[str, ...]:
    fields = dataclasses.fields(config)  # type: ignore[arg-type]
    return tuple(field.name for field in fields if field.name not in _GIVEN)


_BY_ENCODER = {name: _arguments(kind.config) for name, kind in ENCODERS.items()}

#: What a configuration may say of encoders.
ENCODER_ARGUMENTS = ("encoder", *dict.fromkeys(name for names in _BY_ENCODER.values() for name in names))


def encoder_config(preset: str, dimension: int, seed: int, changes: dict[str, Any]) -> EncoderConfig:
    """Return a preset with `changes`, having refused unknown ones with the nearest name.

    Parameters
    ----------
    preset : str
        Of :data:`muvera.encoders.registry.PRESETS`.
    dimension, seed : int
    changes : dict
        Parameters of the configuration of the preset's encoder, or of another ``encoder``.
    """
    require_known(preset, PRESETS, "preset")
    values = {**PRESETS[preset], **changes}
    encoder = values.get("encoder", "fde")
    require_known(encoder, _BY_ENCODER, "encoder")
    for name in changes:
        require_known(name, ("encoder", *_BY_ENCODER[encoder]), f"argument of the encoder {encoder}")
    return config_from_dict({**values, "dimension": dimension, "seed": seed})


def fit_sample(count: int, share: float | None, seed: int) -> NDArray[np.int64] | None:
    """Return a random `share` of `count` positions, ascending; None stands for all.

    Raises
    ------
    ValueError
        For a share that is not above 0 and below 1.
    """
    if share is None:
        return None
    if not 0 < share < 1:
        raise ValueError(f"fit_on must be a share of the documents above 0 and below 1, got {share}.")
    return np.sort(np.random.default_rng(seed).choice(count, max(1, round(share * count)), replace=False))
