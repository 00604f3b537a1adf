"""All encoders behind one interface: which configuration makes which, in memory and on the disk.

An encoder has ``config``, ``needs_fit``, ``fit``, ``encode_documents`` and ``encode_queries``; its
configuration has ``dimension``, ``vector_dimension``, ``hash`` and ``to_dict``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .fde import persistence as saved_fde
from .fde.config import PRESETS as FDE_PRESETS
from .fde.config import FDEConfig
from .fde.encoder import FDEEncoder
from .learned import persistence as saved_learned
from .learned.config import LearnedConfig
from .learned.encoder import LearnedEncoder

__all__ = [
    "PRESETS",
    "Encoder",
    "EncoderConfig",
    "config_from_dict",
    "load_encoder",
    "make_encoder",
    "needs_sample",
    "require_config",
    "save_encoder",
]

Encoder = FDEEncoder | LearnedEncoder
EncoderConfig = FDEConfig | LearnedConfig

#: Named configurations: what each says besides the dimension.
PRESETS: dict[str, dict[str, Any]] = {
    **FDE_PRESETS,
    "compact": {"compact_dimension": 512},
    "learned": {"encoder": "learned"},
}

_CONFIGS: dict[str, type[FDEConfig] | type[LearnedConfig]] = {"fde": FDEConfig, "learned": LearnedConfig}


def config_from_dict(values: dict[str, Any]) -> EncoderConfig:
    """Return the configuration that ``to_dict`` described.

    Parameters
    ----------
    values : dict
        Parameters of :class:`FDEConfig`, or of :class:`LearnedConfig` where ``encoder`` is
        "learned".

    Raises
    ------
    ValueError
        For an unknown encoder or parameter, or a wrong value.
    """
    kind = values.get("encoder", "fde")
    if kind not in _CONFIGS:
        raise ValueError(f"encoder must be 'fde' or 'learned', got {kind!r}.")
    return _CONFIGS[kind].from_dict({name: value for name, value in values.items() if name != "encoder"})


def require_config(config: Any) -> EncoderConfig:
    """Return `config` where it is an encoder's, or raise TypeError."""
    if not isinstance(config, (FDEConfig, LearnedConfig)):
        raise TypeError(f"config must be an FDEConfig or a LearnedConfig, got {type(config).__name__}.")
    return config


def needs_sample(config: EncoderConfig) -> bool:
    """Whether fitting needs a fair sample of the documents: a mean token is known from a few."""
    return isinstance(config, LearnedConfig) or config.compact_dimension is not None


def make_encoder(config: EncoderConfig) -> Encoder:
    """Return a new encoder, which may need ``fit``."""
    return LearnedEncoder(config) if isinstance(config, LearnedConfig) else FDEEncoder(config)


def save_encoder(encoder: Encoder, folder: Path) -> None:
    """Write a fitted encoder's arrays as ``encoder_*.npy``; its configuration is the caller's to keep."""
    if isinstance(encoder, LearnedEncoder):
        saved_learned.save_encoder(encoder, folder)
    else:
        saved_fde.save_encoder(encoder, folder)


def load_encoder(folder: Path, config: EncoderConfig) -> Encoder:
    """Read what :func:`save_encoder` wrote.

    Raises
    ------
    FileNotFoundError
        For a missing file.
    ValueError
        For a damaged file, or arrays that do not fit the configuration.
    """
    if isinstance(config, LearnedConfig):
        return saved_learned.load_encoder(folder, config)
    return saved_fde.load_encoder(folder, config)
