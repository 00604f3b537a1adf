"""Capacity of cells against simulated cells, and that it moves the right way."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muvera import theory
from muvera.diagnostics.capacity import cell_capacity

USUAL: dict[str, Any] = {
    "tokens_per_cell": 3,
    "projection_dimension": 8,
    "repetitions": 4,
    "spread": 0.1,
    "competitors": 20,
    "similarity": 0.6,
    "query_tokens": 8,
}


def frequency(
    tokens_per_cell: int,
    projection_dimension: int,
    repetitions: int,
    spread: float,
    competitors: int,
    similarity: float,
    query_tokens: int,
    *,
    dimension: int = 64,
    draws: int = 200,
) -> float:
    """How often a competitor's estimate exceeds that of the document with the best tokens."""
    rng = np.random.default_rng(0)
    failures = 0
    for _ in range(draws):
        total = np.zeros(competitors + 1)
        for _ in range(query_tokens):
            # The query token is the first axis: a token's cosine with it is the first coordinate.
            cosines = rng.normal(scale=spread, size=(competitors + 1, tokens_per_cell))
            cosines[0, 0] = similarity
            rest = rng.normal(size=(competitors + 1, tokens_per_cell, dimension - 1))
            rest *= np.sqrt(1 - np.clip(cosines, -1, 1) ** 2)[..., None] / np.linalg.norm(
                rest, axis=2, keepdims=True
            )
            cells = np.concatenate([cosines[..., None], rest], axis=2).mean(axis=1)
            signs = 2.0 * rng.integers(0, 2, (repetitions * projection_dimension, dimension)) - 1
            total += (cells @ signs.T) @ signs[:, 0] / len(signs)
        failures += bool((total[1:] >= total[0]).any())
    return failures / draws


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tokens_per_cell": 1, "query_tokens": 1, "competitors": 10},
        {"tokens_per_cell": 6, "query_tokens": 16},
        {"repetitions": 1, "query_tokens": 24},
        {"spread": 0.02, "repetitions": 8, "tokens_per_cell": 2, "query_tokens": 4},
        {"spread": 0.3, "repetitions": 40, "query_tokens": 32},
    ],
)
def test_the_bound_is_above_the_frequency(changes: dict[str, Any]) -> None:
    settings = {**USUAL, **changes}
    bound = cell_capacity(**settings).failure
    # 200 draws: three standard errors of a frequency at the bound.
    assert frequency(**settings) <= bound + 3 * math.sqrt(bound / 200)


def test_the_bound_is_not_idle() -> None:
    """Below a half where failures are rare, near one where they are frequent."""
    assert cell_capacity(**{**USUAL, "query_tokens": 12}).failure < 0.5
    crowded = {**USUAL, "tokens_per_cell": 12, "query_tokens": 1}
    assert frequency(**crowded) > 0.5 and cell_capacity(**crowded).failure == 1.0


@given(
    st.floats(1, 50), st.integers(1, 64), st.integers(1, 40), st.floats(0.01, 0.5), st.integers(1, 10**6),
    st.floats(0.05, 1), st.integers(1, 64),
)  # fmt: skip
def test_monotone_in_every_argument(
    load: float, width: int, repetitions: int, spread: float, competitors: int, similarity: float, tokens: int
) -> None:
    here = {
        "tokens_per_cell": load,
        "projection_dimension": width,
        "repetitions": repetitions,
        "spread": spread,
        "competitors": competitors,
        "similarity": similarity,
        "query_tokens": tokens,
    }
    base = cell_capacity(**here)  # type: ignore[arg-type]
    for name, factor in (("tokens_per_cell", 2), ("spread", 2), ("competitors", 2)):
        worse = cell_capacity(**{**here, name: here[name] * factor})  # type: ignore[arg-type]
        assert worse.failure >= base.failure
        assert worse.largest_load <= base.largest_load
    for name in ("projection_dimension", "repetitions", "query_tokens"):
        better = cell_capacity(**{**here, name: here[name] * 2})  # type: ignore[arg-type]
        assert better.failure <= base.failure and better.largest_load >= base.largest_load
    assert cell_capacity(**{**here, "similarity": similarity / 2}).failure >= base.failure  # type: ignore[arg-type]
    unprojected = cell_capacity(**{**here, "projection_dimension": None})  # type: ignore[arg-type]
    assert unprojected.failure <= base.failure and unprojected.projection_noise == 0
    assert base.shared_noise + base.projection_noise == pytest.approx(1)
    tight = cell_capacity(**here, delta=0.01)  # type: ignore[arg-type]
    assert tight.largest_load <= base.largest_load


def test_the_largest_load_has_the_given_failure() -> None:
    settings = {**USUAL, "query_tokens": 32}
    largest = cell_capacity(**settings, delta=0.2).largest_load
    assert largest > 1
    assert cell_capacity(**{**settings, "tokens_per_cell": largest}).failure == pytest.approx(0.2)


def test_cells_without_noise_hold_everything() -> None:
    found = cell_capacity(9, None, 1, 0.0, 10)
    assert (found.failure, found.largest_load) == (0.0, math.inf)
    assert theory.cell_capacity is cell_capacity


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"tokens_per_cell": 0.5}, ValueError, "tokens_per_cell must be at least 1, got 0.5"),
        ({"projection_dimension": 0}, ValueError, "projection_dimension must be at least 1, got 0"),
        ({"repetitions": 2.0}, TypeError, "repetitions must be an int, got float 2.0"),
        ({"spread": -0.1}, ValueError, "spread must be at least 0, got -0.1"),
        ({"competitors": 0}, ValueError, "competitors must be at least 1, got 0"),
        ({"delta": 0}, ValueError, "delta must be above 0 and at most 1, got 0"),
        ({"similarity": 1.5}, ValueError, "similarity must be above 0 and at most 1, got 1.5"),
        ({"query_tokens": 0}, ValueError, "query_tokens must be at least 1, got 0"),
    ],
)
def test_refused(changes: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        cell_capacity(**{**USUAL, **changes})
