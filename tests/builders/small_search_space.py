"""Few and small encoders, so that a tuning takes a moment."""

import dataclasses
import importlib

import pytest

from muvera import FDEConfig, LearnedConfig, Tuning
from muvera.tuning.search_space import Arm

#: The module, whose name the function of the same name hides.
TUNE = importlib.import_module("muvera.tuning.tune")


def small_arms(dimension: int) -> list[Arm]:
    """FDEs of 64 to 512 floats, compact ones of 16 and 32, learned ones of 16 and 64."""
    found = []
    for repetitions, planes in ((4, 2), (8, 2), (8, 3)):
        fde = FDEConfig(
            dimension=dimension,
            num_repetitions=repetitions,
            num_simhash_projections=planes,
            projection_dimension=4,
        )
        found.append(Arm(f"FDE {fde.vector_dimension}", fde, fde))
    largest = dataclasses.replace(found[-1].config, compact_dimension=32)
    for size in (16, 32):
        found.append(Arm(f"compact {size}", dataclasses.replace(largest, compact_dimension=size), largest))
    learned = LearnedConfig(dimension=dimension, vector_dimension=64, num_landmarks=256, num_features=128)
    for size in (16, 64):
        found.append(Arm(f"learned {size}", dataclasses.replace(learned, vector_dimension=size), learned))
    return sorted(found, key=lambda arm: arm.floats)


def use_small_arms(monkeypatch: pytest.MonkeyPatch, part: str = "") -> None:
    """Let tune try the small encoders only, those with `part` in their names."""
    monkeypatch.setattr(
        TUNE, "arms", lambda dimension: [arm for arm in small_arms(dimension) if part in arm.name]
    )


def without_times(found: Tuning) -> Tuning:
    """The same with all times zero: what depends on documents, queries and seed alone."""
    rows = tuple(dataclasses.replace(row, encode_seconds=0.0, query_seconds=0.0) for row in found.rows)
    chosen = dataclasses.replace(found.chosen, encode_seconds=0.0, query_seconds=0.0)
    return dataclasses.replace(found, rows=rows, chosen=chosen)
