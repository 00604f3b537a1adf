"""Geometry of tokens whose geometry is known, and cells against a count."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds

from muvera import MultiVectors
from muvera.diagnostics.geometry import cell_use, token_geometry


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
    lengths = np.linalg.norm(tokens, axis=1)
    assert geometry.mean_norm == pytest.approx(np.linalg.norm(tokens.mean(0)) / lengths.mean(), abs=1e-9)
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
    assert (geometry.tokens, geometry.zero_tokens, geometry.unit_norms) == (3, 1, False)
    assert not token_geometry(np.array([[1.0, 0], [0, 0], [0, 1]])).unit_norms
    assert token_geometry(np.array([[1.003, 0], [0, 0.997]])).unit_norms
    with pytest.raises(ValueError, match=r"2 tokens .*1"):
        token_geometry(np.array([[0.0, 0], [1, 0]]))


@given(seed=seeds, bits=st.integers(0, 4), repetitions=st.integers(1, 3), centered=st.booleans())
def test_cells_are_those_of_a_count(seed: int, bits: int, repetitions: int, centered: bool) -> None:
    rng = np.random.default_rng(seed)
    texts = [rng.normal(size=(n, 5)).astype(np.float32) for n in (3, 0, 1, 7)]
    planes = rng.normal(size=(repetitions * bits, 5)).astype(np.float32)
    center = rng.normal(size=5).astype(np.float32) if centered else None
    used, effective = [], []
    for r in range(repetitions):
        rows = planes[r * bits : (r + 1) * bits]
        codes = [
            [tuple(row @ (token - (0 if center is None else center)) > 0 for row in rows) for token in text]
            for text in texts
        ]
        used += [len(set(code)) / 2**bits for code in codes if code]
        every = [code for text in codes for code in text]
        shares = np.array([every.count(code) / len(every) for code in set(every)])
        effective.append(2 ** -(shares * np.log2(shares)).sum())
    use = cell_use(MultiVectors.from_arrays(texts), planes, repetitions, center)
    assert use.cells == 2**bits
    assert use.used_per_document == pytest.approx(np.mean(used))
    assert use.effective_cells == pytest.approx(np.mean(effective))
