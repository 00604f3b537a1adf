"""Few and small encoders, so that a tuning takes a moment."""

import importlib
from dataclasses import replace

import pytest

from muvera import FDEConfig, LearnedConfig, Tuning
from muvera.tuning.search_space import EncoderCandidate

#: The module, whose name the function of the same name hides.
TUNE = importlib.import_module("muvera.tuning.tune")


def small_encoders(dimension: int) -> list[EncoderCandidate]:
    """FDEs of 64 to 512 floats, compact ones of 16 and 32, learned ones of 16 and 64."""
    large = FDEConfig(
        dimension=dimension, num_repetitions=8, num_simhash_projections=3, projection_dimension=4
    )
    found = []
    for repetitions, planes in ((4, 2), (8, 2), (8, 3)):
        fde = replace(large, num_repetitions=repetitions, num_simhash_projections=planes)
        found.append(EncoderCandidate(f"FDE {fde.vector_dimension}", fde, fde))
    for size in (16, 32):
        compact = replace(large, compact_dimension=size)
        found.append(EncoderCandidate(f"compact {size}", compact, replace(large, compact_dimension=32)))
    largest = LearnedConfig(dimension=dimension, vector_dimension=64, num_landmarks=256, num_features=128)
    for size in (16, 64):
        learned = replace(largest, vector_dimension=size)
        found.append(EncoderCandidate(f"learned {size}", learned, largest))
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
    rows = tuple(replace(row, encode_seconds=0.0, query_seconds=0.0) for row in found.rows)
    choice = replace(found.choice, encode_seconds=0.0, query_seconds=0.0)
    return replace(found, rows=rows, choice=choice)
