"""Build arguments of our systems -> configurations of the library."""

from __future__ import annotations

import dataclasses
from typing import Any

from muvera import FDEConfig

from ..names import require_known

__all__ = ["FDE_ARGUMENTS", "fde_config"]

#: What a configuration may say of FDEs; dimension and seed come from the runner.
FDE_ARGUMENTS = tuple(
    field.name for field in dataclasses.fields(FDEConfig) if field.name not in ("dimension", "seed")
)


def fde_config(preset: str, dimension: int, seed: int, changes: dict[str, Any]) -> FDEConfig:
    """Return a preset with `changes`, having refused unknown ones with the nearest name."""
    for name in changes:
        require_known(name, FDE_ARGUMENTS, "FDE argument")
    return FDEConfig.preset(preset, dimension, **{**changes, "seed": seed})
