"""A few small encoders, so that tuning is fast."""

import importlib
from dataclasses import replace

import pytest

from muvera import FDEConfig, LearnedConfig, MomentsConfig
from muvera.tuning.result import Tuning
from muvera.tuning.search_space import EncoderCandidate

#: The module; the function of the same name hides it.
TUNE = importlib.import_module("muvera.tuning.tune")


def small_encoders(dimension: int) -> list[EncoderCandidate]:
    """FDEs of 64 to 512 floats, moments of 16 and 32, learned vectors of 16 and 64."""
    large = FDEConfig(
        dimension=dimension, num_repetitions=8, num_simhash_projections=3, projection_dimension=4
    )
    candidates = []
    for repetitions, planes in ((4, 2), (8, 2), (8, 3)):
        fde = replace(large, num_repetitions=repetitions, num_simhash_projections=planes)
        candidates.append(EncoderCandidate(f"FDE {fde.vector_dimension}", fde, fde))
    moments = MomentsConfig(dimension=dimension, compact_dimension=32)
    for size in (16, 32):
        config = replace(moments, compact_dimension=size)
        candidates.append(EncoderCandidate(f"moments {size}", config, moments))
    learned = LearnedConfig(dimension=dimension, vector_dimension=64, num_landmarks=256, num_features=128)
    for size in (16, 64):
        own = replace(learned, vector_dimension=size)
        candidates.append(EncoderCandidate(f"learned {size}", own, learned))
    return sorted(candidates, key=lambda candidate: candidate.floats)


def use_small_encoders(monkeypatch: pytest.MonkeyPatch, part: str = "") -> None:
    """Restrict tune to the small encoders with `part` in their names."""
    monkeypatch.setattr(
        TUNE,
        "encoder_candidates",
        lambda dimension: [one for one in small_encoders(dimension) if part in one.name],
    )


def without_times(tuning: Tuning) -> Tuning:
    """The same with all times zero, so that it depends on documents, queries and seed only."""
    rows = tuple(replace(row, encode_seconds=0.0, query_seconds=0.0) for row in tuning.rows)
    choice = replace(tuning.choice, encode_seconds=0.0, query_seconds=0.0)
    return replace(tuning, rows=rows, choice=choice)
