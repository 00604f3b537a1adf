"""Few and small encoders, so that a tuning takes a moment."""

import dataclasses
import importlib

import pytest

from muvera import FDEConfig, LearnedConfig, Tuning
from muvera.tuning.search_space import EncoderCandidate

#: The module, whose name the function of the same name hides.
TUNE = importlib.import_module("muvera.tuning.tune")


def small_encoders(dimension: int) -> list[EncoderCandidate]:
    """FDEs of 64 to 512 floats, compact ones of 16 and 32, learned ones of 16 and 64."""
    found = []
    for repetitions, planes in ((4, 2), (8, 2), (8, 3)):
        fde = FDEConfig(
            dimension=dimension,
            num_repetitions=repetitions,
            num_simhash_projections=planes,
            projection_dimension=4,
        )
        found.append(EncoderCandidate(f"FDE {fde.vector_dimension}", fde, fde))
    largest = dataclasses.replace(found[-1].config, compact_dimension=32)
    for size in (16, 32):
        found.append(
            EncoderCandidate(f"compact {size}", dataclasses.replace(largest, compact_dimension=size), largest)
        )
    learned = LearnedConfig(dimension=dimension, vector_dimension=64, num_landmarks=256, num_features=128)
    for size in (16, 64):
        found.append(
            EncoderCandidate(f"learned {size}", dataclasses.replace(learned, vector_dimension=size), learned)
        )
    return sorted(found, key=lambda each: each.floats)


def use_small_encoders(monkeypatch: pytest.MonkeyPatch, part: str = "") -> None:
    """Let tune try the small encoders only, those with `part` in their names."""
    monkeypatch.setattr(
        TUNE,
        "encoder_candidates",
        lambda dimension: [each for each in small_encoders(dimension) if part in each.name],
    )


def without_times(found: Tuning) -> Tuning:
    """The same with all times zero: what depends on documents, queries and seed alone."""
    rows = tuple(dataclasses.replace(row, encode_seconds=0.0, query_seconds=0.0) for row in found.rows)
    choice = dataclasses.replace(found.choice, encode_seconds=0.0, query_seconds=0.0)
    return dataclasses.replace(found, rows=rows, choice=choice)
