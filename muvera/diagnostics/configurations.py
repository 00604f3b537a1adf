"""The encoders that a diagnosis measures, and how Python and the command line name them."""

from __future__ import annotations

from ..encoders.base import EncoderConfig
from ..encoders.fde.config import PRESETS as FDE_PRESETS
from ..encoders.fde.config import FDEConfig
from ..encoders.registry import PRESETS, config_from_dict, preset_config

__all__ = ["GIVEN", "PAPER", "constructor_call", "encoders_to_measure", "preset_name"]

#: Name of the measured encoder that stands for the paper's recipe and is never recommended.
PAPER = "FDE of the paper"

#: Name of the measured encoder that the caller gave.
GIVEN = "given"

#: Hyperplanes of the smaller size of the default FDE.
_SMALL_PLANES = 2


def encoders_to_measure(config: FDEConfig) -> dict[str, EncoderConfig]:
    """Return configurations by name: the paper's, the default in two sizes, other kinds, the given one.

    Parameters
    ----------
    config : FDEConfig
        The caller's; it is measured besides where it is none of the others.
    """
    dimension = config.dimension
    small = FDEConfig(dimension=dimension, num_simhash_projections=_SMALL_PLANES)
    large = FDEConfig(dimension=dimension)
    encoders: dict[str, EncoderConfig] = {
        PAPER: preset_config("paper", dimension),
        f"FDE {small.vector_dimension:,}": small,
        f"FDE {large.vector_dimension:,}": large,
    }
    for preset in PRESETS:
        if preset not in FDE_PRESETS:
            other = preset_config(preset, dimension)
            encoders[f"{preset} {other.vector_dimension:,}"] = other
    return encoders if config in encoders.values() else {**encoders, GIVEN: config}


def preset_name(config: EncoderConfig) -> str | None:
    """Return the preset that makes `config`, or None where no preset does."""
    return next((name for name in PRESETS if preset_config(name, config.dimension) == config), None)


def constructor_call(config: EncoderConfig) -> str:
    """Return the Python expression that makes `config`, without what is the default.

    Examples
    --------
    >>> constructor_call(FDEConfig(dimension=128, num_simhash_projections=2))
    'FDEConfig(dimension=128, num_simhash_projections=2)'
    """
    default = config_from_dict({"encoder": config.kind, "dimension": config.dimension}).to_dict()
    changes = [f"{name}={value!r}" for name, value in config.to_dict().items() if value != default[name]]
    return f"{type(config).__name__}({', '.join([f'dimension={config.dimension}', *changes])})"
