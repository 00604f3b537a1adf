"""Random matrices of FDEs: their structure, and the paper's proofs, measured.

Every margin is five standard errors of the tested mean, estimated from the same draws; seeds are fixed.
"""

import dataclasses
from typing import Any

import numpy as np
import oracle
import pytest
import strategies as some
from hypothesis import given
from hypothesis import strategies as st

from muvera import FDEConfig, FDEEncoder
from muvera.encoders.base import random_stream
from muvera.encoders.fde import draw_matrices

# float32 entries of orthonormal rows, or similarities of unit vectors, summed over at most a few hundred terms.
ROUNDING = 1e-5


def projections_of(config: FDEConfig) -> np.ndarray:
    return np.asarray(draw_matrices(config).projections[:, :, : config.dimension], np.float64)


# -- structure ------------------------------------------------------------------


@pytest.mark.parametrize(("dimension", "block"), [(1, 1), (70, 7), (130, 16)])
def test_complementary_projections_lose_nothing_together(dimension: int, block: int) -> None:
    group = -(-dimension // block)
    config = FDEConfig(dimension=dimension, num_repetitions=2 * group, projection_dimension=block)
    inner = projections_of(config)
    for start in (0, group):
        total = sum(rows.T @ rows for rows in inner[start : start + group])
        np.testing.assert_allclose(total / group, np.eye(dimension), atol=ROUNDING)
    assert dimension == 1 or not np.allclose(inner[:group], inner[group:])


@pytest.mark.parametrize("projection", ["complementary", "rademacher", "count_sketch", "identity"])
@pytest.mark.parametrize("dimension", [7, 130])
def test_repetitions_do_not_depend_on_their_number(dimension: int, projection: Any) -> None:
    common: dict[str, Any] = {"dimension": dimension, "projection": projection}
    few, many = (draw_matrices(FDEConfig(num_repetitions=count, **common)) for count in (3, 17))
    np.testing.assert_allclose(few.hyperplanes, many.hyperplanes[:9], atol=ROUNDING)
    np.testing.assert_allclose(few.projections, many.projections[:3], atol=ROUNDING)
    planes = {rows.tobytes() for rows in many.hyperplanes.reshape(17, 3, -1)}
    # The next seed is not the next repetition.
    other = draw_matrices(FDEConfig(num_repetitions=17, seed=43, **common)).hyperplanes
    assert len(planes | {rows.tobytes() for rows in other.reshape(17, 3, -1)}) == 34
    if projection != "identity":
        assert len({rows.tobytes() for rows in many.projections}) == 17


def test_streams_differ() -> None:
    streams = {random_stream(0, p, *key).bytes(16) for p in range(3) for key in ((), (0,), (1,), (0, 0))}
    assert len(streams) == 12


def test_targets_are_within_the_vector() -> None:
    """Compiled code writes to them without bounds checks."""
    config = FDEConfig.preset("paper", 96, num_repetitions=2, final_projection_dimension=30)
    matrices = draw_matrices(config)
    for target in (30, -1):
        wrong = np.append(matrices.final_targets[1:], target)
        with pytest.raises(ValueError, match="'final_targets' must be within"):
            FDEEncoder(config, matrices=dataclasses.replace(matrices, final_targets=wrong))


# -- proofs ---------------------------------------------------------------------


def assert_mean(samples: list[float], wanted: float) -> None:
    error = np.std(samples, ddof=1) / np.sqrt(len(samples))
    assert abs(np.mean(samples) - wanted) < 5 * error + 1e-6, (wanted, error)


def pair(dimension: int) -> tuple[np.ndarray, np.ndarray]:
    """Return two unit vectors at an angle of 1, with most of their length in few columns."""
    rng = np.random.default_rng(dimension)
    q, p = rng.standard_normal((2, dimension)) / np.sqrt(1 + np.arange(dimension))
    q /= np.linalg.norm(q)
    p -= (p @ q) * q
    return q, np.cos(1) * q + np.sin(1) * p / np.linalg.norm(p)


@pytest.mark.parametrize("dimension", [3, 130])
@pytest.mark.parametrize("kind", ["complementary", "rademacher", "count_sketch"])
def test_inner_projections_are_unbiased(kind: Any, dimension: int) -> None:
    """E <psi(q), psi(p)> = <q, p> (Fact A.2)."""
    q, p = pair(dimension)
    common: dict[str, Any] = {"projection": kind, "projection_dimension": min(dimension, 7)}
    samples = []
    for seed in range(120):
        config = FDEConfig(dimension=dimension, num_repetitions=1, seed=seed, **common)
        (rows,) = projections_of(config)
        samples.append(float(rows @ q @ (rows @ p)))
    assert_mean(samples, float(q @ p))


@pytest.mark.parametrize("dimension", [2, 40])
def test_bits_differ_as_often_as_the_angle_says(dimension: int) -> None:
    """Pr[signs differ] = angle / pi (Claim A.4)."""
    q, p = pair(dimension)
    samples = []
    for seed in range(60):
        config = FDEConfig(dimension=dimension, num_repetitions=10, num_simhash_projections=5, seed=seed)
        normals = draw_matrices(config).hyperplanes[:, :dimension].astype(np.float64)
        samples.append(float(np.mean((normals @ q > 0) != (normals @ p > 0))))
    assert_mean(samples, 1.0 / np.pi)
    # Binomial, and a third for luck.
    assert np.std(samples) < 1.33 * np.sqrt(1 / np.pi * (1 - 1 / np.pi) / 50)


def estimate(encoder: FDEEncoder, query: np.ndarray, document: np.ndarray) -> float:
    """Return <Fq, Fd> / R in float64."""
    fdes = encoder.encode_queries(query)[0], encoder.encode_documents(document)[0]
    return float(fdes[0].astype(np.float64) @ fdes[1].astype(np.float64) / encoder.config.num_repetitions)


@given(st.data(), st.integers(1, 70), st.integers(0, 6), st.integers(1, 5))
def test_one_sided(data: st.DataObject, dimension: int, bits: int, repetitions: int) -> None:
    """Lemma A.3: with p = d and fill the estimate never exceeds Chamfer; it is exact for one token."""
    query, document = (data.draw(some.token_arrays(dimension, least=1, most=16, unit=True)) for _ in range(2))
    cells: dict[str, Any] = {"num_simhash_projections": bits, "num_repetitions": repetitions}
    seed = data.draw(st.integers(0, 1000))
    encoder = FDEEncoder(FDEConfig.preset("paper", dimension, projection="identity", seed=seed, **cells))
    assert estimate(encoder, query, document) <= oracle.chamfer(query, document) + ROUNDING
    exact = oracle.chamfer(query, document[:1])
    assert estimate(encoder, query, document[:1]) == pytest.approx(exact, abs=ROUNDING)
