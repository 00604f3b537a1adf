"""Geometry of tokens whose geometry is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds

from muvera.diagnostics.geometry import token_geometry


def unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


@given(seed=seeds, count=st.integers(2, 30), dimension=st.integers(1, 9))
def test_geometry_is_that_of_all_pairs_and_eigenvalues(seed: int, count: int, dimension: int) -> None:
    rng = np.random.default_rng(seed)
    tokens = rng.normal(size=(count, dimension)) + rng.uniform(0, 4) * rng.normal(size=dimension)
    tokens *= rng.uniform(0.1, 9, (count, 1))
    cosines = (unit(tokens) @ unit(tokens).T)[~np.eye(count, dtype=bool)]
    geometry = token_geometry(tokens)
    assert geometry.mean_cosine == pytest.approx(cosines.mean(), abs=1e-9)
    # A variance as a difference of squares loses half the digits.
    assert geometry.cosine_deviation == pytest.approx(cosines.std(), abs=1e-6)
    # The participation ratio of the eigenvalues, about zero and about the mean.
    for rows, rank in (
        (tokens, geometry.effective_rank),
        (tokens - tokens.mean(0), geometry.centered_effective_rank),
    ):
        values = np.linalg.eigvalsh(rows.T @ rows)
        assert rank == pytest.approx(values.sum() ** 2 / (values**2).sum(), rel=1e-6)


def test_norms_and_zero_vectors() -> None:
    geometry = token_geometry(np.array([[3.0, 4], [0, 0], [1, 0], [0, 2]]))
    assert geometry.norms == pytest.approx((1.0, 8 / 3, 5.0))
    assert (geometry.zero_tokens, geometry.unit_norms) == (1, False)
    assert not token_geometry(np.array([[1.0, 0], [0, 0], [0, 1]])).unit_norms
    assert token_geometry(np.array([[1.003, 0], [0, 0.997]])).unit_norms
    with pytest.raises(ValueError, match=r"2 tokens .*1"):
        token_geometry(np.array([[0.0, 0], [1, 0]]))
